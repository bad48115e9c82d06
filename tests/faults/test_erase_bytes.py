"""What was erased is in no file any more, byte for byte, as another process sees them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults import workers

from botwire import Memory
from botwire.flows import put_op
from botwire.ops import Erased, Index
from botwire.stores.sqlite import SQLiteStore
from botwire.stores.sqlite.connection import connect
from botwire.stores.sqlite.migrations import backup_path, copy_to

SIZES = [0, 30, 200, 900, 3_000, 6_000]


class Planter:
    """Plants unique markers in what is to be erased, among rows of many other namespaces that stay."""

    def __init__(self, path: Path, seed: int, steps: int) -> None:
        self.path = path
        self.steps = steps
        self.chance = random.Random(seed)
        self.searching = random.Random(seed)
        self.markers: list[str] = []
        self.ahead = 0
        self.store = SQLiteStore(str(path), durability="relaxed", clock=lambda: time.time_ns() // 1_000 + self.ahead)
        self.others = [Memory(f"other-{number}", store=self.store) for number in range(12)]

    def mark(self) -> str:
        """A marker that stands nowhere else."""
        self.markers.append(f"MARK{self.chance.getrandbits(96):024x}")
        return self.markers[-1]

    def some(self, chance: float) -> str | None:
        """A marker, now and then."""
        return self.mark() if self.chance.random() < chance else None

    def big(self) -> str:
        """A marker, often with much beside it."""
        return self.mark() + "z" * (100_000 if self.chance.random() < 0.01 else self.chance.choice(SIZES))

    def search(self, memory: Memory) -> None:
        """Now and then a search, and the writing of the index to the file."""
        if self.searching.random() < 0.06:
            memory.search(self.searching.choice(self.markers) if self.markers else "anything")
            if self.searching.random() < 0.4:
                memory.execute([Index(memory.namespace, afresh=self.searching.random() < 0.05)])

    def churn(self) -> None:
        """Some write to another namespace."""
        other, size = self.chance.choice(self.others), self.chance.choice(SIZES)
        key = f"key-{self.chance.randrange(150)}"
        match self.chance.randrange(6):
            case 0 | 1:
                other.set(key, "x" * size, history=self.chance.random() < 0.5)
            case 2:
                other.conversation(f"talk-{self.chance.randrange(5)}").append("y" * size)
            case 3:
                other.delete(key)
            case 4:
                other.conversation(f"talk-{self.chance.randrange(5)}").trim(keep=3)
            case _:
                other.erase(key) if self.chance.random() < 0.05 else other.set(key, size)

    def item(self, memory: Memory, key: str) -> None:
        """Some write to an item that is to be erased."""
        self.search(memory)
        match self.chance.randrange(8):
            case 0:
                memory.delete(key)
            case 1:
                memory.set(key, self.big(), ttl=5, author=self.some(0.3))
            case 2:
                memory.set(key, self.big(), history=False)
            case 3:
                memory.execute([put_op(memory.namespace, key, self.big())], request_id=f"request-{len(self.markers)}")
            case 4:
                self.ahead += 6_000_000  # what had a time to live is over, and swept by a later write
            case _:
                memory.set(
                    key, self.big(), tags=[self.mark()] if self.chance.random() < 0.3 else (), author=self.some(0.3)
                )

    def message(self, memory: Memory, name: str) -> None:
        """Some write to a conversation that is to be erased."""
        self.search(memory)
        talk = memory.conversation(name)
        said = talk.append({"role": "user", "content": self.big()}, id=self.some(0.3), author=self.some(0.3))
        match self.chance.randrange(8):
            case 0:
                talk.edit(said, {"role": "user", "content": self.big()})
            case 1:
                talk.redact(said)
            case 2:
                talk.delete(said)
            case 3:
                talk.trim(keep=4)

    def left(self) -> list[str]:
        """The markers that another process finds in the raw files."""
        files = sorted(self.path.parent.glob(self.path.name + "*"))
        assert self.path in files
        marker_file = self.path.parent / "markers"
        marker_file.write_text("\n".join(self.markers))
        return workers.run("find_bytes", marker_file, *files)


def everything(planter: Planter) -> Callable[[], Erased]:
    """Markers all over a namespace, its name among them; it is erased whole."""
    memory = Memory(f"secret/{planter.mark()}", store=planter.store)
    for _ in range(planter.steps):
        planter.churn()
        if planter.chance.random() < 0.6:
            planter.item(memory, f"{planter.some(0.3) or 'key'}-{planter.chance.randrange(30)}")
        else:
            planter.message(memory, planter.some(0.1) or f"talk-{planter.chance.randrange(4)}")
    return memory.erase


def subtree(planter: Planter) -> Callable[[], Erased]:
    """Markers in many namespaces below one; they are erased at once."""
    below = [Memory(f"secret/{planter.mark()}", store=planter.store) for _ in range(15)]
    for _ in range(planter.steps):
        planter.churn()
        memory = planter.chance.choice(below)
        if planter.chance.random() < 0.6:
            planter.item(memory, f"{planter.some(0.3) or 'key'}-{planter.chance.randrange(30)}")
        else:
            planter.message(memory, planter.some(0.2) or f"talk-{planter.chance.randrange(4)}")
    return lambda: Memory("secret", store=planter.store).erase(subtree=True)


def one_key(planter: Planter) -> Callable[[], Erased]:
    """Markers in one key, its name among them, and in its past; only that key is erased."""
    memory, key = planter.others[0], planter.mark()
    memory.configure(history=200)
    for _ in range(planter.steps):
        planter.churn()
        planter.item(memory, key)
    return lambda: memory.erase(key)


def one_conversation(planter: Planter) -> Callable[[], Erased]:
    """Markers in one conversation, its name among them; only that conversation is erased."""
    memory, name = planter.others[0], planter.mark()
    for _ in range(planter.steps):
        planter.churn()
        planter.message(memory, name)
    return lambda: memory.erase(conversation=name)


def redacted_then_anything(planter: Planter) -> Callable[[], Erased]:
    """Markers in messages that are edited, redacted or removed; the conversation stays, something else is erased."""
    talk = planter.others[0].conversation("stays")
    for _ in range(planter.steps):
        planter.churn()
        said = talk.append({"role": "user", "content": planter.big()})
        planter.search(planter.others[0])
        if planter.chance.random() < 0.3:
            talk.edit(said, "harmless")
        elif planter.chance.random() < 0.5:
            talk.redact(said)
        else:
            talk.delete(said)
    planter.others[1].set("something", 1)
    return lambda: planter.others[1].erase("something")


KINDS = [everything, subtree, one_key, one_conversation, redacted_then_anything]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_was_erased_stands_in_no_raw_file(tmp_path, kind, request):
    seeds, steps = (40, 3_000) if request.config.getoption("--long", default=False) else (2, 700)
    for seed in range(seeds):
        folder = tmp_path / str(seed)
        folder.mkdir()
        planter = Planter(folder / "memory.db", seed, steps)
        erase = kind(planter)
        if kind is not redacted_then_anything:  # of what was redacted, little is left before the erase as well
            assert len(planter.left()) > 5, "before the erase the markers can be found"
        before = contents(planter)
        assert erase().pending is False
        found = planter.left()
        assert not found, f"seed {seed}: {len(found)} of {len(planter.markers)} markers are left: {found[:3]}"
        assert contents(planter) == before, "what was not erased is there, and only that"
        planter.store.close()
        assert not planter.left(), "closing brings nothing back"
        workers.audit(planter.path)


def contents(planter: Planter) -> object:
    """What the other namespaces hold that nobody erases, with its past."""
    return [
        (
            [(item.key, item.version, item.value) for item in other.items()],
            [[(each.version, each.deleted) for each in other.history(key)] for key in other.keys()[:20]],
            [
                (talk.name, talk.messages, [m.value for m in other.conversation(talk.name)])
                for talk in other.conversations()
            ],
        )
        for other in planter.others[2:]
    ]


@pytest.mark.parametrize("seed", range(2))
def test_nothing_comes_back_when_others_go_on_writing_after_an_erase(tmp_path, seed):
    planter = Planter(tmp_path / "memory.db", seed, 400)
    everything(planter)()
    for _ in range(500):
        planter.churn()
    assert not planter.left()
    planter.store.close()
    assert not planter.left()
    workers.audit(planter.path)


def test_an_erase_by_another_process_than_the_one_that_wrote_leaves_nothing(tmp_path):
    planter = Planter(tmp_path / "memory.db", 7, 500)
    everything(planter)
    [secret] = Memory("secret", store=planter.store).namespaces()
    workers.run("erase", planter.path, secret.name)
    assert not planter.left()
    for _ in range(300):
        planter.churn()  # with what this process had in its caches
    assert not planter.left()
    planter.store.close()
    assert not planter.left()
    workers.audit(planter.path)


def test_the_backups_that_migrations_made_go_with_an_erase(tmp_path):
    planter = Planter(tmp_path / "memory.db", 1, 100)
    erase = everything(planter)
    connection = connect(str(planter.path), "full")
    backup = Path(backup_path(str(planter.path), 1))
    copy_to(connection, str(backup))
    connection.close()
    assert any(line.startswith(backup.name) for line in planter.left())
    assert erase().pending is False
    assert not backup.exists()
    assert not planter.left()
    planter.store.close()


def test_an_erase_beside_a_reader_is_pending_and_one_after_it_is_done(tmp_path):
    planter = Planter(tmp_path / "memory.db", 2, 200)
    erase = everything(planter)
    reader = workers.start("hold_a_snapshot", planter.path)
    assert int(workers.next_line(reader)) > 0
    [secret] = Memory("secret", store=planter.store).namespaces()
    erased = erase()
    assert erased.pending is True
    assert erased.items == secret.items
    assert erased.namespaces == 1
    memory = Memory(secret.name, store=planter.store)
    assert memory.keys() == []
    assert list(memory.conversations()) == []
    assert memory.erase().pending is True
    planter.others[0].set("meanwhile", 1)
    workers.tell(reader)
    assert workers.next_line(reader) == "let go"
    assert memory.erase().pending is False
    assert not planter.left()
    workers.finish(reader)
    planter.store.close()
    assert not planter.left()
    workers.audit(planter.path)


def test_an_erase_that_is_killed_is_whole_or_not_begun_and_can_be_finished(tmp_path):
    planter = Planter(tmp_path / "memory.db", 3, 400)
    everything(planter)
    [secret] = Memory("secret", store=planter.store).namespaces()
    planter.store.close()
    whole = {file.name: file.read_bytes() for file in tmp_path.glob("memory.db*")}
    for _ in range(6):
        for name, content in whole.items():
            (tmp_path / name).write_bytes(content)
        process = workers.start("erase", planter.path, secret.name)
        assert workers.next_line(process) == "ready"
        time.sleep(planter.chance.uniform(0, 0.03))
        workers.kill(process)
        workers.audit(planter.path)
        store = SQLiteStore(str(planter.path))
        memory = Memory(secret.name, store=store)
        left = memory.stats()
        assert (left.items, left.messages) in ((0, 0), (secret.items, secret.messages))
        assert memory.erase().pending is False
        store.close()
        assert not planter.left()
