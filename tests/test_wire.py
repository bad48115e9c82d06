"""The wire: what a client encodes a server decodes to the same, and the other way round, errors included."""

import json
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from botwire import Conflict, InvalidInput, Memory, NotAuthenticated, RateLimited, TooLarge, errors, values, wire
from botwire.ops import (
    AnyOp,
    Append,
    Changes,
    Conversations,
    Delete,
    Describe,
    Dump,
    Get,
    History,
    Load,
    Messages,
    Namespaces,
    NewMessage,
    Op,
    Put,
    Scan,
    Value,
)
from botwire.stores.sqlite import SQLiteStore

text = st.text(st.characters(exclude_categories=()), max_size=20)  # half surrogate pairs included
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


def plain(found):
    """Structs and Raws as something that can be compared."""
    if isinstance(found, Raw):
        return values.decode(found)
    if isinstance(found, list | tuple):
        return [plain(each) for each in found]
    if isinstance(found, msgspec.Struct):
        return type(found).__name__, {field: plain(getattr(found, field)) for field in found.__struct_fields__}
    return found


@given(json_values, json_values)
def test_ops_and_results_arrive_as_they_were_sent(value, said):
    ops: list[Op] = [
        Put("acme/ü", "a/b", Raw(values.encode(value)), ttl=1.5),
        Append("acme/ü", "talk", [NewMessage(Raw(values.encode(said)), id="m", role="user")]),
        Value("acme/ü", "a/b"),
        Get("acme/ü", "a/b"),
        History("acme/ü", "a/b"),
        Scan("", subtree=True),
        Messages("acme/ü", "talk"),
        Conversations("acme/ü"),
        Changes("acme/ü", ""),
        Describe("acme/ü"),
        Namespaces(""),
        Dump("acme/ü"),
    ]
    body, shield = wire.encode_ops(ops)
    arrived = wire.decode_ops(body, shield)
    assert plain(arrived) == plain(ops)
    store = SQLiteStore(":memory:")
    results = store.execute(arrived)
    body, shield = wire.encode_results(ops, results)
    assert plain(wire.decode_results(ops, body, shield)) == plain(results)
    store.close()


@given(json_values)
def test_a_body_is_json_that_anybody_can_read(value):
    body, _ = wire.encode_ops([Put("a", "k", Raw(values.encode(value)))])
    msgspec.json.decode(body)
    json.loads(body)


def test_a_stored_null_is_told_from_nothing():
    memory = Memory("a", url="sqlite://")
    memory.set("null", None)
    ops = [Value("a", "null"), Value("a", "nothing"), Get("a", "nothing"), Delete("a", "nothing")]
    body, shield = wire.encode_results(ops, memory.execute(ops))
    found, *nothing = wire.decode_results(ops, body, shield)
    assert bytes(found) == b"null"
    assert nothing == [None, None, None]


def test_a_backslash_before_ud8_is_no_half_of_a_pair():
    for value in ("\\ud800", "\\\ud800", "\\\\\udfff", "\ud83d\ude00", "🙂\ud83d"):
        ops = [Put("a", "k", Raw(values.encode(value)))]
        [op] = wire.decode_ops(*wire.encode_ops(ops))
        assert isinstance(op, Put)
        assert values.decode(op.raw) == values.decode(values.encode(value))


def test_records_of_a_load_travel_too():
    source, target = SQLiteStore(":memory:"), SQLiteStore(":memory:")
    memory = Memory("a", store=source)
    memory.set("k", "cut off \ud83d")
    memory.conversation("talk").append("hi \ud83d")
    [load] = wire.decode_ops(*wire.encode_ops([Load("a", list(memory.records()))]))
    target.execute([load])
    assert Memory("a", store=target)["k"] == "cut off \ud83d"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"ops": 1}', b'{"ops": [{"op": "nonsense"}]}', b"\xff", b"[" * 9_999]
)
def test_what_is_no_batch_is_refused(body):
    with pytest.raises(InvalidInput, match="no batch of ops"):
        wire.decode_ops(body)


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ({"op": "put", "namespace": "a//b", "key": "k", "value": 1}, InvalidInput),
        ({"op": "put", "namespace": "a", "key": "k" * 513, "value": 1}, TooLarge),
        ({"op": "put", "namespace": "a", "key": "k", "value": 1, "tll": 5}, InvalidInput),
        ({"op": "put", "namespace": "a", "key": "k", "value": 1, "ttl": -5}, InvalidInput),
        ({"op": "scan", "namespace": "a", "limit": 10**9}, InvalidInput),
        ({"op": "trim", "namespace": "a", "conversation": "c"}, InvalidInput),
    ],
)
def test_an_op_refuses_on_arrival_what_it_refuses_when_made(op, kind):
    with pytest.raises(kind):
        wire.decode_ops(json.dumps({"ops": [op]}).encode())


def test_a_shield_is_what_we_make_or_nothing():
    with pytest.raises(InvalidInput, match="hexadecimal"):
        wire.decode_ops(b'{"ops": []}', "a")


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_travels(name):
    if name == "HostedOnly":
        return  # a library's own; no server raises it
    kind = getattr(errors, name)
    error = (
        Conflict("lost", 7) if kind is Conflict else RateLimited(12.5, "slow") if kind is RateLimited else kind("why")
    )
    problem = wire.problem_of(error, "req-1")
    assert problem.status == wire.STATUS[name]
    text = msgspec.json.encode(problem)
    assert json.loads(text)["type"].startswith("urn:botwire:problem:")
    again = wire.error_of(msgspec.json.decode(text, type=wire.Problem))
    assert type(again) is kind
    assert str(again) == str(error)
    assert getattr(again, "version", None) == getattr(error, "version", None)
    assert getattr(again, "retry_after", None) == getattr(error, "retry_after", None)


def test_an_error_of_a_newer_server_is_an_error_still():
    problem = wire.Problem("urn:botwire:problem:melted", "Melted", 500, "the server has melted")
    assert str(wire.error_of(problem)) == "Melted: the server has melted"
    assert issubclass(NotAuthenticated, errors.AccessDenied)


def test_every_op_can_travel():
    assert {op.__name__ for op in get_args(AnyOp)} == {op.__name__ for op in _ops(Op)}


def _ops(kind):
    return [each for op in kind.__subclasses__() for each in ([op] if not op.__subclasses__() else _ops(op))]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b'{ "a" : [1,\n2 ] }', b'{"a":[1,2]}'),
        (b"1.0", b"1.0"),
        (b"123456789012345678901234567890", b"123456789012345678901234567890"),
        (b'"\\ud800"', b'"\\ud800"'),
        (b'"a\\u00e9"', b'"a\\u00e9"'),
    ],
)
def test_a_value_from_outside_is_kept_as_json_without_white_space(text, kept):
    assert bytes(values.from_outside(text)) == kept


@pytest.mark.parametrize(
    "text", [b"", b"nul", b"NaN", b"-Infinity", b"1e999", b'"\xff"', b"1 2", b"[" * 200 + b"]" * 200, b"[" * 9_999]
)
def test_what_no_memory_could_give_back_is_refused(text):
    with pytest.raises(InvalidInput):
        values.from_outside(text)
