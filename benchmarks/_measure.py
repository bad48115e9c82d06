"""How things are measured: interleaved rounds, ratios round by round, and a table of what came out.

A noisy machine drifts, and the drift hits whoever is running. So contenders take short turns (A B C A B C …); some
turns make a round, a ratio is taken between the p50s of one round, and the figure is the median of those ratios,
beside the lowest and highest.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

IN_MEMORY = ("tmpfs", "ramfs")  # file systems on which a durable write costs nothing, and proves nothing
TURNS = 10  # of each contender in a round
FEWEST_ROUNDS = 5  # also on a machine that is too slow for all of them

Laps = list[int]
"""What each call took, in nanoseconds."""


# ── taking times ────────────────────────────────────────────────────────────────────────────────────


def time_reads(call: Callable[[Any], object], arguments: Iterable[Any]) -> Laps:
    """Time a call with one argument, for each argument."""
    clock = time.perf_counter_ns
    laps: Laps = []
    note = laps.append
    for argument in arguments:
        start = clock()
        call(argument)
        note(clock() - start)
    return laps


def time_writes(call: Callable[[Any, Any], object], entries: Iterable[tuple[Any, Any]]) -> Laps:
    """Time a call with two arguments, for each pair."""
    clock = time.perf_counter_ns
    laps: Laps = []
    note = laps.append
    for key, value in entries:
        start = clock()
        call(key, value)
        note(clock() - start)
    return laps


@dataclass
class Summary:
    """The rounds of one contender, in microseconds."""

    p50s: list[float] = field(default_factory=list[float])
    p99s: list[float] = field(default_factory=list[float])

    def add(self, laps: Laps) -> None:
        """Take in a round."""
        ordered = sorted(laps)
        self.p50s.append(median(ordered) / 1_000)
        self.p99s.append(ordered[int(len(ordered) * 0.99)] / 1_000)

    @property
    def p50(self) -> float:
        """The median of the rounds' medians."""
        return median(self.p50s)

    @property
    def p99(self) -> float:
        """The median of the rounds' 99th percentiles."""
        return median(self.p99s)


def interleave(
    contenders: Mapping[str, Callable[[], Laps]], rounds: int, turns: int = TURNS, *, patience: float
) -> dict[str, Summary]:
    """Let the contenders take turns, and sum up `turns` of each as a round; fewer rounds after `patience` seconds."""
    summaries = {name: Summary() for name in contenders}
    deadline = time.monotonic() + patience
    gc.collect()
    gc.freeze()  # what the set-up has left must not weigh on collections during the rounds
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.monotonic() > deadline:
            print(f"{' / '.join(contenders)}: {done} of {rounds} rounds in {patience:g} s", file=sys.stderr)
            break
        laps: dict[str, Laps] = {name: [] for name in contenders}
        for _ in range(turns):
            for name, run in contenders.items():
                laps[name] += run()
        for name, summary in summaries.items():
            summary.add(laps[name])
    gc.unfreeze()
    return summaries


@dataclass
class Ratio:
    """The median of the rounds' ratios, and the lowest and highest."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}..{self.high:.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs, round by round."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:,.0f}"


# ── what came out ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Row:
    """A line of the table. `met` is `None` when there was nothing to compare with."""

    what: str
    figure: str
    ratio: str
    target: str
    met: bool | None


@dataclass
class Report:
    """The rows, and everything behind them."""

    rows: list[Row] = field(default_factory=list[Row])
    times: dict[str, dict[str, Summary]] = field(default_factory=dict[str, dict[str, Summary]])
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    def compare(
        self, what: str, ours: Summary, theirs: Summary, peer: str, at_most: float, *, strictly: bool = False
    ) -> None:
        """A row for a ratio of p50s and its upper limit; `strictly`: the limit itself is too much."""
        found = ratio(ours.p50s, theirs.p50s)
        met = found.value < at_most if strictly else found.value <= at_most
        figure = f"{_short(ours.p50)} µs against {_short(theirs.p50)} µs"
        sign = "under" if strictly else "at most"
        self.rows.append(Row(what, figure, f"{found} × {peer}", f"{sign} {at_most:g} ×", met))

    def missing(self, what: str, target: str, why: str) -> None:
        """A row that could not be measured."""
        self.rows.append(Row(what, f"NOT MEASURED: {why}", "", target, None))

    def markdown(self) -> str:
        """The table of targets, and that of all times."""
        words = {True: "yes", False: "**NO**", None: "**not measured**"}
        lines = ["| what | p50, or figure | ratio (lowest..highest round) | target | met |", "|---|---|---|---|---|"]
        lines += [f"| {row.what} | {row.figure} | {row.ratio} | {row.target} | {words[row.met]} |" for row in self.rows]
        if self.times:
            lines += ["", "| measured | contender | p50 µs | p99 µs |", "|---|---|---|---|"]
            for section, summaries in self.times.items():
                for name, summary in summaries.items():
                    lines.append(f"| {section} | {name} | {summary.p50:,.1f} | {summary.p99:,.1f} |")
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


# ── places and processes ────────────────────────────────────────────────────────────────────────────


@contextmanager
def scratch_folder(parent: str | None) -> Iterator[Path]:
    """A folder on a real disk, removed at the end."""
    base = Path(parent) if parent else Path("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())
    if (kind := file_system(base)) in IN_MEMORY:
        sys.exit(
            f"{base} is kept in memory ({kind}), where durable writes cost nothing: pass --dir with a folder on a disk"
        )
    folder = Path(tempfile.mkdtemp(prefix="botwire-benchmark-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def file_system(path: Path) -> str:
    """The type of the file system that holds the path, where the system tells."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    place = path.resolve()
    points = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    holding = [(point, kind) for point, kind in points if place.is_relative_to(point)]
    return max(holding, key=lambda each: len(each[0]))[1]


def peak_memory() -> int | None:
    """The most bytes that were resident in this process at once; `None` where the system does not tell."""
    # Not getrusage: its maximum begins with that of the process which started this one.
    return _status("VmHWM")


def resident_memory() -> dict[str, int]:
    """The bytes resident now: all of them, and of these the process's own and those of mapped files."""
    fields = {"all": "VmRSS", "own": "RssAnon", "files": "RssFile"}
    return {name: value for name, field in fields.items() if (value := _status(field)) is not None}


def _status(name: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None


def fresh_python(code: str) -> float:
    """Seconds that a fresh interpreter takes to run the code, from start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.sep)
    return time.perf_counter() - start
