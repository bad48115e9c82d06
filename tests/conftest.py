"""What the tests share: a clock that they move, and every store there is.

A test that asks for `store` or `memory` runs over each entry of `STORES`, in `tests/stores.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import http_stores
from tests.stores import STORES, Clock, MakeStore

from botwire import Memory
from botwire.stores import opening
from botwire.stores.base import Store


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long proofs in full, not a bounded number of rounds")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`rounds(20, 2_000)`: how often to do something, by default and with `--long`."""
    return lambda few, many: many if request.config.getoption("--long") else few


@pytest.fixture(autouse=True)
def own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the user's memories or settings, nor the stores that another test left open."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    if sys.platform == "darwin":
        monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith("BOTWIRE_")]:
        monkeypatch.delenv(name)
    yield
    for shared in list(opening._shared.values()):
        shared.store.close()
    opening._shared.clear()
    opening._asked.clear()


@pytest.fixture(scope="session", autouse=True)
def http_server() -> Iterator[None]:
    """The server process of the stores over HTTP, which the first of them starts, ends with the tests."""
    yield
    http_stores.stop()


@pytest.fixture
def clock() -> Clock:
    """The time of every store that a test makes."""
    return Clock()


@pytest.fixture(params=STORES)
def new_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Callable[[str], Store]]:
    """Make a store of the kind under test; another name is another place. All are closed in the end."""
    make: MakeStore = STORES[request.param]
    made: list[Store] = []

    def new(name: str = "store") -> Store:
        made.append(make(tmp_path / f"{name}.db", clock))
        return made[-1]

    yield new
    try:
        for store in made:
            store.close()
    finally:
        request.node.add_report_section("teardown", "the server", http_stores.output())  # shown if the test failed


@pytest.fixture
def store(new_store: Callable[[str], Store]) -> Store:
    """A store, empty."""
    return new_store("store")


@pytest.fixture
def memory(store: Store) -> Memory:
    """A memory in that store."""
    return Memory("user-42", store=store)
