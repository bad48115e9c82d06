"""`BotWireByteStore`: bytes by key, as LangChain's `ByteStore`."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Unpack

from langchain_core.stores import BaseStore

from botwire import AsyncMemory, Memory, flows
from botwire.adapting import Place, memory_for
from botwire.errors import InvalidInput
from botwire.flows import Flow
from botwire.ops import Delete, ItemPage, Put, Scan, Value
from botwire.values import decode

from .portions import COUNT, portions

NAMESPACE = "langchain-bytes"

_special = re.compile("[%\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # what no name of botwire holds, and the sign for it
_escaped = re.compile("%(?:u([0-9a-f]{4})|([0-9a-f]{2}))")
_EMPTY = "%"  # the key "": no other key is written so


class BotWireByteStore(BaseStore[str, bytes]):
    """Bytes by key, kept in a namespace: for embeddings, documents, and whatever else takes a `ByteStore`.

    Args:
        memory: a `Memory` to keep them in, instead of a namespace.
        namespace: where they are kept; by default `"langchain-bytes"`.
        place: `url`, `api_key`, `durability`, `encryption_key` and so on, as `Memory` takes them.

    A value is kept as `{"bytes": its base64}`, is not searched, and has no history. With the limit of 1 MiB that
    namespaces have by default, it can be 786,000 bytes long; `memory.configure(max_value_bytes=…)` raises that.

    >>> store = BotWireByteStore(url="sqlite://")
    >>> store.mset([("a", b"1"), ("b", b"2")])
    >>> store.mget(["b", "c"])
    [b'2', None]

    """

    def __init__(self, *, memory: Memory | None = None, namespace: str | None = None, **place: Unpack[Place]) -> None:
        self._memory = memory_for(memory, namespace, place, default=NAMESPACE)

    def __repr__(self) -> str:
        return f"BotWireByteStore({self._memory.namespace!r})"

    @cached_property
    def _twin(self) -> AsyncMemory:
        return self._memory.twin()

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of the keys, in their order; `None` for one that is not there."""
        return self._memory.run(_getting(self._memory.namespace, keys))

    async def amget(self, keys: Sequence[str]) -> list[bytes | None]:
        """As `mget`, for an event loop."""
        return await self._twin.run(_getting(self._memory.namespace, keys))

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Set values. Up to 500 of 4 MB together are set all or none; more of them, portion by portion."""
        self._memory.run(_setting(self._memory, key_value_pairs))

    async def amset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """As `mset`, for an event loop."""
        await self._twin.run(_setting(self._memory, key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete keys; those that are not there do not matter."""
        self._memory.run(_deleting(self._memory.namespace, keys))

    async def amdelete(self, keys: Sequence[str]) -> None:
        """As `mdelete`, for an event loop."""
        await self._twin.run(_deleting(self._memory.namespace, keys))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys that begin with a prefix, page by page."""
        op = _scan(self._memory.namespace, prefix)
        while op is not None:
            page: ItemPage = self._memory.ask(op)
            yield from (_unescaped(item.key) for item in page.items)
            op = flows.next_page(op, page, None)

    async def ayield_keys(  # pyright: ignore[reportIncompatibleMethodOverride]  # a generator, as LangChain's own are
        self, *, prefix: str | None = None
    ) -> AsyncIterator[str]:
        """As `yield_keys`, for an event loop."""
        op = _scan(self._memory.namespace, prefix)
        while op is not None:
            page: ItemPage = await self._twin.ask(op)
            for item in page.items:
                yield _unescaped(item.key)
            op = flows.next_page(op, page, None)


# ── requests ────────────────────────────────────────────────────────────────────────────────────────


def _getting(namespace: str, keys: Sequence[str]) -> Flow[list[bytes | None]]:
    found: list[bytes | None] = []
    for some in _some(keys):
        results = yield [Value(namespace, _escape(key)) for key in some]
        found += [_bytes_of(namespace, key, raw) for key, raw in zip(some, results, strict=True)]
    return found


def _setting(memory: Memory, pairs: Sequence[tuple[str, bytes]]) -> Flow[None]:
    ops = [_put(memory, key, value) for key, value in pairs]  # all of them: what is refused, is refused whole
    for portion in portions(ops):  # noqa: UP028  # what a flow is sent is no business of a plain iterator
        yield portion


def _deleting(namespace: str, keys: Sequence[str]) -> Flow[None]:
    for some in _some(keys):
        yield [Delete(namespace, _escape(key), history=False) for key in some]


def _scan(namespace: str, prefix: str | None) -> Scan | None:
    return flows.scan_op(namespace, prefix=_escape(prefix) if prefix else "", values=False)


def _some(keys: Sequence[str]) -> Iterator[list[str]]:
    """The keys, so many at a time that an answer holds their values."""
    if isinstance(keys, str):
        raise InvalidInput(f"this takes a list of keys: write [{keys!r}]")
    rest = iter(keys)
    while some := list(islice(rest, COUNT)):
        yield some


def _put(memory: Memory, key: str, value: bytes) -> Put:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidInput(f"the value of {key!r} is of type {type(value).__name__}: this store keeps bytes, encode it")
    return flows.put_op(
        memory.namespace, _escape(key), {"bytes": value}, author=memory.author, history=False, index=False
    )


def _bytes_of(namespace: str, key: str, raw: Any) -> bytes | None:
    if raw is None:
        return None
    value = decode(raw)
    try:
        text: Any = value["bytes"] if value.keys() == {"bytes"} else None
        return base64.b64decode(text, validate=True)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{key!r} in {namespace!r} holds no bytes but what somebody else has stored: read it with "
            f"Memory({namespace!r}).get, and keep the store in a namespace of its own"
        ) from error


# ── keys: any text of LangChain's is a name of botwire's ────────────────────────────────────────────


def _escape(key: str) -> str:
    """The key as a name: what begins alike goes on beginning alike, so that prefixes stay prefixes."""
    if not isinstance(key, str):
        raise InvalidInput(f"a key must be a str, not {type(key).__name__}: {key!r}")
    return _special.sub(_code, key) or _EMPTY


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"%u{number:04x}" if number > 0xFF else f"%{number:02x}"


def _unescaped(name: str) -> str:
    return "" if name == _EMPTY else _escaped.sub(lambda found: chr(int(found[1] or found[2], 16)), name)
