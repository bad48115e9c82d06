"""AutoGen's memory contents as values, and back. It does no I/O."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import Any, Final

from autogen_core import Image
from autogen_core.memory import MemoryContent, MemoryMimeType

from botwire import Hit, InvalidInput, Item
from botwire.flows import put_op
from botwire.ops import Put
from botwire.search import texts

PREFIX: Final = "autogen/"
BYTES: Final = "bytes"
IMAGE: Final = "image"


def new_key() -> str:
    """A key behind those of all contents that were added before."""
    return f"{PREFIX}{time.time_ns() // 1_000:015x}-{secrets.token_hex(4)}"  # microseconds: until the year 38,000


def put_of(namespace: str, content: MemoryContent, author: str | None) -> Put:
    """The op that adds a content. Search finds a text or JSON by what it says, a picture or bytes by their metadata."""
    if not isinstance(content, MemoryContent):
        raise InvalidInput(
            f"add takes a MemoryContent(content=…, mime_type=MemoryMimeType.TEXT), not {type(content).__name__}"
        )
    held, kind = _packed(content.content)
    value = {"content": held, "mime_type": mime_of(content), "metadata": content.metadata}
    if kind is not None:
        value["kind"] = kind
    op = put_op(namespace, new_key(), value, author=author, index=("content",) if kind is None else ("metadata",))
    if json.loads(bytes(op.raw)) != value:
        raise InvalidInput(
            "the content or its metadata holds something that JSON cannot say (a date, a tuple, a key that is no str): "
            "write it as text, a list or a dict"
        )
    return op


def mime_of(content: MemoryContent) -> str:
    """The MIME type as a str, which AutoGen takes in two forms."""
    return content.mime_type.value if isinstance(content.mime_type, MemoryMimeType) else content.mime_type


def _packed(content: Any) -> tuple[Any, str | None]:
    if isinstance(content, Image):
        return content.to_base64(), IMAGE
    if isinstance(content, bytes):
        return base64.b64encode(content).decode(), BYTES
    return content, None


def text_of(query: str | MemoryContent) -> str:
    """What a query asks, in words."""
    asked = query.content if isinstance(query, MemoryContent) else query
    if not isinstance(asked, str | dict):
        raise InvalidInput(f"a memory is asked in words: query with a text or JSON, not with {type(asked).__name__}")
    return asked if isinstance(asked, str) else texts.of_item(asked)


def content_of_hit(hit: Hit) -> MemoryContent:
    """What a search has found, with its score."""
    if hit.item is not None:
        return content_of(hit.item, score=hit.score)
    message = hit.message
    assert message is not None  # a hit is one or the other
    by = message.author or message.role
    about = {"conversation": message.conversation, "id": message.id, "by": by, "score": hit.score}
    return MemoryContent(content=hit.text, mime_type=MemoryMimeType.TEXT, metadata=about)


def content_of(item: Item, **about: Any) -> MemoryContent:
    """An item as a content, whoever wrote it; its metadata also say its key."""
    value = item.value
    about = {"key": item.key, **about}
    if item.key.startswith(PREFIX) and isinstance(value, dict) and "mime_type" in value:
        return _added(item, value, about)
    if isinstance(value, str):
        return MemoryContent(content=value, mime_type=MemoryMimeType.TEXT, metadata=about)
    content = value if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)
    return MemoryContent(content=content, mime_type=MemoryMimeType.JSON, metadata=about)


def _added(item: Item, value: dict[str, Any], about: dict[str, Any]) -> MemoryContent:
    """A content that was added as one."""
    try:
        mime = value["mime_type"]
        known: dict[Any, Any] = {each.value: each for each in MemoryMimeType}
        content = _unpacked(value["content"], value.get("kind"))
        return MemoryContent(
            content=content, mime_type=known.get(mime, mime), metadata={**about, **(value["metadata"] or {})}
        )
    except (KeyError, TypeError, ValueError, OSError) as error:  # pillow's errors are OSErrors
        raise InvalidInput(
            f"{item.key!r} in {item.namespace!r} holds no memory content of AutoGen's ({error}): something else wrote "
            "there; `undo` or delete the key"
        ) from error


def _unpacked(content: Any, kind: str | None) -> Any:
    if kind == IMAGE:
        return Image.from_base64(content)
    return base64.b64decode(content, validate=True) if kind == BYTES else content
