"""Rule: the feed says what changed, in order, without values. A cursor before its horizon expires: no silent skip."""

import json

import msgspec
import pytest
from msgspec import Raw

from botwire import CursorExpired, InvalidInput, Memory
from botwire.ops import Changes, Erase, Namespaces, Put


def kinds(changes):
    return [(change.kind, change.key or change.conversation) for change in changes]


def read_all(store, namespace, after, *, subtree=False, limit=3):
    """The feed behind a cursor, page by page, and the cursor at its end."""
    changes = []
    while True:
        [page] = store.execute([Changes(namespace, after, subtree, limit)])
        assert len(page.changes) <= limit
        changes += page.changes
        assert page.more or not page.changes or page.cursor == page.changes[-1].cursor
        after = page.cursor
        if not page.more:
            return changes, after


def test_the_feed_names_every_change_in_order(memory, clock):
    talk = memory.conversation("talk")
    memory.set("a", "value")
    clock.advance(1)
    memory.set("a", "value")
    memory.touch("a", 60)
    memory.delete("a")
    talk.extend(["one", "two"])
    talk.append("three", id="m3")
    talk.edit("m3", "four")
    talk.redact("m3")
    talk.pop()
    talk.clear()
    memory.set("b", 1)
    memory.clear()
    changes = memory.changes("")
    assert kinds(changes) == [
        ("set", "a"),
        ("set", "a"),
        ("touched", "a"),
        ("deleted", "a"),
        ("appended", "talk"),
        ("appended", "talk"),
        ("appended", "talk"),
        ("edited", "talk"),
        ("edited", "talk"),
        ("trimmed", "talk"),
        ("cleared", "talk"),
        ("set", "b"),
        ("cleared", None),
    ]
    assert [change.version for change in changes] == list(range(1, 14))
    assert [change.at for change in changes] == [clock.ago(1)] + [clock.at] * 12
    assert {change.namespace for change in changes} == {"user-42"}
    assert [change.key for change in changes[4:11]] == [None] * 7
    assert [change.conversation for change in changes[:4]] == [None] * 4


def test_the_feed_holds_no_values(memory):
    memory.set("a", "a secret", tags=["hush"], author="somebody")
    memory.conversation("talk").append({"role": "user", "content": "a secret"}, id="hidden-id", author="somebody")
    text = json.dumps(msgspec.to_builtins(memory.changes("")))
    assert "secret" not in text
    assert "hush" not in text
    assert "somebody" not in text


def test_a_cursor_goes_on_where_one_stopped(store, memory):
    start = memory.cursor()
    assert memory.changes(start) == []
    versions = [memory.set(f"k{number}", number).version for number in range(10)]
    changes, end = read_all(store, "user-42", start)
    assert [change.version for change in changes] == versions
    for change in changes:
        rest, _ = read_all(store, "user-42", change.cursor)
        assert [each.version for each in rest] == list(range(change.version + 1, 11))
    assert memory.cursor() == end
    memory.set("more", 1)
    assert kinds(memory.changes(end)) == [("set", "more")]


def test_reading_the_feed_of_what_is_not_there(memory):
    assert memory.changes("") == memory.changes() == memory.changes(memory.cursor()) == []
    start = memory.cursor()
    memory.set("a", 1)
    assert kinds(memory.changes(start)) == [("set", "a")]


def test_a_page_of_none_goes_nowhere(store, memory):
    memory.set_many({"a": 1, "b": 2})
    [page] = store.execute([Changes("user-42", "", limit=0)])
    assert (page.changes, page.more) == ([], True)
    assert kinds(memory.changes(page.cursor)) == [("set", "a"), ("set", "b")]


# ── subtrees ──


def test_a_feed_over_a_subtree_has_everything_below_in_the_order_of_commits(store):
    top = Memory("acme", store=store)
    start = top.cursor(subtree=True)
    names = ["acme", "acme/eu", "acme!", "acme/eu/user-42", "acmes", "acme.", "other", "acme/us"]
    wanted = []
    for number in range(24):
        name = names[number % len(names)]
        Memory(name, store=store).set(f"k{number}", number)
        if name == "acme" or name.startswith("acme/"):
            wanted.append((name, f"k{number}"))
    for limit in (1, 4, 100):
        changes, _ = read_all(store, "acme", start, subtree=True, limit=limit)
        assert [(change.namespace, change.key) for change in changes] == wanted
    for place, change in enumerate(changes):
        rest, _ = read_all(store, "acme", change.cursor, subtree=True)
        assert [(each.namespace, each.key) for each in rest] == wanted[place + 1 :]
    everything, _ = read_all(store, "", "", subtree=True)
    assert len(everything) == 24


def test_a_feed_over_a_batch_keeps_the_order_inside_it(store):
    start = Memory("a", store=store).cursor(subtree=True)
    store.execute([Put(name, "k", Raw(b"1")) for name in ("a/z", "a/b", "a", "a/b", "a/z")])
    changes, _ = read_all(store, "a", start, subtree=True)
    assert [(change.namespace, change.version) for change in changes] == [
        ("a/z", 1),
        ("a/b", 1),
        ("a", 1),
        ("a/b", 2),
        ("a/z", 2),
    ]


# ── the horizon ──


@pytest.mark.parametrize("subtree", [False, True])
@pytest.mark.parametrize("limits", [{"feed": 20}, {"feed_max_age": 50.0}, {"feed": 0}, {"feed_max_age": 0}])
def test_a_trimmed_feed_expires_old_cursors_and_skips_nothing(store, memory, clock, limits, subtree):
    """Whatever cursor one holds: either the feed from there is whole, or it says that it is not."""
    memory.configure(**limits)
    cursors = {0: memory.cursor(subtree=subtree)}
    for number in range(1, 401):
        ops = [Put("user-42", "a", Raw(b"%d" % number)), Changes("user-42", None, subtree)]
        stamp, now = store.execute(ops)
        assert stamp.version == number
        cursors[number] = now.cursor
        clock.advance(1)
    expired = 0
    for number, cursor in cursors.items():
        try:
            changes, _ = read_all(store, "user-42", cursor, subtree=subtree, limit=200)
        except CursorExpired:
            expired += 1
            assert number < 400, "a reader at the end has missed nothing"
        else:
            assert [change.version for change in changes] == list(range(number + 1, 401))
    assert expired > 200


def test_the_feed_keeps_as_much_as_it_promises(store, memory):
    memory.configure(feed=100)
    for number in range(500):
        memory.set("a", number)
    changes, _ = read_all(store, "user-42", "", limit=1000)
    assert [change.version for change in changes][-100:] == list(range(401, 501))


def test_the_beginning_of_a_trimmed_feed_is_where_it_begins(store, memory):
    memory.configure(feed=10)
    for number in range(300):
        memory.set("a", number)
    changes, _ = read_all(store, "user-42", "")
    assert [change.version for change in changes] == list(range(changes[0].version, 301))
    with pytest.raises(CursorExpired, match="user-42"):
        memory.changes("v0")


def test_a_trim_in_one_namespace_expires_subtree_cursors_above_it_only(store):
    busy, calm = Memory("a/busy", store=store), Memory("b/calm", store=store)
    busy.configure(feed=10)
    above, beside = (Memory(name, store=store).cursor(subtree=True) for name in ("a", "b"))
    calm_cursor = calm.cursor()
    for number in range(300):
        busy.set("k", number)
    calm.set("k", 1)
    with pytest.raises(CursorExpired):
        Memory("a", store=store).changes(above, subtree=True)
    assert kinds(Memory("b", store=store).changes(beside, subtree=True)) == [("set", "k")]
    assert kinds(calm.changes(calm_cursor)) == [("set", "k")]


ERASES = {
    "the namespace": lambda memory: memory.erase(),
    "its subtree": lambda memory: memory.erase(subtree=True),
    "a key": lambda memory: memory.erase("a"),
    "a conversation": lambda memory: memory.erase(conversation="talk"),
}


@pytest.mark.parametrize("subtree", [False, True])
@pytest.mark.parametrize("what", ERASES)
@pytest.mark.parametrize("again", [False, True], ids=["gone", "made again"])
def test_an_erase_expires_every_cursor_from_before_it(memory, what, subtree, again):
    cursors = [memory.cursor(subtree=subtree)]
    memory.set("a", 1)
    cursors.append(memory.cursor(subtree=subtree))
    memory.conversation("talk").append("hi")
    cursors.append(memory.cursor(subtree=subtree))
    ERASES[what](memory)
    if again:
        memory.set("b", 1)
    for cursor in cursors:
        with pytest.raises(CursorExpired):
            memory.changes(cursor, subtree=subtree)
    now = memory.cursor(subtree=subtree)
    memory.set("c", 1)
    assert kinds(memory.changes(now, subtree=subtree)) == [("set", "c")]


def test_an_erase_expires_the_cursors_of_the_whole_store_too(store):
    Memory("a/b", store=store).set("k", 1)
    cursor = store.execute([Changes("", None, subtree=True)])[0].cursor
    Memory("a/b", store=store).erase()
    with pytest.raises(CursorExpired):
        store.execute([Changes("", cursor, subtree=True)])


def test_an_erase_elsewhere_expires_nothing(store):
    one, two = Memory("one", store=store), Memory("two/deep", store=store)
    two.set("k", 1)
    one.set("k", 1)
    cursor, below = one.cursor(), Memory("one", store=store).cursor(subtree=True)
    two.erase()
    one.set("l", 1)
    assert kinds(one.changes(cursor)) == [("set", "l")]
    assert kinds(one.changes(below, subtree=True)) == [("set", "l")]


def test_what_is_erased_leaves_the_feed(store, memory):
    memory.set("private", 1)
    memory.set("public", 1)
    memory.erase("private")
    memory.set("next", 1)
    assert "private" not in repr(memory.changes(""))
    assert "private" not in repr(store.execute([Changes("", "", subtree=True)]))
    memory.erase()
    assert memory.changes("") == []
    assert store.execute([Changes("", "", subtree=True)])[0].changes == []
    assert store.execute([Namespaces("")])[0].namespaces == []


@pytest.mark.parametrize("subtree", [False, True])
def test_an_import_is_no_silent_skip(store, subtree):
    """What an import brings is in no feed: whoever watched the place must be told to read it afresh."""
    source, target = Memory("source", store=store), Memory("watched/target", store=store)
    source.set("a", 1)
    for _ in range(5):  # versions are ahead of the source's
        target.set("a", 1)
    target.erase()
    watched = Memory("watched", store=store) if subtree else target
    cursor = watched.cursor(subtree=subtree)
    source.copy_to(target)
    with pytest.raises(CursorExpired):
        watched.changes(cursor, subtree=subtree)


def test_a_cursor_of_elsewhere_is_refused(store, memory):
    memory.set("a", 1)
    for cursor in ("v1000000", "v99999999999999999999999"):
        with pytest.raises(CursorExpired):
            memory.changes(cursor)
    with pytest.raises(CursorExpired):
        memory.changes("s1000000", subtree=True)


@pytest.mark.parametrize("cursor", ["x", "v", "v-1", "1", "v1.5", "vabc", "🙂", "v²", " ", "v1 "])
def test_what_is_no_cursor_is_refused(memory, cursor):
    memory.set("a", 1)
    for subtree in (False, True):
        with pytest.raises(InvalidInput, match="cursor"):
            memory.changes(cursor, subtree=subtree)


def test_a_cursor_fits_its_own_scope(memory):
    memory.set("a", 1)
    with pytest.raises(InvalidInput, match="subtree"):
        memory.changes(memory.cursor(subtree=True))
    with pytest.raises(InvalidInput, match="one namespace"):
        memory.changes(memory.cursor(), subtree=True)


def test_an_erased_namespace_expires_cursors_over_what_lay_below(store):
    Memory("a", store=store).set("k", 1)
    Memory("a/b", store=store).set("k", 1)
    cursor = Memory("a", store=store).cursor(subtree=True)
    store.execute([Erase("a/b")])
    with pytest.raises(CursorExpired):
        Memory("a", store=store).changes(cursor, subtree=True)
