"""Backup, restore and doctor, on real files that other processes have open."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import botwire
from botwire import CursorExpired, InvalidInput, Memory, StoreCorrupt, StoreUnavailable
from botwire.errors import BotWireError
from botwire.stores.sqlite import SQLiteStore, upkeep
from botwire.stores.sqlite.migrations import scripts

CODE = str(Path(botwire.__file__).parents[1])
WRITER = """
import itertools, sys
from botwire import Memory
memory = Memory("pairs", sys.argv[1], durability="relaxed")
for count in itertools.count(1):
    with memory.batch() as batch:
        batch.set("a", [count, "x" * 200])
        batch.set("b", [count, "y" * 200])
        batch.set(f"key-{count % 500}", {"count": count})
    memory.conversation("talk").append({"role": "user", "content": f"number {count}"})
    if count == 1:
        print("ready", flush=True)
"""
READER = """
import sys
from botwire import Memory
memory = Memory("all", sys.argv[1])
keys = [f"key-{number}" for number in range(300)]
seen = []
print("ready", flush=True)
while True:
    values = set(memory.get_many(keys).values())
    if values not in seen:
        seen.append(values)
        print(sorted(values), flush=True)
"""


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process at work on the store; it is killed in the end."""
    command = [sys.executable, "-c", script, url(path)]
    environment = {**os.environ, "PYTHONPATH": CODE}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


def run(script: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", script, *arguments], env={**os.environ, "PYTHONPATH": CODE}).returncode


def fill(path: Path) -> None:
    """A store with something of everything."""
    store = SQLiteStore(str(path), durability="relaxed")
    memory = Memory("acme/user-42", store=store)
    for number in range(40):
        memory.set("long past", {"number": number, "text": os.urandom(200).hex()})  # more than one row holds
    for number in range(200):
        memory.set(f"key-{number}", f"vålue {number}", tags=["ünicode"], ttl=3_600 if number % 3 else None)
    memory.delete("key-7")
    memory.touch("key-8", 60)
    talk = memory.conversation("thread ✓")
    talk.extend([{"role": "user", "content": "hé" * number} for number in range(50)])
    talk.append({"role": "user", "content": "named"}, id="ïd", author="Zoë")
    talk.trim(keep=30)
    talk.redact("ïd")
    Memory("empty", store=store).configure(history=3)
    Memory("other", store=store).set("key-1", "of another")
    Memory("erased", store=store).set("gone", 1)
    Memory("erased", store=store).erase()
    store.close()


def content(path: Path) -> dict[str, Any]:
    """Everything in the store, by namespace."""
    store = SQLiteStore(str(path))
    found = {
        each.name: list(Memory(each.name, store=store).records())
        for each in Memory("acme", store=store).ask(_ALL).namespaces
    }
    store.close()
    return found


_ALL = botwire.ops.Namespaces("", limit=1_000)


def two_stores(folder: Path) -> tuple[Path, Path]:
    """An old store of many pages, and a new one."""
    places = folder / "memory.db", folder / "other.db"
    for place, value in zip(places, ("old", "new"), strict=True):
        memory = Memory("all", url(place), durability="relaxed")
        for number in range(20):
            memory.set(f"ballast-{number}", os.urandom(200_000).hex())
        memory.set("key", value)
        memory.close()
    return places


def items(path: Path) -> dict[str, dict[str, Any]]:
    """The values in the store, by namespace and key."""
    store = SQLiteStore(str(path))
    found = {
        each.name: {item.key: item.value for item in Memory(each.name, store=store).items()}
        for each in Memory("acme", store=store).ask(_ALL).namespaces
    }
    store.close()
    return found


def states(path: Path) -> dict[str, str]:
    return {check.name: check.state for check in upkeep.examine(path)}


def is_sound(path: Path) -> bool:
    return set(states(path).values()) == {"ok"}


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder, and a hash of what is in it."""
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def edit(path: Path, *statements: str) -> None:
    """Change the file behind botwire's back."""
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def damage(path: Path) -> None:
    """Overwrite the pages of the items."""
    connection = apsw.Connection(str(path))
    page: int = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'items'").get
    connection.close()
    overwrite(path, (page - 1) * 4_096, b"\x5a" * 4_096)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with something of everything; closed."""
    folder = tmp_path / "store"
    folder.mkdir()
    fill(folder / "memory.db")
    return folder / "memory.db"


@pytest.fixture
def copy(tmp_path: Path, path: Path) -> Path:
    """A backup of it."""
    upkeep.backup(path, tmp_path / "copy.db")
    return tmp_path / "copy.db"


# ── backup ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_backup_holds_all_that_the_store_held(path, tmp_path):
    size = upkeep.backup(path, tmp_path / "copy.db")
    assert size == (tmp_path / "copy.db").stat().st_size
    assert content(tmp_path / "copy.db") == content(path)
    assert is_sound(tmp_path / "copy.db")


def test_a_backup_is_one_file_and_leaves_nothing_beside_it(path, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    upkeep.backup(path, folder / "copy.db")
    assert [file.name for file in folder.iterdir()] == ["copy.db"]


def test_backups_while_another_process_writes_are_each_one_moment_of_the_store(tmp_path):
    path = tmp_path / "memory.db"
    with process(WRITER, path):
        store = SQLiteStore(str(path))
        live = Memory("pairs", store=store)
        for round_ in range(5):
            target = tmp_path / f"copy-{round_}.db"
            before = live.get("a")[0]
            upkeep.backup(path, target)
            after = live.get("b")[0]
            kept = Memory("pairs", url(target))
            assert kept.get("a")[0] == kept.get("b")[0]
            assert before <= kept.get("a")[0] <= after
            assert kept.stats().messages == len(kept.conversation("talk").messages())
            kept.close()
            assert is_sound(target)
        store.close()


def test_what_is_written_while_a_backup_is_made_waits_for_nothing_and_is_not_in_it(tmp_path):
    path, _ = two_stores(tmp_path)
    store = SQLiteStore(str(path))
    memory = Memory("all", store=store)
    assert memory.get("key") == "old"
    written: list[int] = []

    def write(done: int, total: int) -> None:
        written.append(memory.set("now", done).version)
        assert len(written) < 100, "the backup begins again with each write"

    upkeep.backup(path, tmp_path / "copy.db", progress=write)
    assert len(written) > 1
    assert memory.get("now") is not None
    assert Memory("all", url(tmp_path / "copy.db")).get("now") is None
    assert is_sound(tmp_path / "copy.db")
    store.close()


def test_a_backup_of_many_pages_says_how_far_it_is(tmp_path):
    store = SQLiteStore(str(tmp_path / "big.db"), durability="relaxed")
    memory = Memory("big", store=store)
    for number in range(12):
        memory.set(f"key-{number}", os.urandom(400_000).hex())
    steps: list[tuple[int, int]] = []
    upkeep.backup(tmp_path / "big.db", tmp_path / "copy.db", progress=lambda done, total: steps.append((done, total)))
    store.close()
    assert len(steps) > 2
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert len({total for _, total in steps}) == 1
    assert steps[-1][0] == steps[-1][1]


def test_a_backup_overwrites_nothing_unless_forced(path, tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    with pytest.raises(InvalidInput, match="exists"):
        upkeep.backup(path, target)
    assert target.read_text() == "precious"
    upkeep.backup(path, target, force=True)
    assert content(target) == content(path)


@pytest.mark.parametrize("force", [False, True])
def test_a_backup_never_overwrites_the_store_itself(path, tmp_path, force):
    before = content(path)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    for target in (path, link):
        with pytest.raises(InvalidInput, match="store itself"):
            upkeep.backup(path, target, force=force)
    assert content(path) == before


def test_a_backup_never_overwrites_a_store_that_is_open(path, tmp_path):
    other = SQLiteStore(str(tmp_path / "other.db"))
    memory = Memory("live", store=other)
    memory.set("key", "live")
    with pytest.raises(InvalidInput, match="open as a store"):
        upkeep.backup(path, tmp_path / "other.db", force=True)
    assert memory.get("key") == "live"
    other.close()


@pytest.mark.parametrize("source", ["missing.db", "folder", ":memory:", ""])
def test_what_is_no_file_cannot_be_backed_up(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises((InvalidInput, StoreUnavailable)):
        upkeep.backup(source, tmp_path / "copy.db")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_backup_into_a_folder_that_is_not_there_is_an_error_that_says_so(path, tmp_path):
    with pytest.raises(StoreUnavailable, match="no-such"):
        upkeep.backup(path, tmp_path / "no-such" / "copy.db")
    with pytest.raises(InvalidInput, match="folder"):
        upkeep.backup(path, tmp_path)


def test_what_is_no_store_is_not_backed_up(tmp_path):
    (tmp_path / "text.db").write_text("no store at all\n" * 1_000)
    edit(tmp_path / "foreign.db", "CREATE TABLE notes (text)")
    for name in ("text.db", "foreign.db"):
        with pytest.raises(StoreCorrupt, match=name):
            upkeep.backup(tmp_path / name, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_damaged_store_never_takes_the_place_of_a_good_backup(path, tmp_path, copy):
    before = copy.read_bytes()
    damage(path)
    with pytest.raises(StoreCorrupt):
        upkeep.backup(path, copy, force=True)
    assert copy.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "store"]


def test_an_interrupted_backup_leaves_what_was_there_before(path, tmp_path, copy):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = copy.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        upkeep.backup(path, copy, force=True, progress=interrupt)
    assert copy.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "store"]
    assert is_sound(path)


def test_a_killed_backup_leaves_no_file_of_that_name(path, tmp_path):
    script = """
import os, sys
from botwire.stores.sqlite import upkeep
upkeep.backup(*sys.argv[1:], progress=lambda done, total: os._exit(9))
"""
    assert run(script, str(path), str(tmp_path / "copy.db")) == 9
    assert not (tmp_path / "copy.db").exists()
    assert is_sound(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_backup_is_as_private_as_the_store(path, tmp_path):
    path.chmod(0o600)
    upkeep.backup(path, tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["with space.db", "100%.db", "a?b#c.db", "übung%20.db", "-dash.db", "[1].db"])
def test_names_may_hold_what_urls_quote(path, tmp_path, name):
    upkeep.backup(path, tmp_path / name)
    upkeep.restore(tmp_path / name, tmp_path / f"back {name}")
    assert content(tmp_path / f"back {name}") == content(path)
    assert is_sound(tmp_path / f"back {name}")


def test_a_store_that_is_opened_while_it_is_backed_up_is_copied_afresh(tmp_path):
    path, _ = two_stores(tmp_path)
    opened: list[Memory] = []

    def open_and_write(done: int, total: int) -> None:
        if not opened:
            opened.append(Memory("all", url(path)))
            opened[0].set("key", "written meanwhile")

    upkeep.backup(path, tmp_path / "copy.db", progress=open_and_write)
    assert Memory("all", url(tmp_path / "copy.db")).get("key") == "written meanwhile"
    assert is_sound(tmp_path / "copy.db")


def test_a_store_that_only_another_process_has_open_is_backed_up_with_what_stands_in_its_log(tmp_path):
    path = tmp_path / "memory.db"
    with process(WRITER, path):
        time.sleep(0.1)
        assert Path(f"{path}-wal").stat().st_size
        upkeep.backup(path, tmp_path / "copy.db")
    assert items(tmp_path / "copy.db")["pairs"]["a"][0] >= 1


# ── restore ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_restored_store_equals_the_one_that_was_backed_up(path, copy, tmp_path):
    size = upkeep.restore(copy, tmp_path / "new.db")
    assert size == (tmp_path / "new.db").stat().st_size
    assert content(tmp_path / "new.db") == content(path)
    assert is_sound(tmp_path / "new.db")


def test_feeds_go_on_in_a_store_that_is_restored_to_an_empty_place(path, copy, tmp_path):
    before = Memory("other", url(path)).changes("")
    upkeep.restore(copy, tmp_path / "new.db")
    assert Memory("other", url(tmp_path / "new.db")).changes("") == before


def test_a_store_that_holds_something_is_replaced_only_by_force(path, copy, tmp_path):
    Memory("acme/user-42", url(path)).set("key-1", "newer")
    before = content(path)
    with pytest.raises(InvalidInput, match=r"holds 3 namespaces.*--force"):
        upkeep.restore(copy, path)
    assert content(path) == before
    upkeep.restore(copy, path, force=True)
    assert items(path) == items(copy)
    assert is_sound(path)


def test_history_and_messages_come_back_over_a_store_in_use(path, copy):
    memory, kept = Memory("acme/user-42", url(path)), Memory("acme/user-42", url(copy))
    memory.clear()
    memory.set("long past", "overwritten")
    upkeep.restore(copy, path, force=True)
    for key in ("long past", "key-7", "key-8"):
        assert memory.history(key) == kept.history(key)
    assert memory.conversation("thread ✓").messages() == kept.conversation("thread ✓").messages()
    memory.undo("key-7")
    assert memory.get("key-7") == "vålue 7"


def test_processes_that_have_the_store_open_see_the_old_or_the_new_one_never_a_mixture(tmp_path):
    keys = [f"key-{number}" for number in range(300)]
    path, other = tmp_path / "memory.db", tmp_path / "other.db"
    for place, value in ((path, "old"), (other, "new")):
        memory = Memory("all", url(place), durability="relaxed")
        memory.set_many(dict.fromkeys(keys, value))
        memory.set("ballast", os.urandom(400_000).hex())
        memory.close()
    with process(READER, path) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "['old']\n"
        upkeep.restore(other, path, force=True)
        assert reader.stdout.readline() == "['new']\n"
    assert is_sound(path)


def test_a_writer_in_another_process_goes_on_in_the_restored_store(tmp_path):
    path = tmp_path / "memory.db"
    with process(WRITER, path):
        upkeep.backup(path, tmp_path / "copy.db")
        for _ in range(3):
            upkeep.restore(tmp_path / "copy.db", path, force=True)
        memory = Memory("pairs", url(path))
        seen = memory.get("a")[0]
        for _ in range(200):
            if memory.get("a")[0] > seen:
                break
            time.sleep(0.05)
        assert memory.get("a")[0] > seen
        memory.close()
    assert is_sound(path)


def test_nobody_sees_another_namespace_under_an_id_that_he_remembers(path, copy):
    store = SQLiteStore(str(path))
    later = Memory("made after the backup", store=store)
    later.set("key", "mine")
    assert later.get("key") == "mine"
    upkeep.restore(copy, path, force=True)
    other = Memory("made after the restore", url(path))
    other.set("key", "not yours")
    assert later.get("key") is None
    later.set("key", "mine again")
    assert other.get("key") == "not yours"
    store.close()


@pytest.mark.parametrize("subtree", [False, True])
def test_cursors_from_before_a_restore_expire(path, copy, subtree):
    store = SQLiteStore(str(path))
    memory = Memory("other", store=store)
    cursors = [memory.cursor(subtree=subtree)]
    memory.set("key-1", "after the backup")
    cursors.append(memory.cursor(subtree=subtree))
    upkeep.restore(copy, path, force=True)
    for _ in range(20):
        memory.set("key-1", "after the restore")
    for cursor in cursors:
        with pytest.raises(CursorExpired):
            memory.changes(cursor, subtree=subtree)
    assert len(memory.changes("", subtree=subtree)) == 20
    store.close()


def test_versions_go_on_above_those_that_the_replaced_store_had_given_out(path, copy):
    store = SQLiteStore(str(path))
    memory, fresh = Memory("other", store=store), Memory("fresh", store=store)
    highest = max(memory.set("key-1", number).version for number in range(500))
    fresh.set("key", 1)
    upkeep.restore(copy, path, force=True)
    assert memory.set("key-1", "again").version > highest
    assert fresh.set("key", "again").version > highest
    store.close()


def test_an_empty_backup_replaces_a_full_store_and_no_id_comes_twice(path, tmp_path):
    SQLiteStore(str(tmp_path / "empty.db")).open().close()
    store = SQLiteStore(str(path))
    memory = Memory("other", store=store)
    assert memory.get("key-1") == "of another"
    upkeep.restore(tmp_path / "empty.db", path, force=True)
    Memory("new", store=store).set("key-1", "of the new one")
    Memory("newer", store=store).set("key-1", "of the newer one")
    assert memory.get("key-1") is None
    store.close()
    assert is_sound(path)


def break_truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def break_text(file: Path) -> None:
    file.write_text("this is no backup\n" * 500)


def break_empty(file: Path) -> None:
    file.write_bytes(b"")


def break_newer(file: Path) -> None:
    edit(file, f"PRAGMA user_version = {len(scripts()) + 1}")


def break_foreign(file: Path) -> None:
    file.unlink()
    edit(file, "CREATE TABLE notes (text)")


def break_damaged(file: Path) -> None:
    damage(file)


BREAKS = [break_truncated, break_text, break_empty, break_newer, break_foreign, break_damaged]
breaks = pytest.mark.parametrize("break_", BREAKS, ids=lambda each: each.__name__.removeprefix("break_"))


@breaks
@pytest.mark.parametrize("force", [False, True])
def test_a_bad_backup_is_refused_before_anything_is_touched(path, copy, tmp_path, break_, force):
    break_(copy)
    before = fingerprint(tmp_path)
    for target in (path, tmp_path / "new.db"):
        with pytest.raises(BotWireError, match=r"copy\.db|holds 3 namespaces"):
            upkeep.restore(copy, target, force=force)
    assert fingerprint(tmp_path) == before


def test_a_restore_of_what_is_not_there_is_an_error(path, tmp_path):
    for source in (tmp_path / "missing.db", tmp_path):
        with pytest.raises(StoreUnavailable):
            upkeep.restore(source, path, force=True)
    with pytest.raises(InvalidInput, match="store itself"):
        upkeep.restore(path, path, force=True)
    assert is_sound(path)


def test_a_restore_to_a_place_that_cannot_be_is_an_error(copy, tmp_path):
    for target in (tmp_path / "no-such" / "memory.db", tmp_path):
        with pytest.raises(StoreUnavailable):
            upkeep.restore(copy, target, force=True)
    with pytest.raises(InvalidInput):
        upkeep.restore(copy, ":memory:")


@pytest.mark.parametrize("break_", [break_truncated, break_text, break_damaged], ids=lambda each: each.__name__)
def test_a_damaged_store_is_moved_aside_by_force_only(path, copy, break_):
    good = items(path)
    break_(path)
    broken = path.read_bytes()
    if break_ is not break_damaged:  # of that one the beginning is readable, and says that it holds something
        with pytest.raises(StoreCorrupt, match="--force"):
            upkeep.restore(copy, path)
    else:
        with pytest.raises(InvalidInput, match="--force"):
            upkeep.restore(copy, path)
    assert path.read_bytes() == broken
    upkeep.restore(copy, path, force=True)
    assert items(path) == good
    assert is_sound(path)
    aside = list(path.parent.glob("memory.db.damaged-*"))
    assert break_ is break_damaged or [file.read_bytes() for file in aside] == [broken]


@pytest.mark.parametrize("force", [False, True])
def test_somebody_elses_database_is_never_replaced(copy, tmp_path, force):
    edit(tmp_path / "notes.db", "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('precious')")
    before = fingerprint(tmp_path)
    with pytest.raises(StoreCorrupt, match="not of botwire"):
        upkeep.restore(copy, tmp_path / "notes.db", force=force)
    assert fingerprint(tmp_path) == before


def test_a_newer_store_is_never_replaced(path, copy):
    break_newer(path)
    with pytest.raises(StoreCorrupt, match="newer botwire"):
        upkeep.restore(copy, path, force=True)


@pytest.mark.parametrize("share", [0.1, 0.75])
def test_an_interrupted_restore_leaves_the_store_as_it_was(tmp_path, share):
    def interrupt(done: int, total: int) -> None:
        if done >= share * total:
            raise KeyboardInterrupt

    path, other = two_stores(tmp_path)
    before = content(path)
    with pytest.raises(KeyboardInterrupt):
        upkeep.restore(other, path, force=True, progress=interrupt)
    assert content(path) == before
    assert is_sound(path)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("new", [False, True])
def test_a_killed_restore_leaves_the_old_store_or_none(tmp_path, new):
    script = """
import os, sys
from botwire.stores.sqlite import upkeep
upkeep.restore(*sys.argv[1:], force=True, progress=lambda done, total: done > 0.7 * total and os._exit(9))
"""
    path, other = two_stores(tmp_path)
    if new:
        path.unlink()
    assert run(script, str(other), str(path)) == 9
    assert Memory("all", url(path)).get("key") == (None if new else "old")
    Memory("all", url(path)).set("key", "goes on")
    assert is_sound(path)


def test_what_stands_only_in_the_log_of_the_backup_is_restored(tmp_path):
    source = tmp_path / "memory.db"
    with process(WRITER, source):
        time.sleep(0.1)
    assert Path(f"{source}-wal").stat().st_size  # it was killed: nobody has emptied its log
    for name in ("memory.db", "memory.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / f"moved-{name}")
    upkeep.restore(tmp_path / "moved-memory.db", tmp_path / "new.db")
    assert items(tmp_path / "new.db") == items(source)


# ── the doctor ──────────────────────────────────────────────────────────────────────────────────────


def found(path: Path, name: str) -> upkeep.Check:
    return next(check for check in upkeep.examine(path) if check.name == name)


def test_the_doctor_finds_nothing_wrong_with_a_sound_store(path):
    checks = upkeep.examine(path)
    assert {check.state for check in checks} == {"ok"}
    names = [
        "file",
        "store",
        "integrity",
        "counters",
        "orphans",
        "search",
        "imports",
        "log",
        "backups",
        "SQLite",
        "space",
    ]
    assert [check.name for check in checks] == [*names, "file system"]


def test_the_doctor_changes_nothing(path, tmp_path):
    before = fingerprint(tmp_path)
    upkeep.examine(path)
    assert fingerprint(tmp_path) == before


def test_the_doctor_finds_nothing_wrong_with_a_store_at_work(tmp_path):
    path = tmp_path / "memory.db"
    with process(WRITER, path):
        for _ in range(10):
            checks = upkeep.examine(path)
            assert [check for check in checks if check.state != "ok"] == []


PLANTED = {
    "items": (
        "counters",
        "UPDATE namespaces SET items = items + 1 WHERE name = 'other'",
        "'other' says 2 items, and 1",
    ),
    "negative": ("counters", "UPDATE namespaces SET messages = -5 WHERE name = 'other'", "says -5 messages, and 0"),
    "conversations": (
        "counters",
        "UPDATE namespaces SET conversations = 9 WHERE name = 'acme/user-42'",
        "says 9 conversations, and 1",
    ),
    "bytes": ("counters", "UPDATE namespaces SET bytes = bytes - 1 WHERE name = 'acme/user-42'", "bytes, and"),
    "value": ("counters", "UPDATE items SET value = '\"longer than before\"' WHERE key = 'key-1'", "bytes, and"),
    "conversation": (
        "counters",
        "UPDATE conversations SET messages = 1",
        "conversation 'thread ✓' in 'acme/user-42' says 1",
    ),
    "lost message": ("counters", "DELETE FROM messages WHERE role = 'user' AND place % 2", "messages, and"),
    "namespace row": ("orphans", "DELETE FROM namespaces WHERE name = 'other'", "1 items of no namespace"),
    "item": ("orphans", "DELETE FROM items WHERE key = 'long past'", "past values of no item"),
    "change": ("orphans", "INSERT INTO changes VALUES (99999, 77, 1, 1, 0, 'x')", "1 changes of no namespace"),
    "index of feed": ("orphans", "INSERT INTO changes_of_namespace VALUES (1, 99999, 99999)", "1 entries of no change"),
    "revision": ("orphans", "INSERT INTO revisions VALUES (77, 'x', 1, x'90')", "1 past values of no namespace"),
    "talk": ("orphans", "UPDATE conversations SET namespace = 77", "1 conversations of no namespace"),
    "message": ("orphans", "DELETE FROM conversations", "messages of no conversation"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_doctor_finds_a_planted_fault(path, fault):
    name, statement, words = PLANTED[fault]
    edit(path, statement)
    check = found(path, name)
    assert check.state == "failed"
    assert words in check.found
    assert check.advice


def test_many_faults_are_told_in_a_few_words(path):
    store = SQLiteStore(str(path))
    for number in range(50):
        Memory(f"space-{number}", store=store).set("key", 1)
    store.close()
    edit(path, "UPDATE namespaces SET items = 7 WHERE name LIKE 'space-%'")
    assert found(path, "counters").found.endswith("; and 45 more")


def test_the_doctor_tells_of_an_import_that_was_cut_off(path):
    store = SQLiteStore(str(path))
    records = list(Memory("other", store=store).records())
    Memory("half", store=store).ask(botwire.ops.Load("half", records[:1]))
    store.close()
    check = found(path, "imports")
    assert check.state == "warning"
    assert "'half'" in check.found


def test_the_doctor_tells_of_a_truncated_file(path):
    os.truncate(path, 3 * 4_096)
    assert "failed" in states(path).values()


def test_the_doctor_tells_of_a_damaged_page(path):
    damage(path)
    assert states(path)["integrity"] == "failed"
    assert "restore" in found(path, "integrity").advice


def test_the_doctor_tells_of_an_index_that_misses_a_row(path):
    inverted = "replace(sql, 'expires IS NOT NULL', 'expires IS NULL')"
    edit(
        path,
        "PRAGMA writable_schema = on",
        f"UPDATE sqlite_schema SET sql = {inverted} WHERE name = 'items_expiring'",
    )
    assert states(path)["integrity"] == "failed"


@pytest.mark.parametrize(
    "break_", [break_text, break_empty, break_newer, break_foreign], ids=lambda each: each.__name__
)
def test_the_doctor_tells_what_is_no_store_of_ours(path, break_):
    break_(path)
    check = found(path, "store")
    assert check.state == "failed"
    assert check.advice


def test_the_doctor_tells_that_nothing_is_there(tmp_path):
    assert found(tmp_path / "missing.db", "file").state == "failed"
    assert found(tmp_path, "file").state == "failed"
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_tells_of_a_log_that_has_grown(path):
    log = Path(f"{path}-wal")
    log.touch()
    os.truncate(log, upkeep.MUCH_LOG + 1)  # takes no space
    assert found(path, "log").state == "warning"


def test_the_doctor_tells_of_what_migrations_have_left(path):
    shutil.copy(path, f"{path}.backup-schema1-20260101-000000")
    check = found(path, "backups")
    assert check.state == "warning"
    assert "backup-schema1" in check.found


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everything")
def test_the_doctor_tells_of_a_file_that_cannot_be_written(path):
    path.chmod(0o400)
    assert found(path, "file").state == "warning"


def test_the_doctor_reads_a_store_from_a_folder_that_holds_nothing_else(path, tmp_path):
    folder = tmp_path / "medium"
    folder.mkdir()
    shutil.copy(path, folder / "memory.db")
    assert is_sound(folder / "memory.db")
    assert [file.name for file in folder.iterdir()] == ["memory.db"]


@pytest.mark.parametrize(
    ("version", "state"),
    [("3.40.1", "failed"), ("3.51.2", "failed"), ("3.51.3", "ok"), ("3.54.1", "ok"), ("4.0", "ok")],
)
def test_a_sqlite_that_can_damage_files_is_told(version, state):
    assert upkeep.check_sqlite(version).state == state


@pytest.mark.parametrize(("size", "free", "state"), [(100, 200, "ok"), (100, 199, "warning"), (0, 0, "ok")])
def test_a_disk_must_have_room_for_twice_the_file(size, free, state):
    assert upkeep.check_space(size, free).state == state


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
//nas/share /mnt/my\\040share cifs rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
server:/x /homestead nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "state"),
    [
        ("/var/lib/memory.db", "ext4", "ok"),
        ("/home/ada/memory.db", "nfs4", "warning"),
        ("/home/local/memory.db", "xfs", "ok"),
        ("/homework/memory.db", "ext4", "ok"),
        ("/mnt/my share/memory.db", "cifs", "warning"),
    ],
)
def test_network_file_systems_are_told(path, kind, state):
    assert upkeep.file_system(path, MOUNTS) == kind
    assert upkeep.check_mount(kind).state == state


def test_a_file_system_that_is_not_known_is_no_fault():
    assert upkeep.file_system("/x", "") == ""
    assert upkeep.file_system("/x", "nonsense\n\n") == ""
    assert upkeep.check_mount("").state == "ok"
