"""A record of writes and refusals: who, what, when; never values.

A write is recorded in its own commit: there is none without its record. The record of a namespace lies in a hidden
namespace of its own, `.botwire/audit/<namespace>`, so that writers of different namespaces never wait for each other.
In it each key and each conversation has a conversation of its own, so that erasing the one can take the other along.

Refusals are recorded a moment later, those of each API key in a conversation of `.botwire/refusals`. They name no keys
of items, and when too many come at once some are dropped, counted and logged.

A record is the same each time a write is repeated with its idempotency key, so that the store knows it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from botwire.errors import AccessDenied, BotWireError, QuotaExceeded, RateLimited
from botwire.names import MAX_NAME_BYTES, within
from botwire.ops import (
    Append,
    Configure,
    Edit,
    Erase,
    Load,
    NewMessage,
    Op,
    Policy,
    Trim,
)
from botwire.stores.base import AsyncStore
from botwire.values import MAX_VALUE_BYTES

from .guard import Principal
from .settings import Settings

log = logging.getLogger("botwire.server.audit")

ROOT: Final = ".botwire/audit"
REFUSALS: Final = ".botwire/refusals"

MAX_WAITING: Final = 1_000  # refusals that wait to be written down
MAX_REFUSALS: Final = 10_000  # kept for each API key
PAUSE: Final = 0.5  # seconds in which refusals gather
MAX_IDS: Final = 100  # message ids that one record names
MAX_KNOWN: Final = 100_000  # namespaces whose record is known to be set up

_NO_LIMITS: Final = Policy(writes_per_day=0, max_bytes=0, max_items=0, max_value_bytes=MAX_VALUE_BYTES)
_REFUSAL_POLICY: Final = replace(_NO_LIMITS, messages=MAX_REFUSALS)
_REFUSED: Final = (AccessDenied, RateLimited, QuotaExceeded)

_NOTED: Final = ("key", "conversation", "ids", "if_version", "policy")

_encode = msgspec.json.Encoder().encode


class Entry(Struct, frozen=True, omit_defaults=True):
    """What was done, as it stands in the record. Who did it is the author of the message, the op its role."""

    name: str
    """The name of the API key; the message's author is its id."""
    key: str | None = None
    conversation: str | None = None
    ids: tuple[str, ...] | None = None
    """Messages that the op names, the first hundred of them."""
    if_version: int | None = None
    policy: Policy | None = None
    subtree: bool = False
    count: int | None = None
    """How many messages were appended or named, or records loaded."""
    request: str | None = None
    """The request's idempotency key, if it had one."""


class Refusal(Struct, frozen=True, omit_defaults=True):
    """What was refused. Who asked is the author of the message."""

    name: str
    error: str
    ops: tuple[str, ...]
    namespaces: tuple[str, ...]


# ── where a record lies ─────────────────────────────────────────────────────────────────────────────


def namespace_of(name: str) -> str:
    """The namespace that holds the record of a namespace.

    A name too long for that is put as a hash below `~` in the record of the nearest one above it that is not; so the
    record of a subtree is always a subtree.
    """
    plain = f"{ROOT}/{name}" if name else ROOT
    room = MAX_NAME_BYTES - len("/~/") - 64
    if len(plain.encode()) <= room:
        return plain
    return f"{_tilde(name, room)}/{hashlib.sha256(name.encode()).hexdigest()}"


def _tilde(name: str, room: int) -> str:
    """Where the records of the too long names lie that begin as this one does."""
    levels = name.split("/")[:-1]
    while levels and len(f"{ROOT}/{'/'.join(levels)}".encode()) > room:
        levels.pop()
    return "/".join([ROOT, *levels, "~"])


def conversation_of(op: Op) -> str:
    """The conversation that holds the record of what an op is about: a key, a conversation, or the namespace."""
    key, conversation = getattr(op, "key", None), getattr(op, "conversation", None)
    name = f"key {key}" if key is not None else f"conversation {conversation}" if conversation is not None else ""
    if not name:
        return "namespace"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    return f"{name.partition(' ')[0]}# {hashlib.sha256(name.encode()).hexdigest()}"


def _erased(op: Erase) -> Erase:
    """The erase of the record of what an erase destroys."""
    if op.key is not None or op.conversation is not None:
        return Erase(namespace_of(op.namespace), conversation=conversation_of(op))
    room = MAX_NAME_BYTES - len("/~/") - 64
    if op.subtree and len(f"{ROOT}/{op.namespace}".encode()) > room:
        return Erase(_tilde(op.namespace, room), subtree=True)  # takes its neighbours along: their names are hashed
    return Erase(namespace_of(op.namespace), subtree=op.subtree)


# ── what goes with a batch ──────────────────────────────────────────────────────────────────────────


def _entry(op: Op, name: str, request: str | None) -> Entry:
    if isinstance(op, Erase):  # never what it erased
        return Entry(name, subtree=op.subtree, request=request)
    noted: dict[str, Any] = {field: getattr(op, field, None) for field in _NOTED}
    match op:
        case Append(messages=messages):
            given = tuple(each.id for each in messages if each.id is not None)
            noted |= {"ids": given or None, "count": len(messages)}
        case Edit(id=id):
            noted["ids"] = (id,)
        case Trim(ids=ids) if ids is not None:
            noted["count"] = len(ids)
        case Load(records=loaded):
            noted["count"] = len(loaded)
        case _:
            pass
    if noted["ids"]:
        noted["ids"] = noted["ids"][:MAX_IDS]
    return Entry(name, request=request, **noted)


def _message(op: Op, entry: Struct, author: str) -> NewMessage:
    return NewMessage(Raw(_encode(entry)), role=type(op).__name__.lower(), author=author)


def records(principal: Principal, ops: Sequence[Op], request: str | None) -> list[Op]:
    """The ops that write down what a batch does, to be run behind it."""
    erases: list[Op] = []
    policies: dict[str, Op] = {}
    messages: dict[tuple[str, str], list[NewMessage]] = {}
    for op in ops:
        if op.access == "read":
            continue
        target = (namespace_of(op.namespace), conversation_of(op))
        if isinstance(op, Erase):
            erase = _erased(op)
            erases.append(erase)
            messages = {place: kept for place, kept in messages.items() if not _takes(erase, *place)}
            target = (target[0], "namespace")
            policies[target[0]] = Configure(target[0], _NO_LIMITS)
        message = _message(op, _entry(op, principal.name, request), principal.id)
        messages.setdefault(target, []).append(message)
    policies = {name: op for name, op in policies.items() if any(place[0] == name for place in messages)}
    appends = [Append(namespace, talk, said) for (namespace, talk), said in messages.items()]
    return [*erases, *policies.values(), *appends]


def _takes(erase: Erase, namespace: str, conversation: str) -> bool:
    if erase.subtree:
        return within(namespace, erase.namespace)
    return namespace == erase.namespace and erase.conversation in (None, conversation)


class Audit:
    """Writes the record, in the write's own commit."""

    def __init__(self, store: AsyncStore, settings: Settings, clock: Callable[[], int] | None = None) -> None:
        self.store = store
        self.settings = settings
        self.dropped = 0
        self._clock = clock or _system_clock
        self._known: set[str] = set()
        self._waiting: deque[tuple[str, NewMessage]] = deque()
        self._come = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        if self.settings.audit:
            self._writing = asyncio.create_task(self._write_refusals(), name="botwire audit")

    async def stop(self) -> None:
        """Write down what is left."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            await asyncio.wait({writing})
            await self._write_waiting()

    # ── writes ──

    async def execute(self, principal: Principal, ops: Sequence[Op], request_id: str | None) -> list[Any]:
        """Run ops, and record the writes among them in the same batch."""
        if not self.settings.audit or all(op.access == "read" for op in ops):
            return await self.store.execute(ops, request_id=request_id)
        request = None if request_id is None else request_id.removeprefix(f"{principal.id}:")
        more = records(principal, ops, request)
        await self._set_up(more)
        results = await self.store.execute([*ops, *more], request_id=request_id)
        return results[: len(ops)]

    async def _set_up(self, more: Sequence[Op]) -> None:
        """Have the quotas of the store not apply to the record.

        Before the write, not with it: a repeated write must be the same batch as it was the first time.
        """
        new = {op.namespace for op in more if isinstance(op, Append)} - self._known
        if not new:
            return
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        await self.store.execute([Configure(name, _NO_LIMITS) for name in sorted(new)])
        self._known |= new

    # ── refusals ──

    def refused(self, principal: Principal, ops: Sequence[Op], error: BotWireError) -> None:
        """Note a refusal. It never waits: when too many wait already, it is dropped and counted."""
        if self._writing is None or not isinstance(error, _REFUSED):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        kinds = tuple(dict.fromkeys(type(op).__name__.lower() for op in ops))
        where = tuple(dict.fromkeys(op.namespace for op in ops))[:20]
        refusal = Refusal(principal.name, type(error).__name__, kinds, where)
        message = NewMessage(Raw(_encode(refusal)), role="refused", author=principal.id, at=self._clock())
        self._waiting.append((principal.id, message))
        self._come.set()

    async def _write_refusals(self) -> None:
        while True:
            await self._come.wait()
            self._come.clear()
            await self._write_waiting()
            await asyncio.sleep(PAUSE)

    async def _write_waiting(self) -> None:
        """Write down the refusals that wait. What cannot be written is counted as dropped."""
        dropped, self.dropped = self.dropped, 0
        waiting = list(self._waiting)
        self._waiting.clear()
        talks: dict[str, list[NewMessage]] = {}
        for talk, message in waiting:
            talks.setdefault(talk, []).append(message)
        if talks:
            appends = [Append(REFUSALS, talk, messages) for talk, messages in talks.items()]
            try:
                await self.store.execute([Configure(REFUSALS, _REFUSAL_POLICY), *appends])
            except BotWireError as error:
                log.error("refusals cannot be written down: %s", error)  # noqa: TRY400  # the trace says nothing more
                dropped += len(waiting)
        if dropped:
            log.warning("%d refusals are not in the audit: too many at once, or the store is in trouble", dropped)


def _system_clock() -> int:
    return time.time_ns() // 1_000
