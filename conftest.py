"""Runs the examples of the documentation: ```python blocks in Markdown, and `>>>` in docstrings.

Each file is one run of its own, top to bottom, in a folder that goes when it is done; what it remembers goes there.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

from botwire.stores import opening

_ROOM = "__room__"


def _enter_folder(namespace: dict[str, Any]) -> None:
    room = namespace[_ROOM] = contextlib.ExitStack()
    folder = room.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    url = "sqlite:///" + str(Path(folder, "memory.db"))
    room.enter_context(mock.patch.dict(os.environ, {"BOTWIRE_URL": url, "HOME": folder, "XDG_DATA_HOME": folder}))
    room.enter_context(contextlib.chdir(folder))
    for shared in (opening._shared, opening._asked):  # examples of other files have used the same URLs
        room.enter_context(mock.patch.dict(shared, clear=True))
    room.callback(_close_stores)


def _close_stores() -> None:
    for shared in opening._shared.values():
        shared.store.close()


def _leave_folder(namespace: dict[str, Any]) -> None:
    namespace.pop(_ROOM).close()


markdown = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    excludes=["docs/crewai.md"],  # crewai has an environment of its own: tests/crew/test_crewai_page.py runs it
    setup=_enter_folder,
    teardown=_leave_folder,
)
docstrings = Sybil(
    parsers=[DocTestParser()],
    patterns=["botwire_core/" + "*/" * depth + "*.py" for depth in (1, 2, 3)] + ["integrations/*/*.py"],
    excludes=["integrations/botwire_crewai/*.py"],
    document_types={".py": PythonDocStringDocument},
    setup=_enter_folder,
    teardown=_leave_folder,
)
pytest_collect_file = (markdown + docstrings).pytest()
