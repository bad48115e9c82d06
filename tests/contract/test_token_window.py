"""A budget of tokens never parts a tool call from its results, whatever framework wrote the messages."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Each framework's way to say: a question, an assistant calling tools, the results one by one, an answer.
OPENAI = {
    "user": lambda text: {"role": "user", "content": text},
    "call": lambda ids: {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids],
    },
    "result": lambda i: {"role": "tool", "tool_call_id": i, "content": "42"},
}
RESPONSES = {
    "user": OPENAI["user"],
    "call": lambda ids: {"type": "function_call", "call_id": ids[0], "name": "f", "arguments": "{}"},
    "result": lambda i: {"type": "function_call_output", "call_id": i, "output": "42"},
}
ANTHROPIC = {
    "user": OPENAI["user"],
    "call": lambda ids: {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "…"},
            *({"type": "tool_use", "id": i, "name": "f", "input": {}} for i in ids),
        ],
    },
    "result": lambda i: {"role": "user", "content": [{"type": "tool_result", "tool_use_id": i, "content": "42"}]},
}
LANGCHAIN = {
    "user": lambda text: {"type": "human", "data": {"content": text}},
    "call": lambda ids: {
        "type": "ai",
        "data": {"content": "", "tool_calls": [{"id": i, "name": "f", "args": {}, "type": "tool_call"} for i in ids]},
    },
    "result": lambda i: {"type": "tool", "data": {"content": "42", "tool_call_id": i}},
}
LEGACY = {
    "user": OPENAI["user"],
    "call": lambda ids: {"role": "assistant", "content": None, "function_call": {"name": ids[0], "arguments": "{}"}},
    "result": lambda i: {"role": "function", "name": i, "content": "42"},
}
PYDANTIC_AI = {
    "user": lambda text: {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": text}]},
    "call": lambda ids: {
        "kind": "response",
        "parts": [{"part_kind": "tool-call", "tool_name": "f", "args": {}, "tool_call_id": i} for i in ids],
    },
    "result": lambda i: {
        "kind": "request",
        "parts": [{"part_kind": "tool-return", "tool_name": "f", "content": "42", "tool_call_id": i}],
    },
}
FRAMEWORKS = {
    "openai": OPENAI,
    "responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "langchain": LANGCHAIN,
    "legacy functions": LEGACY,
    "pydantic-ai": PYDANTIC_AI,
}
SEVERAL = ["openai", "anthropic", "langchain", "pydantic-ai"]  # these can call several tools in one message


def one(value):
    return 1


def chosen(talk, budget, counter=one):
    return [message.value for message in talk.messages(max_tokens=budget, counter=counter)]


@pytest.fixture
def talk(memory):
    return memory.conversation("t")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_call_and_its_result_are_taken_or_left_together(talk, name):
    say = FRAMEWORKS[name]
    messages = [say["user"]("what is it?"), say["call"](["c1"]), say["result"]("c1"), say["user"]("thanks")]
    talk.extend(messages)
    assert chosen(talk, 1) == messages[3:]
    assert chosen(talk, 2) == messages[3:], "the result alone would fit, its call would not"
    assert chosen(talk, 3) == messages[1:]
    assert chosen(talk, 4) == messages


@pytest.mark.parametrize("name", SEVERAL)
def test_a_message_with_several_calls_needs_all_their_results(talk, name):
    say = FRAMEWORKS[name]
    messages = [
        say["user"]("what is it?"),
        say["call"](["c1", "c2", "c3"]),
        say["result"]("c2"),
        say["result"]("c1"),
        say["result"]("c3"),
        say["user"]("thanks"),
    ]
    talk.extend(messages)
    assert [len(chosen(talk, budget)) for budget in range(1, 7)] == [1, 1, 1, 1, 5, 6]


def test_parallel_calls_of_the_responses_api_stay_with_their_results(talk):
    say = RESPONSES
    messages = [say["call"](["a"]), say["call"](["b"]), say["result"]("a"), say["result"]("b"), say["user"]("thanks")]
    talk.extend(messages)
    assert [len(chosen(talk, budget)) for budget in range(1, 6)] == [1, 1, 1, 1, 5]


def test_one_message_with_several_results_needs_its_call(talk):
    results = {"role": "user", "content": [part for i in ("a", "b") for part in ANTHROPIC["result"](i)["content"]]}
    messages = [ANTHROPIC["call"](["a", "b"]), results, ANTHROPIC["user"]("next")]
    talk.extend(messages)
    assert [len(chosen(talk, budget)) for budget in range(1, 4)] == [1, 1, 3]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_result_whose_call_is_gone_is_left_out_and_spoils_nothing_else(talk, name):
    say = FRAMEWORKS[name]
    messages = [say["user"](f"old {number}") for number in range(5)]
    talk.extend([*messages, say["result"]("lost"), say["user"]("new")])
    assert chosen(talk, 100) == [*messages, say["user"]("new")]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_lost_call_does_not_cost_the_context_before_it(talk, name):
    """The newest that fit: a stray result must not make all that came before it look like one exchange."""
    say = FRAMEWORKS[name]
    talk.extend([say["user"](f"old {number}") for number in range(300)])
    call = talk.append(say["call"](["c1"]))
    talk.append(say["result"]("c1"))
    talk.append(say["user"]("new"))
    talk.delete(call)
    found = chosen(talk, 50)
    assert found[-1] == say["user"]("new")
    assert say["result"]("c1") not in found
    assert len(found) >= 49


def test_a_call_that_waits_for_its_result_is_kept(talk):
    messages = [OPENAI["user"]("go"), OPENAI["call"](["c1"])]
    talk.extend(messages)
    assert chosen(talk, 2) == messages


def test_the_same_id_used_again_belongs_to_the_nearest_call(talk):
    """Models without ids of their own number their calls anew in each turn."""
    say = OPENAI
    turn = [say["user"]("q"), say["call"](["call_0"]), say["result"]("call_0")]
    talk.extend(turn * 3)
    assert [len(chosen(talk, budget)) for budget in range(1, 10)] == [0, 2, 3, 3, 5, 6, 6, 8, 9]


@pytest.mark.parametrize(
    "system",
    [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "s"},
        {"type": "system", "data": {"content": "s"}},
    ],
    ids=["system", "developer", "langchain"],
)
def test_system_messages_are_kept_wherever_they_stand(talk, system):
    talk.extend(
        [system, *(OPENAI["user"](str(n)) for n in range(100)), system, *(OPENAI["user"](str(n)) for n in range(100))]
    )
    found = chosen(talk, 5)
    assert [value for value in found if value == system] == [system, system]
    assert [value["content"] for value in found if value != system] == ["97", "98", "99"]
    assert [message.version for message in talk.messages(max_tokens=5, counter=one)] == [1, 102, 200, 201, 202]


def test_the_estimate_grows_with_the_text(talk):
    talk.extend([OPENAI["user"]("word " * 80) for _ in range(50)])  # some 100 tokens each
    assert len(talk.messages(max_tokens=50)) == 0
    assert 5 <= len(talk.messages(max_tokens=1_000)) <= 12
    assert len(talk.messages(max_tokens=1_000_000)) == 50


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_window_of_any_talk_is_one_that_a_model_accepts(memory, data):
    """Newest first, no result without its call, no call without the results it has, in order, and within budget."""
    say = FRAMEWORKS[data.draw(st.sampled_from(SEVERAL))]
    talk = memory.conversation("t")
    talk.clear()
    messages, number = [], 0
    for turn in data.draw(st.lists(st.integers(min_value=0, max_value=3), max_size=25)):
        messages.append(say["user"](f"question {number}"))
        if turn:
            ids = [f"c{number}-{each}" for each in range(turn)]
            messages += [say["call"](ids), *(say["result"](each) for each in data.draw(st.permutations(ids)))]
        number += 1
    if messages:
        talk.extend(messages)
    budget = data.draw(st.integers(min_value=0, max_value=len(messages) + 2))
    found = chosen(talk, budget)
    assert found == messages[len(messages) - len(found) :], "the newest, in order"
    assert len(found) <= budget
    ends = {sum(whole) for whole in suffixes(lengths(messages, say, number))}
    assert len(found) == max(end for end in ends if end <= budget)


def lengths(messages, say, number):
    """How many messages each exchange has: a question is one, a call is one with all its results."""
    questions = [say["user"](f"question {each}") for each in range(number)]
    found = []
    for place, message in enumerate(messages):
        if message in questions or messages[place - 1] in questions:
            found.append(1)
        else:
            found[-1] += 1
    return found


def suffixes(parts):
    return [parts[start:] for start in range(len(parts) + 1)]
