"""CrewAI's memory records as items of a namespace, and back. It does no I/O.

A record is three items. The record itself; beside it its embedding, which is large, and which `model_dump` leaves
out; and when it was last recalled, which changes at every recall and must not push the record's past out of its
history. Search finds a record by its content, unless it is private.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from crewai.memory.storage.backend import EmbeddingDimensionMismatchError
from crewai.memory.types import MemoryRecord
from crewai.memory.utils import normalize_scope_path
from pydantic import ValidationError

from botwire import InvalidInput, Item
from botwire.flows import put_op
from botwire.ops import Delete, Op
from botwire.search import vectors

RECORD: Final = "crewai/"
EMBEDDING: Final = "crewai-embedding/"
RECALLED: Final = "crewai-recalled/"

LONGEST: Final = 1e38  # what a 32-bit number can hold, about


def puts(namespace: str, record: MemoryRecord, author: str | None) -> list[Op]:
    """The ops that store a record. One that brings no embedding keeps the one it has."""
    if not record.id:
        raise InvalidInput("a memory record needs an id")
    fields = record.model_dump(exclude={"id"}) | {"path": path_of(record.scope)}
    index = False if record.private else ("content",)
    ops: list[Op] = [
        put_op(namespace, RECORD + record.id, fields, author=author, index=index),
        Delete(namespace, RECALLED + record.id, history=False),
    ]
    if record.embedding:
        packed = _packed(record.embedding)
        ops.append(put_op(namespace, EMBEDDING + record.id, packed, author=author, history=False, index=False))
    return ops


def deletes(namespace: str, record_id: str) -> list[Op]:
    """The ops that delete a record; the answer to the first one says whether it was there."""
    return [
        Delete(namespace, RECORD + record_id),
        Delete(namespace, EMBEDDING + record_id, history=False),
        Delete(namespace, RECALLED + record_id, history=False),
    ]


def recalled_now(namespace: str, record_id: str) -> Op:
    """The op that notes that a record was recalled."""
    now = datetime.now(UTC).replace(tzinfo=None)  # as CrewAI's own times: UTC without saying so
    return put_op(namespace, RECALLED + record_id, now, history=False, index=False)


def record_of(item: Item, recalled: Item | None = None, embedding: Item | None = None) -> MemoryRecord:
    """The record that was stored."""
    fields: Any = item.value
    try:
        known = {**fields, "id": id_of(item)}
        if recalled is not None:
            known["last_accessed"] = recalled.value
        record = MemoryRecord.model_validate(known)
    except (TypeError, ValidationError) as error:
        raise _corrupt(item, error) from error
    record.embedding = None if embedding is None else unpacked(embedding)
    return record


def id_of(item: Item) -> str:
    """The id of the record that an item is of."""
    return item.key.removeprefix(RECORD)


def _corrupt(item: Item, error: object) -> InvalidInput:
    return InvalidInput(
        f"{item.key!r} in {item.namespace!r} holds no memory of CrewAI's ({error}): something else wrote there; "
        "`undo` or delete the key"
    )


# ── embeddings ──────────────────────────────────────────────────────────────────────────────────────


def _packed(embedding: Sequence[float]) -> dict[str, Any]:
    length = math.hypot(*embedding)
    if not length < LONGEST:
        raise InvalidInput("an embedding holds a number that is none, or is too large: look at the embedder")
    return {"unit": base64.b64encode(vectors.pack(embedding)).decode(), "length": length}


def unit(embedding: Item) -> bytes:
    """A stored embedding, packed and of length 1."""
    try:
        return base64.b64decode(embedding.value["unit"], validate=True)
    except (TypeError, KeyError, ValueError) as error:
        raise _corrupt(embedding, repr(error)) from error


def unpacked(embedding: Item) -> list[float]:
    """A stored embedding as it was given, to the precision of 32-bit numbers."""
    length = embedding.value["length"]
    return [number * length for number in vectors.unpack(unit(embedding))]


def dimension(embedding: Item) -> int:
    """How many numbers a stored embedding has."""
    return vectors.dimension(unit(embedding))


def check_dimensions(records: Iterable[MemoryRecord], stored: int | None) -> None:
    """Raise if not all embeddings have as many numbers as those that are stored."""
    for record in records:
        if record.embedding:
            if stored is not None and len(record.embedding) != stored:
                raise EmbeddingDimensionMismatchError(stored, len(record.embedding))
            stored = len(record.embedding)


def ranked(query: Sequence[float], embeddings: Sequence[Item | None]) -> list[tuple[int, float]]:
    """The places of embeddings in the list and their cosines with the query, nearest first: all of them, exactly."""
    matrix = vectors.Matrix(len(query))
    for place, item in enumerate(embeddings):
        if item is not None:
            blob = unit(item)
            if vectors.dimension(blob) != len(query):
                raise EmbeddingDimensionMismatchError(vectors.dimension(blob), len(query))
            matrix.add(place, blob)
    nearest = matrix.nearest(vectors.pack(query), len(matrix.ids))
    return [] if nearest is None else sorted(nearest.cosines.items(), key=lambda each: (-each[1], each[0]))


# ── scopes and filters ──────────────────────────────────────────────────────────────────────────────


def path_of(scope: str) -> str:
    """A scope as it is compared: `/crew/alpha/`. What lies below it begins with it."""
    return normalize_scope_path(scope).rstrip("/") + "/"


def within(scope: str | None) -> dict[str, Any] | None:
    """The filter for the records of a scope and below it; `None`: that is all of them."""
    path = path_of(scope or "/")
    return None if path == "/" else {"path": {"$gte": path, "$lt": path[:-1] + "0"}}  # 0 comes right after the slash


def children(scope: str, records: Iterable[MemoryRecord]) -> list[str]:
    """The scopes right below this one that records are in or below."""
    path = path_of(scope)
    below = (path_of(record.scope).removeprefix(path) for record in records)
    return sorted({path + each.partition("/")[0] for each in below if each})


def matches(
    record: MemoryRecord,
    categories: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    older_than: datetime | None = None,
) -> bool:
    """Whether a record has one of the categories, all of the metadata, and was made before then."""
    if categories is not None and not set(categories) & set(record.categories):
        return False
    if metadata and any(record.metadata.get(name) != value for name, value in metadata.items()):
        return False
    return older_than is None or moment(record.created_at) < moment(older_than)


def moment(when: datetime) -> datetime:
    """A time that can be compared: CrewAI's are UTC without saying so."""
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when
