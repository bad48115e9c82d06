"""JSON Lines: the form in which a namespace leaves botwire and comes back. One record a line, nothing lost.

The first line says what the file is, then come the records of `Dump`: namespace, items with their past,
conversations with their messages, and an end that counts them, so that a cut-off file is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from . import values
from .errors import InvalidInput, StoreUnavailable
from .ops import DumpRecord, EndRecord, ItemRecord, MessageRecord, NamespaceRecord

FORMAT = 1
BATCH_BYTES = 4 * 1024 * 1024  # of values


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    botwire_export: int
    namespace: str


def first_line(namespace: str) -> bytes:
    """The line that says what the file is."""
    return msgspec.json.encode(Header(FORMAT, namespace)) + b"\n"


def line(record: DumpRecord) -> bytes:
    """A record as a line."""
    return msgspec.json.encode(record) + b"\n"


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """A file to write: it takes its name when it is whole, so a failed export leaves what was there before."""
    path = Path(target)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened(source: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """A file to read."""
    try:
        stream = Path(source).open("rb")  # noqa: SIM115  # closed below; only the opening is to be translated
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error}") from error
    with stream:
        yield stream


def in_batches(records: Iterable[DumpRecord], size: int = 200) -> Iterator[list[DumpRecord]]:
    """Some records at a time, and not much more than `BATCH_BYTES`: a server takes no body of any size."""
    batch: list[DumpRecord] = []
    held = 0
    for record in records:
        weight = _bytes_of(record)
        if batch and (len(batch) == size or held + weight > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(record)
        held += weight
    if batch:
        yield batch


def _bytes_of(record: DumpRecord) -> int:
    """How many bytes of values a record holds."""
    if isinstance(record, ItemRecord):
        return sum(memoryview(revision.raw).nbytes for revision in record.revisions)
    return memoryview(record.message.raw).nbytes if isinstance(record, MessageRecord) else 0


def read_batches(lines: Iterable[bytes], size: int = 200) -> Iterator[list[DumpRecord]]:
    """The records of an export, some at a time. Raises `InvalidInput` with the number of a line that is none."""
    return in_batches(read_records(lines), size)


def read_export(lines: Iterable[bytes], size: int = 200) -> tuple[str, Iterator[list[DumpRecord]]]:
    """The namespace that was exported, and its records as `read_batches` gives them."""
    rest = iter(lines)
    first = next(rest, b"")
    origin = _read_header(first).namespace if first else ""
    return origin, read_batches(chain([first] if first else [], rest), size)


def read_records(lines: Iterable[bytes]) -> Iterator[DumpRecord]:
    """The records of an export."""
    number, record = 0, None
    for number, line in enumerate(lines, 1):
        if number == 1:
            _read_header(line)
        elif line.strip():
            if isinstance(record, EndRecord):
                raise InvalidInput(f"line {number}: something follows the end of the export")
            record = _read_record(line, number)
            if isinstance(record, NamespaceRecord) != (number == 2):
                raise InvalidInput(f"line {number}: an export has one namespace record, in line 2")
            yield record
    if number == 0:
        raise InvalidInput("the file is empty: it is no export of botwire")
    if not isinstance(record, EndRecord):
        raise InvalidInput(f"the export was cut off after line {number}: its end record is missing")


_decode: Callable[[bytes], DumpRecord] = msgspec.json.Decoder(DumpRecord).decode


def _read_record(line: bytes, number: int) -> DumpRecord:
    try:
        try:
            return _decode(line)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            if b"\\ud" not in line.lower():
                raise
            return _read_with_surrogates(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"line {number} is no record of an export: {error}") from error


def _read_with_surrogates(line: bytes) -> DumpRecord:
    """Half a surrogate pair, which msgspec refuses: take the values out, and put them back in as text."""
    fields = json.loads(line)
    holders = [*fields.get("revisions", []), *([fields["message"]] if "message" in fields else [])]
    texts = [Raw(values.encode(holder["value"])) for holder in holders]
    for holder in holders:
        holder["value"] = None
    record = _decode(msgspec.json.encode(fields))
    match record:
        case ItemRecord():
            revisions = [replace(old, raw=text) for old, text in zip(record.revisions, texts, strict=True)]
            return replace(record, revisions=revisions)
        case MessageRecord():
            return replace(record, message=replace(record.message, raw=texts[0]))
        case _:
            return record


def _read_header(line: bytes) -> Header:
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"line 1 is not the beginning of a botwire export: {error}") from error
    if header.botwire_export > FORMAT:
        raise InvalidInput(
            f"the export has format {header.botwire_export}, this botwire reads up to {FORMAT}: upgrade botwire"
        )
    return header
