"""CrewAI: agents that remember, and CrewAI's own memory kept in botwire. `pip install "botwire[crewai]"`.

from botwire_crewai import BotWireStorage, memory_tools

agent = Agent(..., tools=memory_tools("research-crew"))
crew = Crew(..., memory=Memory(storage=BotWireStorage(namespace="research-crew")))
"""

from botwire.adapting import missing

try:
    import crewai as _framework
except ModuleNotFoundError as error:
    if error.name != "crewai":
        raise
    raise missing("crewai", error) from error

from .registering import register
from .storage import BotWireStorage
from .tools import MemoryTool, memory_tools

del _framework

__all__ = ["BotWireStorage", "MemoryTool", "memory_tools", "register"]
