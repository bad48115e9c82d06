"""The examples of docs/openai.md that need a model: each is run as it stands, in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.adapters.openai_server import Script, Turn, calls, says, serving

from botwire import Memory

PAGE = (Path(__file__).parents[2] / "docs" / "openai.md").read_text("utf-8")
EXAMPLES = [
    (section.partition("\n")[0], code)
    for section in PAGE.split("\n## ")
    for code in re.findall(r"(?ms)^```py\n(.*?)^```$", section)
]

KNOWN = "Ana likes Ethiopian Yirgacheffe."
REMEMBER = calls(("remember", {"key": "coffee", "value": KNOWN}))
RECALL = calls(("recall", {"query": "coffee"}))


def order(shown: str) -> Turn:
    """What the model answers if it has been shown what is remembered."""
    return says("A Yirgacheffe." if "Yirgacheffe" in shown else "I cannot know.")


# Of each example: what the model does, and what is printed.
RUNS: list[tuple[str, list[Script], str]] = [
    ("Responses", [REMEMBER, says("Noted."), RECALL, order], "Noted.\nA Yirgacheffe.\n"),
    ("Responses", [order], "A Yirgacheffe."),
    ("Chat Completions", [RECALL, order], "A Yirgacheffe.\n['user', 'assistant', 'tool', 'assistant']\n"),
    ("Agents SDK", [REMEMBER, says("Noted.")], "Noted.\n4\n"),
    ("Assistants", [REMEMBER, says("Noted."), order], "Noted.\nA Yirgacheffe.\n"),
    ("Assistants", [RECALL, order], "A Yirgacheffe."),
    ("From Assistants to Responses", [order], "A Yirgacheffe.\n"),
    (
        "Tools of your own",
        [calls(("weather", {"city": "Porto"})), lambda shown: says(shown[-40:])],
        "18 degrees in Porto",
    ),
]


def test_every_example_is_run():
    assert [heading for heading, _ in EXAMPLES] == [heading for heading, _, _ in RUNS]


@pytest.mark.parametrize("number", range(len(RUNS)), ids=lambda number: f"{RUNS[number][0]}-{number}")
def test_an_example_does_what_the_page_says(number, url, in_a_new_process):
    heading, script, printed = RUNS[number]
    if heading == "Agents SDK":
        pytest.importorskip("agents")
    user = Memory("user-42", url)
    user.erase()
    if REMEMBER not in script:
        user.set("coffee", KNOWN)
    with serving(*script) as server:
        environment = {
            "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "key", "BOTWIRE_URL": url,
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }  # fmt: skip
        said = in_a_new_process(EXAMPLES[number][1], **environment)
        assert server.script == []
    assert printed in said if heading == "Tools of your own" else said == printed
    assert user.get("coffee") == KNOWN
