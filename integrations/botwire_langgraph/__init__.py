"""LangGraph's long-term memory and checkpoints, kept by botwire.

>>> from botwire_langgraph import BotWireSaver, BotWireStore
>>> store = BotWireStore(namespace="graph", url="sqlite://")
>>> store.put(("users", "ana"), "coffee", {"likes": "Ethiopian Yirgacheffe"})
>>> store.get(("users", "ana"), "coffee").value
{'likes': 'Ethiopian Yirgacheffe'}

Both go where LangGraph's own do: `builder.compile(store=BotWireStore(), checkpointer=BotWireSaver())`.
"""

from __future__ import annotations

try:
    from .saver import BotWireSaver
    from .store import BotWireStore
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langgraph", "langchain_core"):
        raise
    from botwire.adapting import missing

    raise missing("langgraph", error) from error

__all__ = ["BotWireSaver", "BotWireStore"]
