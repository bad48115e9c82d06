"""botwire for LangChain: a chat history, a byte store, and memory tools for agents.

from botwire_langchain import BotWireChatHistory

history = BotWireChatHistory("user-42")
history.add_user_message("I take my coffee black.")
history.messages   # there in every later process too
"""

from botwire.adapting import missing

try:
    import langchain_core as _framework
except ModuleNotFoundError as error:
    if error.name != "langchain_core":
        raise
    raise missing("langchain", error) from error

from .history import BotWireChatHistory
from .store import BotWireByteStore
from .tools import memory_tools

del _framework

__all__ = ["BotWireByteStore", "BotWireChatHistory", "memory_tools"]
