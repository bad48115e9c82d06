"""From LangChain's messages to JSON and back, exactly or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict

from botwire.errors import InvalidInput
from botwire.ops import Message

_read_back: set[str] = set()  # the types of message of which one has been written and read back
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)  # what LangChain raises; pydantic's is a ValueError


def to_dict(message: BaseMessage) -> dict[str, Any]:
    """The message as LangChain writes it. Raises `InvalidInput` for what would not come back as it was."""
    if not isinstance(message, BaseMessage):
        raise InvalidInput(
            f"a chat history takes LangChain messages, not {type(message).__name__}: "
            "pass a list of them, or use add_user_message for a text"
        )
    try:
        written = message_to_dict(message)
        foreign = next(_foreign(written["data"], message.type), None)
    except RecursionError:
        raise InvalidInput("a message contains itself or is nested too deep. Nothing was added") from None
    if foreign is not None:
        where, part = foreign
        raise InvalidInput(
            f"{where} holds {type(part).__name__}, which JSON cannot say: put text or plain JSON there. "
            "Nothing was added"
        )
    if message.type not in _read_back:
        from_dict(written, f"what LangChain writes of a {type(message).__name__}")
        _read_back.add(message.type)
    return written


def _foreign(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """What JSON has no form for, and its place. Tuples have one: they become lists."""
    if value is None or isinstance(value, str | int | float):
        return
    if isinstance(value, dict):
        for name, part in value.items():
            if isinstance(name, str):
                yield from _foreign(part, f"{where}.{name}")
            else:
                yield f"a key in {where}", name
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _foreign(part, f"{where}[{place}]")
    else:
        yield where, value


def from_dict(value: Any, what: str, hint: str = "") -> BaseMessage:
    """The message that was written. `what` and `hint` are for the error if LangChain cannot read it."""
    try:
        return messages_from_dict([value])[0]
    except _UNREADABLE as error:
        raise InvalidInput(
            f"{what} is nothing that LangChain reads as a message ({type(error).__name__}: {error}){hint}"
        ) from error


def from_stored(found: Sequence[Message]) -> list[BaseMessage]:
    """The messages that were stored. Raises `InvalidInput` for one that LangChain cannot read, and says which."""
    values = [message.value for message in found]
    try:
        return messages_from_dict(values)
    except _UNREADABLE:
        return [_one(message) for message in found]


def _one(message: Message) -> BaseMessage:
    what = f"message {message.id!r} of conversation {message.conversation!r} in {message.namespace!r}"
    hint = f". It is still there: `history.conversation.message({message.id!r})` has it, `edit` and `delete` mend it"
    return from_dict(message.value, what, hint)
