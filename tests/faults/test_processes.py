"""Several processes share one file: nothing is lost, nobody starves, everybody sees what was acknowledged."""

from __future__ import annotations

import os
import signal
import sys
import time

import apsw
import pytest
from tests.faults import workers

from botwire import Memory
from botwire.stores.sqlite import SQLiteStore


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "memory.db"
    yield path
    workers.audit(path)


def is_long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long", default=False))


def test_eight_processes_count_together_and_lose_nothing(path, request):
    times = 2_000 if is_long(request) else 100
    processes = [workers.start("add", path, times, "increment" if n % 2 else "update") for n in range(8)]
    for process in processes:
        assert workers.next_line(process) == "ready"
    for process in processes:
        workers.tell(process)
    for process in processes:
        workers.finish(process)
    memory = Memory("shared", store=SQLiteStore(str(path)))
    assert memory.get("count") == 8 * times == memory.stats().version


@pytest.mark.parametrize("beginning", ["no file", "an empty file"])
def test_twenty_processes_that_open_a_new_file_at_once_all_succeed(path, beginning, request):
    if beginning == "an empty file":
        path.touch()
    processes = [workers.start("join_the_stampede", path, f"process-{number}") for number in range(20)]
    for process in processes:
        assert workers.next_line(process) == "ready"
    for process in processes:
        workers.tell(process)
    for process in processes:
        workers.finish(process)
    store = SQLiteStore(str(path))
    assert {Memory(f"process-{n}", store=store).get("here") for n in range(20)} == {f"process-{n}" for n in range(20)}
    store.close()
    file = apsw.Connection(str(path))
    assert file.execute("SELECT count(*) FROM store").get == 1
    assert file.execute("SELECT count(*) FROM namespaces").get == 20
    file.close()
    assert not list(path.parent.glob("*.backup-*")), "a new file needs no backup"


@pytest.mark.slow
def test_two_processes_that_write_durably_get_equal_shares_and_wait_for_little(path, request):
    seconds = 5.0 if is_long(request) else 2.0
    processes = [workers.start("write_for", path, seconds, name) for name in ("one", "two")]
    for process in processes:
        assert workers.next_line(process) == "ready"
    for process in processes:
        workers.tell(process)
    results = [workers.finish(process)[-1].split() for process in processes]
    counts = sorted(int(count) for count, _ in results)
    stall = max(float(longest) for _, longest in results)
    print(f"writes {counts}, longest wait {stall * 1_000:.1f} ms in {seconds:g} s")  # noqa: T201  # seen with -s
    assert counts[0] >= counts[1] / 2, f"{counts}: the slower gets at least half of what the faster gets"
    assert stall < seconds / 4, f"one write waited {stall:.2f} of {seconds:g} s"


def test_a_write_is_seen_by_another_process_as_soon_as_it_is_acknowledged(path):
    memory = Memory("shared", store=SQLiteStore(str(path)))
    memory.set("latest", None)
    writer = workers.start("write_on_request", path)
    for number in range(300):
        workers.tell(writer, str(number))
        assert workers.next_line(writer) == str(number)
        if number % 3 == 0:
            assert memory.get("latest") == str(number)
        elif number % 3 == 1:
            assert [item.value for item in memory.items()] == [str(number)]
        else:
            assert memory.get_many(["latest"]) == {"latest": str(number)}
    workers.finish(writer)


def test_a_watcher_that_is_killed_goes_on_by_its_cursor_without_missing_or_repeating_a_change(path):
    count = 400
    start = Memory("watched", store=SQLiteStore(str(path))).cursor()
    cursor, seen = start, list[tuple[str, str, str]]()
    writer = workers.start("write_numbers", path, count)
    while not seen or seen[-1][2] != str(count - 1):
        watcher = workers.start("watch", path, f"after:{cursor}", str(count - 1))
        for _ in range(70):
            assert watcher.stdout is not None
            words = watcher.stdout.readline().split()
            if len(words) < 3:
                break
            seen.append((words[0], words[1], words[2]))
        workers.kill(watcher)
        cursor = seen[-1][0]
    workers.finish(writer)
    assert [int(version) for _, version, _ in seen] == list(range(1, count + 1))
    assert sorted(int(key) for _, _, key in seen) == list(range(count))


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by a signal")
def test_a_process_that_hangs_in_a_write_makes_others_fail_in_time_and_does_not_lose_its_write(path):
    hanging = workers.start("stop_while_writing", path)
    assert workers.next_line(hanging) == "stopping"
    _await_stop(hanging.pid)
    impatient = workers.start("write_impatiently", path)
    assert workers.next_line(impatient) == "read 1"
    for _ in range(2):
        workers.tell(impatient)
        assert workers.next_line(impatient).startswith("StoreBusy ")
    os.kill(hanging.pid, signal.SIGCONT)
    assert workers.next_line(hanging) == "written"
    workers.tell(impatient)
    assert workers.next_line(impatient) == "written"
    for process in (hanging, impatient):
        workers.finish(process)
    memory = Memory("shared", store=SQLiteStore(str(path)))
    assert [(item.key, item.version) for item in memory.items()] == [("before", 1), ("impatient", 3), ("slow", 2)]


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process while it is stopped by a signal")
def test_a_process_that_is_killed_in_the_middle_of_a_write_leaves_no_lock_behind(path):
    hanging = workers.start("stop_while_writing", path)
    assert workers.next_line(hanging) == "stopping"
    _await_stop(hanging.pid)
    workers.kill(hanging)
    memory = Memory("shared", store=SQLiteStore(str(path)))
    memory.set("after", 1)
    assert [(item.key, item.version) for item in memory.items()] == [("after", 2), ("before", 1)]


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + workers.PATIENCE
    while os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_stranger_that_holds_the_files_lock_makes_a_write_fail_in_time(path):
    Memory("shared", store=SQLiteStore(str(path))).set("before", 1)
    stranger, impatient = workers.start("hold_the_lock", path), workers.start("write_impatiently", path)
    assert workers.next_line(stranger) == "locked"
    assert workers.next_line(impatient) == "read 1"
    workers.tell(impatient)
    assert workers.next_line(impatient).startswith("StoreBusy ")
    workers.tell(stranger)
    assert workers.next_line(stranger) == "let go"
    workers.tell(impatient)
    assert workers.next_line(impatient) == "written"
    for process in (stranger, impatient):
        workers.finish(process)
