"""Rule: lists page by cursor; their order is stable and stated. Filters say exactly what they let through."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from botwire import HistoryExpired, InvalidInput, Memory, TooLarge
from botwire.ops import Conversations, Get, History, Messages, Namespaces, Put, Scan, Trim, Value

EDGES = ["\u007e", "\ud7ff", "\ue000", "\uffff", "\U00010000", "🙂", "\U0010fffe", "\U0010ffff"]


def pages(store, op, field):
    """All pages of a listing, each as a list."""
    found = []
    while True:
        [page] = store.execute([op])
        found.append(getattr(page, field))
        if page.cursor is None:
            return found
        op = type(op)(
            **{name: getattr(op, name) for name in op.__struct_fields__ if name != "cursor"}, cursor=page.cursor
        )


def scan(store, limit=3, **more):
    """The keys of a listing, taken page by page."""
    found = pages(store, Scan("user-42", limit=limit, **more), "items")
    assert all(len(page) <= limit for page in found)
    return [item.key for page in found for item in page]


# ── keys ──


def test_keys_are_sorted_by_code_point(memory):
    keys = ["b", "a", "Z", "ä", "aa", "a/b", "a b", "10", "9", *EDGES]
    for key in keys:
        memory.set(key, 1)
    assert memory.keys() == memory.list_keys() == list(memory) == [item.key for item in memory.items()] == sorted(keys)
    assert [item.key for item in memory.items(reverse=True)] == sorted(keys, reverse=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.sets(st.text(st.sampled_from(["a", "b", "/", "0", *EDGES]), min_size=1, max_size=4), max_size=25),
    prefixes=st.lists(st.text(st.sampled_from(["a", "/", *EDGES]), max_size=3), max_size=6),
    limit=st.integers(min_value=1, max_value=5),
)
def test_a_prefix_finds_just_what_begins_with_it(store, memory, keys, prefixes, limit):
    memory.clear()
    memory.set_many(dict.fromkeys(keys, 1))
    talks = [memory.conversation(key) for key in sorted(keys)[:10]]
    for talk in talks:
        talk.append("x")
    for prefix in prefixes:
        wanted = sorted(key for key in keys if key.startswith(prefix))
        assert memory.keys(prefix) == wanted
        assert scan(store, limit, prefix=prefix) == wanted
        assert scan(store, limit, prefix=prefix, reverse=True) == wanted[::-1]
        assert [info.name for info in memory.conversations(prefix)] == [
            talk.name for talk in talks if talk.name.startswith(prefix)
        ]


def test_keys_and_values_go_together(memory):
    memory.set_many({"b": 2, "a": 1, "c": 3})
    assert dict(memory.items()) == {"a": 1, "b": 2, "c": 3}
    assert list(memory.values()) == [1, 2, 3]
    assert list(memory.values("b")) == [2]
    assert [item.version for item in memory.items()] == [2, 1, 3]


def test_a_listing_without_values_is_null_throughout(store, memory):
    memory.set("a", {"large": 1}, tags=["t"])
    [page] = store.execute([Scan("user-42", values=False)])
    assert (page.items[0].value, page.items[0].tags) == (None, ("t",))
    [page] = store.execute([Scan("user-42", values=False, where={"large": 1})])
    assert [(item.key, item.value) for item in page.items] == [("a", None)]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
@pytest.mark.parametrize("order", ["key", "updated"])
@pytest.mark.parametrize("reverse", [False, True])
def test_pages_hold_everything_once(store, memory, clock, limit, order, reverse):
    for number in range(20):
        memory.set(f"k{number * 7 % 20:02}", number)
        if number % 3 == 0:
            clock.advance(1)  # several have the same time: then the key decides
    everything = list(memory.items())
    key = (lambda item: item.key) if order == "key" else (lambda item: (item.updated, item.key))
    wanted = [item.key for item in sorted(everything, key=key, reverse=reverse)]
    assert scan(store, limit, order=order, reverse=reverse) == wanted
    assert [item.key for item in memory.items(order=order, reverse=reverse)] == wanted


@pytest.mark.parametrize("order", ["key", "updated"])
def test_what_stays_is_listed_once_while_others_write(store, memory, clock, order):
    for number in range(30):
        memory.set(f"k{number:02}", number)
        clock.advance(1)
    seen, cursor = [], None
    while True:
        [page] = store.execute([Scan("user-42", order=order, limit=4, cursor=cursor)])
        seen += [item.key for item in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        memory.delete(seen[-1])
        memory.set(f"a{len(seen)}", "before everything")
        memory.set(f"k{len(seen)} new", "in the middle")
    stayed = [key for key in seen if "new" not in key and key.startswith("k")]
    assert stayed == [f"k{number:02}" for number in range(30)]
    assert len(set(seen)) == len(seen)


def test_limits_count_items_over_pages(memory):
    memory.set_many({f"k{number:04}": number for number in range(1_200)})
    assert len(memory.keys()) == 1_200
    for limit in (0, 1, 499, 500, 501, 1_100, 5_000):
        items = list(memory.items(limit=limit))
        assert [item.value for item in items] == list(range(min(limit, 1_200)))
    assert len(list(memory.items(limit=700, where={}))) == 700


@pytest.mark.parametrize("limit", [-1, 10_001])
def test_a_limit_out_of_range_is_refused(memory, limit):
    with pytest.raises(InvalidInput, match="limit"):
        Scan("a", limit=limit)
    with pytest.raises(InvalidInput, match="limit"):
        memory.history("a", limit=limit)
    with pytest.raises(InvalidInput, match="limit"):
        memory.changes(limit=limit)
    with pytest.raises(InvalidInput, match="limit"):
        memory.items(limit=-1)


@pytest.mark.parametrize("cursor", ["", "x", "🙂", "AAAA", "v1", "!!!!"])
def test_a_cursor_of_elsewhere_is_an_error(store, memory, cursor):
    memory.set_many({"a": 1, "b": 2})
    for op in (
        Scan("user-42", cursor=cursor),
        Scan("user-42", order="updated", cursor=cursor),
        Conversations("user-42", cursor=cursor),
        Namespaces("", cursor=cursor),
    ):
        with pytest.raises(InvalidInput, match="cursor"):
            store.execute([op])


def test_a_cursor_of_another_order_is_an_error(store, memory):
    memory.set_many({"a": 1, "b": 2})
    by_key = store.execute([Scan("user-42", limit=1)])[0].cursor
    by_time = store.execute([Scan("user-42", limit=1, order="updated")])[0].cursor
    with pytest.raises(InvalidInput, match="cursor"):
        store.execute([Scan("user-42", order="updated", cursor=by_key)])
    with pytest.raises(InvalidInput, match="cursor"):
        store.execute([Scan("user-42", cursor=by_time)])


def test_an_order_that_is_none_is_refused(memory):
    with pytest.raises(InvalidInput, match="order"):
        memory.items(order="size")


# ── by time ──


def test_since_a_time_means_set_at_it_or_later(memory, clock):
    memory.set("a", 1)
    memory.set("touched", 1)
    clock.advance(10)
    when = clock.at
    memory.set("b", 1)
    clock.advance(10)
    memory.set("c", 1)
    memory.touch("touched", 600)
    assert [item.key for item in memory.items(since=when)] == ["b", "c"]
    assert [item.key for item in memory.items(since=when, order="updated", reverse=True)] == ["c", "b"]
    assert [item.key for item in memory.items(since=clock.at)] == ["c"]
    assert list(memory.items(since=clock.ago(-1))) == []
    with pytest.raises(InvalidInput, match="time zone"):
        memory.items(since=when.replace(tzinfo=None))


def test_the_last_ones_set_come_first_in_reverse(memory, clock):
    for key in ("a", "b", "c"):
        memory.set(key, 1)
        clock.advance(1)
    memory.set("a", 2)
    assert [item.key for item in memory.items(order="updated", reverse=True, limit=2)] == ["a", "c"]


# ── filters ──

PEOPLE = {
    "ada": {"name": "Ada", "age": 36, "city": "London", "tags": ["math", "poetry"], "address": {"zip": "W1"}},
    "bob": {"name": "Bob", "age": 17, "city": "Rome", "tags": [], "address": {"zip": None}},
    "cleo": {"name": "Cleo", "age": 36.5, "city": "Alexandria", "tags": ["math"]},
    "dots": {"address.zip": "dotted", "age": "36"},
    "list": [1, 2, 3],
    "none": None,
    "text": "just text with math in it",
    "null": {"city": None},
}

FILTERS = [
    ({}, list(PEOPLE)),
    ({"city": "Rome"}, ["bob"]),
    ({"age": 36}, ["ada"]),
    ({"age": 36.5}, ["cleo"]),
    ({"age": "36"}, ["dots"]),
    ({"city": None}, ["null"]),
    ({"age": 36, "city": "London"}, ["ada"]),
    ({"age": 36, "city": "Rome"}, []),
    ({"city": {"$eq": "Rome"}}, ["bob"]),
    ({"city": {"$ne": "Rome"}}, ["ada", "cleo", "dots", "list", "none", "null", "text"]),
    ({"age": {"$gt": 36}}, ["cleo"]),
    ({"age": {"$gte": 36}}, ["ada", "cleo"]),
    ({"age": {"$gte": 17, "$lt": 36.5}}, ["ada", "bob"]),
    ({"age": {"$lte": 17}}, ["bob"]),
    ({"age": {"$gt": "3"}}, ["dots"]),
    ({"name": {"$gt": "Ad", "$lt": "C"}}, ["ada", "bob"]),
    ({"city": {"$in": ["Rome", "London"]}}, ["ada", "bob"]),
    ({"city": {"$in": []}}, []),
    ({"city": {"$nin": ["Rome", "London"]}}, ["cleo", "dots", "list", "none", "null", "text"]),
    ({"city": {"$exists": True}}, ["ada", "bob", "cleo", "null"]),
    ({"city": {"$exists": False}}, ["dots", "list", "none", "text"]),
    ({"tags": {"$contains": "math"}}, ["ada", "cleo"]),
    ({"city": {"$contains": "o"}}, ["ada", "bob"]),
    ({"address": {"$contains": "zip"}}, ["ada", "bob"]),
    ({"tags": ["math"]}, ["cleo"]),
    ({"tags": []}, ["bob"]),
    ({"address.zip": "W1"}, ["ada"]),
    ({"address.zip": "dotted"}, ["dots"]),
    ({"address": {"zip": "W1"}}, ["ada"]),
    ({"address": {"zip": {"$exists": True}}}, ["ada", "bob"]),
    ({"address.zip.deeper": {"$exists": False}}, list(PEOPLE)),
    ({"nothing": {"$ne": 1}}, list(PEOPLE)),
    ({"nothing": 1}, []),
]


@pytest.fixture
def people(memory):
    memory.set_many(PEOPLE)
    return memory


@pytest.mark.parametrize(
    ("where", "wanted"), FILTERS, ids=lambda part: str(part)[:40] if isinstance(part, dict) else ""
)
def test_where_lets_through_what_it_says(store, people, where, wanted):
    assert [item.key for item in people.items(where=where)] == sorted(wanted)
    assert scan(store, 2, where=where) == sorted(wanted)
    assert [item.key for item in people.items(where=where, reverse=True)] == sorted(wanted, reverse=True)
    assert [item.key for item in people.items(where=where, limit=1)] == sorted(wanted)[:1]


def test_true_is_no_number_to_a_filter(people):
    people.set("flag", {"on": True, "off": False, "n": 1})
    for where in (
        {"n": {"$gte": True}},
        {"on": {"$gte": 1}},
        {"on": 1},
        {"n": True},
        {"off": {"$in": [0]}},
        {"on": {"$eq": 1.0}},
    ):
        assert [item.key for item in people.items(where=where)] == [], where
    assert [item.key for item in people.items(where={"on": True, "off": False, "n": 1.0})] == ["flag"]


@pytest.mark.parametrize(
    "where",
    [
        {"age": {"$regex": "x"}},
        {"$or": [{"age": 1}]},
        {"$eq": 1},
        {"age": {"$in": 1}},
        {"age": {"$in": "text"}},
        {"age": {"$nin": None}},
        {"age": {"$gt": 1, "plain": 2}},
        {"a": {"b": {"$oops": 1}}},
        {1: 2},
        "age > 3",
        ["age"],
    ],
    ids=str,
)
def test_a_filter_that_is_none_is_refused(memory, people, where):
    with pytest.raises(InvalidInput):
        list(people.items(where=where))
    with pytest.raises(InvalidInput):
        list(Memory("empty", store=people._store).items(where=where))


def test_tags_ask_for_all_of_them_and_authors_for_one(memory):
    memory.set("a", 1, tags=["x", "y"], author="ann")
    memory.set("b", 1, tags=["y"], author="bob")
    memory.set("c", 1)
    assert [item.key for item in memory.items(tags=["y"])] == ["a", "b"]
    assert [item.key for item in memory.items(tags=["x", "y"])] == ["a"]
    assert [item.key for item in memory.items(tags=["z"])] == []
    assert [item.key for item in memory.items(author="bob")] == ["b"]
    assert [item.key for item in memory.items(author="bob", tags=["x"])] == []
    memory.set("a", 2)  # what stands beside a value is the value's, not the key's
    assert [item.key for item in memory.items(tags=["x"])] == []
    with pytest.raises(InvalidInput):
        memory.items(tags="y")


def test_filters_combine_over_many_pages(store, memory, clock):
    for number in range(700):
        memory.set(
            f"{'even' if number % 2 == 0 else 'odd'}{number:03}", {"n": number}, tags=["t"] if number % 3 == 0 else []
        )
        if number == 349:
            clock.advance(1)
    wanted = [f"even{n:03}" for n in range(350, 700, 2) if n % 3 == 0 and n >= 400]
    arguments = {"prefix": "even", "where": {"n": {"$gte": 400}}, "tags": ["t"], "since": clock.at}
    assert [item.key for item in memory.items(**arguments)] == wanted
    assert [item.key for item in memory.items(**arguments, order="updated", reverse=True, limit=5)] == wanted[::-1][:5]
    assert scan(store, 4, prefix="even", where={"n": {"$gte": 400}}, tags=("t",)) == wanted


def test_a_filter_that_finds_little_among_much_comes_to_an_end(store, memory, rounds):
    count = rounds(9_000, 60_000)
    for start in range(0, count, 9_000):
        memory.set_many({f"k{number:06}": number for number in range(start, start + 9_000)})
    memory.set("z", {"needle": 1})
    assert [item.key for item in memory.items(where={"needle": 1})] == ["z"]
    assert [item.key for item in memory.items(where={"needle": 2})] == []


# ── subtrees ──

FAMILY = [
    "a",
    "a!",
    "a/",
    "a-b",
    "a.b",
    "a/!",
    "a/0",
    "a/b",
    "a/b/c",
    "a/bc",
    "a0",
    "ab",
    "a\u00e9",
    "A",
    "b",
    "b/a",
    "🙂",
    "🙂/🙂",
]
LEVELS = [name for name in FAMILY if "" not in name.split("/")]


@pytest.fixture
def family(store):
    for number, name in enumerate(LEVELS):
        Memory(name, store=store).set_many({"k": name, "j": number})
        Memory(name, store=store).conversation("t").append(name)
    return store


@pytest.mark.parametrize("top", ["a", "a/b", "a/b/c", "ab", "a!", "b", "🙂", "c", "a/x"])
def test_a_subtree_is_the_namespace_and_all_below_it(family, top):
    below = sorted(name for name in LEVELS if name == top or name.startswith(top + "/"))
    memory = Memory(top, store=family)
    wanted = [(name, key) for name in below for key in ("j", "k")]
    assert [(item.namespace, item.key) for item in memory.items(subtree=True)] == wanted
    assert [(item.namespace, item.key) for item in memory.items(subtree=True, reverse=True)] == wanted[::-1]
    assert [info.namespace for info in memory.conversations(subtree=True)] == below
    assert [info.name for info in memory.namespaces()] == below
    for limit in (1, 3):
        found = pages(family, Scan(top, subtree=True, limit=limit), "items")
        assert [(item.namespace, item.key) for page in found for item in page] == wanted
        found = pages(family, Conversations(top, subtree=True, limit=limit), "conversations")
        assert [info.namespace for page in found for info in page] == below
        found = pages(family, Namespaces(top, limit=limit), "namespaces")
        assert [info.name for page in found for info in page] == below
        found = pages(family, Scan(top, subtree=True, order="updated", limit=limit), "items")
        assert [(item.namespace, item.key) for page in found for item in page] == wanted


def test_without_subtree_it_is_the_namespace_alone(family):
    assert [item.value for item in Memory("a", store=family).items(prefix="k")] == ["a"]
    assert [info.namespace for info in Memory("a", store=family).conversations()] == ["a"]
    [page] = family.execute([Namespaces("a", subtree=False)])
    assert [info.name for info in page.namespaces] == ["a"]


def test_the_whole_store_can_be_listed(family):
    [page] = family.execute([Namespaces("", limit=1_000)])
    assert [info.name for info in page.namespaces] == sorted(LEVELS)
    [page] = family.execute([Scan("", subtree=True, prefix="k", limit=1_000)])
    assert [item.value for item in page.items] == sorted(LEVELS)


def test_filters_hold_over_a_subtree(family):
    memory = Memory("a/b", store=family)
    memory.set("k", {"city": "Rome"}, tags=["t"])
    assert [item.namespace for item in Memory("a", store=family).items(subtree=True, tags=["t"])] == ["a/b"]
    assert [i.namespace for i in Memory("a", store=family).items(subtree=True, where={"city": "Rome"})] == ["a/b"]
    assert {item.key for item in Memory("a", store=family).items(subtree=True, prefix="j")} == {"j"}


def test_a_namespace_tells_how_much_it_holds(family):
    [info] = Memory("a/b/c", store=family).namespaces()
    assert (info.items, info.messages, info.conversations, info.version, info.writes_today) == (2, 1, 1, 3, 3)
    assert info == Memory("a/b/c", store=family).stats()


def test_a_page_ends_early_when_it_holds_much_and_the_listing_is_complete(store):
    memory = Memory("large", store=store)
    for number in range(20):
        memory.set(f"{number:02}", "x" * 1_000_000, history=False)
    page = store.execute([Scan("large", limit=1_000)])[0]
    assert len(page.items) == 17  # the first that makes it 16 MiB
    assert page.cursor is not None
    assert [item.key for item in memory.items()] == [f"{number:02}" for number in range(20)]
    talk = memory.conversation("talk")
    for number in range(20):
        talk.append(f"{number:02}" + "x" * 1_000_000)
    page = store.execute([Messages("large", "talk", limit=1_000)])[0]
    assert (len(page.messages), page.more) == (17, True)
    assert [message.value[:2] for message in talk.messages(last=19)] == [f"{number:02}" for number in range(1, 20)]


def test_a_small_batch_cannot_ask_for_a_huge_answer(store):
    Memory("large", store=store).set("k", "x" * 1_000_000)
    assert len(store.execute([Get("large", "k")] * 60)) == 60
    for again in (Get("large", "k"), Value("large", "k"), History("large", "k"), Scan("large")):
        with pytest.raises(TooLarge, match="several batches"):
            store.execute([again] * 70)


def test_a_filter_of_any_depth_is_answered_or_refused(memory):
    where: dict[str, Any] = {"a": 1}
    for _ in range(900):
        where = {"a": where}
    with pytest.raises(InvalidInput, match="nested over 128"):
        list(memory.items(where=where))


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**40])
def test_a_number_that_fits_nowhere_is_refused(store, number):
    Memory("a", store=store).set("k", 1)
    with pytest.raises(InvalidInput):
        store.execute([Scan("a", since=number)])
    for op in (Get("a", "k", as_of=number), Get("a", "k", as_of_time=number), Messages("a", "c", after=number)):
        with suppress(InvalidInput, HistoryExpired):  # or it is answered
            store.execute([op])
    with pytest.raises(InvalidInput):
        Put("a", "k", Raw(b"1"), expires=number)
    with pytest.raises(InvalidInput):
        Trim("a", "c", older_than=number)
