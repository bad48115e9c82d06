"""What encryption costs: the same memory without a key, with one, and with hidden names, in one run.

python benchmarks/encryption.py [--rounds N] [--dir FOLDER]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs as a script too

from benchmarks._measure import Laps, Summary, interleave, ratio, scratch_folder, time_reads, time_writes

from botwire import Memory  # see above
from botwire.sealing import generate_key

KEYS = 1_000
PER_TURN = 200


def value(size: int, dice: random.Random) -> dict[str, Any]:
    """A value of about that many bytes; never the same twice, for SQLite skips pages that don't change."""
    return {"n": dice.randrange(10**9), "text": "".join(dice.choices("abcdefgh ", k=size))}


def contenders(folder: Path, size: int) -> dict[str, Memory]:
    """The same memory three times, filled."""
    key, dice = generate_key(), random.Random(1)
    url = f"sqlite:///{folder / f'{size}.db'}"
    memories = {
        "plain": Memory("plain", url, durability="relaxed"),
        "encrypted": Memory("encrypted", url, durability="relaxed", encryption_key=key),
        "hidden names": Memory("hidden", url, durability="relaxed", encryption_key=key, hide_keys=True),
    }
    for memory in memories.values():
        memory.set_many({f"key-{number}": value(size, dice) for number in range(KEYS)})
    return memories


def tasks(memory: Memory, size: int) -> dict[str, Callable[[], Laps]]:
    """What is timed."""
    dice = random.Random(2)
    talk = memory.conversation("thread")

    def names() -> list[str]:
        return [f"key-{dice.randrange(KEYS)}" for _ in range(PER_TURN)]

    def fresh() -> list[tuple[str, Any]]:
        return [(name, value(size, dice)) for name in names()]

    return {
        "get": lambda: time_reads(memory.get, names()),
        "set": lambda: time_writes(memory.set, fresh()),
        "append": lambda: time_reads(talk.append, [each for _, each in fresh()]),
        "last 20 messages": lambda: time_reads(lambda _: talk.messages(last=20), range(20)),
        "all 1,000 items": lambda: time_reads(lambda _: list(memory.items()), range(2)),
    }


def line(what: str, size: int, found: dict[str, Summary]) -> str:
    """A row of the table."""
    plain = found["plain"]
    ratios = [str(ratio(found[name].p50s, plain.p50s)) for name in ("encrypted", "hidden names")]
    return f"| {what} | {size:,} bytes | {plain.p50:,.1f} µs | {' | '.join(ratios)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", metavar="FOLDER", help="keep the databases below this folder")
    arguments = parser.parse_args()
    print("| what | values of | plain, p50 | encrypted, × (lowest..highest round) | with `hide_keys`, × |")
    print("|---|---|---|---|---|")
    with scratch_folder(arguments.dir) as folder:
        for size in (100, 10_000):
            memories = contenders(folder, size)
            by_task = {name: tasks(memory, size) for name, memory in memories.items()}
            for task in by_task["plain"]:
                runs = {name: timed[task] for name, timed in by_task.items()}
                print(line(task, size, interleave(runs, arguments.rounds, turns=5, patience=60)), flush=True)
            for memory in memories.values():
                memory.close()


if __name__ == "__main__":
    main()
