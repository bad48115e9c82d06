"""The Agents SDK: a session that stays, and the memory's tools for an agent.

from agents import Agent, Runner
from botwire_openai.agents import BotWireSession, agents_tools

agent = Agent(name="assistant", tools=agents_tools(namespace="user-42"))
result = await Runner.run(agent, "Which coffee do I like?", session=BotWireSession("thread-1", namespace="user-42"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from botwire import Memory, Message
from botwire import tools as memory_tools_of
from botwire.adapting import Place, memory_for, missing
from botwire.errors import InvalidInput

try:
    from agents import FunctionTool
    from agents.memory import SessionSettings
except ModuleNotFoundError as error:
    if error.name != "agents":
        raise
    raise missing("openai-agents", error) from error

from .toolset import MemoryTools

if TYPE_CHECKING:
    from agents import Tool, TResponseInputItem
    from agents.tool_context import ToolContext


class BotWireSession:
    """A session of the Agents SDK, kept as a conversation: `Runner.run(agent, …, session=BotWireSession("thread-1"))`.

    Args:
        session_id: names the conversation.
        memory: a `Memory`; or instead of it
        namespace: where the conversation lies (by default "agents"), and as further keywords `url`, `api_key`,
            `durability`, `encryption_key` and what else `Memory` takes.
        session_settings: its `limit` is how many items a run is given at most.

    Each item is a row of its own; adding one costs the same however many there are, and nothing is lost when several
    add at once. What was said is found by `memory.search` and the tool `recall` in the same namespace.

    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        *,
        memory: Memory | None = None,
        namespace: str | None = None,
        session_settings: SessionSettings | None = None,
        **place: Unpack[Place],
    ) -> None:
        self.memory = memory_for(memory, namespace, place, default="agents")
        self.session_id = session_id
        self.session_settings = session_settings
        self._talk = self.memory.twin().conversation(session_id)

    def __repr__(self) -> str:
        return f"BotWireSession({self.session_id!r}, {self.memory!r})"

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first: the last `limit` of them, or of `session_settings.limit`, or all."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit < 0:
            raise InvalidInput(f"limit={limit!r} must be a number of items, zero or more, or None for all")
        return [_item(message) for message in await self._talk.messages(last=limit)]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items, all or none."""
        items = list(items)  # an iterator would be gone after the look at it
        for item in items:
            if not _is_item(item):
                raise InvalidInput(f"{item!r:.200} is no item of the Agents SDK: nothing was added")
        if items:
            await self._talk.extend(items)

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item away and return it; `None` if there is none."""
        while last := await self._talk.messages(last=1):
            item = _item(last[0])  # checked before it is taken away: what is no item stays
            if await self._talk.delete(last[0]):
                return item
        return None

    async def clear_session(self) -> None:
        """Remove all items."""
        await self._talk.clear()


def agents_tools(*, memory: Memory | None = None, namespace: str | None = None, **place: Unpack[Place]) -> list[Tool]:
    """remember, recall, forget and list_memories for an `Agent`."""
    return function_tools(MemoryTools(memory=memory, namespace=namespace, **place))


def function_tools(memory_tools: MemoryTools) -> list[Tool]:
    """The tools of a toolset, for an `Agent`."""
    return [_function_tool(memory_tools, tool) for tool in memory_tools_of.TOOLS]


def _function_tool(memory_tools: MemoryTools, tool: memory_tools_of.Tool) -> FunctionTool:
    async def invoke(context: ToolContext[Any], arguments: str) -> str:
        return await memory_tools.acall(tool.name, arguments)

    return FunctionTool(tool.name, tool.description, tool.parameters, invoke)


def _is_item(value: Any) -> bool:
    """Whether the SDK can take this: other frameworks' messages it would send on, for the API to refuse."""
    if not isinstance(value, dict):
        return False
    fields = cast("dict[str, Any]", value)
    if isinstance(fields.get("data"), dict) or "tool_calls" in fields or fields.get("role") == "tool":
        return False  # of LangChain, or of Chat Completions
    return isinstance(fields.get("type"), str) or isinstance(fields.get("role"), str)


def _item(message: Message) -> TResponseInputItem:
    if not _is_item(message.value):
        raise InvalidInput(
            f"message {message.id!r} of conversation {message.conversation!r} in {message.namespace!r} is no item of "
            "the Agents SDK: somebody else wrote it. Give the session an id of its own, or remove the message"
        )
    return cast("TResponseInputItem", message.value)
