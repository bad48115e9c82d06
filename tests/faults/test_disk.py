"""Disks fill up, refuse to flush, and forbid: each time the error says so, and nothing that was stored is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.faults import workers

from botwire import Memory
from botwire.stores.sqlite import SQLiteStore

needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can do this")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is refused here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_told_reading_goes_on_and_writing_too_once_there_is_room(small_disk):
    path, ballast = small_disk / "memory.db", small_disk / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    told, after = workers.run("fill_disk", path, ballast)
    assert told.startswith("StoreFull ")
    assert str(path) in told
    assert "Free some space" in told
    count, value = after.split()
    assert value == "1"
    memory = Memory("full", store=SQLiteStore(str(path)))
    assert len(memory) == int(count) + 2
    assert all(memory.get(f"key-{number}")[0] == number for number in range(int(count)))
    memory._opened().close()
    workers.audit(path)


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_without_room_for_a_new_file_is_told_and_the_file_can_be_made_later(small_disk):
    path, ballast = small_disk / "memory.db", small_disk / "ballast"
    with ballast.open("wb") as file:
        while os.statvfs(small_disk).f_bavail > 2:
            file.write(b"x" * os.statvfs(small_disk).f_frsize)
            file.flush()
    told = workers.run("set_once", path)
    assert told[0].startswith("StoreFull ")
    ballast.unlink()
    assert workers.run("set_once", path) == ["written"]
    workers.audit(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_limit_on_the_size_of_files_is_told_and_nothing_is_lost(tmp_path):
    path = tmp_path / "memory.db"
    told, after = workers.run("fill_allowance", path, 1_000_000)
    assert told.startswith(("StoreFull ", "StoreError "))
    assert str(path) in told
    acknowledged, found, value = after.split()
    assert int(found) == int(acknowledged) > 10
    assert value == "1"
    workers.audit(path)


@pytest.fixture
def open_folder():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def of_nobody(path: Path) -> dict[str, str]:
    """What a user who owns nothing is told when reading and writing."""
    lines = workers.run("use_as_nobody", path)
    return dict(line.split(" ", 1) for line in lines)


def is_refusal(answer: str, path: Path) -> bool:
    return answer.startswith(("StoreReadOnly ", "StoreUnavailable ")) and str(path.parent) in answer


def filled(path: Path) -> None:
    store = SQLiteStore(str(path))
    Memory("shared", store=store).set("key", 1)
    store.close()


@needs_root
def test_a_file_and_folder_that_may_only_be_read_say_so(open_folder):
    path = open_folder / "memory.db"
    filled(path)
    before = path.read_bytes()
    told = of_nobody(path)
    assert is_refusal(told["write"], path), told
    assert told["read"] == "value 1" or is_refusal(told["read"], path), told
    assert path.read_bytes() == before


@needs_root
def test_a_file_that_may_only_be_read_in_a_folder_that_may_be_written_says_so(open_folder):
    path = open_folder / "memory.db"
    filled(path)
    open_folder.chmod(0o777)
    before = path.read_bytes()
    told = of_nobody(path)
    assert is_refusal(told["write"], path), told
    assert told["read"] == "value 1" or is_refusal(told["read"], path), told
    assert path.read_bytes() == before


@needs_root
def test_a_file_that_another_user_has_open_can_not_be_written_without_the_right_to(open_folder):
    path = open_folder / "memory.db"
    store = SQLiteStore(str(path))
    memory = Memory("shared", store=store)
    memory.set("key", 1)
    told = of_nobody(path)
    assert is_refusal(told["write"], path), told
    assert told["read"] == "value 1" or is_refusal(told["read"], path), told
    memory.set("key", 2)
    assert memory.get("key") == 2
    store.close()
    workers.audit(path)


@needs_root
def test_a_file_that_may_not_even_be_read_says_so(open_folder):
    path = open_folder / "memory.db"
    filled(path)
    path.chmod(0o600)
    told = of_nobody(path)
    assert is_refusal(told["read"], path), told
    assert is_refusal(told["write"], path), told


@needs_root
def test_a_new_file_in_a_folder_that_may_not_be_written_says_so(open_folder):
    path = open_folder / "memory.db"
    told = of_nobody(path)
    assert is_refusal(told["read"], path), told
    assert is_refusal(told["write"], path), told
    assert list(open_folder.iterdir()) == []


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void) { const char *trigger = getenv("FAILING_SYNC"); return trigger && access(trigger, F_OK) == 0; }

#define SYNC(name) \\
    int name(int descriptor) { \\
        static int (*real)(int); \\
        if (fails()) { errno = EIO; return -1; } \\
        if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, #name); \\
        return real(descriptor); \\
    }
SYNC(fsync)
SYNC(fdatasync)
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """A library that makes flushing fail for as long as a trigger file exists."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler, to make flushing fail")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


def test_when_the_disk_refuses_to_flush_writing_stops_until_reopened_and_nothing_acknowledged_is_lost(tmp_path, shim):
    path, trigger = tmp_path / "memory.db", tmp_path / "trigger"
    said = workers.run("survive_failing_sync", path, trigger, LD_PRELOAD=str(shim), FAILING_SYNC=str(trigger))
    assert len(said) == 4
    assert said[0].startswith("StoreError ")
    assert all(line.startswith("StoreError ") and "opened again" in line for line in said[1:3]), said
    assert said[3] == "written"
    memory = Memory("sync", store=SQLiteStore(str(path)))
    assert [memory.get(f"key-{number}") for number in range(20)] == list(range(20))
    assert memory.get("reopened") == 1
    assert memory.get("again") is memory.get("after") is None, "what was refused is not there"
    memory._opened().close()
    workers.audit(path)
