"""What a namespace's search index in the file does not know yet, kept in memory.

Nothing is indexed when it is written. A search first takes in what has changed since the last one, from the feed and
the rows themselves; when some hundred documents have gathered here, they go into the file together.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from copy import deepcopy
from typing import Any, NamedTuple

import msgspec

from botwire import revisions
from botwire.ops import MICROSECONDS, Fields, Policy
from botwire.sealing import MARK
from botwire.search import Row, documents, texts, words
from botwire.values import decode

from . import index, indexing, postings
from .embedding import digest_of
from .index import ITEM, Counts, State, Talk, Walk
from .indexing import Added, Block
from .ledger import APPENDED, CLEARED, EDITED, ON_CONVERSATION, TOUCHED, TRIMMED
from .postings import Sql
from .reads import place_range

LATER = 1 << 31  # positions of what is said in a conversation whose beginning is not taken in yet
BLOCKS = 4_096  # kept in memory, of all namespaces together some more

_ENCRYPTED = (MARK, MARK.decode())  # text, if somebody else has written the row
_MESSAGES = "SELECT place, created, role, author, value, unsearched FROM messages WHERE "
_CHANGES = (
    "SELECT version, kind, name FROM (SELECT c.version, c.kind, c.name FROM changes_of_namespace f "
    "JOIN changes c ON c.sequence = f.sequence WHERE f.namespace = ?1 AND f.version > ?2 ORDER BY f.version LIMIT ?3)"
)
_CHANGES_END = (  # what changes_of_namespace does not know yet
    "SELECT version, kind, name FROM changes WHERE sequence > (SELECT indexed FROM store) AND namespace = ? "
    "AND version > ? ORDER BY sequence LIMIT ?"
)
_PENDING = (  # a clearing of everything first
    "SELECT last, first, kind, nullif(name, '') FROM search_pending WHERE namespace = ? ORDER BY name"
)

Change = tuple[int, int, str | None]


class Seen(msgspec.Struct):
    """A namespace as a search sees it."""

    id: int
    name: str
    version: int
    feed_floor: int
    entries: int
    """How many items and messages it holds."""
    policy: Policy
    generation: int | None
    """Of its index in the file, if there is one."""
    model: str | None
    """Of its embedder, if it has one."""
    now: int

    @property
    def rules(self) -> tuple[bool | None, float | None]:
        """What of the policy decides what is in the index."""
        return self.policy.index, self.policy.messages_max_age


def new_state(version: int, *, before: bool = False) -> State:
    """The state of an index that has taken in nothing yet."""
    return State(version, 0, words.VERSION, Counts(walk=Walk(version, before=before)))


def _counted(terms: list[str]) -> dict[str, int]:
    """How often each term is there; 255 times is as often as it gets."""
    counts = Counter(terms)
    return counts if len(terms) <= 255 else {term: min(count, 255) for term, count in counts.items()}


class Recent:
    """A namespace's index: what lies in the file, and what is here because it does not yet."""

    def __init__(self, seen: Seen, state: State | None) -> None:
        self.lock = threading.Lock()
        self.namespace = seen.id
        self.name = seen.name
        self.rules = seen.rules  # by which it takes in
        self.written = state  # as it is in the file
        self.state = deepcopy(state) or new_state(seen.version)
        self.added: dict[int, Added] = {}
        self.gone: dict[int, set[str]] = {}  # documents in the file that hold no longer, and their terms
        self.wiped = False  # … and all that is in the file does not
        self.behind = state is not None  # what the feed has let go of is still to be taken in
        self._keys: dict[str, int] = {}
        self._places: dict[int, int] = {}
        self._talks: dict[str, Talk | None] = {}
        self._rows: dict[int, Row | None] = {}  # every row that was asked for; `None`: it is not there
        self._blocks: dict[int, Block | None] = {}
        self._authors: tuple[str, ...] = ()
        self._present: tuple[str, ...] | None = None

    @property
    def counts(self) -> Counts:
        """What the index counts."""
        return self.state.counts

    @property
    def size(self) -> int:
        """How much is to be written."""
        return len(self.added) + len(self.gone)

    @property
    def base(self) -> bool:
        """Whether something in the file counts."""
        return self.written is not None and not self.wiped

    # ── taking in ──

    def is_up_to_date(self, sql: Sql, seen: Seen) -> bool:
        """Whether the file itself has everything."""
        pending = sql("SELECT EXISTS (SELECT 1 FROM search_pending WHERE namespace = ?)", (self.namespace,)).get
        return self.base and not pending and self.state.version >= seen.version and self.counts.walk is None

    def may_wait(self, view: Seen) -> bool:
        """Whether what is not taken in yet is only what was there before there was search."""
        walk = self.counts.walk
        return not self.behind and self.state.version >= view.version and (walk is None or walk.before)

    def is_done(self, view: Seen) -> bool:
        """Whether everything is taken in."""
        return not self.behind and self.state.version >= view.version and self.counts.walk is None

    def take_in(self, sql: Sql, view: Seen, limit: int) -> None:
        """Take in what has changed, until some `limit` documents wait to be written."""
        if self.behind or self.state.version < view.feed_floor:
            self.behind = False
            pending = sql(_PENDING, (self.namespace,)).fetchall()
            self._take_in_changes(sql, view, [row[1:] for row in pending], max((row[0] for row in pending), default=0))
        if self.state.version < view.version:
            changes = self._changes(sql, limit)
            until = changes[-1][0] if len(changes) == limit else view.version
            self._take_in_changes(sql, view, changes, until)
            self.state.version = until
        if self.state.version >= view.version and self.counts.walk is not None:
            self._walk_on(sql, view, limit)
        if view.policy.messages_max_age:
            self._let_go_of_old(sql, view)

    def reaches(self, view: Seen) -> bool:
        """Whether the feed, or what is kept of it, tells all that has changed."""
        return self.written is not None or self.state.version >= view.feed_floor

    def begin_anew(self) -> None:
        """What is in the file is of no use: take everything in. Changes since then come first, as ever."""
        self._wipe()
        self.state = new_state(self.state.version, before=True)

    def _changes(self, sql: Sql, limit: int) -> list[Change]:
        since = self.state.version
        changes: list[Change] = sql(_CHANGES, (self.namespace, since, limit)).fetchall()
        if len(changes) < limit:
            changes += sql(_CHANGES_END, (self.namespace, since, limit - len(changes))).fetchall()
        return changes

    def _take_in_changes(self, sql: Sql, view: Seen, changes: list[Change], until: int) -> None:
        keys: set[str] = set()
        talks: dict[str, dict[int, int]] = {}
        for version, kind, name in changes:
            if kind == CLEARED and name is None:
                keys.clear()
                talks.clear()
                self._wipe()
            elif name is None or (kind == TOUCHED and self.document_of_key(sql, name) is not None):
                continue  # a touch changes no text; but it hides an item from the walk, for it gives it a new version
            elif kind in ON_CONVERSATION or kind == CLEARED:
                first = talks.setdefault(name, {})
                first[kind] = min(first.get(kind, version), version)
            else:
                keys.add(name)
        for key in keys:
            self._take_in_item(sql, view, key)
        for name, first in talks.items():
            self._take_in_talk(sql, view, name, first, until)

    def _wipe(self) -> None:
        """Everything was deleted."""
        numbers = self.counts.numbers
        self.wiped = True
        for held in (self.added, self.gone, self._keys, self._places, self._talks, self._rows, self._blocks):
            held.clear()
        self.state.counts = Counts(numbers=numbers)
        self._present = None

    # ── items ──

    def _take_in_item(self, sql: Sql, view: Seen, key: str) -> None:
        self._remove(sql, self.document_of_key(sql, key))
        row = sql(
            "SELECT value, updated, meta FROM items WHERE namespace = ? AND key = ? AND value IS NOT NULL",
            (self.namespace, key),
        ).get
        if row is not None:
            self._add_item(view, key, *row)

    def _add_item(self, view: Seen, key: str, value: bytes, updated: int, meta: bytes | None) -> None:
        fields: Fields = revisions.read_meta(meta).index if meta is not None else None
        if not (view.policy.index if fields is None else fields) or value[: len(MARK)] in _ENCRYPTED:
            return
        text = texts.of_item(decode(value), fields)
        found = documents.item(key, text)
        self.counts.numbers += 1
        row = Row(
            index.item_range(self.namespace)[0] + self.counts.numbers, found.words, None, None, updated, found.flags
        )
        self._keys[key] = row.id
        self._add(Added(row, _counted(found.terms), None, key, self._digest(view, text)))

    def document_of_key(self, sql: Sql, key: str) -> int | None:
        """The document of an item."""
        return self._keys.get(key) or (index.document_of_key(sql, self.namespace, key) if self.base else None)

    # ── messages ──

    def _take_in_talk(self, sql: Sql, view: Seen, name: str, first: dict[int, int], until: int) -> None:
        conversation = sql("SELECT id FROM conversations WHERE namespace = ? AND name = ?", (self.namespace, name)).get
        talk = self._talk(sql, name)
        if talk is not None and talk.conversation != conversation:  # it was cleared, and perhaps begun anew
            self._remove_all(sql, self._documents_between(sql, *place_range(talk.conversation)))
            self._talks[name] = talk = None
        if conversation is None:
            return
        low, high = place_range(conversation)
        if TRIMMED in first or (APPENDED in first and view.policy.messages):
            self._remove_missing(sql, low, high)
        if EDITED in first:
            rows = sql(
                _MESSAGES + "place BETWEEN ? AND ? AND edited IS NOT NULL ORDER BY place", (low, high)
            ).fetchall()
            self._replace_messages(sql, view, rows)
        if APPENDED in first:
            rows = sql(
                _MESSAGES + "place BETWEEN ? AND ? ORDER BY place", (low + first[APPENDED], low + until)
            ).fetchall()
            talk = talk or Talk(conversation, LATER if self._walk_will_come(name) else 0)
            self._append(sql, view, name, talk, rows)

    def _walk_will_come(self, name: str) -> bool:
        """Whether messages from before the index may yet be taken in here."""
        walk = self.counts.walk
        return walk is not None and (walk.key is not None or name >= walk.talk)

    def _append(self, sql: Sql, view: Seen, name: str, talk: Talk, rows: Iterable[tuple[Any, ...]]) -> None:
        written = self.written.version if self.written is not None and self.base else 0
        for row in rows:
            place = row[0]
            if place not in self._places and (
                place & 0xFFFF_FFFF > written or index.document_of_place(sql, place) is None
            ):
                self._add_message(view, talk, row)
        self._talks[name] = talk

    def _add_message(self, view: Seen, talk: Talk, row: tuple[Any, ...]) -> None:
        """Put a message behind the last one of its conversation."""
        place, said = row[0], row[1]
        session = documents.session_after(talk.session, talk.at, said) if talk.at else talk.session
        talk.position, talk.session, talk.at = talk.position + 1, session, said
        self._put_message(view, talk.conversation << 32 | talk.position, session, place, row)

    def _put_message(self, view: Seen, document: int, session: int, place: int, row: tuple[Any, ...]) -> None:
        _, said, role, author, value, unsearched = row
        if unsearched or not view.policy.index or value[: len(MARK)] in _ENCRYPTED:
            return
        text = texts.of_message(decode(value))
        found = documents.message(text)
        who = self._known(author or role)
        around = document >> 32 << 32 | session
        self._places[place] = document
        row = Row(document, found.words, around, who, said, found.flags)
        self._add(Added(row, _counted(found.terms), place, None, self._digest(view, text)))

    def _digest(self, view: Seen, text: str) -> int | None:
        """What a text's vector goes by: it may have one from before."""
        return None if view.model is None else digest_of(documents.to_embed(text))

    def _known(self, author: str | None) -> str | None:
        """An author who can still be told from the others."""
        authors = self.counts.authors
        return author if author in authors or len(authors) < indexing.MAX_AUTHORS else None

    def _replace_messages(self, sql: Sql, view: Seen, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            document = self._document_of_place(sql, row[0])
            if document is None:
                continue  # not searched, or still to be taken in
            before = self.row(sql, document)
            self._remove(sql, document)
            if before is not None:
                self._put_message(view, document, (before.session or 0) & 0xFFFF_FFFF, row[0], row)

    def _document_of_place(self, sql: Sql, place: int) -> int | None:
        return self._places.get(place) or (index.document_of_place(sql, place) if self.base else None)

    def _talk(self, sql: Sql, name: str) -> Talk | None:
        if name not in self._talks and self.base:
            row = sql(
                "SELECT conversation, position, session, at FROM search_conversations WHERE namespace = ? AND name = ?",
                (self.namespace, name),
            ).get
            self._talks[name] = None if row is None else Talk(*row)
        return self._talks.get(name)

    def _documents_between(self, sql: Sql, low: int, high: int) -> list[int]:
        """The documents of the messages at these places."""
        found = [document for place, document in self._places.items() if low <= place <= high]
        if self.base:
            rows = sql("SELECT document FROM search_documents WHERE place BETWEEN ? AND ?", (low, high)).fetchall()
            found += [document for (document,) in rows]
        return found

    def _remove_missing(self, sql: Sql, low: int, high: int) -> None:
        """Take out the messages of a conversation that are no longer there."""
        places = {place for (place,) in sql("SELECT place FROM messages WHERE place BETWEEN ? AND ?", (low, high))}
        gone = [document for place, document in self._places.items() if low <= place <= high and place not in places]
        if self.base:
            rows = sql(
                "SELECT document FROM search_documents d WHERE place BETWEEN ? AND ? "
                "AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.place = d.place)",
                (low, high),
            ).fetchall()
            gone += [document for (document,) in rows if document not in self.gone]
        self._remove_all(sql, gone)

    def _let_go_of_old(self, sql: Sql, view: Seen) -> None:
        """Take out the messages that are over their age: nobody can read them."""
        horizon = view.now - round((view.policy.messages_max_age or 0) * MICROSECONDS)
        old = [each.row.id for each in self.added.values() if each.place is not None and (each.row.at or 0) < horizon]
        if self.base:
            blocks = sql(
                "SELECT block FROM search_blocks WHERE namespace = ? AND block < ? AND first_at < ?",
                (self.namespace, ITEM >> 8, horizon),
            ).fetchall()
            for (number,) in blocks:
                block = self._block(sql, number)
                rows = block.rows(number, ()) if block else ()
                old += [row.id for row in rows if (row.at or 0) < horizon and row.id not in self.gone]
        self._remove_all(sql, old)

    # ── what was there before ──

    def _walk_on(self, sql: Sql, view: Seen, limit: int) -> None:
        """Take in some of what was there before there was an index."""
        walk = self.counts.walk
        while walk is not None and self.size < limit:
            if walk.key is not None:
                self._walk_items(sql, view, walk, limit - self.size)
            elif not self._walk_messages(sql, view, walk, limit - self.size):
                walk = self.counts.walk = None

    def _walk_items(self, sql: Sql, view: Seen, walk: Walk, limit: int) -> None:
        rows = sql(
            "SELECT key, value, updated, meta, version FROM items WHERE namespace = ? AND key > ? "
            "AND value IS NOT NULL ORDER BY key LIMIT ?",
            (self.namespace, walk.key, limit),
        ).fetchall()
        for key, value, updated, meta, version in rows:
            if version <= walk.version and self.document_of_key(sql, key) is None:
                self._add_item(view, key, value, updated, meta)
        walk.key = rows[-1][0] if len(rows) == limit else None

    def _walk_messages(self, sql: Sql, view: Seen, walk: Walk, limit: int) -> bool:
        """Take in messages of the conversation in which the walk stands, or of the next. False: there is none."""
        low, high = place_range(walk.conversation)
        rows = sql(
            _MESSAGES + "place > ? AND place <= ? ORDER BY place LIMIT ?",
            (max(low - 1, walk.place), min(high, low + walk.version), limit),
        ).fetchall()
        talk = Talk(walk.conversation, walk.position, walk.session, walk.at)
        for row in rows:
            self._add_message(view, talk, row)
        walk.position, walk.session, walk.at = talk.position, talk.session, talk.at
        if len(rows) == limit:
            walk.place = rows[-1][0]
            return True
        return self._next_conversation(sql, walk, talk)

    def _next_conversation(self, sql: Sql, walk: Walk, talk: Talk) -> bool:
        held = self._talk(sql, walk.talk)
        if held is not None and held.conversation == walk.conversation and held.position == LATER:
            self._talks[walk.talk] = talk  # nothing was said since the walk began
        found = sql(
            "SELECT id, name FROM conversations WHERE namespace = ? AND name > ? ORDER BY name LIMIT 1",
            (self.namespace, walk.talk),
        ).get
        if found is None:
            return False
        walk.conversation, walk.talk = found
        walk.place = walk.position = walk.session = walk.at = 0
        if self._talk(sql, walk.talk) is None:
            self._talks[walk.talk] = Talk(walk.conversation, LATER)
        return True

    # ── documents ──

    def _add(self, document: Added) -> None:
        self.added[document.row.id] = document
        self._rows[document.row.id] = document.row
        self._present = None
        indexing.count(self.counts, document.row)

    def _remove_all(self, sql: Sql, found: Iterable[int]) -> None:
        for document in found:
            self._remove(sql, document)

    def _remove(self, sql: Sql, document: int | None) -> None:
        if document is None:
            return
        before = self.row(sql, document)
        self._rows[document] = None
        self._present = None
        if (held := self.added.pop(document, None)) is not None:
            indexing.uncount(self.counts, held.row)
            self._keys.pop(held.key or "", None)
            self._places.pop(held.place or 0, None)
        elif document not in self.gone:
            if before is not None:
                indexing.uncount(self.counts, before)
            self.gone[document] = set(index.terms_of(sql, document))

    # ── reading ──

    def row(self, sql: Sql, document: int) -> Row | None:
        """A document without its text."""
        if document in self._rows:
            return self._rows[document]
        if (held := self.added.get(document)) is not None:
            found: Row | None = held.row
        elif document in self.gone or not self.base:
            found = None
        else:
            block = self._block(sql, document >> 8)
            found = None if block is None else block.row(document, self._author_names())
        self._rows[document] = found
        return found

    def rows(self, sql: Sql, documents: Iterable[int]) -> dict[int, Row]:
        """Those of the documents that are there, without their texts."""
        known = self._rows
        return {
            document: row
            for document in documents
            if (row := known[document] if document in known else self.row(sql, document)) is not None
        }

    def _block(self, sql: Sql, number: int) -> Block | None:
        if number not in self._blocks:
            if len(self._blocks) >= BLOCKS:
                self._blocks.clear()
                self._rows = {document: held.row for document, held in self.added.items()}
            self._blocks[number] = indexing.read_block(sql, self.namespace, number)
        return self._blocks[number]

    def authors(self) -> tuple[str, ...]:
        """Who has written messages; the same tuple as long as nobody comes or goes."""
        if self._present is None:
            self._present = tuple(name for name, count in self.counts.authors.items() if count > 0)
        return self._present

    def _author_names(self) -> tuple[str, ...]:
        """Every author there was, in the order of their numbers."""
        if len(self._authors) != len(self.counts.authors):
            self._authors = tuple(self.counts.authors)
        return self._authors

    def postings(self, sql: Sql, term: str) -> dict[int, int]:
        """The documents that hold a term, and how often."""
        found = postings.postings(sql, self.namespace, term) if self.base else {}
        for document in self.gone:
            found.pop(document, None)
        return self._with_added(term, found)

    def _with_added(self, term: str, found: dict[int, int]) -> dict[int, int]:
        for document, held in self.added.items():
            if count := held.terms.get(term):
                found[document] = count
        return found

    def frequency(self, sql: Sql, term: str) -> int:
        """In how many documents a term is."""
        found = postings.frequency(sql, self.namespace, term) if self.base else 0
        found -= sum(term in terms for terms in self.gone.values())
        return found + sum(term in held.terms for held in self.added.values())

    def counts_in(self, sql: Sql, term: str, among: Collection[int]) -> dict[int, int]:
        """Of these documents those that hold a term, and how often."""
        written = [document for document in among if document not in self.added and document not in self.gone]
        found = postings.counts_in(sql, self.namespace, term, written) if self.base else {}
        for document in among:
            held = self.added.get(document)
            if held is not None and (count := held.terms.get(term)):
                found[document] = count
        return found

    def vocabulary(self, sql: Sql, first: str, end: str | None, limit: int) -> set[str]:
        """Terms in use, from `first` until before `end`."""
        found = set(postings.vocabulary(sql, self.namespace, first, end, limit)) if self.base else set()
        for held in self.added.values():
            found.update(term for term in held.terms if term >= first and (end is None or term < end))
        return found

    def dated(self, sql: Sql, first: int, end: int) -> list[int]:
        """The messages said from `first` until before `end`."""
        found = [
            each.row.id for each in self.added.values() if each.place is not None and first <= (each.row.at or 0) < end
        ]
        if self.base:
            blocks = sql(
                "SELECT block FROM search_blocks WHERE namespace = ? AND block < ? AND first_at < ? AND last_at >= ?",
                (self.namespace, ITEM >> 8, end, first),
            ).fetchall()
            for (number,) in blocks:
                block = self._block(sql, number)
                rows = block.rows(number, ()) if block else ()
                found += [
                    row.id
                    for row in rows
                    if first <= (row.at or 0) < end and row.id not in self.gone and row.id not in self.added
                ]
        return found

    def where_is(self, sql: Sql, document: int) -> tuple[int | None, str | None]:
        """The place of a message, or the key of an item."""
        if (held := self.added.get(document)) is not None:
            return held.place, held.key
        row: tuple[int | None, str | None] = sql(
            "SELECT place, key FROM search_documents WHERE document = ?", (document,)
        ).get or (None, None)
        return row

    # ── writing ──

    def fits(self, seen: Seen) -> bool:
        """Whether this is of that moment of the file, or of one before it that the changes lead on from."""
        generation = self.written.generation if self.written is not None else None
        same = generation == seen.generation and self.rules == seen.rules
        return same and self.state.version <= seen.version and self.reaches(seen)

    def snapshot(self) -> Snapshot:
        """What is to be written, as it is now: searches go on while it is."""
        begun_anew = self.wiped or (self.written is not None and self.written.counts.walk is not None)
        return Snapshot(
            self.namespace,
            deepcopy(self.state),
            list(self.added.values()),
            list(self.gone),
            deepcopy(self._talks),
            self.wiped,
            begun_anew and self.counts.walk is None,
        )


class Snapshot(NamedTuple):
    """What goes into the file. It must fit the file as it is."""

    namespace: int
    state: State
    added: list[Added]
    gone: list[int]
    talks: dict[str, Talk | None]
    wiped: bool
    made_anew: bool

    def write(self, sql: Sql) -> None:
        """Write it."""
        if self.wiped:
            index.drop(sql, self.namespace, vectors=False)
        self.state.generation = index.new_generation()
        indexing.write(sql, self.namespace, self.state, self.added, self.gone)
        for name, talk in self.talks.items():
            if talk is None:
                sql("DELETE FROM search_conversations WHERE namespace = ? AND name = ?", (self.namespace, name))
            else:
                sql(
                    "INSERT OR REPLACE INTO search_conversations VALUES (?, ?, ?, ?, ?, ?)",
                    (self.namespace, name, talk.conversation, talk.position, talk.session, talk.at),
                )
        sql("DELETE FROM search_pending WHERE namespace = ? AND last <= ?", (self.namespace, self.state.version))
        if self.made_anew:
            sql(
                "DELETE FROM search_vectors WHERE namespace = ?1 AND digest NOT IN "
                "(SELECT digest FROM search_documents WHERE namespace = ?1 AND digest IS NOT NULL)",
                (self.namespace,),
            )
