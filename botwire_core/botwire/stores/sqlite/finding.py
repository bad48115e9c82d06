"""The search op: from a query to hits.

`Searches` keeps what each namespace's index does not know yet (`recent.py`); `Scoped` is what a search sees of one or
several namespaces, as `botwire.search` asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Any

from botwire import search as ranking
from botwire.ops import (
    DEFAULTS,
    MICROSECONDS,
    Embed,
    Embedded,
    Hit,
    HitPage,
    Index,
    Indexed,
    Item,
    Message,
    Policy,
    Search,
    Text,
    Texts,
    Unembedded,
)
from botwire.search import Nearest, Row, Scope, words
from botwire.where import check_where, matches

from . import embedding, index
from .embedding import Matrices
from .index import ITEM
from .ledger import read_policy
from .postings import Sql
from .reads import GET, MESSAGE, after_prefix, item_of, message_of, place_range, scope
from .recent import Recent, Seen

WRITTEN_TOGETHER = 256  # documents
IN_MEMORY = 4_096  # documents of a namespace, before they are written in the midst of a search
KEPT = 16_384  # documents of all namespaces that are remembered without being in the file
NAMESPACES_KEPT = 1_000
CROWDED_OUT = 1_000  # namespaces that are written because there is no room for them
ROUNDS = 1  # in which one search takes in IN_MEMORY entries from before there was search
QUERY = 10_000  # characters of a query that count
ANSWER_BYTES = 16 * 1024 * 1024  # of values, with which an answer ends before its limit


_HELD = f"SELECT {MESSAGE} FROM messages WHERE place = ?"
_WRITTEN = f"SELECT {MESSAGE} FROM messages WHERE place = (SELECT place FROM search_documents WHERE document = ?)"


class FullError(Exception):
    """There is so much to take in that some of it has to be written first."""

    def __init__(self, recent: Recent) -> None:
        super().__init__("write this first")
        self.recent = recent


class Searches:
    """What a store remembers for its searches."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._recent: OrderedDict[int, Recent] = OrderedDict()
        self._crowded_out: list[Recent] = []
        self.matrices = Matrices()

    def forget(self, recent: Recent | None = None) -> None:
        """Remember nothing more, of one namespace or of all."""
        with self._lock:
            if recent is None:
                self._recent.clear()
                self.matrices.forget()
            elif self._recent.get(recent.namespace) is recent:
                del self._recent[recent.namespace]

    def recent(self, sql: Sql, seen: Seen) -> Recent:
        """What is remembered of a namespace, if it fits this moment of the file; else a new one."""
        with self._lock:
            held = self._recent.get(seen.id)
            if held is not None and held.fits(seen):
                self._recent.move_to_end(seen.id)
                return held
        made = new_recent(sql, seen)
        with self._lock:
            other = self._recent.get(seen.id)
            # A reader of an older moment must not drive out what is known of a newer one.
            if other is None or other.state.version <= seen.version:
                self._recent[seen.id] = made
                self._recent.move_to_end(seen.id)
            self._make_room()
        return made

    def _make_room(self) -> None:
        size = sum(each.size for each in self._recent.values())
        while len(self._recent) > 1 and (size > KEPT or len(self._recent) > NAMESPACES_KEPT):
            _, oldest = self._recent.popitem(last=False)
            size -= oldest.size
            if oldest.size and len(self._crowded_out) < CROWDED_OUT:
                self._crowded_out.append(oldest)

    def full(self) -> list[Recent]:
        """Those with enough to be written, with more to take in, or for which there was no room."""
        with self._lock:
            full = [
                each for each in self._recent.values() if each.size >= WRITTEN_TOGETHER or each.counts.walk is not None
            ]
            full += self._crowded_out
            self._crowded_out = []
            return full


def new_recent(sql: Sql, seen: Seen) -> Recent:
    """What is to be known of a namespace's index, with nothing taken in."""
    state = index.read_state(sql, seen.id)
    made = Recent(seen, state)
    if state is not None and state.terms != words.VERSION:
        made.begin_anew()
    return made


# ── what a search sees ──────────────────────────────────────────────────────────────────────────────


class Part:
    """One of the namespaces that are searched."""

    __slots__ = ("conversation", "horizon", "over", "recent", "seen")

    def __init__(self, sql: Sql, recent: Recent, seen: Seen, op: Search) -> None:
        self.recent = recent
        self.seen = seen
        max_age = seen.policy.messages_max_age
        self.horizon = seen.now - round(max_age * MICROSECONDS) if max_age else None
        self.conversation: int | None = None
        if op.conversation is not None:
            self.conversation = (
                sql("SELECT id FROM conversations WHERE namespace = ? AND name = ?", (seen.id, op.conversation)).get
                or 0
            )
        expired = sql("SELECT key FROM items WHERE namespace = ? AND expires <= ?", (seen.id, seen.now)).fetchall()
        self.over = {recent.document_of_key(sql, key) for (key,) in expired} if expired else ()


class Scoped:
    """The index of one or several namespaces, for one question: see `botwire.search.Index`."""

    def __init__(self, sql: Sql, op: Search, parts: Sequence[Part], matrices: Matrices) -> None:
        self._sql = sql
        self._matrices = matrices
        self._op = op
        self._parts = parts
        self._passed: dict[int, bool] = {}
        self._found: dict[int, Item | Message | None] = {}
        self._names: dict[int, str] = {}  # of conversations
        self._owners: dict[int, Part] = {}  # of what ids begin with: a conversation, or a namespace's items
        self._by_value = bool(op.where or op.tags or op.author)
        self._by_row = op.since is not None or op.until is not None or any(part.horizon is not None for part in parts)
        kinds = op.kinds or ("item", "message")
        self._items = "item" in kinds and op.conversation is None
        self._messages = "message" in kinds
        self.filtered = (
            self._by_value or self._by_row or op.conversation is not None or not (self._items and self._messages)
        ) or any(part.over for part in parts)

    # ── what is counted ──

    def scope(self) -> Scope:
        """The counts of the scope."""
        counts = [part.recent.counts for part in self._parts]
        firsts = [each.first_at for each in counts if each.first_at]
        years = (_year(min(firsts)), _year(max(each.last_at for each in counts))) if firsts else None
        return Scope(
            sum(each.documents for each in counts),
            sum(each.words for each in counts),
            sum(each.items for each in counts),
            self._authors(),
            years,
            self.filtered,
        )

    def _authors(self) -> tuple[str, ...]:
        if len(self._parts) == 1:
            return self._parts[0].recent.authors()
        return tuple(dict.fromkeys(author for part in self._parts for author in part.recent.authors()))

    def frequencies(self, terms: Sequence[str]) -> Mapping[str, int]:
        """In how many documents each term is."""
        return {term: sum(part.recent.frequency(self._sql, term) for part in self._parts) for term in terms}

    # ── what is found ──

    def postings(self, terms: Sequence[str], *, items_only: bool = False) -> Mapping[str, Mapping[int, int]]:
        """The documents that hold each of the terms."""
        return {term: self._postings(term, items_only) for term in terms}

    def _postings(self, term: str, items_only: bool) -> Mapping[int, int]:
        found: dict[int, int] = {}
        for part in self._parts:
            each = part.recent.postings(self._sql, term)
            if items_only:
                each = {document: count for document, count in each.items() if document >= ITEM}
            if self.filtered:
                each = {document: count for document, count in each.items() if self._passes(part, document)}
            if len(self._parts) == 1:
                return each
            self._note(part, each)
            found.update(each)
        return found

    def _note(self, part: Part, documents: Iterable[int]) -> None:
        """Remember whose these documents are."""
        for document in documents:
            self._owners[document >> 32] = part

    def _by_part(self, documents: Collection[int]) -> Iterable[tuple[Part, Collection[int]]]:
        """The documents by whose they are. One that nobody has found belongs to nobody."""
        if len(self._parts) == 1:
            return [(self._parts[0], documents)]
        found: dict[int, tuple[Part, list[int]]] = {}
        for document in documents:
            if (part := self._owners.get(document >> 32)) is not None:
                found.setdefault(part.seen.id, (part, []))[1].append(document)
        return found.values()

    def _owner(self, document: int) -> Part | None:
        return self._parts[0] if len(self._parts) == 1 else self._owners.get(document >> 32)

    def counts(self, terms: Sequence[str], documents: Collection[int]) -> Mapping[str, Mapping[int, int]]:
        """The same, of these documents alone."""
        found: dict[str, dict[int, int]] = {term: {} for term in terms}
        for part, some in self._by_part(documents):
            for term in terms:
                found[term].update(part.recent.counts_in(self._sql, term, some))
        return found

    def rows(self, documents: Collection[int]) -> Mapping[int, Row]:
        """Those of the documents that are there, and pass the filters."""
        found: dict[int, Row] = {}
        for part, some in self._by_part(documents):
            rows = part.recent.rows(self._sql, some)
            if self.filtered:
                rows = {document: row for document, row in rows.items() if self._passes(part, document)}
            found = found | rows if found else rows
        return found

    def dated(self, first: int, last: int, limit: int) -> Collection[int]:
        """Messages said in a period."""
        found: list[int] = []
        for part in self._parts:
            for document in part.recent.dated(self._sql, first, last):
                if len(found) >= limit:
                    return found
                if not self.filtered or self._passes(part, document):
                    found.append(document)
                    self._note(part, (document,))
        return found

    def vocabulary(self, prefix: str, limit: int) -> Iterable[str]:
        """Terms of the scope that begin with the prefix, in order."""
        end = after_prefix(prefix)
        found: set[str] = set()
        for part in self._parts:
            found |= part.recent.vocabulary(self._sql, prefix, end, limit)
        return sorted(found)[:limit]

    def nearest(self, text: str, limit: int) -> Nearest | None:
        """The documents nearest to the question's vector, which came with it."""
        if self._op.vector is None or self._op.model is None:
            return None
        vector, model = self._op.vector, self._op.model
        for part in self._parts:
            embedding.check_model(self._sql, part.seen.id, part.seen.name, model, len(vector) // 4)
        found = [
            self._matrices.nearest(self._sql, part.seen.id, vector, limit, self._admitted(part)) for part in self._parts
        ]
        for part, (each, _) in zip(self._parts, found, strict=True):
            self._note(part, each.cosines if each is not None else ())
        return embedding.together(found, limit)

    def _admitted(self, part: Part) -> Callable[[int], bool] | None:
        """Which documents in the file may be found; `None`: all of them."""
        recent = part.recent
        if not recent.base:
            return lambda document: False
        if not self.filtered:
            return None if not recent.gone else lambda document: document not in recent.gone
        return lambda document: document not in recent.gone and self._passes(part, document)

    # ── filters ──

    def _passes(self, part: Part, document: int) -> bool:
        known = self._passed.get(document)
        if known is None:
            known = self._passed[document] = self._check(part, document)
        return known

    def _check(self, part: Part, document: int) -> bool:
        if document >= ITEM:
            if not self._items or document in part.over:
                return False
        elif not self._messages or (part.conversation is not None and document >> 32 != part.conversation):
            return False
        if self._by_row:
            row = part.recent.row(self._sql, document)
            if row is None or not self._in_time(part, row):
                return False
        return not self._by_value or self._value_passes(part, document)

    def _in_time(self, part: Part, row: Row) -> bool:
        at, op = row.at or 0, self._op
        if row.session is not None and part.horizon is not None and at < part.horizon:
            return False
        return (op.since is None or at >= op.since) and (op.until is None or at < op.until)

    def _value_passes(self, part: Part, document: int) -> bool:
        found, op = self.fetch(document, part), self._op
        if found is None or (op.where and not matches(found.value, op.where)):
            return False
        if op.tags and not (isinstance(found, Item) and set(op.tags) <= set(found.tags)):
            return False
        return op.author is None or found.author == op.author

    # ── the rows themselves ──

    def fetch(self, document: int, part: Part | None = None) -> Item | Message | None:
        """The item or message of a document, if it can still be read."""
        if document not in self._found:
            owner = part or self._owner(document)
            self._found[document] = None if owner is None else self._fetch(owner, document)
        return self._found[document]

    def _fetch(self, part: Part, document: int) -> Item | Message | None:
        if part.recent.row(self._sql, document) is None:
            return None
        held = part.recent.added.get(document)
        if document >= ITEM:
            key = held.key if held is not None else part.recent.where_is(self._sql, document)[1]
            row = self._sql(GET, (part.seen.id, key)).get
            return item_of(row, str(key), part.seen.now, part.seen.name)
        row = self._sql(_HELD, (held.place,)).get if held is not None else self._sql(_WRITTEN, (document,)).get
        return None if row is None else message_of(row, self._name(document >> 32), part.seen.name)

    def _name(self, conversation: int) -> str:
        if conversation not in self._names:
            self._names[conversation] = self._sql("SELECT name FROM conversations WHERE id = ?", (conversation,)).get
        return self._names[conversation]

    def around(self, document: int, count: int) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """The messages right before and after one."""
        message = self.fetch(document)
        assert isinstance(message, Message)  # nothing stands beside an item
        place = document >> 32 << 32 | message.version
        low, high = place_range(place >> 32)

        def read(condition: str, bound: int) -> list[Message]:
            rows = self._sql(
                f"SELECT {MESSAGE} FROM messages WHERE place BETWEEN ? AND ? AND {condition} LIMIT ?",
                (low, high, bound, count),
            ).fetchall()
            return [message_of(row, message.conversation, message.namespace) for row in rows]

        before = read("place < ? ORDER BY place DESC", place)
        return tuple(reversed(before)), tuple(read("place > ? ORDER BY place", place))


def _year(at: int) -> int:
    return datetime.fromtimestamp(at // MICROSECONDS, UTC).year


# ── the op ──────────────────────────────────────────────────────────────────────────────────────────


_SEEN = (
    "SELECT n.id, n.name, n.version, n.feed_floor, n.loading, n.items + n.messages, n.policy, s.generation, e.model, "
    "(SELECT policy FROM store) FROM namespaces n LEFT JOIN search_namespaces s ON s.namespace = n.id "
    "LEFT JOIN search_embedders e ON e.namespace = n.id WHERE "
)


def seen_below(sql: Sql, now: int, namespace: str, *, subtree: bool) -> list[Seen]:
    """The namespaces of a scope."""
    condition, bindings = scope(namespace, subtree=subtree)
    return _seen(sql, now, f"{condition} ORDER BY n.name", bindings)


def _seen(sql: Sql, now: int, condition: str, bindings: Sequence[Any]) -> list[Seen]:
    rows = sql(_SEEN + condition, bindings).fetchall()
    return [
        Seen(number, name, version, floor, entries, _policy(own, stored), made, model, now)
        for number, name, version, floor, loading, entries, own, made, model, stored in rows
        if not loading  # an import is under way: it is whole, or it is not there
    ]


@lru_cache(maxsize=1_024)
def _policy(own: bytes | None, stored: bytes | None) -> Policy:
    """What holds in a namespace."""
    return read_policy(own).over(read_policy(stored).over(DEFAULTS))


def find(sql: Sql, now: int, op: Search, searches: Searches, *, writable: bool = False, rounds: int = 0) -> HitPage:
    """Hits, best first.

    `writable`: raise `FullError` when there is too much to take in; `rounds`: how often it may do so for what was there
    before there was search.
    """
    if op.where is not None:
        check_where(op.where)
    seen = seen_below(sql, now, op.namespace, subtree=op.subtree)
    with ExitStack() as locks:
        recents: list[Recent] = []
        unindexed = 0
        for each in seen:
            recent = searches.recent(sql, each)
            locks.enter_context(recent.lock)
            if not recent.fits(each):  # another thread has seen more than we have
                recent = new_recent(sql, each)
            take_in_safely(sql, searches, recent, each, IN_MEMORY)
            if writable and not recent.is_done(each) and (rounds or not recent.may_wait(each)):
                raise FullError(recent)
            while not recent.may_wait(each):  # nothing can be written: keep it in memory
                take_in_safely(sql, searches, recent, each, IN_MEMORY + recent.size)
            unindexed += 0 if recent.is_done(each) else max(1, each.entries - recent.counts.documents)
            recents.append(recent)
        parts = [Part(sql, recent, each, op) for recent, each in zip(recents, seen, strict=True)]
        return HitPage(_hits(Scoped(sql, op, parts, searches.matrices), op), unindexed)


def take_in_safely(sql: Sql, searches: Searches, recent: Recent, seen: Seen, limit: int) -> None:
    """Take in what has changed. What was cut off in the midst of it is not remembered."""
    try:
        recent.take_in(sql, seen, limit)
    except BaseException:
        searches.forget(recent)
        raise


def _hits(scoped: Scoped, op: Search) -> list[Hit]:
    """The hits whose rows can still be read."""
    wanted = op.limit
    while wanted:
        ranked = ranking.find(op.query[:QUERY], scoped, wanted)
        hits: list[Hit] = []
        size = 0
        for each in ranked:
            if (hit := _hit(scoped, op, each)) is not None:
                hits.append(hit)
                size += _bytes(hit)
            if len(hits) == op.limit or size >= ANSWER_BYTES:
                return hits
        if len(ranked) < wanted:
            return hits
        wanted *= 2
    return []


def _bytes(hit: Hit) -> int:
    """How many bytes of values a hit holds."""
    return sum(memoryview(each.raw).nbytes for each in (hit.found, *hit.before, *hit.after))


def _hit(scoped: Scoped, op: Search, ranked: ranking.Hit) -> Hit | None:
    found = scoped.fetch(ranked.id)
    if found is None:
        return None
    parts = dict(ranked.parts()) if op.explain else None
    if isinstance(found, Item):
        return Hit(ranked.score, found, None, ranked.terms, parts=parts)
    before, after = scoped.around(ranked.id, op.around) if op.around else ((), ())
    return Hit(ranked.score, None, found, ranked.terms, before, after, parts)


def write(sql: Sql, now: int, recent: Recent) -> bool:
    """Write what a search has taken in. False: the file has changed under it, and it is of no use any more."""
    with recent.lock:
        seen = _seen(sql, now, "n.id = ?", (recent.namespace,))
        if not seen or not recent.fits(seen[0]):
            return False
        snapshot = recent.snapshot()
    snapshot.write(sql)
    return True


def unembedded(sql: Sql, now: int, op: Unembedded, searches: Searches) -> Texts:
    """What an embedder has still to be given in a scope."""
    seen = seen_below(sql, now, op.namespace, subtree=op.subtree)
    found: list[Text] = []
    left = unindexed = 0
    for each in seen:
        known = embedding.check_model(sql, each.id, each.name, op.model)
        left += embedding.count_unembedded(sql, each.id)
        if len(found) < op.limit:
            found += embedding.unembedded(sql, each.id, op.limit - len(found))
        unindexed += not (known and each.generation is not None and new_recent(sql, each).is_up_to_date(sql, each))
    return Texts(found, _for_embedder(sql, now, op, searches), left, unindexed)


def _for_embedder(sql: Sql, now: int, op: Unembedded, searches: Searches) -> str:
    """The query as an embedder takes it, which depends on who speaks in the scope."""
    asked = Search(op.namespace, op.query[:QUERY], subtree=op.subtree)
    with ExitStack() as locks:
        parts: list[Part] = []
        for each in seen_below(sql, now, op.namespace, subtree=op.subtree):
            recent = searches.recent(sql, each)
            locks.enter_context(recent.lock)
            parts.append(Part(sql, recent, each, asked))
        return ranking.for_embedder(asked.query, Scoped(sql, asked, parts, searches.matrices))


def embed(sql: Sql, now: int, op: Embed) -> Embedded:
    """Store vectors."""
    seen = seen_below(sql, now, op.namespace, subtree=op.subtree)
    return embedding.embed(sql, op, {each.id: each.name for each in seen})


def take_in(sql: Sql, now: int, op: Index) -> Indexed:
    """Write what is not in the index yet."""
    done = left = 0
    for seen in seen_below(sql, now, op.namespace, subtree=op.subtree):
        if op.afresh:
            index.drop(sql, seen.id, vectors=False)
        recent = Recent(seen, None) if op.afresh else new_recent(sql, seen)
        if done < op.limit:
            recent.take_in(sql, seen, op.limit - done)
            done += recent.size
            recent.snapshot().write(sql)
        if op.model is not None and not embedding.check_model(sql, seen.id, seen.name, op.model):
            embedding.note_model(sql, seen.id, op.model)
        if not recent.is_done(seen):
            left += max(1, seen.entries - recent.counts.documents)
    return Indexed(done, left)


def search(sql: Sql, now: int, op: Search | Unembedded) -> HitPage | Texts:
    """A search that remembers nothing: in the midst of a write, what it sees may never be committed."""
    return find(sql, now, op, Searches()) if isinstance(op, Search) else unembedded(sql, now, op, Searches())


__all__ = ["ROUNDS", "FullError", "Searches", "embed", "find", "search", "take_in", "unembedded", "write"]
