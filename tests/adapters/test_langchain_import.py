"""What `botwire_langchain` says without LangChain, and what it brings along."""

from __future__ import annotations

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
try:
    IMPORT
except ImportError as error:
    print(type(error).__name__, error, error.name)
"""


def without(hidden: str, statement: str) -> str:
    """A script that imports as if a package were not installed."""
    return BLOCKED.replace("HIDDEN", repr(hidden)).replace("IMPORT", statement)


def test_without_langchain_the_import_says_what_to_install(in_a_new_process):
    for statement in ("import botwire_langchain", "from botwire import BotWireChatHistory"):
        printed = in_a_new_process(without("langchain_core", statement))
        assert printed == (
            'ImportError langchain_core is not installed: pip install "botwire[langchain]" langchain_core\n'
        )


def test_a_part_of_langchain_that_is_missing_is_not_taken_for_all_of_it(in_a_new_process):
    printed = in_a_new_process(without("langsmith", "import botwire_langchain"))
    assert "langsmith" in printed
    assert "pip install" not in printed


def test_nothing_of_other_frameworks_is_imported(in_a_new_process):
    script = """
import sys, botwire_langchain
others = {"langchain", "langchain_classic", "langchain_community", "langgraph", "openai", "agents", "crewai",
          "autogen_core", "mcp", "fastapi"}
print(sorted(others & set(sys.modules)))
"""
    assert in_a_new_process(script) == "[]\n"


def test_botwires_name_for_it_is_the_same_class(in_a_new_process):
    script = "import botwire, botwire_langchain as b; print(botwire.BotWireChatHistory is b.BotWireChatHistory)"
    assert in_a_new_process(script) == "True\n"
