"""Question sets: what is in their files, how an answer is measured, and how two runs compare.

A line of a file is a conversation: `dataset`, `conversation`, `speakers`, `turns` (`id`, `session`, `at`, `author`,
`text`) and `questions` (`question`, `gold`: the ids of the turns that hold the evidence).
"""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

CUTOFFS = (1, 5, 10, 25, 50)
DEPTH = 200  # ranks asked for; a first hit below them counts 0 in MRR
METRICS = (*(f"R@{k}" for k in CUTOFFS), "MRR", "nDCG@10")
RESAMPLES = 5_000

Conversation = dict[str, Any]
Figures = dict[str, float]


def load(path: Path) -> list[Conversation]:
    """The conversations of a .jsonl or .jsonl.gz file."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.split(b"\n") if line]  # texts may hold other line separators


def message_of(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn as a chat message: who wrote it, when, and what."""
    author, said = turn["author"], {"content": turn["text"]}
    who = {"role": author} if author in ("user", "assistant") else {"role": "user", "author": author}
    at = datetime.fromisoformat(turn["at"]) if turn.get("at") else None
    return who | said | ({"at": (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()} if at else {})


def measure(ranking: Sequence[str], gold: Collection[str]) -> Figures:
    """Recall (share of the gold turns in the top k), reciprocal rank of the first, and nDCG@10."""
    ranks = [rank for rank, turn in enumerate(ranking, 1) if turn in gold]
    figures = {f"R@{k}": sum(rank <= k for rank in ranks) / len(gold) for k in CUTOFFS}
    figures["MRR"] = 1 / ranks[0] if ranks else 0.0
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10)
    figures["nDCG@10"] = gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(gold), 10) + 1))
    return figures


@dataclass
class Tally:
    """What was measured on one set: an entry per question, and one per conversation."""

    figures: list[Figures] = field(default_factory=list[Figures])
    query_ms: list[float] = field(default_factory=list[float])
    index_ms: list[float] = field(default_factory=list[float])

    def summary(self) -> Figures:
        """Means of the figures, and the times."""
        times = sorted(self.query_ms)
        return {
            "questions": len(self.figures),
            **{name: fmean(each[name] for each in self.figures) for name in METRICS},
            "query_ms_p50": median(times),
            "query_ms_p95": times[math.ceil(0.95 * len(times)) - 1],
            "index_ms": median(self.index_ms),
        }


Tallies = dict[str, Tally]


def table(tallies: Tallies) -> str:
    """What was measured, a line for each set."""
    head = f"{'set':12}{'n':>5} " + " ".join(f"{name:>7}" for name in METRICS)
    lines = [f"{head}  q p50 ms  q p95 ms  index ms"]
    rows = {name: tally.summary() for name, tally in tallies.items()}
    for name, row in rows.items():
        figures = " ".join(f"{row[metric]:7.3f}" for metric in METRICS)
        times = " ".join(f"{row[time]:9.2f}" for time in ("query_ms_p50", "query_ms_p95", "index_ms"))
        lines.append(f"{name:12}{row['questions']:5.0f} {figures} {times}")
    if len(rows) > 1:
        means = (fmean(row[metric] for row in rows.values()) for metric in METRICS)
        lines.append(f"{'mean of sets':17} " + " ".join(f"{mean:7.3f}" for mean in means))
    return "\n".join(lines)


def difference(new: Tallies, old: Tallies, metric: str = "R@10") -> list[str]:
    """New less old for each set and the mean of sets, with 95% intervals of a paired bootstrap over the questions."""
    source = random.Random(0)
    rows: list[tuple[float, list[float]]] = []
    for name, tally in new.items():
        each = [a[metric] - b[metric] for a, b in zip(tally.figures, old[name].figures, strict=True)]
        rows.append((fmean(each), [fmean(source.choices(each, k=len(each))) for _ in range(RESAMPLES)]))
    if len(rows) > 1:
        pooled = [fmean(sample) for sample in zip(*(draws for _, draws in rows), strict=True)]
        rows.append((fmean(mean for mean, _ in rows), pooled))
    return [_interval(mean, draws) for mean, draws in rows]


def _interval(mean: float, draws: Iterable[float]) -> str:
    ordered = sorted(draws)
    low, high = ordered[len(ordered) // 40], ordered[-len(ordered) // 40]
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
