"""What the documentation says is so. Its examples are run by conftest.py at the root; here is the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CORE = ROOT / "botwire_core" / "botwire"
LANGUAGES = {"python", "py", "pycon", "console", "sh", "text", "json"}  # of code blocks

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path) -> list[tuple[str, str]]:
    """The code blocks of a page, each with its language."""
    return re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[tuple[str, str]]:
    """The commands after a `$` in a page, each with what it prints."""
    sessions = "".join(code for language, code in blocks(page) if language == "console")
    return re.findall(r"(?m)^\$ (.*)\n((?:(?!\$ ).*\n)*)", sessions)


def own_environment(home: Path) -> dict[str, str]:
    """An environment in which memories go to a folder of the test's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BOTWIRE_")}
    return {**environment, "XDG_DATA_HOME": str(home), "PYTHONPATH": ""}


def test_three_lines_print_what_the_readme_says(tmp_path):
    (language, code), (_, printed), *_ = blocks(ROOT / "README.md")
    assert language == "python"
    assert len(code.splitlines()) == 3
    environment = {**own_environment(tmp_path), "PYTHONPATH": str(CORE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == printed


def test_the_last_of_the_three_lines_prints_the_same_in_a_later_process(tmp_path):
    (_, code), (_, printed), *_ = blocks(ROOT / "README.md")
    first, _, last = code.splitlines()
    environment = {**own_environment(tmp_path), "PYTHONPATH": str(CORE.parent)}
    for lines in (code, f"{first}\n{last}"):
        done = subprocess.run(
            [sys.executable, "-c", lines], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout == printed


def test_the_first_two_commands_of_the_readme_use_it_and_test_it():
    use, test, *_ = [code for language, code in blocks(ROOT / "README.md") if language == "sh"]
    assert "pip install" in use
    assert use.count("python -c") == 2
    script = test.split()[-1]
    assert (ROOT / script).is_file(), script


@pytest.mark.slow
def test_the_first_command_of_the_readme_works_on_a_fresh_machine(tmp_path, request):
    if not request.config.getoption("--long"):
        pytest.skip("installs from the package index: runs with --long")
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis")
    )
    use = next(code for language, code in blocks(clone / "README.md") if language == "sh")
    done = subprocess.run(
        ["sh", "-c", use], cwd=clone, capture_output=True, text=True, env=own_environment(tmp_path / "home")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Ethiopian Yirgacheffe"


@pytest.mark.skipif(sys.platform == "win32", reason="the sessions are of a Unix shell")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_print_what_the_page_says(page, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "BOTWIRE_URL": f"sqlite:///{home}/memory.db"}
    for command, printed in commands(page):
        done = subprocess.run(["sh", "-c", command], cwd=home, capture_output=True, text=True, env=environment)
        assert (done.stdout + done.stderr).replace(str(home), "/home/ana") == printed, command


def test_the_test_in_the_readme_passes(tmp_path):
    [test] = [code for language, code in blocks(ROOT / "README.md") if language == "python" and "def test_" in code]
    (tmp_path / "test_readme.py").write_text(test)
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(pytest_there, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_reference_is_what_the_docstrings_say():
    script = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pages
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pages
def test_tests_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"tests/([\w/]+\.py)(?:::(\w+))?", text)
    everything = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    missing = [test for test in re.findall(r"`(test_\w+)`", text) if f"def {test}(" not in everything]
    missing += [
        f"{path}::{test}"
        for path, test in named
        if not (file := ROOT / "tests" / path).is_file()
        or (test and f"def {test}(" not in file.read_text(encoding="utf-8"))
    ]
    assert missing == []


@pages
def test_every_code_block_says_its_language(page):
    assert {language for language, _ in blocks(page)} <= LANGUAGES


def test_every_promise_names_its_test():
    promises = re.split(r"(?m)^## ", (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8"))
    silent = [
        each.splitlines()[0] for each in promises[1:] if "tests/" not in each and "not promised" not in each.lower()
    ]
    assert silent == []


def test_every_module_of_the_core_is_on_the_map():
    drawn = re.findall(r"\b[\w/]+\.py\b", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    drawn_names = {name.rpartition("/")[2] for name in drawn}
    modules = {path.name for path in CORE.rglob("*.py")} - {"__init__.py"}
    assert modules - drawn_names == set()


def test_every_docstring_example_is_run():
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(CORE.parent)]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with_examples = {
        path for path in CORE.rglob("*.py") if re.search(r"(?m)^\s+>>> ", path.read_text(encoding="utf-8"))
    }
    run = {ROOT / line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert with_examples - run == set()
    assert with_examples
