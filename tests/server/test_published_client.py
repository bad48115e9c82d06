"""The published client, `botwire==0.2.1` from PyPI in an environment of its own, against a real server process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.published_client import KEYS, VALUES
from tests.server.running import Served, starting

from botwire import Memory

WANTED = ("botwire==0.2.1", "langchain-core>=1,<2")
SCRIPT = Path(__file__).with_name("published_client.py")


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment that has the published client. It is made once, and kept."""
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir(f"published-client-{sys.version_info.major}.{sys.version_info.minor}")
    found, done = folder / "bin" / "python", folder / "done"
    if not done.exists() or done.read_text() != " ".join(WANTED):
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WANTED]
        installed = subprocess.run(pip, capture_output=True, text=True, env=plain_environment())
        if installed.returncode and "CI" not in os.environ:
            pytest.skip(f"the published client cannot be installed here: {installed.stderr.strip()[-500:]}")
        assert installed.returncode == 0, installed.stderr
        done.write_text(" ".join(WANTED))
    return found


def plain_environment(**more: str) -> dict[str, str]:
    """An environment that says nothing of this checkout."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith(("BOTWIRE_", "PYTHON"))}
    return {**plain, **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with starting(tmp_path_factory.mktemp("published")) as start:
        yield start()


@pytest.fixture(scope="module")
def got(python: Path, server: Served, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the client got, all of it in one run."""
    ran = subprocess.run(
        [str(python), str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=plain_environment(BOTWIRE_URL=server.url),
    )
    assert ran.returncode == 0, ran.stderr + server.log
    return json.loads(ran.stdout)


def test_it_is_the_published_client(got: Any):
    assert got["version"] == "0.2.1"


def as_on_its_own_server(value: Any) -> Any:
    """What 0.2.1 got back from the server that it was written for, which kept strings."""
    sent = value if isinstance(value, str) else json.dumps(value)
    try:
        return json.loads(sent) if sent[:1] in ("[", "{") else sent
    except ValueError:
        return sent


@pytest.mark.parametrize("number", range(len(VALUES)), ids=lambda number: repr(VALUES[number])[:30])
def test_every_value_comes_back_as_it_did_from_its_own_server(got: Any, number: int):
    assert got["values"][number] == repr(as_on_its_own_server(VALUES[number]))


def test_everyone_else_reads_what_it_meant(got: Any, server: Served):
    memory = Memory("values", url=server.url)
    for number, value in enumerate(VALUES):
        if isinstance(value, str | dict | list) and value != [float("inf")]:
            assert memory.get(f"v{number}") == as_on_its_own_server(value)
    assert memory.get(f"v{VALUES.index(5)}") == "5"  # it went over the wire as a string, and stays one
    memory.close()


def test_keys_are_set_listed_found_and_deleted(got: Any):
    keys = got["keys"]
    assert keys["listed"] == sorted(KEYS)
    assert keys["got"] == KEYS
    assert keys["deleted"] == [True, True, True]
    assert keys["left"] == sorted(KEYS[3:])
    assert keys["contains"] == [False, True]
    assert keys["missing"] == [None, "default", False]
    assert keys["empty"] == []
    assert keys["overwritten"] == "new"


def test_a_chat_history_is_kept(got: Any):
    assert got["history"] == {
        "before": [],
        "shown": [["human", "hi"], ["ai", "hello"], ["human", "how are you?"]],
        "cleared": [],
        "other": ["other"],
    }


def test_the_tools_work(got: Any):
    assert got["tools"] == ["(empty)", "stored 'colour'", "green", "not found", "colour"]


def test_a_missing_key_and_a_full_namespace_are_errors_that_it_knows(python: Path, tmp_path: Path):
    """It has no place for an API key: a server that wants one is told to it as an HTTP error."""
    program = (
        "import httpx, botwire\n"
        "try:\n    botwire.Memory('n').set('k', 'v')\n"
        "except httpx.HTTPStatusError as error:\n    print(error.response.status_code)"
    )
    with starting(tmp_path) as start:
        served = start("--writes-per-day", "0", "--max-bytes", "1")
        env = plain_environment(BOTWIRE_URL=served.url)
        ran = subprocess.run([str(python), "-c", program], capture_output=True, text=True, timeout=60, env=env)
    assert ran.stdout.strip() == "507", ran.stderr
