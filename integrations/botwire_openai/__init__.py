"""botwire for OpenAI: one set of memory tools, four doors, and a session for the Agents SDK.

    from openai import OpenAI
    from botwire_openai import MemoryTools, run_response

    memory_tools = MemoryTools(namespace="user-42")
    response = run_response(OpenAI(), memory_tools, model="gpt-5.2", input="Which coffee do I like?")
    print(response.output_text)

`run_chat` does the same for Chat Completions and `run_assistant` for the Assistants API. What is told in one door is
known in the others: they share the memory. `botwire_openai.agents` is for the Agents SDK, and installed for itself:
`pip install "botwire[openai-agents]"`. The tools' schemas and the loops need no openai themselves; whoever makes the
client has it.
"""

from typing import TYPE_CHECKING, Any

from .assistants import afinish_run, arun_assistant, finish_run, run_assistant
from .chat import arun_chat, astream_chat, run_chat, stream_chat
from .responses import arun_response, astream_response, run_response, stream_response
from .toolset import MemoryTools

if TYPE_CHECKING:
    from .agents import BotWireSession as BotWireSession  # not in `*`: they need the Agents SDK
    from .agents import agents_tools as agents_tools
    from .streaming import AsyncMemoryEventHandler, MemoryEventHandler

__all__ = [
    "AsyncMemoryEventHandler",
    "MemoryEventHandler",
    "MemoryTools",
    "afinish_run",
    "arun_assistant",
    "arun_chat",
    "arun_response",
    "astream_chat",
    "astream_response",
    "finish_run",
    "run_assistant",
    "run_chat",
    "run_response",
    "stream_chat",
    "stream_response",
]


def __getattr__(name: str) -> Any:
    """The names that need openai, or the Agents SDK, are imported when they are asked for."""
    if name in ("BotWireSession", "agents_tools"):
        from . import agents

        return getattr(agents, name)
    if name in ("AsyncMemoryEventHandler", "MemoryEventHandler"):
        from . import streaming

        return getattr(streaming, name)
    raise AttributeError(f"module 'botwire_openai' has no attribute {name!r}")
