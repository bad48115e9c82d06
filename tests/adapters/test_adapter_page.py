"""The adapter in integrations/README.md works as it stands, and its test passes, and keeps to the rules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.running import ROOT, environment
from tests.test_architecture import LONGEST_FUNCTION, plant, wrong_arrows

pytest.importorskip("pydantic_ai")

ADAPTER, TEST = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "integrations" / "README.md").read_text("utf-8"))
NAME = "botwire_pydantic_ai"


def functions_in(code: str) -> dict[str, Callable[..., None]]:
    """The test functions in a block of code."""
    names: dict[str, Any] = {}
    exec(compile(code, "integrations/README.md", "exec"), names)
    return {name: each for name, each in names.items() if name.startswith("test_")}


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The adapter, where Python finds it."""
    folder = tmp_path / "integrations"
    (folder / NAME).mkdir(parents=True)
    (folder / NAME / "__init__.py").write_text(ADAPTER, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.usefixtures("adapter")
@pytest.mark.parametrize("name", functions_in(TEST))
def test_its_test_passes(name, url, namespace, in_a_new_process):
    functions_in(TEST)[name](url, namespace, in_a_new_process)


def test_its_test_can_fail(adapter, url, namespace, in_a_new_process):
    (adapter / NAME / "__init__.py").write_text(ADAPTER.replace("tool.name, arguments", 'tool.name, {"key": "x"}'))
    for each in functions_in(TEST).values():
        with pytest.raises(AssertionError):
            each(url, namespace, in_a_new_process)


def test_it_keeps_to_the_rules(tmp_path):
    tree = ast.parse(ADAPTER)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert all((node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION for node in functions)
    assert wrong_arrows(plant(tmp_path, **{f"integrations__{NAME}__tools": ADAPTER})) == []
    assert len(ADAPTER.splitlines()) < 50


@pytest.mark.usefixtures("adapter")
def test_without_the_framework_it_says_how_to_get_it(tmp_path):
    (tmp_path / "integrations" / "pydantic_ai.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pydantic_ai'\", name='pydantic_ai')"
    )
    script = [sys.executable, "-c", f"import {NAME}"]
    done = subprocess.run(script, env=environment(), capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        'ImportError: pydantic_ai is not installed: pip install "botwire[pydantic-ai]"'
    )
