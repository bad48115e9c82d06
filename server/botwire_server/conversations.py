"""Conversations and their messages: `/v1/namespaces/{namespace}/conversations`."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, Raw, Struct, UnsetType
from starlette.responses import Response

from botwire import shapes, talks, values
from botwire.errors import NotFound
from botwire.ops import (
    Append,
    Clear,
    ConversationInfo,
    ConversationPage,
    Conversations,
    Edit,
    Message,
    MessagePage,
    Messages,
    NewMessage,
    Removed,
    Stamp,
    Trim,
)

from . import answers, parameters
from .doors import Call, Doors, given

doors = Doors()
CONVERSATIONS: Final = "/v1/namespaces/{namespace}/conversations"
CONVERSATION: Final = CONVERSATIONS + "/{conversation}"
MESSAGES: Final = CONVERSATION + "/messages"
MESSAGE: Final = MESSAGES + "/{message}"


class SentMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """A message to append. One with the `id` of a message that is there already is not added again."""

    value: Raw
    """Any JSON, such as `{"role": "user", "content": "hi"}`."""
    id: str | None = None
    role: str | None = None
    """Who speaks; left out, it is recognised in the value."""
    author: str | None = None
    """The speaker's name; left out, it is recognised in the value."""
    at: int | str | None = None
    """When it was said: microseconds since 1970, or a time such as 2026-01-31T12:00:00Z. By default: now."""


class SentMessages(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages to append, all or none."""

    messages: list[SentMessage]


class NewText(Struct, frozen=True, forbid_unknown_fields=True):
    """What a message is replaced by; what it was is not kept."""

    value: Raw
    role: str | None = None
    """Left out: as recognised in the value, else as it was."""
    author: str | None = None
    """Left out: as recognised in the value, else as it was."""
    redacted: bool = False
    """Mark it as blotted out."""


class Trimming(Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages go: all but the last `keep`, or those said before `older_than`."""

    keep: int | UnsetType = UNSET
    older_than: int | str | UnsetType = UNSET
    """Microseconds since 1970, or a time such as 2026-01-31T12:00:00Z."""


# ── conversations ───────────────────────────────────────────────────────────────────────────────────


@doors.door(
    "GET",
    CONVERSATIONS,
    query={
        "prefix": parameters.PREFIX,
        "subtree": parameters.SUBTREE,
        "limit": parameters.LIMIT,
        "cursor": parameters.CURSOR,
    },
    answers={200: ConversationPage},
)
async def list_conversations(call: Call) -> Response:
    """List conversations by name, page by page."""
    return answers.json(await call.ask(Conversations(call.namespace, **call.query)))


@doors.door("GET", CONVERSATION, answers={200: ConversationInfo}, errors=(404,))
async def get_conversation(call: Call) -> Response:
    """How much a conversation holds."""
    found = await call.run(talks.info(call.namespace, call.names["conversation"]))
    if not found.version:
        raise _not_there(call)
    return answers.json(found, headers=answers.etag(found.version))


@doors.door("DELETE", CONVERSATION, answers={204: None}, errors=(404,), writes=True)
async def delete_conversation(call: Call) -> Response:
    """Delete a conversation."""
    removed: Removed = await call.ask(Clear(call.namespace, call.names["conversation"]))
    if not removed.version:
        raise _not_there(call)
    return answers.nothing()


@doors.door("POST", CONVERSATION + "/trim", body=Trimming, answers={200: Removed}, writes=True)
async def trim(call: Call) -> Response:
    """Remove the oldest messages."""
    asked = await call.body(Trimming)
    older_than = _moment("older_than", asked.older_than)
    op = Trim(call.namespace, call.names["conversation"], given(asked.keep), older_than)
    return answers.json(await call.ask(op))


# ── messages ────────────────────────────────────────────────────────────────────────────────────────


@doors.door(
    "GET",
    MESSAGES,
    query={
        "after": parameters.whole("Only those behind the message of this version."),
        "before": parameters.whole("Only those before the message of this version."),
        "role": parameters.several("Only messages of this role; several: of any of them.", "roles"),
        "id": parameters.several("Only the message with this id; several: any of them.", "ids"),
        "reverse": parameters.flag("Newest first."),
        "limit": parameters.LIMIT,
    },
    answers={200: MessagePage},
)
async def list_messages(call: Call) -> Response:
    """Read messages, oldest first. If there are `more`, go on `after` the last one's version (or `before`)."""
    return answers.json(await call.ask(Messages(call.namespace, call.names["conversation"], **call.query)))


@doors.door(
    "POST", MESSAGES, body=SentMessages, answers={201: list[Stamp]}, errors=(412, 507), conditional=True, writes=True
)
async def append_messages(call: Call) -> Response:
    """Append messages, all or none; the conversation comes to be with its first one."""
    sent = await call.body(SentMessages)
    messages = [_new_message(each) for each in sent.messages]
    stamps: list[Stamp] = await call.ask(Append(call.namespace, call.names["conversation"], messages, call.if_version))
    return answers.json(stamps, 201)


@doors.door("PUT", MESSAGE, body=NewText, answers={200: Stamp}, errors=(404, 507), writes=True)
async def edit_message(call: Call) -> Response:
    """Replace a message where it stands; what it was is not kept."""
    new = await call.body(NewText)
    conversation, id_ = call.names["conversation"], call.names["message"]
    found: Message | None = await call.run(talks.one(call.namespace, conversation, id_))
    raw, plain = _checked(new.value)
    role = new.role or shapes.usable_name(shapes.role_of(plain)) or (found.role if found else None)
    author = new.author or shapes.usable_name(shapes.author_of(plain)) or (found.author if found else None)
    stamp: Stamp | None = await call.ask(
        Edit(call.namespace, conversation, id_, raw, role, author, redacted=new.redacted)
    )
    if stamp is None:
        raise _no_message(call)
    return answers.json(stamp)


@doors.door("DELETE", MESSAGE, answers={204: None}, errors=(404,), writes=True)
async def delete_message(call: Call) -> Response:
    """Remove one message."""
    op = Trim(call.namespace, call.names["conversation"], ids=(call.names["message"],))
    removed: Removed = await call.ask(op)
    if not removed.messages:
        raise _no_message(call)
    return answers.nothing()


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────


def _new_message(sent: SentMessage) -> NewMessage:
    """A message to append: what was left out is recognised in the value, as `Conversation.append` does."""
    raw, plain = _checked(sent.value)
    at = _moment("at", sent.at)
    return NewMessage(
        raw,
        sent.id,
        sent.role if sent.role is not None else shapes.usable_name(shapes.role_of(plain)),
        sent.author if sent.author is not None else shapes.usable_name(shapes.author_of(plain)),
        shapes.time_of(plain) if at is None else at,
    )


def _checked(raw: Raw) -> tuple[Raw, Any]:
    checked = values.from_outside(raw)
    return checked, values.decode(checked)


def _moment(name: str, when: int | str | UnsetType | None) -> int | None:
    if isinstance(when, str):
        return parameters.moment(name, when)
    return None if isinstance(when, UnsetType) else when


def _not_there(call: Call) -> NotFound:
    return NotFound(f"no conversation {call.names['conversation']!r} in {call.namespace!r}")


def _no_message(call: Call) -> NotFound:
    return NotFound(
        f"conversation {call.names['conversation']!r} in {call.namespace!r} has no message {call.names['message']!r}"
    )
