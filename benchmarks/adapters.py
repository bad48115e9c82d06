"""botwire's adapters, side by side with the histories, sessions and stores of the same frameworks.

    python benchmarks/adapters.py [--quick] [--only NAME]… [--json FILE] [--dir FOLDER]

Prints what was aimed at and what came out, as Markdown. See `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import itertools
import json
import os
import platform
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script finds only its own folder

from benchmarks import _peers  # noqa: E402  # see above
from benchmarks._measure import (  # noqa: E402  # see above
    Laps,
    Report,
    Summary,
    file_system,
    interleave,
    scratch_folder,
    time_reads,
)

from botwire import __version__  # noqa: E402  # see above

NAMESPACE = "langchain-sessions"
FILL_BATCH = 5_000  # messages in one transaction, while a history is filled
CROWD = 16  # sessions at the same time
WARM_UP = 400  # appends before anything is measured
NEEDED = {
    "langchain_core": "langchain-core",
    "langchain_community": "langchain-community",
    "langchain_redis": "langchain-redis",
    "greenlet": "greenlet",  # langchain-community's SQL history imports what needs it, and does not bring it
    "agents": "openai-agents",
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    turns: int  # of each contender in a round
    appends: int  # in a turn
    load_rounds: int
    lengths: tuple[int, int, int]  # of the histories, in messages
    patience: float  # seconds for one comparison; then it is content with fewer rounds


FULL = Size(rounds=25, turns=6, appends=10, load_rounds=9, lengths=(10, 1_000, 100_000), patience=30.0)
QUICK = Size(rounds=9, turns=4, appends=10, load_rounds=5, lengths=(10, 1_000, 20_000), patience=6.0)


@dataclass
class Bench:
    """What the sections share: a folder, how much to measure, and where to put what came out."""

    folder: Path
    size: Size
    report: Report
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def interleave(
        self, contenders: Mapping[str, Callable[[], Laps]], rounds: int | None = None, turns: int | None = None
    ) -> dict[str, Summary]:
        """Let contenders take turns, for as long as this run has patience."""
        return interleave(contenders, rounds or self.size.rounds, turns or self.size.turns, patience=self.size.patience)

    def path(self, name: str) -> Path:
        """A new file in the folder."""
        return self.folder / f"{name}-{next(self._numbers)}.db"

    def session_id(self) -> str:
        """The id of a session that nothing was said in."""
        return f"session-{next(self._numbers)}"


class WrongResultError(Exception):
    """What was measured did not do what it should have."""


def expect(fact: bool, what: str) -> None:
    """Stop unless what was measured was right: the figures would be worth nothing."""
    if not fact:
        raise WrongResultError(what)


# ── what is said ────────────────────────────────────────────────────────────────────────────────────


def text_of(number: int) -> str:
    """About 150 characters, others for each number."""
    return f"message {number}: " + f"{number * 7_919:x} " * 20


def message_of(number: int) -> Any:
    """A message of LangChain's."""
    from langchain_core.messages import AIMessage, HumanMessage

    return (HumanMessage if number % 2 else AIMessage)(text_of(number))


def item_of(number: int) -> Any:
    """The same as a session of openai-agents takes it."""
    return {"role": "user" if number % 2 else "assistant", "content": text_of(number)}


# ── histories ───────────────────────────────────────────────────────────────────────────────────────

NewHistory = Callable[[str], Any]
"""From the id of a session to its history."""


@contextmanager
def botwire(path: Path, durability: str = "full") -> Iterator[NewHistory]:
    """`BotWireChatHistory` with its own settings: every add waits for the disk."""
    from botwire import Memory
    from botwire_langchain import BotWireChatHistory

    with Memory(NAMESPACE, f"sqlite:///{path}", durability=durability) as memory:
        yield lambda session_id: BotWireChatHistory(session_id, memory=memory)


@contextmanager
def sql(path: Path) -> Iterator[NewHistory]:
    """langchain-community's `SQLChatMessageHistory` with its own settings: a rollback journal; every add waits."""
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    yield lambda session_id: SQLChatMessageHistory(session_id, connection=engine)
    engine.dispose()


@contextmanager
def redis_list(path: Path) -> Iterator[NewHistory]:
    """langchain-community's `RedisChatMessageHistory`: a list, in a server that syncs its file every second."""
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    with _peers._redis_server(path.with_suffix("")) as port:
        yield lambda session_id: RedisChatMessageHistory(session_id, url=f"redis://127.0.0.1:{port}")


@contextmanager
def redis_search(path: Path) -> Iterator[NewHistory]:
    """langchain-redis' `RedisChatMessageHistory`: an indexed JSON document for each message."""
    from langchain_redis import RedisChatMessageHistory

    with _peers._redis_server(path.with_suffix("")) as port:
        yield lambda session_id: RedisChatMessageHistory(session_id, redis_url=f"redis://127.0.0.1:{port}")


def why_no_redis_search(bench: Bench) -> str | None:
    """Why langchain-redis cannot be measured here, if it cannot: it needs a Redis with JSON and Search."""
    from redisvl.exceptions import RedisSearchError  # type: ignore[import-untyped]  # ships no types

    if not _peers.has_redis():
        return _peers.HOW_TO_INSTALL_REDIS
    try:
        with redis_search(bench.path("probe")) as new:
            new("probe")
    except RedisSearchError as error:
        if "unknown command" not in str(error):
            raise
        return "this redis-server has no search and JSON modules; Redis 8 has"
    return None


def filled(history: Any, count: int) -> Any:
    """The history with so many messages in it."""
    for start in range(0, count, FILL_BATCH):
        history.add_messages([message_of(number) for number in range(start, min(start + FILL_BATCH, count))])
    return history


def check(history: Any, count: int, what: str) -> None:
    """See that the history holds what was added, in its order."""
    said = [message.content for message in history.messages]
    expect(said == [text_of(number) for number in range(count)], f"{what}: not what was added")


@dataclass
class Grower:
    """A history that grows turn by turn; a short one is made anew for each turn, or it would not stay short."""

    bench: Bench
    new: NewHistory
    length: int
    history: Any = None
    count: int = 0

    @property
    def is_short(self) -> bool:
        return self.length < 100

    def warm_up(self) -> None:
        """Add until the log has reached its full length: a file that grows is slower to sync."""
        history = self.new(self.bench.session_id())
        for number in range(WARM_UP):
            history.add_message(message_of(number))

    def prepare(self) -> Any:
        """The history for the next turn."""
        if self.history is None or self.is_short:
            self.history, self.count = filled(self.new(self.bench.session_id()), self.length), self.length
        return self.history

    def said_next(self) -> list[Any]:
        """What a turn adds."""
        start, self.count = self.count, self.count + self.bench.size.appends
        return [message_of(number) for number in range(start, self.count)]

    def appends(self) -> Laps:
        """A turn of single adds."""
        history = self.prepare()
        return time_reads(history.add_message, self.said_next())

    def async_appends(self, loop: asyncio.AbstractEventLoop) -> Laps:
        """The same in an event loop."""
        history = self.prepare()
        return loop.run_until_complete(_awaited(lambda message: history.aadd_messages([message]), self.said_next()))

    def check(self, what: str) -> None:
        """See that all is there."""
        check(self.history, self.count, what)


async def _awaited(call: Callable[[Any], Any], arguments: Sequence[Any]) -> Laps:
    """Time an awaited call with one argument, for each argument."""
    clock = time.perf_counter_ns
    laps: Laps = []
    for argument in arguments:
        start = clock()
        await call(argument)
        laps.append(clock() - start)
    return laps


# ── sections ────────────────────────────────────────────────────────────────────────────────────────


def _beside(bench: Bench, peer: str, manager: Callable[[Path], Any], at_most: float, durability: str = "full") -> None:
    """Append to botwire's history and to a peer's, at each length. A pair at a time: journals slow their neighbours."""
    for length in bench.size.lengths:
        with botwire(bench.path("botwire"), durability) as ours, manager(bench.path("peer")) as theirs:
            growers = {"botwire": Grower(bench, ours, length), peer: Grower(bench, theirs, length)}
            for grower in growers.values():
                grower.warm_up()
            times = bench.interleave({name: grower.appends for name, grower in growers.items()})
            for name, grower in growers.items():
                grower.check(f"{name} at {length:,}")
        what = f"append at {length:,} messages{'' if durability == 'full' else ', relaxed'}"
        bench.report.times[f"{what}, beside {peer}"] = times
        bench.report.compare(what, times["botwire"], times[peer], peer, at_most)


def append(bench: Bench) -> None:
    """A durable append beside langchain-community's SQL history."""
    _beside(bench, "SQLChatMessageHistory", sql, 0.8)


def redis(bench: Bench) -> None:
    """One that does not wait for the disk, beside both Redis histories, which never do."""
    contenders = {
        "langchain-redis": (redis_search, 1.0, why_no_redis_search(bench)),
        "a Redis list": (redis_list, 1.5, None if _peers.has_redis() else _peers.HOW_TO_INSTALL_REDIS),
    }
    for peer, (manager, at_most, why_not) in contenders.items():
        if why_not:
            bench.report.missing("append, relaxed", f"at most {at_most:g} × {peer}", why_not)
        else:
            _beside(bench, peer, manager, at_most, "relaxed")


def sessions(bench: Bench) -> None:
    """A durable append beside openai-agents' `SQLiteSession`, which has async methods only; ours as both."""
    for length in bench.size.lengths:
        with asyncio.Runner() as runner, botwire(bench.path("botwire")) as new:
            loop = runner.get_loop()
            ours, theirs = Grower(bench, new, length), SessionGrower(bench, loop, length)
            ours.warm_up()
            theirs.warm_up()
            times = bench.interleave(
                {
                    "add_message": ours.appends,
                    "aadd_messages": partial(ours.async_appends, loop),
                    "SQLiteSession": theirs.appends,
                }
            )
            ours.check(f"botwire at {length:,}")
            theirs.check()
            theirs.close()
        bench.report.times[f"append at {length:,} messages, beside SQLiteSession"] = times
        # One after the other in an event loop, both wait for one sync and one thread: little is left to win.
        for name, at_most in (("add_message", 0.8), ("aadd_messages", 0.8)):
            what = f"append at {length:,} messages, `{name}`"
            bench.report.compare(what, times[name], times["SQLiteSession"], "SQLiteSession", at_most)


def crowd(bench: Bench) -> None:
    """Many sessions that are appended to at the same time in one event loop, as in a server."""
    from agents import SQLiteSession

    path = bench.path("session")
    names = [bench.session_id() for _ in range(CROWD)]
    with asyncio.Runner() as runner, botwire(bench.path("botwire")) as new:
        loop = runner.get_loop()
        histories, peers = [new(name) for name in names], [SQLiteSession(name, path) for name in names]
        appends = bench.size.appends
        messages, items = [message_of(n) for n in range(appends)], [item_of(n) for n in range(appends)]
        ours = partial(_all_at_once, loop, [partial(_added, history, messages) for history in histories], appends)
        theirs = partial(_all_at_once, loop, [partial(_added_items, peer, items) for peer in peers], appends)
        for _ in range(WARM_UP // appends // CROWD + 1):
            ours()
            theirs()
        times = bench.interleave({"botwire": ours, "SQLiteSession": theirs}, turns=2)
        counts = [len(history.messages) for history in histories]
        expect(counts == [len(loop.run_until_complete(peer.get_items())) for peer in peers], "messages are missing")
        for peer in peers:
            peer.close()
    what = f"append to {CROWD} sessions at once, in an event loop"
    bench.report.times[what] = times
    bench.report.compare(what, times["botwire"], times["SQLiteSession"], "SQLiteSession", 0.5)


def _all_at_once(loop: asyncio.AbstractEventLoop, calls: Sequence[Callable[[], Any]], appends: int) -> Laps:
    """Let all go at once. One lap: the time for all of them, a message."""

    async def run() -> None:
        await asyncio.gather(*(call() for call in calls))

    start = time.perf_counter_ns()
    loop.run_until_complete(run())
    return [(time.perf_counter_ns() - start) // (len(calls) * appends)]


async def _added(history: Any, messages: Sequence[Any]) -> None:
    for message in messages:
        await history.aadd_messages([message])


async def _added_items(session: Any, items: Sequence[Any]) -> None:
    for item in items:
        await session.add_items([item])


class SessionGrower:
    """A session of openai-agents that grows turn by turn; a short one is made anew for each turn."""

    def __init__(self, bench: Bench, loop: asyncio.AbstractEventLoop, length: int) -> None:
        self._bench = bench
        self._loop = loop
        self._length = length
        self._path = bench.path("session")
        self._first: Any = None
        self._open: Any = None
        self._count = 0

    def warm_up(self) -> None:
        """Add until the log has reached its full length. It stays open: with the last session the log would go."""
        from agents import SQLiteSession

        self._first = SQLiteSession(self._bench.session_id(), self._path)
        items = [item_of(number) for number in range(WARM_UP)]
        self._loop.run_until_complete(_awaited(lambda item: self._first.add_items([item]), items))

    def _prepare(self) -> Any:
        from agents import SQLiteSession

        if self._open is None or self._length < 100:
            if self._open is not None:
                self._open.close()
            self._open, self._count = SQLiteSession(self._bench.session_id(), self._path), self._length
            for start in range(0, self._length, FILL_BATCH):
                numbers = range(start, min(start + FILL_BATCH, self._length))
                self._loop.run_until_complete(self._open.add_items([item_of(number) for number in numbers]))
        return self._open

    def appends(self) -> Laps:
        """A turn of single adds."""
        session = self._prepare()
        start, self._count = self._count, self._count + self._bench.size.appends
        items = [item_of(number) for number in range(start, self._count)]
        return self._loop.run_until_complete(_awaited(lambda item: session.add_items([item]), items))

    def check(self) -> None:
        """See that all is there."""
        found = self._loop.run_until_complete(self._open.get_items())
        expect(found == [item_of(number) for number in range(self._count)], "SQLiteSession: not what was added")

    def close(self) -> None:
        """Close what is open."""
        self._open.close()
        self._first.close()


def by_length(bench: Bench) -> None:
    """Appending to long histories beside appending to short ones."""
    with ExitStack() as stack:
        growers = {
            length: Grower(bench, stack.enter_context(botwire(bench.path(f"length-{length}"))), length)
            for length in bench.size.lengths
        }
        for grower in growers.values():
            grower.warm_up()
        times = bench.interleave({f"at {length:,}": grower.appends for length, grower in growers.items()})
        for length, grower in growers.items():
            grower.check(f"botwire at {length:,}")
    bench.report.times["append, by length"] = times
    short, *longer = times
    for name in longer:
        bench.report.compare(f"append {name} messages, itself", times[name], times[short], short, 1.3)


def load(bench: Bench) -> None:
    """Reading a whole history, as messages of the framework."""
    peers: dict[str, Callable[[Path], Any]] = {"SQLChatMessageHistory": sql}
    if _peers.has_redis():
        peers["a Redis list"] = redis_list
    for length in bench.size.lengths:
        with ExitStack() as stack:
            managers = {"botwire": botwire, **peers}
            histories = {
                name: filled(stack.enter_context(manager(bench.path("load")))(bench.session_id()), length)
                for name, manager in managers.items()
            }
            reads = 20 if length <= 100 else 1
            times = bench.interleave(
                {name: partial(_loads, history, reads) for name, history in histories.items()},
                bench.size.load_rounds,
                turns=3,
            )
            for name, history in histories.items():
                check(history, length, name)
        bench.report.times[f"load {length:,}"] = times
        for peer in peers:
            bench.report.compare(f"load {length:,} messages", times["botwire"], times[peer], peer, 1.0)


def _loads(history: Any, count: int) -> Laps:
    return time_reads(lambda _: history.messages, range(count))


# ── all together ────────────────────────────────────────────────────────────────────────────────────

Section = Callable[[Bench], None]
SECTIONS: dict[str, Section] = {
    "append": append,
    "redis": redis,
    "sessions": sessions,
    "crowd": crowd,
    "length": by_length,
    "load": load,
}


def all_sections() -> dict[str, Section]:
    """Ours, and those of files beside this one; each has `sections()`, by name."""
    found = dict(SECTIONS)
    for name in ("_adapters_langgraph",):
        if importlib.util.find_spec(f"benchmarks.{name}") is not None:
            found |= importlib.import_module(f"benchmarks.{name}").sections()
    return found


def where_and_what(folder: Path, quick: bool) -> str:
    """The machine and the versions, for the line above the table."""
    versions = ", ".join(f"{name} {version(name)}" for name in NEEDED.values())
    load = f"load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "load unknown"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {file_system(folder)}, {load}"
    return (
        f"{'Quick' if quick else 'Full'} run. botwire {__version__}, Python {platform.python_version()}, SQLite "
        f"{apsw.sqlite_lib_version()} (the peers': {sqlite3.sqlite_version}), {versions}; {machine}."
    )


def parse(sections: Mapping[str, Section]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="botwire's adapters, side by side with their peers")
    parser.add_argument("--quick", action="store_true", help="under two minutes: fewer rounds, 20,000 messages")
    parser.add_argument("--only", action="append", choices=sections, metavar="NAME", help=f"of {', '.join(sections)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured here")
    parser.add_argument("--dir", metavar="FOLDER", help="keep the databases below this folder, on the disk to measure")
    arguments = parser.parse_args()
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        parser.exit(2, f"{', '.join(missing)} not installed: pip install --group bench\n")
    return arguments


def main() -> None:
    """Run the sections, and print what came out."""
    sections = all_sections()
    arguments = parse(sections)
    for name in ("langchain_community", "langchain_redis"):
        importlib.import_module(name)  # first: they change what is ignored
    warnings.simplefilter("ignore")  # LangChain deprecates its histories; they are what is measured
    report = Report()
    with scratch_folder(arguments.dir) as folder:
        bench = Bench(folder, QUICK if arguments.quick else FULL, report)
        heading = where_and_what(folder, arguments.quick)
        for name in arguments.only or sections:
            start = time.perf_counter()
            sections[name](bench)
            print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(f"{heading}\n\n{report.markdown()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"run": heading, **report.plain()}, indent=1))


if __name__ == "__main__":
    main()
