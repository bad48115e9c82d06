"""Remember, recall, forget and list, as CrewAI tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crewai.tools import BaseTool
from crewai.types.callback import SerializableCallable
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model

from botwire import AsyncMemory, Memory, tools
from botwire.adapting import Place, memory_for

if TYPE_CHECKING:
    from typing import Unpack


def memory_tools(
    namespace: str | None = None, *, memory: Memory | None = None, **place: Unpack[Place]
) -> list[BaseTool]:
    """Tools with which an agent remembers, recalls, forgets and lists: `Agent(..., tools=memory_tools("crew"))`.

    Args:
        namespace: where it is remembered: all agents with tools for one namespace share what they remember. By default
            `"crewai"`.
        memory: a `Memory` instead of a namespace.
        place: `url`, `api_key`, `durability`, `encryption_key` … as for `Memory`.

    """
    found = memory_for(memory, namespace, place, default="crewai")
    return [
        MemoryTool(name=tool.name, description=tool.description, args_schema=_arguments(tool), memory=found)
        for tool in tools.TOOLS
    ]


def _never(_arguments: Any = None, _result: Any = None) -> bool:
    """Whether an answer may be given again without asking: what is remembered changes."""
    return False


class MemoryTool(BaseTool):
    """One of botwire's tools, over a memory."""

    memory: Memory = Field(exclude=True)
    cache_function: SerializableCallable = _never
    _async: AsyncMemory | None = PrivateAttr(None)

    def _run(self, **arguments: Any) -> str:
        return tools.call(self.memory, self.name, arguments)

    async def _arun(self, **arguments: Any) -> str:
        if self._async is None:
            self._async = self.memory.twin()
        return await tools.acall(self._async, self.name, arguments)


def _arguments(tool: tools.Tool) -> type[BaseModel]:
    """The arguments of a tool as CrewAI wants them; what may be null may be left out."""
    fields: dict[str, Any] = {}
    for name, schema in tool.properties.items():
        told = schema["description"]
        optional = "null" in schema["type"]
        fields[name] = (str | None, Field(None, description=told)) if optional else (str, Field(description=told))
    return create_model(f"{tool.name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
