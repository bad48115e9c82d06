"""A store that was open before a fork: parent and child both go on, and neither harms the other."""

from __future__ import annotations

import os

import pytest
from tests.faults import workers

from botwire import Memory
from botwire.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "memory.db"
    yield path
    workers.audit(path)


@pytest.mark.parametrize("how", ["_exit", "exit", "kill"])
def test_parent_and_children_write_and_read_while_threads_do_however_a_child_ends(path, how, request):
    rounds = 200 if request.config.getoption("--long", default=False) else 12
    assert workers.run("fork_many", path, how, rounds) == ["done"]


def test_several_threads_can_fork_at_the_same_time(path, request):
    rounds = 200 if request.config.getoption("--long", default=False) else 15
    assert workers.run("fork_from_threads", path, rounds) == [str(2 * 3 * rounds)]


def test_the_parent_can_close_the_file_while_its_child_goes_on_writing(path):
    family = workers.start("fork_then_close", path)
    assert workers.next_line(family) == "closed"
    stranger = SQLiteStore(str(path))
    Memory("family", store=stranger).set("stranger", 1)
    workers.tell(family)
    assert workers.finish(family) == ["child-after child-before parent stranger"]
    assert Memory("family", store=stranger).keys() == ["child-after", "child-before", "parent", "stranger"]
    stranger.close()


@pytest.mark.parametrize("doing", ["write", "read"])
def test_a_fork_in_the_middle_of_another_threads_transaction_stops_neither(path, doing):
    [keys] = workers.run("fork_while_busy", path, doing)
    assert keys.split() == sorted({"before", "busy", "child", "parent"} - ({"busy"} if doing == "read" else set()))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_children_of_multiprocessing_share_a_memory_that_they_were_given(path, method):
    assert workers.run("multiprocess", path, method) == [str(5 * 50)]
