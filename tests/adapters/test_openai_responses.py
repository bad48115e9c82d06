"""The Responses API: the loop over function calls, at once and streamed, with both clients, over the real wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from tests.adapters.openai_server import OpenAIServer, Turn, calls, says, serving

from botwire import Memory
from botwire.errors import BotWireError, InvalidInput, StoreUnavailable
from botwire_openai import MemoryTools, arun_response, astream_response, run_response, stream_response

REMEMBER = ("remember", {"key": "coffee", "value": "Ana likes Ethiopian Yirgacheffe."})
RECALL = ("recall", {"query": "Which coffee does Ana like?"})
MODEL = "gpt-5.2"


def from_what_it_is_shown(shown: str) -> Turn:
    return says("Yirgacheffe, of course." if "Yirgacheffe" in shown else "I do not know.")


# Each of these asks once, and returns the response with the answer.
Way = Callable[..., Any]


def at_once(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> Any:
    with OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        return run_response(client, memory_tools, model=MODEL, **params)


def at_once_async(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> Any:
    async def main() -> Any:
        async with AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
            return await arun_response(client, memory_tools, model=MODEL, **params)

    return asyncio.run(main())


def _last(events: list[Any]) -> Any:
    """The last response, of whose text the pieces came before."""
    assert events[-1].type == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text
    return events[-1].response


def streamed(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> Any:
    with OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        return _last(list(stream_response(client, memory_tools, model=MODEL, **params)))


def streamed_async(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> Any:
    async def main() -> Any:
        async with AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
            return _last([event async for event in astream_response(client, memory_tools, model=MODEL, **params)])

    return asyncio.run(main())


WAYS = [at_once, at_once_async, streamed, streamed_async]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@every_way
def test_what_is_told_in_one_response_is_known_in_another(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    with serving(calls(REMEMBER), says("Noted."), calls(RECALL), from_what_it_is_shown) as server:
        assert way(server, memory_tools, input="I like Ethiopian Yirgacheffe.").output_text == "Noted."
        assert way(server, memory_tools, input="Which coffee do I like?").output_text == "Yirgacheffe, of course."
        assert [tool["name"] for tool in server.requests[0][1]["tools"]] == [
            "remember", "recall", "forget", "list_memories",
        ]  # fmt: skip


SESSION = """
from openai import OpenAI
from botwire_openai import MemoryTools, run_response

memory_tools = MemoryTools(namespace={namespace!r}, url={url!r})
print(run_response(OpenAI(api_key="key"), memory_tools, model="gpt-5.2", input={message!r}).output_text)
"""


def test_a_session_remembers_and_one_in_a_later_process_recalls(url, namespace, in_a_new_process):
    with serving(calls(REMEMBER), says("Noted."), calls(RECALL), from_what_it_is_shown) as server:
        for message, answer in (("I like Yirgacheffe.", "Noted."), ("Which coffee?", "Yirgacheffe, of course.")):
            script = SESSION.format(url=url, namespace=namespace, message=message)
            assert in_a_new_process(script, OPENAI_BASE_URL=server.url).strip() == answer


@every_way
def test_the_exchange_is_appended_as_the_api_wants_it_back(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    items: list[Any] = [{"role": "user", "content": "I like Yirgacheffe."}]
    with serving(calls(REMEMBER, RECALL), says("Noted."), says("Bye.")) as server:
        way(server, memory_tools, input=items)
        items.append({"role": "user", "content": "Bye"})
        assert way(server, memory_tools, input=items).output_text == "Bye."
    assert [item.get("type") or item["role"] for item in items] == [
        "user", "function_call", "function_call", "function_call_output", "function_call_output", "message",
        "user", "message",
    ]  # fmt: skip
    talk = Memory(namespace, url).conversation("thread-1")
    talk.extend(items)
    assert [message.value for message in talk] == items


@every_way
def test_every_call_is_answered_whatever_the_model_asks_for(way: Way, url, namespace):
    asked = calls(
        ("fly", {"to": "Porto"}), ("remember", "{key: oops"), ("remember", ""), ("forget", {"key": "invented"}),
        ("remember", {"key": "k", "value": "x" * 20_001}), ("recall", "[" * 5_000),
    )  # fmt: skip
    memory_tools = MemoryTools(namespace=namespace, url=url)
    items: list[Any] = [{"role": "user", "content": "hi"}]
    with serving(asked, says("Well.")) as server:
        assert way(server, memory_tools, input=items).output_text == "Well."
    told = [item["output"] for item in items if item.get("type") == "function_call_output"]
    assert ["no tool 'fly'" in told[0], "no JSON" in told[1], "needs 'key'" in told[2]] == [True] * 3
    assert ["Nothing is stored" in told[3], "20,000 is" in told[4], "no JSON" in told[5]] == [True] * 3
    assert memory_tools.memory.list_keys() == []


@every_way
def test_a_conversation_on_the_server_gets_each_item_once(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    with serving(calls(REMEMBER), calls(RECALL), says("Noted."), from_what_it_is_shown) as server:
        with OpenAI(base_url=server.url, api_key="key") as client:
            conversation = client.conversations.create().id
        way(server, memory_tools, input="I like Yirgacheffe.", conversation=conversation)
        answer = way(server, memory_tools, input="Which coffee?", conversation=conversation)
        kept = server.items[conversation]
    assert answer.output_text == "Yirgacheffe, of course."
    assert [item.get("type") or item["role"] for item in kept] == [
        "user", "function_call", "function_call_output", "function_call", "function_call_output", "message",
        "user", "message",
    ]  # fmt: skip


@every_way
def test_one_response_goes_on_behind_another(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    with serving(calls(REMEMBER), says("Noted."), calls(RECALL), from_what_it_is_shown) as server:
        first = way(server, memory_tools, input="I like Yirgacheffe.")
        second = way(server, memory_tools, input="Which coffee?", previous_response_id=first.id)
        kept = server.items[second.id]
    assert [item.get("type") or item["role"] for item in kept] == [
        "user", "function_call", "function_call_output", "message",
    ] * 2  # fmt: skip


@every_way
def test_what_is_remembered_goes_into_the_instructions(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    with serving(*[from_what_it_is_shown] * 4) as server:
        way(server, memory_tools, input="Coffee?", about="Coffee?")
        memory_tools.memory.set("coffee", "Ana likes Ethiopian Yirgacheffe.")
        for given in ({}, {"instructions": "Be brief."}):
            answer = way(server, memory_tools, input="Coffee?", about="Coffee?", **given)
            assert answer.output_text == "Yirgacheffe, of course."
        nothing, alone, both = server.bodies("/responses")
    assert "instructions" not in nothing
    assert alone["instructions"].startswith("<memory>\n")
    assert both["instructions"].startswith("Be brief.\n\n<memory>\n")


@every_way
def test_tools_of_ones_own_come_beside_the_memorys(way: Way, url, namespace):
    def others(name: str, arguments: str) -> str:
        return f"{name}: {json.loads(arguments)['city']}, 18 °C"

    memory_tools = MemoryTools(namespace=namespace, url=url, others=others)
    weather = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
    items: list[Any] = [{"role": "user", "content": "hi"}]
    with serving(calls(("weather", {"city": "Porto"})), says("Mild.")) as server:
        assert way(server, memory_tools, input=items, tools=[weather]).output_text == "Mild."
        assert [tool["name"] for tool in server.requests[0][1]["tools"]][-1] == "weather"
    assert items[2]["output"] == "weather: Porto, 18 °C"


@every_way
def test_a_model_that_goes_in_circles_is_stopped(way: Way, url, namespace):
    with serving(*[calls(RECALL)] * 9) as server:
        with pytest.raises(BotWireError, match="called tools 2 times in a row"):
            way(server, MemoryTools(namespace=namespace, url=url), input="hi", max_rounds=2)
        assert len(server.requests) == 3


@every_way
def test_an_error_leaves_the_items_so_that_one_can_go_on(way: Way, namespace, tmp_path):
    (tmp_path / "gone").write_text("in the way")
    lost = MemoryTools(namespace=namespace, url=f"sqlite:///{tmp_path / 'gone' / 'memory.db'}")
    found = MemoryTools(namespace=namespace, url=f"sqlite:///{tmp_path / 'memory.db'}")
    items: list[Any] = [{"role": "user", "content": "hi"}]
    with serving(calls(REMEMBER), calls(REMEMBER), says("Noted.")) as server:
        with pytest.raises(StoreUnavailable):
            way(server, lost, input=items)
        assert items == [{"role": "user", "content": "hi"}]
        assert way(server, found, input=items).output_text == "Noted."


@pytest.mark.parametrize("way", [streamed, streamed_async], ids=lambda way: way.__name__)
@pytest.mark.parametrize("turn", [says("A long answer, of which the end is"), calls(REMEMBER)])
def test_a_stream_that_breaks_is_an_error_and_appends_nothing(way: Way, url, namespace, turn):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    items: list[Any] = [{"role": "user", "content": "hi"}]
    with serving(turn._replace(breaks=True)) as server, pytest.raises(BotWireError, match="before the response did"):
        way(server, memory_tools, input=items)
    assert items == [{"role": "user", "content": "hi"}]
    assert memory_tools.memory.list_keys() == []


@every_way
@pytest.mark.parametrize("wrong", [{"input": 7}, {"input": ({"role": "user"},)}, {"input": "hi", "stream": True}])
def test_what_cannot_work_is_refused_before_anything_is_sent(way: Way, url, namespace, wrong):
    with serving() as server:
        with pytest.raises(InvalidInput):
            way(server, MemoryTools(namespace=namespace, url=url), **wrong)
        assert server.requests == []
