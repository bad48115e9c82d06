"""`BotWireStore` beside LangGraph's `SqliteStore`: for `adapters.py`.

Each at its defaults: botwire in WAL mode with `synchronous=FULL` and a history of 16 values; `SqliteStore` opened as
its documentation does it, with a rollback journal and `synchronous=FULL`. Every put waits for the disk.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._measure import Laps, time_reads, time_writes

if TYPE_CHECKING:
    from benchmarks.adapters import Bench

PEER = "SqliteStore"
LABELS = ("users", "user-42")
FILL_BATCH = 5_000  # items in one transaction, while a store is filled
WARM_UP = 300  # puts before anything is measured: a log that grows is slower to sync
GETS, SEARCHES = 100, 3  # in a turn
PUTS = 40  # more than elsewhere: the first after a turn of the peer's also wait for what its journal has left behind
FILTER = {"visits": {"$gte": 0}, "kind": "fact-3"}  # a tenth of the items


def value_of(number: int) -> dict[str, Any]:
    """A value of about 150 bytes as JSON, another one for each number."""
    note = f"{number * 2_654_435_761 % 2**64:016x}" * 4
    return {"kind": f"fact-{number % 10}", "likes": ["coffee", "tea"], "visits": number, "note": note}


@contextmanager
def ours(path: Path) -> Iterator[Any]:
    """botwire's store."""
    from botwire import Memory
    from botwire_langgraph import BotWireStore

    with Memory("graph", f"sqlite:///{path}") as memory:
        yield BotWireStore(memory=memory)


@contextmanager
def theirs(path: Path) -> Iterator[Any]:
    """LangGraph's."""
    from langgraph.store.sqlite import SqliteStore

    with SqliteStore.from_conn_string(str(path)) as store:
        store.setup()
        yield store


@dataclass
class Contender:
    """A store with so many items, and what they should be."""

    store: Any
    count: int
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1_000_000))
    chance: random.Random = field(default_factory=lambda: random.Random(42))
    written: dict[str, Any] = field(default_factory=dict[str, Any])

    def fill(self) -> None:
        """Put all of them, and then some again until the log has its full length."""
        from langgraph.store.base import PutOp

        self.written = {f"item-{number}": value_of(number) for number in range(self.count)}
        puts = [PutOp(LABELS, key, value) for key, value in self.written.items()]
        for start in range(0, len(puts), FILL_BATCH):
            self.store.batch(puts[start : start + FILL_BATCH])
        self._put(WARM_UP)

    def _keys(self, count: int) -> list[str]:
        return [f"item-{number}" for number in self.chance.choices(range(self.count), k=count)]

    def gets(self) -> Laps:
        """A turn of gets."""
        return time_reads(lambda key: self.store.get(LABELS, key), self._keys(GETS))

    def puts(self) -> Laps:
        """A turn of puts over what is there."""
        return self._put(PUTS)

    def _put(self, count: int) -> Laps:
        entries = [(key, value_of(next(self.numbers))) for key in self._keys(count)]
        self.written.update(entries)
        return time_writes(lambda key, value: self.store.put(LABELS, key, value), entries)

    def searches(self) -> Laps:
        """A turn of searches for the newest ten."""
        return time_reads(lambda _: self.store.search(LABELS[:1]), range(SEARCHES))

    def filters(self) -> Laps:
        """The same with a filter."""
        return time_reads(lambda _: self.store.search(LABELS[:1], filter=FILTER), range(SEARCHES))

    def is_right(self) -> bool:
        """Whether the store holds what was put, and finds it."""
        held = {item.key: item.value for item in self.store.search((), limit=self.count + 1)}
        found = self.store.search((), filter=FILTER)
        wanted = sum(value["kind"] == FILTER["kind"] for value in self.written.values())
        return held == self.written and len(found) == min(10, wanted)


def store(bench: Bench) -> None:
    """get, put and search among few and many items."""
    for count in bench.size.lengths:
        with ours(bench.path("botwire")) as mine, theirs(bench.path("langgraph")) as other:
            contenders = {"botwire": Contender(mine, count), PEER: Contender(other, count)}
            for contender in contenders.values():
                contender.fill()
            _compare(bench, f"LangGraph get among {count:,}", contenders, Contender.gets, 1.0)
            _compare(bench, f"LangGraph put among {count:,}", contenders, Contender.puts, 0.2)
            _compare(bench, f"LangGraph search among {count:,}", contenders, Contender.searches)
            _compare(bench, f"LangGraph filtered search among {count:,}", contenders, Contender.filters)
            for name, contender in contenders.items():
                if not contender.is_right():
                    raise RuntimeError(f"{name}: what was put among {count:,} is not what is there")


def _compare(
    bench: Bench,
    what: str,
    contenders: dict[str, Contender],
    turn: Callable[[Contender], Laps],
    at_most: float | None = None,
) -> None:
    """Let both take turns. Without an aim only the times are noted."""
    times = bench.interleave({name: partial(turn, each) for name, each in contenders.items()})
    bench.report.times[what] = times
    if at_most is not None:
        bench.report.compare(what, times["botwire"], times[PEER], PEER, at_most)


def sections() -> dict[str, Callable[[Bench], None]]:
    """What `adapters.py` runs."""
    return {"langgraph": store}
