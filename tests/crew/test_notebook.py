"""CrewAI's notebook, in the environment where CrewAI is."""

from __future__ import annotations

import pytest

pytest.importorskip("nbclient")

from tests.adapters.notebook_runs import executed, names, outputs, read  # after the line above


def test_the_notebook_says_what_is_saved_in_it(tmp_path):
    assert names() == ["crewai"]
    saved = read("crewai")
    found = outputs(executed(saved, tmp_path))
    assert found == outputs(saved), "python -m tests.adapters.notebook_runs crewai saves it again"
    said = [output for _, each in found for output in each]
    assert [output for output in said if output[0] in ("stderr", "error")] == []
    assert "An Ethiopian Yirgacheffe, black.\n" in [text for _, text in said]
