"""Values that come from outside are checked and compact before a store sees them, whatever op brings them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from botwire.errors import InvalidInput, TooLarge
from botwire.ops import (
    Append,
    Edit,
    EndRecord,
    Get,
    ItemRecord,
    Load,
    Message,
    MessageRecord,
    NamespaceRecord,
    NewMessage,
    Op,
    Put,
    Revision,
)
from botwire_server import Settings
from botwire_server.outside import checked

BRING: dict[str, tuple[Callable[[Raw], Op], Callable[[Any], Raw]]] = {
    "put": (lambda raw: Put("n", "k", raw), lambda op: op.raw),
    "edit": (lambda raw: Edit("n", "t", "m", raw), lambda op: op.raw),
    "append": (
        lambda raw: Append("n", "t", [NewMessage(Raw(b"1")), NewMessage(raw, "m")]),
        lambda op: op.messages[1].raw,
    ),
    "the past of an item": (
        lambda raw: Load("n", [ItemRecord("k", 1, [Revision(Raw(b"1"), 2, 2), Revision(raw, 1, 1)])]),
        lambda op: op.records[0].revisions[1].raw,
    ),
    "a message of an import": (
        lambda raw: Load("n", [NamespaceRecord(1, 1, 1), MessageRecord(Message(raw, "m", 1, 1)), EndRecord(1, 0, 1)]),
        lambda op: op.records[1].message.raw,
    ),
}
ways = pytest.mark.parametrize(("bring", "find"), BRING.values(), ids=[*BRING])


@ways
@pytest.mark.parametrize(
    "text",
    [b"", b"nul", b"NaN", b"[1,]", b'{"a":1', b"1e999", b"'a'", b'"\xff"', b"1 2", b'"\\u12"', b"[" * 129 + b"]" * 129],
)
def test_what_is_no_json_is_refused(bring, find, text):
    with pytest.raises(InvalidInput):
        checked([bring(Raw(text))], Settings())


@ways
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b'{"a":1,"b":[1.0,null]}', b'{"a":1,"b":[1.0,null]}'),
        (b' { "b" : [ 1 , 2 ] ,\n"a": 1 } ', b'{"b":[1,2],"a":1}'),
        (b"12345678901234567890123", b"12345678901234567890123"),
        (b'"\\ud800"', b'"\\ud800"'),
    ],
)
def test_what_is_json_is_kept_without_its_white_space(bring, find, text, kept):
    [op] = checked([bring(Raw(text))], Settings())
    assert bytes(find(op)) == kept


def test_what_is_compact_already_is_not_copied():
    op = Put("n", "k", Raw(b'{"a":1}'))
    assert checked([op], Settings()) == [op]
    assert checked([op], Settings())[0] is op


def test_so_many_ops_and_no_more():
    settings = Settings(max_batch=3)
    assert len(checked([Get("n", "k")] * 3, settings)) == 3
    with pytest.raises(TooLarge, match="4 ops"):
        checked([Get("n", "k")] * 4, settings)
