"""What the verbs of a conversation do, without doing any I/O: flows, as in `flows`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from . import shapes, values
from .errors import InvalidInput, NotFound
from .flows import Flow
from .ops import (
    Append,
    ConversationInfo,
    Conversations,
    Edit,
    Message,
    MessagePage,
    Messages,
    NewMessage,
    Removed,
    Stamp,
    Trim,
    microseconds,
)
from .window import Counter, Window

PAGE = 500
WINDOW_PAGE = 64
SYSTEM_ROLES = ("system", "developer")
Place = Message | int | None


def new_message(
    value: Any,
    id: str | None = None,
    role: str | None = None,
    author: str | None = None,
    at: datetime | None = None,
    *,
    index: bool = True,
) -> NewMessage:
    """A message to append: what the arguments leave open is recognised in the value."""
    raw = Raw(values.encode(value, 1 << 62))  # how much is too much is the store's policy to say
    plain = values.decode(raw) if not isinstance(value, dict) else value
    return NewMessage(
        raw,
        id,
        role if role is not None else shapes.usable_name(shapes.role_of(plain)),
        author if author is not None else shapes.usable_name(shapes.author_of(plain)),
        shapes.time_of(plain) if at is None else microseconds(at),
        index,
    )


def append_op(namespace: str, conversation: str, messages: list[NewMessage], if_version: int | None) -> Append:
    """The op that appends."""
    return Append(namespace, conversation, messages, if_version)


def appended(op: Append, stamps: Sequence[Stamp]) -> list[Message]:
    """The messages that an append has made, or has found there already."""
    return [_appended(op, new, stamp) for new, stamp in zip(op.messages, stamps, strict=True)]


def _appended(op: Append, new: NewMessage, stamp: Stamp) -> Message:
    return Message(
        raw=new.raw,
        id=new.id or f"#{stamp.version}",
        version=stamp.version,
        created=stamp.created,
        role=new.role,
        author=new.author,
        conversation=op.conversation,
        namespace=op.namespace,
        index=new.index,
    )


def version_of(place: Place) -> int | None:
    """A message, or its version, as its version."""
    return place.version if isinstance(place, Message) else place


def id_of(message: Message | str) -> str:
    """A message, or its id, as its id."""
    return message.id if isinstance(message, Message) else message


def messages(
    namespace: str,
    conversation: str,
    *,
    last: int | None,
    max_tokens: int | None,
    counter: Counter | None,
    before: Place,
    after: Place,
    roles: Iterable[str] | None,
) -> Flow[list[Message]]:
    """Messages, oldest first: all, the last ones, or what fits into a budget."""
    if last is not None and (isinstance(last, bool) or not isinstance(last, int) or last < 0):
        raise InvalidInput(f"last={last!r} must be a number of messages, zero or more")
    if isinstance(roles, str):
        raise InvalidInput(f"roles must be a list of strings: write roles=[{roles!r}]")
    op = Messages(
        namespace,
        conversation,
        version_of(after),
        version_of(before),
        None if roles is None else tuple(roles),
        limit=PAGE,
    )
    if max_tokens is not None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 0:
            raise InvalidInput(f"max_tokens={max_tokens!r} must be a whole number of tokens, zero or more")
        if last is not None or roles is not None:
            raise InvalidInput("give max_tokens alone, or last and roles")
        return (yield from _within(op, max_tokens, counter))
    if last is not None:
        return (yield from _last(op, last))
    found: list[Message] = []
    more = True
    while more:
        [page] = yield [op]
        found.extend(page.messages)
        more = page.more
        op = following(op, page)
    return found


def following(op: Messages, page: MessagePage) -> Messages:
    """The op for the page behind this one."""
    if not page.messages:
        return op
    end = page.messages[-1].version
    return msgspec.structs.replace(op, before=end) if op.reverse else msgspec.structs.replace(op, after=end)


def _last(op: Messages, count: int) -> Flow[list[Message]]:
    found: list[Message] = []
    while len(found) < count:
        op = msgspec.structs.replace(op, reverse=True, limit=min(PAGE, count - len(found)))
        [page] = yield [op]
        found.extend(page.messages)
        if not page.more:
            break
        op = following(op, page)
    found.reverse()
    return found


def _within(op: Messages, max_tokens: int, counter: Counter | None) -> Flow[list[Message]]:
    system: list[Message] = []
    asked, more = msgspec.structs.replace(op, roles=SYSTEM_ROLES), True
    while more:
        [page] = yield [asked]
        system.extend(page.messages)
        more, asked = page.more, following(asked, page)
    window = Window(system, max_tokens, counter)
    asked, more = msgspec.structs.replace(op, reverse=True, limit=WINDOW_PAGE), True
    while more and not window.full:
        [page] = yield [asked]
        window.add(page.messages)
        more, asked = page.more, following(asked, page)
    return window.chosen()


def info(namespace: str, conversation: str) -> Flow[ConversationInfo]:
    """How much the conversation holds; one that was never written to has version 0."""
    [page] = yield [Conversations(namespace, conversation, limit=1)]
    if page.conversations and page.conversations[0].name == conversation:
        found: ConversationInfo = page.conversations[0]
        return found
    return ConversationInfo(conversation, 0, 0, 0, 0, 0, namespace)


def one(namespace: str, conversation: str, message: Message | str) -> Flow[Message | None]:
    """A message by its id."""
    [page] = yield [Messages(namespace, conversation, ids=(id_of(message),), limit=1)]
    return page.messages[0] if page.messages else None


def pop(namespace: str, conversation: str) -> Flow[Message | None]:
    """Take the last message away, and return it."""
    while True:
        [page] = yield [Messages(namespace, conversation, reverse=True, limit=1)]
        if not page.messages:
            return None
        last: Message = page.messages[0]
        [removed] = yield [Trim(namespace, conversation, ids=(last.id,))]
        if removed.messages:
            return last


def edit(namespace: str, conversation: str, message: Message | str, value: Any) -> Flow[Message]:
    """Replace a message where it stands."""
    found = yield from _existing(namespace, conversation, message)
    new = new_message(value)
    op = Edit(namespace, conversation, found.id, new.raw, new.role or found.role, new.author or found.author)
    return (yield from _edited(op, found))


def redact(namespace: str, conversation: str, message: Message | str, text: str) -> Flow[Message]:
    """Blot a message out where it stands."""
    found = yield from _existing(namespace, conversation, message)
    raw = Raw(values.encode(shapes.redacted(found.value, text)))
    op = Edit(namespace, conversation, found.id, raw, found.role, found.author, redacted=True)
    return (yield from _edited(op, found))


def _existing(namespace: str, conversation: str, message: Message | str) -> Flow[Message]:
    found = yield from one(namespace, conversation, message)
    if found is None:
        raise NotFound(f"conversation {conversation!r} in {namespace!r} has no message {id_of(message)!r}")
    return found


def _edited(op: Edit, found: Message) -> Flow[Message]:
    [stamp] = yield [op]
    if stamp is None:
        raise NotFound(f"message {op.id!r} was removed by somebody else in the meantime")
    return msgspec.structs.replace(
        found, raw=op.raw, role=op.role, author=op.author, edited=stamp.updated, redacted=op.redacted
    )


def delete(namespace: str, conversation: str, message: Message | str) -> Flow[bool]:
    """Remove one message."""
    [removed] = yield [Trim(namespace, conversation, ids=(id_of(message),))]
    return bool(removed.messages)


def trim(namespace: str, conversation: str, keep: int | None, older_than: datetime | None) -> Flow[int]:
    """Remove the oldest messages."""
    op = Trim(namespace, conversation, keep, None if older_than is None else microseconds(older_than))
    results: list[Removed] = yield [op]
    return results[0].messages
