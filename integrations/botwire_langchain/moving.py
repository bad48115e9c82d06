"""Messages that move in: appended many at once, copied from other histories, and taken over from botwire 0.2."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from botwire import talks, tools
from botwire.errors import Conflict, InvalidInput
from botwire.flows import Flow
from botwire.ops import MAX_PAGE, Append, Delete, Get, Item, NewMessage


def appends(namespace: str, session_id: str, new: list[NewMessage]) -> list[Append]:
    """The ops that append so many messages."""
    parts = [new[start : start + MAX_PAGE] for start in range(0, len(new), MAX_PAGE)]
    return [talks.append_op(namespace, session_id, part, None) for part in parts]


# ── from other histories ────────────────────────────────────────────────────────────────────────────


def named(new: list[NewMessage], origin: str) -> list[NewMessage]:
    """The messages under ids that they will have at every import: each is made of all that came before it."""
    digest = sha256(origin.encode("utf-8", "replace"))
    found: list[NewMessage] = []
    for message in new:
        digest.update(bytes(message.raw))
        name = f"imported-{digest.hexdigest()[:32]}"
        found.append(NewMessage(message.raw, name, message.role, message.author, message.at))
    return found


# ── from botwire 0.2, which kept a session in one list, under its id as the key ──────────────────────


def take_over(namespace: str, session_id: str) -> Flow[None]:
    """Turn the list into a conversation, if there is one; in one step, so that of several only one does it."""
    while True:
        [item] = yield [Get(namespace, session_id)]
        if item is None or tools.TAG in item.tags or not (messages := _messages_in(item)):
            return  # what a model has written never becomes messages, of the system for instance
        new = [talks.new_message(message) for message in messages]
        try:
            yield [Delete(namespace, session_id, item.version, history=False), *appends(namespace, session_id, new)]
        except Conflict:
            continue  # somebody else was here in between: look again
        return


def _messages_in(item: Item) -> list[dict[str, Any]]:
    """The messages of a list that 0.2 wrote. What is no such list is somebody else's value, and stays what it is."""
    value = item.value
    if isinstance(value, str) and value.startswith("["):  # as 0.2 sent it
        try:
            value = json.loads(value)
        except ValueError:
            return []
    if not isinstance(value, list) or not any(map(_is_message, value)):
        return []
    for place, message in enumerate(value):
        if not _is_message(message):
            raise InvalidInput(
                f"the history that botwire 0.2 wrote under the key {item.key!r} in {item.namespace!r} is damaged: its "
                f"entry {place} is no message. Nothing was changed: correct the list with Memory.set, or delete it"
            )
    return value


def _is_message(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    return isinstance(entry.get("type"), str) and isinstance(entry.get("data"), dict)
