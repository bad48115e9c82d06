"""Rule: each op that changes something takes one version, a no-op none, an append one per message, a clear one in all.

Versions grow by one in their namespace, are the daily meter too, and never come back.
"""

import pytest
from msgspec import Raw

from botwire import Conflict, Memory
from botwire.ops import Erase, Put


def taken(memory, action):
    """How many versions an action takes; the feed and the meter must agree."""
    before, cursor = memory.stats(), memory.cursor()
    action()
    after, changes = memory.stats(), memory.changes(cursor)
    count = after.version - before.version
    assert after.writes_today - before.writes_today == count
    assert [change.version for change in changes] == list(range(before.version + 1, after.version + 1))
    return count


@pytest.fixture
def filled(memory):
    memory.set_many({"a": 1, "b": 2, "c": 3})
    memory.set("a", 2)
    talk = memory.conversation("talk")
    talk.extend(["one", "two", "three"])
    talk.append("four", id="m4")
    return memory


CHANGES = {
    "setting a new key": (1, lambda memory: memory.set("new", 1)),
    "setting a key": (1, lambda memory: memory.set("a", 3)),
    "setting several": (2, lambda memory: memory.set_many({"x": 1, "y": 2})),
    "a delete": (1, lambda memory: memory.delete("a")),
    "a touch": (1, lambda memory: memory.touch("a", 60)),
    "an undo": (1, lambda memory: memory.undo("a")),
    "an increment": (1, lambda memory: memory.increment("a")),
    "a pop": (1, lambda memory: memory.pop("a")),
    "a setdefault": (1, lambda memory: memory.setdefault("new", 1)),
    "an append": (1, lambda memory: memory.conversation("talk").append("five")),
    "an append of three": (3, lambda memory: memory.conversation("talk").extend(["5", "6", "7"])),
    "a message popped": (1, lambda memory: memory.conversation("talk").pop()),
    "a message edited": (1, lambda memory: memory.conversation("talk").edit("m4", "changed")),
    "a message redacted": (1, lambda memory: memory.conversation("talk").redact("m4")),
    "a message deleted": (1, lambda memory: memory.conversation("talk").delete("m4")),
    "a trim of three": (1, lambda memory: memory.conversation("talk").trim(keep=1)),
    "a conversation cleared": (1, lambda memory: memory.conversation("talk").clear()),
    "everything cleared": (1, lambda memory: memory.clear()),
}
NO_OPS = {
    "deleting what is not there": lambda memory: memory.delete("x"),
    "touching what is not there": lambda memory: memory.touch("x", 60),
    "touching without effect": lambda memory: memory.touch("a"),
    "undoing what has no past": lambda memory: memory.undo("b"),
    "undoing what is not there": lambda memory: memory.undo("x"),
    "setdefault of what is there": lambda memory: memory.setdefault("a", 5),
    "popping with a default": lambda memory: memory.pop("x", None),
    "appending nothing": lambda memory: memory.conversation("talk").extend([]),
    "appending what is there": lambda memory: memory.conversation("talk").append("four", id="m4"),
    "popping from an empty conversation": lambda memory: memory.conversation("x").pop(),
    "deleting a missing message": lambda memory: memory.conversation("talk").delete("x"),
    "trimming nothing": lambda memory: memory.conversation("talk").trim(keep=10),
    "trimming no conversation": lambda memory: memory.conversation("x").trim(keep=0),
    "clearing no conversation": lambda memory: memory.conversation("x").clear(),
    "an empty set_many": lambda memory: memory.set_many({}),
    "configuring": lambda memory: memory.configure(history=3),
    "reading": lambda memory: [
        memory.get("a"),
        memory.history("a"),
        memory.keys(),
        list(memory.items()),
        memory.stats(),
        list(memory.records()),
        memory.conversation("talk").messages(),
        memory.changes(""),
    ],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_takes_a_version(filled, name):
    count, action = CHANGES[name]
    assert taken(filled, lambda: action(filled)) == count


@pytest.mark.parametrize("name", NO_OPS)
def test_a_no_op_takes_none(filled, name):
    assert taken(filled, lambda: NO_OPS[name](filled)) == 0


def test_clearing_an_empty_namespace_is_a_no_op(memory):
    assert taken(memory, memory.clear) == 0
    memory.set("a", 1)
    memory.clear()
    assert taken(memory, memory.clear) == 0


def test_a_failed_write_takes_none(filled):
    def fail():
        with pytest.raises(Conflict):
            filled.set("a", 1, if_version=99)
        with pytest.raises(Conflict):
            filled.conversation("talk").append("x", if_version=99)

    assert taken(filled, fail) == 0


def test_versions_count_from_one_in_each_namespace(store):
    one, two = Memory("one", store=store), Memory("two", store=store)
    assert [one.set("a", 1).version, two.set("a", 1).version, one.set("a", 2).version] == [1, 1, 2]
    assert [message.version for message in two.conversation("t").extend(["a", "b"])] == [2, 3]
    assert (one.stats().version, two.stats().version) == (2, 3)


def test_versions_never_come_back_after_an_erase(store):
    memory, other = Memory("user-42", store=store), Memory("other", store=store)
    seen, cursors = [], []
    for _ in range(4):
        seen += [memory.set("a", 1).version, memory.set("b", 1).version]
        cursors.append(memory.cursor())
        memory.erase()
        with pytest.raises(Conflict):
            memory.set("a", 1, if_version=seen[-2])
    assert seen == sorted(set(seen))
    assert other.set("a", 1).version > seen[-1]  # the mark is the store's: it cannot know which name comes next
    assert len(set(cursors)) == 4


def test_versions_go_on_after_a_clear_and_an_erased_key(memory):
    memory.set("a", 1)
    memory.set("b", 1)
    memory.clear()
    assert memory.set("a", 1).version == 4
    memory.erase("a")
    assert memory.set("a", 1).version > 5


def test_a_subtree_that_is_erased_and_made_again_starts_above_its_highest_version(store):
    deep = Memory("a/b/c", store=store)
    for _ in range(7):
        deep.set("k", 1)
    Memory("a", store=store).set("k", 1)
    Memory("a", store=store).erase(subtree=True)
    assert Memory("a", store=store).set("k", 1).version > 7
    assert deep.set("k", 1).version > 7


def test_an_erase_and_a_write_in_one_batch_still_start_above(store):
    memory = Memory("user-42", store=store)
    last = [memory.set("a", number).version for number in range(5)][-1]
    _, stamp = store.execute([Erase("user-42"), Put("user-42", "a", Raw(b"1"))])
    assert stamp.version > last
    assert [item.version for item in memory.items()] == [stamp.version]


def test_the_meter_begins_anew_each_day(memory, clock):
    memory.set("a", 1)
    memory.conversation("t").extend(["x", "y"])
    assert memory.stats().writes_today == 3
    clock.advance(days=1)
    assert memory.stats().writes_today == 0
    memory.set("a", 2)
    assert memory.stats().writes_today == 1
