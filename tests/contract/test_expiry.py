"""Rule: a value past its time is unreadable by every road. Each write sweeps a few; sweeping takes a version."""

import io
from datetime import timedelta

import msgspec
import pytest

from botwire import InvalidInput, Memory, NotFound
from botwire.ops import Dump, Get, Scan

SECRET = "the secret that expires"


@pytest.fixture
def lived(memory, clock):
    """When and at which version the value lived that has expired since; nothing has swept it."""
    memory.set("stays", {"a": 1})
    item = memory.set("gone", SECRET, ttl=60, tags=["t"], author="me")
    when = clock.at
    clock.advance(60)
    return item.version, when


ROADS = {
    "get": lambda memory, _: [memory.get("gone")],
    "item": lambda memory, _: [memory.item("gone")],
    "get_many": lambda memory, _: memory.get_many(["gone"]).values(),
    "as of a version": lambda memory, lived: [memory.get("gone", as_of=lived[0])],
    "as of a later version": lambda memory, lived: [memory.get("gone", as_of=lived[0] + 5)],
    "as of a time": lambda memory, lived: [memory.get("gone", as_of=lived[1])],
    "history": lambda memory, _: memory.history("gone"),
    "keys": lambda memory, _: [key for key in memory.list_keys() if key == "gone"],
    "keys by prefix": lambda memory, _: memory.keys("go"),
    "iteration": lambda memory, _: [key for key in memory if key == "gone"],
    "items": lambda memory, _: [item for item in memory.items() if item.key == "gone"],
    "items by time": lambda memory, _: [item for item in memory.items(order="updated") if item.key == "gone"],
    "items backwards": lambda memory, _: [item for item in memory.items(reverse=True) if item.key == "gone"],
    "items by tag": lambda memory, _: memory.items(tags=["t"]),
    "items by author": lambda memory, _: memory.items(author="me"),
    "items of the subtree": lambda memory, _: [item for item in memory.items(subtree=True) if item.key == "gone"],
    "items since": lambda memory, lived: [i for i in memory.items(since=lived[1]) if i.key == "gone"],
    "values": lambda memory, _: [value for value in memory.values() if value == SECRET],
    "in": lambda memory, _: ["gone"] if "gone" in memory else [],
    "pop": lambda memory, _: [memory.pop("gone", None)],
    "undo": lambda memory, _: [memory.undo("gone")],
    "touch": lambda memory, _: [memory.touch("gone", 60) or None],
    "delete": lambda memory, _: [memory.delete("gone") or None],
    "update": lambda memory, _: [memory.update("gone", lambda old: old).value],
    "export": lambda memory, _: [b for b in [exported(memory)] if SECRET.encode() in b],
    "records": lambda memory, _: [r for r in memory.records() if SECRET.encode() in msgspec.json.encode(r)],
    "the feed": lambda memory, _: [c for c in memory.changes("") if SECRET in repr(c)],
}


def exported(memory):
    stream = io.BytesIO()
    memory.export(stream)
    return stream.getvalue()


@pytest.mark.parametrize("swept", [False, True], ids=["unswept", "swept"])
@pytest.mark.parametrize("road", ROADS)
def test_an_expired_value_cannot_be_read(memory, lived, road, swept):
    if swept:
        memory.set("another", 1)
    found = [each for each in ROADS[road](memory, lived) if each is not None]
    assert [each for each in found if not getattr(each, "deleted", False)] == []


def test_it_counts_no_longer(memory, lived):
    assert len(memory) == 1
    assert memory.stats().items == 1
    [info] = memory.namespaces()
    assert info.items == 1
    with pytest.raises(NotFound):
        memory["gone"]
    with pytest.raises(KeyError):
        del memory["gone"]


def test_the_whole_store_counts_it_no_longer(store, clock):
    from botwire.ops import Describe

    Memory("a", store=store).set("x", 1, ttl=5)
    Memory("b", store=store).set("x", 1)
    assert store.execute([Describe("")])[0].items == 2
    clock.advance(5)
    assert store.execute([Describe("")])[0].items == 1


def test_it_does_not_come_back_in_a_copy(memory, lived, store):
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    assert copy.keys() == ["stays"]
    assert [revision for revision in copy.history("gone") if not revision.deleted] == []
    assert copy.undo("gone") is None
    assert len(copy) == 1


def test_an_export_with_expired_values_can_be_imported(memory, clock, store):
    for number in range(20):
        memory.set(f"k{number:02}", number, ttl=10 if number % 3 else None)
    memory.set("k00", "again", ttl=10)
    clock.advance(11)
    copy = Memory("copy", store=store)
    copy.import_(io.BytesIO(exported(memory)))
    assert copy.keys() == memory.keys() == [f"k{number:02}" for number in range(3, 20, 3)]
    assert len(copy) == len(memory)


def test_the_last_moment_is_the_one_before(memory, clock):
    memory.set("a", 1, ttl=60)
    clock.advance(59.999999)
    assert memory.get("a") == 1
    clock.advance(0.000001)
    assert memory.get("a") is None


def test_ttl_is_told_in_the_item(memory, clock):
    item = memory.set("a", 1, ttl=timedelta(minutes=1))
    assert item.expires_at == clock.at + timedelta(minutes=1)
    assert memory.item("a").expires_at == item.expires_at
    assert memory.set("a", 1).expires_at is None
    assert memory.item("a").expires_at is None


def test_setting_again_without_a_ttl_keeps_it_for_good(memory, clock):
    memory.set("a", 1, ttl=10)
    memory.set("a", 2)
    clock.advance(days=20_000)
    assert memory.get("a") == 2


def test_touch_moves_the_expiry_and_nothing_else(memory, clock):
    item = memory.set("a", 1, ttl=10, tags=["t"])
    clock.advance(5)
    assert memory.touch("a", 10)
    touched = memory.item("a")
    assert touched.version > item.version
    assert (touched.updated, touched.created, touched.tags) == (item.updated, item.created, item.tags)
    clock.advance(9)
    assert memory.get("a") == 1
    assert memory.touch("a")
    clock.advance(days=365)
    assert memory.get("a") == 1
    assert len(memory.history("a")) == 1


def test_update_and_increment_keep_the_time_of_expiry(memory, clock):
    memory.set("count", 1, ttl=60)
    clock.advance(30)
    assert memory.increment("count") == 2
    memory.update("count", lambda n: n + 1)
    clock.advance(29)
    assert memory.get("count") == 3
    clock.advance(1)
    assert memory.get("count") is None
    assert memory.increment("count", initial=10) == 11
    assert memory.item("count").expires is None


def test_update_with_a_ttl_sets_a_new_one(memory, clock):
    memory.set("a", 1, ttl=10)
    memory.update("a", lambda n: n + 1, ttl=100)
    clock.advance(99)
    assert memory.get("a") == 2


def test_setdefault_takes_the_place_of_what_has_expired(memory, lived):
    assert memory.setdefault("gone", "new") == "new"
    assert memory.get("gone") == "new"


def test_a_past_value_past_its_own_time_is_gone_from_history(memory, clock):
    first = memory.set("a", "short", ttl=60)
    second = memory.set("a", "long")
    assert [revision.value for revision in memory.history("a")] == ["long", "short"]
    clock.advance(60)
    assert [revision.value for revision in memory.history("a")] == ["long"]
    assert memory.get("a", as_of=first.version) is None
    assert memory.get("a", as_of=second.version) == "long"
    assert memory.undo("a") is None


@pytest.mark.parametrize("swept", [False, True], ids=["unswept", "swept"])
def test_undo_brings_back_what_was_there_before_the_expired_value(memory, clock, swept):
    memory.set("a", "before")
    memory.set("a", "expires", ttl=60)
    clock.advance(61)
    if swept:
        memory.set("another", 1)
    assert memory.undo("a").value == "before"
    assert memory.get("a") == "before"


def test_sweeping_is_a_change_that_says_expired(memory, clock):
    for number in range(5):
        memory.set(f"k{number}", number, ttl=10)
    clock.advance(10)
    cursor = memory.cursor()
    assert memory.changes(cursor) == []  # reading sweeps nothing
    memory.set("new", 1)
    changes = memory.changes(cursor)
    assert [change.kind for change in changes] == ["expired"] * 5 + ["set"]
    assert sorted(change.key for change in changes[:5]) == [f"k{number}" for number in range(5)]
    assert [change.version for change in changes] == [6, 7, 8, 9, 10, 11]
    assert memory.stats().version == 11


def test_everything_that_expired_is_swept_in_the_end_and_once(memory, clock):
    for number in range(60):
        memory.set(f"k{number}", number, ttl=10 + number)
    clock.advance(100)
    cursor = memory.cursor()
    for _ in range(60):
        memory.set("busy", 1)
    expired = [change.key for change in memory.changes(cursor, limit=1000) if change.kind == "expired"]
    assert sorted(expired) == sorted(f"k{number}" for number in range(60))


def test_writing_over_an_expired_value_is_two_changes(memory, clock):
    memory.set("a", 1, ttl=10)
    clock.advance(10)
    cursor = memory.cursor()
    item = memory.set("a", 2)
    assert [(change.kind, change.key) for change in memory.changes(cursor)] == [("expired", "a"), ("set", "a")]
    assert item.version == 3
    assert item.created_at == clock.at


def test_pages_of_a_listing_leave_expired_values_out(store, memory, clock):
    for number in range(30):
        memory.set(f"k{number:02}", number, ttl=10 if number % 2 else None)
    clock.advance(10)
    keys, cursor = [], None
    while True:
        [page] = store.execute([Scan(memory.namespace, limit=4, cursor=cursor)])
        keys += [item.key for item in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert keys == [f"k{number:02}" for number in range(0, 30, 2)]


def test_a_value_that_expires_between_two_pages_is_left_out(store, memory, clock):
    memory.set_many({"a": 1, "b": 2})
    memory.set("c", SECRET, ttl=10)
    [page] = store.execute([Scan(memory.namespace, limit=1)])
    [dump] = store.execute([Dump(memory.namespace, limit=1)])
    clock.advance(10)
    [rest] = store.execute([Scan(memory.namespace, limit=10, cursor=page.cursor)])
    assert [item.key for item in rest.items] == ["b"]
    while dump.cursor is not None:
        [dump] = store.execute([Dump(memory.namespace, limit=1, cursor=dump.cursor)])
        assert SECRET.encode() not in msgspec.json.encode(dump)


def test_reads_inside_a_batch_see_no_expired_value(store, memory, lived):
    from msgspec import Raw

    from botwire.ops import Put

    results = store.execute(
        [Get("user-42", "gone"), Put("user-42", "b", Raw(b"1")), Get("user-42", "gone"), Scan("user-42")]
    )
    assert results[0] is None
    assert results[2] is None
    assert [item.key for item in results[3].items] == ["b", "stays"]


@pytest.mark.parametrize(
    "ttl", [0, -1, float("nan"), float("inf"), 1e12, "60", True, timedelta(0), timedelta(seconds=-1)]
)
def test_a_ttl_that_makes_no_sense_is_refused(memory, ttl):
    memory.set("a", "kept")
    for attempt in (
        lambda: memory.set("a", 1, ttl=ttl),
        lambda: memory.touch("a", ttl),
        lambda: memory.set_many({"a": 1}, ttl=ttl),
        lambda: memory.update("a", lambda _: 1, ttl=ttl),
    ):
        with pytest.raises(InvalidInput):
            attempt()
    assert memory.get("a") == "kept"
    assert memory.item("a").expires is None
