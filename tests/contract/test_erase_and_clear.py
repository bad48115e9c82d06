"""Rule: a clear deletes and can be undone; an erase destroys all there was, and the horizon rises."""

import pytest

from botwire import Conflict, HistoryExpired, InvalidInput, Memory, TooLarge
from botwire.ops import Clear, Erase, Erased, Namespaces, Removed


@pytest.fixture
def filled(memory):
    memory.set("a", "a1")
    memory.set("a", "a2", tags=["t"])
    memory.set("b", "b1", ttl=1_000)
    memory.set("c", "c1")
    memory.delete("c")
    memory.conversation("talk").extend([{"role": "user", "content": "hi"}, "there"])
    memory.conversation("other").append("x", id="m1")
    return memory


def visible(memory):
    """All that a memory answers, apart from its counters."""
    return {
        "items": list(memory.items()),
        "histories": {key: memory.history(key) for key in ("a", "b", "c")},
        "conversations": [info.name for info in memory.conversations()],
        "messages": [memory.conversation(name).messages() for name in ("talk", "other")],
        "records": [
            record for record in memory.records() if type(record).__name__ not in ("NamespaceRecord", "EndRecord")
        ],
    }


EMPTY = {
    "items": [],
    "histories": {"a": [], "b": [], "c": []},
    "conversations": [],
    "messages": [[], []],
    "records": [],
}


def test_clear_deletes_everything_and_keeps_the_past_of_items(filled):
    removed = filled.clear()
    assert (removed.items, removed.messages) == (2, 3)
    assert (filled.keys(), list(filled.conversations()), len(filled)) == ([], [], 0)
    assert filled.conversation("talk").messages() == []
    stats = filled.stats()
    assert (stats.items, stats.messages, stats.conversations) == (0, 0, 0)
    assert [each.deleted for each in filled.history("a")] == [True, False, False]
    assert filled.undo("a").value == "a2"
    assert filled.get("b", as_of=removed.version - 1) == "b1"


def test_clearing_nothing_answers_nothing(store, memory):
    assert memory.clear() == Removed()
    assert memory.conversation("x").clear() == 0
    assert list(memory.namespaces()) == []


def test_many_items_are_cleared_in_one_go(memory, rounds):
    count = rounds(1_300, 20_000)
    memory.set_many({f"k{number}": number for number in range(count)} if count <= 10_000 else {})
    for start in range(0, count, 5_000) if count > 10_000 else ():
        memory.set_many({f"k{number}": number for number in range(start, start + 5_000)})
    version = memory.stats().version
    removed = memory.clear()
    assert (removed.items, removed.version) == (count, version + 1)
    assert len(memory) == 0
    assert memory.undo("k700").value == 700


def test_clearing_one_conversation_leaves_the_rest(filled):
    assert filled.conversation("talk").clear() == 2
    assert [info.name for info in filled.conversations()] == ["other"]
    assert filled.keys() == ["a", "b"]


def test_an_erased_namespace_is_as_if_it_had_never_been(filled, store):
    other = Memory("user-421", store=store)
    other.set("a", "kept")
    filled.configure(history=3, max_items=7)
    erased = filled.erase()
    assert (erased.items, erased.messages, erased.namespaces) == (2, 3, 1)
    assert not erased.pending
    assert visible(filled) == EMPTY
    stats = filled.stats()
    assert (stats.version, stats.items, stats.messages, stats.bytes, stats.writes_today) == (0, 0, 0, 0, 0)
    assert stats.policy.max_items == 0
    assert [each.name for each in store.execute([Namespaces("")])[0].namespaces] == ["user-421"]
    assert filled.undo("a") is None
    assert other.get("a") == "kept"


def test_a_namespace_made_again_shows_nothing_of_its_earlier_life(filled):
    old = filled.item("a").version
    filled.erase()
    new = filled.set("a", "new life")
    assert new.version > old
    assert [each.value for each in filled.history("a")] == ["new life"]
    assert filled.undo("a") is None
    with pytest.raises(Conflict):
        filled.set("a", 1, if_version=old)
    assert filled.conversation("talk").messages() == []
    assert filled.conversation("talk").append("again", if_version=0).version > old


def test_an_erased_key_is_gone_with_its_past(filled):
    version = filled.item("a").version
    stats = filled.stats()
    erased = filled.erase("a")
    assert (erased.items, erased.messages) == (1, 0)
    assert filled.get("a") is None
    assert filled.history("a") == []
    assert filled.undo("a") is None
    with pytest.raises(HistoryExpired):
        filled.get("a", as_of=version)
    assert filled.keys() == ["b"]
    assert filled.undo("c").value == "c1"
    assert filled.stats().bytes < stats.bytes
    assert filled.erase("a") == Erased()


def test_the_past_of_a_deleted_key_can_be_erased(filled):
    erased = filled.erase("c")
    assert erased.items == 0
    assert filled.history("c") == []
    assert filled.undo("c") is None


def test_a_long_past_is_erased_whole(memory):
    memory.configure(history=100)
    for number in range(60):
        memory.set("a", f"{number}" * 300)
    memory.erase("a")
    assert memory.stats().bytes == 0
    memory.set("a", "new")
    assert [each.value for each in memory.history("a")] == ["new"]


def test_an_erased_conversation_is_gone_alone(filled):
    assert filled.erase(conversation="talk").messages == 2
    assert [info.name for info in filled.conversations()] == ["other"]
    assert filled.conversation("talk").messages() == []
    assert filled.conversation("other").message("m1").value == "x"
    assert filled.stats().messages == 1
    assert filled.erase(conversation="talk") == Erased()


def test_a_subtree_is_erased_without_its_neighbours(store):
    names = ["a", "ab", "a!", "a/b", "a/b/c", "a.b", "b"]
    for name in names:
        Memory(name, store=store).set("k", name)
    erased = Memory("a", store=store).erase(subtree=True)
    assert (erased.items, erased.namespaces) == (3, 3)
    assert [each.name for each in store.execute([Namespaces("")])[0].namespaces] == ["a!", "a.b", "ab", "b"]
    assert Memory("a/b", store=store).get("k") is None


def test_erasing_a_namespace_leaves_those_below_it(store):
    for name in ("a", "a/b"):
        Memory(name, store=store).set("k", name)
    Memory("a", store=store).erase()
    assert Memory("a/b", store=store).get("k") == "a/b"


def test_the_whole_store_can_be_erased(store):
    for name in ("a", "b/c"):
        Memory(name, store=store).set("k", 1)
    assert store.execute([Erase("", subtree=True)])[0].namespaces == 2
    assert store.execute([Namespaces("")])[0].namespaces == []
    assert Memory("a", store=store).set("k", 1).version > 1


def test_erasing_nothing_answers_nothing_and_spoils_nothing(memory):
    assert memory.erase() == memory.erase(subtree=True) == memory.erase("a") == Erased()
    memory.set("b", 1)
    cursor = memory.cursor()
    assert memory.erase("a") == memory.erase(conversation="a") == Erased()
    memory.set("b", 2)
    assert [change.kind for change in memory.changes(cursor)] == ["set"]


def test_an_erase_names_one_thing(memory):
    with pytest.raises(InvalidInput, match="at most one"):
        memory.erase("a", conversation="b")
    with pytest.raises(InvalidInput, match="at most one"):
        memory.erase("a", subtree=True)
    with pytest.raises(InvalidInput):
        Clear("user-42", "")
    with pytest.raises(TooLarge):
        memory.erase("a" * 513)


def test_reading_while_others_erase_finds_all_or_nothing(store, rounds):
    """A read comes from before or from after, never from the middle."""
    import threading

    memory = Memory("user-42", store=store)
    stop, seen = threading.Event(), set()

    def look():
        while not stop.is_set():
            seen.add(tuple(memory.get_many(["a", "b"]).items()))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(rounds(15, 500)):
            memory.set_many({"a": number, "b": number})
            memory.erase()
    finally:
        stop.set()
        reader.join()
    assert all(entry == () or (len(entry) == 2 and entry[0][1] == entry[1][1]) for entry in seen)
