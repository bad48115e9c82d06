"""AutoGen: an agent's memory, and tools with which it remembers. `pip install "botwire[autogen]"`.

from botwire_autogen import BotWireMemory, memory_tools

agent = AssistantAgent("assistant", model_client=..., memory=[BotWireMemory(namespace="user-42")])
agent = AssistantAgent("assistant", model_client=..., tools=memory_tools("user-42"))
"""

from botwire.adapting import missing

try:
    import autogen_core as _framework
except ModuleNotFoundError as error:
    if error.name != "autogen_core":
        raise
    raise missing("autogen", error) from error

from .memory import BotWireMemory, BotWireMemoryConfig
from .tools import BotWireTool, BotWireToolConfig, memory_tools

del _framework

__all__ = ["BotWireMemory", "BotWireMemoryConfig", "BotWireTool", "BotWireToolConfig", "memory_tools"]
