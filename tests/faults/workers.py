"""What the processes of the fault proofs do, as `python workers.py ROLE …`; how tests start them and audit files.

A role prints what it has to say as lines on its standard output; a test speaks to it through its standard input.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import apsw
import msgspec
from msgspec import Raw

import botwire
from botwire import Memory
from botwire.errors import BotWireError, StoreError
from botwire.ops import Append, Delete, Erase, Index, NewMessage, Op, Put, Search
from botwire.stores.sqlite import SQLiteStore, checking, connection, turnstile

MARKER_HALF = 16  # bytes
MARKER = re.compile(rb"mark[0-9a-f]{12}")
PATIENCE = 60  # seconds after which a process that does not answer counts as hung

# ── for the tests: starting processes ───────────────────────────────────────────────────────────────


def command(role: str, *arguments: object) -> list[str]:
    """The command line of a role."""
    return [sys.executable, "-W", "error", __file__, role, *(str(argument) for argument in arguments)]


def environment(**more: str) -> dict[str, str]:
    """An environment in which a process finds the same botwire as this one."""
    return {**os.environ, "PYTHONPATH": str(Path(botwire.__file__).parents[1]), **more}


def start(role: str, *arguments: object, **environ: str) -> subprocess.Popen[str]:
    """Start a process that plays a role."""
    return subprocess.Popen(
        command(role, *arguments),
        env=environment(**environ),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """The lines that a process prints until it ends; it must end well."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"{name_of(process)} hung; it said {output[-2000:]!r} {errors[-2000:]!r}") from None
    assert process.returncode == 0, (
        f"{name_of(process)} ended with {process.returncode}: {output[-2000:]}{errors[-4000:]}"
    )
    return output.splitlines()


def name_of(process: subprocess.Popen[str]) -> str:
    """The role and the arguments of a process."""
    return " ".join(process.args[4:]) if isinstance(process.args, list) else str(process.args)


def run(role: str, *arguments: object, **environ: str) -> list[str]:
    """Have a role played to its end; the lines that it printed."""
    return finish(start(role, *arguments, **environ))


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    line = process.stdout.readline().rstrip("\n")
    watchdog.cancel()
    assert line, f"{name_of(process)} has ended: {process.communicate()[1][-4000:]}"
    return line


def tell(process: subprocess.Popen[str], line: str = "go") -> None:
    """Say something to a process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process on the spot, and wait until it is gone."""
    process.kill()
    process.communicate()


# ── for the tests: auditing a file ──────────────────────────────────────────────────────────────────

_MESSAGE_BYTES = (
    "length(value) + coalesce(length(CAST(id AS BLOB)), 0) + coalesce(length(CAST(role AS BLOB)), 0) "
    "+ coalesce(length(CAST(author AS BLOB)), 0)"
)
_ITEM_BYTES = (
    "length(CAST(key AS BLOB)) + coalesce(length(value), 0) + coalesce(length(meta), 0) + coalesce(length(past), 0)"
)
_RECOUNT = f"""
    SELECT n.name,
        (n.items, n.messages, n.conversations, n.bytes) = (
            (SELECT count(*) FROM items WHERE namespace = n.id AND value IS NOT NULL),
            (SELECT coalesce(sum(messages), 0) FROM conversations WHERE namespace = n.id),
            (SELECT count(*) FROM conversations WHERE namespace = n.id),
            (SELECT coalesce(sum({_ITEM_BYTES}), 0) FROM items WHERE namespace = n.id)
                + (SELECT coalesce(sum(length(page)), 0) FROM revisions WHERE namespace = n.id)
                + (SELECT coalesce(sum(bytes), 0) FROM conversations WHERE namespace = n.id)),
        (SELECT count(*) FROM changes WHERE namespace = n.id AND version > n.feed_floor) = n.version - n.feed_floor,
        (SELECT coalesce(max(version), n.version) FROM changes WHERE namespace = n.id) = n.version
    FROM namespaces n
"""
_WRONG = {
    "a conversation's counters": f"""
        SELECT c.name FROM conversations c WHERE (c.messages, c.bytes) != (
            SELECT count(*), coalesce(sum({_MESSAGE_BYTES}), 0) FROM messages m WHERE m.place >> 32 = c.id)""",
    "an item without its namespace": "SELECT key FROM items WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "a change without its namespace": "SELECT name FROM changes WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "a revision without its item": """
        SELECT r.key FROM revisions r LEFT JOIN items i ON i.namespace = r.namespace AND i.key = r.key
        WHERE i.key IS NULL""",
    "a message without its conversation": """
        SELECT place FROM messages WHERE place >> 32 NOT IN (SELECT id FROM conversations)""",
    "an item that the feed says nothing of": """
        SELECT i.key FROM items i JOIN namespaces n ON n.id = i.namespace
        WHERE i.version > n.version OR (i.version > n.feed_floor AND NOT EXISTS (
            SELECT 1 FROM changes c WHERE c.namespace = i.namespace AND c.version = i.version
            AND (c.name = i.key OR c.name IS NULL)))""",
}  # fmt: skip


def audit(path: Path | str) -> None:
    """Check a file from outside: SQLite finds it whole, counters are true, feeds have no hole, nothing is orphaned."""
    file = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        file.set_busy_timeout(10_000)
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with file:  # one moment of the file
            for name, counts, whole, current in file.execute(_RECOUNT):
                assert (counts, whole, current) == (1, 1, 1), f"{name}: counters, whole feed, feed up to date"
            for what, query in _WRONG.items():
                assert file.execute(query).fetchall() == [], what
            assert list(checking.problems(file.execute, time.time_ns() // 1_000)) == []
    finally:
        file.close()


# ── the plumbing of the roles ───────────────────────────────────────────────────────────────────────

ROLES: dict[str, Callable[..., None]] = {}


def role(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a role, by its name."""
    ROLES[function.__name__] = function
    return function


def say(*words: object) -> None:
    """Print a line at once."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def hear() -> str:
    """The next line from the test; empty when it has closed our standard input."""
    return sys.stdin.readline().rstrip("\n")


def text(value: object) -> Raw:
    """A value as JSON."""
    return Raw(msgspec.json.encode(value))


def opened(path: str, durability: str = "full", **options: Any) -> SQLiteStore:
    """The store of a file."""
    return SQLiteStore(path, durability="relaxed" if durability == "relaxed" else "full", **options)


# ── writing until killed ────────────────────────────────────────────────────────────────────────────


class Entry(msgspec.Struct):
    """A line of the log: a write that begins, or one that was acknowledged with these results."""

    thread: int
    number: int
    request_id: str | None = None
    ops: Raw = Raw(b"[]")
    results: Raw = Raw(b"null")

    @property
    def acknowledged(self) -> bool:
        """Whether it has returned."""
        return bytes(self.results) != b"null"


def random_writes(chance: random.Random, thread: int, number: int, known: dict[str, int]) -> list[Op]:
    """Some write of a thread, in namespaces that are its own."""
    here, there = f"thread-{thread}", f"thread-{thread}/other"
    key = f"key-{chance.randrange(12)}"
    value = text([number, "x" * chance.choice([1, 50, 400, 3_000, 20_000])])
    said = Append(here, "talk", [NewMessage(text(number)), NewMessage(text([number, "y" * chance.choice([1, 900])]))])
    writes: list[Callable[[], list[Op]]] = [
        lambda: [Put(here, key, value)],
        lambda: [Put(here, key, value, if_version=known.get(key, 0))],
        lambda: [Put(here, key, value, history=False)],
        lambda: [Put(here, "pair", value), Put(there, "pair", value)],
        lambda: [Delete(here, key)],
        lambda: [said],
        lambda: [said, Put(here, "said", text(number)), Put(there, "said", text(number))],
        lambda: [Put(here, f"brief-{number % 7}", value, ttl=chance.choice([0.001, 0.05, 3_600.0]))],
        lambda: [Erase(here, key=key)],
        lambda: [Put(f"{here}/trash", key, value), Append(f"{here}/trash", "talk", [NewMessage(value)])],
        lambda: [Erase(f"{here}/trash")],
        lambda: [Append(here, "passing", [NewMessage(value)])],
        lambda: [Erase(here, conversation="passing")] if chance.random() < 0.2 else [said],
        lambda: [Index(chance.choice([here, there]), limit=chance.choice([1, 20, 1_000]))],
    ]
    return chance.choice(writes)()


@role
def write_until_killed(path: str, log: str, seed: str, durability: str, threads: str) -> None:
    """Write at random, and log what begins and what was acknowledged. A line in the log outlives us."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    store = opened(path, durability)
    store.open()
    say("open")
    running = [
        threading.Thread(target=_write_flat_out, args=(store, descriptor, number, f"{seed}-{number}"))
        for number in range(int(threads))
    ]
    for thread in running:
        thread.start()


def _write_flat_out(store: SQLiteStore, log: int, thread: int, seed: str) -> None:
    chance, known = random.Random(seed), dict[str, int]()
    here = f"thread-{thread}"
    for item in Memory(here, store=store).items():
        known[item.key] = item.version
    for number in range(10**9):
        ops = random_writes(chance, thread, number, known)
        request_id = f"{seed}-{number}" if chance.random() < 0.5 else None
        os.write(log, msgspec.json.encode(Entry(thread, number, request_id, text(ops))) + b"\n")
        results = store.execute(ops, request_id=request_id)
        os.write(log, msgspec.json.encode(Entry(thread, number, request_id, text(ops), text(results))) + b"\n")
        if chance.random() < 0.2:  # what it takes in is written by another thread meanwhile
            store.execute([Search(here, f"key {number}", subtree=chance.random() < 0.5)])
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, Put) and op.namespace == here:
                known[op.key] = result.version
            elif isinstance(op, Delete | Erase) and op.key is not None:
                known.pop(op.key, None)


@role
def open_and_set(path: str) -> None:
    """Open a file that may be new, and write one value."""
    Memory("first", store=opened(path)).set("key", "value")
    say("acknowledged")
    hear()


@role
def back_up(path: str, target: str) -> None:
    """Copy the file, as is done before a migration, again and again."""
    from botwire.stores.sqlite.migrations import copy_to

    writer = connection.connect(path, "full")
    say("open")
    for number in range(10**9):
        copy_to(writer, f"{target}-{number}")


# ── several processes ───────────────────────────────────────────────────────────────────────────────


@role
def add(path: str, times: str, how: str) -> None:
    """Increment a counter."""
    memory = Memory("shared", store=opened(path, "relaxed"))
    say("ready")
    hear()
    for _ in range(int(times)):
        if how == "increment":
            memory.increment("count")
        else:
            memory.update("count", lambda number: (number or 0) + 1)


@role
def join_the_stampede(path: str, name: str) -> None:
    """Open a new file at the same moment as others, and write to it."""
    store = opened(path)
    say("ready")
    hear()
    Memory(name, store=store).set("here", name)
    store.close()


@role
def write_for(path: str, seconds: str, name: str) -> None:
    """Write durably for some seconds; say how often and what the longest wait for one was."""
    memory = Memory(name, store=opened(path))
    memory.set("key", 0)
    say("ready")
    hear()
    count, longest, now = 0, 0.0, time.monotonic()
    end = now + float(seconds)
    while now < end:
        memory.set("key", count)
        count, before, now = count + 1, now, time.monotonic()
        longest = max(longest, now - before)
    say(count, longest)


@role
def write_on_request(path: str) -> None:
    """Set what each line says, and answer when it is acknowledged."""
    memory = Memory("shared", store=opened(path, "relaxed"))
    while line := hear():
        memory.set("latest", line)
        say(line)


@role
def watch(path: str, cursor: str, last: str) -> None:
    """Say each change's cursor, version and key, until a key comes."""
    for change in Memory("watched", store=opened(path)).watch(after=cursor.removeprefix("after:")):
        say(change.cursor, change.version, change.key)
        if change.key == last:
            return


@role
def write_numbers(path: str, count: str) -> None:
    """Set numbered keys, one by one and in batches, with a pause now and then."""
    memory = Memory("watched", store=opened(path, "relaxed"))
    numbers = iter(range(int(count)))
    for number in numbers:
        if number % 10 == 0:
            with memory.batch() as batch:
                batch.set(str(number), number)
                batch.set(str(next(numbers)), number)
        else:
            memory.set(str(number), number)
        if number % 25 == 0:
            time.sleep(0.01)


@role
def stop_while_writing(path: str) -> None:
    """Stop ourselves in the middle of a write, holding every lock; go on when continued."""

    def stop() -> int:
        if stopping:
            stopping.clear()
            say("stopping")
            os.kill(os.getpid(), signal.SIGSTOP)
        return time.time_ns() // 1_000

    stopping: list[bool] = []
    memory = Memory("shared", store=opened(path, clock=stop))
    memory.set("before", 1)
    stopping.append(True)
    memory.set("slow", 1)
    say("written")
    hear()


@role
def write_impatiently(path: str) -> None:
    """Write with time-outs of a fraction of a second; say what becomes of it."""
    turnstile.TIMEOUT = 0.3
    connection.BUSY_TIMEOUT = 0.3
    memory = Memory("shared", store=opened(path))
    say("read", memory.get("before"))
    while hear():
        try:
            memory.set("impatient", 1)
        except BotWireError as error:
            say(type(error).__name__, error)
        else:
            say("written")


@role
def erase(path: str, namespace: str) -> None:
    """Erase a namespace."""
    memory = Memory(namespace, store=opened(path))
    memory.get("warm")
    say("ready")
    assert memory.erase().pending is False


@role
def hold_a_snapshot(path: str) -> None:
    """Hold a moment of the file as a reader, until told to let go."""
    reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    say(reader.execute("SELECT count(*) FROM items").get)
    hear()
    reader.execute("COMMIT")
    say("let go")
    hear()


@role
def hold_the_lock(path: str) -> None:
    """Hold SQLite's write lock as a stranger who knows of no turnstile."""
    stranger = apsw.Connection(path)
    stranger.execute("BEGIN IMMEDIATE")
    say("locked")
    hear()
    stranger.execute("ROLLBACK")
    say("let go")
    hear()


@role
def find_bytes(marker_file: str, *files: str) -> None:
    """Say where any of the markers, one to a line, stands in the raw files, be it only its first half.

    The search index has them in lower case.
    """
    markers = {marker[:MARKER_HALF].lower() for marker in Path(marker_file).read_bytes().split()}
    for name in files:
        found = {match.group(): match.start() for match in MARKER.finditer(Path(name).read_bytes().lower())}
        for marker in found.keys() & markers:
            say(Path(name).name, marker.decode(), found[marker])


# ── forks ───────────────────────────────────────────────────────────────────────────────────────────


def _fork(child: Callable[[], object], *, how: str = "_exit") -> int:
    """Fork; the child does its work and ends with `_exit`, by a normal exit, or killed."""
    pid = os.fork()
    if pid:
        return pid
    try:
        child()
    except BaseException as error:
        say("child failed:", repr(error))
        os._exit(1)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(0)
    os._exit(0)


def _wait(pid: int, *, killed: bool = False) -> None:
    """Wait until a child has ended well."""
    deadline = time.monotonic() + 60
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            wanted = -signal.SIGKILL if killed else 0
            assert os.waitstatus_to_exitcode(status) == wanted, f"the child ended with status {status}"
            return
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hung")
        time.sleep(0.002)


@role
def search_elsewhere(path: str, number: str) -> None:
    """Write, and search."""
    memory = Memory("user-42", store=opened(path, "relaxed"))
    memory.set(f"theirs-{number}", "lunch, too")
    assert memory.search("lunch too", 1)[0].key is not None


@role
def index_and_search(path: str) -> None:
    """Index piece by piece, and search in between."""
    memory = Memory("user-42", store=opened(path, "relaxed"))
    say("ready")
    hear()
    while memory.execute([Index("user-42", limit=30)])[0].left:
        assert len(memory.search("lunch", 1_000)) == 500
    assert len(memory.search("lunch", 1_000)) == 500


@role
def fork_many(path: str, how: str, rounds: str) -> None:
    """Fork again and again while threads write and read; parent and children all count."""
    store = opened(path, "relaxed")
    memory = Memory("family", store=store)
    memory.set("ready", 1)
    stop, written = threading.Event(), [0, 0]

    def write(place: int) -> None:
        while not stop.is_set():
            with memory.batch() as batch:
                for number in range(40):
                    batch.set(f"thread-{place}-{number}", written[place] + 1)
            written[place] += 1
            assert len(set(memory.get_many(f"thread-{place}-{number}" for number in range(40)).values())) == 1

    threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()

    def child() -> None:
        assert memory.get("ready") == 1
        memory.set(f"child-{number}", number)
        memory.increment("children")
        assert memory.get(f"child-{number}") == number

    for number in range(int(rounds)):
        pid = _fork(child, how=how)
        memory.increment("parent")
        _wait(pid, killed=how == "kill")
        assert memory.get(f"child-{number}") == number, "the parent sees what the child wrote"
    stop.set()
    for thread in threads:
        thread.join()
    assert memory.get("children") == memory.get("parent") == int(rounds)
    for place in range(2):
        assert memory.get(f"thread-{place}-0") == written[place]
    store.close()
    say("done")


@role
def fork_from_threads(path: str, rounds: str) -> None:
    """Several threads fork at the same time, again and again; everybody counts."""
    memory = Memory("family", store=opened(path, "relaxed"))
    memory.set("count", 0)
    ended: list[int] = []

    def fork() -> None:
        for _ in range(int(rounds)):
            _wait(_fork(lambda: memory.increment("count")))
            memory.increment("count")
        ended.append(1)

    threads = [threading.Thread(target=fork, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert len(ended) == len(threads), "a thread hangs or has failed"
    say(memory.get("count"))


@role
def fork_then_close(path: str) -> None:
    """The parent closes the store while its child goes on writing; a stranger writes in between."""
    store = opened(path)
    memory = Memory("family", store=store)
    memory.set("parent", 1)
    memory.get("parent")
    to_child, to_parent = os.pipe(), os.pipe()

    def child() -> None:
        memory.set("child-before", 1)
        os.write(to_parent[1], b"x")
        os.read(to_child[0], 1)
        memory.set("child-after", 1)
        keys = memory.keys()
        assert keys == ["child-after", "child-before", "parent", "stranger"], keys

    pid = _fork(child)
    os.read(to_parent[0], 1)
    store.close()
    say("closed")
    hear()
    os.write(to_child[1], b"x")
    _wait(pid)
    say(" ".join(Memory("family", store=opened(path)).keys()))


@role
def fork_while_busy(path: str, doing: str) -> None:
    """Fork while another thread is in the middle of a write, or of a read."""
    inside = threading.Event()

    def clock() -> int:  # the store asks for the time within its transactions
        if threading.current_thread() is busy and not inside.is_set():
            inside.set()
            time.sleep(0.5)
        return time.time_ns() // 1_000

    def work() -> None:
        if doing == "write":
            memory.set("busy", 1)
        else:
            assert memory.keys() == ["before"]

    busy = threading.Thread(target=work)
    memory = Memory("family", store=opened(path, clock=clock))
    memory.set("before", 1)
    busy.start()
    inside.wait()

    def child() -> None:
        memory.set("child", 1)
        assert memory.get("child") == 1
        memory.set("child", 2)

    pid = _fork(child)
    memory.set("parent", 1)
    _wait(pid)
    busy.join()
    assert memory.get("child") == 2
    say(" ".join(memory.keys()))


def _count(memory: Memory, times: int) -> None:
    for _ in range(times):
        memory.increment("count")


@role
def multiprocess(path: str, method: str) -> None:
    """Children of `multiprocessing`, by either way of starting them, share a memory that was open already."""
    import multiprocessing

    memory = Memory("family", url="sqlite:///" + path, durability="relaxed")
    memory.set("count", 0)
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=_count, args=(memory, 50)) for _ in range(4)]
    for child in children:
        child.start()
    _count(memory, 50)
    for child in children:
        child.join()
        assert child.exitcode == 0
    say(memory.get("count"))


# ── disks and permissions ───────────────────────────────────────────────────────────────────────────


def _fill(memory: Memory, size: int) -> tuple[int, StoreError]:
    """Write until the store refuses; how many were acknowledged, and the refusal."""
    for number in range(100_000):
        try:
            memory.set(f"key-{number}", [number, "x" * size])
        except StoreError as error:
            return number, error
    raise AssertionError("the disk does not fill up")


@role
def fill_disk(path: str, ballast: str) -> None:
    """Write until nothing more fits, make room by removing the ballast, and go on with the same store."""
    memory = Memory("full", store=opened(path))
    memory.set("first", 1)
    count, error = _fill(memory, 5_000)
    say(type(error).__name__, str(error))
    assert all(memory.get(f"key-{number}")[0] == number for number in range(count))
    assert memory.get(f"key-{count}") is None
    assert len(memory) == count + 1
    Path(ballast).unlink()
    memory.set("after", 1)
    say(count, memory.get("after"))


@role
def set_once(path: str) -> None:
    """Write one value, or say why not."""
    try:
        Memory("small", store=opened(path)).set("key", 1)
    except BotWireError as error:
        say(type(error).__name__, error)
    else:
        say("written")


@role
def fill_allowance(path: str, limit: str) -> None:
    """Write until the process's limit on the size of files is reached; raise it and open the store anew."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = opened(path)
    memory = Memory("full", store=store)
    memory.set("first", 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
    count, error = _fill(memory, 5_000)
    say(type(error).__name__, str(error))
    assert all(memory.get(f"key-{number}")[0] == number for number in range(count))
    store.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    memory = Memory("full", store=opened(path))
    memory.set("after", 1)
    say(count, len(memory.keys("key-")), memory.get("after"))


@role
def use_as_nobody(path: str) -> None:
    """Read and write as a user who owns nothing; say what came of each."""
    import encodings.idna  # noqa: F401  # everything that is imported late must be there before we lose the right to read it

    from botwire import flows, talks, transfer  # noqa: F401  # the same

    Memory("warm", store=SQLiteStore(":memory:")).set("up", 1)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    memory = Memory("shared", store=opened(path))
    uses: dict[str, Callable[[], object]] = {"read": lambda: memory.get("key"), "write": lambda: memory.set("key", 2)}
    for name, action in uses.items():
        try:
            answer = action()
        except Exception as error:
            say(name, type(error).__name__, error)
        else:
            say(name, "value", answer)


@role
def survive_failing_sync(path: str, trigger: str) -> None:
    """Write while the disk refuses to flush, as told by the trigger file."""
    store = opened(path)
    memory = Memory("sync", store=store)
    for number in range(20):
        memory.set(f"key-{number}", number)
    Path(trigger).touch()
    for attempt in ("during", "again", "after"):
        if attempt == "after":
            Path(trigger).unlink()
        try:
            memory.set(attempt, 1)
        except StoreError as error:
            say(type(error).__name__, error)
        else:
            say("written")
    assert [memory.get(f"key-{number}") for number in range(20)] == list(range(20))
    store.close()
    memory = Memory("sync", store=opened(path))
    memory.set("reopened", 1)
    assert [memory.get(f"key-{number}") for number in range(20)] == list(range(20))
    say("written")


# ── interrupted threads ─────────────────────────────────────────────────────────────────────────────


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@role
def interrupt_at_random(path: str, interrupts: str, seed: str) -> None:
    """The main thread is interrupted again and again while it and others write: nobody hangs, nothing is repeated."""
    chance = random.Random(seed)
    memory = Memory("busy", store=opened(path, "relaxed"))
    memory.set("start", 0)
    stop, acknowledged = threading.Event(), [0] * 4

    def write(place: int) -> None:
        while not stop.is_set():
            memory.conversation(f"thread-{place}").append(acknowledged[place])
            acknowledged[place] += 1

    threads = [threading.Thread(target=write, args=(place,), daemon=True) for place in range(len(acknowledged))]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGALRM, _raise_interrupt)
    attempts = sure = left = 0
    while left < int(interrupts):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.000_02, 0.002))
            while True:
                attempts += 1
                memory.conversation("main").append(attempts)
                sure += 1
        except KeyboardInterrupt:
            left += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    stop.set()
    for thread in threads:
        thread.join(20)
        if thread.is_alive():
            sys.stderr.write("a thread hangs\n")
            os._exit(1)
    for place, count in enumerate(acknowledged):
        assert [message.value for message in memory.conversation(f"thread-{place}")] == list(range(count))
    said = [message.value for message in memory.conversation("main")]
    assert said == sorted(set(said))
    assert sure <= len(said) <= attempts
    say(len(said), attempts, sum(acknowledged))


class _InterruptAt:
    """Raise KeyboardInterrupt in this thread at the n-th moment at which Python delivers signals in the store's code:
    when a function begins, and when a call of a built-in one has returned."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.where = ""

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or "sqlite" not in frame.f_code.co_filename:
            return
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}, {event}"
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


@role
def interrupt_everywhere(path: str, company: str) -> None:
    """Interrupt a write at every moment at which it can be: afterwards others can write, and nothing is done twice.

    `company`: the interrupted thread is `alone`, is `followed` by another that waits for it, is `leading` another whose
    write it commits together with its own, or is `queueing` because somebody else writes to the file as well.
    """
    stage = _Stage(path)
    for moment in range(1, 10_000):
        where = stage.play(company, moment)
        if not where:
            say(moment - 1)
            os._exit(0)  # threads that hang must not keep us
        stage.check(f"interrupted at moment {moment} ({where})")


class _Stage:
    """A store, the thread that is interrupted, and its company."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.slow: threading.Thread | None = None
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.store = opened(path, "relaxed", clock=self._clock)
        self.memory = Memory("stage", store=self.store)
        self.memory.set("start", 1)
        self.number = 0
        self.others: list[threading.Thread] = []
        self.timers: list[threading.Timer] = []
        self.answered: list[int] = []
        self.surely: list[int] = []
        self.maybe: list[int] = []

    def _clock(self) -> int:
        if threading.current_thread() is self.slow:
            self.inside.set()
            self.go_on.wait(60)
        return time.time_ns() // 1_000

    def _append(self) -> None:
        self.number += 1
        number = self.number
        self.memory.conversation("talk").append(number)
        self.answered.append(number)

    def _beside(self) -> threading.Thread:
        thread = threading.Thread(target=self._append, daemon=True)
        self.others.append(thread)
        return thread

    def play(self, company: str, moment: int) -> str:
        """One write that is interrupted at a moment; where that was, or nothing if it was over before."""
        self.others = []
        self.timers = []
        self.slow = None
        self.inside.clear()
        self.go_on.clear()
        if company == "leading":  # a slow thread leads; we queue up behind it, and another behind us
            self.slow = self._beside()
            self.slow.start()
            self.inside.wait(60)
            self._later(0.004, self._beside_starts)
            self._later(0.012, self.go_on.set)
        elif company == "followed":
            self._later(0, self._beside_starts)
        elif company == "queueing":
            stranger = opened(self.path, "relaxed")  # a connection of its own, and locks of its own
            Memory("stranger", store=stranger).increment("count")
            stranger.close()
            self._append()  # now the store has seen that others write
        self.number += 1
        mine = self.number
        op = Append("stage", "talk", [NewMessage(text(mine))])
        try:
            with _InterruptAt(moment) as interrupt:
                self.store.execute([op])
        except KeyboardInterrupt:
            self.maybe.append(mine)
        else:
            self.surely.append(mine)
        return interrupt.where

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, action)
        self.timers.append(timer)
        timer.start()

    def _beside_starts(self) -> None:
        self._beside().start()

    def check(self, when: str) -> None:
        """Everybody else gets through, every lock is free, and every message is there once."""
        for timer in self.timers:
            timer.join()
        for lock in ("-queue", "-turn"):
            if not _is_free(self.path + lock):
                self._fail(f"{when}: {lock} stays locked for other processes")
        self._beside().start()
        for thread in self.others:
            thread.join(20)
            if thread.is_alive():
                self._fail(f"{when}: another thread hangs")
        said = [message.value for message in self.memory.conversation("talk")]
        if len(said) != len(set(said)):
            self._fail(f"{when}: a message was appended twice: {said[-6:]}")
        missing = {*self.answered, *self.surely} - set(said)
        if missing:
            self._fail(f"{when}: acknowledged, but not there: {missing}")
        if [message.version for message in self.memory.conversation("talk")][-1] != self.memory.stats().version:
            self._fail(f"{when}: the namespace's version is wrong")

    def _fail(self, what: str) -> None:
        sys.stderr.write(what + "\n")
        sys.stderr.flush()
        os._exit(1)


def _is_free(path: str) -> bool:
    import fcntl

    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def entries(log: Path) -> Iterator[Entry]:
    """The whole lines of a log; the last one may be cut off."""
    for line in log.read_bytes().split(b"\n")[:-1]:
        yield msgspec.json.decode(line, type=Entry)


if __name__ == "__main__":
    try:
        ROLES[sys.argv[1]](*sys.argv[2:])
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # threads that are still at work must not keep us
