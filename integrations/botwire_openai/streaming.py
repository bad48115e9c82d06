"""Event handlers for streamed runs of the Assistants API: they answer the tool calls, and the stream goes on.

with client.beta.threads.runs.stream(
    thread_id=thread.id, assistant_id=assistant.id, event_handler=MemoryEventHandler(client, memory_tools)
) as stream:
    for text in stream.text_deltas:
        print(text, end="")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

from botwire.adapting import missing

try:
    from openai import AssistantEventHandler, AsyncAssistantEventHandler
except ModuleNotFoundError as error:
    if error.name != "openai":
        raise
    raise missing("openai", error) from error

from .assistants import aoutputs, asked_by, outputs
from .toolset import MAX_ROUNDS, MemoryTools, circling

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
    from openai.types.beta import AssistantStreamEvent


class MemoryEventHandler(AssistantEventHandler):
    """An event handler that answers a run's tool calls. Subclass it for callbacks, as `AssistantEventHandler`.

    To whoever listens, the run is one stream: its events, `text_deltas`, `until_done()`, `get_final_run()` and
    `get_final_messages()` go on behind the answers.
    """

    def __init__(self, client: OpenAI, memory_tools: MemoryTools, *, max_rounds: int = MAX_ROUNDS) -> None:
        super().__init__()
        self._client = client
        self._memory_tools = memory_tools
        self._max_rounds = max_rounds

    def _init(self, stream: Stream[AssistantStreamEvent]) -> None:
        whole = _WholeRun(stream, self._client, self._memory_tools, self._max_rounds)
        super()._init(cast("Stream[AssistantStreamEvent]", whole))


class _WholeRun:
    """The events of a run, over all the responses into which its tool calls cut it."""

    def __init__(
        self, first: Stream[AssistantStreamEvent], client: OpenAI, memory_tools: MemoryTools, max_rounds: int
    ) -> None:
        self._stream = first
        self._runs: Any = client.beta.threads.runs  # Any: its methods are marked deprecated
        self._memory_tools = memory_tools
        self._max_rounds = max_rounds

    def __iter__(self) -> Iterator[AssistantStreamEvent]:
        for round_ in range(self._max_rounds + 1):
            run = None
            with self._stream as stream:
                for event in stream:
                    yield event
                    if event.event == "thread.run.requires_action":
                        run = event.data
            if run is None or not asked_by(run):
                return
            if round_ == self._max_rounds:
                self._runs.cancel(run.id, thread_id=run.thread_id)
                raise circling(self._max_rounds)
            self._stream = self._runs.submit_tool_outputs(
                run.id, thread_id=run.thread_id, tool_outputs=outputs(self._memory_tools, run), stream=True
            )

    def close(self) -> None:
        self._stream.close()


class AsyncMemoryEventHandler(AsyncAssistantEventHandler):
    """As `MemoryEventHandler`, with an `AsyncOpenAI` client."""

    def __init__(self, client: AsyncOpenAI, memory_tools: MemoryTools, *, max_rounds: int = MAX_ROUNDS) -> None:
        super().__init__()
        self._client = client
        self._memory_tools = memory_tools
        self._max_rounds = max_rounds

    def _init(self, stream: AsyncStream[AssistantStreamEvent]) -> None:
        whole = _AsyncWholeRun(stream, self._client, self._memory_tools, self._max_rounds)
        super()._init(cast("AsyncStream[AssistantStreamEvent]", whole))


class _AsyncWholeRun:
    def __init__(
        self, first: AsyncStream[AssistantStreamEvent], client: AsyncOpenAI, memory_tools: MemoryTools, max_rounds: int
    ) -> None:
        self._stream = first
        self._runs: Any = client.beta.threads.runs  # Any: its methods are marked deprecated
        self._memory_tools = memory_tools
        self._max_rounds = max_rounds

    async def __aiter__(self) -> AsyncIterator[AssistantStreamEvent]:
        for round_ in range(self._max_rounds + 1):
            run = None
            async with self._stream as stream:
                async for event in stream:
                    yield event
                    if event.event == "thread.run.requires_action":
                        run = event.data
            if run is None or not asked_by(run):
                return
            if round_ == self._max_rounds:
                await self._runs.cancel(run.id, thread_id=run.thread_id)
                raise circling(self._max_rounds)
            self._stream = await self._runs.submit_tool_outputs(
                run.id, thread_id=run.thread_id, tool_outputs=await aoutputs(self._memory_tools, run), stream=True
            )

    async def close(self) -> None:
        await self._stream.close()
