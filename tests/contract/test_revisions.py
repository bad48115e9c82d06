"""Rule: what an item was stays readable within a stated, bounded retention; before it is an error, not `None`."""

from datetime import datetime
from typing import Any

import pytest

from botwire import HistoryExpired, InvalidInput, Memory


def values(memory, key="a"):
    return ["deleted" if each.deleted else each.value for each in memory.history(key)]


# ── history ──


def test_history_is_newest_first_with_versions_and_times(memory, clock):
    memory.set("other", 1)
    times = []
    for number in range(3):
        times.append(clock.at)
        memory.set("a", {"n": number}, tags=[f"t{number}"], author="me")
        clock.advance(10)
    history = memory.history("a")
    assert [each.value for each in history] == [{"n": 2}, {"n": 1}, {"n": 0}]
    assert [each.version for each in history] == [4, 3, 2]
    assert [each.at for each in history] == times[::-1]
    assert [each.meta.tags for each in history] == [("t2",), ("t1",), ("t0",)]
    assert {each.meta.author for each in history} == {"me"}
    assert not any(each.deleted for each in history)


def test_a_deletion_is_part_of_history(memory):
    memory.set("a", 1)
    memory.delete("a")
    memory.set("a", 2)
    assert values(memory) == [2, "deleted", 1]


def test_what_was_never_there_has_no_history(memory):
    assert memory.history("a") == []
    memory.set("b", 1)
    assert memory.history("a") == []


def test_history_can_be_limited(memory):
    for number in range(5):
        memory.set("a", number)
    assert [each.value for each in memory.history("a", limit=2)] == [4, 3]
    assert memory.history("a", limit=0) == []


def test_a_new_life_has_a_new_time_of_creation(memory, clock):
    first = memory.set("a", 1)
    clock.advance(5)
    assert memory.set("a", 2).created == first.created
    memory.delete("a")
    clock.advance(5)
    assert memory.set("a", 3).created_at == clock.at


# ── retention ──


def test_the_last_16_past_values_are_kept(memory):
    for number in range(40):
        memory.set("a", number)
    assert values(memory) == list(range(39, 22, -1))


def test_a_past_value_is_kept_for_30_days_after_it_was_replaced(memory, clock):
    memory.set("a", "first")
    clock.advance(days=100)
    memory.set("a", "second")  # until now the first was current: its 30 days begin
    clock.advance(days=30)
    assert values(memory) == ["second", "first"]
    clock.advance(1)
    assert values(memory) == ["second"]
    assert memory.undo("a") is None
    clock.advance(days=1_000)
    assert memory.get("a") == "second"  # what is current stays


def test_a_deleted_value_can_be_brought_back_for_30_days(memory, clock):
    memory.set("a", "first")
    memory.delete("a")
    clock.advance(days=29.9)
    memory.set("b", 1)
    assert memory.undo("a").value == "first"
    memory.delete("a")
    clock.advance(days=30.1)
    memory.set("b", 2)
    assert memory.undo("a") is None
    assert [value for value in values(memory) if value != "deleted"] == []


def test_how_much_is_kept_can_be_set(memory, clock):
    memory.configure(history=2, max_age=100)
    for number in range(5):
        memory.set("a", number)
        clock.advance(1)
    assert values(memory) == [4, 3, 2]
    clock.advance(98.5)  # the 2 was replaced 100.5 seconds ago, the 3 99.5
    assert values(memory) == [4, 3]
    clock.advance(1)
    assert values(memory) == [4]


def test_a_lower_limit_hides_at_once_what_is_over_it(memory):
    for number in range(6):
        memory.set("a", number)
    memory.configure(history=1)
    assert values(memory) == [5, 4]
    with pytest.raises(HistoryExpired):
        memory.get("a", as_of=1)
    memory.configure(history=False)
    assert values(memory) == [5]
    assert memory.undo("a") is None


@pytest.mark.parametrize("size", [10, 400, 5_000])
def test_a_long_history_of_any_size_is_kept_whole_and_cut_exactly(memory, size, rounds):
    """Past values that take much room are stored in several places."""
    memory.configure(history=50)
    written = []
    for number in range(rounds(130, 1_000)):
        written.append(f"{number} " + chr(97 + number % 26) * (size + number % 7))
        memory.set("a", written[-1])
        if number % 13 == 0:
            memory.set("b", number)
            assert values(memory) == written[::-1][:51]
    assert values(memory) == written[::-1][:51]
    memory.configure(history=20)
    memory.set("a", "one more")
    assert values(memory) == ["one more", *written[::-1][:20]]


@pytest.mark.parametrize("small", range(14, 19))
def test_one_large_value_among_small_ones_costs_no_history(memory, small):
    """Whatever the order of sizes: the last 16 past values are there."""
    written: list[Any] = []
    for value in [*range(small), "x" * 4_000, "y", "z" * 1_600, *range(20), "x" * 2_000, *range(20)]:
        memory.set("a", value)
        written.insert(0, value)
        assert values(memory) == written[:17]
        assert memory.get("a", as_of=len(written) - min(16, len(written) - 1)) == values(memory)[-1]
    memory.delete("a")
    assert values(memory) == ["deleted", *written[:16]]


def test_a_large_value_that_is_cleared_can_be_brought_back(memory):
    memory.configure(history=3)
    for value in (1, 2, 3, 4, "x" * 4_000):
        memory.set("a", value)
    memory.clear()
    assert values(memory) == ["deleted", "x" * 4_000, 4, 3]
    assert memory.undo("a").value == "x" * 4_000


def test_history_off_keeps_nothing(memory):
    memory.configure(history=False)
    first = memory.set("a", 1)
    memory.set("a", 2)
    assert values(memory) == [2]
    assert memory.undo("a") is None
    with pytest.raises(HistoryExpired):
        memory.get("a", as_of=first.version)
    memory.delete("a")
    assert memory.undo("a") is None
    assert [value for value in values(memory) if value != "deleted"] == []
    with pytest.raises(HistoryExpired):
        memory.get("a", as_of=first.version)


def test_history_true_is_the_default_again(memory):
    memory.configure(history=False)
    assert memory.configure(history=True).policy.history == 16
    memory.set("a", 1)
    memory.set("a", 2)
    assert values(memory) == [2, 1]


def test_one_write_can_leave_no_past(memory):
    for number in range(3):
        memory.set("a", number)
    memory.set("a", "secret replaced", history=False)
    assert values(memory) == ["secret replaced"]
    with pytest.raises(HistoryExpired):
        memory.get("a", as_of=1)
    memory.set("a", "next")
    assert values(memory) == ["next", "secret replaced"]
    memory.delete("a", history=False)
    assert memory.undo("a") is None
    assert [value for value in values(memory) if value != "deleted"] == []


# ── as of ──


def test_as_of_a_version_or_a_time(memory, clock):
    start = clock.at
    clock.advance(10)
    first, at_first = memory.set("a", "one"), clock.at
    clock.advance(10)
    memory.set("other", 1)
    second, at_second = memory.set("a", "two"), clock.at
    clock.advance(10)
    memory.delete("a")
    at_delete = clock.at
    clock.advance(10)
    last = memory.set("a", "three")

    assert [memory.get("a", "none", as_of=version) for version in range(6)] == [
        "none",
        "one",
        "one",
        "two",
        "none",
        "three",
    ]
    assert memory.get("a", as_of=10**9) == "three"
    assert memory.get("a", as_of=start) is None
    assert memory.get("a", as_of=at_first) == "one"
    assert memory.get("a", as_of=clock.ago(21)) == "one"
    assert memory.get("a", as_of=at_second) == "two"
    assert memory.get("a", as_of=at_delete) is None
    assert memory.get("a", as_of=clock.at) == "three"
    item = memory.item("a", as_of=first.version)
    assert (item.value, item.version, item.updated_at) == ("one", first.version, at_first)
    assert (second.version, last.version) == (3, 5)


def test_as_of_a_time_at_which_much_happened_is_the_end_of_it(memory, clock):
    memory.set("a", 1)
    memory.set("a", 2)
    assert memory.get("a", as_of=clock.at) == 2
    assert memory.get("a", as_of=clock.ago(0.000001)) is None


def test_time_in_a_namespace_never_runs_backwards(memory, clock):
    first = memory.set("a", 1)
    clock.advance(-3_600)
    second = memory.set("a", 2)
    assert second.updated >= first.updated
    clock.advance(3_600)
    assert memory.get("a", as_of=clock.at) == 2


def test_before_the_horizon_is_an_error_never_none(memory, clock):
    born = clock.at
    for number in range(40):
        memory.set("a", number)
        clock.advance(1)
    assert memory.get("a", as_of=24) == 23
    with pytest.raises(HistoryExpired, match="version 23"):
        memory.get("a", "default", as_of=23)
    with pytest.raises(HistoryExpired):
        memory.get("a", as_of=born)


def test_a_forgotten_deletion_is_not_mistaken_for_a_key_that_never_was(memory, clock):
    version, when = memory.set("a", "lived").version, clock.at
    clock.advance(1)
    memory.delete("a")
    clock.advance(days=31)
    for _ in range(3):
        memory.set("b", 1)  # sweeps
    assert memory.history("a") == []
    for moment in (version, when):
        with pytest.raises(HistoryExpired):
            memory.get("a", as_of=moment)
    assert memory.get("a", as_of=clock.at) is None
    memory.set("a", "lives again")
    with pytest.raises(HistoryExpired):
        memory.get("a", as_of=version)


def test_as_of_where_nothing_ever_was_is_none(memory):
    assert memory.get("a", as_of=0) is None
    memory.set("b", 1)
    assert memory.get("a", as_of=1) is None
    assert memory.get("b", as_of=0) is None


def test_a_touch_makes_no_revision_and_the_value_keeps_its_beginning(memory, clock):
    first = memory.set("a", 1)
    clock.advance(10)
    memory.touch("a", 600)
    memory.touch("a", 700)
    assert memory.get("a", as_of=first.version) == 1
    assert len(memory.history("a")) == 1
    memory.set("a", 2)
    assert values(memory) == [2, 1]
    assert memory.get("a", as_of=first.version) == 1
    assert memory.get("a", as_of=first.version - 1) is None
    assert memory.get("a", as_of=clock.ago(10)) == 1


@pytest.mark.parametrize("wrong", [datetime(2024, 1, 1), -1, True, "yesterday", 1.5])  # noqa: DTZ001  # naive is the point
def test_a_moment_that_is_none_is_refused(memory, wrong):
    memory.set("a", 1)
    with pytest.raises(InvalidInput):
        memory.get("a", as_of=wrong)
    with pytest.raises(InvalidInput):
        memory.item("a", as_of=wrong)


# ── undo ──


def test_undo_walks_back_and_says_what_it_restored(memory):
    for number in range(4):
        memory.set("a", number)
    item = memory.undo("a")
    assert (item.value, item.version, item.meta.restored) == (2, 5, 3)
    assert [memory.undo("a").value for _ in range(2)] == [1, 0]
    assert memory.undo("a") is None
    assert memory.get("a") == 0
    assert values(memory) == [0, 1, 2, 3, 2, 1, 0]


def test_undo_after_a_delete_brings_the_value_back(memory):
    memory.set("a", 1)
    memory.set("a", 2)
    memory.delete("a")
    assert memory.undo("a").value == 2
    assert memory.undo("a").value == 1
    memory.delete("a")
    memory.delete("a")
    assert memory.undo("a").value == 1
    assert memory.undo("a") is None


def test_a_new_value_can_be_undone_to_what_an_undo_had_restored(memory):
    for value in ("one", "two"):
        memory.set("a", value)
    memory.undo("a")
    memory.set("a", "three")
    assert memory.undo("a").value == "one"


def test_undo_brings_tags_and_expiry_back_and_may_name_who_did_it(memory, clock):
    memory.set("a", 1, tags=["x"], author="first", ttl=1_000)
    memory.set("a", 2, author="second")
    item = memory.undo("a")
    assert (item.tags, item.author) == (("x",), "first")
    assert item.expires_at == clock.ago(-1_000)
    assert memory.item("a") == item
    memory.set("a", 3)
    assert memory.undo("a", author="me").author == "me"


def test_undo_after_a_clear_brings_single_keys_back(memory):
    memory.set_many({"a": 1, "b": 2})
    memory.clear()
    assert memory.undo("b").value == 2
    assert memory.keys() == ["b"]


def test_undo_of_what_was_touched_goes_to_the_value_before(memory):
    memory.set("a", 1)
    memory.set("a", 2)
    memory.touch("a", 60)
    assert memory.undo("a").value == 1


def test_histories_of_namespaces_are_their_own(store):
    one, two = Memory("one", store=store), Memory("one/two", store=store)
    one.set("a", 1)
    two.set("a", 2)
    two.set("a", 3)
    assert (values(one), values(two)) == ([1], [3, 2])
    assert one.undo("a") is None
