"""What came from outside: values are checked before a store sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from botwire.errors import TooLarge
from botwire.ops import (
    Append,
    DumpRecord,
    Edit,
    ItemRecord,
    Load,
    Message,
    MessageRecord,
    NewMessage,
    Op,
    Put,
    Revision,
)
from botwire.values import from_outside

from .settings import Settings

T = TypeVar("T", Put, Edit, NewMessage, Revision, Message)


def checked(ops: Sequence[Op], settings: Settings) -> list[Op]:
    """The ops with their values checked and compact. Raises `InvalidInput`, or `TooLarge` for too many ops."""
    if len(ops) > settings.max_batch:
        raise TooLarge(f"{len(ops):,} ops in one request: this server takes {settings.max_batch:,}; send several")
    return [op if (check := _CHECKS.get(type(op))) is None else check(op) for op in ops]


def _valued(holder: T) -> T:
    """The same with its value checked; what is compact already stays as it is, for copying costs more than looking."""
    raw = from_outside(holder.raw)
    return holder if bytes(raw) == bytes(holder.raw) else replace(holder, raw=raw)


def _append(op: Append) -> Append:
    return replace(op, messages=[_valued(each) for each in op.messages])


def _load(op: Load) -> Load:
    return replace(op, records=[_record(each) for each in op.records])


def _record(record: DumpRecord) -> DumpRecord:
    match record:
        case ItemRecord():
            return replace(record, revisions=[_valued(each) for each in record.revisions])
        case MessageRecord():
            return replace(record, message=_valued(record.message))
        case _:
            return record


_CHECKS: dict[type[Op], Callable[[Any], Op]] = {Put: _valued, Edit: _valued, Append: _append, Load: _load}
