"""The benchmark of the server runs from a checkout, and says what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": os.environ["PATH"] if path is None else path}
    command = [sys.executable, str(ROOT / "benchmarks" / "server.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=os.sep, check=False)


def test_without_its_tools_it_says_what_to_install(tmp_path):
    done = run("--quick", path=str(tmp_path))
    assert done.returncode == 2
    assert "apt-get install redis-server redis-tools wrk" in done.stderr
    assert not done.stdout


@pytest.mark.skipif(not shutil.which("wrk") or not shutil.which("redis-benchmark"), reason="needs wrk and Redis")
@pytest.mark.parametrize("section", ["requests", "clients"])
def test_a_quick_run_measures_what_it_says(section, tmp_path, request):
    if not request.config.getoption("--long", default=False):
        pytest.skip("half a minute of load: run with --long")
    done = run("--quick", "--only", section, "--json", str(tmp_path / "run.json"))
    assert done.returncode == 0, done.stderr
    assert "| measured | contender | p50 µs | p99 µs |" in done.stdout
    assert (tmp_path / "run.json").stat().st_size > 1_000
