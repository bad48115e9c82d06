"""The audit: who wrote what and when, in the write's own commit; who was refused; never values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from tests.server.samples import kinds, sample

from botwire import ops
from botwire.errors import AccessDenied, Conflict, RequestReused, StoreUnavailable, TooLarge
from botwire.names import check_namespace, within
from botwire.ops import (
    Append,
    Clear,
    Configure,
    Conversations,
    Delete,
    Describe,
    Edit,
    Erase,
    Erased,
    Get,
    Messages,
    Namespaces,
    NewMessage,
    Op,
    Policy,
    Put,
    Scan,
    Touch,
    Trim,
)
from botwire.stores.base import AsyncStore
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings, audit
from botwire_server.audit import MAX_WAITING, REFUSALS, ROOT, conversation_of, namespace_of
from botwire_server.guard import LOCAL, Principal
from botwire_server.service import Service

WRITER = Principal("0123456789ab", "laptop", "admin", "acme")
VALUE = Raw(b'"the value"')
MOMENT = 30.0  # seconds after which what should have come in a moment is given up


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[AsyncStore]:
    made = AsyncSQLiteStore(SQLiteStore(str(path), durability="relaxed"))
    yield made
    await made.close()


@pytest.fixture
async def service(store: AsyncStore) -> AsyncIterator[Service]:
    made = Service(store, Settings(audit=True))
    await made.start()
    yield made
    await made.stop()


async def all_of(store: AsyncStore, namespace: str) -> list[ops.Message]:
    """Everything in the record of a namespace, in order."""
    found: list[ops.Message] = []
    [page] = await store.execute([Conversations(namespace, limit=1_000)])
    for talk in page.conversations:
        [messages] = await store.execute([Messages(namespace, talk.name, limit=1_000)])
        found += messages.messages
    return sorted(found, key=lambda message: message.version)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(MOMENT):
        while not await holds():  # noqa: ASYNC110  # what is waited for knows nothing of events
            await asyncio.sleep(0.02)


# ── writes ──


async def test_a_write_is_recorded_with_who_what_and_when(service, store):
    [stamp] = await service.execute(WRITER, [Put("acme/user-42", "coffee", VALUE, if_version=0)], "r1")
    [record] = await all_of(store, f"{ROOT}/acme/user-42")
    assert (record.author, record.role) == ("0123456789ab", "put")
    assert record.value == {"name": "laptop", "key": "coffee", "if_version": 0, "request": "r1"}
    assert record.created >= stamp.updated


async def test_what_is_recorded_of_each_op(service, store):
    said = [NewMessage(VALUE, "m1", "user"), NewMessage(VALUE)]
    done: list[tuple[Op, dict[str, Any]]] = [
        (Put("acme", "k", VALUE), {"key": "k"}),
        (Touch("acme", "k", 60.0, 1), {"key": "k", "if_version": 1}),
        (Delete("acme", "k"), {"key": "k"}),
        (Append("acme", "talk", said), {"conversation": "talk", "count": 2, "ids": ["m1"]}),
        (Edit("acme", "talk", "m1", VALUE), {"conversation": "talk", "ids": ["m1"]}),
        (Trim("acme", "talk", ids=("m1",)), {"conversation": "talk", "ids": ["m1"], "count": 1}),
        (Clear("acme", "talk"), {"conversation": "talk"}),
        (Clear("acme"), {}),
        (Configure("acme", Policy(history=3)), {"policy": {"history": 3}}),
    ]
    for op, _ in done:
        await service.execute(WRITER, [op])
    records = await all_of(store, f"{ROOT}/acme")
    assert [record.role for record in records] == [type(op).__name__.lower() for op, _ in done]
    assert [record.value for record in records] == [{"name": "laptop", **about} for _, about in done]


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.access != "read"])
async def test_no_writing_op_is_forgotten_and_no_value_is_recorded(service, store, path, kind):
    await service.execute(LOCAL, [sample(kind, "acme")])
    records = await all_of(store, f"{ROOT}/acme")
    assert [record.role for record in records] == [kind.__name__.lower()]
    text = json.dumps([record.value for record in records])
    assert "the value" not in text
    assert '"x"' not in text


async def test_reads_are_not_recorded(service, store):
    for kind in kinds():
        if kind.access == "read":
            await service.execute(WRITER, [sample(kind, "acme")])
    assert (await store.execute([Namespaces(".botwire")]))[0].namespaces == []


async def test_the_caller_gets_the_answers_to_his_own_ops(service):
    answers = await service.execute(WRITER, [Put("acme", "a", VALUE), Get("acme", "a"), Delete("acme", "b")])
    assert len(answers) == 3
    assert answers[0].version == answers[1].version == 1
    assert answers[2] is None
    [erased] = await service.execute(WRITER, [Erase("acme")])
    assert isinstance(erased, Erased)
    assert erased.items == 1


async def test_however_many_messages_a_write_names_it_can_be_recorded(service, store):
    ids = [f"{number:0>512}" for number in range(5_000)]
    await service.execute(WRITER, [Append("acme", "talk", [NewMessage(VALUE, each) for each in ids])])
    await service.execute(WRITER, [Trim("acme", "talk", ids=tuple(ids))])
    for record in await all_of(store, f"{ROOT}/acme"):
        assert record.value["count"] == 5_000
        assert record.value["ids"] == ids[:100]


async def test_a_write_that_fails_is_not_recorded(service, store):
    await service.execute(WRITER, [Put("acme", "a", VALUE)])
    with pytest.raises(Conflict):
        await service.execute(WRITER, [Put("acme", "b", VALUE), Put("acme", "a", VALUE, if_version=7)])
    assert [record.value["key"] for record in await all_of(store, f"{ROOT}/acme")] == ["a"]


async def test_there_is_no_write_without_its_record(service, store):
    """Where the record cannot be written, the write is not made either."""
    await service.execute(WRITER, [Put("acme", "first", VALUE)])
    await store.execute([Configure(f"{ROOT}/acme", Policy(max_value_bytes=1))])
    with pytest.raises(TooLarge):
        await service.execute(WRITER, [Put("acme", "second", VALUE)])
    assert await store.execute([Get("acme", "second")]) == [None]


async def test_a_write_that_is_repeated_is_recorded_once(service, store):
    first = await service.execute(WRITER, [Put("acme", "k", VALUE)], "r1")
    service.audit._known.clear()  # as in another process
    assert await service.execute(WRITER, [Put("acme", "k", VALUE)], "r1") == first
    assert len(await all_of(store, f"{ROOT}/acme")) == 1
    with pytest.raises(RequestReused):
        await service.execute(WRITER, [Put("acme", "k", Raw(b"2"))], "r1")


async def test_an_erase_that_is_repeated_is_made_once(service, store):
    await service.execute(WRITER, [Put("acme", "k", VALUE)])
    first = await service.execute(WRITER, [Erase("acme")], "r1")
    assert await service.execute(WRITER, [Erase("acme")], "r1") == first
    assert [record.role for record in await all_of(store, f"{ROOT}/acme")] == ["erase"]


async def test_the_quotas_of_the_store_do_not_hold_for_the_record(service, store):
    await store.execute([Configure("", Policy(writes_per_day=3, max_bytes=500, max_items=1))])
    for _ in range(20):
        await service.execute(WRITER, [Delete("acme", "not there")])
    assert len(await all_of(store, f"{ROOT}/acme")) == 20
    await service.execute(WRITER, [Erase("acme")])
    for _ in range(5):
        await service.execute(WRITER, [Delete("acme", "not there")])
    assert len(await all_of(store, f"{ROOT}/acme")) == 6


async def test_without_the_setting_nothing_is_recorded(store):
    service = Service(store, Settings())
    await service.start()
    await service.execute(LOCAL, [Put("acme", "k", VALUE)])
    with pytest.raises(AccessDenied):
        await service.execute(WRITER, [Get("other", "k")])
    await service.stop()
    assert (await store.execute([Namespaces(".botwire")]))[0].namespaces == []


async def test_keys_that_are_made_through_the_server_are_recorded(service, store):
    await service.execute(LOCAL, [Put(".botwire/keys", "0123456789ab", Raw(b"{}"))])
    [record] = await all_of(store, f"{ROOT}/.botwire/keys")
    assert (record.role, record.value["key"]) == ("put", "0123456789ab")


async def test_the_record_is_out_of_reach_for_those_it_is_about(service):
    await service.execute(WRITER, [Put("acme", "k", VALUE)])
    for op in (Scan(f"{ROOT}/acme"), Conversations(f"{ROOT}/acme"), Erase(f"{ROOT}/acme"), Clear(f"{ROOT}/acme")):
        with pytest.raises(AccessDenied):
            await service.execute(WRITER, [op])
    assert len(await service.execute(LOCAL, [Conversations(f"{ROOT}/acme")])) == 1


async def test_who_clears_the_record_is_on_record(service, store):
    await service.execute(WRITER, [Put("acme", "k", VALUE)])
    await service.execute(LOCAL, [Clear(f"{ROOT}/acme")])
    [record] = await all_of(store, f"{ROOT}/{ROOT}/acme")
    assert (record.author, record.role) == ("local", "clear")


# ── erasing ──


def grep(path: Path, text: str) -> list[str]:
    """The files of the store that hold the text."""
    return [file.name for file in path.parent.iterdir() if text.encode() in file.read_bytes()]


async def write_two(service: Service) -> None:
    await service.execute(WRITER, [Put("acme", "jane-doe", VALUE), Put("acme", "john-roe", VALUE)])
    await service.execute(WRITER, [Append("acme", "jane-talk", [NewMessage(VALUE, "jane-message")])])


async def test_erasing_a_key_takes_its_record_along_and_leaves_that_of_the_erase(service, store, path):
    await write_two(service)
    await service.execute(WRITER, [Erase("acme", key="jane-doe")])
    records = await all_of(store, f"{ROOT}/acme")
    assert [(record.role, record.value.get("key")) for record in records] == [
        ("put", "john-roe"),
        ("append", None),
        ("erase", None),
    ]
    assert grep(path, "jane-doe") == []
    assert grep(path, "john-roe") != []


async def test_erasing_a_conversation_takes_its_record_along(service, store, path):
    await write_two(service)
    await service.execute(WRITER, [Erase("acme", conversation="jane-talk")])
    assert [record.role for record in await all_of(store, f"{ROOT}/acme")] == ["put", "put", "erase"]
    assert grep(path, "jane-talk") == grep(path, "jane-message") == []


async def test_erasing_a_namespace_takes_its_record_along_and_no_others(service, store, path):
    await write_two(service)
    await service.execute(WRITER, [Put("acme/eu", "jane-too", VALUE)])
    await service.execute(LOCAL, [Put("acmeplus", "jim", VALUE)])
    await service.execute(WRITER, [Erase("acme")])
    assert [record.role for record in await all_of(store, f"{ROOT}/acme")] == ["erase"]
    assert len(await all_of(store, f"{ROOT}/acme/eu")) == len(await all_of(store, f"{ROOT}/acmeplus")) == 1
    assert grep(path, "jane-doe") == grep(path, "john-roe") == grep(path, "jane-talk") == []


async def test_erasing_a_subtree_takes_the_records_below_along(service, store, path):
    deep = "acme/" + "/".join(["level-of-jane"] * 36)  # too long for a record of its own name
    await write_two(service)
    await service.execute(WRITER, [Put("acme/eu", "jane-too", VALUE), Put(deep, "jane-three", VALUE)])
    await service.execute(WRITER, [Erase("acme", subtree=True)])
    [page] = await store.execute([Namespaces(f"{ROOT}/acme")])
    assert [about.name for about in page.namespaces] == [f"{ROOT}/acme"]
    [record] = await all_of(store, f"{ROOT}/acme")
    assert record.value == {"name": "laptop", "subtree": True}
    assert grep(path, "jane") == []


async def test_erasing_the_whole_store_takes_the_whole_record_along(service, store, path):
    await write_two(service)
    await service.execute(LOCAL, [Put("other", "jane-too", VALUE)])
    await service.execute(LOCAL, [Erase("", subtree=True)])
    [page] = await store.execute([Namespaces(ROOT)])
    assert [about.name for about in page.namespaces] == [ROOT]
    assert grep(path, "jane") == []


async def test_a_batch_that_writes_and_erases_leaves_only_what_comes_behind(service, store):
    batch = [Put("acme", "before", VALUE), Erase("acme"), Put("acme", "after", VALUE)]
    await service.execute(WRITER, batch)
    records = await all_of(store, f"{ROOT}/acme")
    assert [(record.role, record.value.get("key")) for record in records] == [("erase", None), ("put", "after")]


async def test_a_batch_of_two_erases_leaves_the_record_of_both(service, store):
    await write_two(service)
    await service.execute(WRITER, [Erase("acme", key="jane-doe"), Erase("acme", key="john-roe")])
    assert [record.role for record in await all_of(store, f"{ROOT}/acme")] == ["append", "erase", "erase"]


# ── where records lie ──

LONG = "n" * 512
DEEP = "/".join(["level"] * 85)


@pytest.mark.parametrize("name", ["a", "a/b", "a" * 430, "a" * 431, LONG, DEEP, f"acme/{'x' * 500}", "é" * 256])
def test_every_namespace_has_a_place_for_its_record(name):
    place = namespace_of(name)
    check_namespace(place)
    assert within(place, ROOT)
    assert place != namespace_of(name[:-1] + "z")


@pytest.mark.parametrize("scope", ["acme", "acme/eu", "acme/" + "s" * 430, "acme/" + "/".join(["level"] * 75)])
@pytest.mark.parametrize("below", ["x", "x/y", "z" * 60, "x/" + "y" * 20])
def test_the_records_of_a_subtree_are_erased_with_it(scope, below):
    erase = audit._erased(Erase(scope, subtree=True))
    for name in (scope, f"{scope}/{below}"):
        if len(name) <= 512:
            assert within(namespace_of(name), erase.namespace)
    assert erase.subtree
    assert not within(namespace_of("acmeplus"), erase.namespace)
    assert not within(namespace_of("acm"), erase.namespace)


@pytest.mark.parametrize("key", ["k", "k" * 512, "é" * 256, "conversation x", "namespace"])
def test_every_key_and_conversation_has_a_place_of_its_own(key):
    places = {
        conversation_of(Put("acme", key, VALUE)),
        conversation_of(Put("acme", key[:-1] + "z", VALUE)),
        conversation_of(Append("acme", key, [])),
        conversation_of(Clear("acme")),
    }
    assert len(places) == 4
    assert all(len(place.encode()) <= 512 for place in places)
    assert conversation_of(Erase("acme", key=key)) == conversation_of(Put("acme", key, VALUE))
    assert conversation_of(Erase("acme", conversation=key)) == conversation_of(Append("acme", key, []))


# ── refusals ──


async def test_refusals_are_recorded_without_what_was_asked_for(service, store, path):
    with pytest.raises(AccessDenied):
        await service.execute(WRITER, [Put("victim", "secret-name", VALUE), Get("victim", "secret-name")])

    async def is_there() -> bool:
        return bool(await all_of(store, REFUSALS))

    await until(is_there)
    [record] = await all_of(store, REFUSALS)
    assert (record.author, record.role) == (WRITER.id, "refused")
    assert record.value == {
        "name": "laptop",
        "error": "AccessDenied",
        "ops": ["put", "get"],
        "namespaces": ["victim"],
    }
    assert grep(path, "secret-name") == []


async def test_what_waits_is_written_down_when_the_server_stops(store):
    service = Service(store, Settings(audit=True))
    await service.start()
    for number in range(30):
        with pytest.raises(AccessDenied):
            await service.execute(WRITER, [Get(f"victim-{number}", "k")])
    await service.stop()
    assert len(await all_of(store, REFUSALS)) == 30


async def test_too_many_refusals_at_once_are_dropped_counted_and_logged(store, caplog):
    service = Service(store, Settings(audit=True))
    await service.start()
    for _ in range(MAX_WAITING + 7):
        service.audit.refused(WRITER, [Get("victim", "k")], AccessDenied("no"))
    assert service.audit.dropped == 7
    await service.stop()
    assert "7 refusals are not in the audit" in caplog.text
    [about] = await store.execute([Describe(REFUSALS)])
    assert about.messages == MAX_WAITING


async def test_refusals_that_cannot_be_written_are_logged(store, caplog):
    class Full:
        async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
            raise StoreUnavailable("the disk is gone")

        async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
            return False

        async def close(self) -> None:
            return

    recorder = audit.Audit(Full(), Settings(audit=True))
    await recorder.start()
    recorder.refused(WRITER, [Get("victim", "k")], AccessDenied("no"))
    await recorder.stop()
    assert "the disk is gone" in caplog.text
    assert "1 refusals are not in the audit" in caplog.text


async def test_the_refusals_of_a_key_are_bounded(service, store):
    policy = (await store.execute([Configure(REFUSALS, audit._REFUSAL_POLICY)]))[0].policy
    assert policy.messages == audit.MAX_REFUSALS
    assert (policy.writes_per_day, policy.max_bytes, policy.max_items) == (0, 0, 0)


async def test_what_is_no_refusal_is_not_recorded(service, store):
    with pytest.raises(Conflict):
        await service.execute(WRITER, [Put("acme", "k", VALUE, if_version=7)])
    await service.stop()
    assert await all_of(store, REFUSALS) == []


def test_records_are_plain_json():
    [append] = audit.records(WRITER, [Put("acme", "k", VALUE)], "r1")
    assert isinstance(append, Append)
    assert msgspec.json.decode(append.messages[0].raw) == {"name": "laptop", "key": "k", "request": "r1"}
