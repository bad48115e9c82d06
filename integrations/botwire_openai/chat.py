"""Chat Completions: requests that are repeated, with the answers to the tool calls, until the model says something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from botwire.errors import BotWireError, InvalidInput

from .toolset import MAX_ROUNDS, MemoryTools, circling, with_context

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    Fields = dict[str, Any]


def run_chat(
    client: OpenAI,
    memory_tools: MemoryTools,
    *,
    messages: list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> ChatCompletion:
    """Ask a model, and run the tools it calls, until it has answered.

    Args:
        client: an `OpenAI` client, of any server that speaks Chat Completions.
        memory_tools: what runs the tools; the model is told of them.
        messages: the messages so far. What is said is appended to the list, each tool call together with its results,
            the answer last.
        about: what the user says, for instance: what is remembered about it is sent as a system message, and not
            appended.
        max_rounds: after so many rounds of tool calls `BotWireError` is raised.
        params: what else `client.chat.completions.create` takes: `model` at least. `tools` come beside the memory's.

    """
    _check(messages, params)
    block = memory_tools.context(about)
    wanted = _with_tools(params, memory_tools)
    for _ in range(max_rounds + 1):
        completion = client.chat.completions.create(messages=_sent(messages, block), **wanted)
        said = _said(completion)
        answers = [_result(call, memory_tools.call(*_asked(call))) for call in _calls(said)]
        messages += [said, *answers]
        if not answers:
            return completion
    raise circling(max_rounds)


async def arun_chat(
    client: AsyncOpenAI,
    memory_tools: MemoryTools,
    *,
    messages: list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> ChatCompletion:
    """As `run_chat`, with an `AsyncOpenAI` client."""
    _check(messages, params)
    block = await memory_tools.acontext(about)
    wanted = _with_tools(params, memory_tools)
    for _ in range(max_rounds + 1):
        completion = await client.chat.completions.create(messages=_sent(messages, block), **wanted)
        said = _said(completion)
        answers = [_result(call, await memory_tools.acall(*_asked(call))) for call in _calls(said)]
        messages += [said, *answers]
        if not answers:
            return completion
    raise circling(max_rounds)


def stream_chat(
    client: OpenAI,
    memory_tools: MemoryTools,
    *,
    messages: list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> Iterator[ChatCompletionChunk]:
    """As `run_chat`, chunk by chunk as they arrive. Each message is appended to `messages` when it is complete."""
    _check(messages, params)
    block = memory_tools.context(about)
    wanted = _with_tools(params, memory_tools)
    for _ in range(max_rounds + 1):
        growing = _Growing()
        with client.chat.completions.create(messages=_sent(messages, block), stream=True, **wanted) as stream:
            for chunk in stream:
                growing.add(chunk)
                yield chunk
        said = growing.message()
        answers = [_result(call, memory_tools.call(*_asked(call))) for call in _calls(said)]
        messages += [said, *answers]
        if not answers:
            return
    raise circling(max_rounds)


async def astream_chat(
    client: AsyncOpenAI,
    memory_tools: MemoryTools,
    *,
    messages: list[Any],
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> AsyncIterator[ChatCompletionChunk]:
    """As `stream_chat`, with an `AsyncOpenAI` client."""
    _check(messages, params)
    block = await memory_tools.acontext(about)
    wanted = _with_tools(params, memory_tools)
    for _ in range(max_rounds + 1):
        growing = _Growing()
        request = client.chat.completions.create(messages=_sent(messages, block), stream=True, **wanted)
        async with await request as stream:
            async for chunk in stream:
                growing.add(chunk)
                yield chunk
        said = growing.message()
        answers = [_result(call, await memory_tools.acall(*_asked(call))) for call in _calls(said)]
        messages += [said, *answers]
        if not answers:
            return
    raise circling(max_rounds)


class _Growing:
    """A message that arrives in pieces."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._calls: dict[int, Fields] = {}
        self._ended = False

    def add(self, chunk: ChatCompletionChunk) -> None:
        for choice in chunk.choices:
            if choice.index != 0:
                continue
            self._ended = self._ended or choice.finish_reason is not None
            for field in ("content", "refusal"):
                if piece := getattr(choice.delta, field, None):
                    self._texts[field] = self._texts.get(field, "") + piece
            for part in choice.delta.tool_calls or ():
                self._add_call(part)

    def _add_call(self, part: Any) -> None:
        call = self._calls.setdefault(
            part.index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = part.id or call["id"]
        if part.function is not None:
            call["function"]["name"] += part.function.name or ""
            call["function"]["arguments"] += part.function.arguments or ""

    def message(self) -> Fields:
        """The message, as `messages` takes it. Raises `BotWireError` if the rest of it never came."""
        if not self._ended:
            raise BotWireError("the stream ended before the message did: ask again, nothing was appended")
        said: Fields = {"role": "assistant", "content": None, **self._texts}
        if self._calls:
            said["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return said


def _check(messages: Any, params: Fields) -> None:
    if not isinstance(messages, list):
        raise InvalidInput(f"messages must be a list, not {type(messages).__name__}: what is said is appended to it")
    if params.get("stream"):
        raise InvalidInput("leave out stream=True: stream_chat and astream_chat are for that")


def _with_tools(params: Fields, memory_tools: MemoryTools) -> Fields:
    return params | {"tools": [*memory_tools.chat, *(params.get("tools") or ())]}


def _sent(messages: list[Any], block: str) -> list[Any]:
    """The messages with what is remembered: in the system message that they begin with, or in one before them.

    Not every server takes two system messages.
    """
    if not block:
        return messages
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") in ("system", "developer") and isinstance(first["content"], str):
        return [{**first, "content": with_context(first["content"], block)}, *messages[1:]]
    return [{"role": "system", "content": block}, *messages]


def _said(completion: ChatCompletion) -> Fields:
    """The model's message as `messages` takes it: what it left open is not sent back."""
    fields = completion.choices[0].message.to_dict()
    return {name: value for name, value in fields.items() if value is not None or name == "content"}


def _calls(message: Fields) -> list[Fields]:
    calls: list[Fields] = message.get("tool_calls") or []
    return calls


def _asked(call: Fields) -> tuple[str, str]:
    """The name and the arguments of a tool call."""
    if call.get("type") == "custom":
        return call["custom"]["name"], call["custom"]["input"]
    return call["function"]["name"], call["function"]["arguments"]


def _result(call: Fields, answer: str) -> Fields:
    return {"role": "tool", "tool_call_id": call["id"], "content": answer}
