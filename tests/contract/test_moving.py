"""Rule: an export is lossless and imports into an empty namespace to an equal one; what is broken leaves it empty."""

import io
import json
import random
import threading

import msgspec
import pytest

from botwire import BotWireError, Conflict, InvalidInput, Memory, StoreUnavailable
from botwire.ops import Dump, EndRecord, Load, NamespaceRecord


def fill(memory, clock, count=40, seed=1):
    """A bit of everything."""
    dice = random.Random(seed)
    memory.configure(history=20, max_items=10_000)
    for number in range(count):
        key = f"ключ/{dice.randrange(count // 3)}"
        memory.set(
            key, {"n": number, "text": "ü" * dice.randrange(400)}, tags=["t"] if number % 3 else [], author="ann"
        )
        clock.advance(dice.random() * 100)
        if number % 5 == 0:
            memory.delete(key)
        if number % 7 == 0:
            memory.set(f"expires{number}", number, ttl=1_000)
            memory.touch(f"expires{number}", 100_000)
        if number % 11 == 0:
            memory.undo(key)
    talk = memory.conversation("thread 🙂")
    talk.extend([{"role": "user", "content": str(number)} for number in range(count)])
    talk.append("named", id="m1", role="assistant", author="bot", at=clock.ago(10**6))
    talk.edit("m1", "edited")
    talk.redact("#" + str(talk.messages()[3].version))
    talk.pop()
    memory.conversation("empty").append("x")
    memory.conversation("empty").pop()
    memory.set("last", [1.0, 10**40, None, '{"a":1}'])
    memory.touch("last", 10**6)


def facts(memory):
    """All that can be known of a namespace, apart from its name and today's meter."""
    stats = memory.stats()
    return {
        "records": [msgspec.json.encode(record) for record in memory.records()],
        "stats": msgspec.structs.replace(stats, name="", writes_today=0),
        "items": [msgspec.structs.replace(item, namespace="") for item in memory.items()],
        "histories": {item.key: memory.history(item.key) for item in memory.items()},
        "conversations": [msgspec.structs.replace(info, namespace="") for info in memory.conversations()],
        "messages": [
            [msgspec.structs.replace(message, namespace="") for message in memory.conversation(info.name).messages()]
            for info in memory.conversations()
        ],
    }


def exported(memory):
    stream = io.BytesIO()
    memory.export(stream)
    return stream.getvalue()


def imported(memory, data):
    return memory.import_(io.BytesIO(data))


# ── there and back ──


def test_an_import_makes_an_equal_namespace(memory, store, clock):
    fill(memory, clock)
    copy = Memory("elsewhere/copy", store=store)
    info = imported(copy, exported(memory))
    assert facts(copy) == facts(memory)
    assert info == copy.stats()
    assert exported(copy).splitlines()[1:] == exported(memory).splitlines()[1:]


def test_an_import_into_another_store_makes_an_equal_namespace(memory, new_store, clock):
    fill(memory, clock)
    copy = Memory("user-42", store=new_store("other"))
    imported(copy, exported(memory))
    assert facts(copy) == facts(memory)


def test_copy_to_makes_an_equal_namespace(memory, store, new_store, clock):
    fill(memory, clock)
    before = facts(memory)
    for copy in (Memory("copy", store=store), Memory("user-42", store=new_store("other"))):
        assert memory.copy_to(copy) == copy.stats()
        assert facts(copy) == before
    assert facts(memory) == before


def test_a_copy_of_a_copy_is_equal_still(memory, new_store, clock):
    fill(memory, clock)
    for name in ("second", "third"):
        copy = Memory("user-42", store=new_store(name))
        memory.copy_to(copy)
        assert facts(copy) == facts(memory)
        memory = copy


def test_what_was_long_ago_stays_readable_in_the_copy(memory, store, clock):
    versions = {}
    for number in range(12):
        item = memory.set("a", f"{number} " + "x" * 600)
        versions[item.version] = (item.value, clock.at)
        clock.advance(60)
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    for version, (value, when) in versions.items():
        assert copy.get("a", as_of=version) == copy.get("a", as_of=when) == value
    assert copy.undo("a") == copy.item("a")
    assert copy["a"].startswith("10 ")


def test_what_is_beyond_the_horizon_of_one_is_beyond_that_of_the_copy(memory, store, clock):
    from botwire import HistoryExpired

    for number in range(30):
        memory.set("a", number)
    memory.set("b", 1)
    memory.erase("b")
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    for key, version in (("a", 3), ("b", 31)):
        for place in (memory, copy):
            with pytest.raises(HistoryExpired):
                place.get(key, as_of=version)


def test_life_goes_on_in_the_copy(memory, store, clock):
    fill(memory, clock)
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    version = copy.stats().version
    assert copy.set("last", "new", if_version=next(copy.items(prefix="last")).version).version == version + 1
    assert copy.conversation("thread 🙂").append("more").version == version + 2
    assert copy.history("last")[1].value == [1.0, 10**40, None, '{"a":1}']
    cursor = copy.cursor()
    copy.set("x", 1)
    assert [change.key for change in copy.changes(cursor)] == ["x"]


def test_expiry_goes_on_in_the_copy(memory, store, clock):
    memory.set("a", 1, ttl=100)
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    clock.advance(99)
    assert copy.get("a") == 1
    clock.advance(1)
    assert copy.get("a") is None
    cursor = copy.cursor()
    copy.set("b", 1)
    assert [change.kind for change in copy.changes(cursor)] == ["expired", "set"]


def test_an_empty_namespace_can_be_moved(memory, store):
    copy = Memory("copy", store=store)
    imported(copy, exported(memory))
    assert (copy.keys(), copy.stats().version) == ([], 0)
    copy.set("a", 1)


def test_a_namespace_with_nothing_but_a_policy_can_be_moved(memory, store):
    memory.configure(max_items=3)
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    assert copy.stats().policy.max_items == 3


def test_an_import_above_old_cursors_takes_higher_versions(memory, store):
    """A place that was erased may take a namespace whose versions are lower: what is written next is above both."""
    memory.set("a", 1)
    target = Memory("target", store=store)
    last = [target.set("x", number).version for number in range(20)][-1]
    target.erase()
    memory.copy_to(target)
    assert target.set("b", 1).version > last
    with pytest.raises(Conflict):
        target.set("x", 1, if_version=last)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_a_dump_hold_everything_once(store, memory, clock, limit):
    fill(memory, clock)
    whole = [msgspec.json.encode(record) for record in memory.records()]
    found: list[bytes] = []
    op: Dump | None = Dump("user-42", limit=limit)
    while op is not None:
        [page] = store.execute([op])
        found += [msgspec.json.encode(record) for record in page.records]
        op = None if page.cursor is None else Dump("user-42", limit=limit, cursor=page.cursor)
    assert found == whole


def test_many_conversations_and_items_are_moved(memory, store, rounds):
    count = rounds(1_100, 20_000)
    for start in range(0, count, 1_000):
        memory.set_many({f"k{number}": number for number in range(start, min(start + 1_000, count))})
    for number in range(12):
        memory.conversation(f"t{number}").extend(list(range(number * 100)))
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    assert facts(copy) == facts(memory)


def test_an_export_taken_while_others_write_can_be_imported(memory, store):
    memory.set_many({f"k{number:04}": number for number in range(1_200)})
    talk = memory.conversation("t")
    talk.extend(list(range(700)))
    records, copy = [], Memory("copy", store=store)
    for place, record in enumerate(memory.records()):
        records.append(record)
        if place % 300 == 0:
            memory.set(f"a{place}", "before what was read")
            memory.set(f"z{place}", "behind it")
            memory.delete(f"k{place + 5:04}")
            talk.append(place)
            talk.pop()
            talk.pop()
    copy.load([records])
    assert set(copy.keys()) >= {f"k{number:04}" for number in range(1_200) if number % 300 != 5}
    assert len(copy) == len(copy.keys())


def test_an_export_is_one_json_object_a_line(memory, clock):
    fill(memory, clock)
    lines = exported(memory).splitlines()
    head, *records, end = [json.loads(line) for line in lines]
    assert head == {"botwire_export": 1, "namespace": "user-42"}
    assert records[0]["kind"] == "namespace"
    assert {record["kind"] for record in records[1:]} == {"item", "conversation", "message"}
    assert end["kind"] == "end"


# ── files ──


def test_files_are_written_whole_or_not_at_all(memory, tmp_path):
    target = tmp_path / "export.jsonl"
    memory.set("a", "first")
    assert isinstance(memory.export(target), EndRecord)
    first = target.read_bytes()
    memory.set("a", "second")

    with pytest.raises(ZeroDivisionError):
        BreakingOff(memory.namespace, store=memory._store).export(target)
    assert target.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    memory.export(str(target))
    assert b"second" in target.read_bytes()


class BreakingOff(Memory):
    """A memory whose records break off."""

    def records(self, *, stored=False):
        yield from list(super().records(stored=stored))[:2]
        raise ZeroDivisionError


def test_files_that_cannot_be_written_or_read_are_errors(memory, tmp_path):
    memory.set("a", 1)
    with pytest.raises(StoreUnavailable):
        memory.export(tmp_path / "no such folder" / "file")
    with pytest.raises(InvalidInput):
        memory.import_(tmp_path / "no such file")
    with pytest.raises(BotWireError):
        memory.export(tmp_path)


# ── what is broken ──


def lines_of(memory, clock):
    fill(memory, clock, count=25)
    return exported(memory).splitlines(keepends=True)


def swapped(line, old, new):
    assert old in line
    return line.replace(old, new, 1)


BROKEN = {
    "nothing": lambda lines: [],
    "no header": lambda lines: lines[1:],
    "a header alone": lambda lines: lines[:1],
    "another kind of file": lambda lines: [b"key,value\n", b"a,1\n"],
    "other json": lambda lines: [b"[1, 2, 3]\n"],
    "a newer format": lambda lines: [b'{"botwire_export":99,"namespace":"x"}\n', *lines[1:]],
    "cut off at the end": lambda lines: lines[:-1],
    "cut off in the middle": lambda lines: lines[: len(lines) // 2],
    "cut off in a line": lambda lines: [*lines[:-3], lines[-3][:10]],
    "an item is missing": lambda lines: [line for place, line in enumerate(lines) if place != 3],
    "a message is missing": lambda lines: [line for place, line in enumerate(lines) if place != len(lines) - 2],
    "an item twice": lambda lines: [*lines[:4], lines[3], *lines[4:]],
    "a message twice": lambda lines: [*lines[:-1], lines[-2], lines[-1]],
    "something after the end": lambda lines: [*lines, lines[3]],
    "two ends": lambda lines: [*lines, lines[-1]],
    "no beginning": lambda lines: [lines[0], *lines[2:]],
    "two beginnings": lambda lines: [*lines[:5], lines[1], *lines[5:]],
    "an unknown record": lambda lines: [*lines[:3], b'{"kind":"rumour"}\n', *lines[3:]],
    "bytes that are no text": lambda lines: [*lines[:3], b"\xff\xfe\n", *lines[3:]],
    "a null byte in a key": lambda lines: [*lines[:2], swapped(lines[2], b'"key":"', b'"key":"\\u0000'), *lines[3:]],
    "an empty key": lambda lines: [
        *lines[:2],
        msgspec.json.encode({**msgspec.json.decode(lines[2]), "key": ""}) + b"\n",
        *lines[3:],
    ],
    "an item without revisions": lambda lines: [
        *lines[:2],
        msgspec.json.encode({**msgspec.json.decode(lines[2]), "revisions": []}) + b"\n",
        *lines[3:],
    ],
    "a version that is none": lambda lines: [
        *lines[:2],
        swapped(lines[2], b'"version":', b'"version":-'),
        *lines[3:],
    ],
    "a version beyond all": lambda lines: [
        lines[0],
        swapped(lines[1], b'"version":', b'"version":9999999999999'),
        *lines[2:],
    ],
    "deep brackets": lambda lines: [*lines[:3], b"[" * 100_000 + b"\n", *lines[3:]],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_import_leaves_the_namespace_empty_and_usable(memory, store, clock, how):
    lines = BROKEN[how](lines_of(memory, clock))
    copy = Memory("copy", store=store)
    with pytest.raises(BotWireError):
        imported(copy, b"".join(lines))
    assert (copy.keys(), list(copy.conversations()), len(copy)) == ([], [], 0)
    assert list(Memory("copy", store=store).namespaces()) == []
    copy.set("a", 1)
    assert copy.get("a") == 1
    copy.erase()
    memory.copy_to(copy)
    assert copy.keys() == memory.keys()


def test_a_broken_line_is_named(memory, store, clock):
    lines = lines_of(memory, clock)
    with pytest.raises(InvalidInput, match="line 6"):
        imported(Memory("copy", store=store), b"".join([*lines[:5], b"nonsense\n", *lines[5:]]))


VALUES = [b"NaN", b"[1,]", b"{'a':1}", b'"a', b"01", b"[" * 200 + b"]" * 200, b'"' + b"x" * (1024 * 1024) + b'"']


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:8].decode())
def test_an_import_checks_values_as_a_set_does(store, value):
    """What could not be set must not come in by the back door: it could not be read again."""
    lines = [
        b'{"botwire_export":1,"namespace":"x"}\n',
        b'{"kind":"namespace","version":1,"created":1,"updated":1}\n',
        b'{"kind":"item","key":"a","created":1,"revisions":[{"value":' + value + b',"version":1,"updated":1}]}\n',
        b'{"kind":"end","version":1,"items":1,"messages":0}\n',
    ]
    copy = Memory("copy", store=store)
    with pytest.raises(InvalidInput):
        imported(copy, b"".join(lines))
    assert copy.keys() == []


def test_an_import_goes_into_an_empty_namespace_only(memory, store, clock):
    fill(memory, clock)
    for occupy in (lambda other: other.set("a", 1), lambda other: other.conversation("t").append("x")):
        other = Memory("other", store=store)
        occupy(other)
        before = facts(other)
        with pytest.raises(Conflict, match="not empty"):
            memory.copy_to(other)
        with pytest.raises(Conflict, match="not empty"):
            imported(other, exported(memory))
        assert facts(other) == before
        other.erase()


def test_a_namespace_cannot_be_copied_onto_itself(memory, clock):
    fill(memory, clock)
    before = facts(memory)
    with pytest.raises(Conflict):
        memory.copy_to(memory)
    assert facts(memory) == before


def test_nobody_writes_into_a_half_imported_namespace_and_it_can_be_tried_again(memory, store, clock):
    fill(memory, clock)
    records = list(memory.records())
    copy = Memory("copy", store=store)
    store.execute([Load("copy", records[:5])])  # … and here its process was killed
    for write in (lambda: copy.set("a", 1), lambda: copy.conversation("t").append("x"), copy.clear):
        with pytest.raises(Conflict, match="import"):
            write()
    memory.copy_to(copy)
    assert facts(copy) == facts(memory)


def test_an_import_that_was_cut_off_can_be_erased(memory, store, clock):
    fill(memory, clock)
    store.execute([Load("copy", list(memory.records())[:5])])
    copy = Memory("copy", store=store)
    copy.erase()
    copy.set("a", 1)
    assert copy.keys() == ["a"]


def test_a_load_begins_with_its_beginning(store, memory):
    memory.set("a", 1)
    _, item, _end = list(memory.records())
    with pytest.raises(InvalidInput):
        store.execute([Load("copy", [item])])
    with pytest.raises(InvalidInput):
        memory.load([[item]])
    assert memory.get("a") == 1
    assert store.execute([Load("copy", [])])[0].items == 0


def test_a_failed_load_of_nothing_leaves_alone_what_somebody_else_is_loading(store, memory, clock):
    """Only what this import has begun is taken back."""
    fill(memory, clock)
    with pytest.raises(InvalidInput):
        imported(memory, b"nonsense\n")
    assert len(memory) > 0


def test_an_import_stopped_by_an_interruption_leaves_it_empty(memory, store, clock):
    fill(memory, clock)

    def batches():
        yield list(memory.records())[:5]
        raise KeyboardInterrupt

    copy = Memory("copy", store=store)
    with pytest.raises(KeyboardInterrupt):
        copy.load(batches())
    assert copy.keys() == []
    copy.set("a", 1)


def test_two_exports_at_once_are_equal(memory, clock):
    fill(memory, clock)
    found = []
    threads = [threading.Thread(target=lambda: found.append(exported(memory))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_records_of_nothing_begin_and_end(memory):
    assert [type(record) for record in memory.records()] == [NamespaceRecord, EndRecord]
