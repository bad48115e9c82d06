"""`BotWireMemory`: AutoGen's memory protocol over a namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from autogen_core import CancellationToken, Component
from autogen_core.memory import Memory as AutoGenMemory
from autogen_core.memory import MemoryContent, MemoryQueryResult, UpdateContextResult
from autogen_core.model_context import ChatCompletionContext
from autogen_core.models import LLMMessage, SystemMessage

from botwire import Hit, InvalidInput, Memory
from botwire.adapting import Place
from botwire.flows import Flow, all_keys, context_block
from botwire.ops import Delete

from . import contents
from .held import Held, PlaceConfig, place_of

if TYPE_CHECKING:
    from typing import Unpack

T = TypeVar("T")

BATCH = 1_000


class BotWireMemoryConfig(PlaceConfig):
    """The declarative configuration of a `BotWireMemory`."""

    limit: int = 10
    max_tokens: int = 1_000


class BotWireMemory(AutoGenMemory, Component[BotWireMemoryConfig]):
    """A memory that stays: `AssistantAgent(..., memory=[BotWireMemory(namespace="user-42")])`.

    Args:
        memory: a `botwire.Memory` that is there already; or
        namespace: a namespace, by default `"autogen"`; with
        place: `url`, `api_key`, `durability` … as for `botwire.Memory`. What is encrypted cannot be searched, and so
            cannot be used here.
        limit: how many memories a query answers with, and how many may go into a model context.
        max_tokens: how much of a model context they take at most, by a rough count.

    `query` and `update_context` look at all that the namespace holds, whoever put it there; `clear` deletes what `add`
    has added.

    """

    component_type = "memory"
    component_provider_override = "botwire_autogen.BotWireMemory"
    component_config_schema = BotWireMemoryConfig

    def __init__(
        self,
        *,
        memory: Memory | None = None,
        namespace: str | None = None,
        limit: int = 10,
        max_tokens: int = 1_000,
        **place: Unpack[Place],
    ) -> None:
        for name, number in (("limit", limit), ("max_tokens", max_tokens)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InvalidInput(f"{name}={number!r} must be a whole number from 1 up")
        if place.get("encryption_key") is not None:
            raise InvalidInput("a BotWireMemory looks things up by searching, and what is encrypted cannot be searched")
        self._held = Held(memory, namespace, place)
        self._limit = limit
        self._max_tokens = max_tokens

    async def add(self, content: MemoryContent, cancellation_token: CancellationToken | None = None) -> None:
        """Remember a content of any MIME type. It comes back as it was."""
        memory = self._held.memory
        op = contents.put_of(memory.namespace, content, memory.author)
        await _unless_cancelled(memory.ask(op), cancellation_token)

    async def query(
        self, query: str | MemoryContent, cancellation_token: CancellationToken | None = None, **kwargs: Any
    ) -> MemoryQueryResult:
        """The memories that answer a query best, best first, each with its `score` and `key` in its metadata.

        An empty query answers with the last that were added, oldest first. `kwargs` go to `botwire.Memory.search`:
        `limit`, `where`, `kinds`, `since`, `until`, `author`, `subtree` …
        """
        options = {"limit": self._limit, **kwargs}
        asked = contents.text_of(query)
        work = self._search(asked, options) if asked.strip() else self._newest(options["limit"])
        return MemoryQueryResult(results=await _unless_cancelled(work, cancellation_token))

    async def _search(self, asked: str, options: dict[str, Any]) -> list[MemoryContent]:
        return [contents.content_of_hit(hit) for hit in await self._held.memory.search(asked, **options)]

    async def _newest(self, limit: int) -> list[MemoryContent]:
        newest = self._held.memory.items(prefix=contents.PREFIX, reverse=True, limit=limit)
        return [contents.content_of(item) async for item in newest][::-1]

    async def update_context(self, model_context: ChatCompletionContext) -> UpdateContextResult:
        """Add what is relevant to the last message to a model context, marked as data, within `max_tokens`."""
        messages = await model_context.get_messages()
        asked = _last_text(messages)
        found = await self._held.memory.search(asked, self._limit, around=1) if asked else []
        hits, block = _fitting(found, self._max_tokens)
        if not hits:
            return UpdateContextResult(memories=MemoryQueryResult(results=[]))
        if not any(isinstance(message, SystemMessage) and message.content == block for message in messages):
            await model_context.add_message(SystemMessage(content=block))
        return UpdateContextResult(memories=MemoryQueryResult(results=[contents.content_of_hit(hit) for hit in hits]))

    async def clear(self) -> None:
        """Delete what `add` has added. What others keep in the namespace stays."""
        await self._held.memory.run(_clear(self._held.memory.namespace))

    async def close(self) -> None:
        """Let go of the store. Using the memory opens it again."""
        await self._held.close()

    def _to_config(self) -> BotWireMemoryConfig:
        return BotWireMemoryConfig(**self._held.described(), limit=self._limit, max_tokens=self._max_tokens)

    @classmethod
    def _from_config(cls, config: BotWireMemoryConfig) -> Self:
        return cls(namespace=config.namespace, limit=config.limit, max_tokens=config.max_tokens, **place_of(config))


async def _unless_cancelled(work: Coroutine[Any, Any, T], token: CancellationToken | None) -> T:
    if token is None:
        return await work
    task = asyncio.ensure_future(work)
    token.link_future(task)
    return await task


def _clear(namespace: str) -> Flow[None]:
    keys = yield from all_keys(namespace, contents.PREFIX)
    for start in range(0, len(keys), BATCH):
        yield [Delete(namespace, key) for key in keys[start : start + BATCH]]


def _last_text(messages: Sequence[LLMMessage]) -> str:
    """What was said last, by anybody but the system."""
    for message in reversed(messages):
        if isinstance(message, SystemMessage):
            continue
        parts = [message.content] if isinstance(message.content, str) else message.content
        if text := "\n".join(part for part in parts if isinstance(part, str)).strip():
            return text
    return ""


def _fitting(found: Sequence[Hit], max_tokens: int) -> tuple[list[Hit], str]:
    """The hits that fit into the budget, and the block that they make."""
    hits: list[Hit] = []
    block = ""
    for hit in found:
        longer = context_block([*hits, hit], max_tokens, None)
        if longer != block:
            hits, block = [*hits, hit], longer
    return hits, block
