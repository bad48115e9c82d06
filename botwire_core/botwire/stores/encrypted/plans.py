"""What an `execute` takes: calls of the store below, in order, and what is made of their results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from botwire.errors import BotWireError, Conflict, InvalidInput, TooLarge
from botwire.ops import (
    Append,
    Changes,
    Conversations,
    Delete,
    Dump,
    Edit,
    Erase,
    Get,
    History,
    Message,
    Messages,
    NewMessage,
    Op,
    Put,
    Scan,
    Touch,
    Trim,
    Value,
)
from botwire.sealing import is_made_id

from .calls import Call, Plan
from .listings import Shelf, list_conversations, list_items
from .sealer import Draws, Ids, Sealer
from .sending import OPENED, SENT, why_refused

_NAMING = {Value, Get, Scan, History, Messages, Conversations, Changes, Dump, Put, Delete, Touch, Append, Edit, Trim}
_FILLING = (Put, Append)


class State:
    """What is remembered from one call to the next; without it, all would only take longer."""

    def __init__(self, known: set[str]) -> None:
        self.known = known
        """Namespaces that need no second look."""
        self.shelf = Shelf()


def execute(sealer: Sealer, state: State, ops: Sequence[Op], request_id: str | None) -> Plan[list[Any]]:
    """Run ops."""
    known = state.known
    for op in ops:
        if type(op) not in SENT:
            raise InvalidInput(why_refused(op))
        if type(op) is Value or type(op) is Get:
            op.check_names()
    if sealer.hide_keys and any(_is_sorted_by_name(op) for op in ops):
        return (yield from _one_by_one(sealer, state, ops))
    for op in ops:
        if op.namespace not in known and type(op) in _NAMING and op.reach == "namespace":
            yield from _look_at(sealer, known, op.namespace)
    ids = yield from _look_up(sealer, ops)
    ops = yield from _compared(sealer, ops, ids)
    draws = Draws(sealer.keyring, request_id)
    sent = [SENT[type(op)](sealer, op, draws, ids) for op in ops]
    results = yield from _send(sealer, ops, sent, request_id)
    _note_writes(known, ops)
    return [
        opened(sealer, op, result) if result is not None and (opened := OPENED.get(type(op))) else result
        for op, result in zip(ops, results, strict=True)
    ]


def _is_sorted_by_name(op: Op) -> bool:
    return type(op) is Conversations or (isinstance(op, Scan) and op.order == "key")


def _one_by_one(sealer: Sealer, state: State, ops: Sequence[Op]) -> Plan[list[Any]]:
    """A batch with listings that the store below cannot sort, for it cannot read the names."""
    if any(op.access != "read" for op in ops):
        raise InvalidInput(
            "with hidden keys a listing by name takes several steps, so it cannot be part of a batch that writes: "
            "run it alone"
        )
    results: list[Any] = []
    for op in ops:
        if isinstance(op, Scan) and op.order == "key":
            results.append((yield from list_items(sealer, state.shelf, op)))
        elif isinstance(op, Conversations):
            results.append((yield from list_conversations(sealer, state.shelf, op)))
        else:
            results += yield from execute(sealer, state, [op], None)
    return results


# ── namespaces that are something else ──────────────────────────────────────────────────────────────


def _look_at(sealer: Sealer, known: set[str], namespace: str) -> Plan[None]:
    """Refuse a namespace that is not encrypted, or with other keys, or whose names are not hidden as ours are.

    Otherwise nothing would be found in it, without an error, and what is written would make it a mixture.
    """
    items, talks = yield Call([Scan(namespace, limit=1), Conversations(namespace, limit=1)])
    for item in items.items:
        sealer.refuse_hidden("key", namespace, item.key)
        sealer.open_item(item)
    for talk in talks.conversations:
        sealer.refuse_hidden("conversation", namespace, talk.name)
        name = sealer.open_conversation(talk).name
        [page] = yield Call([Messages(namespace, talk.name, reverse=True, limit=1)])
        for message in page.messages:
            sealer.open_message(namespace, name, message)
    if items.items or talks.conversations:
        known.add(namespace)


def _note_writes(known: set[str], ops: Sequence[Op]) -> None:
    for op in ops:
        if type(op) is Erase:  # whoever comes next may do otherwise
            known.clear()
        elif type(op) in _FILLING and op.namespace not in known:
            known.add(op.namespace)


# ── message ids ─────────────────────────────────────────────────────────────────────────────────────


def _look_up(sealer: Sealer, ops: Sequence[Op]) -> Plan[Ids]:
    """The stored ids of messages that are named by their version: `#12` is what callers know them by."""
    wanted: dict[tuple[str, str, str], Op] = {}
    for op in ops:
        if isinstance(op, Messages | Edit | Trim):
            for id_ in (op.id,) if isinstance(op, Edit) else op.ids or ():
                if (version := _version(id_)) is not None:
                    name = sealer.hide("conversation", op.namespace, op.conversation)
                    wanted[op.namespace, op.conversation, id_] = Messages(
                        op.namespace, name, version - 1, version + 1, limit=1
                    )
    if not wanted:
        return {}
    pages = yield Call(list(wanted.values()))
    return {
        names: page.messages[0].id
        for names, page in zip(wanted, pages, strict=True)
        if page.messages and is_made_id(page.messages[0].id)
    }


def _compared(sealer: Sealer, ops: Sequence[Op], ids: Ids) -> Plan[Sequence[Op]]:
    """The ops; edits that say what they replace say it in the words of the store below: as ciphertext."""
    edits = {place: op for place, op in enumerate(ops) if isinstance(op, Edit) and op.if_text is not None}
    if not edits:
        return ops
    pages = yield Call(
        [
            Messages(
                op.namespace,
                sealer.hide("conversation", op.namespace, op.conversation),
                ids=(sealer.stored_id(op.namespace, op.conversation, op.id, ids),),
                limit=1,
            )
            for op in edits.values()
        ]
    )
    compared = list(ops)
    for (place, op), page in zip(edits.items(), pages, strict=True):
        text = ""  # nothing is that
        for message in page.messages:
            if bytes(sealer.open_message(op.namespace, op.conversation, message).raw).decode() == op.if_text:
                text = bytes(message.raw).decode()
        compared[place] = replace(op, if_text=text)
    return compared


def _version(id_: str) -> int | None:
    number = id_[1:]
    if not id_.startswith("#") or not number.isascii() or not number.isdigit() or len(number) > 18:
        return None
    return int(number) or None


# ── sending ─────────────────────────────────────────────────────────────────────────────────────────


def _send(sealer: Sealer, ops: Sequence[Op], sent: list[Op], request_id: str | None) -> Plan[list[Any]]:
    try:
        return (yield Call(sent, request_id))
    except TooLarge as error:
        if all(op.access == "read" for op in ops):
            raise
        raise TooLarge(f"{error}. Encrypted, a value takes a third more than its JSON, and 60 bytes") from error
    except BotWireError as error:
        repeated = (yield from _as_stored(sealer, ops, sent)) if isinstance(error, Conflict) else None
        if repeated is None:
            _tell_by_name(ops, sent, error)
            raise
    return (yield Call(repeated, request_id))


def _tell_by_name(ops: Sequence[Op], sent: Sequence[Op], error: BotWireError) -> None:
    """Say in an error what the caller has called a thing, not how it is stored."""
    text = str(error)
    for plain, stored in _names(ops, sent):
        if stored in text:
            text = text.replace(stored, plain)
            error.args = (text, *error.args[1:])


def _names(ops: Sequence[Op], sent: Sequence[Op]) -> Iterator[tuple[str, str]]:
    """The names in ops, each with how it is stored."""
    for op, stored in zip(ops, sent, strict=True):
        for field in ("key", "conversation", "id"):
            if (name := getattr(op, field, None)) is not None:
                yield name, getattr(stored, field)
        if isinstance(op, Append) and isinstance(stored, Append):
            for message, other in zip(op.messages, stored.messages, strict=True):
                yield message.id or "(no id)", str(other.id)


def _as_stored(sealer: Sealer, ops: Sequence[Op], sent: list[Op]) -> Plan[list[Op] | None]:
    """The ops, with each message that is there already as it is stored, say under an older key. `None`: none is.

    For appending a message again under its id changes nothing, and the store below compares ciphertext.
    """
    repeated = list(sent)
    for place, (op, sealed) in enumerate(zip(ops, sent, strict=True)):
        if not isinstance(op, Append) or not isinstance(sealed, Append):
            continue
        ids = tuple(str(new.id) for plain, new in zip(op.messages, sealed.messages, strict=True) if plain.id)
        if not ids:
            continue
        [page] = yield Call([Messages(sealed.namespace, sealed.conversation, ids=ids, limit=len(ids))])
        there = {message.id: message for message in page.messages}
        messages = [
            _message_as_stored(sealer, op, plain, new, there.get(str(new.id)))
            for plain, new in zip(op.messages, sealed.messages, strict=True)
        ]
        repeated[place] = replace(sealed, messages=messages)
    return None if repeated == sent else repeated


def _message_as_stored(
    sealer: Sealer, op: Append, plain: NewMessage, sealed: NewMessage, there: Message | None
) -> NewMessage:
    if there is None or bytes(sealer.open_message(op.namespace, op.conversation, there).raw) != bytes(plain.raw):
        return sealed
    return replace(sealed, raw=there.raw)
