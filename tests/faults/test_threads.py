"""Threads that share a store: they share commits too, and no one's failure or interruption is another's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
from msgspec import Raw
from tests.faults import workers

from botwire import Conflict, Memory
from botwire.ops import Append, NewMessage, Put
from botwire.stores.sqlite import SQLiteStore

THREADS = 16


def together(count: int, action: Callable[[int], object]) -> None:
    """Run an action on several threads at once; what one raises is raised here."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            barrier.wait()
            action(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(workers.PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    assert not failures, failures[:3]


@pytest.fixture
def store(tmp_path):
    store = SQLiteStore(str(tmp_path / "memory.db"))
    yield store
    store.close()
    workers.audit(tmp_path / "memory.db")


def test_sixteen_threads_increment_one_counter_and_lose_nothing(store):
    memory = Memory("shared", store=store)
    together(THREADS, lambda number: [memory.increment("count") for _ in range(20)])
    assert memory.get("count") == THREADS * 20
    assert memory.stats().version == THREADS * 20


def test_threads_that_take_turns_at_every_moment_lose_nothing_and_hear_of_no_error(store, request):
    turns = 500 if request.config.getoption("--long", default=False) else 40

    def write(number: int) -> None:
        memory = Memory(f"thread-{number}", store=store)
        for turn in range(turns):
            assert memory.conversation("talk").append(turn).version == turn + 1

    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.000_001)
    try:
        together(THREADS, write)
    finally:
        sys.setswitchinterval(usual)
    for number in range(THREADS):
        talk = Memory(f"thread-{number}", store=store).conversation("talk")
        assert [message.value for message in talk] == list(range(turns))


def test_sixteen_threads_write_batches_and_each_is_whole(store):
    def write(number: int) -> None:
        memory = Memory(f"thread-{number}", store=store)
        for turn in range(10):
            with memory.batch() as batch:
                batch.set("a", turn)
                batch.append("talk", turn)
                batch.set("b", turn)
            assert memory.get("a") == memory.get("b") == turn == len(memory.conversation("talk")) - 1

    together(THREADS, write)


def test_a_batch_that_fails_leaves_those_that_share_its_commit_intact(store):
    memory = Memory("shared", store=store)
    memory.set("fixed", "as it was")

    def write(number: int) -> None:
        for turn in range(15):
            key = f"{number}-{turn}"
            ops = [Put("shared", key, Raw(b"1")), Append("shared", "talk", [NewMessage(Raw(b'"%d"' % number))])]
            if number % 2:
                with pytest.raises(Conflict):
                    store.execute([*ops, Put("shared", "fixed", Raw(b"2"), if_version=0)])
                assert memory.get(key) is None
            else:
                store.execute(ops)
                assert memory.get(key) == 1

    together(THREADS, write)
    assert memory.get("fixed") == "as it was"
    assert len(memory) == 1 + THREADS // 2 * 15
    said = [message.value for message in memory.conversation("talk")]
    assert sorted(said) == sorted(str(number) for number in range(0, THREADS, 2) for _ in range(15))
    assert [change.version for change in memory.changes("", limit=10_000)] == list(range(1, memory.stats().version + 1))


def test_a_store_in_memory_is_shared_by_threads_just_so():
    store = SQLiteStore(":memory:")
    memory = Memory("shared", store=store)
    together(THREADS, lambda number: [memory.increment("count") for _ in range(20)])
    assert memory.get("count") == THREADS * 20
    store.close()


@pytest.mark.parametrize("company", ["alone", "followed", "leading", "queueing"])
def test_an_interrupt_at_any_moment_of_a_write_hangs_nobody_and_repeats_nothing(tmp_path, company):
    path = tmp_path / "memory.db"
    [moments] = workers.run("interrupt_everywhere", path, company)
    # A write has some eighty; fewer are left to a thread in company, whose write another one may commit.
    assert int(moments) > (20 if company == "alone" else 10)
    workers.audit(path)


@pytest.mark.slow
def test_interrupts_at_random_hang_nobody_and_repeat_nothing(tmp_path, request):
    interrupts = 30_000 if request.config.getoption("--long", default=False) else 1_500
    path = tmp_path / "memory.db"
    workers.run("interrupt_at_random", path, interrupts, 1)
    workers.audit(path)
