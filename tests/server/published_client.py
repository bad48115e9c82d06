"""What runs in the published client's own environment: its whole memory surface. It writes what it got, as JSON.

Nothing of this checkout is imported here: `botwire` is version 0.2.1 from PyPI, and `BOTWIRE_URL` names the server.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from typing import Any

VALUES: list[Any] = [
    "Pedro",
    "",
    'héllo 😀 \x00 "quoted" \\ \n',
    {"nested": {"data": True}, "list": [1, 2.5, None]},
    [],
    {},
    [{"a": [[]]}],
    5,
    1.5,
    True,
    None,
    "5",
    "[not json",
    "{not json}",
    '{"looks": "like json"}',
    "[1, 2, 3]",
    [float("inf")],
    {"big": 10**30},
    "x" * 100_000,
]
KEYS = ["plain", "with space", "slash/inside", "ünïcode 😀", "50%", "a+b", "a&b=c", "semi;colon", "trailing/"]


def values(botwire: Any) -> list[Any]:
    """Each value as it comes back."""
    memory = botwire.Memory("values")
    found = []
    for number, value in enumerate(VALUES):
        memory.set(f"v{number}", value)
        found.append(repr(memory.get(f"v{number}")))
    return found


def keys(botwire: Any) -> dict[str, Any]:
    """Keys of all kinds: set, got, listed, looked for and deleted."""
    memory = botwire.Memory("keys", base_url=botwire.memory.BOTWIRE_URL + "/", timeout=30)
    for key in KEYS:
        memory.set(key, key)
    listed, got = memory.keys(), [memory.get(key) for key in KEYS]
    deleted = [memory.delete(key) for key in KEYS[:3]]
    return {
        "listed": listed,
        "got": got,
        "deleted": deleted,
        "left": memory.keys(),
        "contains": [KEYS[0] in memory, KEYS[3] in memory],
        "missing": [memory.get("nothing"), memory.get("nothing", default="default"), memory.delete("nothing")],
        "empty": botwire.Memory("nobody").keys(),
        "overwritten": (memory.set(KEYS[3], "new"), memory.get(KEYS[3]))[1],
    }


def history(botwire: Any, messages: Any) -> dict[str, Any]:
    """A chat, as LangChain keeps one."""
    chat = botwire.BotWireChatHistory(session_id="user-42")
    before = [message.content for message in chat.messages]
    chat.add_message(messages.HumanMessage("hi"))
    chat.add_messages([messages.AIMessage("hello", id="m1"), messages.HumanMessage("how are you?")])
    again = botwire.BotWireChatHistory(session_id="user-42").messages
    shown = [[message.type, message.content] for message in again]
    botwire.BotWireChatHistory(session_id="user-43").add_user_message("other")
    chat.clear()
    return {
        "before": before,
        "shown": shown,
        "cleared": chat.messages,
        "other": [message.content for message in botwire.BotWireChatHistory(session_id="user-43").messages],
    }


def tools(botwire: Any) -> list[Any]:
    """The tools for CrewAI, which wraps functions; the functions are what is tried here."""
    crewai = types.ModuleType("crewai_tools")
    crewai.tool = lambda name: lambda function: function  # type: ignore[attr-defined]
    sys.modules["crewai_tools"] = crewai
    remember, recall, list_memory = botwire.memory.memory_tools("crew")
    return [list_memory(), remember("colour", "green"), recall("colour"), recall("shape"), list_memory()]


def main() -> None:
    """Run it all."""
    sys.path.pop(0)  # the folder of this script, which is this checkout's
    botwire = importlib.import_module("botwire")
    got = {
        "version": botwire.__version__,
        "values": values(botwire),
        "keys": keys(botwire),
        "history": history(botwire, importlib.import_module("langchain_core.messages")),
        "tools": tools(botwire),
    }
    sys.stdout.write(json.dumps(got))


if __name__ == "__main__":
    main()
