"""Embeddings in the file: what has none yet, how they are kept, and the nearest of them.

A vector belongs to a text, by its digest. So it is used again when the index is made anew, or when a text comes back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from threading import Lock

from botwire import revisions
from botwire.errors import InvalidInput
from botwire.ops import Embed, Embedded, Text, Vector
from botwire.search import Nearest, documents, texts
from botwire.search.vectors import Matrix
from botwire.values import decode

from . import index
from .postings import Sql

MATRICES = 256 * 1024 * 1024  # bytes of vectors that a store remembers


def digest_of(text: str) -> int:
    """What a text's vector goes by; 0 if there is nothing to embed."""
    if not text.strip():
        return 0
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1 or 1


def check_model(sql: Sql, namespace: int, name: str, model: str, dimension: int | None = None) -> bool:
    """Whether the namespace's embedder is this one; False if it has none. Raises `InvalidInput` if it is another."""
    row = sql("SELECT model, dimension FROM search_embedders WHERE namespace = ?", (namespace,)).get
    if row is None:
        return False
    held, numbers = row
    if held != model or (dimension and numbers and dimension != numbers):
        given = repr(model) + (f" with {dimension} numbers" if dimension else "")
        raise InvalidInput(
            f"namespace {name!r} was embedded by {held!r} with {numbers} numbers, not by {given}: use that one, "
            "search without an embedder, or replace its vectors: memory.embed(replace=True), `botwire embed --replace`"
        )
    return True


def note_model(sql: Sql, namespace: int, model: str, dimension: int = 0) -> None:
    """An embedder is in use. How long its vectors are is known from the first one on."""
    sql(
        "INSERT INTO search_embedders VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET dimension = ?3 WHERE dimension = 0",
        (namespace, model, dimension),
    )


# ── what is to be embedded ──────────────────────────────────────────────────────────────────────────


def unembedded(sql: Sql, namespace: int, limit: int) -> list[Text]:
    """Texts of the index that have no vector yet."""
    rows = sql(
        "SELECT document, place, key FROM search_documents WHERE namespace = ? AND digest IS NULL "
        "ORDER BY document DESC LIMIT ?",
        (namespace, limit),
    ).fetchall()
    found: list[Text] = []
    for document, place, key in rows:
        text = documents.to_embed(_text(sql, namespace, place, key))
        found.append(Text(document, digest_of(text), text))
    return found


def count_unembedded(sql: Sql, namespace: int) -> int:
    """How many texts of the index have no vector yet."""
    count: int = sql("SELECT count(*) FROM search_documents WHERE namespace = ? AND digest IS NULL", (namespace,)).get
    return count


def _text(sql: Sql, namespace: int, place: int | None, key: str | None) -> str:
    """What a document says; nothing if its row is gone."""
    if place is not None:
        value = sql("SELECT value FROM messages WHERE place = ?", (place,)).get
        return "" if value is None else texts.of_message(decode(value))
    row = sql("SELECT value, meta FROM items WHERE namespace = ? AND key = ?", (namespace, key)).get
    if row is None or row[0] is None:
        return ""
    return texts.of_item(decode(row[0]), revisions.read_meta(row[1]).index)


def embed(sql: Sql, op: Embed, namespaces: dict[int, str]) -> Embedded:
    """Store vectors of documents in these namespaces."""
    for namespace, name in namespaces.items():
        if op.replace:
            _replace(sql, namespace, op)
        else:
            check_model(sql, namespace, name, op.model, op.dimension)
    stored = sum(_store(sql, op, vector, namespaces) for vector in op.vectors)
    return Embedded(stored, sum(count_unembedded(sql, namespace) for namespace in namespaces))


def _replace(sql: Sql, namespace: int, op: Embed) -> None:
    row = sql("SELECT model, dimension FROM search_embedders WHERE namespace = ?", (namespace,)).get
    if row not in (None, (op.model, op.dimension)):
        sql("DELETE FROM search_vectors WHERE namespace = ?", (namespace,))
        sql("DELETE FROM search_embedders WHERE namespace = ?", (namespace,))
        sql("UPDATE search_documents SET digest = NULL WHERE namespace = ?", (namespace,))
        note_model(sql, namespace, op.model, op.dimension)


def _store(sql: Sql, op: Embed, given: Vector, namespaces: dict[int, str]) -> bool:
    namespace = sql("SELECT namespace FROM search_documents WHERE document = ?", (given.document,)).get
    if namespace not in namespaces:
        return False  # it has changed or gone meanwhile
    if given.vector:
        note_model(sql, namespace, op.model, op.dimension)
        sql("INSERT OR IGNORE INTO search_vectors VALUES (?, ?, ?)", (namespace, given.digest, given.vector))
    digest = given.digest if given.vector else 0
    before = sql("SELECT digest FROM search_documents WHERE document = ?", (given.document,)).get
    sql("UPDATE search_documents SET digest = ? WHERE document = ?", (digest, given.document))
    index.drop_vectors(sql, namespace, [before])
    return bool(given.vector)


# ── the nearest ─────────────────────────────────────────────────────────────────────────────────────


class Held:
    """The vectors of a namespace, as a matrix, and of which texts they are."""

    def __init__(self, dimension: int) -> None:
        self.matrix = Matrix(dimension)
        self.digests: dict[int, int] = {}

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.digests) * self.matrix.dimension * 4


class Matrices:
    """What a store remembers of its vectors."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: OrderedDict[int, Held] = OrderedDict()

    def forget(self) -> None:
        """Remember nothing more."""
        with self._lock:
            self._held.clear()

    def nearest(
        self, sql: Sql, namespace: int, query: bytes, limit: int, admitted: Callable[[int], bool] | None
    ) -> tuple[Nearest | None, int]:
        """The documents of a namespace nearest to a vector, and how many have one."""
        with self._lock:  # a matrix must not grow while it is multiplied
            matrix = self._matrix(sql, namespace)
            return (None, 0) if matrix is None else (matrix.nearest(query, limit, admitted), len(matrix.ids))

    def _matrix(self, sql: Sql, namespace: int) -> Matrix | None:
        """The vectors of a namespace as they are in the file now, or `None` if it has none."""
        dimension = sql("SELECT dimension FROM search_embedders WHERE namespace = ?", (namespace,)).get
        if not dimension:
            return None
        held = self._held.get(namespace)
        if held is None or held.matrix.dimension != dimension:
            held = Held(dimension)
        self._bring_up_to_date(sql, namespace, held)
        self._held[namespace] = held
        self._held.move_to_end(namespace)
        while len(self._held) > 1 and sum(each.size for each in self._held.values()) > MATRICES:
            self._held.popitem(last=False)
        return held.matrix

    def _bring_up_to_date(self, sql: Sql, namespace: int, held: Held) -> None:
        rows = sql(
            "SELECT document, digest FROM search_documents WHERE namespace = ? AND digest > 0", (namespace,)
        ).fetchall()
        now = dict(rows)
        if now == held.digests:
            return
        if gone := {document for document, digest in held.digests.items() if now.get(document) != digest}:
            held.matrix = held.matrix.without(gone)
        for document, digest in now.items():
            if held.digests.get(document) != digest:
                vector = sql(
                    "SELECT vector FROM search_vectors WHERE namespace = ? AND digest = ?", (namespace, digest)
                ).get
                held.matrix.add(document, vector)
        held.digests = now


def together(found: Iterable[tuple[Nearest | None, int]], limit: int) -> Nearest | None:
    """The nearest of several namespaces."""
    cosines: dict[int, float] = {}
    total, count = 0.0, 0
    for each, size in found:
        if each is not None:
            cosines.update(each.cosines)
            total, count = total + each.mean * size, count + size
    if not count:
        return None
    best = sorted(cosines, key=cosines.__getitem__, reverse=True)[:limit]
    return Nearest({document: cosines[document] for document in best}, total / count)
