"""Checkpoints as items of botwire. All of it is flows, as in `botwire.flows`: the saver only drives them.

A thread is a namespace, `checkpoints/<thread>`, and each of its subgraphs one below it. In it lie

    c/<checkpoint>              a checkpoint: all but the values of its channels, which it names (`Head`)
    v/<channel>/<version>       the value of a channel, once for each version, however many checkpoints have it
    w/<checkpoint>/<task>/<n>   what a task has written (`Write`)
    d/<checkpoint>              what is left of a pruned checkpoint that a later one is rebuilt from
    p/<key>/<n>                 parts of what is too large for one item

A `DeltaChannel` stores its value now and then, and in between only what was written. So a checkpoint may need the
writes of those before it, up to the last one that has the value.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from msgspec.structs import replace

from botwire import cursors, flows, ops
from botwire.errors import Conflict, InvalidInput
from botwire.flows import Flow

from . import parts
from .naming import short
from .parts import Place, Typed
from .together import together

PAGE = 500
LISTED_TOGETHER = 20  # checkpoints that are read at once
THREAD_BYTES, GRAPH_BYTES, LEVEL_BYTES = 150, 200, 100  # of names: what is longer is shortened

HEADS, CARRIERS, WRITES, VALUES = "c/", "d/", "w/", "v/"


@dataclass
class Head:
    """A checkpoint without the values of its channels."""

    thread: str
    graph: str
    id: str
    parent: str | None
    values: dict[str, str]
    """The channels that have a value, and its version."""
    empty: list[str]
    """Those that have a version and no value: perhaps a delta channel's that was not stored this time."""
    delta: list[str]
    """Delta channels that this one knows of."""
    saved: Typed | None
    """Checkpoint and metadata, serialized; `None` in what is left of a pruned one."""


@dataclass
class Write:
    """Something that a task has written, and where that stands among a step's writes."""

    task: str
    path: str
    number: int
    channel: str
    saved: Typed

    @property
    def order(self) -> tuple[str, str, int]:
        """Writes are applied in this order."""
        return writes_sort_key(self.path, self.task, self.number)


def config_of(thread: str, graph: str, checkpoint: str) -> RunnableConfig:
    """What asks for a checkpoint."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": graph, "checkpoint_id": checkpoint}}


def head_key(checkpoint: str) -> str:
    """The key of a checkpoint."""
    return HEADS + short(checkpoint, LEVEL_BYTES)


def carrier_key(checkpoint: str) -> str:
    """The key of what is left of a checkpoint."""
    return CARRIERS + short(checkpoint, LEVEL_BYTES)


def value_key(channel: str, version: str) -> str:
    """The key of a channel's value."""
    return f"{VALUES}{short(channel, LEVEL_BYTES)}/{short(version, LEVEL_BYTES)}"


def writes_of(checkpoint: str) -> str:
    """What the keys of a checkpoint's writes begin with."""
    return f"{WRITES}{short(checkpoint, LEVEL_BYTES)}/"


def run_tag(run: Any) -> str:
    """The tag by which the checkpoints of a run are found."""
    return "run:" + short(str(run), LEVEL_BYTES)


@dataclass
class Checkpoints:
    """The checkpoints below a namespace, and how they are serialized."""

    root: str
    serde: SerializerProtocol

    def thread(self, thread: Any) -> str:
        """The namespace of a thread."""
        if thread is None or thread == "":
            raise InvalidInput('a checkpointer needs a thread: pass {"configurable": {"thread_id": "…"}} as config')
        return f"{self.root}/{short(str(thread), THREAD_BYTES)}"

    def graph(self, config: RunnableConfig) -> str:
        """The namespace of a thread's graph, or of one of its subgraphs."""
        configurable = config.get("configurable") or {}
        thread = self.thread(configurable.get("thread_id"))
        graph = configurable.get("checkpoint_ns") or ""
        return f"{thread}/{short(graph, GRAPH_BYTES)}" if graph else thread

    # ── saving ──

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new: ChannelVersions
    ) -> Flow[RunnableConfig]:
        """Save a checkpoint. Values of channels that its parent has too are there already."""
        namespace, configurable = self.graph(config), config.get("configurable") or {}
        given, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        parent = configurable.get("checkpoint_id")
        values = {channel: str(versions.get(channel, checkpoint["id"])) for channel in given}
        writes: list[ops.Put] = []
        for channel, version in values.items():
            if channel in new or channel not in versions or parent is None:
                key = value_key(channel, version)
                typed, rest = parts.split(namespace, key, self.serde.dumps_typed(given[channel]))
                writes += [*rest, parts.put(namespace, key, typed)]
        metadata = get_checkpoint_metadata(config, metadata)
        bare = {name: part for name, part in checkpoint.items() if name != "channel_values"}
        key = head_key(checkpoint["id"])
        typed, rest = parts.split(namespace, key, self.serde.dumps_typed({"checkpoint": bare, "metadata": metadata}))
        head = Head(
            thread=str(configurable["thread_id"]),
            graph=configurable.get("checkpoint_ns") or "",
            id=checkpoint["id"],
            parent=parent,
            values=values,
            empty=[channel for channel in versions if channel not in given],
            delta=list(metadata.get("counters_since_delta_snapshot") or ()),
            saved=typed,
        )
        tags = [run_tag(metadata["run_id"])] if "run_id" in metadata else []
        yield from parts.saved([*writes, *rest, parts.put(namespace, key, head, tags=tags)])
        return config_of(configurable["thread_id"], head.graph, head.id)

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task: str, path: str) -> Flow[None]:
        """Save what a task has written. What it has written already stays, but for errors and interrupts."""
        namespace = self.graph(config)
        prefix = writes_of(checkpoint_of(config)) + short(task, LEVEL_BYTES)
        heads: dict[str, ops.Put] = {}
        rest: dict[str, list[ops.Put]] = {}
        for place, (channel, value) in enumerate(writes):
            number = WRITES_IDX_MAP.get(channel, place)
            key = f"{prefix}/{number}"
            typed, rest[key] = parts.split(namespace, key, self.serde.dumps_typed(value))
            heads[key] = parts.put(
                namespace, key, Write(task, path, number, channel, typed), if_version=0 if number >= 0 else None
            )
        while heads:
            try:
                yield from parts.saved([*(op for key in heads for op in rest[key]), *heads.values()])
            except Conflict:
                kept = yield [ops.Get(namespace, key) for key in heads]
                there = {item.key for item in kept if item is not None and heads[item.key].if_version == 0}
                heads = {key: op for key, op in heads.items() if key not in there}
            else:
                return

    # ── reading ──

    def get(self, config: RunnableConfig) -> Flow[CheckpointTuple | None]:
        """A checkpoint, or the latest one."""
        item = yield from self._head(config)
        if item is None:
            return None
        [found] = yield from self._tuples([item], {})
        return found

    def _head(self, config: RunnableConfig) -> Flow[ops.Item | None]:
        namespace, checkpoint = self.graph(config), get_checkpoint_id(config)
        if checkpoint:
            [item] = yield [ops.Get(namespace, head_key(checkpoint))]
            return cast("ops.Item | None", item)
        [page] = yield [ops.Scan(namespace, HEADS, reverse=True, limit=1)]
        return next(iter(page.items), None)

    def _tuples(self, items: Sequence[ops.Item], wanted: Mapping[str, Any]) -> Flow[list[CheckpointTuple]]:
        """Those of the checkpoints whose metadata are as wanted, with their values and writes."""
        heads = {(item.namespace, item.key): item.value_as(Head) for item in items}
        saved = yield from self._loaded({place: head.saved for place, head in heads.items() if head.saved is not None})
        chosen = {
            place: head
            for place, head in heads.items()
            if all(saved[place]["metadata"].get(name) == value for name, value in wanted.items())
        }
        places = {
            (place[0], value_key(channel, version)): None
            for place, head in chosen.items()
            for channel, version in head.values.items()
        }
        values, *writes = yield from together(
            [self._values(list(places)), *(self._writes(place[0], head.id) for place, head in chosen.items())]
        )
        return [
            _tuple(
                head,
                saved[place],
                {name: values[place[0], value_key(name, version)] for name, version in head.values.items()},
                own,
            )
            for (place, head), own in zip(chosen.items(), writes, strict=True)
        ]

    def _loaded(self, pieces: Mapping[Place, Typed]) -> Flow[dict[Place, Any]]:
        typed = yield from parts.whole(pieces)
        return {place: self.serde.loads_typed(each) for place, each in typed.items()}

    def _values(self, places: Sequence[Place]) -> Flow[dict[Place, Any]]:
        items = yield from parts.read([ops.Get(*place) for place in places])
        pieces: dict[Place, Typed] = {}
        for place, item in zip(places, items, strict=True):
            if item is None:
                raise parts.missing(*place)
            pieces[place] = item.value_as(Typed)
        return (yield from self._loaded(pieces))

    def _writes(
        self, namespace: str, checkpoint: str, channels: Container[str] | None = None
    ) -> Flow[list[PendingWrite]]:
        """What was written to a checkpoint, in the order in which it is applied."""
        items = yield from parts.every(ops.Scan(namespace, writes_of(checkpoint), limit=PAGE))
        writes = {(item.namespace, item.key): item.value_as(Write) for item in items}
        if channels is not None:
            writes = {place: write for place, write in writes.items() if write.channel in channels}
        loaded = yield from self._loaded({place: write.saved for place, write in writes.items()})
        ordered = sorted(writes, key=lambda place: writes[place].order)
        return [(writes[place].task, writes[place].channel, loaded[place]) for place in ordered]

    # ── listing ──

    def listing(self, config: RunnableConfig | None, before: RunnableConfig | None) -> ops.Scan:
        """The first page of a list, newest first."""
        configurable = (config or {}).get("configurable") or {}
        if config is None or configurable.get("checkpoint_ns") is None:
            namespace = self.root if config is None else self.thread(configurable.get("thread_id"))
            return ops.Scan(namespace, HEADS, order="updated", reverse=True, subtree=True, limit=LISTED_TOGETHER)
        namespace = self.graph(config)
        last = None if before is None else get_checkpoint_id(before)
        cursor = None if last is None else cursors.page(namespace, head_key(last))
        only = configurable.get("checkpoint_id")
        prefix = head_key(only) if only else HEADS
        return ops.Scan(namespace, prefix, reverse=True, limit=LISTED_TOGETHER, cursor=cursor)

    def page(
        self,
        scan: ops.Scan,
        config: RunnableConfig | None,
        before: RunnableConfig | None,
        wanted: Mapping[str, Any] | None,
        left: int | None,
    ) -> Flow[tuple[list[CheckpointTuple], ops.Scan | None]]:
        """Some checkpoints of a list, and where it goes on."""
        [page] = yield [scan if left is None or wanted else replace(scan, limit=min(scan.limit, left))]
        only = get_checkpoint_id(config) if config is not None else None
        last = get_checkpoint_id(before) if before is not None else None
        items = [item for item in page.items if _is_between(item.key, only, last)]
        found = yield from self._tuples(items, wanted or {})
        return found[:left], flows.next_page(scan, page, None)

    # ── delta channels ──

    def delta_history(self, config: RunnableConfig, channels: Sequence[str]) -> Flow[dict[str, DeltaChannelHistory]]:
        """What was written to channels since their values were last stored, and those values."""
        item = yield from self._head(config)
        namespace, remaining, seen = self.graph(config), set(channels), set[str]()
        parent = None if item is None else item.value_as(Head).parent
        writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        seeds: dict[str, Place] = {}
        while parent is not None and remaining and parent not in seen:
            seen.add(parent)
            head, written = yield from together(
                [self._ancestor(namespace, parent), self._writes(namespace, parent, remaining)]
            )
            if head is None:
                break
            for write in reversed(written):
                writes[write[1]].append(write)
            for channel in remaining & head.values.keys():
                seeds[channel] = namespace, value_key(channel, head.values[channel])
            remaining -= seeds.keys()
            parent = head.parent
        values = yield from self._values(list(seeds.values()))
        return {
            channel: cast(
                "DeltaChannelHistory",
                {"writes": found[::-1]} | ({"seed": values[seeds[channel]]} if channel in seeds else {}),
            )
            for channel, found in writes.items()
        }

    def _ancestor(self, namespace: str, checkpoint: str) -> Flow[Head | None]:
        """A checkpoint, or what is left of it."""
        found = yield [ops.Get(namespace, key) for key in (head_key(checkpoint), carrier_key(checkpoint))]
        return next((item.value_as(Head) for item in found if item is not None), None)


def _tuple(head: Head, saved: Any, values: dict[str, Any], writes: list[PendingWrite]) -> CheckpointTuple:
    parent = None if head.parent is None else config_of(head.thread, head.graph, head.parent)
    checkpoint = cast("Checkpoint", {**saved["checkpoint"], "channel_values": values})
    return CheckpointTuple(config_of(head.thread, head.graph, head.id), checkpoint, saved["metadata"], parent, writes)


def _is_between(key: str, only: str | None, last: str | None) -> bool:
    """Whether this is the key of the only checkpoint asked for, and of one before the last."""
    return (not only or key == head_key(only)) and (not last or key < head_key(last))


def checkpoint_of(config: RunnableConfig) -> str:
    """The checkpoint that a config names."""
    checkpoint = get_checkpoint_id(config)
    if not checkpoint:
        raise InvalidInput('what a task writes belongs to a checkpoint: pass its "checkpoint_id" in the config')
    return checkpoint
