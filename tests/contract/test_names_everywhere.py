"""Rule: names are Unicode of 1 to 512 bytes without control characters; they are what they are, never patterns."""

import pytest

from botwire import BotWireError, InvalidInput, Memory, TooLarge
from botwire.ops import Changes, Describe, Erase, Namespaces, Scan

NAMES = [
    "a",
    "coffee",
    " leading and trailing ",
    "a/b",
    "/",
    "//",
    "/a/",
    "..",
    ".",
    "a.b",
    "%",
    "_",
    "a%",
    "*",
    "?",
    "[a-z]",
    "'",
    '"',
    "\\",
    "`",
    ";--",
    "' OR 1=1",
    "null",
    "None",
    "0",
    "#1",
    "v1",
    "🙂",
    "👩‍👩‍👧‍👦",
    "漢字",
    "é",
    "e\u0301",
    "É",
    "ẞ",
    "ß",
    "ss",
    "\u00a0",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\ufffe",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "a" * 512,
    "é" * 256,
    "🙂" * 128,
]
BAD_NAMES = ["", "\x00", "a\x00b", "a\nb", "\t", "\x1f", "\x7f", "\x80", "\x9f", "\ud800", "a\udfffb"]
TOO_LONG = ["a" * 513, "é" * 257, "🙂" * 129, "a" * 100_000]
NO_NAMES = [None, 1, b"a", ["a"], 1.5, True]


def test_all_kinds_of_names_are_kept_apart(memory):
    for number, name in enumerate(NAMES):
        memory.set(name, number)
        memory.conversation(name).append(number)
    assert memory.keys() == sorted(NAMES)
    assert [info.name for info in memory.conversations()] == sorted(NAMES)
    for number, name in enumerate(NAMES):
        assert memory.get(name) == number
        assert name in memory
        assert [message.value for message in memory.conversation(name).messages()] == [number]
        assert memory.history(name)[0].value == number
    assert {change.key or change.conversation for change in memory.changes("", limit=1_000)} == set(NAMES)
    for name in NAMES:
        assert memory.delete(name)
    assert memory.keys() == []


def test_authors_tags_and_message_ids_take_the_same_names(memory):
    talk = memory.conversation("t")
    for name in NAMES:
        item = memory.set("a", 1, author=name, tags=[name])
        assert (item.author, item.tags) == (name, (name,))
        assert [each.key for each in memory.items(author=name)] == ["a"]
        assert [each.key for each in memory.items(tags=[name])] == ["a"]
        if not name.startswith("#"):
            talk.append(name, id=name, role=name, author=name)
            message = talk.message(name)
            assert (message.id, message.role, message.author, message.value) == (name, name, name, name)
    assert len(talk) == len([name for name in NAMES if not name.startswith("#")])


def namespace_names():
    return [name for name in NAMES if "" not in name.split("/")]


def test_namespaces_take_them_too_and_a_slash_makes_levels(store):
    for name in namespace_names():
        Memory(name, store=store).set("k", name)
    [page] = store.execute([Namespaces("", limit=1_000)])
    assert [info.name for info in page.namespaces] == sorted(name for name in namespace_names() if name[0] != ".")
    for name in namespace_names():
        assert Memory(name, store=store).get("k") == name


@pytest.mark.parametrize("namespace", ["/", "/a", "a/", "a//b", "//", *BAD_NAMES])
def test_a_namespace_with_an_empty_level_is_refused(store, namespace):
    with pytest.raises(InvalidInput, match="namespace"):
        Memory(namespace, store=store)


def uses(memory, name):
    """Everything that takes a name."""
    talk = memory.conversation("t")
    yield lambda: memory.set(name, 1)
    yield lambda: memory.get(name)
    yield lambda: memory.get(name, as_of=1)
    yield lambda: memory.item(name)
    yield lambda: memory.get_many(["a", name])
    yield lambda: memory.set_many({"b": 1, name: 1}) if not isinstance(name, list) else memory.set(name, 1)
    yield lambda: memory.delete(name)
    yield lambda: memory.touch(name, 5)
    yield lambda: memory.update(name, lambda _: 1)
    yield lambda: memory.increment(name)
    yield lambda: memory.setdefault(name, 1)
    yield lambda: memory.pop(name, None)
    yield lambda: memory.history(name)
    yield lambda: memory.undo(name)
    yield lambda: memory.conversation(name)
    yield lambda: memory[name]
    yield lambda: memory.set("a", 1, tags=[name])
    yield lambda: memory.items(tags=[name])
    yield lambda: Memory(name, url="sqlite://")
    if name is not None:
        yield lambda: memory.erase(name)
        yield lambda: memory.erase(conversation=name)
        yield lambda: talk.append(1, id=name)
        yield lambda: talk.append(1, role=name)
    if name:
        yield lambda: memory.keys(name)
        yield lambda: list(memory.items(prefix=name))
        yield lambda: list(memory.conversations(name))
        yield lambda: memory.set("a", 1, author=name)
        yield lambda: talk.append(1, author=name)
        yield lambda: Memory("a", url="sqlite://", author=name)


@pytest.mark.parametrize("filled", [False, True], ids=["no namespace", "a namespace"])
@pytest.mark.parametrize("name", [*BAD_NAMES, *TOO_LONG, *NO_NAMES], ids=lambda name: ascii(name)[:20])
def test_what_is_no_name_is_refused_wherever_it_is_given(memory, name, filled):
    if filled:
        memory.set("a", "kept")
        assert memory.get("a") == "kept"  # a store may remember where the namespace is
    before = memory.stats()
    for place, use in enumerate(uses(memory, name)):
        with pytest.raises(InvalidInput):
            raise AssertionError(f"use {place} took {name!r} and answered {use()!r}")
    assert memory.stats() == before


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_name_that_is_too_long_says_how_long_it_may_be(memory, name):
    with pytest.raises(TooLarge, match="512"):
        memory.set(name, 1)


def test_prefixes_are_text_not_patterns(memory):
    keys = ["%a", "_a", "*a", "?a", "[ab]c", "a%", "a_", "abc", "ABC", "a\\b"]
    memory.set_many(dict.fromkeys(keys, 1))
    for prefix in ["%", "_", "*", "?", "[", "a", "A", "a%", "a_", "a\\", "ab", "abc", "abcd"]:
        assert memory.keys(prefix) == sorted(key for key in keys if key.startswith(prefix))


@pytest.mark.parametrize("name", [*BAD_NAMES, *TOO_LONG, "#", "#x", "#-1", "#0", "#99999999999999999999", "#²", "#١"])
def test_no_message_is_found_under_what_is_no_name(memory, name):
    talk = memory.conversation("t")
    talk.append("kept")
    assert talk.message(name) is None
    assert talk.delete(name) is False
    for change in (lambda: talk.edit(name, 1), lambda: talk.redact(name)):
        with pytest.raises(BotWireError):
            change()
    assert [message.value for message in talk.messages()] == ["kept"]


def test_ids_that_botwire_gives_cannot_be_taken(memory):
    talk = memory.conversation("t")
    assert talk.append("a").id == "#1"
    with pytest.raises(InvalidInput, match="#"):
        talk.append("b", id="#2")


def test_tags_are_a_sorted_set(memory):
    assert memory.set("a", 1, tags=["b", "a", "b"]).tags == ("a", "b")
    assert memory.item("a").tags == ("a", "b")
    with pytest.raises(InvalidInput, match="list of strings"):
        memory.set("a", 1, tags="urgent")
    with pytest.raises(TooLarge, match="32"):
        memory.set("a", 1, tags=[str(number) for number in range(33)])
    memory.set("a", 1, tags=[str(number) for number in range(32)])


def test_a_look_at_the_whole_store_leaves_out_namespaces_that_begin_with_a_dot(store):
    for namespace in ("acme", ".hidden", ".hidden/keys", "a.b"):
        Memory(namespace, store=store).set("k", 1)
    page = store.execute([Namespaces("")])[0]
    assert [info.name for info in page.namespaces] == ["a.b", "acme"]
    assert {item.namespace for item in store.execute([Scan("", subtree=True)])[0].items} == {"a.b", "acme"}
    assert {each.namespace for each in store.execute([Changes("", "", subtree=True)])[0].changes} == {"a.b", "acme"}
    assert store.execute([Describe("")])[0].items == 2
    below = store.execute([Scan(".hidden", subtree=True)])[0].items
    assert [item.namespace for item in below] == [".hidden", ".hidden/keys"]  # asked for by name
    store.execute([Erase("", subtree=True)])
    assert Memory(".hidden/keys", store=store).get("k") == 1


def test_erasing_a_hidden_namespace_leaves_the_feed_of_the_store_alone(store):
    Memory("acme", store=store).set("k", 1)
    Memory(".hidden", store=store).set("k", 1)
    cursor = store.execute([Changes("", None, subtree=True)])[0].cursor
    store.execute([Erase(".hidden")])
    assert store.execute([Changes("", cursor, subtree=True)])[0].changes == []
