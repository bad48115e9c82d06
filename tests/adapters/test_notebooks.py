"""The notebooks run from a clean kernel, say what is saved in them, and with their switch speak a real API's wire."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")

from nbclient.exceptions import CellExecutionError  # after the line above, which says whether it is there
from tests.adapters.notebook_runs import FOLDER, REAL, executed, names, outputs, read
from tests.adapters.openai_server import Script, calls, says, serving

ALL = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
DATES = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?")
YIRGACHEFFE = "Ana drinks Ethiopian Yirgacheffe, black."


def comparable(found: Any) -> Any:
    """The outputs of a notebook without the day."""
    return json.loads(DATES.sub("DATE", json.dumps(found)))


def switch(notebook: Any) -> Any:
    """The cell with the switch for a real model."""
    [cell] = [cell for cell in notebook.cells if REAL in cell.metadata.get("tags", [])]
    return cell


@pytest.mark.parametrize("name", names())
def test_a_notebook_says_what_is_saved_in_it(name, tmp_path):
    saved = read(name)
    found = outputs(executed(saved, tmp_path))
    again = f"python -m tests.adapters.notebook_runs {name} saves it again"
    assert comparable(found) == comparable(outputs(saved)), again
    said = [output for _, each in found for output in each]
    assert said
    assert [output for output in said if output[0] in ("stderr", "error")] == []


@pytest.mark.parametrize("name", names())
def test_a_notebook_that_goes_wrong_is_noticed(name, tmp_path):
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[1].source += "\nassert False, 'broken on purpose'"
    with pytest.raises(CellExecutionError, match="broken on purpose"):
        executed(notebook, tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_can_be_read_by_a_newcomer(name):
    notebook = read(name)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].cell_type == "markdown"
    assert "pip install" in notebook.cells[0].source
    assert len(code) <= 10
    assert max(len(source.splitlines()) for source in code) <= 25
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.execution_count == number for number, cell in enumerate(_code(notebook), 1))


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", [name for name in ALL if name != "quick_start"])
def test_one_marked_cell_swaps_in_a_real_model_and_is_off(name):
    notebook = read(name)
    cell = switch(notebook)
    assert cell.source.startswith("USE_A_REAL_MODEL = False")
    above = notebook.cells[notebook.cells.index(cell) - 1]
    assert above.source.startswith("## ▶ A real model")
    others = [each.source for each in _code(notebook) if each is not cell]
    assert not any("USE_A_REAL_MODEL" in source for source in others)


REAL_TURNS: dict[str, tuple[Script, ...]] = {
    "openai": (
        calls(("recall", {"query": "What does Ana drink?"})),
        says("An Ethiopian Yirgacheffe."),
        says("Ethiopian Yirgacheffe, black."),
    ),
    "autogen": (
        calls(("remember", {"key": "ana", "value": YIRGACHEFFE})),
        says("I will remember that."),
        says("Black Ethiopian Yirgacheffe."),
    ),
    "langchain_langgraph": (
        calls(("remember", {"key": "coffee", "value": YIRGACHEFFE})),
        says("I will remember that."),
        calls(("recall", {"query": "What does Ana drink?"})),
        says("Ethiopian Yirgacheffe."),
        says("Good morning, Ana!"),
        says("You are Ana."),
        calls(("note_allergy", {"what": "nuts"})),
        says("No nuts, then."),
    ),
    "shared_memory": (
        calls(("remember", {"key": "ana/room", "value": "Ana wants a quiet room, and Yirgacheffe."})),
        says("Noted."),
        calls(("recall", {"query": "Which room does Ana want?"})),
        says("Room 714."),
    ),
}
NEEDS = {
    "autogen": ["tiktoken"],
    "langchain_langgraph": ["langchain_openai"],
    "shared_memory": ["tiktoken", "langchain_openai"],
}


@pytest.mark.parametrize("name", [name for name in REAL_TURNS if name in names()])
def test_with_the_switch_on_a_notebook_asks_the_real_api(name, tmp_path):
    for needed in NEEDS.get(name, []):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    notebook = read(name)
    cell = switch(notebook)
    cell.source = cell.source.replace("USE_A_REAL_MODEL = False", "USE_A_REAL_MODEL = True")
    with serving(*REAL_TURNS[name]) as server:
        keys = f"import os\nos.environ |= {{'OPENAI_BASE_URL': {server.url!r}, 'OPENAI_API_KEY': 'key'}}\n"
        cell.source = keys + cell.source
        found = executed(notebook, Path(tmp_path))
        assert server.script == []
        assert server.refused == []
    assert "Yirgacheffe" in json.dumps(outputs(found))
