"""Runs the examples of docs/crewai.md, which need CrewAI's environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from botwire_crewai import BotWireStorage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "crewai.md"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crewai")  # it uses what it has deprecated itself


def test_the_page_on_crewai_says_what_is_so(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BOTWIRE_URL", f"sqlite:///{tmp_path / 'memory.db'}")
    monkeypatch.setattr("crewai.memory.storage.factory._factory", None)
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(PAGE)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    assert len(examples) >= 5
    assert "I will remember." in capsys.readouterr().out
    assert BotWireStorage(namespace="trips").count() == 2
