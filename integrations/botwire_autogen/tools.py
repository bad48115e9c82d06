"""Remember, recall, forget and list, as AutoGen tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from autogen_core import CancellationToken, Component
from autogen_core.tools import BaseTool, ParametersSchema, ToolSchema
from pydantic import BaseModel, ConfigDict

from botwire import InvalidInput, Memory, tools
from botwire.adapting import Place

from .held import Held, PlaceConfig, place_of

if TYPE_CHECKING:
    from typing import Unpack


class BotWireToolConfig(PlaceConfig):
    """The declarative configuration of a `BotWireTool`."""

    tool: str


class Arguments(BaseModel):
    """Whatever a model wrote: botwire tells it what is wrong in words that it can use."""

    model_config = ConfigDict(extra="allow")


class BotWireTool(BaseTool[Arguments, Any], Component[BotWireToolConfig]):
    """One of botwire's tools, over a memory. `memory_tools` makes all of them."""

    component_type = "tool"
    component_provider_override = "botwire_autogen.BotWireTool"
    component_config_schema = BotWireToolConfig

    def __init__(self, tool: str, held: Held) -> None:
        if tool not in tools.BY_NAME:
            raise InvalidInput(f"there is no tool {tool!r}: there are {', '.join(tools.BY_NAME)}")
        self._tool = tools.BY_NAME[tool]
        self._held = held
        super().__init__(Arguments, str, tool, self._tool.description, strict=True)

    @property
    def schema(self) -> ToolSchema:
        """The tool as a model sees it."""
        given = self._tool.parameters
        parameters = ParametersSchema(
            type="object", properties=given["properties"], required=given["required"], additionalProperties=False
        )
        return ToolSchema(name=self.name, description=self.description, parameters=parameters, strict=True)

    async def run(self, args: Arguments, cancellation_token: CancellationToken) -> str:
        """Do it, and say so."""
        return await tools.acall(self._held.memory, self.name, args.model_extra)

    def _to_config(self) -> BotWireToolConfig:
        return BotWireToolConfig(**self._held.described(), tool=self.name)

    @classmethod
    def _from_config(cls, config: BotWireToolConfig) -> Self:
        return cls(config.tool, Held(None, config.namespace, place_of(config)))


# A list of Any, for lists are invariant: as one of tools it would be none of "tools or callables", which agents take.
def memory_tools(namespace: str | None = None, *, memory: Memory | None = None, **place: Unpack[Place]) -> list[Any]:
    """Tools with which an agent remembers, recalls, forgets and lists: `AssistantAgent(..., tools=memory_tools("me"))`.

    Args:
        namespace: where it is remembered: all agents with tools for one namespace share what they remember. By default
            `"autogen"`.
        memory: a `Memory` instead of a namespace.
        place: `url`, `api_key`, `durability`, `encryption_key` … as for `Memory`.

    """
    held = Held(memory, namespace, place)
    return [BotWireTool(tool.name, held) for tool in tools.TOOLS]
