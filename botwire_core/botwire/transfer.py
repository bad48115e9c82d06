"""JSON Lines: the form in which a namespace leaves botwire and comes back. One record a line, nothing lost.

The first line says what the file is, then come the records of `Dump`: namespace, items with their past,
conversations with their messages, and an end that counts them, so that a cut-off file is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from .errors import InvalidInput, StoreUnavailable
from .ops import DumpRecord, EndRecord

FORMAT = 1


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
    """Some records at a time."""
    batch: list[DumpRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def read_batches(lines: Iterable[bytes], size: int = 200) -> Iterator[list[DumpRecord]]:
    """The records of an export, some at a time. Raises `InvalidInput` with the number of a line that is none."""
    decoder = msgspec.json.Decoder(DumpRecord)
    batch: list[DumpRecord] = []
    number, ended = 0, False
    for number, line in enumerate(lines, 1):
        if number == 1:
            _check_header(line)
            continue
        if not line.strip():
            continue
        if ended:
            raise InvalidInput(f"line {number}: something follows the end of the export")
        try:
            record = decoder.decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(f"line {number} is no record of an export: {error}") from error
        ended = isinstance(record, EndRecord)
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if number == 0:
        raise InvalidInput("the file is empty: it is no export of botwire")
    if not ended:
        raise InvalidInput(f"the export was cut off after line {number}: its end record is missing")
    if batch:
        yield batch


def _check_header(line: bytes) -> None:
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"line 1 is not the beginning of a botwire export: {error}") from error
    if header.botwire_export > FORMAT:
        raise InvalidInput(
            f"the export has format {header.botwire_export}, this botwire reads up to {FORMAT}: upgrade botwire"
        )
