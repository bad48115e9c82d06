"""The Responses API: requests that are repeated, with the outputs of the function calls, until the model answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

from botwire.errors import BotWireError, InvalidInput

from .toolset import MAX_ROUNDS, MemoryTools, circling, with_context

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.responses import Response, ResponseStreamEvent

    Fields = dict[str, Any]

_LAST = ("response.completed", "response.incomplete", "response.failed")


def run_response(
    client: OpenAI,
    memory_tools: MemoryTools,
    *,
    input: str | list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> Response:
    """Ask a model, and run the functions it calls, until it has answered.

    Args:
        client: an `OpenAI` client.
        memory_tools: what runs the functions; the model is told of them.
        input: a text, or a list of items, to which what is said is appended: each function call together with its
            output, the answer last.
        about: what the user says, for instance: what is remembered about it goes into `instructions`.
        max_rounds: after so many rounds of function calls `BotWireError` is raised.
        params: what else `client.responses.create` takes: `model` at least, and `conversation` or
            `previous_response_id` to go on. `tools` come beside the memory's.

    """
    talk = _Talk(input, params, memory_tools, memory_tools.context(about))
    for _ in range(max_rounds + 1):
        response = client.responses.create(**talk.request())
        outputs = [_output(call, memory_tools.call(call.name, call.arguments)) for call in _calls(response)]
        talk.add(response, outputs)
        if not outputs:
            return response
    raise circling(max_rounds)


async def arun_response(
    client: AsyncOpenAI,
    memory_tools: MemoryTools,
    *,
    input: str | list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> Response:
    """As `run_response`, with an `AsyncOpenAI` client."""
    talk = _Talk(input, params, memory_tools, await memory_tools.acontext(about))
    for _ in range(max_rounds + 1):
        response = await client.responses.create(**talk.request())
        outputs = [_output(call, await memory_tools.acall(call.name, call.arguments)) for call in _calls(response)]
        talk.add(response, outputs)
        if not outputs:
            return response
    raise circling(max_rounds)


def stream_response(
    client: OpenAI,
    memory_tools: MemoryTools,
    *,
    input: str | list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> Iterator[ResponseStreamEvent]:
    """As `run_response`, event by event as they arrive, of all its responses."""
    talk = _Talk(input, params, memory_tools, memory_tools.context(about))
    for _ in range(max_rounds + 1):
        response = None
        with client.responses.create(**talk.request(), stream=True) as stream:
            for event in stream:
                response = _last(event) or response
                yield event
        response = _arrived(response)
        outputs = [_output(call, memory_tools.call(call.name, call.arguments)) for call in _calls(response)]
        talk.add(response, outputs)
        if not outputs:
            return
    raise circling(max_rounds)


async def astream_response(
    client: AsyncOpenAI,
    memory_tools: MemoryTools,
    *,
    input: str | list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> AsyncIterator[ResponseStreamEvent]:
    """As `stream_response`, with an `AsyncOpenAI` client."""
    talk = _Talk(input, params, memory_tools, await memory_tools.acontext(about))
    for _ in range(max_rounds + 1):
        response = None
        async with await client.responses.create(**talk.request(), stream=True) as stream:
            async for event in stream:
                response = _last(event) or response
                yield event
        response = _arrived(response)
        outputs = [_output(call, await memory_tools.acall(call.name, call.arguments)) for call in _calls(response)]
        talk.add(response, outputs)
        if not outputs:
            return
    raise circling(max_rounds)


class _Talk:
    """What is sent with each request of a loop."""

    def __init__(self, input: Any, params: Fields, memory_tools: MemoryTools, block: str) -> None:
        if not isinstance(input, str | list):
            raise InvalidInput(f"input must be a text or a list of items, not {type(input).__name__}")
        if params.get("stream"):
            raise InvalidInput("leave out stream=True: stream_response and astream_response are for that")
        self._items: list[Any] = [{"role": "user", "content": input}] if isinstance(input, str) else input
        self._next = self._items
        self._params = params | {"tools": [*memory_tools.responses, *(params.get("tools") or ())]}
        if block:
            self._params["instructions"] = with_context(params.get("instructions"), block)

    def request(self) -> Fields:
        return self._params | {"input": self._next}

    def add(self, response: Response, outputs: list[Fields]) -> None:
        """Append a response and the outputs of its calls. A conversation on the server has the rest already."""
        self._items += [*(item.to_dict() for item in response.output), *outputs]
        self._next = outputs if self._params.get("conversation") is not None else self._items


def _calls(response: Response) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def _output(call: Any, answer: str) -> Fields:
    return {"type": "function_call_output", "call_id": call.call_id, "output": answer}


def _last(event: ResponseStreamEvent) -> Response | None:
    """The whole response, if this is the event that ends it."""
    return cast("Any", event).response if event.type in _LAST else None


def _arrived(response: Response | None) -> Response:
    if response is None:
        raise BotWireError("the stream of events ended before the response did: ask again")
    return response
