"""`memory_tools`: what an agent can do with a memory, as LangChain tools."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Unpack

from langchain_core.tools import BaseTool

from botwire import AsyncMemory, Memory, tools
from botwire.adapting import Place, memory_for


class MemoryTool(BaseTool):
    """One of `botwire.tools`, on a memory."""

    _memory: Memory

    def __init__(self, tool: tools.Tool, memory: Memory) -> None:
        # A schema, not a model: so the arguments come as the model wrote them, and `call` says what is wrong with them.
        super().__init__(name=tool.name, description=tool.description, args_schema=tool.parameters)
        self._memory = memory

    @cached_property
    def _twin(self) -> AsyncMemory:
        return self._memory.twin()

    def _run(self, /, **arguments: Any) -> str:
        return tools.call(self._memory, self.name, arguments)

    async def _arun(self, /, **arguments: Any) -> str:
        return await tools.acall(self._twin, self.name, arguments)


def memory_tools(
    namespace: str | None = None, *, memory: Memory | None = None, **place: Unpack[Place]
) -> list[BaseTool]:
    """The tools remember, recall, forget and list_memories on a memory, for `create_agent` and whatever takes tools.

    Args:
        namespace: whose memory it is, such as `"user-42"`.
        memory: a `Memory` instead of a namespace.
        place: `url`, `api_key`, `durability`, `encryption_key` and so on, as `Memory` takes them.

    >>> [tool.name for tool in memory_tools("user-42", url="sqlite://")]
    ['remember', 'recall', 'forget', 'list_memories']

    """
    found = memory_for(memory, namespace, place)
    return [MemoryTool(tool, found) for tool in tools.TOOLS]
