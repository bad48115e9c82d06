"""`BotWireStore`: LangGraph's long-term memory."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import cached_property
from typing import Any, Unpack, cast

from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    Item,
    NotProvided,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
)

from botwire import AsyncMemory, Memory
from botwire.adapting import Place, memory_for
from botwire.errors import InvalidInput
from botwire.ops import Item as ItemFound

from .batches import Plan, alone, checked_ttl, item_of
from .naming import Names

LISTED_TOGETHER = 1_000
COPIED_TOGETHER = 200

Steps = Generator[tuple[BaseStore, list[Op]], list[Result], Any]
"""Batches, each for one of two stores."""


class BotWireStore(BaseStore):
    """A LangGraph store that stays: sync and async, with filters, search in plain words, and expiry.

    Args:
        memory: where to keep it; its namespace is the root of the store's.
        namespace: or the root by its name, `"graph"` by default.
        ttl: `refresh_on_read` (by default true) and `default_ttl`, in minutes; what has expired is never returned.
        place: `url=`, `api_key=`, `durability=`, `encryption_key=` and so on, as for `botwire.Memory`.

    >>> store = BotWireStore(url="sqlite://")
    >>> store.put(("users", "ana"), "coffee", {"likes": "Ethiopian Yirgacheffe"})
    >>> [found.key for found in store.search(("users",), query="which coffee?")]
    ['coffee']

    """

    supports_ttl = True

    def __init__(
        self,
        *,
        memory: Memory | None = None,
        namespace: str | None = None,
        ttl: TTLConfig | None = None,
        **place: Unpack[Place],
    ) -> None:
        self._memory = memory_for(memory, namespace, place, default="graph")
        self._names = Names(self._memory.namespace)
        self.ttl_config = _checked_config(ttl)

    @cached_property
    def _twin(self) -> AsyncMemory:
        return self._memory.twin()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run ops: reads see the store as it was before, of several puts of a key the last one holds."""
        ops, memory = list(ops), self._memory
        asked = alone(self._names, memory.author, ops)
        if asked is not None:
            item = memory.ask(asked)
            if type(item) is not ItemFound or item.expires is None:
                return [item_of(self._names, item) if type(item) is ItemFound else None]
        plan = Plan(self._names, memory.author, ops)
        embedding = memory._embedding  # pyright: ignore[reportPrivateUsage]  # `search` has no public form for an op
        if embedding is not None:
            for place, search in plan.searches.items():
                plan.searches[place] = memory._with_vector(search, embedding)  # pyright: ignore[reportPrivateUsage]
        return memory.run(plan.run())

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, for an event loop."""
        ops, memory = list(ops), self._twin
        asked = alone(self._names, memory.author, ops)
        if asked is not None:
            item = await memory.ask(asked)
            if type(item) is not ItemFound or item.expires is None:
                return [item_of(self._names, item) if type(item) is ItemFound else None]
        plan = Plan(self._names, memory.author, ops)
        embedding = memory._embedding  # pyright: ignore[reportPrivateUsage]  # as in `batch`
        if embedding is not None:
            for place, search in plan.searches.items():
                plan.searches[place] = await memory._with_vector(  # pyright: ignore[reportPrivateUsage]
                    search, embedding
                )
        return await memory.run(plan.run())

    # ── moving in ──

    def import_from(self, other: BaseStore, *, ttl: float | NotProvided | None = NOT_PROVIDED) -> int:
        """Copy everything from another store of LangGraph's. Returns how many items that were.

        A store does not tell when its items expire, nor can it be told when they were made: what is copied is new, and
        lives for `ttl` minutes, by default `default_ttl`. Cut off, it can be done again.
        """
        steps = _copying(self, other, self._ttl_of(ttl))
        try:
            store, ops = next(steps)
            while True:
                store, ops = steps.send(store.batch(ops))
        except StopIteration as stop:
            return cast("int", stop.value)

    async def aimport_from(self, other: BaseStore, *, ttl: float | NotProvided | None = NOT_PROVIDED) -> int:
        """As `import_from`, for an event loop."""
        steps = _copying(self, other, self._ttl_of(ttl))
        try:
            store, ops = next(steps)
            while True:
                store, ops = steps.send(await store.abatch(ops))
        except StopIteration as stop:
            return cast("int", stop.value)

    def _ttl_of(self, ttl: float | NotProvided | None) -> float | None:
        if isinstance(ttl, NotProvided):
            ttl = (self.ttl_config or {}).get("default_ttl")
        return None if ttl is None else checked_ttl(ttl)


def _checked_config(ttl: Any) -> TTLConfig | None:
    if ttl is None:
        return None
    if not isinstance(ttl, dict):
        raise InvalidInput(f"ttl must be a dict such as {{'default_ttl': 60}}, not {type(ttl).__name__}")
    config = cast("TTLConfig", ttl)
    for name in config:
        if name not in TTLConfig.__annotations__:
            raise InvalidInput(f"ttl has no {name!r}: there are {', '.join(TTLConfig.__annotations__)}")
    default = config.get("default_ttl")
    if default is not None:
        checked_ttl(default)
    return config


def _copying(store: BaseStore, other: BaseStore, ttl: float | None) -> Steps:
    """Copy everything, what was changed last in the last batch: a search without a query lists it first."""
    keys = yield from _keys_of(other)
    for start in range(0, len(keys), COPIED_TOGETHER):
        items = yield (
            other,
            [GetOp(namespace, key, refresh_ttl=False) for namespace, key in keys[start : start + COPIED_TOGETHER]],
        )
        there = [item for item in cast("list[Item | None]", items) if item is not None]
        if there:
            yield store, [PutOp(item.namespace, item.key, item.value, ttl=ttl) for item in there]
    return len(keys)


def _keys_of(other: BaseStore) -> Steps:
    """The namespace and key of everything in a store, oldest change first."""
    page = LISTED_TOGETHER
    while True:
        keys: dict[tuple[tuple[str, ...], str], Any] = {}
        offset, got = 0, page
        while got == page:
            [answer] = yield other, [SearchOp((), limit=page, offset=offset, refresh_ttl=False)]
            items = cast("list[Item]", answer)
            keys |= {(item.namespace, item.key): item.updated_at for item in items}
            offset, got = offset + len(items), len(items)
        if len(keys) == offset or offset < page:
            return sorted(keys, key=keys.__getitem__)
        page = offset + LISTED_TOGETHER  # its pages overlap, so something is on none of them: all on one, then
