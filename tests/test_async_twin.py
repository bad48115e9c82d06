"""`AsyncMemory` is the twin of `Memory`, method by method, and blocks its event loop at nothing."""

from __future__ import annotations

import asyncio
import inspect
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from botwire import (
    AsyncConversation,
    AsyncMemory,
    BotWireError,
    Conflict,
    Conversation,
    CursorExpired,
    InvalidInput,
    Memory,
    NotFound,
    StoreUnavailable,
)
from botwire.batch import AsyncBatch, Batch
from botwire.ops import EndRecord, Get
from botwire.stores.base import AsyncStore, Store
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore

TWINS = [(Memory, AsyncMemory), (Conversation, AsyncConversation), (Batch, AsyncBatch), (Store, AsyncStore)]
# Python has no way to await these: `await memory.get(key)`, `(await memory.stats()).items` and so on take their place.
SYNC_ONLY = {"__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__"}
RENAMED = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__"}
PYTHONS_OWN = {"__init__", "__slots__", "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__"}


def methods(kind):
    """What a class offers: its public methods and those that Python's syntax calls."""
    found = {}
    for base in reversed([each for each in kind.__mro__ if each.__module__.startswith("botwire")]):
        for name, value in vars(base).items():
            public = not name.startswith("_") or (name.startswith("__") and name not in PYTHONS_OWN)
            if callable(value) and public and not name.startswith("__static") and not name.startswith("__first"):
                found[name] = value
    return found


def parameters(method):
    """Names, kinds and defaults, without the types, which differ by what is awaited."""
    return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(("sync", "twin"), TWINS, ids=lambda kind: kind.__name__)
def test_the_twins_have_the_same_methods(sync, twin):
    wanted = {RENAMED.get(name, name) for name in methods(sync)} - SYNC_ONLY
    assert set(methods(twin)) - SYNC_ONLY == wanted


@pytest.mark.parametrize(("sync", "twin"), TWINS, ids=lambda kind: kind.__name__)
def test_the_twins_methods_take_the_same_arguments(sync, twin):
    theirs = methods(twin)
    for name, method in methods(sync).items():
        other = theirs.get(RENAMED.get(name, name))
        if other is not None:
            assert parameters(other) == parameters(method), name


@pytest.mark.parametrize(("sync", "twin"), TWINS[:2], ids=lambda kind: kind.__name__)
def test_what_returns_at_once_is_awaited_and_what_iterates_iterates(sync, twin):
    """Only what makes no round trip is called without `await`."""
    for name, method in methods(sync).items():
        other = methods(twin).get(RENAMED.get(name, name))
        if other is None:
            continue
        returns = str(inspect.signature(method).return_annotation)
        if "Iterator" in returns:
            assert "AsyncIterator" in str(inspect.signature(other).return_annotation), name
            assert not inspect.iscoroutinefunction(other), name
        else:
            at_once = name in ("__repr__", "__bool__", "__reduce__", "__del__", "batch", "conversation", "twin")
            assert inspect.iscoroutinefunction(other) is not at_once, name


def test_the_twins_share_their_arguments():
    assert parameters(Memory) == parameters(AsyncMemory)
    assert AsyncMemory.__init__ is Memory.__init__


# ── it does the same ──


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'memory.db'}" if request.param == "file" else "sqlite://"


@pytest.fixture
async def memory(url: str) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("user-42", url=url) as memory:
        yield memory


async def collected(iterator):
    return [each async for each in iterator]


async def test_every_verb_of_a_memory_does_what_it_says(memory):
    item = await memory.set("a", {"n": 1}, tags=["t"], author="me", ttl=60)
    assert await memory.get("a") == {"n": 1}
    assert await memory.get("x", "default") == "default"
    assert await memory.get("a", type=dict[str, int]) == {"n": 1}
    assert await memory.item("a") == item
    assert await memory.touch("a")
    assert await memory.get_many(["a", "x"]) == {"a": {"n": 1}}
    assert [each.version for each in await memory.set_many({"b": 2, "c": 3})] == [3, 4]
    assert await memory.increment("b") == 3
    assert await memory.setdefault("c", 9) == 3
    assert await memory.setdefault("d", 9) == 9
    assert await memory.pop("d") == 9
    assert await memory.pop("d", None) is None
    with pytest.raises(NotFound):
        await memory.pop("d")
    assert (await memory.update("b", lambda n: n + 1)).value == 4
    assert [each.value for each in await memory.history("b")] == [4, 3, 2]
    assert await memory.get("b", as_of=3) == 2
    assert (await memory.undo("b")).value == 3
    assert await memory.delete("c")
    assert not await memory.delete("c")
    assert await memory.keys() == await memory.list_keys() == await collected(memory) == ["a", "b"]
    assert await memory.keys("b") == ["b"]
    assert [each.key for each in await collected(memory.items(tags=["t"]))] == ["a"]
    assert await collected(memory.values()) == [{"n": 1}, 3]
    async with memory.batch() as batch:
        batch.set("e", 5)
        batch.append("talk", "hi")
    assert [info.name for info in await collected(memory.conversations())] == ["talk"]
    assert [info.name for info in await collected(memory.namespaces())] == ["user-42"]
    with pytest.raises(Conflict):
        await memory.set("a", 1, if_version=0)
    with pytest.raises(InvalidInput):
        await memory.set("", 1)
    stats = await memory.stats()
    assert (stats.items, stats.messages) == (3, 1)
    assert (await memory.configure(max_items=5)).policy.max_items == 5
    assert (await memory.clear()).items == 3
    assert not (await memory.erase()).pending
    assert bool(memory)
    assert repr(memory).startswith("AsyncMemory('user-42'")


async def test_every_verb_of_a_conversation_does_what_it_says(memory):
    talk = memory.conversation("t")
    assert bool(talk)
    assert repr(talk) == "AsyncConversation('user-42', 't')"
    first = await talk.append({"role": "user", "content": "hi"}, id="m1")
    assert [each.value for each in await talk.extend(["a", "b"])] == ["a", "b"]
    assert await talk.message("m1") == first
    assert [each.id for each in await talk.messages(last=2)] == ["#2", "#3"]
    assert len(await talk.messages(max_tokens=1_000)) == 3
    assert [each.id for each in await collected(talk)] == ["m1", "#2", "#3"]
    assert (await talk.edit("m1", {"role": "user", "content": "ho"})).value["content"] == "ho"
    assert (await talk.redact("m1")).redacted
    assert (await talk.pop()).value == "b"
    assert await talk.delete("#2")
    assert (await talk.info()).messages == 1
    assert await talk.trim(keep=0) == 1
    await talk.append("again")
    assert await talk.clear() == 1


async def test_sync_and_async_see_one_store(memory, url):
    other = Memory("user-42", url=url)
    other.set("from sync", 1)
    assert await memory.get("from sync") == 1
    await memory.set("from async", 2)
    assert other.get("from async") == 2
    other.close()


async def test_update_takes_coroutine_functions_too(memory):
    async def add(n):
        await asyncio.sleep(0)
        return (n or 0) + 1

    await asyncio.gather(*(memory.update("n", add) for _ in range(20)))
    assert await memory.get("n") == 20


async def test_exports_and_copies(memory, tmp_path):
    await memory.set("a", 1)
    await memory.set("a", 2)
    await memory.conversation("t").extend(list(range(10)))
    stream = io.BytesIO()
    assert isinstance(await memory.export(stream), EndRecord)
    await memory.export(tmp_path / "export.jsonl")
    assert (tmp_path / "export.jsonl").read_bytes() == stream.getvalue()
    stream.seek(0)
    for name, fill in (("one", lambda m: m.import_(stream)), ("two", memory.copy_to)):
        async with AsyncMemory(name, store=memory._store) as copy:
            info = await fill(copy)
            assert (info.items, info.messages) == (1, 10)
            assert [each.value for each in await copy.history("a")] == [2, 1]
    async with AsyncMemory("three", store=memory._store) as copy:
        records = [record async for record in memory.records()]
        await copy.load([records])
        assert await copy.get("a") == 2
    broken = AsyncMemory("four", store=memory._store)
    with pytest.raises(InvalidInput):
        await broken.import_(io.BytesIO(stream.getvalue()[:-20]))
    assert await broken.keys() == []


async def test_an_error_inside_a_batch_block_writes_nothing(memory):
    with pytest.raises(ZeroDivisionError):
        async with memory.batch() as batch:
            batch.set("a", 1 / 0)
    assert await memory.keys() == []


# ── at once ──


async def test_writes_from_many_tasks_all_land(memory):
    async def write(number):
        await memory.set(f"k{number:03}", number)
        await memory.increment("sum")
        return await memory.conversation("t").append(number, id=f"m{number}")

    messages = await asyncio.gather(*(write(number) for number in range(60)))
    assert await memory.get("sum") == 60
    assert len(await memory.keys("k")) == 60
    assert [each.value for each in await memory.conversation("t").messages()] == [
        each.value for each in sorted(messages, key=lambda message: message.version)
    ]
    assert len({message.version for message in messages}) == 60


async def test_what_was_awaited_is_read_by_everyone(memory):
    for number in range(30):
        await memory.set("a", number)
        reads = await asyncio.gather(*(memory.get("a") for _ in range(5)), collected(memory.values()))
        assert reads == [number] * 5 + [[number]]


async def test_one_that_fails_does_not_fail_the_others(memory):
    outcomes = await asyncio.gather(
        *(memory.set(f"k{number}", number, if_version=number % 2 * 7) for number in range(20)), return_exceptions=True
    )
    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [number % 2 == 1 for number in range(20)]
    assert await memory.keys() == sorted(f"k{number}" for number in range(0, 20, 2))


async def test_a_bad_op_fails_alone_and_hangs_nobody(memory):
    """What goes wrong inside, of whatever kind, comes out at the one who asked for it."""
    bad = memory.execute([object()])
    good = [memory.set(f"k{number}", number) for number in range(5)]
    outcomes = await asyncio.wait_for(asyncio.gather(bad, *good, return_exceptions=True), 60)
    assert isinstance(outcomes[0], BotWireError)
    assert await memory.get("k4") == 4


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the write lock of the file until it is written a line."""
    AsyncSQLiteStore(SQLiteStore(str(tmp_path / "memory.db"))).store.open().close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "memory.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.communicate("\n")


async def test_a_slow_commit_blocks_nobody_else(held, tmp_path):
    """While the disk is somebody else's, the loop goes round, and reads are answered."""
    async with AsyncMemory("user-42", url=f"sqlite:///{tmp_path / 'memory.db'}") as memory:
        assert await memory.get("a") is None
        write = asyncio.create_task(memory.set("a", 1))
        for _ in range(50):
            await asyncio.sleep(0.001)
            assert await memory.get("a") is None
            assert await memory.keys() == []
        assert not write.done()
        held.stdin.write("\n")
        held.stdin.flush()
        assert (await write).version == 1
        assert await memory.get("a") == 1


async def test_a_write_that_was_cancelled_while_it_waited_spoils_nothing(held, tmp_path):
    async with AsyncMemory("user-42", url=f"sqlite:///{tmp_path / 'memory.db'}") as memory:
        writes = [asyncio.create_task(memory.set(f"k{number}", number)) for number in range(10)]
        await asyncio.sleep(0.01)
        for write in writes[::2]:
            write.cancel()
        held.stdin.write("\n")
        held.stdin.flush()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False] * 5
        assert set(await memory.keys()) >= {f"k{number}" for number in range(1, 10, 2)}
        await memory.set("after", 1)
        stats = await memory.stats()
        assert stats.version == stats.items == len(await memory.keys())


async def test_cancellation_loses_nothing_that_was_acknowledged(memory, rounds):
    acknowledged: set[str] = set()
    tried = 0

    async def write(name):
        await memory.set(name, name)
        acknowledged.add(name)

    for turn in range(rounds(15, 500)):
        tasks = [asyncio.create_task(write(f"{turn}-{number}")) for number in range(8)]
        tried += len(tasks)
        for _ in range(turn % 6):
            await asyncio.sleep(0)
        for task in tasks[turn % 3 :: 3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    keys = await memory.keys()
    assert acknowledged <= set(keys)
    assert len(acknowledged) >= tried // 2
    for key in keys:
        assert await memory.get(key) == key  # whole or not at all
    stats = await memory.stats()
    assert stats.version == stats.items == len(keys)


async def test_a_batch_that_was_cancelled_is_whole_or_not_there(memory, rounds):
    for turn in range(rounds(20, 500)):

        async def write(turn=turn):
            async with memory.batch() as batch:
                batch.set(f"{turn}-a", 1)
                batch.set(f"{turn}-b", 1)

        task = asyncio.create_task(write())
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await memory.set("last", 1)  # behind whatever was still under way
    keys = set(await memory.keys())
    assert all((f"{turn}-a" in keys) == (f"{turn}-b" in keys) for turn in range(500))


async def test_a_time_out_around_a_wait_leaves_the_store_as_it_was(memory):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(collected(memory.watch()), 0.05)
    await memory.set("a", 1)
    assert await memory.get("a") == 1


# ── watching ──


async def test_a_watcher_sees_every_change_in_order(memory):
    cursor = await memory.cursor()
    seen = []

    async def watch():
        async for change in memory.watch(after=cursor, timeout=30):
            seen.append(change.version)
            if len(seen) == 40:
                return

    async def write():
        for number in range(40):
            await memory.set("a", number)

    await asyncio.gather(watch(), watch_nothing(memory), write())
    assert seen == list(range(1, 41))


async def watch_nothing(memory):
    elsewhere = AsyncMemory("elsewhere", store=memory._store)
    assert await collected(elsewhere.watch(timeout=0.01)) == []


async def test_a_watcher_is_woken_by_a_thread(memory, url):
    if url == "sqlite://":
        pytest.skip("a thread's own memory needs a file")
    cursor = await memory.cursor()

    def write():
        with Memory("user-42", url=url) as other:
            other.set("from a thread", 1)

    async def watch():
        async for change in memory.watch(after=cursor, timeout=30):
            return change.key
        return None

    key, _ = await asyncio.gather(watch(), asyncio.to_thread(write))
    assert key == "from a thread"


async def test_many_wait_and_the_loop_is_free(memory):
    """A hundred who wait are no hundred threads."""
    cursor = await memory.cursor()

    async def watch():
        async for change in memory.watch(after=cursor, timeout=30):
            return change.key
        return None

    watchers = [asyncio.create_task(watch()) for _ in range(100)]
    for _ in range(20):
        await asyncio.sleep(0)
    await memory.set("a", 1)
    assert await asyncio.gather(*watchers) == ["a"] * 100


async def test_a_watcher_is_told_when_its_feed_was_cut(memory):
    await memory.set("a", 1)
    cursor = await memory.cursor()
    await memory.erase()
    with pytest.raises(CursorExpired):
        await anext(memory.watch(after=cursor, timeout=30))


async def test_a_watch_can_be_left_and_taken_up_again(memory):
    cursor = await memory.cursor()
    for key in ("a", "b", "c"):
        await memory.set(key, 1)
    watch = memory.watch(after=cursor, timeout=30)
    first = await anext(watch)
    await watch.aclose()
    assert [change.key for change in await collected(memory.watch(after=first.cursor, timeout=0))] == ["b", "c"]


# ── loops ──


def test_one_memory_serves_one_event_loop_after_another(url):
    memory = AsyncMemory("user-42", url=url)

    async def use(number):
        await asyncio.gather(*(memory.set(f"k{number}-{each}", each) for each in range(5)))
        return len(await memory.keys())

    assert [asyncio.run(use(number)) for number in range(3)] == [5, 10, 15]
    asyncio.run(memory.close())


def test_event_loops_in_several_threads_share_a_store(url):
    from concurrent.futures import ThreadPoolExecutor

    memory = AsyncMemory("user-42", url=url)

    async def use(number):
        for each in range(10):
            await memory.set(f"k{number}-{each}", each)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: asyncio.run(use(number)), range(4)))
    assert len(asyncio.run(memory.keys())) == 40
    asyncio.run(memory.close())


async def test_closing_closes_both_sides_of_the_store(tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    memory = AsyncMemory("a", url=url)
    await memory.set("k", 1)
    store = memory._opened()
    await memory.close()
    with pytest.raises(StoreUnavailable):
        await store.execute([Get("a", "k")])


async def test_a_closed_memory_opens_again_when_it_is_used(tmp_path):
    memory = AsyncMemory("user-42", url=f"sqlite:///{tmp_path / 'memory.db'}")
    await memory.set("a", 1)
    await memory.close()
    await memory.close()
    assert await memory.get("a") == 1
    await memory.close()


def test_stores_keep_to_their_protocols():
    sync = SQLiteStore(":memory:")
    assert isinstance(sync, Store)
    assert isinstance(AsyncSQLiteStore(sync), AsyncStore)
    sync.close()
