"""botwire embedded, side by side with bare apsw, diskcache, redis-py and LangGraph's `SqliteStore`.

    python benchmarks/embedded.py [--quick] [--only NAME]… [--json FILE] [--dir FOLDER]

Prints what was aimed at and what came out, as Markdown. See `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script finds only its own folder; mypy and the child processes start from the root

from benchmarks import _peers  # noqa: E402  # see above
from benchmarks._measure import (  # noqa: E402  # see above
    TURNS,
    Laps,
    Ratio,
    Report,
    Row,
    Summary,
    file_system,
    fresh_python,
    interleave,
    ratio,
    scratch_folder,
    time_reads,
    time_writes,
)
from benchmarks._peers import Peer  # noqa: E402  # see above

from botwire import Conversation, Memory, __version__  # noqa: E402  # see above

NAMESPACE = "user-42"
KEYS = [f"preference-{number}" for number in range(1_000)]
OVERWRITTEN = 20  # times, before anything is measured: a key's history is full (16 past values) and stays so
FILL_BATCH = 5_000  # entries in one transaction, while a store is filled
BENCH_GROUP = {"diskcache": "diskcache", "redis": "redis", "langgraph": "langgraph-checkpoint-sqlite"}
MEGABYTE = 1_000_000
IMPORTED = {"botwire", "msgspec", "typing_extensions"}  # msgspec imports the last one where it is installed


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    gets: int  # in a turn; so are the other calls
    sets: int
    durable_rounds: int
    durable_sets: int
    thread_rounds: int
    thread_seconds: float
    process_runs: int
    process_seconds: float
    messages: int
    items: int
    interpreters: int
    patience: float  # seconds for one comparison; then it is content with fewer rounds


FULL = Size(
    rounds=25, gets=300, sets=100, durable_rounds=41, durable_sets=10, thread_rounds=9, thread_seconds=0.7,
    process_runs=3, process_seconds=5.0, messages=100_000, items=1_000_000, interpreters=31, patience=30.0,
)  # fmt: skip
QUICK = Size(
    rounds=9, gets=200, sets=50, durable_rounds=15, durable_sets=10, thread_rounds=3, thread_seconds=0.5,
    process_runs=1, process_seconds=5.0, messages=100_000, items=100_000, interpreters=9, patience=6.0,
)  # fmt: skip


def value_of(number: int) -> dict[str, Any]:
    """A value of about 150 bytes as JSON, another one for each number: SQLite skips pages that do not change."""
    return {
        "name": f"user {number}",
        "likes": ["coffee", "tea"],
        "visits": number,
        "score": number / 7,
        "note": f"{number * 2_654_435_761 % 2**64:016x}" * 4,
    }


@dataclass
class Bench:
    """What the sections share: a folder, how much to measure, and where to put what came out."""

    folder: Path
    size: Size
    report: Report
    chance: random.Random = field(default_factory=lambda: random.Random(42))
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 62)))

    def value(self) -> dict[str, Any]:
        """A value that nothing has held before."""
        return value_of(next(self._numbers))

    def entries(self, keys: Sequence[str]) -> list[tuple[str, Any]]:
        """New values for keys."""
        return [(key, self.value()) for key in keys]

    def interleave(
        self, contenders: dict[str, Callable[[], Laps]], rounds: int, turns: int = TURNS
    ) -> dict[str, Summary]:
        """Let contenders take turns, for as long as this run has patience."""
        return interleave(contenders, rounds, turns, patience=self.size.patience)

    def url(self, name: str) -> str:
        """A SQLite file in the folder, as an absolute URL."""
        return f"sqlite:///{self.folder / name}.db"

    @cached_property
    def many_items(self) -> str:
        """The URL of a store with very many items in one namespace; made once, for the sections that need it."""
        url = self.url("many")
        with Memory(NAMESPACE, url, durability="relaxed") as memory:
            self.fill(memory, self.size.items)
        return url

    def fill(self, memory: Memory, count: int) -> None:
        """Store `count` items."""
        for start in range(0, count, FILL_BATCH):
            keys = many_keys(range(start, min(start + FILL_BATCH, count)))
            memory.set_many(dict(self.entries(keys)))


def many_keys(numbers: Sequence[int]) -> list[str]:
    """The keys of a large namespace, by their numbers."""
    return [f"item-{number:07d}" for number in numbers]


class WrongResultError(Exception):
    """What was measured did not do what it should have."""


def expect(fact: bool, what: str) -> None:
    """Stop unless what was measured was right: the figures would be worth nothing."""
    if not fact:
        raise WrongResultError(what)


# ── get and set ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Contender:
    """A peer, what it should hold, and how many calls make a turn."""

    bench: Bench
    peer: Peer
    calls: int
    written: dict[str, Any] = field(default_factory=dict[str, Any])

    def fill(self) -> None:
        """Give every key a value."""
        entries = self.bench.entries(KEYS)
        self.written.update(entries)
        self.peer.fill(entries)

    def write(self, entries: list[tuple[str, Any]]) -> Laps:
        """Set, and remember what should be there."""
        self.written.update(entries)
        return time_writes(self.peer.set, entries)

    def some_keys(self) -> list[str]:
        """Random keys for one turn."""
        return self.bench.chance.choices(KEYS, k=self.calls)

    def sets(self) -> Laps:
        """A turn of sets."""
        return self.write(self.bench.entries(self.some_keys()))

    def gets(self) -> Laps:
        """A turn of gets."""
        return time_reads(self.peer.get, self.some_keys())

    def check(self, name: str) -> None:
        """See that every key reads as what was written last."""
        wrong = [key for key, value in self.written.items() if self.peer.get(key) != value]
        expect(len(self.written) == len(KEYS) and not wrong, f"{name}: {len(wrong)} values are not what was set")


@contextmanager
def steady_memory(bench: Bench, name: str, durability: str) -> Iterator[tuple[Memory, dict[str, Any]]]:
    """A memory whose keys have been overwritten until their history is full, and what it holds."""
    url, last = bench.url(name), dict[str, Any]()
    with Memory(NAMESPACE, url, durability="relaxed") as memory:
        for _ in range(OVERWRITTEN + 1):
            last = dict(bench.entries(KEYS))
            memory.set_many(last)
        expect(len(memory.history(KEYS[0])) == 17, "the history of a key is not full")
    with Memory(NAMESPACE, url, durability=durability) as memory:
        yield memory, last


@contextmanager
def contenders(
    bench: Bench, name: str, durability: str, calls: int, peers: Sequence[str]
) -> Iterator[dict[str, Contender]]:
    """botwire and its peers, filled and checked; checked again at the end."""
    folder = bench.folder
    managers: dict[str, Callable[[], Any]] = {
        "bare apsw": partial(
            _peers.bare_apsw, folder / f"{name}-bare.db", "FULL" if durability == "full" else "NORMAL"
        ),
        "diskcache": partial(_peers.diskcache, folder / f"{name}-diskcache"),
        "redis-py": partial(_peers.redis, folder / f"{name}-redis"),
        "LangGraph": partial(_peers.langgraph, folder / f"{name}-langgraph.db"),
    }
    with ExitStack() as stack:
        memory, last = stack.enter_context(steady_memory(bench, name, durability))
        found = {"botwire": Contender(bench, Peer(memory.set, memory.get), calls, last)}
        for peer in peers:
            if peer == "redis-py" and not _peers.has_redis():
                continue
            found[peer] = Contender(bench, stack.enter_context(managers[peer]()), calls)
            found[peer].fill()  # once: they keep no history
        for each, contender in found.items():
            contender.check(each)
        yield found
        for each, contender in found.items():
            contender.check(each)


def compare_with(
    bench: Bench, what: str, times: dict[str, Summary], peer: str, at_most: float, *, strictly: bool = False
) -> None:
    """A row of the table, or a loud note that the peer was not there."""
    if peer in times:
        bench.report.compare(what, times["botwire"], times[peer], peer, at_most, strictly=strictly)
    else:
        bench.report.missing(what, f"at most {at_most:g} × {peer}", _peers.HOW_TO_INSTALL_REDIS)


def get(bench: Bench) -> None:
    """`get` beside everybody's."""
    with contenders(
        bench, "get", "relaxed", bench.size.gets, ["bare apsw", "diskcache", "redis-py", "LangGraph"]
    ) as found:
        times = bench.interleave({name: each.gets for name, each in found.items()}, bench.size.rounds)
    bench.report.times["get"] = times
    compare_with(bench, "get", times, "bare apsw", 1.3)
    compare_with(bench, "get", times, "redis-py", 0.2)
    compare_with(bench, "get", times, "diskcache", 1.0, strictly=True)


def set_relaxed(bench: Bench) -> None:
    """`set` with history and feed, beside those that do not wait for the disk either."""
    with contenders(bench, "set", "relaxed", bench.size.sets, ["bare apsw", "diskcache", "redis-py"]) as found:
        times = bench.interleave({name: each.sets for name, each in found.items()}, bench.size.rounds)
    bench.report.times["set relaxed"] = times
    compare_with(bench, "set relaxed", times, "diskcache", 0.9)
    compare_with(bench, "set relaxed", times, "redis-py", 1.0)


def set_durable(bench: Bench) -> None:
    """`set` that waits for the disk, beside those that do."""
    size = bench.size
    with contenders(bench, "durable", "full", size.durable_sets, ["bare apsw", "LangGraph"]) as found:
        # LangGraph stands apart: its rollback journal slows down the file system's, and so its neighbours.
        slow = found.pop("LangGraph")
        slow.calls = 1
        # First until the logs have reached their full length: a file that grows is slower to sync.
        for contender in found.values():
            contender.write(bench.entries(KEYS[:400]))
        times = bench.interleave({name: each.sets for name, each in found.items()}, size.durable_rounds)
        beside = bench.interleave({"LangGraph": slow.sets, "botwire": found["botwire"].sets}, size.durable_rounds // 2)
        slow.check("LangGraph")
    bench.report.times["set durable"] = {**times, "LangGraph": beside["LangGraph"]}
    compare_with(bench, "set durable", times, "bare apsw", 1.3)


# ── threads and processes ───────────────────────────────────────────────────────────────────────────


def threads(bench: Bench) -> None:
    """Sixteen threads that set durably, beside one."""
    rates: dict[int, list[float]] = {1: [], 16: []}
    with Memory(NAMESPACE, bench.url("threads")) as memory:
        for _ in range(bench.size.thread_rounds):
            for count, found in rates.items():
                found.append(_rate(memory, count, bench.size.thread_seconds))
    found_ratio = ratio(rates[16], rates[1])
    figure = f"{_middle(rates[16]):,.0f}/s against {_middle(rates[1]):,.0f}/s"
    bench.report.details["threads"] = rates
    bench.report.rows.append(
        Row(
            "16 threads setting durably",
            figure,
            f"{found_ratio} × one thread",
            "at least 2.5 ×",
            found_ratio.value >= 2.5,
        )
    )


def _middle(numbers: Sequence[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def _rate(memory: Memory, count: int, seconds: float) -> float:
    """Sets a second, by so many threads together."""
    done = [0] * count
    errors: list[BaseException] = []
    start = threading.Barrier(count + 1)

    def work(place: int) -> None:
        try:
            start.wait()
            deadline = time.perf_counter() + seconds
            while time.perf_counter() < deadline:
                number = done[place]
                memory.set(f"thread-{place}-{number % 50}", value_of(number * 16 + place))
                done[place] = number + 1
        except BaseException as error:
            errors.append(error)
            raise

    before = memory.stats().version
    workers = [threading.Thread(target=work, args=(place,)) for place in range(count)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - began
    expect(not errors and memory.stats().version - before == sum(done), f"threads: writes are missing, or {errors}")
    for place, number in enumerate(done):
        last = memory.get(f"thread-{place}-{(number - 1) % 50}")
        expect(last == value_of((number - 1) * 16 + place), "threads: a value is not what was set last")
    return sum(done) / elapsed


def processes(bench: Bench) -> None:
    """Two processes that set durably into one namespace, flat out."""
    runs = [_two_writers(bench, run) for run in range(bench.size.process_runs)]
    shares = [min(run["writes"]) / max(run["writes"]) for run in runs]
    stall = max(run["longest"] for run in runs)
    errors = [error for run in runs for error in run["errors"]]
    bench.report.details["processes"] = runs
    what = f"two processes setting durably for {bench.size.process_seconds:g} s"
    if len(runs) > 1:
        what += f", worst of {len(runs)} runs"
    totals = ", ".join(f"{slow:,} + {fast:,}" for slow, fast in (sorted(run["writes"]) for run in runs))
    share = Ratio(min(shares), min(shares), max(shares))
    rows = bench.report.rows
    rows.append(Row(f"{what}: errors", f"{len(errors)}", "", "none", not errors))
    rows.append(
        Row(f"{what}: slower one's writes", totals, f"{share} × the faster one's", "at least 0.5 ×", share.value >= 0.5)
    )
    rows.append(Row(f"{what}: longest stall", f"{stall * 1_000:.0f} ms", "", "at most 500 ms", stall <= 0.5))


def _two_writers(bench: Bench, run: int) -> dict[str, Any]:
    url = bench.url(f"processes-{run}")
    names = ("left", "right")
    arguments = [("write", url, name, str(bench.size.process_seconds)) for name in names]
    writers = [_start_child(*each) for each in arguments]
    for writer in writers:
        assert writer.stdout is not None  # asked for a pipe
        expect(writer.stdout.readline().strip() == "ready", "processes: a writer did not start")
    with Memory("shared", url) as memory:
        before = memory.stats().version
        for writer in writers:
            assert writer.stdin is not None  # asked for a pipe
            writer.stdin.write("go\n")
            writer.stdin.flush()
        answers = [_answer_of(writer) for writer in writers]
        acknowledged = sum(answer["writes"] for answer in answers)
        kept = memory.stats().version - before
    expect(kept == acknowledged, f"processes: {acknowledged:,} writes were acknowledged, {kept:,} are there")
    expect(all(answer["read_back"] for answer in answers), "processes: a value is not what was set last")
    return {
        "writes": [answer["writes"] for answer in answers],
        "errors": [error for answer in answers for error in answer["errors"]],
        "longest": max(answer["longest"] for answer in answers),
    }


def _start_child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks._child", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _answer_of(child: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = child.communicate()
    expect(child.returncode == 0, f"a child process failed with exit status {child.returncode}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


# ── size ────────────────────────────────────────────────────────────────────────────────────────────


def _message(number: int) -> dict[str, Any]:
    return {
        "role": "user" if number % 2 else "assistant",
        "content": f"message {number}: " + f"{number * 7_919:x} " * 12,
    }


def conversation(bench: Bench) -> None:
    """Appending to a long conversation and reading its end, beside short ones in a file of their own."""
    size, count = bench.size, bench.size.messages
    with (
        Memory(NAMESPACE, bench.url("short-talks"), durability="relaxed") as small,
        Memory(NAMESPACE, bench.url("long-talk"), durability="relaxed") as large,
    ):
        long, short = large.conversation("thread-1"), _start_talk(small, "thread-1", 100)
        for start in range(0, count, FILL_BATCH):
            long.extend(map(_message, range(start, min(start + FILL_BATCH, count))))
        names = (f"thread-{number}" for number in range(2, 1 << 30))

        def append_short() -> Laps:
            return _appends(_start_talk(small, next(names), 100))  # a new one each turn, or it would not stay short

        append = bench.interleave(
            {f"at {count:,}": lambda: _appends(long), "at 100": append_short}, size.rounds, turns=4
        )
        last = bench.interleave(
            {f"at {count:,}": lambda: _last_reads(long), "at 100": lambda: _last_reads(short)}, size.rounds
        )
        expect(len(long) == count + 50 * 4 * len(append["at 100"].p50s), "conversation: messages are missing")
        _check_last(long)
        _check_last(short)
    _compare_sizes(bench, "conversation append", append, 1.3)
    _compare_sizes(bench, "conversation last 20", last, 1.3)


def _compare_sizes(bench: Bench, what: str, times: dict[str, Summary], at_most: float) -> None:
    """A row for a large one and a small one, in this order."""
    (large, slow), (small, fast) = times.items()
    bench.report.times[f"{what}, by size"] = times
    bench.report.compare(f"{what}, {large}", slow, fast, small, at_most)


def _start_talk(memory: Memory, name: str, count: int) -> Conversation:
    talk = memory.conversation(name)
    talk.extend(map(_message, range(count)))
    return talk


def _appends(talk: Conversation) -> Laps:
    start = len(talk)
    return time_reads(talk.append, [_message(number) for number in range(start, start + 50)])


def _last_reads(talk: Conversation) -> Laps:
    return time_reads(lambda count: talk.messages(last=count), [20] * 50)


def _check_last(talk: Conversation) -> None:
    last, count = [message.value for message in talk.messages(last=20)], len(talk)
    expect(
        last == [_message(number) for number in range(count - 20, count)],
        "conversation: the last 20 are not the last 20",
    )


def many_items(bench: Bench) -> None:
    """`get` and `set` among very many items, beside a thousand."""
    size = bench.size
    with (
        Memory(NAMESPACE, bench.many_items, durability="relaxed") as large,
        Memory(NAMESPACE, bench.url("few"), durability="relaxed") as small,
    ):
        bench.fill(small, 1_000)
        expect((len(large), len(small)) == (size.items, 1_000), "items are missing")
        large_name, small_name = f"among {size.items:,} items", "among 1,000"

        def gets(memory: Memory, count: int) -> Laps:
            return time_reads(memory.get, many_keys(bench.chance.choices(range(count), k=100)))

        times = bench.interleave(
            {large_name: lambda: gets(large, size.items), small_name: lambda: gets(small, 1_000)}, size.rounds
        )
        _compare_sizes(bench, "get", times, 1.8)

        # No key is set twice, so that neither side has more of a past; the small one is a new namespace each turn.
        untouched = many_keys(bench.chance.sample(range(size.items), size.rounds * 2 * 200))
        new = (Memory(f"user-{number}", bench.url("few"), durability="relaxed") for number in range(1 << 30))
        written: dict[str, Any] = {}

        def set_large() -> Laps:
            entries = bench.entries([untouched.pop() for _ in range(200)])
            written.update(entries)
            return time_writes(large.set, entries)

        def set_small() -> Laps:
            bench.fill(memory := next(new), 1_000)
            return time_writes(memory.set, bench.entries(many_keys(bench.chance.sample(range(1_000), 200))))

        times = bench.interleave({large_name: set_large, small_name: set_small}, size.rounds, turns=2)
        _compare_sizes(bench, "set relaxed", times, 1.8)
        expect(all(large.get(key) == value for key, value in written.items()), "a value is not what was set last")


def listing(bench: Bench) -> None:
    """What listing and exporting very many items costs in memory; each in a process of its own."""
    tasks = {"iterating over the keys": "iterate", "items()": "items", "export": "export"}
    for what, task in tasks.items():
        extra = [str(bench.folder / "export.jsonl")] if task == "export" else []
        answer = _answer_of(_start_child(task, bench.many_items, NAMESPACE, *extra))
        expect(answer["count"] == bench.size.items, f"{what}: {answer['count']:,} items were listed")
        bench.report.details[what] = answer
        title = f"{what} of {bench.size.items:,} items: resident memory"
        if answer["grown"] is None:
            bench.report.missing(title, "grows by under 50 MB", "this system does not tell")
            continue
        figure = f"grows by {answer['grown'] / MEGABYTE:.0f} MB, in {answer['seconds']:.1f} s"
        if files := answer["after"]["files"] - answer["before"]["files"]:
            figure += f" ({files / MEGABYTE:.0f} MB of it mapped file)"
        bench.report.rows.append(Row(title, figure, "", "under 50 MB", answer["grown"] < 50 * MEGABYTE))
    exported = bench.folder / "export.jsonl"
    with exported.open("rb") as stream:
        lines = sum(1 for line in stream if b'"kind":"item"' in line[:20])
    expect(lines == bench.size.items, f"the export holds {lines:,} items")
    exported.unlink()


# ── a memory for every request, and the import ──────────────────────────────────────────────────────


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def requests(bench: Bench) -> None:
    """`Memory(f"user-{id}")` and a `get` for every request, beside a `get` of memories made before."""
    url, users = bench.url("requests"), range(1_000)
    with environment("BOTWIRE_URL", url):
        held: dict[int, Any] = {user: bench.value() for user in users}
        memories = [Memory(f"user-{user}") for user in users]
        for user, memory in enumerate(memories):
            memory.set_many({"preferences": held[user], "coffee": f"blend {user}", "plan": bench.value()})

        def some() -> list[int]:
            return bench.chance.choices(users, k=bench.size.gets)

        def made_before(memory: Memory) -> Any:
            return memory.get("preferences")

        def by_default(user: int) -> Any:
            return Memory(f"user-{user}").get("preferences")

        def by_url(user: int) -> Any:
            return Memory(f"user-{user}", url).get("preferences")

        for user in users:
            expect(
                made_before(memories[user]) == by_default(user) == by_url(user) == held[user], "requests: a wrong value"
            )
        times = bench.interleave(
            {
                "a get": lambda: time_reads(made_before, [memories[user] for user in some()]),
                "Memory(name).get": lambda: time_reads(by_default, some()),
                "Memory(name, url).get": lambda: time_reads(by_url, some()),
            },
            bench.size.rounds,
        )
        for memory in memories:
            memory.close()
    bench.report.times["a memory for every request"] = times
    for name, form in (("Memory(name).get", "BOTWIRE_URL"), ("Memory(name, url).get", "an absolute url")):
        bench.report.compare(f'`Memory(f"user-{{id}}")` and a get, {form}', times[name], times["a get"], "a get", 1.5)


def imports(bench: Bench) -> None:
    """What `from botwire import Memory` adds to a fresh interpreter, beside `import httpx`."""
    codes = {"bare": "pass", "botwire": "from botwire import Memory", "httpx": "import httpx"}
    times: dict[str, list[float]] = {name: [] for name in codes}
    for code in codes.values():
        fresh_python(code)  # compiles what is not compiled yet
    for _ in range(bench.size.interpreters):
        for name, code in codes.items():
            times[name].append(fresh_python(code))
    added = {
        name: [each - bare for each, bare in zip(found, times["bare"], strict=True)] for name, found in times.items()
    }
    found_ratio = ratio(added["botwire"], added["httpx"])
    figure = f"{_middle(added['botwire']) * 1_000:.0f} ms against {_middle(added['httpx']) * 1_000:.0f} ms"
    bench.report.details["import"] = times
    rows = bench.report.rows
    rows.append(
        Row(
            "`from botwire import Memory`",
            figure,
            f"{found_ratio} × `import httpx`",
            "at most 0.33 ×",
            found_ratio.value <= 1 / 3,
        )
    )
    brought = _brought_along()
    extra = sorted(brought - IMPORTED)
    rows.append(
        Row("… brings from outside the standard library", ", ".join(sorted(brought)), "", "what it uses", not extra)
    )


def _brought_along() -> set[str]:
    code = (
        "import sys; before = set(sys.modules); from botwire import Memory; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=os.sep)
    return set(found.stdout.split())


# ── all together ────────────────────────────────────────────────────────────────────────────────────

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "get": get,
    "set": set_relaxed,
    "durable": set_durable,
    "threads": threads,
    "processes": processes,
    "conversation": conversation,
    "million": many_items,
    "listing": listing,
    "requests": requests,
    "import": imports,
}


def where_and_what(folder: Path, quick: bool) -> str:
    """The machine and the versions, for the line above the table."""
    versions = [f"{name} {version(name)}" for name in ("apsw", "msgspec", "httpx", *BENCH_GROUP.values())]
    server = "no redis-server"
    if _peers.has_redis():
        told = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True)
        server = "redis-server " + next(word[2:] for word in told.stdout.split() if word.startswith("v="))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {file_system(folder)}, {_load()}"
    return (
        f"{'Quick' if quick else 'Full'} run. botwire {__version__}, Python {platform.python_version()}, SQLite "
        f"{apsw.sqlite_lib_version()}, {', '.join(versions)}, {server}; {machine}."
    )


def _load() -> str:
    """How busy the machine is already, as far as it tells; loudly, if that will spoil the figures."""
    if not hasattr(os, "getloadavg"):
        return "load unknown"
    load = os.getloadavg()[0]
    if load > 1:
        print(
            f"WARNING: the machine is busy (load {load:.1f}): figures for durable writes mean little\n", file=sys.stderr
        )
    return f"load {load:.1f} at the start"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="botwire embedded, side by side with its peers")
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer rounds, 100,000 items")
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="NAME", help=f"one of {', '.join(SECTIONS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured here")
    parser.add_argument("--dir", metavar="FOLDER", help="keep the databases below this folder, on the disk to measure")
    arguments = parser.parse_args()
    missing = [name for module, name in BENCH_GROUP.items() if importlib.util.find_spec(module) is None]
    if missing:
        parser.exit(2, f"{', '.join(missing)} not installed: pip install --group bench\n")
    if not _peers.has_redis():
        print(f"WARNING: redis-py is left out: {_peers.HOW_TO_INSTALL_REDIS}\n", file=sys.stderr)
    return arguments


def main() -> None:
    """Run the sections, and print what came out."""
    arguments = parse()
    report = Report()
    with scratch_folder(arguments.dir) as folder:
        bench = Bench(folder, QUICK if arguments.quick else FULL, report)
        heading = where_and_what(folder, arguments.quick)
        for name in arguments.only or SECTIONS:
            start = time.perf_counter()
            SECTIONS[name](bench)
            print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(f"{heading}\n\n{report.markdown()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"run": heading, **report.plain()}, indent=1))


if __name__ == "__main__":
    main()
