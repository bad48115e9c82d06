"""Rule: retention, history and quotas are set per store, namespace or write; a quota is an error, not a loss."""

from datetime import timedelta

import pytest

from botwire import InvalidInput, Memory, Policy, QuotaExceeded, RateLimited
from botwire.ops import DEFAULTS, Configure, Describe

# ── policies ──


def test_what_holds_is_told(memory):
    assert memory.stats().policy == DEFAULTS
    info = memory.configure(history=3, max_age=timedelta(hours=1), max_items=7)
    assert info.policy == memory.stats().policy
    assert (info.policy.history, info.policy.max_age, info.policy.max_items) == (3, 3_600.0, 7)
    assert info.policy.feed == DEFAULTS.feed


def test_what_is_left_out_stays_as_it_is(memory):
    memory.configure(history=3)
    memory.configure(max_items=7)
    memory.configure()
    assert (memory.stats().policy.history, memory.stats().policy.max_items) == (3, 7)


def test_a_namespace_goes_before_the_store_and_the_store_before_the_defaults(store):
    one, two = Memory("one", store=store), Memory("two", store=store)
    one.configure(history=5)
    two.configure(history=9, max_items=100, whole_store=True)
    assert (one.stats().policy.history, one.stats().policy.max_items) == (5, 100)
    assert (two.stats().policy.history, two.stats().policy.max_items) == (9, 100)
    assert Memory("never written to", store=store).stats().policy.history == 9
    assert store.execute([Describe("")])[0].policy.history == 9
    assert [info.policy.history for info in Memory("one", store=store).namespaces()] == [5]


def test_a_policy_of_the_store_holds_for_what_is_open_and_what_comes(store):
    old = Memory("old", store=store)
    for number in range(4):
        old.set("a", number)
    old.configure(history=1, whole_store=True)
    old.set("a", 4)
    new = Memory("new", store=store)
    for number in range(4):
        new.set("a", number)
    assert [each.value for each in old.history("a")] == [4, 3]
    assert [each.value for each in new.history("a")] == [3, 2]


def test_policies_are_not_inherited_by_the_namespaces_below(store):
    Memory("a", store=store).configure(max_items=1)
    below = Memory("a/b", store=store)
    below.set_many({"x": 1, "y": 2})
    assert below.stats().policy.max_items == 0


def test_a_policy_comes_with_no_version_and_no_change(memory):
    memory.configure(history=3)
    assert memory.stats().version == 0
    assert memory.changes("") == []
    assert memory.set("a", 1).version == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"history": -1},
        {"history": 10_001},
        {"max_age": -1},
        {"max_age": timedelta(seconds=-1)},
        {"max_age": float("nan")},
        {"max_age": float("inf")},
        {"feed": -1},
        {"max_value_bytes": 0},
        {"messages": -1},
        {"max_items": -5},
        {"max_bytes": 2**60},
        {"writes_per_day": -1},
        {"history": "many"},
        {"max_items": "10"},
        {"max_items": 1.5},
        {"feed": 2.5},
        {"max_age": "1h"},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(memory, wrong):
    with pytest.raises(InvalidInput):
        memory.configure(**wrong)
    assert memory.stats().policy == DEFAULTS


def test_a_policy_as_an_op(store):
    [info] = store.execute([Configure("x", Policy(history=2))])
    assert (info.name, info.policy.history) == ("x", 2)


# ── how much ──


def test_no_more_items_than_allowed(memory):
    memory.configure(max_items=2)
    memory.set_many({"a": 1, "b": 2})
    with pytest.raises(QuotaExceeded, match="max_items"):
        memory.set("c", 3)
    memory.set("a", 10)  # changing what is there is no new item
    memory.conversation("t").append("messages are no items")
    memory.delete("b")
    memory.set("c", 3)
    with pytest.raises(QuotaExceeded):
        memory.undo("b")
    assert dict(memory.items()) == {"a": 10, "c": 3}


def test_expired_items_make_room(memory, clock):
    memory.configure(max_items=2)
    memory.set("a", 1, ttl=10)
    memory.set("b", 1)
    clock.advance(10)
    memory.set("c", 1)
    assert memory.keys() == ["b", "c"]


def test_no_more_bytes_than_allowed(memory):
    memory.configure(max_bytes=1_000, history=False)
    memory.set("a", "x" * 900)
    state = memory.stats()
    for write in (
        lambda: memory.set("b", "y" * 200),
        lambda: memory.set("a", "x" * 1_100),
        lambda: memory.conversation("t").append("y" * 200),
        lambda: memory.set_many({"c": 1, "b": "y" * 200}),
    ):
        with pytest.raises(QuotaExceeded, match="max_bytes"):
            write()
    assert memory.stats() == state
    memory.set("a", "short")
    memory.set("b", "y" * 200)
    assert memory.stats().bytes <= 1_000


def test_past_values_count_as_bytes(memory):
    memory.configure(max_bytes=1_000)
    memory.set("a", "x" * 600)
    with pytest.raises(QuotaExceeded):
        memory.set("a", "y" * 600)
    memory.set("a", "y" * 600, history=False)


def test_one_can_always_delete_from_a_full_namespace(memory):
    memory.configure(max_bytes=500, max_items=2)
    memory.set("a", "x" * 200)
    memory.set("b", "x" * 200)
    talk = memory.conversation("t")
    message = talk.append("x" * 30)
    memory.configure(max_bytes=10, max_items=1)  # lowered: it is over its limits now
    assert memory.delete("a")
    assert memory.touch("b", 60)
    talk.redact(message, "x")
    assert talk.pop() is not None
    memory.set("b", "shorter", history=False)
    memory.clear()
    assert len(memory) == 0


def test_edits_that_grow_are_counted(memory):
    talk = memory.conversation("t")
    message = talk.append("x")
    memory.configure(max_bytes=50)
    with pytest.raises(QuotaExceeded):
        talk.edit(message, "y" * 100)
    talk.edit(message, "y" * 20)
    assert talk.messages()[0].value == "y" * 20


def test_quotas_are_each_namespaces_own(store):
    one, two = Memory("one", store=store), Memory("two", store=store)
    one.configure(max_items=1, whole_store=True)
    one.set("a", 1)
    two.set("a", 1)
    for memory in (one, two):
        with pytest.raises(QuotaExceeded, match=memory.namespace):
            memory.set("b", 1)


# ── how often ──


def test_writes_a_day_are_limited_until_midnight_utc(memory, clock):
    memory.configure(writes_per_day=3)
    memory.set("a", 1)
    memory.conversation("t").extend(["x", "y"])
    for write in (lambda: memory.set("b", 1), lambda: memory.delete("a"), lambda: memory.conversation("t").append("z")):
        with pytest.raises(RateLimited, match="writes_per_day") as raised:
            write()
        # 22:13:20 now
        assert 6_400 <= raised.value.retry_after <= 6_401
    assert memory.get("a") == 1  # reading is free
    assert memory.delete("not there") is False  # and so is what changes nothing
    clock.advance(raised.value.retry_after)
    memory.set("b", 1)
    assert memory.stats().writes_today == 1


def test_an_append_over_the_limit_appends_nothing(memory):
    memory.configure(writes_per_day=3)
    with pytest.raises(RateLimited):
        memory.conversation("t").extend(["a", "b", "c", "d"])
    assert len(memory.conversation("t")) == 0
    memory.conversation("t").extend(["a", "b", "c"])


def test_a_refused_batch_costs_nothing(memory):
    memory.configure(writes_per_day=3)
    with pytest.raises(RateLimited):
        memory.set_many({f"k{number}": number for number in range(4)})
    assert memory.stats().writes_today == 0
    memory.set_many({"a": 1, "b": 2, "c": 3})


def test_limits_can_be_lifted(memory):
    memory.configure(writes_per_day=1, max_items=1, max_bytes=100)
    memory.set("a", 1)
    memory.configure(writes_per_day=0, max_items=0, max_bytes=0)
    memory.set_many({f"k{number}": "x" * 100 for number in range(20)})
    assert len(memory) == 21
