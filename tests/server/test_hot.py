"""What is answered in front of the router is answered as the router would have: each request is sent both ways."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from botwire.ops import Configure, Policy
from botwire.stores.sqlite import SQLiteStore
from botwire_server import Settings, create_app, keys
from botwire_server.connections import Bounds, Connection
from botwire_server.hot import HotProtocol
from botwire_server.service import Service

NOW = 1_800_000_000_000_000  # microseconds since 1970
PATIENCE = 30.0  # seconds


# ── two servers, alike but for the hot path ─────────────────────────────────────────────────────────


@dataclass
class Served:
    """A server, and which requests it has passed on to the app."""

    port: int
    service: Service
    state: ServerState
    passed: list[bytes]


@asynccontextmanager
async def served(
    path: Any, protocol: type[Connection], wanted: Settings, key: keys.Key | None
) -> AsyncIterator[Served]:
    """A server on a free port of this event loop."""
    store = SQLiteStore(str(path), clock=lambda: NOW, durability="relaxed").open()
    if key is not None:
        store.execute([put_key(key)])
    app = create_app(store, wanted)
    service: Service = app.state.service
    state, passed = ServerState(), []
    state.default_headers = [(b"date", b"Mon, 01 Jan 2027 00:00:00 GMT")]

    def pass_on(self: HotProtocol) -> None:
        passed.append(self.url)
        HotProtocol.pass_on(self)

    shared: dict[str, Any] = {"service": service, "bounds": Bounds(wanted, service.metrics)}
    made = type("Made", (protocol,), shared | ({"pass_on": pass_on} if protocol is HotProtocol else {}))
    config = uvicorn.Config(app, http=made, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    loop = asyncio.get_running_loop()
    try:
        async with app.router.lifespan_context(app):
            server = await loop.create_server(lambda: made(config, state, {}), "127.0.0.1", 0)
            try:
                yield Served(server.sockets[0].getsockname()[1], service, state, passed)
            finally:
                server.close()
                for connection in list(state.connections):
                    connection.transport.abort()
                await asyncio.sleep(0)
    finally:
        await service.store.close()


def put_key(key: keys.Key) -> Any:
    """The op that has a server know a key."""
    import msgspec
    from msgspec import Raw

    from botwire.ops import Put

    return Put(keys.NAMESPACE, KEY_ID, Raw(msgspec.json.encode(key)))


KEY_ID = "0123456789ab"
SECRET = "s" * 64


def key_for(scope: str, access: Any) -> keys.Key:
    """A key that is known to these tests."""
    return keys.Key("tests", access, scope, keys._digest(SECRET).hex(), NOW)


AUTHORIZED = f"Authorization: Bearer bw_{KEY_ID}_{SECRET}"


@dataclass
class Twins:
    """The two servers, and a connection to each."""

    hot: Served
    plain: Served
    lines: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=dict)

    async def ask(self, request: bytes, *, pieces: int = 1) -> bytes:
        """Send a request both ways; the answer, which is the same."""
        answers = [await self._ask(each.port, request, pieces) for each in (self.hot, self.plain)]
        assert answers[0] == answers[1], request
        return answers[0]

    async def _ask(self, port: int, request: bytes, pieces: int) -> bytes:
        if port not in self.lines:
            self.lines[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self.lines[port]
        size = max(1, -(-len(request) // pieces))
        for start in range(0, len(request), size):
            writer.write(request[start : start + size])
            try:
                await writer.drain()
            except ConnectionError:
                break  # what is wrong with its beginning was answered, and the rest is not wanted
            if pieces > 1:
                await asyncio.sleep(0.001)
        answer = await asyncio.wait_for(read_answer(reader, head_only=request.startswith(b"HEAD")), PATIENCE)
        if b"\r\nconnection: close\r\n" in answer or reader.at_eof():
            writer.close()
            del self.lines[port]
        return masked(answer)

    async def were_hot(self, *requests: bytes) -> None:
        """Each request is answered without the app, the same."""
        for request in requests:
            before = len(self.hot.passed)
            await self.ask(request)
            assert len(self.hot.passed) == before, f"passed on: {request!r}"

    def close(self) -> None:
        for _, writer in self.lines.values():
            writer.close()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> bytes:
    """One answer, by its Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
    assert b"transfer-encoding" not in head
    return head + (b"" if head_only or length is None else await reader.readexactly(int(length[1])))


def masked(answer: bytes) -> bytes:
    """The answer without what is another each time: the request's id, and parts of seconds."""
    answer = re.sub(rb"x-request-id: [^\r]+", b"x-request-id: ?", answer)
    seen = re.sub(rb'"(request_id|retry_after)":[^,}]+', rb'"\1":?', answer)
    told = seen != answer or b"problem+json" in answer  # of what a HEAD leaves out, the length tells
    return re.sub(rb"content-length: \d+", b"content-length: ?", seen) if told else answer


@pytest.fixture
def twins(tmp_path):
    @asynccontextmanager
    async def make(wanted: Settings | None = None, key: keys.Key | None = None) -> AsyncIterator[Twins]:
        wanted = wanted or Settings()
        async with (
            served(tmp_path / "hot.db", HotProtocol, wanted, key) as hot,
            served(tmp_path / "plain.db", Connection, wanted, key) as plain,
        ):
            both = Twins(hot, plain)
            try:
                yield both
            finally:
                both.close()

    return make


def http(method: str, path: str, body: bytes | None = None, *headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


ITEM = "/v1/namespaces/acme%2Fuser-42/items/plan"
COFFEE = "/v1/namespaces/user-42/items/coffee"


# ── the frequent requests ───────────────────────────────────────────────────────────────────────────


async def test_frequent_requests_are_answered_without_the_router_and_the_same(twins):
    async with twins() as both:
        await both.were_hot(
            http("PUT", "/memory/user-42/coffee", b'{"value":"Yirgacheffe"}'),
            http("GET", "/memory/user-42/coffee"),
            http("GET", "/memory/user-42/nothing"),
            http("GET", "/memory/nobody/nothing"),
            http("PUT", "/memory/user-42/prefs", rb'{"value":"{\"a\": [1, 2.0, \"\u00e9\"]}"}'),
            http("GET", "/memory/user-42/prefs"),
            http("PUT", ITEM, b'{"value": {"steps": [1, 2]}, "tags": ["b", "a"], "author": "me", "ttl": 60}'),
            http("PUT", ITEM, b'{"value": null}', "Content-Type: application/json"),
            http("GET", ITEM),
            http("GET", "/v1/namespaces/acme%2Fuser-42/items/none"),
            http("PUT", "/v1/namespaces/caf%C3%A9/items/a%2Fb%20c", b'{"value": 1}'),
            http("GET", "/v1/namespaces/caf%C3%A9/items/a%2Fb%20c"),
            http("GET", "/memory/caf%C3%A9/a%2Fb%20c"),
        )


async def test_execute_is_answered_without_the_router_for_single_gets_and_for_writes(twins):
    async with twins() as both:
        await both.were_hot(
            http("POST", "/v1/execute", b'{"ops":[{"op":"value","namespace":"a","key":"k"}]}'),
            http("POST", "/v1/execute", put_ops(b'"one"')),
            http("POST", "/v1/execute", b'{"ops":[{"op":"value","namespace":"a","key":"k"}]}'),
            http("POST", "/v1/execute", b'{"ops":[{"op":"get","namespace":"a","key":"k"}]}'),
            http("POST", "/v1/execute", put_ops(b"1", b"2"), "Idempotency-Key: one"),
            http("POST", "/v1/execute", put_ops(b"1", b"2"), "Idempotency-Key: one"),
            http("POST", "/v1/execute", put_ops(b"1", b"3"), "Idempotency-Key: one"),
            http("POST", "/v1/execute", put_ops(rb'"half \ud83d of it"')),
            http("POST", "/v1/execute", b'{"ops":[{"op":"value","namespace":"a","key":"k"}]}'),
        )


def put_ops(*values: bytes) -> bytes:
    """A body that sets one key several times."""
    from msgspec import Raw

    from botwire import wire
    from botwire.ops import Put

    return wire.encode_ops([Put("a", "k", Raw(value)) for value in values])[0]


async def test_what_the_store_refuses_is_told_the_same(twins):
    async with twins() as both:
        for each in (both.hot, both.plain):
            await each.service.store.execute([Configure("small", Policy(max_items=1, max_value_bytes=20))])
            await each.service.store.execute([Configure("rare", Policy(writes_per_day=1))])
        await both.were_hot(
            http("PUT", "/memory/small/a", b'{"value":"1"}'),
            http("PUT", "/memory/small/b", b'{"value":"1"}'),
            http("PUT", "/memory/small/a", b'{"value":"' + b"x" * 30 + b'"}'),
            http("PUT", "/memory/rare/a", b'{"value":"1"}'),
            http("PUT", "/v1/namespaces/rare/items/a", b'{"value":"2"}'),
            http("POST", "/v1/execute", put_ops(b"1"), "Idempotency-Key: x"),
            http("POST", "/v1/execute", put_ops(b"2"), "Idempotency-Key: x"),
        )
        assert both.hot.service.metrics._failed == both.plain.service.metrics._failed


async def test_who_may_do_what_is_asked_in_front_of_the_router_too(twins):
    async with twins(Settings(keys="required"), key_for("acme", "read")) as both:
        await both.were_hot(
            http("GET", ITEM, None, AUTHORIZED),
            http("GET", "/memory/other/k", None, AUTHORIZED),
            http("GET", "/memory/acm/k", None, AUTHORIZED),
            http("PUT", ITEM, b'{"value": 1}', AUTHORIZED),
            http("GET", "/memory/.botwire%2Fkeys/" + KEY_ID, None, AUTHORIZED),
            http("GET", ITEM),
            http("GET", ITEM, None, "Authorization: Bearer bw_0123456789ab_" + "t" * 64),
            http("PUT", ITEM, b'{"value": 1}', "Authorization: Basic c2VjcmV0"),
            http("POST", "/v1/execute", put_ops(b"1"), AUTHORIZED),
        )
        assert both.hot.service.metrics._failed == both.plain.service.metrics._failed


async def test_the_request_rate_is_counted_once_and_told_the_same(twins):
    async with twins(Settings(requests_per_second=0.001, burst=4)) as both:
        for _ in range(5):
            answer = await both.ask(http("GET", "/memory/user-42/coffee"))
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"ratelimit-policy:" in answer
        assert both.hot.passed == []


async def test_what_is_told_is_counted_the_same(twins):
    async with twins() as both:
        for _ in range(3):
            await both.ask(http("PUT", "/memory/user-42/coffee", b'{"value":"x"}'))
            await both.ask(http("GET", "/memory/user-42/coffee"))
            await both.ask(http("GET", "/memory/user-42/none"))
        counts = [
            {kind.__name__: sum(span.buckets) for kind, span in each.service.metrics._single.items()}
            for each in (both.hot, both.plain)
        ]
        assert counts[0] == counts[1]
        assert counts[0]["Put"] == 3
        assert both.hot.service.metrics.sent > 0


# ── what is unusual ─────────────────────────────────────────────────────────────────────────────────

UNUSUAL: list[bytes] = [
    http("GET", "/memory/user-42/coffee?x=1"),
    http("GET", "/memory/user-42/coffee?"),
    http("GET", "/memory/user-42"),
    http("GET", "/memory/user-42/"),
    http("GET", "/memory/user-42/a/b"),
    http("GET", "/memory//coffee"),
    http("GET", "/memory/user-42/%"),
    http("GET", "/memory/user-42/%zz"),
    http("GET", "/memory/user-42/%ff"),
    http("GET", "/memory/user-42/%00"),
    http("GET", "/memory/user-42/bw_0123456789ab_" + "0" * 64),
    http("GET", "/nowhere"),
    http("GET", "http://127.0.0.1/memory/user-42/coffee"),
    http("HEAD", ITEM),
    http("POST", ITEM, b'{"value":1}'),
    http("DELETE", "/memory/user-42/coffee"),
    http("PATCH", ITEM, b'{"ttl": 5}'),
    http("GET", ITEM, None, 'If-None-Match: "1"'),
    http("GET", COFFEE, None, 'If-None-Match: "1"'),
    http("GET", COFFEE, None, 'If-Match: "7"'),
    http("PUT", ITEM, b'{"value":1}', 'If-Match: "7"'),
    http("PUT", COFFEE, b'{"value":1}', "If-None-Match: *"),
    http("PUT", ITEM, b'{"value":1}', "Content-Encoding: gzip"),
    http("PUT", ITEM, b'{"value":1}', "Content-Type: text/plain"),
    http("PUT", ITEM, b'{"value":1}', "Content-Type: application/json; charset=utf-8"),
    http("PUT", ITEM, b'{"value":1}', "Expect: 200-ok"),
    http("PUT", ITEM, b'{"value":1}', "Idempotency-Key: a b"),
    http("PUT", ITEM, b'{"value":1}', "Idempotency-Key: a", "Idempotency-Key: b"),
    http("PUT", ITEM, b'{"value":1}', "Authorization: Bearer x", "Authorization: Bearer y"),
    http("PUT", ITEM, b"", "Content-Type: application/json"),
    http("PUT", ITEM, b"{"),
    http("PUT", ITEM, b"[]"),
    http("PUT", ITEM, b'{"value":NaN}'),
    http("PUT", ITEM, b'{"value":1e999}'),
    http("PUT", ITEM, b'{"value":1,"other":2}'),
    http("PUT", ITEM, b'{"value":1,"ttl":-1}'),
    http("PUT", ITEM, b'{"value":' + b"[" * 200 + b"]" * 200 + b"}"),
    http("PUT", ITEM, b'{"value":"\xff"}'),
    http("PUT", ITEM, b'{"value":"' + b"x" * 120_000 + b'"}'),
    http("PUT", "/memory/user-42/" + "k" * 600, b'{"value":1}'),
    http("PUT", "/memory/a%2F%2Fb/k", b'{"value":1}'),
    http("GET", ITEM, None, "Origin: https://evil.example"),
    http("GET", ITEM, None, "Origin: http://127.0.0.1"),
    http("GET", ITEM, None, "Sec-Fetch-Site: cross-site"),
    http("GET", ITEM, None, "X-Forwarded-For: 1.2.3.4"),
    http("GET", ITEM, None, "X-Request-Id: mine"),
    http("GET", ITEM, None, "Cookie: a=b"),
    http("GET", COFFEE, None, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    http("PUT", COFFEE, b'{"value":1}', "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"),
    http("GET", COFFEE, None, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    http("GET", ITEM, b"x"),
    http("GET", ITEM, None, "Connection: close"),
    b"GET /memory/user-42/coffee HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /memory/user-42/coffee HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n",
    b"GET /memory/user-42/coffee HTTP/1.1\r\n\r\n",
    b"GET /memory/user-42/coffee HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /memory/user-42/coffee HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    b"PUT /memory/user-42/c HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'b\r\n{"value":1}\r\n0\r\n\r\n',
    b"PUT /memory/user-42/c HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
    b'{"value":1}',
    b'PUT /memory/user-42/c HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 11\r\nContent-Length: 11\r\n\r\n{"value":1}',
    b'PUT /memory/user-42/c HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: +11\r\n\r\n{"value":1}',
    b"PUT /memory/user-42/c HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'b\r\n{"value":1}\r\n0\r\nAuthorization: Bearer x\r\nIf-Match: "9"\r\n\r\n',
    b"PUT /memory/user-42/c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /memory/user-42/coffee HTTP/1.1\r\nHost: 127.0.0.1\r\n X: folded\r\n\r\n",
    b"GET  /memory/user-42/coffee HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"nonsense\r\n\r\n",
    http("POST", "/v1/execute", b'{"ops":[]}'),
    http("POST", "/v1/execute", b'{"ops":[{"op":"erase","namespace":"","subtree":true}]}'),
    http("POST", "/v1/execute", b'{"ops":[{"op":"scan","namespace":"user-42"}]}'),
    http("POST", "/v1/execute", b'{"ops":[{"op":"unknown"}]}'),
    http("GET", "/v1/execute"),
    http("POST", "/v1/execute", b'{"ops":[{"op":"value","namespace":"a","key":"k"}]}', "Botwire-Shield: 00"),
]


@pytest.mark.parametrize("asked", UNUSUAL, ids=lambda asked: repr(asked[:60] + asked[-30:]))
async def test_unusual_requests_are_answered_the_same(twins, asked):
    async with twins() as both:
        for each in (both.hot, both.plain):
            await each.service.store.execute([put_item()])
        await both.ask(asked)
        await both.ask(http("GET", "/memory/user-42/coffee"))


def put_item() -> Any:
    """The op that gives `coffee` a value."""
    from msgspec import Raw

    from botwire.ops import Put

    return Put("user-42", "coffee", Raw(b'"Yirgacheffe"'))


names = st.sampled_from(["user-42", "acme%2Fx", "caf%C3%A9", "%", ".botwire", "a%2F", "..", "a:b", "k" * 200, "%E2%80"])
paths = st.one_of(
    st.builds("/memory/{}/{}".format, names, names),
    st.builds("/v1/namespaces/{}/items/{}".format, names, names),
    st.sampled_from(["/v1/execute", "/memory/user-42/coffee?as_of=1", ITEM + "?as_of=1", ITEM + "/history"]),
)
header_lines = st.sampled_from(
    [
        "Accept: */*",
        "User-Agent: x",
        "Connection: keep-alive",
        "Content-Type: application/json",
        "Accept: text/html",
        "Content-Type: text/html",
        "Idempotency-Key: k1",
        "If-Match: *",
        "X-Other: 1",
        "Authorization: Basic x",
        "Host: 127.0.0.1",
        "Connection: close",
        "Te: trailers",
        "Accept-Encoding: gzip",
        'If-None-Match: "1"',
    ]
)  # fmt: skip
bodies = st.one_of(
    st.none(),
    st.sampled_from(
        [
            b'{"value":"x"}', b'{"value": [1, 2 ,3]}', rb'{"value":"[1, 2]"}', rb'{"value":"\ud800"}',
            b'{"value":1e400}', b"{}", b"", b'{"value":null,"ttl":1}', b'{"value":1,"tags":["x"]}', b'{"value":1}\n',
            b'{"value":1,"value":2}', b'{"ops":[{"op":"value","namespace":"user-42","key":"a:b"}]}',
            b'{"ops":[{"op":"get","namespace":"a","key":"a:b"},{"op":"delete","namespace":"a","key":"a:b"}]}',
        ]
    ),
    st.binary(max_size=30),
)  # fmt: skip
requests = st.builds(
    lambda method, path, body, headers: http(method, path, body, *headers),
    st.sampled_from(["GET", "PUT", "PUT", "GET", "POST", "DELETE", "HEAD"]),
    paths,
    bodies,
    st.lists(header_lines, max_size=4),
)


def test_whatever_is_sent_both_ways_is_answered_the_same(twins, request):
    is_long = request.config.getoption("--long", default=False)
    rounds = 400 if is_long else 20

    async def run(sent: Iterable[tuple[bytes, int]]) -> None:
        async with twins() as both:
            for asked, pieces in sent:
                await both.ask(asked, pieces=pieces)

    # The short run sends the same each time: what it says is about the change that is tested.
    @settings(max_examples=rounds, deadline=None, derandomize=not is_long, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(requests, st.sampled_from([1, 1, 2, 5])), min_size=10, max_size=40))
    def check(sent: list[tuple[bytes, int]]) -> None:
        asyncio.run(run(sent))

    check()


# ── connections ─────────────────────────────────────────────────────────────────────────────────────


async def test_requests_sent_at_once_are_answered_in_their_order(twins):
    sent = [
        http("PUT", "/memory/user-42/a", b'{"value":"1"}'),
        http("GET", "/memory/user-42/a"),
        http("PUT", "/memory/user-42/a", b'{"value":"2"}'),
        http("GET", "/nowhere"),
        http("GET", ITEM),
        http("POST", "/v1/execute", put_ops(b"1")),
        http("GET", "/memory/user-42/a"),
    ]
    async with twins() as both:
        one_by_one = [await both.ask(each) for each in sent]
        reader, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        writer.write(b"".join(sent))
        at_once = [masked(await asyncio.wait_for(read_answer(reader), PATIENCE)) for _ in sent]
        writer.close()
    assert at_once[1].endswith(b'"value":"1"}')
    assert at_once[6].endswith(b'"value":"2"}')
    assert [each for place, each in enumerate(at_once) if place != 5] == [
        each for place, each in enumerate(one_by_one) if place != 5
    ]


async def test_a_request_that_comes_in_pieces_is_answered_whole(twins):
    async with twins() as both:
        for pieces in (2, 3, 7, 50):
            await both.ask(http("PUT", "/memory/user-42/a", b'{"value":"' + b"x" * pieces + b'"}'), pieces=pieces)
            await both.ask(http("GET", "/memory/user-42/a"), pieces=pieces)


async def test_a_body_that_is_slow_to_come_becomes_the_apps_business(twins):
    async with twins(Settings(body_timeout=0.2)) as both:
        reader, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        writer.write(b'PUT /memory/a/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 13\r\n\r\n{"val')
        await asyncio.sleep(0.05)
        assert b"/memory/a/k" not in both.hot.passed
        for connection in list(both.hot.state.connections):
            connection.look(connection.bounds.now)
        assert b"/memory/a/k" in both.hot.passed
        answer = await asyncio.wait_for(read_answer(reader), PATIENCE)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_the_app_took_over_half_way_arrives_whole(twins):
    async with twins() as both:
        reader, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        writer.write(b'PUT /memory/a/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 13\r\n\r\n{"val')
        await asyncio.sleep(0.05)
        for connection in list(both.hot.state.connections):
            connection.look(connection.bounds.now)
        writer.write(b'ue":"x"}')
        assert (await asyncio.wait_for(read_answer(reader), PATIENCE)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert (await both.hot.service.store.execute([put_item(), *[]]))[0].version == 1


async def test_a_client_that_leaves_before_its_write_is_committed_harms_nobody(twins):
    async with twins() as both:
        for number in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
            writer.write(http("PUT", f"/memory/user-42/k{number}", b'{"value":"x"}'))
            await writer.drain()
            writer.transport.abort()
        await both.ask(http("GET", "/memory/user-42/coffee"))
        async with asyncio.timeout(PATIENCE):
            while both.hot.service.metrics.connections > 1:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.01)


async def test_a_write_under_way_is_answered_before_the_server_closes(twins):
    async with twins() as both:
        reader, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        writer.write(http("PUT", "/memory/user-42/k", b'{"value":"x"}'))
        async with asyncio.timeout(PATIENCE):
            while not (busy := [each for each in both.hot.state.connections if each.is_busy()]):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0)
        busy[0].shutdown()
        answer = await asyncio.wait_for(read_answer(reader), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()


async def test_a_request_behind_a_write_waits_until_that_is_answered(twins):
    async with twins() as both:
        commits = both.hot.service.store.store._commits
        run, go_on = commits._run, threading.Event()

        def held(requests: Any) -> None:
            go_on.wait(PATIENCE)
            run(requests)

        commits._run = held
        reader, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        writer.write(http("PUT", "/memory/user-42/k", b'{"value":"x"}'))
        async with asyncio.timeout(PATIENCE):
            while not any(each.is_busy() for each in both.hot.state.connections):  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(0.001)
        writer.write(http("GET", "/memory/user-42/k"))
        await asyncio.sleep(0.05)
        go_on.set()
        answers = [await asyncio.wait_for(read_answer(reader), PATIENCE) for _ in range(2)]
        writer.close()
    assert answers[0].endswith(b'"stored":true,"bytes":3}')
    assert answers[1].endswith(b'"value":"x"}')


@pytest.mark.parametrize("at_once", [1, 100])
async def test_who_reads_nothing_is_not_answered_without_end(twins, at_once):
    async with twins() as both:
        await both.ask(http("PUT", "/memory/a/big", b'{"value":"' + b"x" * 90_000 + b'"}'))
        _, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        asked = http("GET", "/memory/a/big") * at_once
        with contextlib.suppress(TimeoutError):
            for _ in range(300):
                writer.write(asked)
                await asyncio.wait_for(writer.drain(), 0.5)
                await asyncio.sleep(0.001)  # so that each is read by itself
        waiting = max(each.transport.get_write_buffer_size() for each in both.hot.state.connections)
        assert waiting < 2_000_000
        writer.transport.abort()


async def test_of_many_requests_that_come_at_once_one_is_answered_in_front_of_the_app(twins):
    async with twins() as both:
        reader, writer = await asyncio.open_connection("127.0.0.1", both.hot.port)
        writer.write(http("GET", "/memory/a/k") * 10)
        for _ in range(10):
            await asyncio.wait_for(read_answer(reader), PATIENCE)
        writer.close()
        assert both.hot.passed == [b"/memory/a/k"] * 9


# ── where it does not serve ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wanted", [Settings(access_log=True), Settings(allowed_origins=("https://a.example",))])
async def test_settings_that_concern_every_request_send_all_to_the_app(twins, wanted):
    async with twins(wanted) as both:
        before = len(both.hot.passed)
        await both.ask(http("PUT", "/memory/user-42/k", b'{"value":"x"}'))
        await both.ask(http("GET", "/memory/user-42/k"))
        assert len(both.hot.passed) == before + 2


async def test_with_an_audit_writes_go_to_the_app_and_are_recorded(twins):
    async with twins(Settings(audit=True)) as both:
        await both.ask(http("PUT", "/memory/user-42/k", b'{"value":"x"}'))
        assert both.hot.passed[-1] == b"/memory/user-42/k"
        await both.were_hot(http("GET", "/memory/user-42/k"))
