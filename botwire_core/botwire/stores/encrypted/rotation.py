"""Rewriting a namespace under the newest key, beside others who write; and what each key is still needed for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from botwire import flows
from botwire.errors import Conflict
from botwire.ops import Dump, DumpRecord, Edit, ItemRecord, MessageRecord, Op, Put
from botwire.sealing import id_of_key

from .calls import Call, Plan
from .sealer import Draws, Sealer, values_of

RECORDS_AT_ONCE = 100


class Rewritten(NamedTuple):
    """What a rewriting did in a namespace."""

    items: int
    messages: int
    older: int
    """How many values, past ones included, and messages are still encrypted with an older key."""


def rewrite(sealer: Sealer, namespace: str) -> Plan[Rewritten]:
    """Encrypt with the newest key what an older one has encrypted, page by page.

    Each write compares and sets: what somebody else has changed meanwhile stays as that one wrote it. Interrupted, it
    is simply started again, for what it has done it finds done.
    """
    items = messages = 0
    op: Dump | None = Dump(namespace, RECORDS_AT_ONCE)
    while op is not None:
        [page] = yield Call([op])
        writes = [write for record in page.records for write in _anew(sealer, namespace, record)]
        done = yield from _those_that_can_be(writes)
        items += sum(isinstance(each, Put) for each in done)
        messages += sum(isinstance(each, Edit) for each in done)
        op = flows.next_page(op, page, None)
    used = yield from keys_in_use(namespace)
    return Rewritten(items, messages, sum(used.values()) - used.get(sealer.keyring.newest.id, 0))


def _anew(sealer: Sealer, namespace: str, record: DumpRecord) -> Iterator[Op]:
    """The write that encrypts a record anew, if that is to be done."""
    draws = Draws(sealer.keyring)
    if isinstance(record, ItemRecord):
        now = record.revisions[0]
        if not now.deleted and sealer.is_old(now.raw):
            key = sealer.show("key", namespace, record.key)
            raw = sealer.seal_value(namespace, key, sealer.open_value(namespace, key, now.raw), draws)
            # An undo goes back behind the value that is only restated here.
            meta = replace(now.meta, restored=now.meta.restored or record.since or now.version)
            yield Put(namespace, record.key, raw, None, now.version, meta, expires=now.expires)
    elif isinstance(record, MessageRecord) and sealer.is_old(record.message.raw):
        was = record.message
        conversation = sealer.show("conversation", namespace, was.conversation)
        plain = sealer.open_message(namespace, conversation, was)
        raw = sealer.seal_edited(namespace, conversation, plain.id, was.id, was.role, plain.raw, draws)
        text = bytes(was.raw).decode()
        yield Edit(namespace, was.conversation, was.id, raw, was.role, was.author, was.redacted, text)


def _those_that_can_be(writes: Sequence[Op]) -> Plan[Sequence[Op]]:
    """Make writes that compare and set: together if nobody has come between, else one by one. Returns those made."""
    if not writes:
        return []
    try:
        yield Call(writes)
    except Conflict:
        if len(writes) == 1:
            return []
        done: list[Op] = []
        for write in writes:
            done += yield from _those_that_can_be([write])
        return done
    return writes


def keys_in_use(namespace: str) -> Plan[dict[str, int]]:
    """How many values, past ones included, and messages each key has encrypted, by the key's id."""
    used: dict[str, int] = {}
    op: Dump | None = Dump(namespace, RECORDS_AT_ONCE)
    while op is not None:
        [page] = yield Call([op])
        for raw in (raw for record in page.records for raw in values_of(record)):
            key_id = (id_of_key(bytes(raw)) or b"none").decode(errors="replace")
            used[key_id] = used.get(key_id, 0) + 1
        op = flows.next_page(op, page, None)
    return used
