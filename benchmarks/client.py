"""What the client of a server costs: beside httpx as one would use it, alone and with many calls at once.

    python benchmarks/client.py

It starts a server on loopback, with its store in memory. Contenders take turns; a figure is the median of the turns.
`cpu` is what the client's own process spends on a call, which a busy machine changes less than the time it takes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import httpx
from msgspec import Raw

from botwire.ops import Op, Put, Value
from botwire.stores.http import AsyncHTTPStore, HTTPStore

if TYPE_CHECKING:
    from collections.abc import Iterator

TURNS = 7
CALLS = 400  # in a turn
AT_ONCE = 50
READ: list[Op] = [Value("user-42", "coffee")]
WRITE: list[Op] = [Put("user-42", "coffee", Raw(b'"Ethiopian Yirgacheffe"'))]
BODIES = {
    "get": b'{"ops":[{"op":"value","namespace":"user-42","key":"coffee"}]}',
    "set": b'{"ops":[{"op":"put","namespace":"user-42","key":"coffee","raw":"Ethiopian Yirgacheffe"}]}',
}
JSON = {"content-type": "application/json"}

Figures = dict[str, list[tuple[float, float]]]
"""By contender: microseconds and microseconds of processor time a call, for each turn."""


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server that runs meanwhile."""
    command = [sys.executable, "-m", "botwire.cli", "serve", "--store", "sqlite://", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None  # it was asked for
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def turn(figures: Figures, name: str, call: Callable[[], object], calls: int = CALLS) -> None:
    """Make calls one after the other, and note what one takes."""
    call()
    begun, spent = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    taken = (time.perf_counter() - begun, time.process_time() - spent)
    figures.setdefault(name, []).append((taken[0] / calls * 1e6, taken[1] / calls * 1e6))


async def turn_at_once(figures: Figures, name: str, call: Callable[[], Awaitable[object]], at_once: int) -> None:
    """The same, with so many callers at once."""
    rounds = max(1, CALLS // at_once)

    async def caller() -> None:
        for _ in range(rounds):
            await call()

    await call()
    begun, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    taken = (time.perf_counter() - begun, time.process_time() - spent)
    count = rounds * at_once
    figures.setdefault(name, []).append((taken[0] / count * 1e6, taken[1] / count * 1e6))


def threads(url: str, figures: Figures) -> None:
    """One caller, one call after the other."""
    store = HTTPStore(url)
    with httpx.Client(base_url=url) as client:
        for _ in range(TURNS):
            for name, ops in (("get", READ), ("set", WRITE)):
                plain = partial(client.post, "/v1/execute", content=BODIES[name], headers=JSON)
                turn(figures, f"{name}, httpx.Client", plain)
                turn(figures, f"{name}, Memory", partial(store.execute, ops))
    store.close()


async def loops(url: str, figures: Figures) -> None:
    """An event loop, with one caller and with many."""
    store = AsyncHTTPStore(url)
    async with httpx.AsyncClient(base_url=url) as client:
        for _ in range(TURNS):
            for name, ops in (("get", READ), ("set", WRITE)):
                plain = partial(client.post, "/v1/execute", content=BODIES[name], headers=JSON)
                for at_once in (1, AT_ONCE):
                    what = f"{name}, {at_once} at once"
                    await turn_at_once(figures, f"{what}, httpx.AsyncClient", plain, at_once)
                    await turn_at_once(figures, f"{what}, AsyncMemory", partial(store.execute, ops), at_once)
    await store.close()


def main() -> None:
    """Measure, and print a table."""
    figures: Figures = {}
    with server() as url:
        threads(url, figures)
        asyncio.run(loops(url, figures))
    print(f"{'':42} {'µs a call':>10} {'cpu':>8} {'calls/s':>10}")
    for name, turns in figures.items():
        taken, spent = (median(each) for each in zip(*turns, strict=True))
        print(f"{name:42} {taken:10.0f} {spent:8.0f} {1e6 / taken:10,.0f}")


if __name__ == "__main__":
    main()
