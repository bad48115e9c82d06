"""Export and import: whole namespaces as JSON Lines, streamed, so that neither needs the memory of all of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from botwire import transfer
from botwire.errors import BotWireError, Conflict, TooLarge
from botwire.ops import Describe, Dump, DumpPage, DumpRecord, Erase, Load, NamespaceInfo

from . import answers
from .doors import Call, Doors, Media, check_media
from .logs import log
from .namespaces import NAMESPACE
from .streaming import Streamed

doors = Doors()

LINES: Final = Media("application/jsonl", "JSON Lines: a header, then one record a line, and an end that counts them.")
TAKEN: Final = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/octet-stream")
PIECE: Final = 1024 * 1024  # bytes that are about one page of an export, or one commit of an import
MOST_RECORDS: Final = 256  # in one of these
MAX_LINE: Final = 64 * 1024 * 1024  # bytes: 17 values of 1 MiB, a key's usual past, fit well


# ── export ──────────────────────────────────────────────────────────────────────────────────────────


@doors.door("GET", NAMESPACE + "/export", answers={200: LINES})
async def export(call: Call) -> Response:
    """Everything in a namespace, as JSON Lines: values, versions, times, history and conversations."""
    op = Dump(call.namespace, limit=8)
    first: DumpPage = await call.ask(op)
    return Export(call, op, first)


class Export(Streamed):
    """An export on its way out, page by page. If the store fails on the way, the connection is cut."""

    def __init__(self, call: Call, op: Dump, first: DumpPage) -> None:
        super().__init__({"Content-Type": LINES.type, "Content-Disposition": _disposition(call.namespace)})
        self.call = call
        self.op = op
        self.first = first

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The lines, about a megabyte at a time."""
        page, op = self.first, self.op
        piece = transfer.first_line(self.call.namespace)
        while True:
            piece += b"".join(map(transfer.line, page.records))
            yield piece
            if page.cursor is None:
                return
            op = msgspec.structs.replace(op, cursor=page.cursor, limit=_next_limit(op.limit, len(piece)))
            self.call.check_key()
            page, piece = await self.call.ask(op), b""


def _next_limit(limit: int, size: int) -> int:
    """How many records to ask for, after so many have taken so many bytes."""
    if size < PIECE // 2:
        return min(limit * 2, MOST_RECORDS)
    return max(limit // 2, 1) if size > PIECE * 2 else limit


def _disposition(namespace: str) -> str:
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in namespace)
    return f"attachment; filename=\"{plain}.jsonl\"; filename*=UTF-8''{quote(namespace, safe='')}.jsonl"


# ── import ──────────────────────────────────────────────────────────────────────────────────────────


@doors.door("POST", NAMESPACE + "/import", body=LINES, answers={200: NamespaceInfo}, errors=(408, 409, 507))
async def import_(call: Call) -> Response:
    """Take in an export, into an empty namespace. All or nothing."""
    check_media(call.header("content-type"), TAKEN)
    importing: set[str] = call.request.app.state.importing
    if call.namespace in importing:
        raise Conflict(f"an import into {call.namespace!r} is under way: wait for it to end")
    importing.add(call.namespace)
    try:
        await _load(call)
    finally:
        importing.discard(call.namespace)
    return answers.json(await call.ask(Describe(call.namespace)))


async def _load(call: Call) -> None:
    """Load the body, some records at a time. If it turns out broken, the namespace is left empty again."""
    upload = Upload(call.request.stream())
    started = False
    try:
        async for batch in upload.batches():
            call.check_key()
            await call.ask(Load(call.namespace, batch))
            started = True
    except BaseException:
        if started:
            await _leave_empty(call)
        raise
    finally:
        upload.close()


async def _leave_empty(call: Call) -> None:
    try:
        await asyncio.shield(call.service.store.execute([Erase(call.namespace)]))
    except BotWireError as error:  # why the import failed is what its sender is told; the next one begins anew anyway
        log.warning("what a broken import had brought could not be erased: %s", error)


class Upload:
    """A body as batches of records. They are decoded on a thread of their own, which takes the body as it comes."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = aiter(body)
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="botwire-import")
        self._awaited: concurrent.futures.Future[bytes] | None = None

    async def batches(self) -> AsyncIterator[list[DumpRecord]]:
        """The records, about a megabyte at a time."""
        batches = in_batches(self._chunks())
        while (batch := await self._loop.run_in_executor(self._thread, next, batches, None)) is not None:
            yield batch

    def _chunks(self) -> Iterator[bytes]:
        """The body's pieces, for the thread."""
        while True:
            self._awaited = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            chunk = self._awaited.result()
            if not chunk:
                return
            yield chunk

    async def _next(self) -> bytes:
        """The next piece that is not empty; `b""` at the end."""
        while True:
            chunk = await anext(self._body, None)
            if chunk is None:
                return b""
            if chunk:
                return chunk

    def close(self) -> None:
        """Let the thread go, also if it waits for a piece."""
        if self._awaited is not None:
            self._awaited.cancel()
        self._thread.shutdown(wait=False)


def in_batches(chunks: Iterable[bytes]) -> Iterator[list[DumpRecord]]:
    """The records of an export that comes in pieces: so many that their lines take about a megabyte."""
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for line in lines(chunks):
            size += len(line)
            yield line

    batch: list[DumpRecord] = []
    for record in transfer.read_records(counted()):
        batch.append(record)
        if size >= PIECE or len(batch) == MOST_RECORDS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text that comes in pieces. Raises `TooLarge` for one that is too long to be held."""
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        if others:
            yield b"".join((*parts, first))
            yield from others[:-1]
            parts, held, first = [], 0, others[-1]
        parts.append(first)
        held += len(first)
        if held > MAX_LINE:
            raise TooLarge(f"a line is over {MAX_LINE:,} bytes long: bring this namespace over with `botwire import`")
    if held:
        yield b"".join(parts)
