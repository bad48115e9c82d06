"""Names, values and filters by themselves: pure functions, no store."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from botwire import InvalidInput, TooLarge, cursors, names, shapes, values
from botwire.ops import MAX_SECONDS, Policy, Put, Scan, Touch, microseconds, moment
from botwire.search import texts
from botwire.where import check_where, matches

TEXT = st.text(st.characters(codec=None))


# ── names ──


@given(TEXT)
def test_a_name_is_allowed_just_if_the_rule_says_so(name):
    control = any(ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F for character in name)
    surrogate = any(0xD800 <= ord(character) <= 0xDFFF for character in name)
    allowed = bool(name) and not control and not surrogate and len(name.encode("utf-8", "replace")) <= 512
    if allowed:
        names.check_name(name, "key")
    else:
        with pytest.raises(InvalidInput, match="key"):
            names.check_name(name, "key")


@pytest.mark.parametrize("character", ["a", "é", "漢", "🙂"])
def test_512_bytes_are_counted_in_utf_8(character):
    fits = 512 // len(character.encode())
    names.check_name(character * fits, "key")
    with pytest.raises(TooLarge, match="512"):
        names.check_name(character * (fits + 1), "key")


def test_levels_of_a_namespace():
    for good in ("a", "a/b", "a/b/c", "🙂/ü", "a.b", " a / b "):
        names.check_namespace(good)
    for bad in ("", "/", "a/", "/a", "a//b"):
        with pytest.raises(InvalidInput):
            names.check_namespace(bad)
    names.check_namespace("", root=True)
    with pytest.raises(InvalidInput):
        names.check_namespace("/", root=True)


def test_ancestors_and_what_lies_within():
    assert names.ancestors("a/b/c") == ["a/b/c", "a/b", "a", ""]
    assert names.ancestors("") == [""]
    assert [names.within(each, "a") for each in ("a", "a/b", "ab", "b", "")] == [True, True, False, False, False]
    assert all(names.within(each, "") for each in ("a", "a/b", ""))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.lists(st.sampled_from("abc"), max_size=5))
def test_a_namespace_lies_within_just_its_ancestors(levels, others):
    namespace, scope = "/".join(levels), "/".join(others)
    assert names.within(namespace, scope) == (scope in names.ancestors(namespace))


# ── values ──

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_was(value):
    text = values.encode(value)
    again = values.decode(text)
    assert repr(again) == repr(value)  # types, order, and the sign of zero, too
    assert values.encode(again) == text


@given(JSON)
def test_what_we_write_is_json_to_others(value):
    assert repr(json.loads(values.encode(value))) == repr(value)


@given(
    st.recursive(st.just(math.nan) | st.just(math.inf) | st.just(-math.inf), lambda inner: st.lists(inner, min_size=1)),
    JSON,
)
def test_no_nan_gets_through(bad, good):
    for value in (bad, [good, bad], {"a": good, "b": {"c": bad}}, (good, [bad]), [bad, "\ud800"]):
        with pytest.raises(InvalidInput):
            values.encode(value)


def test_nan_hidden_in_a_mapping_of_ones_own_is_found():
    class Own(Mapping[str, float]):
        def __getitem__(self, key):
            return math.nan

        def __iter__(self):
            return iter(["a"])

        def __len__(self):
            return 1

    with pytest.raises(InvalidInput):
        values.encode(Own())


def test_a_mapping_of_ones_own_is_a_dict():
    from types import MappingProxyType

    assert values.encode(MappingProxyType({"a": [1]})) == b'{"a":[1]}'


@pytest.mark.parametrize("depth", [1, 127, 128])
def test_depth_that_is_allowed(depth):
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * depth + "1" + closing * depth
        assert values.decode(values.encode(json.loads(text))) == json.loads(text)


def test_depth_that_is_not():
    for depth in (129, 500, 50_000):
        value: object = 1
        for _ in range(depth):
            value = [value]
        with pytest.raises(InvalidInput):
            values.encode(value)


def test_brackets_inside_text_are_no_depth():
    for text in ("[" * 500, '\\"[' * 200, '"' + "{" * 500, "\\"):
        assert values.decode(values.encode([text, {text: text}])) == [text, {text: text}]


def test_the_limit_is_in_bytes():
    assert values.encode("xx", limit=4) == b'"xx"'
    with pytest.raises(TooLarge, match="5 bytes"):
        values.encode("xxx", limit=4)
    with pytest.raises(TooLarge):
        values.encode("é", limit=3)


def test_decode_as_says_what_does_not_fit():
    with pytest.raises(InvalidInput, match="int"):
        values.decode_as(b'"5"', int)
    assert values.decode_as(b"[1,2]", tuple[int, int]) == (1, 2)
    assert values.decode_as(b"5", float) == 5.0


# ── numbers in ops ──


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.timezones()))  # noqa: DTZ001  # bounds
def test_times_come_back_to_the_microsecond(when):
    assert moment(microseconds(when)) == when.astimezone(UTC)


def test_a_century_is_the_longest_ttl():
    Touch("a", "b", MAX_SECONDS)
    with pytest.raises(InvalidInput):
        Touch("a", "b", MAX_SECONDS + 1)
    with pytest.raises(InvalidInput, match="not both"):
        Put("a", "b", msgspec.Raw(b"1"), ttl=5, expires=5)


def test_ops_check_themselves_when_they_come_off_the_wire():
    for text in (
        b'{"op":"put","namespace":"","key":"a","value":1}',
        b'{"op":"put","namespace":"a","key":"","value":1}',
        b'{"op":"put","namespace":"a","key":"b","value":1,"ttl":-1}',
        b'{"op":"put","namespace":"a","key":"b","value":1,"surprise":1}',
        b'{"op":"delete","namespace":"a","key":"b","if_version":-1}',
        b'{"op":"scan","namespace":"a","limit":99999}',
        b'{"op":"erase","namespace":"a","key":"b","subtree":true}',
        b'{"op":"trim","namespace":"a","conversation":"b"}',
        b'{"op":"drop","namespace":"a"}',
        b'{"op":"configure","namespace":"a","policy":{"history":-1}}',
    ):
        from botwire.ops import AnyOp

        with pytest.raises((InvalidInput, msgspec.ValidationError)):
            msgspec.json.decode(text, type=AnyOp)


@given(st.builds(Scan, namespace=st.just("a"), prefix=st.just("b"), tags=st.just(("t",)), limit=st.integers(0, 9)))
def test_ops_travel(op):
    from botwire.ops import AnyOp

    assert msgspec.json.decode(msgspec.json.encode(op), type=AnyOp) == op


def test_a_policy_over_another():
    assert Policy(history=1).over(Policy(history=2, feed=3)) == Policy(history=1, feed=3)
    assert Policy().over(Policy(history=2)) == Policy(history=2)
    assert Policy(history=0).over(Policy(history=2)) == Policy(history=0)


# ── cursors ──


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_a_listings_cursor_holds_its_place(name, number):
    assert cursors.sort_key(cursors.page(name, number), str, int) == (name, number)


@given(st.text())
def test_what_is_no_cursor_is_refused_as_such(cursor):
    for read in (lambda: cursors.sort_key(cursor, str, str), lambda: cursors.feed_position(cursor, subtree=False)):
        try:
            read()
        except InvalidInput:
            continue


def test_a_feeds_cursor_knows_its_scope():
    assert cursors.feed_position(cursors.feed(5, subtree=True), subtree=True) == 5
    assert cursors.feed_position("", subtree=True) == 0
    with pytest.raises(InvalidInput):
        cursors.feed_position(cursors.feed(5, subtree=True), subtree=False)


# ── filters ──


@given(st.dictionaries(st.sampled_from("abc"), JSON.filter(lambda value: not isinstance(value, dict)), max_size=3))
def test_a_value_matches_the_filter_that_it_is(value):
    check_where(value)
    assert matches(value, value)


@given(JSON, JSON)
def test_eq_and_ne_in_and_nin_are_opposites(value, other):
    for one, opposite in (("$eq", "$ne"), ("$in", "$nin")):
        argument = other if one == "$eq" else [other]
        for record in ({"a": value}, {}, value):
            assert matches(record, {"a": {one: argument}}) != matches(record, {"a": {opposite: argument}})


@given(st.integers() | st.floats(allow_nan=False), st.integers() | st.floats(allow_nan=False))
def test_comparisons_are_pythons_for_numbers(left, right):
    record = {"a": left}
    assert matches(record, {"a": {"$gt": right}}) == (left > right)
    assert matches(record, {"a": {"$gte": right}}) == (left >= right)
    assert matches(record, {"a": {"$lt": right}}) == (left < right)
    assert matches(record, {"a": {"$lte": right}}) == (left <= right)


@given(JSON, JSON)
def test_a_filter_answers_whatever_the_value_is(value, other):
    for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists", "$contains"):
        assert matches({"a": value}, {"a": {operator: other}}) in (True, False)
        assert matches(value, {"a.b": {operator: other}}) in (True, False)


# ── what is recognised in messages ──


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ({"type": "human", "data": {"content": "hi"}}, "user"),
        ({"type": "SystemMessageChunk", "data": {"content": "hi"}}, "system"),
        ({"type": "AIMessageChunk", "data": {"content": "hi"}}, "assistant"),
        ({"type": "chat", "data": {"content": "hi", "role": "critic"}}, "critic"),
        ({"type": "note", "role": "user", "data": {}}, "user"),
    ],
)
def test_langchains_messages_say_who_speaks(message, role):
    assert shapes.role_of(message) == role


def test_a_redacted_message_is_one_that_langchain_reads():
    said = {"type": "function", "data": {"content": "secret", "name": "lookup", "type": "function"}}
    assert shapes.redacted(said, "—")["data"]["name"] == "lookup"


def test_a_text_of_another_class_is_a_text():
    class Safe(str):
        pass

    assert values.encode({"a": Safe("b")}) == b'{"a":"b"}'


def test_the_name_of_a_tool_is_nobodys():
    assert shapes.author_of({"type": "function_call", "name": "remember", "arguments": "{}"}) is None
    assert shapes.author_of({"type": "message", "name": "Ana"}) == "Ana"


def test_what_a_model_weighed_is_not_what_it_said():
    said = {"type": "output_text", "text": "Lisbon", "logprobs": [{"token": "Porto", "logprob": -1.5}]}
    assert texts.of_message({"type": "message", "role": "assistant", "content": [said]}) == "Lisbon"


@given(JSON)
def test_any_json_is_a_message(value):
    shapes.role_of(value)
    shapes.usable_name(shapes.author_of(value))
    shapes.time_of(value)
    shapes.calls_of(value)
    shapes.results_of(value)
    values.encode(shapes.redacted(value, "—"))


FIELDS = st.sampled_from(
    ["role", "type", "data", "name", "content", "parts", "tool_calls", "tool_call_id", "function_call", "id", "call_id",
     "at", "timestamp", "created_at", "part_kind", "tool_use_id", "author", "source", "function", "args", "output"]
)  # fmt: skip
SHAPED = st.recursive(
    st.none()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["tool_use", "tool_result", "function_call", "ai", "2024-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=15,
)


@given(SHAPED)
def test_messages_of_odd_shapes_are_messages_too(value):
    test_any_json_is_a_message.hypothesis.inner_test(value)  # type: ignore[attr-defined]  # hypothesis adds it
