"""Chat Completions: the loop over tool calls, at once and streamed, with both clients, over the real wire."""

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
from botwire_openai import MemoryTools, arun_chat, astream_chat, run_chat, stream_chat

REMEMBER = ("remember", {"key": "coffee", "value": "Ana likes Ethiopian Yirgacheffe."})
RECALL = ("recall", {"query": "Which coffee does Ana like?"})
MODEL = "gpt-5.2"


def from_what_it_is_shown(shown: str) -> Turn:
    return says("Yirgacheffe, of course." if "Yirgacheffe" in shown else "I do not know.")


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


# Each of these asks once, and returns the answer's text.
Way = Callable[..., str]


def at_once(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> str:
    with OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        return run_chat(client, memory_tools, model=MODEL, **params).choices[0].message.content or ""


def at_once_async(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> str:
    async def main() -> str:
        async with AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
            completion = await arun_chat(client, memory_tools, model=MODEL, **params)
            return completion.choices[0].message.content or ""

    return asyncio.run(main())


def streamed(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> str:
    with OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        chunks = list(stream_chat(client, memory_tools, model=MODEL, **params))
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def streamed_async(server: OpenAIServer, memory_tools: MemoryTools, **params: Any) -> str:
    async def main() -> str:
        async with AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
            chunks = [chunk async for chunk in astream_chat(client, memory_tools, model=MODEL, **params)]
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    return asyncio.run(main())


WAYS = [at_once, at_once_async, streamed, streamed_async]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@every_way
def test_what_is_told_in_one_chat_is_known_in_another(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    with serving(calls(REMEMBER), says("Noted."), calls(RECALL), from_what_it_is_shown) as server:
        assert way(server, memory_tools, messages=user("I like Ethiopian Yirgacheffe.")) == "Noted."
        assert way(server, memory_tools, messages=user("Which coffee do I like?")) == "Yirgacheffe, of course."
        assert [tool["function"]["name"] for tool in server.requests[0][1]["tools"]] == [
            "remember", "recall", "forget", "list_memories",
        ]  # fmt: skip


SESSION = """
from openai import OpenAI
from botwire_openai import MemoryTools, run_chat

messages = [{{"role": "user", "content": {message!r}}}]
run_chat(OpenAI(api_key="key"), MemoryTools(namespace={namespace!r}, url={url!r}), model="gpt-5.2", messages=messages)
print(messages[-1]["content"])
"""


def test_a_session_remembers_and_one_in_a_later_process_recalls(url, namespace, in_a_new_process):
    with serving(calls(REMEMBER), says("Noted."), calls(RECALL), from_what_it_is_shown) as server:
        for message, answer in (("I like Yirgacheffe.", "Noted."), ("Which coffee?", "Yirgacheffe, of course.")):
            script = SESSION.format(url=url, namespace=namespace, message=message)
            assert in_a_new_process(script, OPENAI_BASE_URL=server.url).strip() == answer


@every_way
def test_the_exchange_is_appended_as_the_api_wants_it_back(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    messages = user("I like Yirgacheffe.")
    with serving(calls(REMEMBER, RECALL), says("Noted."), says("Bye.")) as server:
        way(server, memory_tools, messages=messages)
        messages += user("Bye")
        assert way(server, memory_tools, messages=messages) == "Bye."
    asked, first, second, answer = messages[1:5]
    assert [message["role"] for message in messages] == [
        "user", "assistant", "tool", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert [call["id"] for call in asked["tool_calls"]] == [first["tool_call_id"], second["tool_call_id"]]
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == REMEMBER[1]
    assert asked["content"] is None
    assert "refusal" not in asked
    assert answer["content"] == "Noted."
    assert Memory(namespace, url).conversation("thread-1").extend(messages)[-1].role == "assistant"


@every_way
def test_every_call_is_answered_whatever_the_model_asks_for(way: Way, url, namespace):
    asked = calls(
        ("fly", {"to": "Porto"}), ("remember", "{key: oops"), ("remember", ""), ("forget", {"key": "invented"}),
        ("remember", {"key": "k", "value": "x" * 20_001}), ("recall", "[" * 5_000),
    )  # fmt: skip
    memory_tools = MemoryTools(namespace=namespace, url=url)
    messages = user("hi")
    with serving(asked, says("Well.")) as server:
        assert way(server, memory_tools, messages=messages) == "Well."
    told = [message["content"] for message in messages if message["role"] == "tool"]
    assert ["no tool 'fly'" in told[0], "no JSON" in told[1], "needs 'key'" in told[2]] == [True] * 3
    assert ["Nothing is stored" in told[3], "20,000 is" in told[4], "no JSON" in told[5]] == [True] * 3
    assert memory_tools.memory.list_keys() == []


@every_way
def test_what_is_remembered_goes_into_the_first_system_message(way: Way, url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    memory_tools.memory.set("coffee", "Ana likes Ethiopian Yirgacheffe.")
    with serving(from_what_it_is_shown, from_what_it_is_shown) as server:
        bare, led = user("Coffee?"), [{"role": "developer", "content": "Be brief."}, *user("Coffee?")]
        for messages in (bare, led):
            assert way(server, memory_tools, messages=messages, about="Coffee?") == "Yirgacheffe, of course."
        first, second = (body["messages"] for body in server.bodies("/chat/completions"))
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["role"] for message in second] == ["developer", "user"]
    assert second[0]["content"].startswith("Be brief.\n\n<memory>\n")
    assert led[0] == {"role": "developer", "content": "Be brief."}
    assert len(bare) == 2


def test_a_system_message_of_parts_is_left_as_it_is(url, namespace):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    memory_tools.memory.set("coffee", "Yirgacheffe")
    led = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *user("Coffee?")]
    with serving(from_what_it_is_shown) as server:
        at_once(server, memory_tools, messages=led, about="Coffee?")
        assert server.requests[0][1]["messages"][1:] == led[:2]


@every_way
def test_tools_of_ones_own_come_beside_the_memorys(way: Way, url, namespace):
    async def others_async(name: str, arguments: str) -> str:
        return await asyncio.sleep(0, f"{name}: 18 °C")

    def others(name: str, arguments: str) -> str:
        return f"{name}: 18 °C"

    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    weather = {"type": "function", "function": {"name": "weather", "parameters": schema, "strict": True}}
    own = others_async if way.__name__.endswith("async") else others
    memory_tools = MemoryTools(namespace=namespace, url=url, others=own)
    messages = user("hi")
    with serving(calls(("weather", {}), REMEMBER), says("Mild.")) as server:
        assert way(server, memory_tools, messages=messages, tools=[weather]) == "Mild."
        assert [tool["function"]["name"] for tool in server.requests[0][1]["tools"]][-1] == "weather"
    assert [message["content"] for message in messages if message["role"] == "tool"] == [
        "weather: 18 °C", 'Remembered under the key "coffee".',
    ]  # fmt: skip


@every_way
def test_a_model_that_goes_in_circles_is_stopped(way: Way, url, namespace):
    messages = user("hi")
    with serving(*[calls(RECALL)] * 9) as server:
        with pytest.raises(BotWireError, match="called tools 2 times in a row"):
            way(server, MemoryTools(namespace=namespace, url=url), messages=messages, max_rounds=2)
        assert len(server.requests) == 3


@every_way
def test_an_error_leaves_the_messages_so_that_one_can_go_on(way: Way, namespace, tmp_path):
    (tmp_path / "gone").write_text("in the way")
    lost = MemoryTools(namespace=namespace, url=f"sqlite:///{tmp_path / 'gone' / 'memory.db'}")
    found = MemoryTools(namespace=namespace, url=f"sqlite:///{tmp_path / 'memory.db'}")
    messages = user("hi")
    with serving(calls(REMEMBER), calls(REMEMBER), says("Noted.")) as server:
        with pytest.raises(StoreUnavailable):
            way(server, lost, messages=messages)
        assert messages == user("hi")
        assert way(server, found, messages=messages) == "Noted."


@pytest.mark.parametrize("way", [streamed, streamed_async], ids=lambda way: way.__name__)
@pytest.mark.parametrize("turn", [says("A long answer, of which the end is"), calls(REMEMBER)])
def test_a_stream_that_breaks_is_an_error_and_appends_nothing(way: Way, url, namespace, turn):
    memory_tools = MemoryTools(namespace=namespace, url=url)
    messages = user("hi")
    with serving(turn._replace(breaks=True)) as server, pytest.raises(BotWireError, match="before the message did"):
        way(server, memory_tools, messages=messages)
    assert messages == user("hi")
    assert memory_tools.memory.list_keys() == []


def test_a_stream_that_is_left_early_appends_nothing(url, namespace):
    messages = user("hi")
    with (
        serving(says("A long answer, of which nobody reads the end.")) as server,
        OpenAI(base_url=server.url, api_key="key") as client,
    ):
        stream = stream_chat(client, MemoryTools(namespace=namespace, url=url), model=MODEL, messages=messages)
        next(iter(stream))
        stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert messages == user("hi")


@every_way
@pytest.mark.parametrize(
    "wrong", [{"messages": "hi"}, {"messages": ({"role": "user"},)}, {"messages": [], "stream": True}]
)
def test_what_cannot_work_is_refused_before_anything_is_sent(way: Way, url, namespace, wrong):
    with serving() as server:
        with pytest.raises(InvalidInput):
            way(server, MemoryTools(namespace=namespace, url=url), **wrong)
        assert server.requests == []
