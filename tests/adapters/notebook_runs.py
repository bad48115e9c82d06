"""Runs notebooks from a clean kernel, as their tests do. To save them again, with the outputs that they have now:

python -m tests.adapters.notebook_runs                  # all of them; crewai's in its own environment
python -m tests.adapters.notebook_runs quick_start
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
PATIENCE = 180  # seconds after which a cell counts as hung
REAL = "real-model"  # the tag of the cell with the switch
OWN_ENVIRONMENT = ("crewai",)


def read(name: str) -> NotebookNode:
    """A notebook as it is saved."""
    notebook: NotebookNode = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    return notebook


def executed(notebook: NotebookNode, home: Path) -> NotebookNode:
    """A copy of the notebook, run from a clean kernel, in an environment without keys. Raises if a cell does."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("BOTWIRE_", "OPENAI_", "PYTEST_"))
    }
    own = {name: str(home) for name in ("HOME", "XDG_DATA_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "TMPDIR")}
    env = {**plain, **own, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80", "NO_COLOR": "1"}
    made = copy.deepcopy(notebook)
    where = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(made, timeout=PATIENCE, kernel_name="python3", resources=where)
    client.execute(env=env)
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when each cell was run
    return made


def outputs(notebook: NotebookNode) -> list[tuple[str, list[Any]]]:
    """The code of each cell with what it says, without what differs between runs."""
    return [(cell.source, _said(cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def _said(found: list[Any]) -> list[Any]:
    """The outputs of a cell; text that came in pieces is one."""
    said: list[Any] = []
    for output in found:
        if output.output_type == "stream" and said and said[-1][0] == output.name:
            said[-1] = (output.name, said[-1][1] + output.text)
        elif output.output_type == "stream":
            said.append((output.name, output.text))
        else:
            said.append((output.output_type, dict(output.get("data") or {"error": output.get("evalue")})))
    return said


def names() -> list[str]:
    """The notebooks that this environment can run."""
    there = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    return [name for name in there if (name in OWN_ENVIRONMENT) == (find_spec("crewai") is not None)]


def main() -> None:
    """Run notebooks and save them with their outputs."""
    for name in sys.argv[1:] or names():
        with tempfile.TemporaryDirectory() as home:
            made = executed(read(name), Path(home))
        nbformat.write(made, FOLDER / f"{name}.ipynb")
        sys.stdout.write(f"{name}: run and saved\n")


if __name__ == "__main__":
    main()
