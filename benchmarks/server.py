"""botwire's server, side by side with a plain FastAPI service and with Redis.

    python benchmarks/server.py [--quick] [--only NAME]… [--json FILE] [--dir FOLDER]

Prints what was aimed at and what came out, as Markdown. See `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import apsw
import msgspec
from msgspec import Raw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script finds only its own folder; mypy and the child processes start from the root

from benchmarks import _servers  # noqa: E402  # see above
from benchmarks._measure import (  # noqa: E402  # see above
    Laps,
    Report,
    Row,
    Summary,
    file_system,
    interleave,
    ratio,
    scratch_folder,
    time_reads,
    time_writes,
)
from benchmarks._servers import CONNECTIONS, Run, Server  # noqa: E402  # see above

from botwire import AsyncMemory, Memory, __version__  # noqa: E402  # see above
from botwire.ops import Put  # noqa: E402  # see above
from botwire.stores.sqlite import SQLiteStore  # noqa: E402  # see above

NAMESPACE = "user-42"
KEYS = 1_000
OVERWRITTEN = 20  # times, before anything is measured: a key's history is full (16 past values) and stays so
PATH = f"/memory/{NAMESPACE}/preference-%d"
LIMITS = ("--requests-per-second", "10000000", "--writes-per-day", "1000000000", "--max-bytes", "1000000000000")
"""High enough to hold up nobody: what is measured is that they are looked at."""
MEGABYTE = 1_000_000
TASKS = 64  # of one client at a time


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float  # of one turn of load
    redis_requests: int  # in a turn
    exported: int  # items
    streams: int
    namespaces: int
    file: int  # bytes
    starts: int
    calls: int  # of a client, in a turn


FULL = Size(
    rounds=9, seconds=3, redis_requests=200_000, exported=200_000, streams=1_000, namespaces=100_000,
    file=1_000 * MEGABYTE, starts=7, calls=300,
)  # fmt: skip
QUICK = Size(
    rounds=3, seconds=1, redis_requests=50_000, exported=20_000, streams=1_000, namespaces=20_000,
    file=100 * MEGABYTE, starts=3, calls=100,
)  # fmt: skip


def value_of(number: int) -> dict[str, Any]:
    """A value of about 150 bytes as JSON, another one for each number."""
    return {
        "name": f"user {number}",
        "likes": ["coffee", "tea"],
        "visits": number,
        "score": number / 7,
        "note": f"{number * 2_654_435_761 % 2**64:016x}" * 4,
    }


@dataclass
class Bench:
    """What the sections share."""

    folder: Path
    size: Size
    report: Report

    def url(self, name: str) -> str:
        """A SQLite file in the folder, as an absolute URL."""
        return f"sqlite:///{self.folder / name}.db"

    def filled(self, name: str) -> str:
        """The URL of a store with one namespace of 1,000 keys whose histories are full."""
        url = self.url(name)
        with Memory(NAMESPACE, url, durability="relaxed") as memory:
            for time_ in range(OVERWRITTEN):
                memory.set_many({f"preference-{n}": value_of(n + time_ * KEYS) for n in range(KEYS)})
        return url

    @contextmanager
    def serving(self, url: str, *options: str) -> Generator[Server]:
        """botwire's server over a store."""
        with _servers.botwire(url, self.folder, *options) as server:
            yield server

    def row(self, what: str, figure: str, found: str, target: str, met: bool) -> None:
        """A line of the table."""
        self.report.rows.append(Row(what, figure, found, target, met))


class WrongResultError(Exception):
    """What was measured did not do what it should have."""


def expect(fact: bool, what: str) -> None:
    """Stop unless what was measured was right: the figures would be worth nothing."""
    if not fact:
        raise WrongResultError(what)


def check(name: str, run: Run) -> Run:
    """Stop if any request was refused, cut off or forgotten."""
    expect(run.rate > 0, f"{name} answered nothing")
    expect(not (run.refused or run.broken or run.timeouts), f"{name}: {run}")
    return run


# ── GET and PUT, beside the plain service and Redis ─────────────────────────────────────────────────

Rounds = dict[str, list[Run]]


def in_turns(contenders: dict[str, Callable[[], Run]], rounds: int) -> Rounds:
    """Let the contenders take turns."""
    found: Rounds = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # warms up
    for _ in range(rounds):
        for name, run in contenders.items():
            found[name].append(run())
    return found


def rates(runs: Sequence[Run]) -> list[float]:
    """Requests a second, round by round."""
    return [run.rate for run in runs]


def p99s(runs: Sequence[Run]) -> list[float]:
    """The 99th percentiles, round by round, in microseconds."""
    return [run.p99 for run in runs]


def keep(bench: Bench, section: str, found: Rounds) -> None:
    """Note the times and rates for the second table and the JSON."""
    bench.report.times[section] = {
        told(name, runs): Summary([run.p50 for run in runs], p99s(runs)) for name, runs in found.items()
    }
    bench.report.details[section] = {name: [vars(run) for run in runs] for name, runs in found.items()}


def told(name: str, runs: Sequence[Run]) -> str:
    """A contender, its throughput, and what each request costs its server."""
    return f"{name}: {median(rates(runs)):,.0f}/s, {median(run.processor for run in runs):.0f} µs of processor each"


def compare_rates(
    bench: Bench, what: str, ours: Sequence[Run], theirs: Sequence[Run], least: float, goal: float
) -> None:
    """A row for a ratio of throughputs, its target and its goal."""
    found = ratio(rates(ours), rates(theirs))
    figure = f"{median(rates(ours)):,.0f}/s against {median(rates(theirs)):,.0f}/s"
    bench.row(what, figure, f"{found} ×", f"at least {least:g} × (goal {goal:g} ×)", found.value >= least)


def compare_p99s(bench: Bench, what: str, ours: Sequence[Run], theirs: Sequence[Run], most: float) -> None:
    """A row for a ratio of 99th percentiles."""
    found = ratio(p99s(ours), p99s(theirs))
    figure = f"{median(p99s(ours)) / 1_000:.2f} ms against {median(p99s(theirs)) / 1_000:.2f} ms"
    bench.row(what, figure, f"{found} ×", f"at most {most:.2g} ×", found.value <= most)


def requests(bench: Bench) -> None:
    """GET and durable PUT over 16 connections."""
    seconds = bench.size.seconds
    with ExitStack() as stack:
        ours = stack.enter_context(bench.serving(bench.filled("requests"), *LIMITS))
        plain = stack.enter_context(_servers.plain(bench.folder / "plain"))
        redis = stack.enter_context(_servers.redis(bench.folder / "redis"))
        fill_plain(plain)
        value_size = len(msgspec.json.encode(value_of(KEYS)))
        _servers.redis_benchmark(redis, "set", 50_000, KEYS, value_size)

        def load(name: str, server: Server, kind: str) -> Callable[[], Run]:
            return lambda: check(name, _servers.wrk(server, kind, PATH, KEYS, seconds))

        gets = in_turns(
            {
                "botwire": load("botwire", ours, "get"),
                "plain FastAPI": load("the plain service", plain, "get"),
                "Redis": lambda: _servers.redis_benchmark(redis, "get", bench.size.redis_requests, KEYS, value_size),
            },
            bench.size.rounds,
        )
        puts = in_turns(
            {"botwire": load("botwire", ours, "put"), "plain FastAPI": load_slow(plain, seconds)}, bench.size.rounds
        )
        read_back(ours)
    keep(bench, "GET", gets)
    keep(bench, "durable PUT", puts)
    compare_rates(bench, "GET", gets["botwire"], gets["plain FastAPI"], 5, 7)
    compare_p99s(bench, "GET, p99", gets["botwire"], gets["plain FastAPI"], 1 / 3)
    compare_rates(bench, "GET against Redis", gets["botwire"], gets["Redis"], 0.25, 0.4)
    compare_rates(bench, "durable PUT", puts["botwire"], puts["plain FastAPI"], 5, 7)
    compare_p99s(bench, "durable PUT, p99", puts["botwire"], puts["plain FastAPI"], 1 / 3)


def load_slow(plain: Server, seconds: float) -> Callable[[], Run]:
    """PUTs to the plain service: its writers starve each other now and then, and time-outs are part of its figures."""

    def run() -> Run:
        found = _servers.wrk(plain, "put", PATH, KEYS, seconds)
        expect(not (found.refused or found.broken), f"the plain service: {found}")
        return found

    return run


def fill_plain(server: Server) -> None:
    """Give every key of the plain service a value."""
    for number in range(KEYS):
        status, _ = _servers.ask(server, "PUT", PATH % number, {"value": value_of(number)})
        expect(status == 200, f"the plain service answered {status}")


def read_back(server: Server) -> None:
    """See that what was written is there, with its history and in the feed."""
    path = f"/v1/namespaces/{NAMESPACE}"
    text = {"value": value_of(7)}
    for _ in range(3):
        status, _ = _servers.ask(server, "PUT", PATH % 7, text)
        expect(status == 200, f"PUT answered {status}")
    _, body = _servers.ask(server, "GET", PATH % 7)
    expect(json.loads(body)["value"] == text["value"], "a value is not what was set")
    _, body = _servers.ask(server, "GET", f"{path}/items/preference-7/history?limit=50")
    expect(len(json.loads(body)) == 17, "there should be 16 past values and the current one")
    status, body = _servers.ask(server, "GET", f"{path}/changes?limit=1")
    expect(status == 200 and "cursor" in json.loads(body), "there is no feed")
    _, body = _servers.ask(server, "GET", "/metrics")
    expect(b'botwire_ops_total{kind="put",outcome="ok"}' in body, "nothing was counted")


# ── what goes on beside ─────────────────────────────────────────────────────────────────────────────


def beside(bench: Bench) -> None:
    """Gets while one connection reads something long."""
    url = bench.filled("beside")
    with Memory("big", url, durability="relaxed") as memory:
        for start in range(0, bench.size.exported, 5_000):
            memory.set_many({f"item-{n:07d}": value_of(n) for n in range(start, start + 5_000)})
    long_reads = {
        "an export": "/v1/namespaces/big/export",
        "a filtered listing": "/v1/namespaces/big/items?where=%7B%22name%22%3A%22nobody%22%7D&limit=1000",
        "a search": "/v1/namespaces/big/search?query=user+likes+coffee&limit=1000",
    }
    with bench.serving(url, *LIMITS) as server:

        def alone() -> Run:
            return check("botwire", _servers.wrk(server, "get", PATH, KEYS, bench.size.seconds))

        def with_(path: str) -> Callable[[], Run]:
            def run() -> Run:
                with _servers.reading(server, path) as count:
                    found = alone()
                expect(count[0] > 0, f"nothing came from {path}")
                return found

            return run

        found = in_turns(
            {"gets alone": alone, **{f"beside {what}": with_(path) for what, path in long_reads.items()}},
            bench.size.rounds,
        )
    keep(bench, "GET beside a long read", found)
    for what in long_reads:
        compare_p99s(bench, f"GET beside {what}, p99", found[f"beside {what}"], found["gets alone"], 2)


def streams(bench: Bench) -> None:
    """Gets, and memory, while many change streams are open and idle."""
    size = bench.size
    paths = [f"/v1/namespaces/idle-{number}/changes" for number in range(size.streams)]
    with bench.serving(bench.filled("streams"), *LIMITS) as server:

        def gets() -> Run:
            return check("botwire", _servers.wrk(server, "get", PATH, KEYS, size.seconds))

        found: Rounds = {"no streams": [], f"{size.streams:,} streams": []}
        gets()
        with _servers.streams(server, paths[:10]):
            time.sleep(0.5)
        before, grown = server.memory(), 0
        for _ in range(size.rounds):
            found["no streams"].append(gets())
            with _servers.streams(server, paths):
                time.sleep(1)
                grown = max(grown, server.memory() - before)
                found[f"{size.streams:,} streams"].append(gets())
            time.sleep(0.5)
    keep(bench, "GET beside streams", found)
    compare_p50s(bench, f"GET beside {size.streams:,} idle streams, p50", *reversed(found.values()), most=1.3)
    compare_memory(bench, f"{size.streams:,} idle streams", grown, 50 * size.streams / 1_000)


def compare_p50s(bench: Bench, what: str, ours: Sequence[Run], theirs: Sequence[Run], *, most: float) -> None:
    """A row for a ratio of medians."""
    found = ratio([run.p50 for run in ours], [run.p50 for run in theirs])
    figure = f"{median(run.p50 for run in ours):,.0f} µs against {median(run.p50 for run in theirs):,.0f} µs"
    bench.row(what, figure, f"{found} ×", f"at most {most:g} ×", found.value <= most)


def compare_memory(bench: Bench, what: str, grown: int, megabytes: float) -> None:
    """A row for memory that something costs."""
    figure = f"{grown / MEGABYTE:.1f} MB"
    bench.row(f"{what}, memory", figure, "", f"under {megabytes:g} MB", grown < megabytes * MEGABYTE)


def namespaces(bench: Bench) -> None:
    """Gets, and memory, with very many namespaces, each read and written to."""
    size = bench.size
    url = bench.url("namespaces")
    fill_namespaces(url, size.namespaces)
    with ExitStack() as stack:
        few = stack.enter_context(bench.serving(bench.filled("few"), *LIMITS))
        many = stack.enter_context(bench.serving(url, *LIMITS))
        in_many = "/memory/user-%d/coffee"
        for server, path, count in ((few, PATH, KEYS), (many, in_many, size.namespaces)):
            _servers.wrk(server, "put", path, count, size.seconds)  # both have written, and know namespaces
        found = in_turns(
            {
                "1 namespace": lambda: check("botwire", _servers.wrk(few, "get", PATH, KEYS, size.seconds)),
                f"{size.namespaces:,} namespaces": lambda: check(
                    "botwire", _servers.wrk(many, "get", in_many, size.namespaces, size.seconds)
                ),
            },
            size.rounds,
        )
        grown = many.memory() - few.memory()
    keep(bench, "GET among namespaces", found)
    compare_p50s(bench, f"GET among {size.namespaces:,} namespaces, p50", *reversed(found.values()), most=1.3)
    compare_memory(bench, f"{size.namespaces:,} namespaces in use", grown, 50 * size.namespaces / 100_000)


def fill_namespaces(url: str, count: int) -> None:
    """Give `count` namespaces an item each."""
    store = SQLiteStore(url.removeprefix("sqlite:///"), durability="relaxed")
    for first in range(0, count, 5_000):
        values = [(n, Raw(msgspec.json.encode(value_of(n)))) for n in range(first, first + 5_000)]
        store.execute([Put(f"user-{n}", "coffee", raw) for n, raw in values])
    store.close()


# ── starting, and resting ───────────────────────────────────────────────────────────────────────────


def start(bench: Bench) -> None:
    """How long a server takes to start, over a large file and over a new one; and what it needs at rest."""
    url = bench.url("large")
    text = "x" * 100_000
    with Memory("large", url, durability="relaxed") as memory:
        for first in range(0, bench.size.file // len(text), 100):
            memory.set_many({f"page-{n}": text + str(n) for n in range(first, first + 100)})
    taken: dict[str, list[float]] = {"large": [], "new": [], "processor": []}
    resting: list[int] = []
    for number in range(bench.size.starts):
        for name, each in (("large", url), ("new", bench.url(f"new-{number}"))):
            with bench.serving(each) as server:
                taken[name].append(server.seconds)
                taken["processor"].append(server.busy)
                time.sleep(0.5)
                resting.append(server.resident())
    large = (bench.folder / "large.db").stat().st_size
    bench.report.details["start"] = taken
    seconds = median(taken["large"])
    compared = ratio(taken["large"], taken["new"])
    bench.row(
        f"start-up over a file of {large / MEGABYTE:,.0f} MB",
        f"{seconds:.2f} s, of them {median(taken['processor']):.2f} s of processor",
        f"{compared} × a new file",
        "under 1 s",
        seconds < 1,
    )
    rest = max(resting)
    bench.row("memory at rest", f"{rest / MEGABYTE:.0f} MB", "", "under 120 MB", rest < 120 * MEGABYTE)


# ── clients ─────────────────────────────────────────────────────────────────────────────────────────


def clients(bench: Bench) -> None:
    """Round trips of `/v1/execute` and of botwire's own client. There is no target: httpx takes most of the time."""
    size = bench.size
    with bench.serving(bench.filled("clients"), *LIMITS) as server:
        found = in_turns(
            {
                "GET": lambda: check("botwire", _servers.wrk(server, "get", PATH, KEYS, size.seconds)),
                "POST /v1/execute": lambda: check(
                    "botwire", _servers.wrk(server, "execute", "preference-%d", KEYS, size.seconds)
                ),
            },
            size.rounds,
        )
        keep(bench, "doors", found)
        bench.report.times["client"] = client_times(server, size)


def client_times(server: Server, size: Size) -> dict[str, Summary]:
    """Microseconds that calls of botwire's client take, beside a bare GET by httpx."""
    import httpx

    with httpx.Client(base_url=server.url) as bare, Memory(NAMESPACE, server.url) as memory:
        keys = [f"preference-{number}" for number in range(size.calls)]
        numbers = itertools.count(OVERWRITTEN * KEYS)
        expect(memory.get(keys[0]) is not None, "the client found nothing")
        return interleave(
            {
                "httpx alone: GET": lambda: time_reads(bare.get, [PATH % number for number in range(size.calls)]),
                "`Memory(url=…).get`": lambda: time_reads(memory.get, keys),
                "`Memory(url=…).set`": lambda: time_writes(
                    memory.set, [(key, value_of(next(numbers))) for key in keys]
                ),
                f"`AsyncMemory.get`, {TASKS} at a time, each": lambda: asyncio.run(together(server.url, keys)),
            },
            size.rounds,
            turns=1,
            patience=60,
        )


async def together(url: str, keys: Sequence[str]) -> Laps:
    """Gets that come at once: for each, its part of the time they took together."""
    async with AsyncMemory(NAMESPACE, url) as memory:
        await memory.get(keys[0])
        laps: Laps = []
        for first in range(0, len(keys) - TASKS + 1, TASKS):
            begun = time.perf_counter_ns()
            found = await asyncio.gather(*(memory.get(key) for key in keys[first : first + TASKS]))
            laps.append((time.perf_counter_ns() - begun) // TASKS)
            expect(None not in found, "the client found nothing")
        return laps


# ── all together ────────────────────────────────────────────────────────────────────────────────────

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "requests": requests,
    "beside": beside,
    "streams": streams,
    "namespaces": namespaces,
    "start": start,
    "clients": clients,
}


def where_and_what(folder: Path, quick: bool) -> str:
    """The machine and the versions, for the line above the table."""
    versions = [f"{name} {version(name)}" for name in ("fastapi", "uvicorn", "uvloop", "httptools", "apsw", "httpx")]
    told = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout
    redis = next(word[2:] for word in told.split() if word.startswith("v="))
    load = os.getloadavg()[0]
    if load > 1:
        print(f"WARNING: the machine is busy (load {load:.1f}): trust the ratios alone\n", file=sys.stderr)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {file_system(folder)}"
    return (
        f"{'Quick' if quick else 'Full'} run, {CONNECTIONS} connections. botwire {__version__}, Python "
        f"{platform.python_version()}, SQLite {apsw.sqlite_lib_version()}, {', '.join(versions)}, redis-server "
        f"{redis}; {machine}, load {load:.1f} at the start."
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="botwire's server, side by side with its peers")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, smaller files")
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="NAME", help=f"one of {', '.join(SECTIONS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured here")
    parser.add_argument("--dir", metavar="FOLDER", help="keep the databases below this folder, on the disk to measure")
    arguments = parser.parse_args()
    if missing := _servers.missing():
        parser.exit(2, f"first: apt-get install {' '.join(missing)} (or brew install wrk redis)\n")
    return arguments


def main() -> None:
    """Run the sections, and print what came out."""
    arguments = parse()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a stream is an open file, here and in the server
    report = Report()
    with scratch_folder(arguments.dir) as folder:
        bench = Bench(folder, QUICK if arguments.quick else FULL, report)
        heading = where_and_what(folder, arguments.quick)
        for name in arguments.only or SECTIONS:
            begun = time.perf_counter()
            SECTIONS[name](bench)
            print(f"{name}: {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    print(f"{heading}\n\n{report.markdown()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"run": heading, **report.plain()}, indent=1))


if __name__ == "__main__":
    main()
