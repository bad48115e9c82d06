"""What a benchmark runs in processes of its own: `python -m benchmarks._child TASK ARGUMENTS…`.

The last line that it prints is its answer, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks._measure import peak_memory, resident_memory

from botwire import BotWireError, Memory


def write(url: str, name: str, seconds: str) -> dict[str, Any]:
    """Set durably, flat out, from the moment that a line comes in."""
    memory = Memory("shared", url)
    memory.set(f"{name}-first", 0)
    print("ready", flush=True)
    sys.stdin.readline()
    count, longest, last = 0, 0.0, None
    errors: list[str] = []
    start = before = time.perf_counter()
    while before - start < float(seconds):
        last = {"writer": name, "n": count, "text": f"{count * 7_919:x}" * 16}
        try:
            memory.set(f"{name}-{count % 50}", last)
            count += 1
        except BotWireError as error:
            errors.append(repr(error))
        after = time.perf_counter()
        longest = max(longest, after - before)
        before = after
    read_back = memory.get(f"{name}-{(count - 1) % 50}") == last
    return {"writes": count, "errors": errors, "longest": longest, "read_back": read_back}


def iterate(url: str, namespace: str) -> dict[str, Any]:
    """List all keys, one after the other."""
    memory = Memory(namespace, url)
    return _grown(memory, lambda: sum(1 for _ in memory))


def items(url: str, namespace: str) -> dict[str, Any]:
    """List all items with their values."""
    memory = Memory(namespace, url)
    return _grown(memory, lambda: sum(1 for _, value in memory.items() if value is not None))


def export(url: str, namespace: str, target: str) -> dict[str, Any]:
    """Export everything to a file."""
    memory = Memory(namespace, url)
    return _grown(memory, lambda: memory.export(target).items)


def _grown(memory: Memory, run: Callable[[], int]) -> dict[str, Any]:
    memory.get("no such key")  # opens the store
    list(memory.items(limit=1))
    before = resident_memory()
    start = time.perf_counter()
    count = run()
    peak = peak_memory()
    seconds = time.perf_counter() - start
    grown = None if peak is None else peak - before["all"]
    return {"count": count, "seconds": seconds, "grown": grown, "before": before, "after": resident_memory()}


TASKS = {task.__name__: task for task in (write, iterate, items, export)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
