"""The pytest fixtures for users: run as they run them, by pytest in a project of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import botwire
import botwire.testing
from botwire import InvalidInput, Memory
from botwire.stores.sqlite import SQLiteStore
from botwire.testing import Clock

CODE = str(Path(botwire.__file__).parents[1])


def run_project(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over a file of tests, where botwire is as good as installed: its plugin is loaded, nothing else is."""
    (folder / "test_project.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    environment = {**os.environ, "PYTHONPATH": CODE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-p", "botwire.testing", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def passes(folder: Path, tests: str, count: int, *options: str) -> None:
    done = run_project(folder, tests, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout


def example() -> str:
    """The example of the module's docstring."""
    text = botwire.testing.__doc__ or ""
    _, _, rest = text.partition("installed.\n\n")
    return textwrap.dedent(rest.partition("\n\n")[0]) + "\n"


def test_the_example_of_the_docstring_runs(tmp_path):
    assert "def test_forgets(botwire_memory, botwire_clock):" in example()
    passes(tmp_path, example(), 1)


def test_each_test_has_a_memory_of_its_own(tmp_path):
    tests = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_starts_empty(botwire_memory, number):
    assert len(botwire_memory) == 0
    botwire_memory.set("key", number)
    botwire_memory.conversation("talk").append("hi")
    assert botwire_memory.get("key") == number
"""
    passes(tmp_path, tests, 3)


def test_nothing_touches_the_disk(tmp_path):
    passes(tmp_path, "def test_writes(botwire_memory):\n    botwire_memory.set('key', 1)\n", 1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "pytest.ini",
        "test_project.py",
    ]
    assert list(Path(os.environ["XDG_DATA_HOME"]).rglob("*")) == []


def test_the_memory_goes_by_the_clock(tmp_path):
    tests = """
from datetime import datetime, timedelta, timezone

def test_time_stands_still_until_it_is_moved(botwire_memory, botwire_clock):
    first, second = botwire_memory.set("a", 1), botwire_memory.set("b", 2)
    assert first.updated_at == second.updated_at == botwire_clock.now == datetime(2026, 1, 1, tzinfo=timezone.utc)

def test_values_expire(botwire_memory, botwire_clock):
    botwire_memory.set("token", "secret", ttl=timedelta(hours=1))
    botwire_clock.advance(3_599)
    assert botwire_memory.get("token") == "secret"
    botwire_clock.advance(timedelta(seconds=1))
    assert botwire_memory.get("token") is None

def test_the_past_has_times(botwire_memory, botwire_clock):
    botwire_memory.set("mood", "calm")
    calm = botwire_clock.now
    botwire_clock.advance(60)
    botwire_memory.set("mood", "excited")
    assert botwire_memory.get("mood", as_of=calm) == "calm"
"""
    passes(tmp_path, tests, 3)


def test_other_namespaces_share_the_store(tmp_path):
    tests = """
from botwire import Memory

def test_sees_both(botwire_memory, botwire_store):
    other = Memory("user-42", store=botwire_store)
    other.set("key", "theirs")
    assert botwire_memory.get("key") is None
    assert [each.name for each in other.namespaces()] == ["user-42"]
"""
    passes(tmp_path, tests, 1)


ASYNC = """
import asyncio

async def scenario(memory, clock):
    await memory.set("token", "secret", ttl=60)
    await asyncio.gather(*(memory.set(f"key-{number}", number) for number in range(20)))
    assert await memory.get("key-7") == 7
    clock.advance(61)
    assert await memory.get("token") is None
"""


def test_the_async_memory_needs_no_plugin(tmp_path):
    tests = f"""{ASYNC}
def test_async(botwire_async_memory, botwire_clock):
    asyncio.run(scenario(botwire_async_memory, botwire_clock))

def test_is_the_same_memory(botwire_memory, botwire_async_memory):
    botwire_memory.set("key", 1)
    assert asyncio.run(botwire_async_memory.get("key")) == 1
"""
    passes(tmp_path, tests, 2)


def test_the_async_memory_works_with_a_plugin(tmp_path):
    tests = f"""{ASYNC}
import pytest

@pytest.mark.asyncio
async def test_async(botwire_async_memory, botwire_clock):
    await scenario(botwire_async_memory, botwire_clock)
"""
    option = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function")
    passes(tmp_path, tests, 1, *option)


def test_the_plugin_is_found_where_botwire_is_installed():
    from importlib.metadata import entry_points

    found = [point.value for point in entry_points(group="pytest11") if point.name == "botwire"]
    assert "botwire.testing" in found


def test_the_plugin_costs_a_test_run_neither_the_engine_nor_the_command_line():
    brought = "({'apsw', 'httpx', 'click', 'platformdirs', 'sqlite3'} & set(sys.modules)) - before"
    script = f"import pytest, sys; before = set(sys.modules); import botwire.testing; print({brought})"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": CODE}, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_nothing_else_of_botwire_needs_pytest():
    script = "import sys; sys.modules['pytest'] = None; import botwire, botwire.cli, botwire.async_memory"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": CODE}, check=True)


def test_a_clock_counts_microseconds_for_the_store():
    clock = Clock(datetime(1970, 1, 2, tzinfo=UTC))
    assert clock() == 86_400_000_000
    clock.advance(0.000_001)
    assert clock() == 86_400_000_001
    assert clock.now == datetime(1970, 1, 2, 0, 0, 0, 1, tzinfo=UTC)
    assert repr(clock) == "Clock(1970-01-02T00:00:00.000001+00:00)"


def test_a_clock_takes_any_time_zone_and_tells_utc():
    clock = Clock(datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now == datetime(2026, 6, 1, 10, tzinfo=UTC)
    assert clock.now.tzinfo is UTC


@pytest.mark.parametrize("by", [-1, -0.5, timedelta(seconds=-1), float("nan"), float("inf")])
def test_a_clock_never_goes_back(by):
    clock = Clock()
    before = clock()
    with pytest.raises(InvalidInput, match="time only goes on"):
        clock.advance(by)
    assert clock() == before


def test_a_clock_must_know_its_zone():
    with pytest.raises(InvalidInput, match="time zone"):
        Clock(datetime(2026, 1, 1))  # noqa: DTZ001  # what is refused


def test_a_clock_drives_a_store_that_a_test_makes_itself():
    clock = Clock()
    memory = Memory("test", store=SQLiteStore(":memory:", clock=clock))
    assert memory.set("key", 1, ttl=10).expires_at == clock.now + timedelta(seconds=10)
