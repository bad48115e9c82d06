"""Holds what docs/architecture.md says of the code's shape: who may import whom, and how long a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("botwire_core", "integrations", "server")
LONGEST_FUNCTION = 60  # lines: a screen

# Who outside the embedded store may import which part of it.
MAY_IMPORT_SQLITE = {
    "botwire.stores.opening": {"botwire.stores.sqlite"},  # from a URL to a store
    "botwire.testing": {"botwire.stores.sqlite"},  # a store with a clock that tests can move
    "botwire.cli": {"botwire.stores.sqlite.upkeep"},  # backup, restore and doctor are about the file itself
    "botwire_server.threaded": {"botwire.stores.sqlite"},  # from a store to its twin
    "botwire_server.hot": {"botwire.stores.sqlite.async_store", "botwire.stores.sqlite.commits"},  # reads in place
}
# Only the engine's own folder knows the engine.
ENGINES = {"apsw", "sqlite3", "psycopg"}
# Logic that does no I/O: sync and async faces, and every store, share it.
PURE = {
    "cursors", "errors", "flows", "names", "ops", "revisions", "sealing", "shapes", "talks", "values", "where",
    "window", "wire",
}  # fmt: skip
IO = {"apsw", "asyncio", "httpx", "io", "os", "pathlib", "socket", "sqlite3", "subprocess", "tempfile", "threading"}
# Brought in when they are needed, never by `from botwire import Memory`.
LAZY = ("apsw", "asyncio", "click", "concurrent", "httpx", "platformdirs", "pydantic", "sqlite3")


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Every module under the source roots, by its name."""
    for source_root in SOURCE_ROOTS:
        for path in sorted((root / source_root).rglob("*.py")):
            parts = path.relative_to(root / source_root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module: str, path: Path) -> set[str]:
    """The modules that a module imports anywhere in it, relative names resolved, and what it imports from them."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def wrong_arrows(root: Path) -> list[str]:
    """Imports that go against docs/architecture.md."""
    wrong: list[str] = []
    for module, path in sources(root):
        own = module.partition(".")[0]
        for imported in sorted(imports(module, path)):
            other = imported.partition(".")[0]
            is_ours = other == "botwire" or other.startswith("botwire_")
            if is_ours and other not in (own, "botwire"):
                wrong.append(f"{module} imports {imported}")
    return wrong


def store_leaks(root: Path) -> list[str]:
    """Imports of an engine, or of the embedded store's insides, from outside its folder."""
    wrong: list[str] = []
    for module, path in sources(root):
        if module.startswith("botwire.stores.sqlite"):
            continue
        allowed = MAY_IMPORT_SQLITE.get(module, set())
        for imported in sorted(imports(module, path)):
            leaks = imported.startswith("botwire.stores.sqlite") and not _covered(imported, allowed)
            if leaks or imported.partition(".")[0] in ENGINES:
                wrong.append(f"{module} imports {imported}")
    return wrong


def _covered(imported: str, allowed: set[str]) -> bool:
    """Whether it is one of the allowed modules, a name from one, or a package on the way to one."""
    parent = imported.rpartition(".")[0]
    return any(each.startswith(imported) or (parent == each and not _is_module(imported)) for each in allowed)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath("botwire_core", *name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def dynamic_imports(root: Path) -> set[str]:
    """Modules that import by a name made at run time."""
    return {
        module
        for module, path in sources(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in ("import_module", "__import__")
    }


def long_functions(root: Path) -> list[str]:
    """Functions that do not fit a screen."""
    return [
        f"{module}.{node.name}: {length} lines"
        for module, path in sources(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]


def plant(root: Path, **files: str) -> Path:
    """A little source tree: `botwire_core__botwire__x='import apsw'`."""
    for name, text in files.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_arrows_run_one_way():
    assert wrong_arrows(ROOT) == []


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("botwire_core__botwire__memory", "from botwire_langchain import History"),
        ("botwire_core__botwire__stores__x", "def f():\n    import botwire_server.app"),
        ("integrations__botwire_crewai__tools", "from botwire_langchain.x import y"),
        ("server__botwire_server__app", "import botwire_mcp"),
    ],
)
def test_an_arrow_the_wrong_way_is_seen(tmp_path, where, text):
    assert len(wrong_arrows(plant(tmp_path, **{where: text}))) >= 1


def test_an_arrow_the_right_way_is_not_complained_about(tmp_path):
    tree = plant(tmp_path, integrations__botwire_crewai__tools="import crewai, botwire\nfrom .x import y")
    assert wrong_arrows(tree) == []


def test_only_the_store_knows_its_engine():
    assert store_leaks(ROOT) == []


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("botwire_core__botwire__memory", "import apsw"),
        ("botwire_core__botwire__conversation", "from .stores.sqlite.reads import get"),
        ("botwire_core__botwire__flows", "from .stores import sqlite"),
        ("botwire_core__botwire__stores__opening", "from .sqlite.writes import put"),
        ("botwire_core__botwire__cli", "from .stores.sqlite import SQLiteStore"),
        ("server__botwire_server__app", "import sqlite3"),
    ],
)
def test_a_leak_of_the_store_is_seen(tmp_path, where, text):
    assert len(store_leaks(plant(tmp_path, **{where: text}))) >= 1


def test_only_the_lazy_table_imports_by_name():
    assert dynamic_imports(ROOT) == {"botwire"}


def test_shared_logic_does_no_io():
    found = {
        module: used
        for module, path in sources(ROOT)
        if module.removeprefix("botwire.") in PURE and (used := IO & imports(module, path))
    }
    assert found == {}
    assert {module.removeprefix("botwire.") for module, _ in sources(ROOT)} >= PURE


def test_every_function_fits_a_screen():
    assert long_functions(ROOT) == []


def test_a_function_longer_than_a_screen_is_seen(tmp_path):
    body = "    pass\n" * LONGEST_FUNCTION
    assert long_functions(plant(tmp_path, botwire_core__botwire__x=f"def f():\n{body}")) == ["botwire.x.f: 61 lines"]


def test_every_module_says_what_it_is_for():
    silent = [
        module for module, path in sources(ROOT) if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_package_is_typed():
    packages = {path.parent for _, path in sources(ROOT) if path.parent.parent.name in SOURCE_ROOTS}
    assert packages
    assert [package.name for package in packages if not (package / "py.typed").is_file()] == []


def test_importing_memory_brings_in_nothing_that_is_not_used():
    script = f"import sys; from botwire import Memory; print([name for name in {LAZY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
