"""`POST /v1/execute` and `POST /v1/batches`: ops in, results out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from tests.server.asking import App, asking, refused

from botwire import wire
from botwire.ops import Append, Changes, Delete, Get, History, Item, NewMessage, Op, Put, Scan, Value
from botwire.wire import Problem
from botwire_server import Settings


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with asking() as app:
        yield app


async def execute(app: App, *ops: Op, **headers: str) -> list[Any]:
    body, shield = wire.encode_ops(ops)
    if shield is not None:
        headers[wire.SHIELD] = shield
    answer = await app.ask("POST", wire.EXECUTE, body, **headers)
    assert answer.status_code == 200, answer.text
    return wire.decode_results(ops, answer.content, answer.headers.get(wire.SHIELD))


def put(key: str, text: bytes, **more: Any) -> Put:
    return Put("n", key, Raw(text), **more)


async def test_ops_run_in_order_and_answer_one_result_each(app: App):
    stamp, value, item, missing, page = await execute(
        app, put("k", b'{"a":1}'), Value("n", "k"), Get("n", "k"), Get("n", "other"), Scan("n")
    )
    assert stamp.version == 1
    assert bytes(value) == b'{"a":1}'
    assert isinstance(item, Item)
    assert item.value == {"a": 1}
    assert missing is None
    assert [each.key for each in page.items] == ["k"]


async def test_a_batch_is_all_or_nothing(app: App):
    body, _ = wire.encode_ops([put("a", b"1"), put("b", b"1", if_version=7)])
    refused(await app.ask("POST", wire.EXECUTE, body), 409, "'b' in 'n'")
    assert await execute(app, Value("n", "a")) == [None]


async def test_a_stored_null_is_not_nothing_and_half_a_surrogate_pair_is_kept(app: App):
    await execute(app, put("null", b"null"), put("half", rb'"\ud83d"'))
    null, half, nothing = await execute(app, Value("n", "null"), Value("n", "half"), Value("n", "x"))
    assert (bytes(null), bytes(half), nothing) == (b"null", rb'"\ud83d"', None)


async def test_a_request_id_applies_a_batch_once(app: App):
    ops = [put("k", b"1"), Append("n", "t", [NewMessage(Raw(b"1"))])]
    assert await execute(app, *ops, idempotency_key="r") == await execute(app, *ops, idempotency_key="r")
    assert len((await execute(app, Changes("n", "")))[0].changes) == 2
    body, _ = wire.encode_ops([put("k", b"2")])
    problem = refused(await app.ask("POST", wire.EXECUTE, body, idempotency_key="r"), 422)
    assert problem["type"] == "urn:botwire:problem:request-reused"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no batch of ops"),
        (b"{}", "missing required field `ops`"),
        (b'{"ops": [{"op": "nix"}]}', "'nix'"),
        (b'{"ops": [{"op": "get", "namespace": "n"}]}', "`key`"),
        (b'{"ops": [{"op": "get", "namespace": "n", "key": "k", "kye": 1}]}', "`kye`"),
        (b'{"ops": [], "more": 1}', "`more`"),
        (b'{"ops": [{"op": "put", "namespace": "a//b", "key": "k", "value": 1}]}', "empty level"),
        (b'{"ops": [{"op": "put", "namespace": "n", "key": "k", "value": NaN}]}', "no batch of ops"),
        (b"\xff", "no batch of ops"),
        (b'{"ops":' * 2_000, ""),
    ],
)
async def test_what_is_no_batch_is_refused(app: App, body: bytes, words: str):
    refused(await app.ask("POST", wire.EXECUTE, body), 400, words)


async def test_a_wrong_shield_and_a_body_of_another_kind_are_refused(app: App):
    for path in (wire.EXECUTE, wire.BATCHES):
        body = b'{"ops": []}' if path == wire.EXECUTE else b'{"batches": []}'
        refused(await app.ask("POST", path, body, botwire_shield="x"), 400, wire.SHIELD)
        refused(await app.ask("POST", path, body, content_type="text/xml"), 415)
        refused(await app.ask("GET", path), 405)


async def test_too_many_ops_are_refused():
    async with asking(settings=Settings(max_batch=2)) as app:
        body, _ = wire.encode_ops([Get("n", "k")] * 3)
        refused(await app.ask("POST", wire.EXECUTE, body), 413, "3 ops")
        body, _ = bodies([([Get("n", "k")] * 2, None), ([Get("n", "k")], None)])
        refused(await app.ask("POST", wire.BATCHES, body), 413, "this server takes 2")
        body, _ = bodies([([], None)] * 3)
        refused(await app.ask("POST", wire.BATCHES, body), 413, "this server takes 2")


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────


def bodies(asked: Sequence[tuple[Sequence[Op], str | None]]) -> tuple[bytes, str | None]:
    fields = [{"ops": list(ops)} | ({} if own is None else {"request_id": own}) for ops, own in asked]
    return wire.shielded(msgspec.json.encode({"batches": fields}))


async def batches(app: App, *asked: tuple[Sequence[Op], str | None]) -> list[list[Any] | Problem]:
    body, shield = bodies(asked)
    headers: dict[str, str] = {} if shield is None else {wire.SHIELD: shield}
    answer = await app.ask("POST", wire.BATCHES, body, **headers)
    assert answer.status_code == 200, answer.text
    return wire.decode_answers([ops for ops, _ in asked], answer.content, answer.headers.get(wire.SHIELD))


async def test_each_batch_has_its_own_results_or_its_own_problem(app: App):
    await execute(app, put("k", b"1"))
    read, lost, made, wrong, hidden = await batches(
        app,
        ([Value("n", "k")], None),
        ([put("new", b"1"), put("k", b"2", if_version=9)], None),
        ([put("half", rb'"\ud83d"')], "r1"),
        ([Get("n", "\x00")], None),
        ([Delete("n", "nothing"), History("n", "k")], "r2"),
    )
    assert isinstance(read, list)
    assert bytes(read[0]) == b"1"
    assert isinstance(lost, Problem)
    assert (lost.status, lost.version) == (409, 1)
    assert isinstance(made, list)
    assert isinstance(wrong, Problem)
    assert wrong.status == 400
    assert isinstance(hidden, list)
    assert (hidden[0], len(hidden[1])) == (None, 1)
    assert [
        None if each is None else bytes(each) for each in await execute(app, Value("n", "new"), Value("n", "half"))
    ] == [
        None,
        rb'"\ud83d"',
    ]


async def test_each_batch_has_its_own_request_id(app: App):
    first = await batches(app, ([put("a", b"1")], "r"), ([put("b", b"1")], "s"))
    again = await batches(app, ([put("b", b"1")], "s"), ([put("a", b"1")], "r"))
    assert again == [first[1], first[0]]
    [reused] = await batches(app, ([put("a", b"2")], "r"))
    assert isinstance(reused, Problem)
    assert reused.status == 422
    [wrong] = await batches(app, ([put("a", b"2")], "no good\n"))
    assert isinstance(wrong, Problem)
    assert wrong.status == 400


async def test_a_mistake_of_ours_is_one_batchs_problem(app: App, monkeypatch: pytest.MonkeyPatch):
    service = app.app.state.service
    whole = service.execute

    async def breaks(principal: Any, ops: Any, request_id: Any) -> Any:
        if ops[0].key == "broken":
            raise ZeroDivisionError("secret")
        return await whole(principal, ops, request_id)

    monkeypatch.setattr(service, "execute", breaks)
    broken, fine = await batches(app, ([Get("n", "broken")], None), ([Get("n", "k")], None))
    assert isinstance(broken, Problem)
    assert (broken.status, "secret" in broken.detail) == (500, False)
    assert fine == [None]


async def test_each_batch_counts_as_a_request():
    async with asking(settings=Settings(requests_per_second=0.001, burst=3)) as app:
        answers = await batches(app, *[([Get("n", "k")], None)] * 5)
        statuses = [answer.status if isinstance(answer, Problem) else 200 for answer in answers]
        assert statuses == [200, 200, 200, 429, 429]


async def test_batches_run_at_the_same_time(app: App):
    answers = await batches(app, *(([put(f"k{n}", b"1")], f"r{n}") for n in range(100)))
    assert all(isinstance(answer, list) for answer in answers)
    assert len((await app.get("/v1/namespaces/n/items?limit=1000"))["items"]) == 100
    await asyncio.sleep(0)
