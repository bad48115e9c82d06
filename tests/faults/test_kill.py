"""Processes are killed (SIGKILL) at random moments: what was acknowledged is there, and nothing is there by halves."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from tests.faults import workers
from tests.faults.workers import Entry

from botwire import Memory
from botwire.ops import AnyOp, Append, Delete, Erase, Get, Messages, Op, Put, Stamp
from botwire.stores.sqlite import SQLiteStore

THREADS = 2


class Model:
    """What one thread's namespaces must hold, by the writes that were acknowledged."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], tuple[bytes, int | None]] = {}
        """Value and version; no version: it is not known, for nobody heard of it."""
        self.past: dict[tuple[str, str], list[int]] = {}
        self.talks: dict[tuple[str, str], list[bytes]] = {}

    def copy(self) -> Model:
        other = Model()
        other.items, other.past = dict(self.items), {place: list(versions) for place, versions in self.past.items()}
        other.talks = {place: list(messages) for place, messages in self.talks.items()}
        return other

    def apply(self, ops: list[Op], results: list[Any] | None) -> None:
        """Take in a write; without results it is one that was under way."""
        for op, result in zip(ops, results or [None] * len(ops), strict=True):
            match op:
                case Put():
                    self._put(op, None if result is None else msgspec.convert(result, Stamp).version)
                case Delete():
                    self.items.pop((op.namespace, op.key), None)
                    self.past.pop((op.namespace, op.key), None)
                case Append():
                    messages = self.talks.setdefault((op.namespace, op.conversation), [])
                    messages.extend(bytes(message.raw) for message in op.messages)
                case Erase():
                    self._erase(op)

    def _put(self, op: Put, version: int | None) -> None:
        place = (op.namespace, op.key)
        if op.ttl is None:
            self.items[place] = (bytes(op.raw), version)
        if version is None or not op.history or op.ttl is not None:
            self.past.pop(place, None)
        else:
            self.past[place] = [version, *self.past.get(place, [])][:8]

    def _erase(self, op: Erase) -> None:
        tables: list[dict[tuple[str, str], Any]] = [self.items, self.past, self.talks]
        for table, name in zip(tables, (op.key, op.key, op.conversation), strict=True):
            for place in [place for place in table if place[0] == op.namespace and name in (None, place[1])]:
                if name is not None or (op.key is None and op.conversation is None):
                    del table[place]

    def differs_from(self, store: SQLiteStore, thread: int) -> str:
        """How the store differs from this, or nothing."""
        stored: dict[tuple[str, str], tuple[bytes, int]] = {}
        talks: dict[tuple[str, str], list[bytes]] = {}
        for name in namespaces_of(thread):
            memory = Memory(name, store=store)
            for item in memory.items():
                if not item.key.startswith("brief-"):
                    stored[name, item.key] = (bytes(item.raw), item.version)
            for talk in memory.conversations():
                talks[name, talk.name] = [bytes(message.raw) for message in memory.conversation(talk.name)]
        if stored.keys() != self.items.keys():
            return f"keys {sorted(stored.keys() ^ self.items.keys())}"
        for place, (value, version) in self.items.items():
            if stored[place][0] != value or version not in (None, stored[place][1]):
                return f"{place}: version {stored[place][1]}, not {version}, or another value"
        if talks != self.talks:
            lengths = {
                place: (len(talks.get(place, [])), len(self.talks.get(place, []))) for place in {*talks, *self.talks}
            }
            return f"conversations: messages found and expected {lengths}"
        return self._past_differs(store)

    def _past_differs(self, store: SQLiteStore) -> str:
        for (namespace, key), versions in self.past.items():
            found = [each.version for each in Memory(namespace, store=store).history(key, limit=len(versions))]
            if found != versions:
                return f"history of {key} in {namespace}: {found}, not {versions}"
        return ""


def namespaces_of(thread: int) -> list[str]:
    return [f"thread-{thread}", f"thread-{thread}/other", f"thread-{thread}/trash"]


class Proof:
    """A file that is written to, killed and checked, round after round."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log = folder / "memory.db", folder / "log"
        self.models = [Model() for _ in range(THREADS)]
        self.acknowledged = 0
        self.under_way = 0

    def round(self, number: int, patience: float) -> None:
        """Let a process write for a while, kill it, and check what is left."""
        self.log.unlink(missing_ok=True)
        durability = "relaxed" if number % 2 else "full"
        writer = workers.start("write_until_killed", self.path, self.log, number, durability, THREADS)
        assert workers.next_line(writer) == "open"
        time.sleep(patience)
        workers.kill(writer)
        workers.audit(self.path)
        store = SQLiteStore(str(self.path), durability="relaxed")
        store.open()
        for thread in range(THREADS):
            self._check(store, thread)
        store.close()
        workers.audit(self.path)

    def _check(self, store: SQLiteStore, thread: int) -> None:
        model, begun = self.models[thread], None
        for entry in workers.entries(self.log):
            if entry.thread != thread:
                continue
            begun = None if entry.acknowledged else entry
            if entry.acknowledged:
                model.apply(ops_of(entry), msgspec.json.decode(entry.results))
                self.acknowledged += 1
        before = model.differs_from(store, thread)
        if begun is None:
            assert not before, before
            return
        self.under_way += 1
        after = model.copy()
        after.apply(ops_of(begun), None)
        difference = after.differs_from(store, thread)
        assert not before or not difference, (
            f"neither without the write under way ({before}) nor with it ({difference})"
        )
        if begun.request_id is not None:
            store.execute(ops_of(begun), request_id=begun.request_id)
            difference = after.differs_from(store, thread)
            assert not difference, f"repeated by its request id: {difference}"
            before = "it is there now"
        if before:
            self.models[thread] = after

    def repeat_acknowledged(self) -> None:
        """Every acknowledged write with a request id answers as it did, and changes nothing."""
        store = SQLiteStore(str(self.path), durability="relaxed")
        versions = [Memory(name, store=store).stats().version for name in namespaces_of(0)]
        for entry in workers.entries(self.log):
            if entry.acknowledged and entry.request_id is not None and entry.thread == 0:
                results = store.execute(ops_of(entry), request_id=entry.request_id)
                assert msgspec.to_builtins(results) == msgspec.json.decode(entry.results)
        assert [Memory(name, store=store).stats().version for name in namespaces_of(0)] == versions
        store.close()


def ops_of(entry: Entry) -> list[Op]:
    ops: list[Op] = msgspec.json.decode(entry.ops, type=list[AnyOp])
    return ops


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_keeps_what_was_acknowledged_and_nothing_by_halves(tmp_path, request):
    rounds = 1_000 if request.config.getoption("--long", default=False) else 50
    chance, proof = random.Random(rounds), Proof(tmp_path)
    for number in range(rounds):
        proof.round(number, chance.choice([0, 0.02, 0.1, 0.3, 0.6]) * chance.random())
        if number % 10 == 9:
            proof.repeat_acknowledged()
    assert proof.acknowledged > rounds * 5
    assert proof.under_way > rounds / 4, "most kills must hit a write"


@pytest.mark.slow
def test_a_process_killed_while_it_makes_a_new_file_leaves_one_that_opens(tmp_path, request):
    rounds = 200 if request.config.getoption("--long", default=False) else 20
    chance = random.Random(rounds)
    usual = _time_to_open(tmp_path / "first.db")
    made = 0
    for number in range(rounds):
        path = tmp_path / f"memory-{number}.db"
        process = workers.start("open_and_set", path)
        time.sleep(usual * chance.uniform(0.5, 1.1))
        process.kill()
        acknowledged = "acknowledged" in process.communicate()[0]
        made += path.exists()
        store = SQLiteStore(str(path))
        found = Memory("first", store=store).get("key")
        assert found == "value" if acknowledged else found in ("value", None)
        Memory("second", store=store).set("key", 1)
        store.close()
        workers.audit(path)
        assert not list(tmp_path.glob("*.backup-*"))
    assert made, "some must have been killed after they had begun"


def _time_to_open(path: Path) -> float:
    start = time.monotonic()
    process = workers.start("open_and_set", path)
    assert workers.next_line(process) == "acknowledged"
    elapsed = time.monotonic() - start
    workers.finish(process)
    return elapsed


def test_a_process_killed_while_it_backs_up_harms_neither_the_file_nor_the_next_backup(tmp_path, request):
    path, target = tmp_path / "memory.db", tmp_path / "backup"
    store = SQLiteStore(str(path), durability="relaxed")
    memory = Memory("user-42", store=store)
    memory.set_many({f"key-{number}": "x" * 2_000 for number in range(3_000)})
    chance = random.Random(1)
    for number in range(5):
        process = workers.start("back_up", path, target)
        assert workers.next_line(process) == "open"
        time.sleep(chance.uniform(0, 0.1))
        memory.set("during", number)
        workers.kill(process)
        workers.audit(path)
        assert memory.get("during") == number
        assert len(memory) == 3_001
        backups = sorted(tmp_path.glob("backup-*[0-9]"), key=lambda file: int(file.name.split("-")[1]))
        for backup in backups[:-1]:  # the last one was cut off
            workers.audit(backup)
        for backup in backups:
            backup.unlink()
    store.close()


def test_a_killed_process_leaves_a_log_that_a_reader_alone_can_read(tmp_path):
    path, log = tmp_path / "memory.db", tmp_path / "log"
    writer = workers.start("write_until_killed", path, log, 1, "full", 1)
    assert workers.next_line(writer) == "open"
    time.sleep(0.05)
    workers.kill(writer)
    store = SQLiteStore(str(path))
    assert store.execute([Get("thread-0", "pair"), Messages("thread-0", "talk")])
    store.close()
    file = apsw.Connection(str(path))
    assert file.execute("PRAGMA journal_mode").get == "wal"
    file.close()
