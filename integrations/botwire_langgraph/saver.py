"""`BotWireSaver`: LangGraph's checkpoints."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Unpack

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from botwire import AsyncMemory, Memory
from botwire.adapting import Place, memory_for
from botwire.ops import Scan

from . import upkeep
from .checkpoints import Checkpoints


class BotWireSaver(BaseCheckpointSaver[str]):
    """A LangGraph checkpointer that stays: sync and async, for states of any size.

    The values of channels are stored once for each version, so a step costs what it has changed. Checkpoints keep no
    history of their own, and search never finds them.

    Args:
        memory: where to keep them; each thread is a namespace below its own.
        namespace: or that namespace by its name, `"checkpoints"` by default.
        serde: how states become bytes; by default LangGraph's own `JsonPlusSerializer`.
        place: `url=`, `api_key=`, `durability=`, `encryption_key=` and so on, as for `botwire.Memory`.

    >>> from langgraph.graph import StateGraph
    >>> builder = StateGraph(int).add_node("add_one", lambda x: x + 1)
    >>> builder = builder.set_entry_point("add_one").set_finish_point("add_one")
    >>> graph = builder.compile(checkpointer=BotWireSaver(url="sqlite://"))
    >>> thread = {"configurable": {"thread_id": "1"}}
    >>> graph.invoke(3, thread), graph.get_state(thread).values
    (4, 4)

    """

    def __init__(
        self,
        *,
        memory: Memory | None = None,
        namespace: str | None = None,
        serde: SerializerProtocol | None = None,
        **place: Unpack[Place],
    ) -> None:
        super().__init__(serde=serde)
        self._memory = memory_for(memory, namespace, place, default="checkpoints")

    @cached_property
    def _twin(self) -> AsyncMemory:
        return self._memory.twin()

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self._memory.namespace, self.serde)  # a clone `with_allowlist` has another serde

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The next version of a channel: a number that sorts as text, and chance, so that branches never share one."""
        number = int(str(current).partition(".")[0]) if current is not None else 0
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311  # no secret

    # ── sync ──

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint, or without a `checkpoint_id` the latest one of the thread."""
        return self._memory.run(self._checkpoints.get(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, read a few at a time: of a graph by id, of several by when they were saved."""
        checkpoints = self._checkpoints
        scan: Scan | None = checkpoints.listing(config, before)
        while scan is not None and (limit is None or limit > 0):
            found, scan = self._memory.run(checkpoints.page(scan, config, before, filter, limit))
            yield from found
            limit = None if limit is None else limit - len(found)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint. Returns the config that asks for it."""
        return self._memory.run(self._checkpoints.put(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save what a task has written to a checkpoint."""
        self._memory.run(self._checkpoints.put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread: its checkpoints, writes and values, those of its subgraphs too."""
        self._memory.run(upkeep.delete_thread(self._checkpoints, thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that runs have made.

        What they have written to a `DeltaChannel` stays, unseen, for as long as later checkpoints are rebuilt from it.
        """
        self._memory.run(upkeep.delete_for_runs(self._checkpoints, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Add everything of a thread to another."""
        self._memory.run(upkeep.copy_thread(self._checkpoints, source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the checkpoints of threads: all but the latest of each graph, or with `"delete"` all.

        What the latest needs of those before it to rebuild a `DeltaChannel` stays, unseen.
        """
        self._memory.run(upkeep.prune(self._checkpoints, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What was written to channels since their values were last stored, and those values."""
        return self._memory.run(self._checkpoints.delta_history(config, channels))

    # ── async ──

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await self._twin.run(self._checkpoints.get(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        checkpoints = self._checkpoints
        scan: Scan | None = checkpoints.listing(config, before)
        while scan is not None and (limit is None or limit > 0):
            found, scan = await self._twin.run(checkpoints.page(scan, config, before, filter, limit))
            for each in found:
                yield each
            limit = None if limit is None else limit - len(found)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await self._twin.run(self._checkpoints.put(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await self._twin.run(self._checkpoints.put_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._twin.run(upkeep.delete_thread(self._checkpoints, thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._twin.run(upkeep.delete_for_runs(self._checkpoints, run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._twin.run(upkeep.copy_thread(self._checkpoints, source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._twin.run(upkeep.prune(self._checkpoints, thread_ids, strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await self._twin.run(self._checkpoints.delta_history(config, channels))
