"""What the adapters' tests share: places to keep memories in, and new processes.

A test that asks for `url` runs over an embedded store and over a real server: an adapter reaches both by URL alone.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.server.running import starting

PATIENCE = 120  # seconds after which a process counts as hung

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that runs for the tests of one file."""
    with starting(tmp_path_factory.mktemp("server")) as start:
        yield start("--durability", "relaxed").url


@pytest.fixture(params=["embedded", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where memories are kept: a file of the test's own, or a server."""
    if request.param == "server":
        found: str = request.getfixturevalue("server_url")
        return found
    return f"sqlite:///{tmp_path / 'memory.db'}"


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses: the server's are shared."""
    return f"test-{next(_numbers)}"


@pytest.fixture
def in_a_new_process(tmp_path: Path) -> Callable[..., str]:
    """Run a script in a process of its own, with these environment variables. Returns what it prints."""

    def run(script: str, **environ: str) -> str:
        file = tmp_path / f"script-{next(_numbers)}.py"
        file.write_text(script, "utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ}
        done = subprocess.run(
            [sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
