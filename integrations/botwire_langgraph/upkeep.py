"""Deleting, copying and pruning what `checkpoints` keeps, as flows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botwire import flows, ops
from botwire.errors import InvalidInput
from botwire.flows import Flow

from . import parts
from .checkpoints import (
    CARRIERS,
    HEADS,
    PAGE,
    VALUES,
    WRITES,
    Checkpoints,
    Head,
    carrier_key,
    head_key,
    run_tag,
    value_key,
    writes_of,
)
from .parts import PARTS

STRATEGIES = ("keep_latest", "delete")
DELETED_TOGETHER = 5_000


@dataclass
class Graph:
    """The checkpoints of a graph or subgraph, by their ids, and what is left of pruned ones."""

    namespace: str
    heads: dict[str, Head]
    carriers: dict[str, Head]

    def known(self) -> dict[str, Head]:
        """All of them."""
        return self.carriers | self.heads


def delete_thread(checkpoints: Checkpoints, thread: Any) -> Flow[None]:
    """Delete a thread, whatever lies in it."""
    scan = ops.Scan(checkpoints.thread(thread), subtree=True, values=False, limit=DELETED_TOGETHER)
    while True:
        [page] = yield [scan]
        if not page.items:
            return
        yield [parts.delete(item.namespace, item.key) for item in page.items]


def copy_thread(checkpoints: Checkpoints, source: Any, target: Any) -> Flow[None]:
    """Add everything of a thread to another. Checkpoints come last: one that is there is whole."""
    old, new = checkpoints.thread(source), checkpoints.thread(target)
    if old == new:
        return
    for prefix in (PARTS, VALUES, WRITES, CARRIERS, HEADS):
        scan: ops.Scan | None = ops.Scan(old, prefix, subtree=True, limit=PAGE)
        while scan is not None:
            [page] = yield [scan]
            places = [new + item.namespace[len(old) :] for item in page.items]
            yield from parts.saved([_copy(item, place, target) for item, place in zip(page.items, places, strict=True)])
            scan = flows.next_page(scan, page, None)


def _copy(item: ops.Item, namespace: str, thread: Any) -> ops.Put:
    raw = item.raw
    if item.key.startswith((HEADS, CARRIERS)):
        raw = parts.raw(replace(item.value_as(Head), thread=str(thread)))
    return ops.Put(namespace, item.key, raw, meta=item.meta, history=False)


def prune(checkpoints: Checkpoints, threads: Iterable[Any], strategy: str) -> Flow[None]:
    """Delete all checkpoints of threads, or all but the latest of each graph in them."""
    if strategy not in STRATEGIES:
        raise InvalidInput(f"strategy={strategy!r}: there are {' and '.join(STRATEGIES)}")
    for thread in threads:
        if strategy == "delete":
            yield from delete_thread(checkpoints, thread)
            continue
        asked: ops.Namespaces | None = ops.Namespaces(checkpoints.thread(thread), limit=PAGE)
        while asked is not None:
            [page] = yield [asked]
            for each in page.namespaces:
                graph = yield from _graph(each.name)
                yield from _keep(graph, sorted(graph.heads, key=head_key)[-1:])
            asked = flows.next_page(asked, page, None)


def delete_for_runs(checkpoints: Checkpoints, runs: Iterable[Any]) -> Flow[None]:
    """Delete the checkpoints that runs have made."""
    doomed: dict[str, set[str]] = {}
    for run in runs:
        scan = ops.Scan(checkpoints.root, HEADS, tags=(run_tag(run),), values=False, subtree=True, limit=PAGE)
        for item in (yield from parts.every(scan)):
            doomed.setdefault(item.namespace, set()).add(item.key)
    for namespace, keys in doomed.items():
        graph = yield from _graph(namespace)
        yield from _keep(graph, [each for each in graph.heads if head_key(each) not in keys])


def _graph(namespace: str) -> Flow[Graph]:
    found: list[dict[str, Head]] = []
    for prefix in (HEADS, CARRIERS):
        items = yield from parts.every(ops.Scan(namespace, prefix, limit=PAGE))
        heads = [item.value_as(Head) for item in items]
        found.append({head.id: head for head in heads})
    return Graph(namespace, *found)


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────


def needed(graph: Graph, kept: Collection[str]) -> dict[str, set[str]]:
    """The checkpoints from which those that are kept are rebuilt, and the channels that are."""
    known = graph.known()
    delta = {channel for head in known.values() for channel in head.delta}
    found: dict[str, set[str]] = {}
    for each in kept:
        lacking, parent, seen = delta & set(known[each].empty), known[each].parent, set[str]()
        while lacking and parent in known and parent not in seen:
            seen.add(parent)
            if parent not in kept:
                found.setdefault(parent, set()).update(lacking)
            lacking -= known[parent].values.keys()
            parent = known[parent].parent
    return found


def _keep(graph: Graph, kept: Collection[str]) -> Flow[None]:
    """Delete all checkpoints but these, and what they are rebuilt from."""
    known, carried = graph.known(), needed(graph, kept)
    doomed = known.keys() - set(kept)
    carriers = {each: carrier(known[each], channels) for each, channels in carried.items()}
    values_left = _values({each: known[each] for each in kept} | carriers)
    values_gone = _values({each: known[each] for each in doomed}) - values_left
    gone = {head_key(each) for each in doomed if each in graph.heads}
    gone |= {carrier_key(each) for each in doomed if each in graph.carriers and each not in carriers} | values_gone
    gone |= yield from _writes(graph.namespace, [each for each in doomed if each not in carriers])
    scan = ops.Scan(graph.namespace, PARTS, values=False, limit=PAGE)
    pieces = [item.key for item in (yield from parts.every(scan)) if parts.owner(item.key) in gone]
    puts: list[ops.Op] = [parts.put(graph.namespace, carrier_key(each), head) for each, head in carriers.items()]
    # Checkpoints first: if this is cut off, nothing that is still there lacks a part.
    order = sorted(gone, key=lambda key: (not key.startswith(HEADS), key))
    yield from parts.saved([*puts, *(parts.delete(graph.namespace, key) for key in (*order, *pieces))])


def carrier(head: Head, channels: Collection[str]) -> Head:
    """What is left of a checkpoint: the values of these channels, and its place in the chain."""
    values = {channel: version for channel, version in head.values.items() if channel in channels}
    return replace(head, values=values, saved=None)


def _values(heads: Mapping[str, Head]) -> set[str]:
    return {value_key(*each) for head in heads.values() for each in head.values.items()}


def _writes(namespace: str, checkpoints: Iterable[str]) -> Flow[set[str]]:
    """The keys of what was written to checkpoints."""
    prefixes = set(map(writes_of, checkpoints))
    if not prefixes:
        return set()
    items = yield from parts.every(ops.Scan(namespace, WRITES, values=False, limit=PAGE))
    return {item.key for item in items if item.key.rsplit("/", 2)[0] + "/" in prefixes}
