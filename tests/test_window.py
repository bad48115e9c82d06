"""The window of a conversation that fits a budget, by itself: pages of messages go in, no store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, json

from botwire import InvalidInput
from botwire.ops import Message
from botwire.window import Window, estimate_tokens


def message(version, value, role=None):
    return Message(Raw(json.encode(value)), f"#{version}", version, version, role)


def call(*ids):
    return {
        "role": "assistant",
        "tool_calls": [{"id": each, "function": {"name": "f", "arguments": "{}"}} for each in ids],
    }


def result(id):
    return {"role": "tool", "tool_call_id": id, "content": "x"}


def talk(*said):
    return [message(version, value) for version, value in enumerate(said, 1)]


def chosen(messages, budget, page=2, system=()):
    """What a window keeps, given the messages newest first, in pages."""
    window = Window(list(system), budget, lambda value: 1)
    newest_first = messages[::-1]
    for start in range(0, len(newest_first), page):
        if window.full:
            break
        window.add(newest_first[start : start + page])
    return [each.version for each in window.chosen()]


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_pages_make_no_difference(page):
    messages = talk("q", call("a", "b"), result("a"), result("b"), "q", call("c"), result("c"), "a")
    sizes = [len(chosen(messages, budget, page)) for budget in range(10)]
    assert sizes == [0, 1, 1, 3, 4, 4, 4, 7, 8, 8]


def test_nothing_comes_of_nothing():
    assert chosen([], 5) == []
    assert Window([], 0, None).chosen() == []


def test_system_messages_come_first_out_of_the_budget():
    system = [message(1, "s", "system"), message(5, "s", "system")]
    messages = [system[0], message(2, "a"), message(3, "b"), message(4, "c"), system[1], message(6, "d")]
    assert chosen(messages, 2, system=system) == [1, 5]
    assert chosen(messages, 3, system=system) == [1, 5, 6]
    assert chosen(messages, 5, system=system) == [1, 3, 4, 5, 6]
    with pytest.raises(InvalidInput, match="2 system messages"):
        chosen(messages, 1, system=system)


def test_a_system_message_in_the_midst_of_an_exchange_parts_nothing():
    system = [message(2, "s", "system")]
    messages = [message(1, call("a")), system[0], message(3, result("a"))]
    assert chosen(messages, 2, system=system) == [2]
    assert chosen(messages, 3, system=system) == [1, 2, 3]


def test_a_stray_result_is_left_out():
    assert chosen(talk(result("gone"), "a", "b"), 9) == [2, 3]
    assert chosen(talk("a", result("gone"), "b"), 9) == [1, 3]
    assert chosen(talk("a", "b", result("gone")), 9) == [1, 2]
    assert chosen(talk(result("gone")), 9) == []


def test_a_result_before_its_call_is_a_stray():
    assert chosen(talk(result("a"), call("a"), "b"), 9) == [2, 3]


def test_the_estimate_counts_bytes_and_a_frame():
    assert estimate_tokens(message(1, "")) == 4
    assert estimate_tokens(message(1, "x" * 398)) == 104
    assert estimate_tokens(message(1, "漢" * 100)) > 70


@given(st.data())
def test_no_window_parts_what_belongs_together(data):
    """Whatever is said, called, answered or lost in whatever order, what comes out stands by itself."""
    ids = st.sampled_from("abcd")
    said = data.draw(
        st.lists(
            st.one_of(
                st.just("text"), st.builds(result, ids), st.sets(ids, min_size=1).map(sorted).map(lambda s: call(*s))
            ),
            max_size=30,
        )
    )
    messages = talk(*said)
    budget = data.draw(st.integers(0, 35))
    found = chosen(messages, budget, data.draw(st.integers(1, 9)))
    assert found == sorted(set(found))
    assert len(found) <= budget
    open_calls: set[str] = set()
    for version in found:
        value = said[version - 1]
        if isinstance(value, dict) and value["role"] == "assistant":
            open_calls |= {each["id"] for each in value["tool_calls"]}
        elif isinstance(value, dict):
            assert value["tool_call_id"] in open_calls, "a result whose call is not in the window"
    if budget >= len(messages):
        strays = set(range(1, len(messages) + 1)) - set(found)
        assert all(isinstance(said[v - 1], dict) and said[v - 1]["role"] == "tool" for v in strays)
