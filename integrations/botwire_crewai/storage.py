"""`BotWireStorage`: where CrewAI's own memory is kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self

from crewai.memory.types import MemoryRecord, ScopeInfo

from botwire import InvalidInput, Item, Memory
from botwire.adapting import Place, memory_for
from botwire.flows import Flow, all_keys, next_page
from botwire.ops import Delete, Get, Op, Put, Scan

from . import records
from .records import EMBEDDING, RECALLED, RECORD

if TYPE_CHECKING:
    from typing import Unpack

    from botwire import AsyncMemory

PAGE: Final = 500
BATCH_OPS: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024  # of values in one request: a server takes 16 MiB

Found = list[tuple[MemoryRecord, float]]


class BotWireStorage:
    """Keeps the memory of a crew in a namespace: `Memory(storage=BotWireStorage(namespace="research-crew"))`.

    Args:
        memory: a `botwire.Memory` that is there already; or
        namespace: a namespace, by default `"crewai"`; with
        place: `url`, `api_key`, `durability`, `encryption_key` … as for `Memory`.

    Scopes are compared level by level: `/crew/a` holds `/crew/a/b`, not `/crew/ab`. A score is the cosine between
    question and memory (0 for what points the other way), compared with every memory of the scope.

    """

    def __init__(self, *, memory: Memory | None = None, namespace: str | None = None, **place: Unpack[Place]) -> None:
        self._memory = memory_for(memory, namespace, place, default="crewai")
        self._is_own = memory is None
        self._async: AsyncMemory | None = None

    def __repr__(self) -> str:
        return f"BotWireStorage({self._memory!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # copies of a crew share its memory

    def _twin(self) -> AsyncMemory:
        twin = self._async
        if twin is None:
            twin = self._async = self._memory.twin()
        return twin

    def close(self) -> None:
        """Let go of the store, if it was opened here. Using the storage opens it again."""
        self._async = None
        if self._is_own:
            self._memory.close()

    # ── writing ──

    def save(self, records: list[MemoryRecord]) -> None:
        """Store records; one with an id that is there takes its place. What cannot be stored is refused first."""
        self._memory.run(_save(self._memory, records))

    async def asave(self, records: list[MemoryRecord]) -> None:
        """As `save`."""
        await self._twin().run(_save(self._memory, records))

    def update(self, record: MemoryRecord) -> None:
        """Store a record in the place of that with its id. Without an embedding it keeps the one that is stored."""
        self.save([record])

    def touch_records(self, record_ids: list[str]) -> None:
        """Note that records were recalled."""
        self._memory.run(_touch(self._memory.namespace, record_ids))

    def delete(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        record_ids: list[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """Delete the records that meet every condition given. Returns how many that were.

        Without a condition that is all of them; an empty list of ids or categories is a condition that none meets.
        """
        flow = _delete(self._memory.namespace, scope_prefix, categories, record_ids, older_than, metadata_filter)
        return self._memory.run(flow)

    async def adelete(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        record_ids: list[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """As `delete`."""
        flow = _delete(self._memory.namespace, scope_prefix, categories, record_ids, older_than, metadata_filter)
        return await self._twin().run(flow)

    def reset(self, scope_prefix: str | None = None) -> None:
        """Delete the records of a scope, or all. What else the namespace holds stays."""
        self._memory.run(_reset(self._memory.namespace, scope_prefix))

    # ── finding ──

    def search(
        self,
        query_embedding: list[float],
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
    ) -> Found:
        """The records nearest to an embedding, nearest first, each with its cosine."""
        candidates = self._memory.run(
            _candidates(self._memory.namespace, scope_prefix, categories or None, metadata_filter)
        )
        best = _best(candidates, query_embedding, limit, min_score)
        return self._memory.run(_with_times(self._memory.namespace, best))

    async def asearch(
        self,
        query_embedding: list[float],
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
    ) -> Found:
        """As `search`."""
        namespace = self._memory.namespace
        candidates = await self._twin().run(_candidates(namespace, scope_prefix, categories or None, metadata_filter))
        best = await asyncio.to_thread(_best, candidates, query_embedding, limit, min_score)
        return await self._twin().run(_with_times(namespace, best))

    def get_record(self, record_id: str) -> MemoryRecord | None:
        """The record with an id."""
        return self._memory.run(_get(self._memory.namespace, record_id))

    def list_records(self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0) -> list[MemoryRecord]:
        """The records of a scope, newest first."""
        if limit <= 0 or offset < 0:
            return []
        items = self._memory.run(_items(self._memory.namespace, scope_prefix))
        found = [(item, records.record_of(item)) for item in items]
        found.sort(key=lambda each: (records.moment(each[1].created_at), each[0].version), reverse=True)
        return self._memory.run(_whole(self._memory.namespace, [item for item, _ in found[offset : offset + limit]]))

    def count(self, scope_prefix: str | None = None) -> int:
        """How many records there are in a scope and below it."""
        return len(self._memory.run(_items(self._memory.namespace, scope_prefix, values=False)))

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        """The categories in a scope and below it, and how many records each has."""
        return dict(Counter(name for record in self._in(scope_prefix) for name in record.categories))

    def list_scopes(self, parent: str = "/") -> list[str]:
        """The scopes right below a scope."""
        return records.children(parent, self._in(parent))

    def get_scope_info(self, scope: str) -> ScopeInfo:
        """How much a scope holds, what is below it, and from when."""
        found = self._in(scope)
        times = sorted((record.created_at for record in found), key=records.moment)
        return ScopeInfo(
            path=records.path_of(scope).rstrip("/") or "/",
            record_count=len(found),
            categories=sorted({name for record in found for name in record.categories}),
            oldest_record=times[0] if times else None,
            newest_record=times[-1] if times else None,
            child_scopes=records.children(scope, found),
        )

    def _in(self, scope: str | None) -> list[MemoryRecord]:
        return [records.record_of(item) for item in self._memory.run(_items(self._memory.namespace, scope))]


# ── flows: what is asked of the store, for both kinds of memory ─────────────────────────────────────


def _save(memory: Memory, given: Sequence[MemoryRecord]) -> Flow[None]:
    ops = [records.puts(memory.namespace, record, memory.author) for record in given]
    [page] = yield [Scan(memory.namespace, EMBEDDING, limit=1)]
    records.check_dimensions(given, records.dimension(page.items[0]) if page.items else None)
    yield from _batches(ops)


def _batches(groups: Iterable[list[Op]]) -> Generator[list[Op], Any, None]:
    """Groups of ops put together, none torn apart, as one request can carry them."""
    batch: list[Op] = []
    size = 0
    for group in groups:
        more = sum(len(bytes(op.raw)) for op in group if isinstance(op, Put))
        if batch and (size + more > BATCH_BYTES or len(batch) + len(group) > BATCH_OPS):
            yield batch
            batch, size = [], 0
        batch += group
        size += more
    if batch:
        yield batch


def _touch(namespace: str, ids: Sequence[str]) -> Flow[None]:
    found: list[Item | None] = yield [Get(namespace, RECORD + each) for each in ids]
    ops = [records.recalled_now(namespace, records.id_of(item)) for item in found if item is not None]
    if ops:
        yield ops


def _items(namespace: str, scope: str | None, *, values: bool = True) -> Flow[list[Item]]:
    """The items of the records of a scope, the oldest write first."""
    op: Scan | None = Scan(namespace, RECORD, records.within(scope), values=values, limit=PAGE)
    items: list[Item] = []
    while op is not None:
        [page] = yield [op]
        items += page.items
        op = next_page(op, page, None)
    return sorted(items, key=lambda item: item.version)


def _get_all(namespace: str, keys: Sequence[str]) -> Flow[list[Item | None]]:
    found: list[Item | None] = []
    for start in range(0, len(keys), PAGE):
        found += yield [Get(namespace, key) for key in keys[start : start + PAGE]]
    return found


def _get(namespace: str, record_id: str) -> Flow[MemoryRecord | None]:
    item, recalled, embedding = yield [Get(namespace, part + record_id) for part in (RECORD, RECALLED, EMBEDDING)]
    return None if item is None else records.record_of(item, recalled, embedding)


def _whole(namespace: str, items: Sequence[Item]) -> Flow[list[MemoryRecord]]:
    """The records of items, with what stands beside them."""
    ids = [records.id_of(item) for item in items]
    recalled = yield from _get_all(namespace, [RECALLED + each for each in ids])
    embeddings = yield from _get_all(namespace, [EMBEDDING + each for each in ids])
    return [records.record_of(*parts) for parts in zip(items, recalled, embeddings, strict=True)]


def _candidates(
    namespace: str, scope: str | None, categories: Sequence[str] | None, metadata: dict[str, Any] | None
) -> Flow[list[tuple[Item, Item | None]]]:
    """The records that a search is about, each with its embedding."""
    items = yield from _items(namespace, scope)
    if categories is not None or metadata:
        items = [item for item in items if records.matches(records.record_of(item), categories, metadata)]
    embeddings = yield from _get_all(namespace, [EMBEDDING + records.id_of(item) for item in items])
    return list(zip(items, embeddings, strict=True))


def _best(
    candidates: Sequence[tuple[Item, Item | None]], query: Sequence[float], limit: int, min_score: float
) -> list[tuple[Item, Item | None, float]]:
    """The candidates that a search answers with, nearest first, and their scores."""
    ranked = records.ranked(query, [embedding for _, embedding in candidates])
    scored = [(*candidates[place], max(cosine, 0.0)) for place, cosine in ranked[: max(limit, 0)]]
    return [each for each in scored if each[2] >= min_score]


def _with_times(namespace: str, best: Sequence[tuple[Item, Item | None, float]]) -> Flow[Found]:
    """The answer to a search."""
    recalled = yield from _get_all(namespace, [RECALLED + records.id_of(item) for item, _, _ in best])
    return [
        (records.record_of(item, when, embedding), score)
        for (item, embedding, score), when in zip(best, recalled, strict=True)
    ]


def _delete(
    namespace: str,
    scope: str | None,
    categories: Sequence[str] | None,
    ids: Sequence[str] | None,
    older_than: datetime | None,
    metadata: dict[str, Any] | None,
) -> Flow[int]:
    for name, given in (("categories", categories), ("record_ids", ids)):
        if isinstance(given, str):
            raise InvalidInput(f"{name} takes a list: write [{given!r}]")
    items = yield from _items(namespace, scope)
    if ids is not None:
        wanted = set(ids)
        items = [item for item in items if records.id_of(item) in wanted]
    if categories is not None or metadata or older_than is not None:
        items = [item for item in items if records.matches(records.record_of(item), categories, metadata, older_than)]
    deleted = 0
    for batch in _batches(records.deletes(namespace, records.id_of(item)) for item in items):
        gone = yield batch
        deleted += sum(stamp is not None for stamp in gone[::3])  # of each record the first of three
    return deleted


def _reset(namespace: str, scope: str | None) -> Flow[None]:
    if records.within(scope) is not None:
        yield from _delete(namespace, scope, None, None, None, None)
        return
    for prefix in (RECORD, EMBEDDING, RECALLED):
        keys = yield from all_keys(namespace, prefix)
        yield from _batches([Delete(namespace, key, history=prefix == RECORD)] for key in keys)
