"""Prometheus metrics: ops by kind and outcome, how long they took, connections and streams, what the store holds.

Counting is a few additions of plain integers; what Prometheus wants is made when it asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, get_args

from msgspec import Struct

from botwire import __version__, wire
from botwire.errors import BotWireError
from botwire.ops import AnyOp, Changes, Describe, Namespaces, Op

from .settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric

    from botwire.stores.base import AsyncStore

BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds: where the buckets of the histogram end."""

KINDS: Final[dict[type[Op], str]] = {kind: kind.__name__.lower() for kind in get_args(AnyOp)}

PAUSE: Final = 5.0  # seconds between two looks at what the store holds, at least …
EFFORT: Final = 0.05  # … and so many that looking takes at most this part of the time
PATIENCE: Final = 2.0  # seconds that /metrics waits for such a look
PAGE: Final = 1_000  # namespaces

log: Final = logging.getLogger("botwire.server")


class Span:
    """How long things took: how many ended within each bound, and the sum."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0


class Metrics:
    """Counts cheaply, in plain integers; what Prometheus wants is made when it asks.

    Everything is counted on the server's event loop, so there are no locks.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.received = 0
        self.sent = 0
        self.connections = 0
        self.connections_made = 0
        self.connections_refused = 0
        self.streams = 0
        self.errors = _ErrorCount()
        self.held = Held()
        self._single = {kind: Span() for kind in KINDS}
        self._batch = Span()
        self._in_batches = dict.fromkeys(KINDS, 0)
        self._failed: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()

    def done(self, ops: Sequence[Op], seconds: float) -> None:
        """Count ops that went well."""
        if len(ops) == 1:
            span = self._single[type(ops[0])]
        else:
            span = self._batch
            for op in ops:
                self._in_batches[type(op)] += 1
        span.buckets[bisect_left(BOUNDS, seconds)] += 1
        span.seconds += seconds

    def failed(self, ops: Sequence[Op], error: BotWireError, seconds: float) -> None:
        """Count ops that did not; none, if it failed before anybody knew which."""
        outcome = outcome_of(error)
        for kind in [KINDS[type(op)] for op in ops] or ["none"]:
            self._failed[kind, outcome] += 1

    def refused(self, reason: str) -> None:
        """Count a request that was turned away before it was read: a reason is one of a few fixed words."""
        self._refused[reason] += 1

    # ── rendering ──

    async def render(self, store: AsyncStore) -> bytes:
        """All of it, as Prometheus reads it."""
        await self.held.refresh(store)
        prometheus: Any = await asyncio.to_thread(_prometheus)
        registry = prometheus.CollectorRegistry()  # made each time: nothing of ours lives in it
        registry.register(_Collector(self.families()))
        prometheus.ProcessCollector(registry=registry)
        prometheus.GCCollector(registry=registry)
        text: bytes = prometheus.generate_latest(registry)
        return text

    def families(self) -> Iterator[Metric]:
        """What is counted, in Prometheus's words."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        about = GaugeMetricFamily("botwire_info", "1, and which version this is.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        yield from self._op_families()
        refused = CounterMetricFamily("botwire_refused", "Requests turned away unread.", labels=["reason"])
        for reason, count in sorted(self._refused.items()):
            refused.add_metric([reason], count)
        yield refused
        yield _counter("botwire_errors", "Errors that were logged.", self.errors.count)
        yield _gauge("botwire_connections", "Connections open now.", self.connections)
        yield _counter("botwire_connections_made", "Connections that were made.", self.connections_made)
        yield _counter("botwire_connections_refused", "Connections over max_connections.", self.connections_refused)
        yield _gauge("botwire_streams", "Change streams open now.", self.streams)
        yield _counter("botwire_received_bytes", "Bytes that clients sent.", self.received)
        yield _counter("botwire_sent_bytes", "Bytes that were sent to clients.", self.sent)
        yield from self.held.families()

    def _op_families(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        ops = CounterMetricFamily("botwire_ops", "Ops by kind and outcome.", labels=["kind", "outcome"])
        for kind, name in KINDS.items():
            ops.add_metric([name, "ok"], sum(self._single[kind].buckets) + self._in_batches[kind])
        for labels, count in sorted(self._failed.items()):
            ops.add_metric(labels, count)
        yield ops
        times = HistogramMetricFamily(
            "botwire_execute_seconds", "How long ops took that went well; several in one call: batch.", labels=["kind"]
        )
        for name, span in [*((KINDS[kind], span) for kind, span in self._single.items()), ("batch", self._batch)]:
            if any(span.buckets):
                times.add_metric([name], list(_cumulated(span)), span.seconds)
        yield times


def outcome_of(error: BotWireError) -> str:
    """The outcome that an error is counted as: `rate-limited`, `conflict`, …"""
    return wire.problem_of(error).kind.removeprefix(wire.PROBLEM_TYPE)


def _cumulated(span: Span) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*BOUNDS, "+Inf"), span.buckets, strict=True):
        total += count
        yield str(bound), total


def _counter(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)


class _Collector:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


class _ErrorCount(logging.Handler):
    """Counts the errors that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


# ── what the store holds ────────────────────────────────────────────────────────────────────────────


class Figures(Struct, frozen=True):
    """What a store holds."""

    namespaces: int = 0
    items: int = 0
    messages: int = 0
    conversations: int = 0
    bytes: int = 0


class Held:
    """What the store holds, looked up when somebody asks, but not often: with many namespaces it takes a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.figures: Figures | None = None
        """`None`: not known, or not any more."""
        self.file: Path | None = None
        """The store's file, if it is one."""
        self._cursor: str | None = None
        self._next = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def refresh(self, store: AsyncStore) -> None:
        """Look again, unless the last look was only just now; what takes long goes on for the next who asks."""
        if self._looking is None and self._clock() >= self._next:
            self._looking = asyncio.create_task(self._refresh(store))
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=PATIENCE)

    async def _refresh(self, store: AsyncStore) -> None:
        begun = self._clock()
        try:
            cursor = (await store.execute([Changes("", None, True, 1)]))[0].cursor
            if cursor != self._cursor:  # else nothing has changed since
                self.figures = await _look(store)
                self._cursor = cursor
        except BotWireError as error:  # the other metrics matter all the more then
            log.warning("what the store holds cannot be looked up: %s", error)
            self.figures, self._cursor = None, None
        finally:
            self._looking = None
        taken = self._clock() - begun
        self._next = begun + taken + max(PAUSE, taken / EFFORT)

    def families(self) -> Iterator[Metric]:
        """The figures, in Prometheus's words."""
        from prometheus_client.core import GaugeMetricFamily

        for name in () if self.figures is None else Figures.__struct_fields__:
            text = f"{name.capitalize()} in the store, botwire's own left out."
            yield _gauge(f"botwire_store_{name}", text, getattr(self.figures, name))
        if self.file is not None:
            sizes = GaugeMetricFamily("botwire_store_file_bytes", "Size of the store's files.", labels=["file"])
            sizes.add_metric(["main"], _size(self.file))
            sizes.add_metric(["wal"], _size(self.file.with_name(self.file.name + "-wal")))
            yield sizes


async def _look(store: AsyncStore) -> Figures:
    whole: Any = (await store.execute([Describe("")]))[0]
    count, op = 0, Namespaces("", limit=PAGE)
    while True:
        page: Any = (await store.execute([op]))[0]
        count += len(page.namespaces)
        if page.cursor is None:
            return Figures(count, whole.items, whole.messages, whole.conversations, whole.bytes)
        op = Namespaces("", limit=PAGE, cursor=page.cursor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _prometheus() -> ModuleType:
    """The library, which takes a while to import: on a thread, and only once somebody asks for metrics."""
    import prometheus_client

    return prometheus_client
