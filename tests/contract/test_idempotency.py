"""Rule: a write with a request id is applied once; the same again answers the same, other ops are an error."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import Raw

from botwire import Conflict, Memory, Policy, RateLimited, RequestReused
from botwire.ops import (
    Append,
    Clear,
    Configure,
    Delete,
    Edit,
    Erase,
    Get,
    Load,
    NewMessage,
    Put,
    Scan,
    Touch,
    Trim,
)


def put(key, value="1", **more):
    return Put("user-42", key, Raw(value.encode()), **more)


def say(*values, conversation="talk", **more):
    return Append("user-42", conversation, [NewMessage(Raw(value.encode()), **more) for value in values])


WRITES = {
    "put": [put("b", ttl=60)],
    "delete": [Delete("user-42", "a")],
    "delete of nothing": [Delete("user-42", "x")],
    "touch": [Touch("user-42", "a", 60)],
    "append": [say('"x"', '"y"')],
    "append with an id": [say('"x"', id="m1")],
    "edit": [Edit("user-42", "talk", "m0", Raw(b'"edited"'))],
    "edit of nothing": [Edit("user-42", "talk", "x", Raw(b'"edited"'))],
    "trim": [Trim("user-42", "talk", keep=0)],
    "clear": [Clear("user-42")],
    "clear of a conversation": [Clear("user-42", "talk")],
    "erase of a key": [Erase("user-42", "a")],
    "configure": [Configure("user-42", Policy(history=3))],
    "many": [put("b"), Delete("user-42", "a"), say('"x"'), put("b", "2")],
}


@pytest.fixture
def filled(store):
    store.execute([put("a"), put("a", "2"), say('"hello"', id="m0")])
    return Memory("user-42", store=store)


@pytest.mark.parametrize("name", WRITES)
def test_the_same_again_is_applied_once_and_answers_the_same(store, filled, name, clock):
    first = store.execute(WRITES[name], request_id="r1")
    state, records = filled.stats(), list(filled.records())
    clock.advance(5)
    for _ in range(2):
        assert store.execute(WRITES[name], request_id="r1") == first
    assert filled.stats() == state
    assert list(filled.records()) == records


def test_an_erase_of_everything_is_applied_once(store, filled):
    first = store.execute([Erase("user-42")], request_id="r1")
    assert first[0].items == 1
    new = filled.set("a", "new life")
    assert store.execute([Erase("user-42")], request_id="r1") == first
    assert filled.item("a") == new


def test_a_load_is_applied_once(store, filled):
    copy = Load("copy", list(filled.records()))
    first = store.execute([copy], request_id="r1")
    assert (first[0].items, first[0].messages) == (1, 1)
    assert store.execute([copy], request_id="r1") == first


def test_a_request_id_with_other_ops_is_an_error_and_changes_nothing(store, filled):
    store.execute([put("b")], request_id="r1")
    state = filled.stats()
    for others in ([put("b", "2")], [put("c")], [put("b"), put("b")], [Delete("user-42", "b")], [put("b", ttl=5)]):
        with pytest.raises(RequestReused, match="r1"):
            store.execute(others, request_id="r1")
    assert filled.stats() == state
    store.execute([put("b", "2")], request_id="r2")
    assert filled.get("b") == 2


def test_without_a_request_id_the_same_again_is_applied_again(store, filled):
    store.execute([say('"x"')])
    store.execute([say('"x"')])
    assert len(filled.conversation("talk")) == 3


def test_reads_in_a_repeated_batch_are_read_afresh(store, filled):
    ops = [put("b", "1"), Get("user-42", "a"), say('"x"'), Scan("user-42")]
    first = store.execute(ops, request_id="r1")
    filled.set("a", "changed since")
    again = store.execute(ops, request_id="r1")
    assert (again[0], again[2]) == (first[0], first[2])
    assert again[1].value == "changed since"
    assert [item.key for item in again[3].items] == ["a", "b"]
    assert len(filled.conversation("talk")) == 2


def test_a_request_that_failed_may_be_tried_again(store, filled):
    ops = [put("b"), put("b", "2", if_version=99)]
    for _ in range(2):
        with pytest.raises(Conflict):
            store.execute(ops, request_id="r1")
    [stamp] = store.execute([put("b")], request_id="r1")
    assert store.execute([put("b")], request_id="r1") == [stamp]


def test_a_repeated_compare_and_set_is_no_conflict(store, filled):
    version = filled.item("a").version
    ops = [put("a", "3", if_version=version)]
    assert store.execute(ops, request_id="r1") == store.execute(ops, request_id="r1")
    with pytest.raises(Conflict):
        store.execute(ops, request_id="r2")


def test_a_repeat_costs_no_quota(store, filled):
    filled.configure(writes_per_day=filled.stats().writes_today + 1)
    first = store.execute([put("b")], request_id="r1")
    assert store.execute([put("b")], request_id="r1") == first
    with pytest.raises(RateLimited):
        store.execute([put("b")], request_id="r2")


def test_it_is_remembered_for_a_day(store, filled, clock):
    first = store.execute([put("b")], request_id="r1")
    for hour in range(23):
        clock.advance(3_600)
        store.execute([put("c", str(hour))], request_id=f"hour {hour}")
    clock.advance(3_599)
    assert store.execute([put("b")], request_id="r1") == first


def test_what_is_remembered_is_let_go_in_time(store, filled, clock):
    first = store.execute([put("b")], request_id="r1")
    clock.advance(days=2)
    for number in range(20):
        store.execute([put("c")], request_id=f"n{number}")
    assert store.execute([put("b", '"other ops"')], request_id="r1") != first


def test_many_who_send_the_same_at_once_are_one(store, filled):
    ops, gate = [say('"once"'), put("n", "1")], threading.Barrier(8)

    def send(_):
        gate.wait()
        return store.execute(ops, request_id="r1")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert [message.value for message in filled.conversation("talk").messages()] == ["hello", "once"]


def test_a_memory_passes_a_request_id_on(memory):
    ops = [Put(memory.namespace, "a", Raw(b"1"))]
    assert memory.execute(ops, request_id="r") == memory.execute(ops, request_id="r")
    assert memory.stats().version == 1
