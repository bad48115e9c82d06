"""The tools, in the hands of a real crew whose model follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from crewai import Agent, BaseLLM, Crew, Task
from pydantic import Field

from botwire import InvalidInput, Memory
from botwire.tools import MAX_VALUE
from botwire_crewai import memory_tools

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crewai")  # it uses what it has deprecated itself

Reply = Any  # what the model answers, or a function of what it was told


class Scripted(BaseLLM):
    """A model that answers with one reply after the other. Called natively, or by the text protocol."""

    replies: list[Any] = Field(default_factory=list)
    native: bool = False
    told: list[str] = Field(default_factory=list)
    seen: int = 0

    def call(self, messages: Any, *_args: Any, **_kwargs: Any) -> Any:
        """Give the next reply."""
        self.told.append("\n".join(str(message["content"]) for message in messages[self.seen :]))
        self.seen = len(messages)
        reply = self.replies.pop(0)
        return reply(self.told[-1]) if callable(reply) else reply

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        """Give the next reply."""
        return self.call(messages, *args, **kwargs)

    def supports_function_calling(self) -> bool:
        """Whether tools are called natively."""
        return self.native

    def get_context_window_size(self) -> int:
        """Enough."""
        return 8192


def call(native: bool, tool: str, **arguments: Any) -> Reply:
    """What a model says to call a tool."""
    given = json.dumps(arguments)
    if not native:
        return f"Thought: I need it\nAction: {tool}\nAction Input: {given}"
    return [{"id": "call-1", "type": "function", "function": {"name": tool, "arguments": given}}]


def final(native: bool, text: str) -> Reply:
    """What a model says in the end."""
    return text if native else f"Thought: I now know the final answer\nFinal Answer: {text}"


def kickoff(tools: list[Any], *replies: Reply, native: bool = False, cache: bool = True) -> tuple[str, list[str]]:
    """Run a crew of one. Returns its answer, and what its model was told before each reply."""
    llm = Scripted(model="scripted", replies=list(replies), native=native)
    agent = Agent(role="assistant", goal="help", backstory="helps", llm=llm, tools=tools, cache=cache)
    task = Task(description="Help.", expected_output="an answer", agent=agent)
    return str(Crew(agents=[agent], tasks=[task], cache=cache).kickoff()), llm.told


LATER = """
import sys
from crewai import Agent, BaseLLM, Crew, Task
from pydantic import Field
from botwire_crewai import memory_tools
from tests.crew.test_crewai_tools import call, kickoff

native = {native!r}
answer = lambda told: told if native else "Final Answer: " + told
_, told = kickoff(memory_tools({namespace!r}, url={url!r}), call(native, "recall", query="Which coffee?"), answer,
                  native=native)
print(told[-1])
"""


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_crew_remembers_and_a_crew_in_a_later_process_recalls(url, namespace, native, in_a_new_process):
    remember = call(native, "remember", key="coffee", value="Ethiopian Yirgacheffe")
    answer, _ = kickoff(memory_tools(namespace, url=url), remember, final(native, "done"), native=native)
    assert answer == "done"
    assert Memory(namespace, url).get("coffee") == "Ethiopian Yirgacheffe"
    assert "Ethiopian Yirgacheffe" in in_a_new_process(LATER.format(url=url, namespace=namespace, native=native))


def test_an_answer_is_asked_for_anew_although_crewai_caches_tools(url, namespace):
    tools = memory_tools(namespace, url=url)
    _, told = kickoff(
        tools,
        call(True, "remember", key="city", value="Porto"),
        call(True, "recall", query="city"),
        call(True, "remember", key="city", value="Lisbon"),
        call(True, "recall", query="city"),
        "done",
        native=True,
    )
    assert "Porto" in told[2]
    assert "Lisbon" in told[4]


def test_forget_and_list_do_what_they_say(url, namespace):
    remember, recall, forget, listing = memory_tools(namespace, url=url)
    assert [tool.name for tool in (remember, recall, forget, listing)] == [
        "remember",
        "recall",
        "forget",
        "list_memories",
    ]
    remember.run(key="coffee", value="Yirgacheffe")
    remember.run(key="tea", value="none")
    assert json.loads(listing.run(prefix=None))["keys"] == ["coffee", "tea"]
    assert json.loads(listing.run())["keys"] == ["coffee", "tea"]
    forget.run(key="tea")
    assert json.loads(listing.run(prefix="t"))["keys"] == []


def test_the_tools_are_awaited_natively_in_any_event_loop(url, namespace):
    remember, recall, *_ = memory_tools(namespace, url=url)
    asyncio.run(remember.arun(key="coffee", value="Yirgacheffe"))
    assert "Yirgacheffe" in asyncio.run(recall.arun(query="coffee"))


async def test_a_crew_that_is_awaited_remembers(url, namespace):
    llm = Scripted(model="scripted", replies=[call(True, "remember", key="a", value="b"), "done"], native=True)
    agent = Agent(role="r", goal="g", backstory="b", llm=llm, tools=memory_tools(namespace, url=url))
    crew = Crew(agents=[agent], tasks=[Task(description="d", expected_output="e", agent=agent)])
    assert str(await crew.akickoff()) == "done"
    assert Memory(namespace, url).get("a") == "b"


def test_the_schema_says_what_each_argument_is(namespace):
    remember, *_, listing = memory_tools(namespace, url="sqlite://")
    schema = remember.args_schema.model_json_schema()
    assert schema["required"] == ["key", "value"]
    assert schema["additionalProperties"] is False
    assert "favourite_coffee" in schema["properties"]["key"]["description"]
    assert "required" not in listing.args_schema.model_json_schema()


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("remember", {"key": "coffee"}, "value"),
        ("remember", {"key": "k" * 600, "value": "v"}, "the limit is 512"),
        ("remember", {"key": "essay", "value": "a" * (MAX_VALUE + 1)}, "20,000 is the limit"),
        ("recall", {"query": "nothing like it"}, "Nothing that is remembered answers that"),
        ("forget", {"key": "never heard of"}, "Nothing is stored under the key"),
    ],
    ids=["missing argument", "long key", "long value", "no answer", "no such key"],
)
def test_a_model_that_calls_wrongly_is_told_and_goes_on(tmp_path, tool, arguments, told, native):
    url = f"sqlite:///{tmp_path / 'm.db'}"
    tools = memory_tools("crew", url=url)
    answer, heard = kickoff(tools, call(native, tool, **arguments), final(native, "sorry"), native=native)
    assert answer == "sorry"
    assert told in heard[1]
    assert Memory("crew", url).keys() == []


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_model_that_invents_a_tool_goes_on(tmp_path, native):
    url = f"sqlite:///{tmp_path / 'm.db'}"
    invented = call(native, "memorize", key="a", value="b")
    answer, _ = kickoff(memory_tools("crew", url=url), invented, final(native, "sorry"), native=native)
    assert answer == "sorry"
    assert Memory("crew", url).keys() == []


def test_arguments_that_are_no_json_are_told(tmp_path):
    url = f"sqlite:///{tmp_path / 'm.db'}"
    broken = [{"id": "call-1", "type": "function", "function": {"name": "remember", "arguments": '{"key": '}}]
    answer, _ = kickoff(memory_tools("crew", url=url), broken, "sorry", native=True)
    assert answer == "sorry"
    assert Memory("crew", url).keys() == []


def test_a_memory_that_is_there_already_can_be_given(url, namespace):
    memory = Memory(namespace, url, author="crew")
    memory_tools(memory=memory)[0].run(key="a", value="b")
    item = memory.item("a")
    assert item is not None
    assert item.author == "crew"


def test_a_memory_and_a_place_for_one_do_not_go_together(namespace):
    with pytest.raises(InvalidInput, match="leave out namespace"):
        memory_tools(namespace, memory=Memory("x", "sqlite://"))


def test_what_a_place_says_wrongly_is_refused_at_once():
    with pytest.raises(InvalidInput, match="is no URL"):
        memory_tools("crew", url="memory.db")


def test_tools_are_dumped_without_their_memory(namespace):
    dumped = memory_tools(namespace, url="sqlite://")[0].model_dump_json()
    assert "sqlite" not in dumped
    assert "remember" in dumped


def test_the_tools_are_where_botwire_0_2_had_them(namespace):
    from botwire.memory import memory_tools as published

    assert published is memory_tools


def test_without_crewai_the_import_says_what_to_install(in_a_new_process: Callable[..., str]):
    script = """
import sys
sys.modules["crewai"] = None
try:
    import botwire_crewai
except ImportError as error:
    print(error)
"""
    assert in_a_new_process(script).strip() == 'crewai is not installed: pip install "botwire[crewai]"'
