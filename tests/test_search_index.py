"""The embedded store's search index: however it came to be, it says what the rows say."""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.faults import workers

from botwire import Memory, StoreReadOnly
from botwire.ops import Index, Message, Search
from botwire.stores.sqlite import SQLiteStore, checking, finding, migrations, postings, upkeep
from botwire.stores.sqlite.recent import Recent

WORDS = (
    "alpha beta gamma delta rome paris coffee tea walk went run 東京 getUserName ERR_0042 hello thanks".split()  # noqa: SIM905  # easier to read
)


def found(memory, query, limit=10, **filters):
    return [hit.message.id if hit.message else hit.key for hit in memory.search(query, limit, **filters)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(str(path), durability="relaxed")
    yield store
    store.close()
    workers.audit(path)


def reading(store: SQLiteStore, look: Callable[[Any], None]) -> None:
    """Look at one moment of the store's file."""
    cursor = store._open_reader()
    cursor.execute("BEGIN")
    try:
        look(cursor.execute)
    finally:
        cursor.execute("COMMIT")
        store._give_back(cursor)


def settle() -> None:
    """Wait until no thread writes an index."""
    for thread in threading.enumerate():
        if thread.name == "botwire-index":
            thread.join(20)


# ── however it came to be ──


class Chances:
    """A store to which everything happens at random, and whose indexes are compared with ones made anew."""

    def __init__(self, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(seed)
        self.now = 1_700_000_000_000_000
        self.log: list[str] = []
        monkeypatch.setattr(finding, "IN_MEMORY", self.chance.choice([4, 20, 4_096]))
        monkeypatch.setattr(postings, "POSTINGS", self.chance.choice([1, 2, 3, 512]))
        monkeypatch.setattr(SQLiteStore, "_write_index_later", lambda _: None)  # it happens when we say so
        self.store = SQLiteStore(str(folder / f"{seed}.db"), durability="relaxed", clock=lambda: self.now)
        self.memories = [Memory(name, store=self.store) for name in ("a", "a/b", "c")]
        if self.chance.random() < 0.3:
            self.memories[0].configure(messages=3)
        if self.chance.random() < 0.3:
            self.memories[1].configure(messages_max_age=100)
        if self.chance.random() < 0.3:
            self.memories[2].configure(feed=5, history=2)

    def text(self) -> str:
        return " ".join(self.chance.choices(WORDS, k=self.chance.randrange(9)))

    def step(self) -> None:
        memory, chance = self.chance.choice(self.memories), self.chance
        key = f"k{chance.randrange(5)}"
        talk = memory.conversation(chance.choice(["t1", "t2"]))
        self.now += chance.choice([0, 1, 10**6, 10**7, 4 * 10**9])
        said: list[Message] = talk.messages()
        steps: list[tuple[int, Callable[[], object]]] = [
            (4, lambda: self.set(memory, key)),
            (1, lambda: memory.delete(key, history=chance.random() < 0.5)),
            (1, lambda: memory.touch(key, chance.choice([None, 3]))),
            (4, lambda: self.say(talk)),
            (1, lambda: said and talk.edit(chance.choice(said), self.text())),
            (1, lambda: said and talk.redact(chance.choice(said))),
            (1, lambda: said and talk.delete(chance.choice(said))),
            (1, lambda: talk.trim(keep=2)),
            (1, chance.choice([talk.clear, memory.clear, memory.stats, memory.stats])),
            (1, chance.choice([lambda: memory.erase(key), lambda: memory.erase(conversation=talk.name)])),
            (1, lambda: chance.random() < 0.4 and memory.erase()),
            (1, lambda: memory.undo(key)),
            (1, self.write),
            (1, lambda: memory.execute([Index(memory.namespace, limit=chance.choice([1, 3, 100]))])),
            (1, lambda: chance.random() < 0.2 and memory.execute([Index(memory.namespace, afresh=True)])),
            (1, self.forget),
            (1, lambda: memory.configure(index=chance.choice([True, False]))),
            (8, lambda: memory.search(self.text() or "x", 5, subtree=chance.random() < 0.3)),
        ]
        [(_, do)] = chance.choices(steps, [weight for weight, _ in steps])
        self.log.append(f"{memory.namespace} {key} {talk.name} {steps.index((_, do))}")
        do()

    def set(self, memory: Memory, key: str) -> None:
        value, index = {"x": self.text(), "y": [self.text()]}, self.chance.choice([None, None, True, False, ["y"]])
        memory.set(key, value, ttl=self.chance.choice([None, None, 5]), index=index, history=self.chance.random() < 0.7)

    def say(self, talk) -> None:
        message = self.chance.choice([self.text(), {"role": "user", "content": self.text()}])
        talk.append(message, author=self.chance.choice([None, "Ann", "Bob"]), index=self.chance.random() < 0.9)

    def forget(self) -> None:
        if self.store._searches is not None:
            self.store._searches.forget()

    def write(self) -> None:
        for recent in list(self.store._searches._recent.values()) if self.store._searches else ():
            self.store._write_index(recent)

    def check(self, sql: Any) -> None:
        wrong = list(checking.problems(sql, self.now))
        remembered = self.store._searches._recent if self.store._searches else {}
        for seen in finding.seen_below(sql, self.now, "", subtree=True):
            held = remembered.get(seen.id)
            if held is not None and held.fits(seen):
                anew = Recent(seen, None)
                for recent in (held, anew):
                    recent.take_in(sql, seen, 1 << 40)
                wrong += [f"remembered of {seen.name}: {problem}" for problem in checking.compare(sql, held, anew)]
        assert not wrong, (wrong, self.log[-10:])


def test_an_index_that_grew_with_the_changes_says_what_one_made_anew_says(tmp_path, monkeypatch, rounds):
    for seed in range(rounds(12, 1_000)):
        chances = Chances(tmp_path, seed, monkeypatch)
        for _ in range(150):
            chances.step()
            reading(chances.store, chances.check)
        chances.store.close()
        monkeypatch.undo()


# ── files from before there was search ──


@pytest.fixture
def old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in the first schema, as a program of that time left it."""
    scripts = migrations.scripts()
    writer = apsw.Connection(str(path))
    writer.execute("PRAGMA journal_mode = wal").fetchall()
    writer.execute(scripts[0])
    writer.execute("PRAGMA user_version = 1")
    writer.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    with writer:
        writer.execute(
            "INSERT INTO namespaces (id, name, version, created, updated, items, messages, conversations, bytes) "
            "VALUES (7, 'user-42', 3000, 1, 1, 1500, 1500, 1, 0)"
        )
        writer.executemany(
            "INSERT INTO items VALUES (7, ?, ?, ?, 1, 1, NULL, NULL, NULL)",
            [(f"k{n:04}", n, f'"lunch number {n}"'.encode()) for n in range(1, 1_501)],
        )
        writer.execute("INSERT INTO conversations VALUES (3, 7, 'talk', 1500, 0, 3000, 1, 1, 1)")
        writer.executemany(
            "INSERT INTO messages VALUES (?, ?, 1, 'user', NULL, NULL, 0, ?)",
            [(3 << 32 | n, f"m{n}", f'"dinner number {n}"'.encode()) for n in range(1_501, 3_001)],
        )
        writer.execute(
            "UPDATE namespaces SET bytes = (SELECT sum(length(key) + length(value)) FROM items) "
            "+ (SELECT sum(length(id) + length(role) + length(value)) FROM messages)"
        )
        writer.execute("UPDATE conversations SET bytes = (SELECT sum(length(id) + 4 + length(value)) FROM messages)")
        writer.execute("UPDATE namespaces SET feed_floor = 3000")
    writer.close()
    return path


def test_a_file_from_before_is_copied_brought_up_to_date_and_found_whole(old_file):
    store = SQLiteStore(str(old_file), durability="relaxed")
    memory = Memory("user-42", store=store)
    assert memory.get("k0007") == "lunch number 7"
    assert len(list(old_file.parent.glob("*.backup-schema1-*"))) == 1
    assert memory.stats().unindexed == 3_000
    assert found(memory, "1234 lunch", 1) == ["k1234"]
    assert found(memory, "2345 dinner", 1) == ["m2345"]
    settle()
    store.close()
    workers.audit(old_file)


def test_a_file_from_before_is_indexed_little_by_little_and_searched_meanwhile(old_file, monkeypatch):
    monkeypatch.setattr(finding, "IN_MEMORY", 300)
    monkeypatch.setattr(SQLiteStore, "_write_index_later", lambda _: None)
    store = SQLiteStore(str(old_file), durability="relaxed")
    memory = Memory("user-42", store=store)
    talk = memory.conversation("talk")
    last = 3_000
    for number in range(40):
        memory.set("new", f"brunch {number}")
        talk.append(f"supper {number}", id=f"new{number}")
        [page] = memory.execute([Search("user-42", f"brunch {number}", 1)])
        assert [hit.key for hit in page.hits] == ["new"], "what is written now is found at once"
        assert found(memory, f"supper {number}", 1) == [f"new{number}"]
        assert page.unindexed <= last
        last = page.unindexed
        if not last:
            break
    assert last == 0
    assert found(memory, "2345 dinner", 1) == ["m2345"]
    hit = memory.search("m2999 2999 dinner", 1, around=1)[0]
    assert [hit.before[0].id, hit.after[0].id] == ["m2998", "m3000"]
    store.close()
    workers.audit(old_file)


def test_a_thread_goes_on_with_what_a_search_has_left(old_file, monkeypatch):
    monkeypatch.setattr(finding, "IN_MEMORY", 300)
    store = SQLiteStore(str(old_file), durability="relaxed")
    memory = Memory("user-42", store=store)
    memory.search("lunch")
    deadline = time.monotonic() + 30
    while memory.stats().unindexed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert memory.stats().unindexed == 0
    settle()
    store.close()
    workers.audit(old_file)


def test_a_backup_in_the_old_schema_is_restored_and_searched(old_file, tmp_path):
    target = tmp_path / "restored.db"
    upkeep.restore(old_file, target)
    store = SQLiteStore(str(target), durability="relaxed")
    assert found(Memory("user-42", store=store), "1234 lunch", 1) == ["k1234"]
    settle()
    store.close()


# ── how it gets into the file ──


def test_some_hundred_documents_are_written_together_by_a_thread(store):
    memory = Memory("user-42", store=store)
    for number in range(finding.WRITTEN_TOGETHER - 1):
        memory.set(f"k{number}", f"lunch {number}")
    memory.search("lunch")
    settle()
    assert memory.stats().unindexed == finding.WRITTEN_TOGETHER - 1
    memory.set("one more", "lunch")
    memory.search("lunch")
    settle()
    assert memory.stats().unindexed == 0
    assert found(memory, "lunch 17", 1) == ["k17"]


def test_all_that_was_written_is_taken_in_however_much_it_is(store, monkeypatch):
    monkeypatch.setattr(finding, "IN_MEMORY", 100)
    memory = Memory("user-42", store=store)
    for start in range(0, 2_000, 500):
        memory.set_many({f"k{number}": f"lunch {number}" for number in range(start, start + 500)})
    assert found(memory, "lunch 3", 1) == ["k3"]
    assert found(memory, "lunch 1999", 1) == ["k1999"]
    assert memory.stats().unindexed < 200


def test_the_index_is_remembered_no_further_than_it_should(store, monkeypatch):
    monkeypatch.setattr(finding, "KEPT", 50)
    monkeypatch.setattr(finding, "NAMESPACES_KEPT", 5)
    for number in range(20):
        memory = Memory(f"user-{number}", store=store)
        memory.set_many({f"k{n}": f"lunch {n}" for n in range(20)})
        assert found(memory, "lunch 3", 1) == ["k3"]
    assert store._searches is not None
    assert len(store._searches._recent) <= 5
    assert found(Memory("user-0", store=store), "lunch 3", 1) == ["k3"]


def test_a_file_that_cannot_be_written_is_searched_all_the_same(path, store):
    memory = Memory("user-42", store=store)
    for number in range(400):
        memory.set(f"k{number}", f"lunch {number}")
    memory.execute([Index("user-42", limit=100)])
    memory.set("k7", "dinner 7")
    store.close()
    readonly = SQLiteStore(str(path))
    readonly.open()
    readonly._failure = StoreReadOnly("no more writing")  # as the store notes it when it cannot make its lock files
    memory = Memory("user-42", store=readonly)
    assert found(memory, "lunch 399", 1) == ["k399"]
    assert found(memory, "dinner") == ["k7"]
    assert "k7" not in found(memory, "lunch", 400)
    assert len(found(memory, "lunch", 400)) == 399
    readonly.close()


# ── threads and processes ──


def test_what_was_acknowledged_is_found_by_every_thread(store):
    failures: list[object] = []

    def work(number: int) -> None:
        memory = Memory(f"space-{number % 2}", store=store)
        talk = memory.conversation(f"talk-{number}")
        try:
            for count in range(60):
                talk.append(f"word{number}x{count}", id=f"m{count}")
                memory.set(f"k{number}", f"now{number}x{count}")
                assert f"m{count}" in found(memory, f"word{number}x{count}")
                assert f"k{number}" in found(memory, f"now{number}x{count}")
                assert f"k{number}" not in found(memory, f"now{number}x{count - 1}")
                if count % 20 == 7:
                    memory.execute([Index(memory.namespace)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(workers.PATIENCE)
        assert not thread.is_alive()
    assert not failures, failures[:2]
    settle()


def test_what_another_process_wrote_is_found_by_the_next_search(path, store):
    memory = Memory("user-42", store=store)
    memory.set("mine", "lunch")
    assert found(memory, "lunch") == ["mine"]
    for number in range(3):
        workers.run("search_elsewhere", path, number)
        assert f"theirs-{number}" in found(memory, "lunch")
        memory.execute([Index("user-42")])


def test_two_processes_index_one_namespace_at_the_same_time(path, store):
    memory = Memory("user-42", store=store)
    memory.set_many({f"k{number}": f"lunch {number}" for number in range(500)})
    processes = [workers.start("index_and_search", path) for _ in range(3)]
    for process in processes:
        assert workers.next_line(process) == "ready"
    for process in processes:
        workers.tell(process)
    for process in processes:
        workers.finish(process)
    assert len(found(memory, "lunch", 1_000)) == 500
    settle()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_after_a_fork_parent_and_child_go_on_searching(path, store):
    memory = Memory("user-42", store=store)
    memory.set("a", "lunch")
    memory.search("lunch")
    pid = os.fork()
    if not pid:
        try:
            memory.set("b", "lunch of the child")
            os._exit(0 if set(found(memory, "lunch")) == {"a", "b"} else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert set(found(memory, "lunch")) == {"a", "b"}


# ── its upkeep ──


@pytest.fixture
def indexed(path: Path) -> Path:
    store = SQLiteStore(str(path), durability="relaxed")
    memory = Memory("user-42", store=store)
    memory.set("a", "lunch in rome")
    memory.set("b", "dinner")
    memory.conversation("t").append("breakfast in bed", author="Ann")
    memory.execute([Index("user-42")])
    store.close()
    return path


PLANTED = {
    "a term that is missing": "DELETE FROM search_postings WHERE term = 'lunch'",
    "a term too many": "INSERT INTO search_postings SELECT namespace, 'zebra', 0, data FROM search_postings "
    "WHERE term = 'lunch'",
    "a document that is missing": "DELETE FROM search_documents WHERE key = 'a'",
    "a block that is missing": "DELETE FROM search_blocks WHERE block < 1 << 50",
    "a value that was changed behind our back": "UPDATE items SET value = '\"supper\"' WHERE key = 'b'",
    "a message that is gone": "DELETE FROM messages",
    "counts": "UPDATE search_namespaces SET counts = replace(counts, '\"documents\":3', '\"documents\":4')",
    "an index of nobody": "INSERT INTO search_postings VALUES (99, 'lunch', 0, x'000000000000000001')",
}


@pytest.mark.parametrize("damage", PLANTED.values(), ids=PLANTED.keys())
def test_the_doctor_sees_what_the_index_says_otherwise_than_the_rows(indexed, damage):
    assert [check for check in upkeep.examine(indexed) if check.state == "failed"] == []
    writer = apsw.Connection(str(indexed))
    writer.execute(damage)
    writer.close()
    failed = {check.name: check for check in upkeep.examine(indexed) if check.state == "failed"}
    assert failed.keys() & {"search", "orphans"}
    if "search" in failed:
        assert "botwire index --afresh" in failed["search"].advice


def test_an_index_made_afresh_heals(indexed):
    writer = apsw.Connection(str(indexed))
    writer.execute("DELETE FROM search_postings WHERE term = 'lunch'")
    writer.close()
    store = SQLiteStore(str(indexed), durability="relaxed")
    memory = Memory("user-42", store=store)
    memory.execute([Index("user-42", afresh=True)])
    assert found(memory, "lunch") == ["a"]
    store.close()
    workers.audit(indexed)


def test_an_index_of_another_version_of_the_terms_is_made_anew(indexed, monkeypatch):
    monkeypatch.setattr("botwire.search.words.VERSION", 10**6)
    store = SQLiteStore(str(indexed), durability="relaxed")
    memory = Memory("user-42", store=store)
    assert found(memory, "lunch") == ["a"]
    memory.execute([Index("user-42")])
    [version] = store._sql("SELECT terms FROM search_namespaces").fetchall()
    assert version == (10**6,)
    assert found(memory, "breakfast") == ["#3"]
    store.close()
    workers.audit(indexed)


def test_a_store_that_was_restored_over_another_is_searched_by_what_it_holds_now(indexed, tmp_path):
    backup = tmp_path / "backup.db"
    upkeep.backup(indexed, backup)
    store = SQLiteStore(str(indexed), durability="relaxed")
    memory = Memory("user-42", store=store)
    memory.set("c", "supper")
    assert found(memory, "supper") == ["c"]
    upkeep.restore(backup, indexed, force=True)
    assert memory.search("supper") == []
    assert found(memory, "lunch") == ["a"]
    memory.set("d", "supper")
    assert found(memory, "supper") == ["d"]
    store.close()
    workers.audit(indexed)


def test_ids_of_conversations_are_never_used_twice(store):
    memory, other = Memory("user-42", store=store), Memory("other", store=store)
    memory.conversation("t").append("lunch")
    memory.execute([Index("user-42")])
    memory.conversation("t").clear()
    other.conversation("t").append("dinner")
    other.execute([Index("other")])
    assert memory.search("lunch dinner") == []
    assert found(other, "dinner") == ["#1"]
