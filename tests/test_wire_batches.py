"""What several callers ask in one request, as it travels: nothing of it gets mixed up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

import botwire
from botwire import Conflict, InvalidInput, wire
from botwire.ops import Delete, Get, Item, Op, Put, Stamp, Value

BATCHES = [
    ([Value("a", "k"), Get("a", "x")], None),
    ([Put("a", "k", Raw(b'{"a":[1.0,"\\u00e9"]}')), Delete("b/c", "k")], "r1"),
    ([], None),
    ([Put("a", "k", Raw(b"null"))], 'quote " and \\ and ключ'),
]


def body_of(batches):
    encoded = [(wire.encode_ops(ops), request_id) for ops, request_id in batches]
    assert all(shield is None for (_, shield), _ in encoded)
    return wire.encode_batches([(body, request_id) for (body, _), request_id in encoded])


def test_batches_arrive_as_they_were_sent():
    assert wire.decode_batches(body_of(BATCHES)) == BATCHES
    assert wire.decode_batches(body_of([])) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"ops":[]}',
        b'{"batches":{}}',
        b'{"batches":[{}]}',
        b'{"batches":[{"ops":[],"more":1}]}',
        b'{"batches":[{"ops":[],"request_id":5}]}',
        b'{"batches":[{"ops":[{"op":"drop"}]}]}',
        b'{"batches":[{"ops":[{"op":"put","namespace":"a//b","key":"k","value":1}]}]}',
        b'{"batches":[],"ops":[]}',
        b'{"batches":[' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_are_no_batches_is_refused(body):
    with pytest.raises(InvalidInput):
        wire.decode_batches(body)


def test_an_execute_takes_no_request_id_in_its_body():
    with pytest.raises(InvalidInput):
        wire.decode_ops(b'{"ops":[],"request_id":"r1"}')


ASKED: list[list[Op]] = [[Value("a", "k"), Value("a", "x")], [Put("a", "k", Raw(b"1"))], [Get("a", "k")], []]
HALF = Raw(b'"\\ud800"')


def test_answers_arrive_as_they_were_given():
    item = Item(HALF, "k", 1, 2, 3)
    given: list[Any] = [[Raw(b"null"), None], wire.problem_of(Conflict("lost", 7), "req-1"), [item], []]
    body, shield = wire.encode_answers(ASKED, given)
    assert wire.decode_answers(ASKED, body, shield) == given
    assert shield is not None
    json.loads(body)


def test_an_error_comes_out_of_its_problem():
    body, shield = wire.encode_answers([[Get("a", "k")]], [wire.problem_of(Conflict("lost", 7))])
    [found] = wire.decode_answers([[Get("a", "k")]], body, shield)
    assert isinstance(found, wire.Problem)
    error = wire.error_of(found)
    assert isinstance(error, Conflict)
    assert (str(error), error.version) == ("lost", 7)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"answers":[]}',
        b'{"answers":[{"results":[]}]}',
        b'{"answers":[{"results":[{"version":1},{"version":1}]}]}',
        b'{"answers":[{"results":["nonsense"]}]}',
        b'{"answers":[{"problem":{}}]}',
        b'{"answers":[{"results":[{"version":1,"created":1,"updated":1}]},{"results":[]}]}',
        b'{"answers":[{}]}',
    ],
)
def test_what_is_no_answer_to_what_was_asked_is_an_error(body):
    with pytest.raises(msgspec.DecodeError):
        wire.decode_answers([[Put("a", "k", Raw(b"1"))]], body)


def test_a_stamp_is_one_whoever_it_travelled_with():
    stamp = Stamp(1, 2, 3, 4)
    ops = [[Put("a", "k", Raw(b"1"))]] * 3
    body, shield = wire.encode_answers(ops, [[stamp]] * 3)
    assert wire.decode_answers(ops, body, shield) == [[stamp]] * 3


def test_only_one_file_of_the_client_knows_the_http_library():
    core = Path(botwire.__file__).parent
    knowing = {
        path.relative_to(core).as_posix()
        for path in core.rglob("*.py")
        if re.search(r"(?m)^\s*(import|from) http(x|core)2?\b", path.read_text("utf-8"))
    }
    # an embedder is another service: it has nothing of the client's connections
    assert knowing == {"stores/http/connections.py", "search/embedders.py"}
