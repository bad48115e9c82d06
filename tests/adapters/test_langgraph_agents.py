"""`BotWireStore` and `BotWireSaver` under real graphs and agents, over the end of a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from botwire import AsyncMemory, InvalidInput, Memory
from botwire_langgraph import BotWireSaver, BotWireStore

PATIENCE = 120  # seconds after which a process counts as hung

AGENT = textwrap.dedent("""
    import asyncio, os, sys
    from botwire_langgraph import BotWireSaver, BotWireStore
    from langchain.agents import create_agent
    from langchain.tools import ToolRuntime, tool
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    place = {"url": os.environ["URL"]}
    store = BotWireStore(namespace=os.environ["NAMESPACE"] + "-store", **place)
    saver = BotWireSaver(namespace=os.environ["NAMESPACE"] + "-threads", **place)

    class Scripted(GenericFakeChatModel):
        def bind_tools(self, tools, **more):
            return self

    @tool
    def remember(fact: str, runtime: ToolRuntime) -> str:
        "Remember a fact."
        runtime.store.put(("users", "ana"), "fact", {"text": fact})
        return "remembered"

    @tool
    async def recall(question: str, runtime: ToolRuntime) -> str:
        "Recall what is known."
        found = await runtime.store.asearch(("users", "ana"), query=question)
        return "; ".join(item.value["text"] for item in found)

    def call(name, **args):
        return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call-{name}"}])

    def agent(*answers):
        return create_agent(
            Scripted(messages=iter(answers)), tools=[remember, recall], store=store, checkpointer=saver
        )

    thread = {"configurable": {"thread_id": "1"}}
""")

FIRST = AGENT + textwrap.dedent("""
    agent(call("remember", fact="Ana drinks Yirgacheffe"), AIMessage("Noted.")).invoke(
        {"messages": [("user", "I drink Yirgacheffe")]}, thread
    )
""")

SECOND = AGENT + textwrap.dedent("""
    done = asyncio.run(
        agent(call("recall", question="What does she drink?"), AIMessage("Yirgacheffe!")).ainvoke(
            {"messages": [("user", "What do I drink?")]}, thread
        )
    )
    for message in done["messages"]:
        print(message.type, "|", message.content)
""")


def test_an_agent_recalls_in_a_second_process_what_it_remembered_in_the_first(url, namespace, in_a_new_process):
    in_a_new_process(FIRST, URL=url, NAMESPACE=namespace)
    said = in_a_new_process(SECOND, URL=url, NAMESPACE=namespace)
    assert said.splitlines() == [
        "human | I drink Yirgacheffe",
        "ai | ",
        "tool | remembered",
        "ai | Noted.",
        "human | What do I drink?",
        "ai | ",
        "tool | Ana drinks Yirgacheffe",
        "ai | Yirgacheffe!",
    ]


STEPS = textwrap.dedent("""
    import os, sys, time
    from operator import add
    from typing import Annotated, TypedDict
    from botwire_langgraph import BotWireSaver
    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        log: Annotated[list[str], add]

    def step(number):
        def run(state):
            print(number, flush=True)
            time.sleep(float(os.environ["PAUSE"]))
            return {"log": [f"step {number}"]}
        return run

    builder = StateGraph(State)
    for number in range(20):
        builder.add_node(f"n{number}", step(number))
        builder.add_edge(f"n{number - 1}" if number else START, f"n{number}")
    saver = BotWireSaver(namespace=os.environ["NAMESPACE"], url=os.environ["URL"])
    graph = builder.compile(checkpointer=saver)
    thread = {"configurable": {"thread_id": "1"}}
    goes_on = graph.get_state(thread).next
    result = graph.invoke(None if goes_on else {"log": ["start"]}, thread, durability="sync")
    print(result["log"] == ["start", *(f"step {number}" for number in range(20))])
""")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_that_is_killed_goes_on_in_a_new_process_where_it_was(url, namespace, tmp_path, in_a_new_process):
    script = tmp_path / "steps.py"
    script.write_text(STEPS, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "URL": url, "NAMESPACE": namespace}
    began: list[str] = []
    for kills in (4, 3, 5):
        running = subprocess.Popen(
            [sys.executable, str(script)], env={**environment, "PAUSE": "0.05"}, stdout=subprocess.PIPE, text=True
        )
        assert running.stdout is not None  # asked for a pipe
        try:
            began += [running.stdout.readline().strip() for _ in range(kills)]
            time.sleep(0.03)
        finally:
            os.kill(running.pid, signal.SIGKILL)
            running.wait(PATIENCE)
            running.stdout.close()
    *rest, whole = in_a_new_process(STEPS, URL=url, NAMESPACE=namespace, PAUSE="0").split()
    assert whole == "True"
    numbers = [int(number) for number in [*began, *rest]]
    assert sorted(set(numbers)) == list(range(20))
    assert len(numbers) <= 20 + 2 * 3  # only what was under way when a process ended is run again
    assert numbers == sorted(numbers)


class State(TypedDict):
    answer: str


def test_a_node_reaches_the_store_of_its_graph(url, namespace):
    def save(state: State, runtime: Any):
        runtime.store.put(("users", "u1"), "color", {"v": "blue"})

    async def load(state: State, runtime: Any):
        return {"answer": (await runtime.store.aget(("users", "u1"), "color")).value["v"]}

    builder = StateGraph(State).add_node("save", save).add_node("load", load)
    builder.add_edge(START, "save").add_edge("save", "load")
    graph = builder.compile(
        store=BotWireStore(namespace=f"{namespace}-s", url=url),
        checkpointer=BotWireSaver(namespace=f"{namespace}-c", url=url),
    )
    done = asyncio.run(graph.ainvoke({"answer": ""}, {"configurable": {"thread_id": "1"}}))
    assert done == {"answer": "blue"}


# ── what is imported ──

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
try:
    import botwire_langgraph
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("hidden", ["langgraph", "langchain_core"])
def test_without_langgraph_the_import_says_what_to_install(in_a_new_process, hidden):
    printed = in_a_new_process(BLOCKED.replace("HIDDEN", repr(hidden)))
    assert printed == f'ImportError {hidden} is not installed: pip install "botwire[langgraph]"\n'


def test_something_else_that_is_missing_is_not_taken_for_langgraph(in_a_new_process):
    printed = in_a_new_process(BLOCKED.replace("HIDDEN", "'ormsgpack'"))
    assert "ormsgpack" in printed
    assert "pip install" not in printed


def test_nothing_of_other_frameworks_is_imported(in_a_new_process):
    script = """
import sys, botwire_langgraph
others = {"langchain", "langchain_classic", "langchain_community", "openai", "agents", "crewai", "autogen_core", "mcp",
          "fastapi", "apsw", "botwire_langchain"}
print(sorted(others & set(sys.modules)))
"""
    assert in_a_new_process(script) == "[]\n"


@pytest.mark.parametrize("made", [BotWireStore, BotWireSaver])
def test_a_constructor_refuses_what_it_cannot_use(made, tmp_path):
    memory = Memory("x", f"sqlite:///{tmp_path}/m.db")
    with pytest.raises(InvalidInput, match="leave out namespace"):
        made(memory=memory, namespace="y")
    with pytest.raises(InvalidInput, match="must be a botwire Memory"):
        made(memory=AsyncMemory("x", "sqlite://"))
    with pytest.raises(InvalidInput, match="namespace"):
        made(namespace="a//b")
    with pytest.raises(TypeError):
        made(path="x.db")
    assert (
        made(url="sqlite://")._memory.namespace
        == {"BotWireStore": "graph", "BotWireSaver": "checkpoints"}[made.__name__]
    )
