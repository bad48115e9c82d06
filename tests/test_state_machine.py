"""A memory against a model of it: plain dicts and lists, a clock that is moved by hand, a real file.

The model knows nothing of our code. Versions it does not guess: it reads them from the feed, and holds the feed to
account, entry by entry, for what was done.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests import http_stores
from tests.stores import STORES, Clock

from botwire import BotWireError, Conflict, CursorExpired, HistoryExpired, Memory
from botwire.ops import Index
from botwire.stores.base import Store
from botwire.stores.http import HTTPStore
from botwire.stores.sqlite import SQLiteStore, checking

HISTORY = 3  # past values kept
MAX_AGE = 1_000  # seconds
GONE = object()  # what a deleted key holds

KEYS = st.sampled_from(["a", "b", "ключ/🙂"])
TALKS = st.sampled_from(["t", "t/2"])
VALUES = st.one_of(
    st.none(),
    st.integers(0, 5),
    st.floats(0, 2),
    st.text(max_size=3),
    st.builds(lambda size: "x" * size, st.sampled_from([100, 1_500, 4_000])),
    st.dictionaries(st.sampled_from("zab"), st.integers(0, 3), max_size=3),
)
TTLS = st.sampled_from([None, None, None, 1, 50, 5_000])
SECONDS = st.sampled_from([0.000001, 1, 49, 60, 500, 1_000, 1_001, 4_000])


@dataclass
class Was:
    """What a key was: a revision."""

    version: int
    at: int
    value: Any
    expires: int | None = None
    origin: int = 0  # the version that it repeats, if an undo made it
    since: int = 0  # the version in which it came to be, if a touch has given it a newer one

    def live(self, now: int) -> bool:
        return self.value is not GONE and (self.expires is None or self.expires > now)


@dataclass
class Talk:
    """A conversation: its messages as (version, id, value), and the version of the last append."""

    messages: list[tuple[int, str, Any]] = field(default_factory=list)


@dataclass
class Model:
    """A namespace."""

    items: dict[str, list[Was]] = field(default_factory=dict)  # newest first
    cut: set[str] = field(default_factory=set)  # keys whose older past was let go of
    talks: dict[str, Talk] = field(default_factory=dict)
    version: int = 0
    forgot: bool = False  # whether deletions may have been forgotten

    def current(self, key: str, now: int) -> Was | None:
        revisions = self.items.get(key)
        return revisions[0] if revisions and revisions[0].live(now) else None

    def push(self, key: str, was: Was) -> None:
        revisions = self.items.setdefault(key, [])
        if revisions and revisions[0].since:
            revisions[0] = replace(revisions[0], version=revisions[0].since, since=0)
        revisions.insert(0, was)
        if was.value is not GONE and len(revisions) > HISTORY + 1:
            del revisions[HISTORY + 1 :]
            self.cut.add(key)

    def readable(self, key: str, now: int) -> list[Was]:
        """The revisions within the retention, expired ones included."""
        revisions = self.items.get(key, [])
        kept = revisions[:1]
        for older in revisions[1 : HISTORY + 1]:
            if kept[-1].at < now - MAX_AGE * 1_000_000:
                break
            kept.append(older)
        return kept

    def keys(self, now: int) -> list[str]:
        return sorted(key for key in self.items if self.current(key, now))


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and left == right and (not isinstance(left, dict) or list(left) == list(right))


class MemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="botwire-model-"))
        self.clock = Clock()
        self.model = Model()
        self.open()

    @property
    def now(self) -> int:
        return self.clock.now

    def open(self) -> None:
        self.store = self.made(self.folder / "memory.db", self.clock)
        self.memory = Memory("model", store=self.store)

    def made(self, path: Path, clock: Clock) -> Store:
        return STORES["file"](path, clock)

    @initialize()
    def configured(self) -> None:
        self.memory.configure(history=HISTORY, max_age=MAX_AGE)
        self.cursor = self.memory.cursor()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    # ── the feed: what really happened ──

    def swept_then(self, *expected: tuple[str, str | None]) -> list[int]:
        """Take in what the last write did: perhaps some sweeping, then just what was expected. Returns its versions."""
        changes = self.memory.changes(self.cursor, limit=1_000)
        self.cursor = self.memory.cursor()
        assert [change.version for change in changes] == list(
            range(self.model.version + 1, self.model.version + 1 + len(changes))
        )
        done = len(changes) - len(expected)
        assert done >= 0, f"expected {expected}, the feed says {changes}"
        for change in changes[:done]:
            assert change.kind == "expired", f"expected {expected}, the feed says {changes}"
            assert change.key is not None
            current = self.model.items[change.key][0]
            assert current.value is not GONE
            assert not current.live(self.now), f"{change.key} was swept before its time"
            self.model.push(change.key, Was(change.version, self.now, GONE))
        assert [(change.kind, change.key or change.conversation) for change in changes[done:]] == list(expected)
        assert all(change.at == self.moment() for change in changes)
        self.model.version += len(changes)
        return [change.version for change in changes[done:]]

    def moment(self, now: int | None = None) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.now if now is None else now)

    def expiry(self, ttl: float | None) -> int | None:
        return None if ttl is None else self.now + round(ttl * 1_000_000)

    # ── items ──

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: str, value: Any, ttl: float | None) -> None:
        item = self.memory.set(key, value, ttl=ttl)
        [version] = self.swept_then(("set", key))
        assert item.version == version
        self.model.push(key, Was(version, self.now, value, self.expiry(ttl)))

    @rule(key=KEYS, value=VALUES, offset=st.sampled_from([0, 0, 0, 1, -1]), absent=st.booleans())
    def compare_and_set(self, key: str, value: Any, offset: int, absent: bool) -> None:
        current = self.model.current(key, self.now)
        held = current.version if current else 0
        wanted = 0 if absent else max(0, held + offset)
        if wanted != held:
            with pytest.raises(Conflict) as raised:
                self.memory.set(key, value, if_version=wanted)
            assert raised.value.version == held
            self.swept_then()
            return
        item = self.memory.set(key, value, if_version=wanted)
        [version] = self.swept_then(("set", key))
        assert item.version == version
        self.model.push(key, Was(version, self.now, value))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        was_there = self.model.current(key, self.now) is not None
        assert self.memory.delete(key) == was_there
        if was_there:
            [version] = self.swept_then(("deleted", key))
            self.model.push(key, Was(version, self.now, GONE))
        else:
            self.swept_then()

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key: str, ttl: float | None) -> None:
        current = self.model.current(key, self.now)
        assert self.memory.touch(key, ttl) == (current is not None)
        if current is None or current.expires == self.expiry(ttl):
            self.swept_then()
            return
        [version] = self.swept_then(("touched", key))
        since = current.since or current.version
        self.model.items[key][0] = replace(current, version=version, since=since, expires=self.expiry(ttl))

    @rule(key=KEYS)
    def increment(self, key: str) -> None:
        current = self.model.current(key, self.now)
        old = current.value if current and current.value is not None else 0
        if not isinstance(old, int | float):
            return
        assert same(self.memory.increment(key), old + 1)
        [version] = self.swept_then(("set", key))
        self.model.push(key, Was(version, self.now, old + 1, current.expires if current else None))

    @rule(entries=st.lists(st.tuples(KEYS, VALUES), max_size=5), talk=TALKS, fails=st.booleans())
    def batch(self, entries: list[tuple[str, Any]], talk: str, fails: bool) -> None:
        expected: list[tuple[str, str | None]] = []
        try:
            with self.memory.batch() as batch:
                for place, (key, value) in enumerate(entries):
                    if place % 3 == 2:
                        batch.delete(key)
                    else:
                        batch.set(key, value)
                batch.append(talk, {"n": len(entries)})
                if fails:
                    batch.set("a", 1, if_version=2**40)
        except Conflict:
            assert fails
            self.swept_then()  # all or nothing: no sweeping either
            return
        assert not fails
        dirty: dict[str, bool] = {}
        pushes: list[tuple[str, Any]] = []
        for place, (key, value) in enumerate(entries):
            there = dirty.get(key, self.model.current(key, self.now) is not None)
            if place % 3 == 2:
                if there:
                    expected.append(("deleted", key))
                    pushes.append((key, GONE))
                dirty[key] = False
            else:
                expected.append(("set", key))
                pushes.append((key, value))
                dirty[key] = True
        expected.append(("appended", talk))
        versions = self.swept_then(*expected)
        for version, (key, value) in zip(versions, pushes, strict=False):
            self.model.push(key, Was(version, self.now, value))
        self.said(talk, versions[-1], {"n": len(entries)})

    @rule(key=KEYS)
    def undo(self, key: str) -> None:
        target = self.undo_target(key)
        item = self.memory.undo(key)
        if target is None:
            assert item is None
            self.swept_then()
            return
        assert item is not None, f"undo found nothing, but there was {target}"
        assert same(item.value, target.value)
        [version] = self.swept_then(("set", key))
        assert item.version == version
        self.model.push(
            key, Was(version, self.now, target.value, target.expires, origin=target.origin or target.version)
        )

    def undo_target(self, key: str) -> Was | None:
        kept = self.model.readable(key, self.now)
        if not kept:
            return None
        current = kept[0]
        origin = current.version if current.value is GONE else current.origin or current.version
        return next((each for each in kept[1:] if each.version < origin and each.live(self.now)), None)

    # ── conversations ──

    def said(self, talk: str, version: int, value: Any, id: str | None = None) -> None:
        self.model.talks.setdefault(talk, Talk()).messages.append((version, id or f"#{version}", value))

    @rule(talk=TALKS, values=st.lists(VALUES, max_size=3))
    def extend(self, talk: str, values: list[Any]) -> None:
        messages = self.memory.conversation(talk).extend(values)
        versions = self.swept_then(*[("appended", talk)] * len(values))
        assert [message.version for message in messages] == versions
        for version, value in zip(versions, values, strict=True):
            self.said(talk, version, value)

    @rule(talk=TALKS, value=VALUES, id=st.sampled_from(["x", "y"]))
    def append_once(self, talk: str, value: Any, id: str) -> None:
        there = [each for each in self.talk(talk).messages if each[1] == id]
        try:
            message = self.memory.conversation(talk).append(value, id=id)
        except Conflict:
            assert there
            assert not same(there[0][2], value)
            self.swept_then()
            return
        if there:
            assert same(there[0][2], value)
            assert message.version == there[0][0]
            self.swept_then()
        else:
            [version] = self.swept_then(("appended", talk))
            assert (message.version, message.id) == (version, id)
            self.said(talk, version, value, id)

    def talk(self, name: str) -> Talk:
        return self.model.talks.get(name, Talk())

    @rule(talk=TALKS)
    def pop_message(self, talk: str) -> None:
        message = self.memory.conversation(talk).pop()
        messages = self.talk(talk).messages
        if not messages:
            assert message is None
            self.swept_then()
            return
        assert message is not None
        version, its_id, value = messages.pop()
        assert (message.version, message.id) == (version, its_id)
        assert same(message.value, value)
        self.swept_then(("trimmed", talk))

    @rule(talk=TALKS, keep=st.integers(0, 4))
    def trim(self, talk: str, keep: int) -> None:
        messages = self.talk(talk).messages
        over = max(0, len(messages) - keep)
        assert self.memory.conversation(talk).trim(keep=keep) == over
        del messages[:over]
        self.swept_then(*([("trimmed", talk)] if over else []))

    # ── whole namespaces ──

    @rule()
    def clear(self) -> None:
        held = any(revisions[0].value is not GONE for revisions in self.model.items.values())
        live = bool(self.model.keys(self.now))
        removed = self.memory.clear()
        if not live and not self.model.talks:
            # Either everything left had expired and was swept on the way, or there was nothing at all.
            self.swept_then()
            assert held or removed.version == 0
            return
        [version] = self.swept_then(("cleared", None))
        assert removed.version == version
        assert removed.messages == sum(len(talk.messages) for talk in self.model.talks.values())
        for key in self.model.items:
            if self.model.items[key][0].value is not GONE:
                self.model.push(key, Was(version, self.now, GONE))
        self.model.talks.clear()

    @rule()
    def erase(self) -> None:
        cursor = self.cursor
        erased = self.memory.erase()
        if erased.namespaces:
            assert erased.messages == sum(len(talk.messages) for talk in self.model.talks.values())
            with pytest.raises(CursorExpired):
                self.memory.changes(cursor)
        last = self.model.version
        self.model = Model(version=last)
        self.memory.configure(history=HISTORY, max_age=MAX_AGE)
        probe = self.memory.set("probe", 1)
        assert probe.version > last
        self.memory.delete("probe", history=False)
        self.cursor = self.memory.cursor()
        self.model.version = self.memory.stats().version
        self.model.forgot = True
        assert self.memory.history("probe") == []

    @rule(key=KEYS)
    def erase_key(self, key: str) -> None:
        revisions = self.model.items.pop(key, None)
        self.model.cut.discard(key)
        cursor = self.cursor
        erased = self.memory.erase(key)
        if not revisions:
            assert erased.items == 0
            self.swept_then()
            return
        held = revisions[0].value is not GONE
        assert erased.items == held or self.forgettable(revisions)
        self.cursor = self.memory.cursor()
        self.model.forgot = True  # by the erase, or by the sweep that came before it
        if self.memory.stats().version > self.model.version:
            with pytest.raises(CursorExpired):
                self.memory.changes(cursor)
        else:
            assert self.forgettable(revisions)
        self.model.version = self.memory.stats().version
        assert self.memory.history(key) == []

    def forgettable(self, revisions: list[Was]) -> bool:
        """Whether a key is a deletion old enough to be swept away whole."""
        return self.old_deletion(revisions[0])

    def old_deletion(self, was: Was) -> bool:
        return was.value is GONE and was.at < self.now - MAX_AGE * 1_000_000

    @rule(talk=TALKS)
    def clear_conversation(self, talk: str) -> None:
        there = self.model.talks.pop(talk, None)
        assert self.memory.conversation(talk).clear() == (len(there.messages) if there else 0)
        self.swept_then(*([("cleared", talk)] if there else []))

    # ── time, and the file ──

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.forgot = self.may_have_forgotten()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def export_and_import(self) -> None:
        stream = io.BytesIO()
        self.memory.export(stream)
        stream.seek(0)
        elsewhere = SQLiteStore(":memory:", clock=self.clock)
        copy = Memory("copy", store=elsewhere)
        copy.import_(stream)
        assert [msgspec.json.encode(each) for each in copy.records()] == [
            msgspec.json.encode(each) for each in self.memory.records()
        ]
        self.check(copy)
        elsewhere.close()

    # ── search ──

    @rule(query=st.sampled_from(["a", "b", "x", "0", "ключ", "keys of a"]), subtree=st.booleans())
    def search(self, query: str, subtree: bool) -> None:
        for hit in self.memory.search(query, 100, subtree=subtree):
            if hit.item is not None:
                assert hit.item == self.memory.item(hit.item.key)
            else:
                assert hit.message is not None
                assert hit.message == self.memory.conversation(str(hit.conversation)).message(hit.message.id)

    @rule(limit=st.sampled_from([1, 5, 1_000]), afresh=st.booleans())
    def index(self, limit: int, afresh: bool) -> None:
        self.memory.execute([Index("model", limit=limit, afresh=afresh)])

    @rule()
    def the_search_index_says_what_the_rows_say(self) -> None:
        if isinstance(self.store, SQLiteStore):  # elsewhere the file is out of reach
            cursor = self.store._open_reader()
            assert list(checking.problems(cursor.execute, self.now)) == []
            self.store._give_back(cursor)

    # ── what must always hold ──

    @rule(key=KEYS, back=st.integers(0, 12))
    def as_of_a_version(self, key: str, back: int) -> None:
        version = max(0, self.model.version - back)
        self.check_as_of(key, version, [each.since or each.version for each in self.revisions(key)], version)

    @rule(key=KEYS, seconds=st.sampled_from([0, 1, 60, 700, 3_000]))
    def as_of_a_time(self, key: str, seconds: int) -> None:
        when = self.now - seconds * 1_000_000
        self.check_as_of(key, when, [each.at for each in self.revisions(key)], self.moment(when))

    def revisions(self, key: str) -> list[Was]:
        return self.model.readable(key, self.now)

    def check_as_of(self, key: str, place: int, places: list[int], asked: Any) -> None:
        revisions = self.revisions(key)
        held = next((each for each, its in zip(revisions, places, strict=True) if its <= place), None)
        missing = object()
        try:
            found = self.memory.get(key, missing, as_of=asked)
        except HistoryExpired:
            assert held is None or self.old_deletion(held)
            assert (
                key in self.model.cut
                or len(revisions) < len(self.model.items.get(key, []))
                or self.may_have_forgotten()
            )
            return
        if held is not None and held.live(self.now):
            assert same(found, held.value)
        else:
            assert found is missing
            if held is None:
                assert key not in self.model.cut, "before the horizon is an error, never None"

    def may_have_forgotten(self) -> bool:
        return self.model.forgot or any(
            self.old_deletion(each) for revisions in self.model.items.values() for each in revisions
        )

    @invariant()
    def all_is_as_the_model_has_it(self) -> None:
        if hasattr(self, "cursor"):
            self.check(self.memory)

    def check(self, memory: Memory) -> None:
        keys = self.model.keys(self.now)
        assert memory.keys() == keys
        assert len(memory) == len(keys)
        items = {item.key: item for item in memory.items()}
        for key in keys:
            current = self.model.current(key, self.now)
            assert current is not None
            item = memory.item(key)
            assert item is not None
            assert same(item.value, current.value)
            assert (item.version, item.updated, item.expires) == (current.version, current.at, current.expires)
            assert items[key] == item
            assert key in memory
        for key in self.model.items:
            self.check_history(memory, key)
        stats = memory.stats()
        assert stats.conversations == len(self.model.talks)
        assert stats.messages == sum(len(talk.messages) for talk in self.model.talks.values())
        assert [info.name for info in memory.conversations()] == sorted(self.model.talks)
        for name, talk in self.model.talks.items():
            found = [(message.version, message.id, message.value) for message in memory.conversation(name)]
            assert found == talk.messages
            assert len(memory.conversation(name)) == len(talk.messages)

    def check_history(self, memory: Memory, key: str) -> None:
        found = [(each.version, GONE if each.deleted else each.value) for each in memory.history(key)]
        kept = self.model.readable(key, self.now)
        wanted = [(each.version, each.value) for each in kept if each.value is GONE or each.live(self.now)]
        if self.expired_unswept(key):
            wanted.insert(0, (kept[0].version, GONE))  # it shows as the deletion that it will be
        old = {each.version for each in kept if self.old_deletion(each)}  # these may have been swept away already
        found = [each for each in found if each[0] not in old]
        wanted = [each for each in wanted if each[0] not in old]
        if memory is not self.memory and len(wanted) == 1 and wanted[0][1] is GONE:
            return  # a deletion without a past does not travel
        assert [version for version, _ in found] == [version for version, _ in wanted]
        assert all(same(one[1], other[1]) or one[1] is other[1] for one, other in zip(found, wanted, strict=True))

    def expired_unswept(self, key: str) -> bool:
        current = self.model.items[key][0]
        return current.value is not GONE and not current.live(self.now)

    @rule(key=st.sampled_from(["", "\x00", "a" * 513]))
    def wrong_names_change_nothing(self, key: str) -> None:
        with pytest.raises(BotWireError):
            self.memory.set(key, 1)

    @precondition(lambda self: self.model.version > 0)
    @rule(back=st.integers(0, 30))
    def the_feed_is_whole_or_says_so(self, back: int) -> None:
        start = max(0, self.model.version - back)
        try:
            changes = self.memory.changes(f"v{start}", limit=1_000)
        except CursorExpired:
            return
        assert [change.version for change in changes] == list(range(start + 1, self.model.version + 1))


class HTTPMachine(MemoryMachine):
    """The same over HTTP: a file that a server keeps."""

    def made(self, path: Path, clock: Clock) -> Store:
        store: Store = http_stores.served(path, clock, HTTPStore)
        return store


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "few"), [(MemoryMachine, 120), (HTTPMachine, 12)], ids=["file", "http"])
def test_a_memory_does_what_its_model_does(rounds, machine, few):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=rounds(few, 25 * few),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=True,
        ),
    )
