"""`AsyncSQLiteStore` under its faces: how the writes of event loops come together."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import pytest
from msgspec import Raw

from botwire.errors import Conflict, StoreUnavailable
from botwire.ops import Get, Put
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire.stores.sqlite.commits import Request


@pytest.fixture
def store(tmp_path):
    made = SQLiteStore(str(tmp_path / "memory.db")).open()
    yield AsyncSQLiteStore(made)
    made.close()


def put(key, value=b"1", **more):
    return [Put("user-42", key, Raw(value), **more)]


async def test_writes_that_come_together_share_commits(store):
    groups = []
    run = store.store._commits._run

    def counting(requests):
        groups.append(len(requests))
        run(requests)

    store.store._commits._run = counting
    await asyncio.gather(*(store.execute(put(f"key-{number}")) for number in range(100)))
    assert groups == [100]


async def test_on_a_slow_disk_those_who_take_turns_in_two_halves_come_to_share_commits(store):
    groups = []
    run = store.store._commits._run

    def slow(requests):
        groups.append(len(requests))
        time.sleep(0.05)
        run(requests)

    async def write(name):
        for _ in range(8):
            await store.execute(put(name))

    store.store._commits._run = slow
    first = [asyncio.create_task(write(f"first-{number}")) for number in range(8)]
    while not groups:  # noqa: ASYNC110  # the first half is being committed
        await asyncio.sleep(0.001)
    await asyncio.gather(*first, *(write(f"second-{number}") for number in range(8)))
    assert groups[0] == 8
    assert 16 in groups


async def test_submitted_writes_are_told_in_their_event_loop_when_they_are_committed(store):
    loop_thread = threading.get_ident()
    told: asyncio.Queue[Any] = asyncio.Queue()

    def done(request):
        told.put_nowait((request.ops[0].key, threading.get_ident(), store.store.execute([Get("user-42", "a")])))

    store.submit(Request(put("a", b'"one"')), done)
    store.submit(Request(put("b", if_version=7)), done)
    key, thread, found = await told.get()
    assert (key, thread, found[0].raw) == ("a", loop_thread, Raw(b'"one"'))
    assert (await told.get())[0] == "b"


async def test_each_submitted_write_has_its_own_answer_or_error(store):
    answers: asyncio.Queue[Request] = asyncio.Queue()
    right, wrong = Request(put("a")), Request(put("b", if_version=7))
    store.submit(right, answers.put_nowait)
    store.submit(wrong, answers.put_nowait)
    assert [await answers.get(), await answers.get()] == [right, wrong]
    assert right.results[0].version == 1
    assert isinstance(wrong.error, Conflict)
    assert store.store.execute([Get("user-42", "b")]) == [None]


async def test_a_request_id_is_submitted_too_and_applies_once(store):
    answers: asyncio.Queue[Request] = asyncio.Queue()
    for _ in range(2):
        store.submit(Request(put("a"), "once"), answers.put_nowait)
    assert (await answers.get()).results == (await answers.get()).results


def test_a_loop_that_ended_before_its_write_began_holds_up_no_other(store):
    ended = asyncio.new_event_loop()

    ended.call_soon(partial(store.submit, Request(put("lost")), lambda _: None))
    ended.call_soon(ended.stop)  # before what the submit has called soon
    ended.run_forever()
    asyncio.run(asyncio.wait_for(store.execute(put("kept")), 30))
    ended.close()
    assert store.store.execute([Get("user-42", "kept")])[0].raw == Raw(b"1")


def test_a_loop_that_closed_while_its_write_was_under_way_holds_up_no_other(store):
    entered, go_on = threading.Event(), threading.Event()
    run = store.store._commits._run

    def held(requests):
        entered.set()
        go_on.wait(30)
        run(requests)

    store.store._commits._run = held
    closed = asyncio.new_event_loop()
    closed.call_soon(partial(store.submit, Request(put("orphan")), lambda _: None))
    closed.call_later(0, lambda: closed.call_soon(closed.stop))
    closed.run_forever()
    assert entered.wait(30)
    closed.close()
    go_on.set()
    asyncio.run(asyncio.wait_for(store.execute(put("kept")), 30))
    assert store.store.execute([Get("user-42", "orphan")])[0].raw == Raw(b"1")


async def test_a_write_just_before_the_store_is_closed_is_committed_or_refused(store):
    writes = [asyncio.create_task(store.execute(put(f"key-{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    await store.close()
    answers = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 30)
    assert all(isinstance(answer, list | StoreUnavailable) for answer in answers)


async def test_a_closed_store_says_so(store):
    await store.execute(put("a"))
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.execute(put("b"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.execute([*put("b"), Get("user-42", "b")])
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.execute([Get("user-42", "a"), Get("user-42", "b")])
