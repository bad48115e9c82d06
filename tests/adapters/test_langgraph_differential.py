"""`BotWireStore` beside LangGraph's own `InMemoryStore`: random ops, the same answers.

Where the two differ on purpose: `InMemoryStore` also lists namespaces that hold nothing, lists items in the order in
which they were first put, raises for what cannot be compared, and forgets when an overwritten item was created.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from botwire_langgraph import BotWireStore

EVERYTHING = 100_000

_numbers = itertools.count()

labels = st.sampled_from(["a", "b", "a/b", "a%2Fb", "%", "a!", "ü", " "])
namespaces = st.lists(labels, min_size=1, max_size=3).map(tuple)
prefixes = st.lists(labels, max_size=3).map(tuple)
keys = st.sampled_from(["k", "k/1", "k%", "ä"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.5, 1.0, -2.0, 2**60]),
    st.sampled_from(["", "x", "1"]),
)
parts = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2)
)
fields = st.sampled_from(["x", "y", "x.y", "value"])
values = st.dictionaries(fields, parts, max_size=3) | st.dictionaries(st.just("n"), st.integers(-3, 3) | st.booleans())
equalities = st.one_of(parts, st.fixed_dictionaries({}, optional={"$eq": parts, "$ne": parts}))
orders = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$ne"]), st.integers(-3, 3) | st.just(0.5))
conditions = st.dictionaries(fields, equalities, max_size=2) | st.fixed_dictionaries({"n": orders})
puts = st.tuples(namespaces, keys, values | st.none()).map(lambda given: PutOp(*given))
gets = st.tuples(prefixes, keys).map(lambda given: GetOp(*given))
searches = st.tuples(prefixes, conditions | st.none(), st.just(EVERYTHING)).map(lambda given: SearchOp(*given))
paths = st.lists(labels | st.just("*"), max_size=3).map(tuple)
ends = st.tuples(st.sampled_from(["prefix", "suffix"]), paths).map(lambda given: MatchCondition(*given))  # type: ignore[arg-type]  # one of the literals
matches = st.none() | st.lists(ends, max_size=2).map(tuple)
limits = st.integers(0, 5) | st.just(EVERYTHING)
lists = st.tuples(matches, st.none() | st.integers(0, 3), limits, st.integers(0, 2)).map(
    lambda given: ListNamespacesOp(*given)
)
batches = st.lists(st.lists(st.one_of(puts, puts, gets, searches, lists), max_size=6), max_size=6)


def seen(item: Any) -> Any:
    return None if item is None else (item.namespace, item.key, repr(item.value))


def expected(model: InMemoryStore, ops: list[Any]) -> list[Any]:
    """What the model answers, with its lists of namespaces made without those that hold nothing."""
    answers = []
    before = {labels: dict(items) for labels, items in model._data.items() if items}
    for op in ops:
        if isinstance(op, ListNamespacesOp):
            filled = InMemoryStore()
            filled._data.update(before)
            answers += filled.batch([op])
        elif isinstance(op, SearchOp):
            answers.append(_found(model, op))
        elif isinstance(op, GetOp):
            answers.append(seen(before.get(op.namespace, {}).get(op.key)))
        else:
            answers.append(None)
    model.batch([op for op in ops if isinstance(op, PutOp)])
    return answers


def _found(model: InMemoryStore, op: SearchOp) -> list[Any]:
    """The search, item by item: one that the model cannot compare does not match."""
    found: list[Any] = []
    items: Any = model.batch([op._replace(filter=None)])[0]
    for item in items:
        alone = InMemoryStore()
        alone.put(item.namespace, item.key, item.value)
        try:
            found += alone.batch([op])[0]  # type: ignore[arg-type]  # see above
        except TypeError:
            continue
    return sorted(map(seen, found))


def answered(ops: list[Any], answers: list[Any]) -> list[Any]:
    plain: list[Any] = []
    for op, answer in zip(ops, answers, strict=True):
        if isinstance(op, SearchOp):
            plain.append(sorted(map(seen, answer)))
        else:
            plain.append(seen(answer) if isinstance(op, GetOp) else answer)
    return plain


@pytest.fixture(scope="module")
def shared_url(server_url: str) -> str:
    return server_url


def compare(url: str, batches: list[list[Any]], *, asynchronously: bool) -> None:
    store, model = BotWireStore(namespace=f"random-{next(_numbers)}", url=url), InMemoryStore()
    for ops in batches:
        wanted = expected(model, ops)
        got = asyncio.run(store.abatch(ops)) if asynchronously else store.batch(ops)
        assert answered(ops, got) == wanted
    everything = SearchOp((), limit=EVERYTHING)
    assert answered([everything], store.batch([everything])) == [_found(model, everything)]


@given(batches)
def test_random_batches_answer_as_langgraphs_own_store_does(batches):
    compare("sqlite://", batches, asynchronously=False)


@given(batches)
@settings(max_examples=30)
def test_random_batches_on_an_event_loop_do_so_too(batches):
    compare("sqlite://", batches, asynchronously=True)


@given(batches=batches)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_batches_on_a_server_do_so_too(shared_url, batches):
    compare(shared_url, batches, asynchronously=False)


@given(
    st.lists(st.tuples(namespaces, keys, st.integers(0, 4)), max_size=12),
    conditions | st.none(),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_pages_of_a_search_make_up_the_whole(entries, wanted, limit, offset):
    store = BotWireStore(namespace="pages", url="sqlite://")
    for namespace, key, number in entries:
        store.put(namespace, key, {"n": number})
    whole = [seen(item) for item in store.search((), filter=wanted, limit=EVERYTHING)]
    page = [seen(item) for item in store.search((), filter=wanted, limit=limit, offset=offset)]
    assert page == whole[offset : offset + limit]
