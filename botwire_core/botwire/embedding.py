"""Embedding what is searched, above the seam: a store keeps vectors, and never calls an embedder.

What has no vector yet is what the store says has none: nothing is queued elsewhere, so nothing is lost, whatever
becomes of the embedder. Each search gives it some texts together with the question; a worker goes on with the rest.

What is done is a flow, as in `flows`, whose steps may also be texts for the embedder, or a pause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from .errors import (
    AccessDenied,
    BotWireError,
    EmbedderFailed,
    InvalidInput,
    StoreBusy,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from .ops import Embed, Index, Op, Search, Texts, Unembedded, Vector

WITH_A_SEARCH = 32  # texts that are embedded together with a question
TOGETHER = 64  # … and without one
PAUSES = (1.0, 4.0, 15.0, 60.0)  # seconds before the worker tries a failing embedder again; then the next search does
TRIES = (0.5, 2.0)  # seconds before `memory.embed` does

Progress = Callable[[int, int], object]
"""Called with how many texts are embedded, and how many there are to embed in all."""

T = TypeVar("T")
Execute = Callable[[Sequence[Op]], list[Any]]
ExecuteAsync = Callable[[Sequence[Op]], Awaitable[list[Any]]]

_CANNOT_WRITE = (AccessDenied, StoreReadOnly, StoreBusy, StoreFull, StoreUnavailable)


class Given(NamedTuple):
    """A step: texts for the embedder."""

    texts: list[str]


class Pause(NamedTuple):
    """A step: wait."""

    seconds: float


Steps = Generator[Any, Any, T]


class Embedding:
    """The embedder of a memory."""

    def __init__(self, given: Any) -> None:
        from .search.embedders import open_embedder  # only for those who have one

        self._embedder = open_embedder(given)
        self.given = given
        self.model = self._embedder.name
        self._lock = threading.Lock()  # a model is used by one thread at a time
        self.worker: Any = None

    def vectors(self, texts: Sequence[str]) -> list[bytes]:
        """The packed vectors of some texts. Raises `EmbedderFailed`."""
        from .search.vectors import pack

        with self._lock:
            return [pack(vector) for vector in self._embedder(texts)] if texts else []


def needed(embedding: Embedding | None) -> Embedding:
    """The embedder. Raises `InvalidInput` if there is none."""
    if embedding is None:
        raise InvalidInput("this memory has no embedder: Memory(…, embedder=…)")
    return embedding


# ── what is done ────────────────────────────────────────────────────────────────────────────────────


def with_vector(op: Search, model: str) -> Steps[tuple[Search, bool]]:
    """The search with its query's vector, and whether more texts are still to be embedded.

    If the embedder fails, the search goes by words alone.
    """
    found: Texts = yield from pending(op.namespace, model, op.query, WITH_A_SEARCH, subtree=op.subtree)
    said = [text for text in found.texts if text.digest]
    try:
        query, *vectors = yield Given([found.query, *(text.text for text in said)])
    except EmbedderFailed as error:
        warn(error, "searching by words alone")
        return op, False
    op = msgspec.structs.replace(op, vector=query, model=model)
    if found.texts:
        try:
            yield [_store(op.namespace, model, found, vectors, len(query) // 4, subtree=op.subtree)]
        except _CANNOT_WRITE:
            return op, False  # they are made again next time
    return op, found.left > len(found.texts)


def everything(
    namespace: str, model: str, *, replace: bool, subtree: bool, progress: Progress | None, pauses: Sequence[float]
) -> Steps[int]:
    """Embed all that has no vector yet; how many texts that were."""
    if replace:
        [probe] = yield Given(["how long is a vector?"])
        yield [Embed(namespace, model, len(probe) // 4, [], replace=True, subtree=subtree)]
    done = 0
    while True:
        found: Texts = yield from pending(namespace, model, "", TOGETHER, subtree=subtree)
        if not found.texts:
            return done
        vectors = yield from _patiently([text.text for text in found.texts if text.digest], pauses)
        dimension = len(vectors[0]) // 4 if vectors else 1
        yield [_store(namespace, model, found, vectors, dimension, subtree=subtree)]
        done += len(vectors)
        if progress is not None:
            progress(done, done + found.left - len(found.texts))


def _patiently(texts: list[str], pauses: Sequence[float]) -> Steps[list[bytes]]:
    for seconds in pauses:
        try:
            vectors: list[bytes] = yield Given(texts)
        except EmbedderFailed:
            yield Pause(seconds)
        else:
            return vectors
    vectors = yield Given(texts)
    return vectors


def pending(namespace: str, model: str, query: str, limit: int, *, subtree: bool) -> Steps[Texts]:
    """What is to be embedded, after taking what is new into the index."""
    ask = Unembedded(namespace, model, query, subtree, limit)
    [found] = yield [ask]
    left = found.unindexed
    while left:
        try:
            [indexed] = yield [Index(namespace, subtree, model=model)]
        except _CANNOT_WRITE:
            break
        left = indexed.left
        [found] = yield [ask]
    result: Texts = found
    return result


def _store(
    namespace: str, model: str, found: Texts, vectors: Sequence[bytes], dimension: int, *, subtree: bool
) -> Embed:
    """The op that stores the vectors of those texts in which something is said."""
    each = iter(vectors)
    given = [Vector(text.document, text.digest, next(each) if text.digest else b"") for text in found.texts]
    return Embed(namespace, model, dimension, given, subtree=subtree)


# ── who does it ─────────────────────────────────────────────────────────────────────────────────────


def drive(steps: Steps[T], execute: Execute, embedding: Embedding) -> T:
    """Take the steps with a store."""
    try:
        step = next(steps)
        while True:
            try:
                result: Any = None
                if isinstance(step, Given):
                    result = embedding.vectors(step.texts)
                elif isinstance(step, Pause):
                    time.sleep(step.seconds)
                else:
                    result = execute(step)
            except BotWireError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # the T of the steps


async def drive_async(steps: Steps[T], execute: ExecuteAsync, embedding: Embedding) -> T:
    """Take the steps with an async store; the embedder runs on a thread."""
    import asyncio  # only for those who have a loop

    try:
        step = next(steps)
        while True:
            try:
                result: Any = None
                if isinstance(step, Given):
                    result = await asyncio.to_thread(embedding.vectors, step.texts)
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    result = await execute(step)
            except BotWireError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # the T of the steps


def in_background(op: Search, embedding: Embedding, execute: Execute) -> None:
    """Have a thread embed the rest, unless one is at it."""
    if embedding.worker is not None and embedding.worker.is_alive():
        return

    def work() -> None:
        try:
            drive(_rest(op, embedding), execute, embedding)
        except StoreUnavailable:
            return  # the memory was closed
        except BotWireError as error:
            warn(error, "embedding goes on with the next search")

    embedding.worker = threading.Thread(target=work, name="botwire-embed", daemon=True)
    embedding.worker.start()


def as_task(op: Search, embedding: Embedding, execute: ExecuteAsync) -> None:
    """Have a task embed the rest, unless one is at it."""
    import asyncio  # only for those who have a loop

    if embedding.worker is not None and not embedding.worker.done():
        return

    async def work() -> None:
        try:
            await drive_async(_rest(op, embedding), execute, embedding)
        except StoreUnavailable:
            return  # the memory was closed
        except BotWireError as error:
            warn(error, "embedding goes on with the next search")

    embedding.worker = asyncio.create_task(work(), name="botwire-embed")


def _rest(op: Search, embedding: Embedding) -> Steps[int]:
    return everything(op.namespace, embedding.model, replace=False, subtree=op.subtree, progress=None, pauses=PAUSES)


def warn(error: BaseException, what: str) -> None:
    """Say that an embedder failed, where nobody waits for it."""
    import logging  # only for this

    logging.getLogger("botwire").warning("%s: %s", what, error)
