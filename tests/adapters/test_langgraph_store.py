"""`BotWireStore`, as LangGraph's users call it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from langgraph.store.sqlite.aio import AsyncSqliteStore

from botwire import InvalidInput, Memory, TooLarge
from botwire.ops import Scan
from botwire.stores.encrypted import generate_key
from botwire_langgraph import BotWireStore
from botwire_langgraph.naming import Names, escape, unescape

USERS = ("users", "ana")
MOMENT = 0.02 / 60  # minutes: 20 ms, as a time to live


@pytest.fixture
def store(url, namespace):
    return BotWireStore(namespace=namespace, url=url)


def keys(found):
    return sorted(item.key for item in found)


# ── one item ──


def test_what_was_put_is_read_with_its_namespace_and_times(store):
    before = datetime.now(UTC)
    store.put(USERS, "coffee", {"likes": ["Sidamo"], "cups": 3, "sugar": None})
    item = store.get(USERS, "coffee")
    assert item.value == {"likes": ["Sidamo"], "cups": 3, "sugar": None}
    assert (item.namespace, item.key) == (USERS, "coffee")
    assert before.timestamp() - 1 < item.created_at.timestamp() <= item.updated_at.timestamp()
    assert type(item).__name__ == "Item"


def test_an_overwritten_item_keeps_when_it_was_created(store):
    store.put(USERS, "coffee", {"v": 1})
    first = store.get(USERS, "coffee")
    store.put(USERS, "coffee", {"v": 2})
    second = store.get(USERS, "coffee")
    assert second.value == {"v": 2}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at


def test_a_deleted_item_and_one_that_never_was_are_none(store):
    store.put(USERS, "coffee", {"v": 1})
    store.delete(USERS, "coffee")
    store.delete(USERS, "tea")
    assert store.get(USERS, "coffee") is None
    assert store.get(USERS, "tea") is None
    assert store.search(()) == []


def test_what_was_put_is_there_in_a_new_process(url, namespace, in_a_new_process):
    BotWireStore(namespace=namespace, url=url).put(("a/b", "c"), "coffee", {"likes": "Sidamo"})
    script = (
        "import os\nfrom botwire_langgraph import BotWireStore\n"
        "store = BotWireStore(namespace=os.environ['NAMESPACE'], url=os.environ['URL'])\n"
        "print(store.get(('a/b', 'c'), 'coffee').value, store.list_namespaces())"
    )
    said = in_a_new_process(script, NAMESPACE=namespace, URL=url)
    assert said.strip() == "{'likes': 'Sidamo'} [('a/b', 'c')]"


def test_a_memory_of_ones_own_is_shared_with_everything_else_that_uses_it(url, namespace):
    memory = Memory(namespace, url)
    memory.set("coffee", "Sidamo")
    memory.set("tea", {"likes": "Earl Grey"})
    store: Any = BotWireStore(memory=memory)
    assert store.get((), "coffee").value == {"value": "Sidamo"}
    assert store.get((), "tea").value == {"likes": "Earl Grey"}
    store.put(("notes",), "a", {"n": 1})
    assert Memory(f"{namespace}/notes", url).get("a") == {"n": 1}
    assert keys(store.search((), filter={"value": "Sidamo"})) == ["coffee"]
    assert store.list_namespaces() == [(), ("notes",)]


# ── namespaces ──


@pytest.mark.parametrize(
    "labels",
    [("a/b",), ("a", "b"), ("a%2Fb",), ("%",), ("100%", "/"), ("zeile\nzwei",), ("\x7f\x85",), ("ü💡",), (" ", "x")],
)
def test_any_label_comes_back_as_it_was(store, labels):
    others = [("a/b",), ("a", "b"), ("a%2Fb",)]
    for each in {labels, *others}:
        store.put(each, "k", {"at": list(each)})
    assert store.get(labels, "k").value == {"at": list(labels)}
    assert labels in store.list_namespaces()
    assert store.search(labels)[0].namespace == labels


@given(st.lists(st.text(st.characters(exclude_characters=".\x00"), min_size=1), max_size=4).map(tuple))
def test_labels_and_names_are_one_to_one(labels):
    names = Names("graph")
    name = names.of(labels)
    assert names.labels(name) == labels
    assert name.count("/") == len(labels)


@given(st.text(), st.text())
def test_no_two_labels_are_one_level(left, right):
    assert (escape(left) == escape(right)) == (left == right)
    assert unescape(escape(left)) == left


def test_a_prefix_is_of_whole_labels(store):
    for labels in [("user",), ("users",), ("user", "a"), ("usera",)]:
        store.put(labels, "-".join(labels), {})
    assert keys(store.search(("user",))) == ["user", "user-a"]
    assert len(store.search(())) == 4


def test_a_prefix_in_another_case_is_another_one(store):
    store.put(("Foo",), "k", {})
    assert store.search(("foo",)) == []


@pytest.mark.parametrize("labels", ["users", ("a.b",), ("",), (1,), ("a\x00",), (["a"],), 7, None])
def test_what_is_no_namespace_is_refused_by_every_op(store, labels):
    for op in (GetOp(labels, "k"), PutOp(labels, "k", {}), SearchOp(labels)):
        with pytest.raises(InvalidNamespaceError):
            store.batch([op])
    assert store.list_namespaces() == []


def test_namespaces_that_langgraph_reserves_are_refused(store):
    with pytest.raises(InvalidNamespaceError):
        store.put((), "k", {})
    with pytest.raises(InvalidNamespaceError):
        store.put(("langgraph",), "k", {})


def test_names_that_are_too_long_are_refused_before_anything_is_written(store):
    store.put(USERS, "coffee", {"v": 1})
    for op in (PutOp(("x" * 600,), "k", {}), PutOp(USERS, "k" * 513, {}), PutOp(USERS, "", {}), PutOp(USERS, "\n", {})):
        with pytest.raises(InvalidInput):
            store.batch([PutOp(USERS, "coffee", {"v": 2}), op])
    assert store.get(USERS, "coffee").value == {"v": 1}
    with pytest.raises(TooLarge, match="limit is 512"):
        store.get(("x" * 600,), "k")


def test_namespaces_are_listed_by_condition_depth_and_page(store):
    names = [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"), ("a", "b", "f"), ("a", "c", "f"), ("a!",)]
    for each in names:
        store.put(each, "k", {})
    assert store.list_namespaces() == sorted(names)
    assert store.list_namespaces(prefix=("a", "b"), max_depth=3) == [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]
    assert store.list_namespaces(suffix=("f",)) == [("a", "b", "f"), ("a", "c", "f")]
    assert store.list_namespaces(prefix=("a", "*", "f")) == [("a", "b", "f"), ("a", "c", "f")]
    assert store.list_namespaces(suffix=("d", "*")) == [("a", "b", "d", "e"), ("a", "b", "d", "i")]
    assert store.list_namespaces(prefix=("a", "b"), suffix=("f",)) == [("a", "b", "f")]
    assert store.list_namespaces(limit=2, offset=1) == sorted(names)[1:3]
    assert store.list_namespaces(limit=0) == []


def test_many_namespaces_are_all_listed(store):
    store.batch([PutOp((f"n{number:04}",), "k", {}) for number in range(1_100)])
    assert len(store.list_namespaces(limit=5_000)) == 1_100
    assert store.list_namespaces(limit=2, offset=1_050) == [("n1050",), ("n1051",)]


def test_a_namespace_that_holds_nothing_any_more_is_not_listed(store):
    store.put(USERS, "coffee", {})
    store.delete(USERS, "coffee")
    assert store.list_namespaces() == []


def test_unknown_conditions_and_negative_pages_are_refused(store):
    condition = MatchCondition("middle", ("a",))  # type: ignore[arg-type]  # that is the point
    for op in (
        ListNamespacesOp(match_conditions=(condition,)),
        ListNamespacesOp(limit=-1),
        SearchOp((), limit=-1),
        SearchOp((), offset=-1),
        SearchOp((), limit=1.5),  # type: ignore[arg-type]  # that is the point
    ):
        with pytest.raises(ValueError, match=r"match type|zero or more"):
            store.batch([op])


# ── batches ──


def test_reads_see_the_store_as_it_was_and_the_last_put_of_a_key_holds(store):
    store.put(USERS, "old", {"v": 0})
    answers = store.batch(
        [
            PutOp(USERS, "new", {"v": 1}),
            PutOp(USERS, "new", {"v": 2}),
            GetOp(USERS, "new"),
            PutOp(USERS, "old", None),
            GetOp(USERS, "old"),
            SearchOp(USERS),
            ListNamespacesOp(),
        ]
    )
    assert answers[:4] == [None, None, None, None]
    assert answers[4].value == {"v": 0}
    assert keys(answers[5]) == ["old"]
    assert answers[6] == [USERS]
    assert store.get(USERS, "new").value == {"v": 2}
    assert store.get(USERS, "old") is None


def test_a_batch_with_one_bad_op_changes_nothing(store):
    with pytest.raises(ValueError, match="at value"):
        store.batch([PutOp(USERS, "a", {"v": 1}), PutOp(USERS, "b", {"v": object()})])
    with pytest.raises(ValueError, match="Unknown operation type"):
        store.batch([PutOp(USERS, "a", {"v": 1}), "get it"])
    assert store.search(()) == []


def test_an_empty_batch_answers_nothing(store):
    assert store.batch([]) == []
    assert store.batch(iter([GetOp(USERS, "k")])) == [None]


# ── values ──


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {"b": object()}]}, r"value\['a'\]\[1\]\['b'\]"),
        ({"a": {"b": math.nan}}, r"value\['a'\]\['b'\]"),
        ({"ok": 1, "f": print}, r"value\['f'\]"),
        ([1, 2], "must be a dict"),
        ("text", "must be a dict"),
        ({1: "one"}, "str keys"),
    ],
)
def test_a_value_that_is_no_json_is_refused_and_its_place_is_named(store, value, place):
    with pytest.raises(ValueError, match=place):
        store.put(USERS, "k", value)
    assert store.get(USERS, "k") is None


def test_a_value_that_contains_itself_is_refused(store):
    loop: dict[str, Any] = {}
    loop["self"] = {"again": loop}
    with pytest.raises(ValueError, match=r"value\['self'\]"):
        store.put(USERS, "k", loop)


def test_a_value_that_is_too_large_is_refused(store):
    with pytest.raises(TooLarge):
        store.put(USERS, "k", {"text": "x" * 1_100_000})


def test_any_mapping_is_a_value(store):
    store.put(USERS, "k", MappingProxyType({"a": 1}))
    assert store.get(USERS, "k").value == {"a": 1}


# ── searching ──

PEOPLE = {
    "ana": {"age": 31, "city": "Rome", "tags": ["x", "y"], "home": {"zip": "1"}, "vip": True},
    "ben": {"age": 25, "city": "Oslo", "tags": [], "home": {"zip": "2", "floor": 3}},
    "cleo": {"age": 31.5, "city": None},
    "dan": {"city": "Rome", "age": "40"},
}


@pytest.mark.parametrize(
    ("wanted", "who"),
    [
        ({"city": "Rome"}, ["ana", "dan"]),
        ({"city": {"$eq": "Rome"}, "age": 31}, ["ana"]),
        ({"city": {"$ne": "Rome"}}, ["ben", "cleo"]),
        ({"age": {"$gt": 25}}, ["ana", "cleo", "dan"]),
        ({"age": {"$gte": 25, "$lt": 31.5}}, ["ana", "ben"]),
        ({"age": {"$lte": 31}}, ["ana", "ben"]),
        ({"home": {"zip": "2"}}, ["ben"]),
        ({"home": {"zip": {"$ne": "1"}}}, ["ben"]),
        ({"home": {"$ne": {"zip": "1"}}}, ["ben", "cleo", "dan"]),
        ({"vip": {"$ne": True}}, ["ben", "cleo", "dan"]),
        ({"vip": None}, ["ben", "cleo", "dan"]),
        ({"tags": ["x", "y"]}, ["ana"]),
        ({"home.zip": "1"}, []),
        ({"home.zip": {"$ne": "1"}}, ["ana", "ben", "cleo", "dan"]),
        ({"city": {"$gt": "P"}}, ["ana", "dan"]),
        ({}, ["ana", "ben", "cleo", "dan"]),
    ],
)
def test_filters_choose_what_they_say(store, wanted, who):
    for name, value in PEOPLE.items():
        store.put(("people",), name, value)
    assert keys(store.search(("people",), filter=wanted)) == who


@pytest.mark.parametrize(
    "wanted", [{"age": {"$in": [1]}}, {"age": {"$gt": 1, "x": 2}}, {"a": {"b": {"$like": ""}}}, [1]]
)
def test_unknown_operators_are_refused_even_when_there_is_nothing_to_filter(store, wanted):
    with pytest.raises(ValueError, match=r"Unsupported operator|must be a dict"):
        store.search((), filter=wanted)


def test_without_a_query_the_newest_come_first_page_by_page(store):
    for number in range(7):
        store.put(("n",), f"k{number}", {"even": number % 2 == 0})
    assert [item.key for item in store.search(("n",), limit=3)] == ["k6", "k5", "k4"]
    assert [item.key for item in store.search(("n",), limit=3, offset=5)] == ["k1", "k0"]
    assert [item.key for item in store.search(("n",), filter={"even": True}, limit=2, offset=1)] == ["k4", "k2"]
    assert store.search(("n",), limit=0) == []
    assert store.search(("n",), offset=7) == []
    assert all(item.score is None for item in store.search(("n",)))


def test_many_items_are_listed_whole_and_filtered_over_many_pages(store):
    store.batch([PutOp(("n",), f"k{number:04}", {"n": number}) for number in range(1_300)])
    assert len(store.search((), limit=5_000)) == 1_300
    assert (
        len({item.key for start in range(0, 1_300, 130) for item in store.search((), limit=130, offset=start)}) == 1_300
    )
    assert keys(store.search((), filter={"n": {"$gte": 1_298}}, limit=5)) == ["k1298", "k1299"]
    assert len(store.search((), filter={"n": {"$lt": 1_200}}, limit=900, offset=300)) == 900


def test_a_question_finds_what_answers_it_with_a_score(store):
    store.put(USERS, "coffee", {"text": "prefers Ethiopian coffee in the morning"})
    store.put(USERS, "music", {"text": "listens to Bach"})
    store.put(("users", "ben"), "coffee", {"text": "hates coffee", "sure": True})
    found = store.search(USERS, query="which coffee does she like?")
    assert [item.key for item in found] == ["coffee"]
    assert found[0].score > 0
    assert len(store.search(("users",), query="coffee")) == 2
    assert len(store.search(("users",), query="coffee", limit=1)) == 1
    assert len(store.search(("users",), query="coffee", offset=1)) == 1
    assert store.search(("users",), query="coffee", filter={"sure": True})[0].namespace == ("users", "ben")
    assert store.search((), query="motorcycles") == []


def test_a_question_for_more_than_search_ranks_is_refused(store):
    with pytest.raises(ValueError, match="1,000"):
        store.search((), query="coffee", limit=1_001)


def test_index_says_what_a_question_finds(store):
    value = {"title": "espresso", "meta": {"body": "ristretto"}, "tags": ["lungo"]}
    store.put(USERS, "none", value, index=False)
    store.put(USERS, "title", value, index=["title"])
    store.put(USERS, "body", value, index=["meta.body", "tags[*]"])
    store.put(USERS, "all", value, index=["$"])
    assert keys(store.search((), query="espresso")) == ["all", "title"]
    assert keys(store.search((), query="ristretto")) == ["all", "body"]
    assert keys(store.search((), query="lungo")) == ["all", "body"]
    assert len(store.search(())) == 4


@pytest.mark.parametrize("index", [["a[0].b"], ["a.*"], "title", 7, [3]])
def test_an_index_that_cannot_be_kept_is_refused(store, index):
    with pytest.raises(ValueError, match=r"index|field"):
        store.put(USERS, "k", {"a": 1}, index=index)


def test_an_embedder_finds_by_meaning_in_the_namespace_asked_for(tmp_path):
    def embed(texts):
        return [[1.0, 0.0] if "coffee" in text or "espresso" in text else [0.0, 1.0] for text in texts]

    store = BotWireStore(namespace="g", url=f"sqlite:///{tmp_path}/m.db", embedder=embed)
    store.put(USERS, "a", {"text": "one espresso, please"})
    store.put(("users", "ben"), "b", {"text": "another espresso"})
    for number in range(5):
        store.put(USERS, f"c{number}", {"text": f"something else {number}"})
    assert [item.key for item in store.search(USERS, query="coffee")][:1] == ["a"]
    assert [item.key for item in asyncio.run(store.asearch(USERS, query="coffee"))][:1] == ["a"]


def test_an_encrypted_store_filters_and_refuses_questions(url, namespace):
    store: Any = BotWireStore(namespace=namespace, url=url, encryption_key=generate_key(), hide_keys=True)
    store.put(USERS, "coffee", {"kind": "drink"}, ttl=60)
    store.put(USERS, "bread", {"kind": "food"})
    assert store.get(USERS, "coffee").value == {"kind": "drink"}
    assert keys(store.search((), filter={"kind": "food"})) == ["bread"]
    assert store.list_namespaces() == [USERS]
    with pytest.raises(ValueError, match="encrypted"):
        store.search((), query="drink")


# ── expiry ──


def lifetime(store: BotWireStore, key: str) -> float:
    """Seconds that an item has left."""
    memory = store._memory
    [page] = memory.execute([Scan(memory.namespace, key, subtree=True)])
    return float(page.items[0].expires / 1e6 - time.time())


def test_what_has_expired_is_never_returned(store):
    store.put(USERS, "coffee", {"text": "coffee"}, ttl=MOMENT)
    time.sleep(0.03)
    assert store.get(USERS, "coffee", refresh_ttl=False) is None
    assert store.search(()) == []
    assert store.search((), query="coffee") == []
    assert store.list_namespaces() == []


def test_a_time_to_live_is_in_minutes_and_begins_anew_when_the_item_is_read(store):
    store.put(USERS, "coffee", {"text": "coffee"}, ttl=10)
    store.put(USERS, "tea", {"text": "tea"}, ttl=0.5)
    assert 590 < lifetime(store, "coffee") <= 600
    assert 20 < lifetime(store, "tea") <= 30
    for read in (
        lambda: store.get(USERS, "coffee"),
        lambda: store.search(USERS),
        lambda: store.search(USERS, query="coffee"),
        lambda: store.batch([GetOp(USERS, "coffee"), SearchOp(USERS)]),
        lambda: asyncio.run(store.aget(USERS, "coffee")),
        lambda: asyncio.run(store.asearch(USERS)),
    ):
        before = lifetime(store, "coffee") + time.time()
        time.sleep(0.002)
        read()
        assert lifetime(store, "coffee") + time.time() > before + 0.001


def test_reading_without_refresh_leaves_the_expiry_as_it_is(url, namespace):
    store = BotWireStore(namespace=namespace, url=url)
    quiet = BotWireStore(namespace=namespace, url=url, ttl={"refresh_on_read": False})
    store.put(USERS, "coffee", {}, ttl=10)
    before = lifetime(store, "coffee") + time.time()
    store.get(USERS, "coffee", refresh_ttl=False)
    store.search(USERS, refresh_ttl=False)
    quiet.get(USERS, "coffee")
    quiet.search(USERS)
    assert lifetime(store, "coffee") + time.time() == pytest.approx(before, abs=1e-4)
    quiet.get(USERS, "coffee", refresh_ttl=True)
    assert lifetime(store, "coffee") + time.time() > before


def test_the_default_time_to_live_holds_unless_a_put_says_otherwise(url, namespace):
    store = BotWireStore(namespace=namespace, url=url, ttl={"default_ttl": 5})
    store.put(USERS, "short", {})
    store.put(USERS, "long", {}, ttl=60)
    store.put(USERS, "for-ever", {}, ttl=None)
    assert 290 < lifetime(store, "short") <= 300
    assert 3_590 < lifetime(store, "long") <= 3_600
    [page] = store._memory.execute([Scan(f"{namespace}/users/ana", "for-ever")])
    assert page.items[0].expires is None


def test_a_put_without_a_time_to_live_ends_the_one_there_was(store):
    store.put(USERS, "coffee", {"v": 1}, ttl=MOMENT)
    store.put(USERS, "coffee", {"v": 2})
    time.sleep(0.03)
    assert store.get(USERS, "coffee").value == {"v": 2}


def test_reading_never_takes_an_item_back_that_is_being_overwritten(tmp_path):
    store = BotWireStore(namespace="g", url=f"sqlite:///{tmp_path}/m.db", durability="relaxed")
    store.put(USERS, "k", {"n": 0}, ttl=60)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            assert store.get(USERS, "k") is not None

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(200):
        store.put(USERS, "k", {"n": number}, ttl=60)
    store.put(USERS, "k", {"n": "last"})
    stop.set()
    for reader in readers:
        reader.join()
    [page] = store._memory.execute([Scan("g/users/ana")])
    assert page.items[0].value == {"n": "last"}
    assert page.items[0].expires is None


@pytest.mark.parametrize("ttl", [0, -1, "5", True, math.nan, 1e12])
def test_a_time_to_live_that_is_none_is_refused(store, ttl):
    with pytest.raises(ValueError, match="ttl"):
        store.put(USERS, "k", {}, ttl=ttl)


@pytest.mark.parametrize("config", [{"default": 5}, {"default_ttl": 0}, 5])
def test_a_configuration_that_means_nothing_is_refused(config):
    with pytest.raises(ValueError, match="ttl"):
        BotWireStore(url="sqlite://", ttl=config)


# ── async ──


async def test_the_async_methods_do_the_same(store):
    await store.aput(USERS, "coffee", {"text": "likes coffee"})
    await store.aput(("users", "ben"), "tea", {"text": "likes tea"}, ttl=5)
    assert (await store.aget(USERS, "coffee")).value == {"text": "likes coffee"}
    assert (await store.aget(("users", "ben"), "tea")).value == {"text": "likes tea"}
    assert len(await store.asearch(("users",))) == 2
    assert keys(await store.asearch(("users",), query="coffee")) == ["coffee"]
    assert await store.alist_namespaces() == [USERS, ("users", "ben")]
    await store.adelete(USERS, "coffee")
    assert await store.abatch([GetOp(USERS, "coffee"), PutOp(USERS, "x", {})]) == [None, None]
    assert store.get(USERS, "x").value == {}


def test_one_store_serves_threads_and_event_loops_at_once(url, namespace):
    store = BotWireStore(namespace=namespace, url=url)
    errors = []

    def work(name):
        async def some():
            await asyncio.gather(*(store.aput((name,), f"a{number}", {"n": number}) for number in range(20)))

        try:
            asyncio.run(some())
            for number in range(20):
                store.put((name,), f"s{number}", {"n": number})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.search((), limit=500)) == 160


# ── moving in ──

THINGS: dict[Any, Any] = {(USERS, "coffee"): {"n": 1}, (("users", "a/b"), "x"): {"n": 2}, (("z",), "y"): {"n": [3]}}


def contents(store: BaseStore):
    return {(item.namespace, item.key): item.value for item in store.search((), limit=100_000)}


def test_a_store_moves_in_from_memory_and_from_another_botwire_store(store, tmp_path):
    other = InMemoryStore()
    for (labels, key), value in THINGS.items():
        other.put(labels, key, value)
    assert store.import_from(other) == 3
    assert contents(store) == THINGS
    third = BotWireStore(url=f"sqlite:///{tmp_path}/third.db")
    assert third.import_from(store) == 3
    assert third.import_from(store) == 3
    assert contents(third) == THINGS


def test_what_moves_in_lives_as_long_as_it_is_told(url, namespace):
    other = InMemoryStore()
    other.put(USERS, "coffee", {})
    store = BotWireStore(namespace=namespace, url=url, ttl={"default_ttl": 5})
    store.import_from(other)
    assert 290 < lifetime(store, "coffee") <= 300
    store.import_from(other, ttl=60)
    assert 3_590 < lifetime(store, "coffee") <= 3_600
    with pytest.raises(ValueError, match="ttl"):
        store.import_from(other, ttl=0)


def test_a_store_moves_in_from_sqlite_newest_last(store, tmp_path):
    with SqliteStore.from_conn_string(f"{tmp_path}/langgraph.db") as other:
        other.setup()
        other.batch([PutOp(("n",), f"k{number:04}", {"n": number}) for number in range(2_500)])
        with other._cursor() as cursor:
            cursor.execute("UPDATE store SET updated_at = '2020-01-01 00:00:00' WHERE key = 'k0007'")
        assert store.import_from(other, ttl=60) == 2_500
    assert len(contents(store)) == 2_500
    assert "k0007" in keys(store.search((), limit=200, offset=2_300))
    assert 3_500 < lifetime(store, "k0007") <= 3_600


async def test_a_store_moves_in_from_an_async_one(store, tmp_path):
    async with AsyncSqliteStore.from_conn_string(f"{tmp_path}/langgraph.db") as other:
        await other.setup()
        for (labels, key), value in THINGS.items():
            await other.aput(labels, key, value)
        assert await store.aimport_from(other) == 3
    assert contents(store) == THINGS


class Shuffled(InMemoryStore):
    """Lists what was changed at the same time in another order each time, as a database may."""

    __slots__ = ("turn",)

    def batch(self, ops):
        ops = list(ops)
        op = ops[0]
        if not isinstance(op, SearchOp):
            return super().batch(ops)
        found: Any = super().batch([op._replace(limit=10**9, offset=0)])[0]
        self.turn = getattr(self, "turn", 0) + 1
        turned: Any = [*found[self.turn :], *found[: self.turn]]
        return [turned[op.offset : op.offset + op.limit]]


def test_a_store_whose_pages_overlap_moves_in_whole(store):
    other = Shuffled()
    for number in range(2_100):
        other.put(("n",), f"k{number}", {"n": number})
    assert store.import_from(other) == 2_100
    assert len(contents(store)) == 2_100


def test_what_cannot_be_kept_is_named_and_the_store_it_came_from_is_as_it_was(store):
    other = InMemoryStore()
    other.put(USERS, "bad", {"call": print})
    with pytest.raises(ValueError, match=r"'bad' in \('users', 'ana'\), at value\['call'\]"):
        store.import_from(other)
    assert other.get(USERS, "bad") is not None
