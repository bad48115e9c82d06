"""Metrics: what is counted is what happened, and who may not read everything may not read them. And health."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.server.running import read_all, read_until, run, until

from botwire.errors import StoreUnavailable
from botwire.ops import AnyOp, Changes, Describe, Namespaces, Op
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings, create_app
from botwire_server.metrics import BOUNDS, KINDS, Held


class App:
    """An app in this process, and a client of it."""

    def __init__(self, client: httpx.AsyncClient, app: Any) -> None:
        self.client = client
        self.app = app

    async def put(self, namespace: str, key: str, value: object) -> None:
        answer = await self.client.put(f"/v1/namespaces/{namespace}/items/{key}", json={"value": value})
        assert answer.is_success, answer.text

    async def figures(self) -> dict[str, float]:
        """What /metrics says: `name{label=value}` without quotes, and the number."""
        answer = await self.client.get("/metrics")
        assert answer.status_code == 200, answer.text
        return read(answer.text)


def read(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
async def new_app() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def new(store: Any = None, **settings: Any) -> App:
            app = create_app(store or AsyncSQLiteStore(SQLiteStore(":memory:")), Settings(**settings))
            stack.push_async_callback(app.state.service.store.close)
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://localhost")
            )
            return App(client, app)

        yield new


# ── ops ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_ops_are_counted_by_kind_and_outcome(new_app):
    app = await new_app()
    for number in range(3):
        await app.put("user-42", f"key-{number}", number)
    for key in ("key-0", "nothing"):
        await app.client.get(f"/v1/namespaces/user-42/items/{key}")
    stale = await app.client.put("/v1/namespaces/user-42/items/key-0", json={"value": 1}, headers={"If-Match": '"99"'})
    assert stale.status_code == 412
    ops = [{"op": "get", "namespace": "user-42", "key": "key-1"}, {"op": "describe", "namespace": "user-42"}]
    assert (await app.client.post("/v1/execute", json={"ops": ops})).status_code == 200
    found = await app.figures()
    assert found["botwire_ops_total{kind=put,outcome=ok}"] == 3
    assert found["botwire_ops_total{kind=put,outcome=conflict}"] == 1
    assert found["botwire_ops_total{kind=get,outcome=ok}"] == 3
    assert found["botwire_ops_total{kind=describe,outcome=ok}"] == 1
    assert found["botwire_ops_total{kind=erase,outcome=ok}"] == 0


async def test_times_are_in_buckets_that_add_up(new_app):
    app = await new_app()
    for number in range(20):
        await app.put("user-42", f"key-{number}", number)
    ops = [{"op": "get", "namespace": "user-42", "key": "key-1"}] * 2
    await app.client.post("/v1/execute", json={"ops": ops})
    found = await app.figures()
    buckets = [found[f"botwire_execute_seconds_bucket{{kind=put,le={bound}}}"] for bound in (*BOUNDS, "+Inf")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["botwire_execute_seconds_count{kind=put}"] == 20
    assert found["botwire_execute_seconds_sum{kind=put}"] > 0
    assert found["botwire_execute_seconds_count{kind=batch}"] == 1
    assert "botwire_execute_seconds_count{kind=get}" not in found


async def test_what_was_refused_is_counted_by_its_reason(new_app):
    app = await new_app(requests_per_second=0.001, burst=2)
    await app.put("user-42", "key", 1)
    elsewhere = await app.client.get("/memory/user-42/key", headers={"Host": "evil.example"})
    assert elsewhere.status_code == 403
    found = await app.figures()  # the second request
    assert found["botwire_refused_total{reason=host}"] == 1
    for _ in range(3):
        assert (await app.client.get("/memory/user-42/key")).status_code == 429
    app.app.state.service.settings = Settings()
    text = (await app.app.state.service.metrics.render(app.app.state.service.store)).decode()
    assert read(text)["botwire_ops_total{kind=none,outcome=rate-limited}"] == 3


def test_every_op_has_a_kind():
    assert len(KINDS) == len(set(KINDS.values())) == len(AnyOp.__args__)


async def test_nothing_in_the_metrics_names_what_is_stored(new_app):
    app = await new_app()
    await app.put("acme-secret", "key-secret", "value-secret")
    await app.client.get("/v1/namespaces/acme-secret/items/none-secret")
    assert "secret" not in (await app.client.get("/metrics")).text


# ── what the store holds ────────────────────────────────────────────────────────────────────────────


class Watched:
    """A store that notes the ops it runs."""

    def __init__(self, store: AsyncSQLiteStore) -> None:
        self.store = store
        self.ops: list[Op] = []

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        self.ops += ops
        return await self.store.execute(ops, request_id=request_id)

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        return await self.store.wait(namespace, cursor, timeout, subtree=subtree)

    async def close(self) -> None:
        await self.store.close()


class Broken(Watched):
    """A store that answers only while it is well."""

    well = True

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        if not self.well:
            raise StoreUnavailable("the disk is gone")
        return await super().execute(ops, request_id=request_id)


class Hanging(Watched):
    """A store that answers when it is told to."""

    def __init__(self, store: AsyncSQLiteStore) -> None:
        super().__init__(store)
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        await self.goes_on.wait()
        return await super().execute(ops, request_id=request_id)


async def test_the_figures_of_the_store_are_right(new_app):
    app = await new_app()
    for namespace in ("a", "a%2Fb", "c"):
        await app.put(namespace, "key", 1)
    said = await app.client.post("/v1/namespaces/a/conversations/talk/messages", json={"messages": [{"value": "hi"}]})
    assert said.is_success, said.text
    found = await app.figures()
    names = ("namespaces", "items", "messages", "conversations")
    assert [found[f"botwire_store_{name}"] for name in names] == [3, 3, 1, 1]
    assert found["botwire_store_bytes"] > 0


async def test_many_namespaces_are_counted_page_by_page(new_app, monkeypatch):
    monkeypatch.setattr("botwire_server.metrics.PAGE", 2)
    app = await new_app()
    for number in range(7):
        await app.put(f"user-{number}", "key", 1)
    assert (await app.figures())["botwire_store_namespaces"] == 7


async def test_looking_at_the_store_is_rare_and_spared_when_nothing_has_changed():
    store = Watched(AsyncSQLiteStore(SQLiteStore(":memory:")))
    held = Held()
    await asyncio.gather(*(held.refresh(store) for _ in range(5)))
    assert [type(op) for op in store.ops] == [Changes, Describe, Namespaces], "five asked at once, one looked"
    await held.refresh(store)
    assert len(store.ops) == 3, "it was only just now"
    now = [10.0]
    held = Held(lambda: now[0])
    await held.refresh(store)
    now[0] += 6
    await held.refresh(store)
    assert [type(op) for op in store.ops[6:]] == [Changes], "nothing has changed since"
    await store.close()


async def test_a_slow_look_makes_the_next_one_wait_for_longer():
    now = [10.0]

    class Slow(Watched):
        async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
            now[0] += 1
            return await super().execute(ops, request_id=request_id)

    store = Slow(AsyncSQLiteStore(SQLiteStore(":memory:")))
    held = Held(lambda: now[0])
    await held.refresh(store)
    looked = len(store.ops)
    now[0] += 55
    await held.refresh(store)
    assert len(store.ops) == looked
    now[0] += 10
    await held.refresh(store)
    assert len(store.ops) == looked + 1
    await store.close()


async def test_who_asks_does_not_wait_for_a_look_that_takes_long(new_app, monkeypatch):
    monkeypatch.setattr("botwire_server.metrics.PATIENCE", 0.05)
    store = Hanging(AsyncSQLiteStore(SQLiteStore(":memory:")))
    app = await new_app(store)
    await app.put("user-42", "key", 1)
    store.goes_on.clear()
    assert "botwire_store_items" not in await app.figures()
    store.goes_on.set()
    monkeypatch.setattr("botwire_server.metrics.PATIENCE", 60)
    assert (await app.figures())["botwire_store_items"] == 1


async def test_with_its_store_in_trouble_the_rest_is_told_all_the_same(new_app):
    store = Broken(AsyncSQLiteStore(SQLiteStore(":memory:")))
    app = await new_app(store)
    await app.put("user-42", "key", 1)
    store.well = False
    found = await app.figures()
    assert found["botwire_ops_total{kind=put,outcome=ok}"] == 1
    assert "botwire_store_items" not in found


# ── who may read them ───────────────────────────────────────────────────────────────────────────────


async def test_without_metrics_there_is_no_such_door(new_app):
    app = await new_app(metrics=False)
    assert (await app.client.get("/metrics")).status_code == 404


def test_with_keys_it_takes_one_that_reads_the_whole_store(start, tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    keys = {}
    for name, scope in (("whole", []), ("part", ["--scope", "acme"])):
        made = run("--url", url, "keys", "create", "--name", name, "--access", "read", *scope)
        keys[name] = re.search(r"bw_\w+", made.stdout)[0]  # type: ignore[index]  # or the test fails
    server = start()
    assert server.ask("GET", "/metrics").status == 401
    assert server.ask("GET", "/metrics", headers={"Authorization": f"Bearer {keys['part']}"}).status == 403
    answer = server.ask("GET", "/metrics", headers={"Authorization": f"Bearer {keys['whole']}"})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = read(answer.body.decode())
    assert found["botwire_ops_total{kind=none,outcome=not-authenticated}"] == 1


# ── connections, of a real server ───────────────────────────────────────────────────────────────────


def test_connections_streams_bytes_and_files_are_counted(start, tmp_path):
    server = start("--max-connections", "3")

    def figures() -> dict[str, float]:
        answer = server.ask("GET", "/metrics")
        return read(answer.body.decode()) if answer.status == 200 else {}

    before = figures()
    assert server.ask("PUT", "/v1/namespaces/a/items/key", {"value": "x" * 50_000}).status == 201
    assert len(server.ask("GET", "/memory/a/key").body) > 50_000
    after = figures()
    assert 50_000 < after["botwire_received_bytes_total"] - before["botwire_received_bytes_total"] < 60_000
    assert 50_000 < after["botwire_sent_bytes_total"] - before["botwire_sent_bytes_total"] < 70_000
    assert after["botwire_connections"] == 1
    assert after["botwire_connections_made_total"] == 4
    assert after["botwire_store_file_bytes{file=main}"] == (tmp_path / "memory.db").stat().st_size
    assert after["botwire_store_file_bytes{file=wal}"] > 50_000
    assert after["process_resident_memory_bytes"] > 1_000_000
    head = b"GET /v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    streams = [server.connect() for _ in range(2)]
    for stream in streams:
        stream.sendall(head)
        read_until(stream, b"\r\n\r\n")
    assert (figures()["botwire_streams"], figures()["botwire_connections"]) == (2, 3)
    streams.append(server.connect())
    streams[-1].sendall(head)
    read_until(streams[-1], b"\r\n\r\n")
    assert server.ask("GET", "/healthz").status == 503
    for stream in streams:
        stream.close()
    until(lambda: figures().get("botwire_streams") == 0, "streams that were left are noticed")
    assert figures()["botwire_connections_refused_total"] >= 1


def test_what_is_malformed_is_counted(start):
    server = start("--header-timeout", "0.5")
    with server.connect() as one, server.connect() as two:
        one.sendall(b"HELO\r\n\r\n")
        read_all(one)
        two.sendall(b"GET /")
        read_all(two)
    found = read(server.ask("GET", "/metrics").body.decode())
    assert found["botwire_refused_total{reason=malformed}"] == 1
    assert found["botwire_refused_total{reason=head}"] == 1


# ── health ──────────────────────────────────────────────────────────────────────────────────────────


async def test_it_is_ready_only_while_its_store_answers_and_alive_all_the_same(new_app):
    store = Broken(AsyncSQLiteStore(SQLiteStore(":memory:")))
    app = await new_app(store)
    assert (await app.client.get("/readyz")).json() == {"status": "ready"}
    store.well = False
    answer = await app.client.get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "the disk is gone" in answer.json()["detail"]
    assert (await app.client.get("/healthz")).json() == {"status": "ok"}
    store.well = True
    assert (await app.client.get("/readyz")).status_code == 200


async def test_a_store_that_hangs_is_not_ready(new_app, monkeypatch):
    monkeypatch.setattr("botwire_server.health.PATIENCE", 0.05)

    store = Hanging(AsyncSQLiteStore(SQLiteStore(":memory:")))
    app = await new_app(store)
    store.goes_on.clear()
    answer = await app.client.get("/readyz")
    store.goes_on.set()
    assert answer.status_code == 503
    assert "did not answer" in answer.json()["detail"]


async def test_it_is_not_ready_before_it_begins_nor_when_it_stops(new_app):
    app = await new_app()
    health = app.app.state.health
    health.state = "starting"
    assert (await app.client.get("/readyz")).status_code == 503
    health.started()
    assert (await app.client.get("/readyz")).status_code == 200
    health.stop()
    assert (await app.client.get("/readyz")).status_code == 503
    assert (await app.client.get("/healthz")).status_code == 200


async def test_probes_may_call_the_server_by_any_name(new_app):
    app = await new_app()
    for path in ("/healthz", "/readyz"):
        assert (await app.client.get(path, headers={"Host": "10.1.2.3:8765"})).status_code == 200
    assert (await app.client.get("/metrics", headers={"Host": "10.1.2.3:8765"})).status_code == 403


async def test_when_it_stops_streams_are_told_once_and_new_ones_are_refused(new_app):
    health = (await new_app()).app.state.health
    told: list[str] = []
    with health.stream(lambda: told.append("a")), health.stream(lambda: told.append("b")):
        with health.stream(lambda: told.append("over before")):
            pass
        health.stop()
        health.stop()
        assert told == ["a", "b"]
    with pytest.raises(StoreUnavailable, match="is stopping"), health.stream(lambda: None):
        pass
