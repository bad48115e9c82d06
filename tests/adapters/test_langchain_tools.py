"""The memory tools in LangChain's own suites, and in its agent with a scripted model."""

from __future__ import annotations

import json

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from botwire import AsyncMemory, BotWireError, InvalidInput, Memory
from botwire.tools import MAX_ANSWER, TOOLS
from botwire_langchain import memory_tools

EXAMPLES = {
    "remember": {"key": "coffee", "value": "black"},
    "recall": {"query": "coffee"},
    "forget": {"key": "coffee"},
    "list_memories": {"prefix": None},
}


class Tool:
    """What LangChain's two suites ask about a tool: here for each of ours."""

    @pytest.fixture(autouse=True, params=list(EXAMPLES))
    def name(self, request, tmp_path):
        self.tool_name = request.param
        self.url = f"sqlite:///{tmp_path}/memory.db"

    @property
    def tool_constructor(self):
        return next(tool for tool in memory_tools("user-42", url=self.url) if tool.name == self.tool_name)

    @property
    def tool_invoke_params_example(self):
        return EXAMPLES[self.tool_name]


class TestUnit(Tool, ToolsUnitTests):
    pass


class TestIntegration(Tool, ToolsIntegrationTests):
    pass


class Scripted(GenericFakeChatModel):
    """A model that says what it was told to say."""

    def bind_tools(self, tools, **kwargs):
        return self


def calls(*wanted: tuple[str, dict[str, object]]) -> AIMessage:
    """An answer that calls tools."""
    made = [{"name": name, "args": args, "id": f"call-{place}"} for place, (name, args) in enumerate(wanted)]
    return AIMessage("", tool_calls=made)


def agent(tools, *answers):
    return create_agent(Scripted(messages=iter([*answers, AIMessage("done")])), tools=tools)


def told(state) -> list[str]:
    """What the tools answered."""
    return [str(message.content) for message in state["messages"] if isinstance(message, ToolMessage)]


ASK = {"messages": [("user", "…")]}


def test_an_agent_remembers_recalls_lists_and_forgets(url, namespace):
    tools = memory_tools(namespace, url=url)
    state = agent(
        tools,
        calls(("remember", {"key": "coffee", "value": "She takes it black."})),
        calls(("recall", {"query": "coffee"}), ("recall", {"query": "What does she take black?"})),
        calls(("list_memories", {"prefix": None}), ("list_memories", {})),
        calls(("forget", {"key": "coffee"})),
        calls(("recall", {"query": "coffee"})),
    ).invoke(ASK)
    stored, exact, found, listed, all_listed, forgot, gone = told(state)
    assert "Remembered" in stored
    assert [json.loads(answer)["memories"][0]["value"] for answer in (exact, found)] == ["She takes it black."] * 2
    assert json.loads(listed)["keys"] == json.loads(all_listed)["keys"] == ["coffee"]
    assert "Forgot" in forgot
    assert "Nothing" in gone
    assert state["messages"][-1].content == "done"


async def test_an_agent_remembers_in_an_event_loop(url, namespace):
    tools = memory_tools(memory=Memory(namespace, url))
    state = await agent(
        tools, calls(("remember", {"key": "coffee", "value": "black"})), calls(("recall", {"query": "coffee"}))
    ).ainvoke(ASK)
    assert "black" in told(state)[1]
    assert await AsyncMemory(namespace, url).get("coffee") == "black"


AGENT = """
from botwire_langchain import memory_tools
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

class Scripted(GenericFakeChatModel):
    def bind_tools(self, tools, **kwargs):
        return self

call = AIMessage("", tool_calls=[{"name": TOOL, "args": ARGS, "id": "1"}])
agent = create_agent(Scripted(messages=iter([call, AIMessage("done")])), tools=memory_tools(NAMESPACE))
print(agent.invoke({"messages": [("user", "…")]})["messages"][-2].content)
"""


def test_the_next_process_recalls_what_an_agent_remembered(url, namespace, in_a_new_process):
    def run(tool, args):
        script = AGENT.replace("TOOL", repr(tool)).replace("ARGS", repr(args)).replace("NAMESPACE", repr(namespace))
        return in_a_new_process(script, BOTWIRE_URL=url)

    assert "Remembered" in run("remember", {"key": "coffee", "value": "black"})
    assert json.loads(run("recall", {"query": "coffee"}))["memories"][0]["value"] == "black"


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("remember", {"key": "a"}, "remember needs 'value'"),
        ("remember", {"key": "a", "value": 5}, "remember needs 'value', a text"),
        ("remember", {"key": "a", "value": "b", "self": "c"}, "has no argument 'self'"),
        ("remember", {"key": "a", "value": "b", "config": {}}, "has no argument 'config'"),
        ("remember", {"key": "a\nb", "value": "b"}, "control character"),
        ("remember", {"key": "a", "value": "x" * 30_000}, "limit"),
        ("remember", {}, "needs 'key'"),
        ("forget", {"key": "never heard of"}, "Nothing is stored"),
        ("telepathy", {}, "not a valid tool"),
    ],
)
def test_what_a_model_does_wrong_it_is_told_and_the_agent_goes_on(url, namespace, name, args, words):
    state = agent(memory_tools(namespace, url=url), calls((name, args))).invoke(ASK)
    assert words in told(state)[0]
    assert state["messages"][-1].content == "done"
    assert Memory(namespace, url).keys() == []


def test_a_memory_that_is_too_long_for_an_answer_is_cut(url, namespace):
    memory = Memory(namespace, url)
    memory.set("book", "word " * 100_000)
    [answer] = told(agent(memory_tools(memory=memory), calls(("recall", {"query": "book"}))).invoke(ASK))
    assert len(answer) < MAX_ANSWER + 500
    assert "cut" in answer


def test_trouble_with_the_store_is_the_programmers(tmp_path):
    (tmp_path / "folder").mkdir()
    broken = agent(memory_tools("user-42", url=f"sqlite:///{tmp_path}/folder"), calls(("recall", {"query": "x"})))
    with pytest.raises(BotWireError):
        broken.invoke(ASK)


def test_a_model_sees_the_tools_as_botwire_describes_them():
    for found, tool in zip(memory_tools("user-42", url="sqlite://"), TOOLS, strict=True):
        shown = convert_to_openai_tool(found, strict=True)["function"]
        assert shown["name"] == tool.name
        assert shown["description"] == tool.description
        assert shown["strict"] is True
        assert shown["parameters"]["properties"] == tool.properties
        assert shown["parameters"]["required"] == list(tool.properties)
        assert shown["parameters"]["additionalProperties"] is False


def test_arguments_that_contradict_each_other_are_refused():
    with pytest.raises(InvalidInput, match="leave out namespace"):
        memory_tools("here", memory=Memory("there", "sqlite://"))
    with pytest.raises(InvalidInput, match="twin"):
        memory_tools(memory=AsyncMemory("there", "sqlite://"))  # type: ignore[arg-type]  # that is what is tested
