"""Rule: `execute(ops)` runs in order, all or nothing, and answers one result for each op."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import Raw

from botwire import BotWireError, Conflict, InvalidInput, Memory, Policy
from botwire.ops import (
    MAX_OPS,
    Append,
    Changes,
    Clear,
    Configure,
    Delete,
    Describe,
    Erase,
    Get,
    History,
    Item,
    ItemPage,
    Messages,
    Namespaces,
    NewMessage,
    Put,
    Removed,
    Scan,
    Stamp,
    Touch,
)


def put(key, value="1", namespace="user-42", **more):
    return Put(namespace, key, Raw(value.encode()), **more)


FAILING = put("fails", if_version=99)


def everything(store):
    """All that can be read from a store."""
    names = [each.name for each in store.execute([Namespaces("")])[0].namespaces]
    return [
        (
            store.execute([Describe(name), Scan(name), Changes(name, ""), Changes(name, None)]),
            [store.execute([History(name, item.key)]) for item in store.execute([Scan(name)])[0].items],
            list(Memory(name, store=store).records()),
        )
        for name in names
    ]


def test_every_op_has_its_own_answer_in_order(store):
    results = store.execute(
        [put("a"), Get("user-42", "a"), Delete("user-42", "b"), Scan("user-42"), Clear("user-42"), Get("user-42", "a")]
    )
    assert [type(each) for each in results] == [Stamp, Item, type(None), ItemPage, Removed, type(None)]


def test_a_batch_reads_its_own_writes(store):
    _, read, _, again, page, history = store.execute(
        [
            put("a", "1"),
            Get("user-42", "a"),
            put("a", "2"),
            Get("user-42", "a"),
            Scan("user-42"),
            History("user-42", "a"),
        ]
    )
    assert (read.value, again.value) == (1, 2)
    assert [item.value for item in page.items] == [2]
    assert [revision.value for revision in history] == [2, 1]


def test_an_empty_batch_answers_nothing(store):
    assert store.execute([]) == []


@pytest.mark.parametrize(
    "ops",
    [
        [put("a", "2"), put("new"), FAILING],
        [Delete("user-42", "a"), FAILING],
        [Touch("user-42", "a", 60), FAILING],
        [Append("user-42", "talk", [NewMessage(Raw(b'"hi"'))]), FAILING],
        [Append("user-42", "new talk", [NewMessage(Raw(b'"hi"'))]), FAILING],
        [Clear("user-42"), FAILING],
        [Clear("user-42", "talk"), FAILING],
        [Erase("user-42"), FAILING],
        [Erase("user-42", "a"), FAILING],
        [Erase("other"), put("a", namespace="other"), FAILING],
        [Configure("user-42", Policy(history=0)), FAILING],
        [Configure("", Policy(history=0)), FAILING],
        [put("a", namespace="other"), put("a", namespace="brand-new"), FAILING],
    ],
    ids=lambda ops: " ".join(type(op).__name__ for op in ops[:-1]),
)
def test_a_batch_that_fails_leaves_no_trace(store, ops):
    store.execute([put("a"), put("a", "2"), Append("user-42", "talk", [NewMessage(Raw(b'"hello"'))])])
    store.execute([put("a", namespace="other")])
    before = everything(store)
    with pytest.raises(Conflict):
        store.execute(ops)
    assert everything(store) == before

    # … and none in what later writes do.
    stamp, other, new = store.execute([put("a"), put("a", namespace="other"), put("a", namespace="brand-new")])
    assert (stamp.version, other.version, new.version) == (4, 2, 1)
    assert store.execute([Describe("brand-new")])[0].policy == before[0][0][0].policy


def test_a_batch_that_fails_does_not_disturb_those_that_come_after_it_in_one_go(store):
    def write(number):
        ops = [put(f"k{number}"), put("k", if_version=99)] if number % 2 else [put(f"k{number}"), put(f"l{number}")]
        try:
            store.execute(ops)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(write, range(40)))
    assert done == [number % 2 == 0 for number in range(40)]
    keys = Memory("user-42", store=store).keys()
    assert keys == sorted([f"k{number}" for number in range(0, 40, 2)] + [f"l{number}" for number in range(0, 40, 2)])
    assert Memory("user-42", store=store).stats().version == 40


def move(store, amount):
    """Move an amount from one account to the other, again and again until nobody was faster."""
    while True:
        one, two = store.execute([Get("bank", "one"), Get("bank", "two")])
        ops = [
            put("one", str(one.value - amount), "bank", if_version=one.version),
            put("two", str(two.value + amount), "bank", if_version=two.version),
        ]
        try:
            return store.execute(ops)
        except Conflict:
            continue


def test_nobody_sees_half_a_batch(store, rounds):
    """Two accounts whose sum stays the same, moved by some threads and read by others."""
    memory = Memory("bank", store=store)
    memory.set_many({"one": 500, "two": 500})
    stop, sums = threading.Event(), set()

    def look():
        while not stop.is_set():
            sums.add(sum(memory.get_many(["one", "two"]).values()))
            sums.add(sum(item.value for item in memory.items()))

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(look) for _ in range(2)]
        list(pool.map(lambda amount: move(store, amount), range(rounds(60, 5_000))))
        stop.set()
        for reader in readers:
            reader.result()
    assert sums == {1000}
    assert memory.stats().version == 2 + 2 * rounds(60, 5_000)


def test_a_batch_spans_namespaces(store):
    store.execute([put("a", namespace="x"), put("a", namespace="y/z"), put("b", namespace="x")])
    assert [each.name for each in Memory("x", store=store).namespaces()] == ["x"]
    assert Memory("x", store=store).keys() == ["a", "b"]
    assert Memory("y/z", store=store).keys() == ["a"]


def test_a_with_block_that_ends_badly_writes_nothing(memory):
    with pytest.raises(ZeroDivisionError), memory.batch() as batch:
        batch.set("a", 1 / 0)
    assert memory.keys() == []
    assert memory.stats().version == 0


def test_a_batch_of_a_memory_holds_its_results(memory):
    memory.set("old", 1)
    memory.set("gone", 1)
    memory.conversation("done").append("x")
    with memory.batch() as batch:
        batch.set("a", {"x": 1}, tags=["t"], author="me")
        batch.delete("gone")
        batch.delete("missing")
        batch.touch("old", 60)
        batch.append("talk", {"role": "user", "content": "hi"}, id="m1")
        batch.clear("done")
        assert len(batch) == 6
        assert memory.get("a") is None  # nothing happens before the end
    assert [getattr(result, "version", None) for result in batch.results[:4]] == [4, 5, None, 6]
    assert batch.results[4][0].version == 7
    assert batch.results[5].messages == 1
    item = memory.item("a")
    assert item is not None
    assert (item.value, item.tags, item.author) == ({"x": 1}, ("t",), "me")
    assert memory.conversation("talk").messages()[0].id == "m1"


def test_an_empty_batch_block_is_no_write(memory):
    with memory.batch():
        pass
    assert memory.stats().version == 0


def test_set_many_is_all_or_nothing(memory):
    with pytest.raises(BotWireError):
        memory.set_many({"a": 1, "b": float("nan")})
    memory.configure(max_items=2)
    with pytest.raises(BotWireError):
        memory.set_many({"a": 1, "b": 2, "c": 3})
    assert memory.keys() == []
    assert [item.version for item in memory.set_many({"b": 1, "a": 2})] == [1, 2]
    assert memory.set_many({}) == []


def test_too_many_ops_and_things_that_are_no_ops_are_refused(store):
    with pytest.raises(InvalidInput, match="10,000"):
        store.execute([Get("a", "b")] * (MAX_OPS + 1))
    with pytest.raises(InvalidInput, match="no op"):
        store.execute(["drop table"])
    with pytest.raises(InvalidInput, match="no op"):
        store.execute([put("a"), object()])
    assert store.execute([Messages("user-42", "x")])[0].messages == []
