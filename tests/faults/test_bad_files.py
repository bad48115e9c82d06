"""Whatever lies at the path of a store, the error says what it is, and the file stays byte for byte as it was."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from tests.faults import workers

from botwire import Memory
from botwire.errors import BotWireError, StoreCorrupt, StoreUnavailable
from botwire.stores.sqlite import SQLiteStore
from botwire.stores.sqlite.migrations import scripts


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


def filled(path: Path) -> None:
    """A store with some thousand items."""
    store = SQLiteStore(str(path), durability="relaxed")
    for number in range(20):
        Memory("user-42", store=store).set_many({f"key-{number}-{each}": "x" * 100 for each in range(100)})
    store.close()


def refuses_to_read_and_write(path: Path, error: type[BotWireError], *words: str) -> None:
    """Each of the first two uses raises the error, with these words."""
    uses: list[Callable[[Memory], object]] = [lambda memory: memory.get("key-1-1"), lambda memory: memory.set("key", 1)]
    for use in uses:
        store = SQLiteStore(str(path))
        with pytest.raises(error) as caught:
            use(Memory("user-42", store=store))
        store.close()
        for word in words:
            assert word in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    refuses_to_read_and_write(tmp_path / "nowhere" / "memory.db", StoreUnavailable, str(tmp_path / "nowhere"), "create")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    refuses_to_read_and_write(folder, StoreUnavailable, "is a folder")
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 500, b"hello", b"\x00" * 10_000, bytes(range(256)) * 64])
def test_a_file_that_is_no_database_is_left_as_it_is(path, content):
    path.write_bytes(content)
    refuses_to_read_and_write(path, StoreCorrupt, str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_another_programs_database_is_left_as_it_is(path, mode):
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA journal_mode = {mode}")
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.execute("INSERT INTO bookmarks VALUES ('https://example.org')")
    other.commit()
    other.close()
    before = path.read_bytes()
    refuses_to_read_and_write(path, StoreCorrupt, "not of botwire", "another path")
    assert path.read_bytes() == before
    again = sqlite3.connect(path)
    assert again.execute("SELECT url FROM bookmarks").fetchall() == [("https://example.org",)]
    again.close()


def test_another_programs_application_id_is_respected_even_without_tables(path):
    other = apsw.Connection(str(path))
    other.execute("PRAGMA application_id = 1234")
    other.close()
    before = path.read_bytes()
    refuses_to_read_and_write(path, StoreCorrupt, "not of botwire")
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_store(path):
    path.touch()
    store = SQLiteStore(str(path))
    Memory("user-42", store=store).set("key", 1)
    store.close()
    assert Memory("user-42", store=SQLiteStore(str(path))).get("key") == 1
    workers.audit(path)


def test_the_file_of_a_newer_botwire_is_left_as_it_is(path):
    filled(path)
    newer = apsw.Connection(str(path))
    newer.execute(f"PRAGMA user_version = {len(scripts()) + 1}")
    newer.close()
    before = path.read_bytes()
    refuses_to_read_and_write(path, StoreCorrupt, "newer botwire", "upgrade")
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.backup-*"))


@pytest.mark.parametrize("kept", [100, 4_096, 5_000, 40_000])
def test_a_truncated_file_is_reported_and_left_as_it_is(path, kept):
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    store = SQLiteStore(str(path))
    with pytest.raises(StoreCorrupt) as caught:
        Memory("user-42", store=store).keys()
    store.close()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == whole[:kept]


def test_garbage_in_a_page_is_reported_where_it_shows_and_never_spreads(path):
    filled(path)
    whole = path.read_bytes()
    assert sum(_reports_of(path, whole, number) for number in range(3, len(whole) // 4_096, 7)) > 3


def _reports_of(path: Path, whole: bytes, page: int) -> int:
    damaged = bytearray(whole)
    damaged[page * 4_096 : page * 4_096 + 600] = bytes((number * 37 + page) % 256 for number in range(600))
    path.write_bytes(damaged)
    store = SQLiteStore(str(path))
    memory = Memory("user-42", store=store)
    reports = 0
    uses: list[Callable[[], object]] = [
        memory.keys,
        lambda: list(memory.items()),
        lambda: memory.changes("", limit=10_000),
        memory.stats,
    ]
    for use in uses:
        try:
            use()
        except StoreCorrupt as error:
            reports += "botwire doctor" in str(error)
    store.close()
    assert path.read_bytes() == damaged
    return reports


def test_a_write_that_meets_a_damaged_page_fails_whole_and_says_so(path):
    filled(path)
    whole = bytearray(path.read_bytes())
    for page in range(10, len(whole) // 4_096):
        whole[page * 4_096 : page * 4_096 + 8] = b"\xff" * 8
    path.write_bytes(whole)
    store = SQLiteStore(str(path))
    with pytest.raises(StoreCorrupt):
        Memory("user-42", store=store).set_many({f"key-{number}-{number}": 2 for number in range(20)})
    store.close()
    assert path.read_bytes() == whole


def test_the_side_files_of_a_lost_file_do_not_spoil_a_new_one(path):
    filled(path)
    shutil.copy(path, path.with_suffix(".copy"))
    path.unlink()
    store = SQLiteStore(str(path))
    assert Memory("user-42", store=store).keys() == []
    Memory("user-42", store=store).set("key", 1)
    store.close()
    workers.audit(path)
    workers.audit(path.with_suffix(".copy"))
