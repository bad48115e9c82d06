"""What every adapter begins with: where a memory is, said once and checked at the door."""

from __future__ import annotations

import subprocess
import sys

import pytest

from botwire import AsyncMemory, InvalidInput, Memory
from botwire.adapting import Place, memory_for, missing

ADAPTERS = ["langchain", "langgraph", "autogen", "openai", "mcp"]


def test_a_memory_is_taken_as_it_is():
    memory = Memory("user-42", url="sqlite://")
    assert memory_for(memory, None, {}) is memory


def test_a_place_has_the_words_of_memory():
    memory = memory_for(None, None, {"url": "sqlite://", "timeout": 5}, default="graph")
    assert (memory.namespace, memory.timeout) == ("graph", 5)
    for name in Place.__annotations__:
        assert name in Memory.__init__.__annotations__


@pytest.mark.parametrize(("namespace", "place"), [("a", {}), (None, {"url": "sqlite://"}), ("a", {"api_key": "x"})])
def test_a_memory_has_its_place_already(namespace, place):
    with pytest.raises(InvalidInput, match="leave out"):
        memory_for(Memory("user-42", url="sqlite://"), namespace, place)


@pytest.mark.parametrize("wrong", ["user-42", 5, {}, AsyncMemory("a", url="sqlite://")])
def test_what_is_no_memory_is_refused(wrong):
    with pytest.raises(InvalidInput, match="must be a botwire Memory"):
        memory_for(wrong, None, {})


@pytest.mark.parametrize(
    ("name", "hint"), [("namepsace", "did you mean namespace"), ("urll", "did you mean url"), ("ttl", "there are url")]
)
def test_an_argument_that_there_is_not_is_named(name, hint):
    with pytest.raises(TypeError, match=f"unknown argument {name}.*{hint}"):
        memory_for(None, None, {name: "x"})  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("localhost:8765/x", "http://"),
        ("", "leave it out"),
        ("a.db", "sqlite"),
    ],
)
def test_what_is_no_url_is_told_what_was_meant(url, hint):
    with pytest.raises(InvalidInput, match=hint):
        memory_for(None, None, {"url": url})


def test_a_missing_framework_is_named_with_the_command_that_brings_it():
    error = missing("langchain", ModuleNotFoundError("No module named 'langchain_core'", name="langchain_core"))
    assert str(error) == 'langchain_core is not installed: pip install "botwire[langchain]"'


def test_botwire_brings_none_of_the_frameworks():
    brought = "[each for each in sys.modules if each.startswith(('lang', 'autogen', 'openai', 'mcp'))]"
    script = f"import sys, botwire; print({brought})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_brings_none_of_the_others(name):
    ours = "[each for each in sys.modules if each.startswith('botwire_') and '.' not in each]"
    script = f"import sys, botwire_{name}; print({ours})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"['botwire_{name}']\n"
