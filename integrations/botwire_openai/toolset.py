"""`MemoryTools`: the tools of a memory in the schemas of every OpenAI API, and what runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Unpack

from botwire import AsyncMemory, Memory, tools
from botwire.adapting import Place, memory_for
from botwire.errors import BotWireError, InvalidInput

if TYPE_CHECKING:
    from agents import Tool
    from openai.types.beta import FunctionToolParam as AssistantToolParam
    from openai.types.chat import ChatCompletionFunctionToolParam
    from openai.types.responses import FunctionToolParam

MAX_ROUNDS = 20  # of tool calls in a row: a model that asks for more goes in circles

Others = Callable[[str, str], str | Awaitable[str]]


class MemoryTools:
    """remember, recall, forget and list_memories for a model, over one memory.

    Args:
        memory: a `Memory`; or instead of it
        namespace: where the memories lie, and as further keywords `url`, `api_key`, `durability`, `encryption_key` and
            what else `Memory` takes.
        others: runs the tools that are not the memory's: it is given a name and the arguments as the model wrote them,
            and returns the answer. It may be a coroutine function where only the async loops are used.
        context_tokens: how much of a prompt the memories take at most that a loop's `about=` brings.

    >>> from botwire_openai import MemoryTools
    >>> memory_tools = MemoryTools(namespace="user-42", url="sqlite://")
    >>> [tool["name"] for tool in memory_tools.responses]
    ['remember', 'recall', 'forget', 'list_memories']
    >>> memory_tools.call("remember", '{"key": "coffee", "value": "Ethiopian Yirgacheffe"}')
    'Remembered under the key "coffee".'

    """

    def __init__(
        self,
        *,
        memory: Memory | None = None,
        namespace: str | None = None,
        others: Others | None = None,
        context_tokens: int = 1_000,
        **place: Unpack[Place],
    ) -> None:
        self.memory = memory_for(memory, namespace, place)
        self._others = others
        self._context_tokens = context_tokens

    def __repr__(self) -> str:
        return f"MemoryTools({self.memory!r})"

    @cached_property
    def _twin(self) -> AsyncMemory:
        return self.memory.twin()

    # ── schemas, each time anew: they are the caller's to change ──

    @property
    def assistants(self) -> list[AssistantToolParam]:
        """The tools as the Assistants API wants them."""
        return [{"type": "function", "function": _nested(tool)} for tool in tools.TOOLS]

    @property
    def chat(self) -> list[ChatCompletionFunctionToolParam]:
        """The tools as Chat Completions wants them."""
        return [{"type": "function", "function": _nested(tool)} for tool in tools.TOOLS]

    @property
    def responses(self) -> list[FunctionToolParam]:
        """The tools as the Responses API wants them."""
        return [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": True,
            }
            for tool in tools.TOOLS
        ]

    @property
    def agents(self) -> list[Tool]:
        """The tools as the Agents SDK wants them: `Agent(tools=memory_tools.agents)`."""
        from .agents import function_tools  # needs the Agents SDK

        return function_tools(self)

    # ── calls ──

    def call(self, name: str, arguments: str | Mapping[str, Any] | None) -> str:
        """Run what a model asked for, whatever it is. Returns what the model is told.

        Raises `StoreError` and what else is the programmer's to mend.
        """
        if not self._is_other(name):
            return tools.call(self.memory, name, arguments)
        return _told(name, self._other(name, arguments))

    async def acall(self, name: str, arguments: str | Mapping[str, Any] | None) -> str:
        """As `call`, for an event loop."""
        if not self._is_other(name):
            return await tools.acall(self._twin, name, arguments)
        answer = self._other(name, arguments)
        return _told(name, await answer if isawaitable(answer) else answer)

    def _is_other(self, name: str) -> bool:
        return self._others is not None and name not in tools.BY_NAME

    def _other(self, name: str, arguments: Any) -> Any:
        assert self._others is not None  # as _is_other has seen
        return self._others(name, arguments)

    # ── prompts ──

    def context(self, about: str | None) -> str:
        """What is remembered about something, as a block to put into a prompt; empty if that is nothing."""
        return "" if about is None else self.memory.context(about, self._context_tokens)

    async def acontext(self, about: str | None) -> str:
        """As `context`, for an event loop."""
        return "" if about is None else await self._twin.context(about, self._context_tokens)


def with_context(instructions: str | None, block: str) -> str | None:
    """Instructions, and below them what is remembered."""
    return "\n\n".join(text for text in (instructions, block) if text) or instructions


def circling(rounds: int) -> BotWireError:
    """What a loop raises when the model does nothing but call tools."""
    return BotWireError(
        f"the model has called tools {rounds:,} times in a row and given no answer: "
        "look at its instructions, or raise max_rounds"
    )


def _nested(tool: tools.Tool) -> Any:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": True}


def _told(name: str, answer: Any) -> str:
    if not isinstance(answer, str):
        hint = ""
        if iscoroutine(answer):
            answer.close()  # or Python warns that nobody awaited it
            hint = ": coroutine functions go with acall and the async loops"
        raise InvalidInput(f"others answered {name!r} with {type(answer).__name__}, not str{hint}")
    return answer
