"""Rule: `if_version=n` (0: must not exist), or `Conflict`, which carries the current version."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import Raw

from botwire import Conflict, InvalidInput
from botwire.ops import Delete, Put


def test_the_current_version_is_let_through_and_any_other_refused(memory):
    first = memory.set("a", 1, if_version=0)
    second = memory.set("a", 2, if_version=first.version)
    for wrong in (0, first.version, second.version + 1, 2**62):
        with pytest.raises(Conflict) as raised:
            memory.set("a", 3, if_version=wrong)
        assert raised.value.version == second.version
    assert memory.get("a") == 2


def test_a_missing_key_has_version_0(memory):
    with pytest.raises(Conflict) as raised:
        memory.set("a", 1, if_version=5)
    assert raised.value.version == 0
    memory.set("a", 1, if_version=0)
    memory.delete("a")
    memory.set("a", 2, if_version=0)
    assert memory.get("a") == 2


def test_an_expired_key_has_version_0(memory, clock):
    old = memory.set("a", 1, ttl=10)
    clock.advance(11)
    with pytest.raises(Conflict) as raised:
        memory.set("a", 2, if_version=old.version)
    assert raised.value.version == 0
    memory.set("a", 2, if_version=0)
    assert memory.get("a") == 2


def test_deletes_and_touches_compare_too(memory):
    item = memory.set("a", 1)
    for act in (memory.delete, lambda key, if_version: memory.touch(key, 60, if_version=if_version)):
        with pytest.raises(Conflict) as raised:
            act("a", if_version=item.version + 1)
        assert raised.value.version == item.version
    assert memory.touch("a", 60, if_version=item.version)
    with pytest.raises(Conflict):
        memory.delete("a", if_version=item.version)  # the touch has made a new version
    assert memory.delete("a", if_version=memory.item("a").version)


def test_deleting_a_missing_key_at_a_version_is_a_conflict(memory):
    with pytest.raises(Conflict):
        memory.delete("a", if_version=1)
    assert memory.delete("a", if_version=0) is False


def test_a_lost_compare_undoes_the_batch_and_says_which_version_holds(memory):
    item = memory.set("a", 1)
    ops = [Put("user-42", "b", Raw(b"1")), Put("user-42", "a", Raw(b"2"), if_version=99)]
    with pytest.raises(Conflict) as raised:
        memory.execute(ops)
    assert raised.value.version == item.version
    assert memory.get_many(["a", "b"]) == {"a": 1}


def test_only_one_of_many_wins(memory):
    version = memory.set("a", "start").version

    def race(number):
        try:
            memory.set("a", number, if_version=version)
        except Conflict as conflict:
            return conflict.version
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(24)))
    assert outcomes.count(None) == 1
    assert set(outcomes) == {None, version + 1}
    assert memory.get("a") == outcomes.index(None)


def test_a_conversation_compares_the_version_of_its_last_message(memory):
    talk = memory.conversation("t")
    first = talk.append("a", if_version=0)
    with pytest.raises(Conflict) as raised:
        talk.append("b", if_version=0)
    assert raised.value.version == first.version
    second, third = talk.extend(["b", "c"], if_version=first.version)
    with pytest.raises(Conflict):
        talk.append("d", if_version=second.version)
    memory.set("unrelated", 1)
    talk.append("d", if_version=third.version)
    assert [message.value for message in talk.messages()] == ["a", "b", "c", "d"]


def test_a_conversation_whose_last_message_was_taken_compares_with_the_one_that_is_last_now(memory):
    talk = memory.conversation("t")
    first, _ = talk.extend(["a", "b"])
    talk.pop()
    talk.append("c", if_version=talk.messages(last=1)[0].version)
    assert [message.value for message in talk.messages()] == ["a", "c"]
    assert talk.messages()[0].version == first.version


@pytest.mark.parametrize("wrong", [-1, True, 1.0, "1", 2**63])
def test_what_is_no_version_is_refused(wrong):
    with pytest.raises(InvalidInput, match="if_version"):
        Put("a", "b", Raw(b"1"), if_version=wrong)
    with pytest.raises(InvalidInput, match="if_version"):
        Delete("a", "b", if_version=wrong)


def test_a_conflict_can_be_pickled(memory):
    memory.set("a", 1)
    with pytest.raises(Conflict) as raised:
        memory.set("a", 1, if_version=0)
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (copy.version, str(copy)) == (1, str(raised.value))
    assert "'a'" in str(copy)
    assert "version 1" in str(copy)
