"""The toolset of `botwire_openai`: its schemas for every API, its calls, and what it takes to import it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

import botwire_openai
from botwire import Memory, tools
from botwire.errors import InvalidInput
from botwire_openai import MemoryTools

NAMES = ["remember", "recall", "forget", "list_memories"]


@pytest.fixture
def memory_tools() -> MemoryTools:
    return MemoryTools(namespace="a", url="sqlite://")


def test_the_schemas_are_nested_for_assistants_and_chat_and_flat_for_responses(memory_tools):
    for nested in (memory_tools.assistants, memory_tools.chat):
        assert [tool["function"]["name"] for tool in nested] == NAMES
        for tool, told in zip(nested, tools.TOOLS, strict=True):
            assert tool == {
                "type": "function",
                "function": {
                    "name": told.name,
                    "description": told.description,
                    "parameters": told.parameters,
                    "strict": True,
                },
            }
    assert [tool["name"] for tool in memory_tools.responses] == NAMES
    for flat, told in zip(memory_tools.responses, tools.TOOLS, strict=True):
        assert flat == {
            "type": "function",
            "name": told.name,
            "description": told.description,
            "parameters": told.parameters,
            "strict": True,
        }


def test_the_agents_sdk_gets_tools_of_its_own_kind(memory_tools):
    agents = pytest.importorskip("agents")
    made = memory_tools.agents
    assert [tool.name for tool in made] == NAMES
    assert all(isinstance(tool, agents.FunctionTool) and tool.strict_json_schema for tool in made)
    assert [tool.params_json_schema for tool in made] == [tool.parameters for tool in tools.TOOLS]


def test_schemas_are_the_callers_to_change(memory_tools):
    for schemas in ("assistants", "chat", "responses"):
        getattr(memory_tools, schemas)[0].clear()
        assert len(getattr(memory_tools, schemas)[0]) > 1


def test_a_call_is_the_memorys(memory_tools):
    assert memory_tools.call("remember", '{"key": "coffee", "value": "Yirgacheffe"}').startswith("Remembered")
    assert memory_tools.memory.get("coffee") == "Yirgacheffe"
    assert "There is no tool 'fly'" in memory_tools.call("fly", "{}")


def test_an_async_call_is_made_in_the_same_memory(url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)

    async def main() -> str:
        await memory_tools.acall("remember", {"key": "coffee", "value": "Yirgacheffe"})
        return await memory_tools.acall("recall", '{"query": "coffee"}')

    for _ in range(2):  # in one event loop after the other
        assert json.loads(asyncio.run(main()))["memories"][0]["value"] == "Yirgacheffe"
    assert memory_tools.memory.get("coffee") == "Yirgacheffe"


def test_a_memory_may_be_given(url, namespace):
    memory = Memory(namespace, url, author="planner")
    memory_tools = MemoryTools(memory=memory)
    assert memory_tools.memory is memory
    assert repr(memory_tools) == f"MemoryTools({memory!r})"
    asyncio.run(memory_tools.acall("remember", {"key": "a", "value": "b"}))
    item = memory.item("a")
    assert item is not None
    assert item.author == "planner"


def test_a_memory_has_its_place_already():
    memory = Memory("a", "sqlite://")
    with pytest.raises(InvalidInput, match="leave out namespace, url"):
        MemoryTools(memory=memory, namespace="b", url="sqlite://")
    with pytest.raises(InvalidInput, match="twin"):
        MemoryTools(memory=memory.twin())  # type: ignore[arg-type]  # what is tested


def test_a_tool_of_ones_own_cannot_take_the_memorys_place():
    taken = MemoryTools(namespace="a", url="sqlite://", others=lambda name, arguments: "mine")
    assert taken.call("fly", "{}") == "mine"
    assert taken.call("recall", '{"query": "x"}') != "mine"


@pytest.mark.parametrize("answer", [None, 7, {"a": 1}])
def test_an_answer_that_is_no_text_is_the_programmers_to_see(answer):
    wrong: Any = lambda name, arguments: answer  # noqa: E731  # one line says it
    memory_tools = MemoryTools(namespace="a", url="sqlite://", others=wrong)
    with pytest.raises(InvalidInput, match="others answered 'fly' with"):
        memory_tools.call("fly", "{}")
    with pytest.raises(InvalidInput, match="others answered 'fly' with"):
        asyncio.run(memory_tools.acall("fly", "{}"))


def test_a_coroutine_function_is_for_the_async_loops():
    async def others(name: str, arguments: str) -> str:
        return await asyncio.sleep(0, f"{name} {arguments}")

    memory_tools = MemoryTools(namespace="a", url="sqlite://", others=others)
    assert asyncio.run(memory_tools.acall("fly", "{}")) == "fly {}"
    with pytest.raises(InvalidInput, match="coroutine functions go with acall"):
        memory_tools.call("fly", "{}")


def test_what_is_remembered_about_something_is_a_block_within_its_budget():
    memory_tools = MemoryTools(namespace="a", url="sqlite://", context_tokens=100)
    assert memory_tools.context("coffee") == ""
    memory_tools.memory.set_many({f"coffee-{number}": f"coffee number {number} " * 9 for number in range(9)})
    block = memory_tools.context("coffee")
    assert block.startswith("<memory>\n")
    assert len(block) <= 100 * 4
    assert asyncio.run(memory_tools.acontext("coffee")) == block
    assert memory_tools.context(None) == ""


# ── imports ──


def test_the_tools_need_no_openai(in_a_new_process):
    script = """
import sys
sys.modules["openai"] = sys.modules["agents"] = None
from botwire_openai import MemoryTools, run_assistant, run_chat, run_response
memory_tools = MemoryTools(namespace="a", url="sqlite://")
print(len(memory_tools.responses), memory_tools.call("remember", '{"key": "a", "value": "b"}'))
"""
    assert in_a_new_process(script) == '4 Remembered under the key "a".\n'


def test_without_openai_what_needs_it_says_what_to_install(in_a_new_process):
    script = """
import sys
sys.modules["openai"] = None
for name in ("MemoryEventHandler", "AsyncMemoryEventHandler"):
    try:
        exec(f"from botwire_openai import {name}")
    except ImportError as error:
        print(error)
"""
    assert in_a_new_process(script) == 'openai is not installed: pip install "botwire[openai]"\n' * 2


def test_everything_it_offers_is_there():
    pytest.importorskip("agents")
    assert all(getattr(botwire_openai, name) is not None for name in botwire_openai.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = botwire_openai.nothing


def test_it_is_tested_with_a_version_that_it_is_made_for():
    assert openai.VERSION.partition(".")[0] in ("2", "3")
