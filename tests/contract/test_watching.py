"""Rule: `wait` only signals that there may be changes; `watch` then yields every one, once and in order."""

import threading

import pytest
from msgspec import Raw

from botwire import Conflict, CursorExpired, Memory
from botwire.ops import Put


class Watcher(threading.Thread):
    """Collects what a watch yields, until it has seen so many."""

    def __init__(self, memory, count, **arguments):
        super().__init__(daemon=True)
        self.changes, self.error, self._count = [], None, count
        self._watch = memory.watch(timeout=30, **arguments)
        self.start()

    def run(self):
        try:
            for change in self._watch:
                self.changes.append(change)
                if len(self.changes) == self._count:
                    return
        except Exception as error:
            self.error = error

    def result(self):
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.changes


def test_a_watcher_sees_every_change_in_order(memory, rounds):
    count = rounds(60, 3_000)
    watcher = Watcher(memory, count)
    for number in range(count):
        memory.set("a", number)
    assert [change.version for change in watcher.result()] == list(range(1, count + 1))


def test_a_watch_begins_at_the_call_not_at_the_first_step(memory):
    memory.set("before", 1)
    watch = memory.watch(timeout=0)
    memory.set("after", 1)
    assert [change.key for change in watch] == ["after"]


def test_a_watch_goes_on_behind_a_cursor(memory):
    memory.set("a", 1)
    cursor = memory.cursor()
    memory.set("b", 1)
    memory.set("c", 1)
    changes = list(memory.watch(after=cursor, timeout=0))
    assert [change.key for change in changes] == ["b", "c"]
    assert [change.key for change in memory.watch(after=changes[0].cursor, timeout=0)] == ["c"]
    assert [change.key for change in memory.watch(after="", timeout=0)] == ["a", "b", "c"]


def test_a_watch_ends_when_its_time_is_up(memory):
    assert list(memory.watch(timeout=0)) == []
    assert list(memory.watch(timeout=0.05)) == []


def test_a_watcher_over_a_subtree_sees_all_below(store):
    watcher = Watcher(Memory("a", store=store), 3, subtree=True)
    for name in ("ab", "a/b", "a", "b", "a/b/c"):
        Memory(name, store=store).set("k", 1)
    assert [change.namespace for change in watcher.result()] == ["a/b", "a", "a/b/c"]


def test_a_watcher_of_one_namespace_is_not_shown_others(store):
    watcher = Watcher(Memory("a", store=store), 1)
    Memory("a/b", store=store).set("k", 1)
    Memory("a", store=store).set("mine", 1)
    assert [change.key for change in watcher.result()] == ["mine"]


def test_messages_wake_watchers_too(memory):
    watcher = Watcher(memory, 2)
    memory.conversation("t").extend(["a", "b"])
    assert [(change.kind, change.conversation) for change in watcher.result()] == [("appended", "t")] * 2


def test_many_watchers_see_the_same(memory):
    watchers = [Watcher(memory, 20) for _ in range(6)]
    for number in range(20):
        memory.set(f"k{number}", number)
    results = [watcher.result() for watcher in watchers]
    assert all(result == results[0] for result in results)


def test_many_writers_and_a_watcher(store):
    memory = Memory("user-42", store=store)
    watcher = Watcher(memory, 80)

    def write(name):
        for number in range(20):
            memory.set(name, number)

    threads = [threading.Thread(target=write, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [change.version for change in watcher.result()] == list(range(1, 81))


def test_a_watcher_is_told_when_its_feed_was_cut(memory):
    memory.set("a", 1)
    watch = memory.watch(timeout=30)
    memory.erase()
    memory.set("b", 1)
    with pytest.raises(CursorExpired):
        next(watch)


def test_a_waiting_watcher_is_told_when_its_feed_was_cut(memory):
    memory.set("a", 1)
    watcher = Watcher(memory, 2)
    memory.set("a", 2)
    memory.erase()
    memory.set("b", 1)
    with pytest.raises(CursorExpired):
        watcher.result()


def test_wait_says_whether_there_may_be_something(store, memory):
    cursor = memory.cursor()
    assert store.wait("user-42", cursor, 0) is False
    memory.set("a", 1)
    assert store.wait("user-42", cursor, 0) is True
    assert store.wait("user-42", memory.cursor(), 0.01) is False
    above = store.wait("", Memory("x", store=store).cursor(subtree=True), 0.01, subtree=True)
    assert above is False


def test_a_batch_that_failed_wakes_nobody_with_something(memory):
    watch = memory.watch(timeout=0.05)
    with pytest.raises(Conflict):
        memory.execute([Put("user-42", "a", Raw(b"1")), Put("user-42", "b", Raw(b"1"), if_version=9)])
    assert list(watch) == []
