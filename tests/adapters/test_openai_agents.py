"""The Agents SDK: its runner with a session and tools of ours, the model scripted over the real wire."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.openai_server import OpenAIServer, Turn, calls, says, serving

from botwire import Memory, tools
from botwire.errors import InvalidInput, TooLarge

pytest.importorskip("agents", reason="the Agents SDK has an extra of its own")

from agents import Agent, Runner, SQLiteSession, set_tracing_disabled
from agents.memory import Session, SessionSettings
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI

from botwire_openai import MemoryTools
from botwire_openai.agents import BotWireSession, agents_tools

set_tracing_disabled(True)

REMEMBER = ("remember", {"key": "coffee", "value": "Ana likes Ethiopian Yirgacheffe."})
RECALL = ("recall", {"query": "Which coffee does Ana like?"})
KEY = "bwk_" + "A" * 43


def from_what_it_is_shown(shown: str) -> Turn:
    return says("Yirgacheffe, of course." if "Yirgacheffe" in shown else "I do not know.")


def said(number: int) -> Any:  # an item
    return {"role": "user", "content": f"message {number}"}


def kinds(items: list[Any]) -> list[str]:
    return [item.get("type") or item["role"] for item in items]


@asynccontextmanager
async def agent_of(server: OpenAIServer, **params: Any) -> AsyncIterator[Agent[Any]]:
    async with AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        yield Agent(name="assistant", model=OpenAIResponsesModel("gpt-5.2", client), **params)


def test_it_is_a_session(url, namespace):
    session = BotWireSession("thread-1", namespace=namespace, url=url)
    assert isinstance(session, Session)
    assert (session.session_id, session.session_settings) == ("thread-1", None)


# ── the runner ──


async def test_a_run_goes_on_where_the_last_one_ended(url, namespace):
    with serving(says("Noted."), from_what_it_is_shown, from_what_it_is_shown) as server:
        async with agent_of(server) as agent:

            async def ask(thread: str, text: str) -> str:
                session = BotWireSession(thread, namespace=namespace, url=url)
                answer: str = (await Runner.run(agent, text, session=session)).final_output
                return answer

            assert await ask("thread-1", "I like Yirgacheffe.") == "Noted."
            assert await ask("thread-1", "Which coffee do I like?") == "Yirgacheffe, of course."
            assert await ask("thread-2", "Which coffee do I like?") == "I do not know."
    items = await BotWireSession("thread-1", namespace=namespace, url=url).get_items()
    assert kinds(items) == ["user", "message", "user", "message"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_agent_with_tools_remembers_across_its_sessions(url, namespace, streamed):
    memory = Memory(namespace, url)

    async def ask(agent: Agent[Any], thread: str, text: str) -> str:
        session = BotWireSession(thread, memory=memory)
        if not streamed:
            return str((await Runner.run(agent, text, session=session)).final_output)
        result = Runner.run_streamed(agent, text, session=session)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    with serving(calls(REMEMBER), says("Noted."), calls(RECALL), from_what_it_is_shown) as server:
        async with agent_of(server, tools=agents_tools(memory=memory)) as agent:
            assert await ask(agent, "thread-1", "I like Ethiopian Yirgacheffe.") == "Noted."
            assert await ask(agent, "thread-2", "Which coffee do I like?") == "Yirgacheffe, of course."
        assert [tool["strict"] for tool in server.requests[0][1]["tools"]] == [True] * 4
    items = await BotWireSession("thread-2", memory=memory).get_items()
    assert kinds(items) == ["user", "function_call", "function_call_output", "message"]


SESSION = """
import asyncio
from agents import Agent, Runner, set_tracing_disabled
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI
from botwire_openai.agents import BotWireSession, agents_tools

set_tracing_disabled(True)

async def main():
    async with AsyncOpenAI(api_key="key") as client:
        place = {{"namespace": {namespace!r}, "url": {url!r}}}
        agent = Agent(name="a", model=OpenAIResponsesModel("gpt-5.2", client), tools=agents_tools(**place))
        result = await Runner.run(agent, {message!r}, session=BotWireSession({thread!r}, **place))
        print(result.final_output)

asyncio.run(main())
"""


def test_a_session_remembers_and_one_in_a_later_process_recalls(url, namespace, in_a_new_process):
    script = (
        calls(REMEMBER), says("Noted."), from_what_it_is_shown, calls(RECALL), from_what_it_is_shown,
    )  # fmt: skip
    with serving(*script) as server:

        def ask(thread: str, message: str) -> str:
            source = SESSION.format(url=url, namespace=namespace, thread=thread, message=message)
            printed: str = in_a_new_process(source, OPENAI_BASE_URL=server.url)
            return printed.strip()

        assert ask("thread-1", "I like Yirgacheffe.") == "Noted."
        assert ask("thread-1", "Which coffee?") == "Yirgacheffe, of course."  # from the session
        assert ask("thread-2", "Which coffee?") == "Yirgacheffe, of course."  # from the tools


def test_it_works_in_one_event_loop_after_the_other(url, namespace):
    session = BotWireSession("thread-1", namespace=namespace, url=url)
    for number in range(3):
        asyncio.run(session.add_items([said(number)]))
    assert asyncio.run(session.get_items()) == [said(0), said(1), said(2)]


async def test_a_run_is_given_as_many_items_as_its_settings_say(url, namespace):
    session = BotWireSession("t", namespace=namespace, url=url, session_settings=SessionSettings(limit=2))
    await session.add_items([said(number) for number in range(10)])
    assert await session.get_items() == [said(8), said(9)]
    assert await session.get_items(3) == [said(7), said(8), said(9)]
    with serving(says("Hm.")) as server:
        async with agent_of(server) as agent:
            await Runner.run(agent, "And?", session=session)
        [sent] = server.bodies("/responses")
    assert [item["content"] for item in sent["input"]] == ["message 8", "message 9", "And?"]


async def test_arguments_that_cannot_be_meant_are_answered(url, namespace):
    asked = calls(("remember", "{key: oops"), ("recall", {"q": 1}), ("forget", {"key": "invented"}))
    memory = Memory(namespace, url)
    with serving(asked, says("Well.")) as server:
        async with agent_of(server, tools=MemoryTools(memory=memory).agents) as agent:
            result = await Runner.run(agent, "hi", session=BotWireSession("t", memory=memory))
    items: list[Any] = result.to_input_list()
    told = [item["output"] for item in items if item.get("type") == "function_call_output"]
    assert ["no JSON" in told[0], "has no argument 'q'" in told[1], "Nothing is stored" in told[2]] == [True] * 3
    assert memory.list_keys() == []


# ── the protocol ──


async def test_it_does_what_the_sdks_own_session_does(url, namespace, tmp_path: Path):
    chance = random.Random(7)
    ours = BotWireSession("t", namespace=namespace, url=url)
    theirs = SQLiteSession("t", tmp_path / "theirs.db")
    number = 0
    for _ in range(150):
        step = chance.choice(["add", "add", "add", "pop", "get", "get", "limit", "clear"] + ["add"] * 4)
        if step == "add":
            items: list[Any] = [said(number + more) for more in range(chance.randrange(4))]
            number += len(items)
            await ours.add_items(items)
            await theirs.add_items(items)
        elif step == "pop":
            assert await ours.pop_item() == await theirs.pop_item()
        elif step == "clear" and chance.random() < 0.2:
            await ours.clear_session()
            await theirs.clear_session()
        limit = chance.randrange(6) if step == "limit" else None
        assert await ours.get_items(limit) == await theirs.get_items(limit)
    theirs.close()
    assert number > 50


async def test_items_come_back_as_they_went_in(url, namespace):
    items: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look: 😀 \ud83d"}, {"type": "input_image",
          "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "function_call", "id": "__fake_id__", "call_id": "c1", "name": "f", "arguments": '{"a": [1.0, 1]}'},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "message", "id": "__fake_id__", "role": "assistant", "status": "completed", "content":
          [{"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": []}]},
        {"type": "some_later_kind", "new": {"nested": None}},
    ]  # fmt: skip
    session = BotWireSession("t", namespace=namespace, url=url)
    await session.add_items(items)
    found: list[Any] = await session.get_items()
    assert found == items
    assert [list(item) for item in found] == [list(item) for item in items]
    assert [type(number) for number in (1.0, 1)] == [float, int]
    assert found[2]["arguments"] == '{"a": [1.0, 1]}'


async def test_adds_at_the_same_time_lose_nothing_and_stay_together(url, namespace):
    first, second = (BotWireSession("t", namespace=namespace, url=url) for _ in range(2))

    async def add(session: BotWireSession, start: int) -> None:
        await session.add_items([said(start), said(start + 1)])

    def in_a_thread(start: int) -> None:
        asyncio.run(add(BotWireSession("t", namespace=namespace, url=url), start))

    threads = [threading.Thread(target=in_a_thread, args=(1_000 + 2 * number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(add((first, second)[number % 2], 2 * number) for number in range(50)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    found: list[Any] = await first.get_items()
    numbers = [int(item["content"].split()[1]) for item in found]
    assert sorted(numbers) == [*range(100), *range(1_000, 1_010)]
    assert all(after == before + 1 for before, after in zip(numbers[::2], numbers[1::2], strict=True))


async def test_an_empty_session_is_empty(url, namespace):
    session = BotWireSession("t", namespace=namespace, url=url)
    await session.add_items([])
    assert await session.pop_item() is None
    assert await session.get_items() == []
    assert await session.get_items(0) == []
    await session.clear_session()


async def test_clearing_one_session_leaves_the_others_and_the_memory(url, namespace):
    memory = Memory(namespace, url)
    memory.set("coffee", "Yirgacheffe")
    one, other = (BotWireSession(name, memory=memory) for name in ("one", "other"))
    await one.add_items([said(1)])
    await other.add_items([said(2)])
    await one.clear_session()
    assert (await one.get_items(), await other.get_items()) == ([], [said(2)])
    assert memory.get("coffee") == "Yirgacheffe"


# ── what was said is found ──


async def test_what_was_said_in_a_session_is_found_by_search_and_by_the_tools(url, namespace):
    memory = Memory(namespace, url)
    session = BotWireSession("thread-1", memory=memory)
    await session.add_items(
        [
            {"role": "user", "content": "I moved to Lisbon with my two cats."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Porto"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "Rain, 18 degrees."},
            {"type": "message", "id": "m1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "It rains in the north.", "annotations": []}]},
        ]
    )  # fmt: skip
    for question, role, text in (
        ("Where are the cats?", "user", "I moved to Lisbon with my two cats."),
        ("degrees", "tool", "Rain, 18 degrees."),
        ("What is it like in the north?", "assistant", "It rains in the north."),
    ):
        hit = memory.search(question)[0]
        assert hit.message is not None
        assert (hit.message.role, hit.text, hit.message.conversation) == (role, text, "thread-1")
    assert "two cats" in tools.recall(memory, "Where are the cats?")
    assert "two cats" in memory.context("Where are the cats?")


# ── bad input ──


@pytest.mark.parametrize("session_id", ["", "a\nb", "x" * 513, None, 7])
def test_a_session_id_that_is_no_name_is_refused(session_id):
    with pytest.raises(InvalidInput, match="conversation"):
        BotWireSession(session_id, url="sqlite://")


def test_a_memory_has_its_place_already():
    with pytest.raises(InvalidInput, match="leave out namespace, url"):
        BotWireSession("t", memory=Memory("a", "sqlite://"), namespace="b", url="sqlite://")
    with pytest.raises(InvalidInput, match="leave out namespace"):
        agents_tools(memory=Memory("a", "sqlite://"), namespace="b")
    with pytest.raises(InvalidInput, match="twin"):
        BotWireSession("t", memory=Memory("a", "sqlite://").twin())  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("limit", [-1, -100])
async def test_less_than_no_items_is_refused(url, namespace, limit):
    session = BotWireSession("t", namespace=namespace, url=url)
    with pytest.raises(InvalidInput, match="zero or more"):
        await session.get_items(limit)
    session.session_settings = SessionSettings(limit=limit)
    with pytest.raises(InvalidInput, match="zero or more"):
        await session.get_items()


@pytest.mark.parametrize(
    "foreign",
    [
        "hello",
        7,
        None,
        ["role", "user"],
        {},
        {"role": None},
        {"type": "human", "data": {"content": "hello"}},
        {"role": "tool", "tool_call_id": "c1", "content": "18 °C"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
    ],
)
async def test_what_is_no_item_is_refused_and_when_it_is_there_it_stays_there(url, namespace, foreign):
    memory = Memory(namespace, url)
    session = BotWireSession("t", memory=memory)
    with pytest.raises(InvalidInput, match="nothing was added"):
        await session.add_items([said(1), foreign])
    assert await session.get_items() == []
    await session.add_items([said(1)])
    memory.conversation("t").append(foreign)
    for ask in (session.get_items, session.pop_item):
        with pytest.raises(InvalidInput, match=f"message '#2' of conversation 't' in '{namespace}'"):
            await ask()
    assert [message.value for message in memory.conversation("t")] == [said(1), foreign]


async def test_an_item_that_is_too_large_is_refused_and_those_with_it(url, namespace):
    session = BotWireSession("t", namespace=namespace, url=url)
    with pytest.raises(TooLarge):
        await session.add_items([said(1), {"role": "user", "content": "x" * 2_000_000}])
    assert await session.get_items() == []
    session.memory.configure(max_value_bytes=4_000_000)
    await session.add_items([said(1), {"role": "user", "content": "x" * 2_000_000}])
    assert len(await session.get_items()) == 2


def test_without_the_sdk_the_import_says_what_to_install(in_a_new_process):
    script = """
import sys
sys.modules["agents"] = None
for name in ("BotWireSession", "agents_tools"):
    try:
        exec(f"from botwire_openai import {name}")
    except ImportError as error:
        print(error)
try:
    from botwire_openai import MemoryTools
    MemoryTools(url="sqlite://").agents
except ImportError as error:
    print(error)
"""
    assert in_a_new_process(script) == 'agents is not installed: pip install "botwire[openai-agents]"\n' * 3


async def test_items_may_come_from_an_iterator(url, namespace):
    session = BotWireSession("s", namespace=namespace, url=url)
    items: Any = iter([{"role": "user", "content": "precious"}])
    await session.add_items(items)
    assert await session.get_items() == [{"role": "user", "content": "precious"}]
