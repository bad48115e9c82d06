"""The gate: what every request passes before any door looks at it. Here with an app behind it that echoes.

`test_attacks.py` knocks at a real server with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from botwire.ops import Put
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings
from botwire_server import gate as gate_module
from botwire_server.gate import ALWAYS, Gate
from botwire_server.keys import NAMESPACE, new_key
from botwire_server.service import Service

URL = "http://127.0.0.1:8765"
PEER = ("127.0.0.1", 50_000)
MAX_BODY = 1_000
IMPORT = "/v1/namespaces/acme/import"
EXECUTE = "/v1/execute"
Message = dict[str, Any]
Knock = Callable[..., Any]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer what was asked, as the doors behind the gate see it."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    about = {
        "path": scope["path"],
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "request_id": scope["botwire.request_id"],
        "body": len(body),
    }
    content = json.dumps(about).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture
async def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Gate]]:
    """Make a gate; with `key=True` before a store that has an API key."""
    monkeypatch.setattr(gate_module, "LINGER", 0.1)  # these senders are told at once
    store = AsyncSQLiteStore(SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed"))
    made: list[Service] = []

    def make(app: Any = echo, **settings: Any) -> Gate:
        service = Service(store, Settings(**{"max_body": MAX_BODY, "body_timeout": 0.3, **settings}))
        made.append(service)
        return Gate(app, service)

    yield make
    for service in made:
        await service.keyring.stop()
    await store.close()


async def lock(gate: Gate) -> Gate:
    """Have the server want keys."""
    key_id, key, _ = new_key("x", "read")
    await gate.service.store.execute([Put(NAMESPACE, key_id, msgspec.Raw(msgspec.json.encode(key)))])
    await gate.service.keyring.load()
    return gate


async def ask(gate: Gate, method: str = "GET", path: str = "/x", peer: tuple[str, int] = PEER, **more: Any) -> Any:
    transport = httpx.ASGITransport(gate, client=peer)
    async with httpx.AsyncClient(transport=transport, base_url=more.pop("url", URL)) as client:
        return await client.request(method, path, **more)


def is_problem(answer: httpx.Response, status: int) -> bool:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return bool(answer.status_code == status)


# ── DNS rebinding ──

GOOD_HOSTS = ["127.0.0.1", "127.0.0.1:8765", "localhost", "LocalHost:1", "[::1]:8765", "127.7.7.7"]
BAD_HOSTS = [
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.localhost",
    "0.0.0.0",
    "0.0.0.0:8765",
    "[::]:8765",
    "10.0.0.1",
    "2130706433",
    "0x7f.1",
    "127.1",
    "localhost.",
    "127.0.0.1@evil.example",
    "127.0.0.1, evil.example",
    "127.0.0.1 evil.example",
    "[::1]evil.example",
    "[::ffff:10.0.0.1]",
    "",
    "\xff",
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_a_server_without_keys_answers_as_this_machine(gate, host):
    assert (await ask(gate(), headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_a_server_without_keys_answers_as_nothing_else(gate, host):
    refused = await ask(gate(), headers=[(b"Host", host.encode("latin-1"))])
    assert refused.status_code in (400, 403)
    assert refused.json()["detail"].startswith("Host: ")


async def test_a_host_that_passed_once_does_not_let_others_pass(gate):
    made = gate()
    for _ in range(2):
        assert (await ask(made, headers={"Host": "localhost"})).status_code == 200
        assert (await ask(made, headers={"Host": "evil.example"})).status_code == 403


async def test_a_request_without_a_host_is_refused_where_it_matters(gate):
    assert (await raw(gate(), headers=[]))[0]["status"] == 400
    assert (await raw(await lock(gate()), headers=[]))[0]["status"] == 200


async def test_hosts_that_are_allowed_are_answered(gate):
    made = gate(allowed_hosts=("memory.example.com", "[fd00::1]"))
    assert (await ask(made, headers={"Host": "Memory.Example.com:443"})).status_code == 200
    assert (await ask(made, headers={"Host": "[fd00::1]"})).status_code == 200
    assert (await ask(made, headers={"Host": "memory.example.com.evil.example"})).status_code == 403
    assert (await ask(gate(allowed_hosts=("*",)), headers={"Host": "any.example"})).status_code == 200


async def test_where_keys_are_wanted_the_host_is_free_unless_hosts_are_named(gate):
    assert (await ask(await lock(gate()), headers={"Host": "any.example"})).status_code == 200
    named = await lock(gate(allowed_hosts=("memory.example.com",)))
    assert (await ask(named, headers={"Host": "any.example"})).status_code == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_may_ask_by_any_name(gate, path):
    assert (await ask(gate(), path=path, headers={"Host": "10.1.2.3"})).status_code == 200
    for other in (f"{path}/x", f"/v1{path}", f"/memory/ns{path}", f"{path}%2F..", f"/x{path}"):
        assert (await ask(gate(), path=other, headers={"Host": "10.1.2.3"})).status_code == 403


# ── CSRF ──


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1", "http://localhost:8765", "file://", "", URL + ".evil.example"],
)
async def test_web_pages_of_other_origins_do_not_reach_the_server(gate, locked, method, origin):
    made = await lock(gate()) if locked else gate()
    refused = await ask(made, method, headers={"Origin": origin})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "whatever"])
async def test_what_pages_fetch_without_an_origin_is_refused_too(gate, site):
    assert is_problem(await ask(gate(), headers={"Sec-Fetch-Site": site}), 403)


async def test_the_servers_own_pages_and_the_address_bar_pass(gate):
    assert (await ask(gate(), headers={"Origin": URL, "Sec-Fetch-Site": "same-origin"})).status_code == 200
    assert (await ask(gate(), headers={"Sec-Fetch-Site": "none"})).status_code == 200


@pytest.mark.parametrize("media", ["text/plain", "text/plain;charset=UTF-8", "Multipart/Form-Data; boundary=x"])
async def test_what_a_form_can_post_is_no_json(gate, media):
    assert is_problem(await ask(gate(), "POST", EXECUTE, content=b"{}", headers={"Content-Type": media}), 415)
    assert (await ask(gate(), "PUT", content=b"{}", headers={"Content-Type": media})).status_code == 200
    locked = await lock(gate())
    assert (await ask(locked, "POST", content=b"{}", headers={"Content-Type": media})).status_code == 200


async def test_what_curl_posts_passes(gate):
    curl = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "curl/8", "Accept": "*/*"}
    assert (await ask(gate(), "POST", content=b"{}", headers=curl)).status_code == 200


async def test_web_sockets_are_closed(gate):
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await gate()({"type": "websocket", "headers": []}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ── CORS ──

PAGE = "https://app.example.com"


async def test_an_allowed_page_may_ask_and_read(gate):
    made = gate(allowed_origins=(PAGE,))
    answer = await ask(made, headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "ETag" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    for other in ("http://app.example.com", PAGE + ":444", PAGE + ".evil.example", PAGE.upper()):
        refused = await ask(made, headers={"Origin": other})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


async def test_a_browser_is_told_what_an_allowed_page_may_send(gate):
    made = await lock(gate(allowed_origins=(PAGE,)))
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
    answer = await ask(made, "OPTIONS", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert (await ask(made, "OPTIONS", headers={**asked, "Origin": "https://evil.example"})).status_code == 403
    assert (await ask(made, "OPTIONS", headers={"Origin": PAGE})).json()["path"] == "/x"  # a door's affair


async def test_an_answer_without_a_page_says_that_it_depends_on_it(gate):
    assert (await ask(gate(allowed_origins=(PAGE,)))).headers["vary"] == "Origin"
    assert "vary" not in (await ask(gate())).headers


# ── headers that can be read in two ways ──


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "Authorization", "Origin", "Idempotency-Key", "If-Match", "Content-Type"]
)
async def test_a_header_that_comes_twice_is_refused(gate, name):
    value = {"Host": b"127.0.0.1", "Content-Length": b"0", "Origin": URL.encode()}.get(name, b"x")
    start, body = await raw(gate(), headers=[(name.lower().encode(), value)] * 2)
    assert start["status"] == 400
    assert f"{name.lower()} came twice" in body["detail"]


async def test_a_body_with_two_lengths_is_refused(gate):
    both = [(b"host", b"127.0.0.1"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked")]
    start, body = await raw(gate(), "POST", both)
    assert start["status"] == 400
    assert "Transfer-Encoding" in body["detail"]
    assert (b"connection", b"close") in start["headers"]


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1e3", b"0x10", b"1,1", b"", b" 1", b"9" * 30, "١".encode()])
async def test_a_length_that_is_no_number_is_refused(gate, length):
    start, _ = await raw(gate(), "POST", [(b"host", b"127.0.0.1"), (b"content-length", length)])
    assert start["status"] == 400


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "\xe9"])
async def test_an_idempotency_key_must_be_plain(gate, key):
    refused = await ask(gate(), headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert refused.status_code == 400


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "identity, gzip", "GZIP", "x"])
async def test_compressed_bodies_are_refused(gate, coding):
    refused = await ask(gate(), "POST", content=b"x", headers={"Content-Encoding": coding})
    assert is_problem(refused, 415)
    assert refused.headers["accept-encoding"] == "identity"
    assert (await ask(gate(), "PUT", content=b"x", headers={"Content-Encoding": "identity"})).status_code == 200


# ── keys in URLs ──


async def test_a_key_in_a_url_is_refused(gate):
    text = new_key("x", "read")[2]
    for path in (f"/v1?x={text}", f"/v1/{text}", "/v1?api_key=x", "/v1?a=b&API-Key=", "/v1?access_token=x"):
        refused = await ask(await lock(gate()), path=path)
        assert is_problem(refused, 400)
        assert text not in refused.text
        assert "revoke" in refused.json()["detail"]
    for path in ("/v1?key=x", "/v1/bw_1", "/v1?prefix=bw_", "/memory/ns/bw_key"):
        assert (await ask(gate(), path=path)).status_code == 200


# ── bodies ──


async def test_a_body_may_have_so_many_bytes_and_no_more(gate):
    assert (await ask(gate(), "POST", content=b"x" * MAX_BODY)).json()["body"] == MAX_BODY
    refused = await ask(gate(), "POST", content=b"x" * (MAX_BODY + 1))
    assert is_problem(refused, 413)
    assert refused.headers["connection"] == "close"


async def pieces(count: int, size: int = 100, pause: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size
        await asyncio.sleep(pause)


async def test_a_body_without_a_length_is_counted(gate):
    assert (await ask(gate(), "POST", content=pieces(10))).json()["body"] == MAX_BODY
    assert is_problem(await ask(gate(), "POST", content=pieces(11)), 413)


async def test_a_body_longer_than_it_says_is_counted(gate):
    lying = [{"type": "http.request", "body": b"x" * 600, "more_body": True}] * 2
    start, _ = await raw(gate(), "POST", [(b"host", b"127.0.0.1"), (b"content-length", b"5")], lying)
    assert start["status"] == 413


async def test_an_import_may_be_of_any_length(gate):
    assert (await ask(gate(), "POST", IMPORT, content=b"x" * 5_000)).json()["body"] == 5_000
    assert (await ask(gate(), "POST", IMPORT, content=pieces(50))).json()["body"] == 5_000
    assert (await ask(gate(), "POST", "/v1/namespaces/a%2Fb/import", content=b"x" * 5_000)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", IMPORT),
        ("POST", "/v1/namespaces/acme/items/import"),
        ("POST", "/v1/namespaces/a/b/import"),
        ("POST", "/memory/acme/import"),
        ("POST", "/v1/execute?/v1/namespaces/acme/import"),
        ("POST", "/v1/namespaces/acme/import%2F"),
        ("POST", "/v1/namespaces//import"),
        ("POST", "/x/v1/namespaces/acme/import"),
    ],
)
async def test_nothing_else_is_an_import(gate, method, path):
    assert (await ask(gate(), method, path, content=b"x" * 5_000)).status_code == 413


async def test_a_body_that_stops_coming_is_given_up(gate):
    made = gate()
    slow = await raw(made, "POST", [(b"host", b"127.0.0.1"), (b"content-length", b"500")], [piece(b"x", more=True)])
    assert slow[0]["status"] == 408
    assert (b"connection", b"close") in slow[0]["headers"]
    assert "too slowly" in slow[1]["detail"]
    assert made.service.metrics._refused["slow"] == 1


async def test_a_body_that_trickles_is_given_up_although_each_piece_is_in_time(gate):
    refused = await ask(gate(body_timeout=0.5, max_body=10**6), "POST", content=slowly())
    assert is_problem(refused, 408)


async def slowly() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x"
        await asyncio.sleep(0.1)


async def test_an_import_is_given_up_too_when_it_stops_coming(gate):
    headers = [(b"host", b"127.0.0.1"), (b"transfer-encoding", b"chunked")]
    start, _ = await raw(gate(), "POST", headers, [piece(b"x", more=True)], path=IMPORT)
    assert start["status"] == 408


async def test_time_that_the_app_takes_is_not_the_senders(gate):
    async def dawdle(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(4):
            await receive()
            await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = [(b"host", b"127.0.0.1"), (b"transfer-encoding", b"chunked")]
    start, _ = await raw(gate(dawdle), "POST", headers, [*[piece(b"x", more=True)] * 3, piece(b"x")])
    assert start["status"] == 200


async def test_whoever_waits_for_the_end_of_the_connection_is_not_timed(gate):
    """A change stream: its request has no body, or has come in whole, and it listens for the client's leaving."""

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        message = await receive()
        while message["type"] != "http.disconnect":
            message = await receive()
        await send({"type": "http.response.body", "body": b""})

    for headers in ([], [(b"content-length", b"1")]):
        messages = [piece(b"x")] if headers else []
        made = gate(stream, body_timeout=0.1)
        start, _ = await raw(made, "POST", [(b"host", b"127.0.0.1"), *headers], messages, leave_after=0.5)
        assert start["status"] == 200


async def test_what_the_app_says_after_its_request_was_turned_away_is_dropped(gate):
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"nonsense"})

    assert is_problem(await ask(gate(stubborn), "POST", content=pieces(20)), 413)


# ── proxies ──

PROXY = ("10.0.0.5", 1)


async def seen(gate: Gate, peer: tuple[str, int] = PROXY, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await ask(gate, headers=named, peer=peer)).json()


async def test_only_a_trusted_proxy_is_believed(gate):
    made = gate(trusted_proxies=("10.0.0.0/24",))
    assert (await seen(made, x_forwarded_for="203.0.113.9"))["client"] == "203.0.113.9"
    assert (await seen(made, x_forwarded_proto="https"))["scheme"] == "https"
    stranger = ("198.51.100.1", 1)
    about = await seen(made, stranger, x_forwarded_for="127.0.0.1", x_forwarded_proto="https")
    assert (about["client"], about["scheme"]) == ("198.51.100.1", "http")
    assert (await seen(gate(), ("127.0.0.1", 1), x_forwarded_for="203.0.113.9"))["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ("127.0.0.1, 203.0.113.9", "203.0.113.9"),  # the first is the client's own invention
        ("1.1.1.1, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        ("10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("203.0.113.9:1234", "203.0.113.9"),
        ("[2001:db8::1]:1234", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("nonsense", "10.0.0.5"),
        ("203.0.113.9, nonsense", "10.0.0.5"),
        ("", "10.0.0.5"),
    ],
)
async def test_the_client_is_the_last_that_no_trusted_proxy_is(gate, hops, client):
    made = gate(trusted_proxies=("10.0.0.0/24",))
    assert (await seen(made, x_forwarded_for=hops))["client"] == client


async def test_several_headers_of_a_proxy_are_one_list(gate):
    twice = [(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-for", b"203.0.113.9")]
    answer = await ask(gate(trusted_proxies=("10.0.0.5",)), headers=twice, peer=PROXY)
    assert answer.json()["client"] == "203.0.113.9"


async def test_a_key_that_came_to_the_proxy_in_the_open_is_refused(gate):
    made = gate(trusted_proxies=("10.0.0.5",))
    headers = {"Authorization": "Bearer x", "X-Forwarded-Proto": "http"}
    assert is_problem(await ask(made, headers=headers, peer=PROXY), 403)
    assert (await ask(made, headers={**headers, "X-Forwarded-Proto": "https"}, peer=PROXY)).status_code == 200
    private = gate(trusted_proxies=("10.0.0.5",), insecure_http=True)
    assert (await ask(private, headers=headers, peer=PROXY)).status_code == 200


# ── what each answer bears ──


async def test_each_answer_bears_what_keeps_browsers_from_making_more_of_it(gate):
    for answer in (await ask(gate()), await ask(gate(), headers={"Host": "evil.example"})):
        for name, value in ALWAYS:
            assert answer.headers[name.decode()] == value.decode()
        assert answer.headers["cache-control"] == "no-store"


async def test_an_answer_may_say_itself_how_long_it_holds(gate):
    async def cached(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    assert (await ask(gate(cached))).headers.get_list("cache-control") == ["max-age=60"]


@pytest.mark.parametrize("sane", ["r1", "a.b-c_D", "x" * 64])
async def test_a_sane_request_id_is_kept(gate, sane):
    answer = await ask(gate(), headers={"X-Request-Id": sane})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == sane


@pytest.mark.parametrize("insane", ["", "x" * 65, "a b", "a\tb", "{}", "\xe9", "%0a"])
async def test_any_other_request_id_is_replaced(gate, insane):
    answer = await ask(gate(), headers=[(b"X-Request-Id", insane.encode("latin-1"))])
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] not in ("", insane)


async def test_each_request_has_an_id_of_its_own(gate):
    made = gate()
    ids = {(await ask(made)).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


async def test_the_limits_of_a_key_are_told(gate):
    async def identified(scope: Any, receive: Any, send: Any) -> None:
        scope["botwire.principal"] = made.service.identify(None, scope["client"][0])
        await echo(scope, receive, send)

    made = gate(identified, requests_per_second=5.0)
    answer = await ask(made)
    assert answer.headers["ratelimit-policy"] == '"requests";q=10;w=2'
    assert answer.headers["ratelimit"] == '"requests";r=9;t=1'
    assert "ratelimit" not in (await ask(gate())).headers


async def test_what_is_turned_away_is_counted_by_its_reason(gate):
    made = gate()
    await ask(made, headers={"Host": "evil.example"})
    await ask(made, headers={"Origin": "https://evil.example"})
    await ask(made, path="/v1?api_key=x")
    await ask(made, "POST", content=b"x", headers={"Content-Encoding": "gzip"})
    assert dict(made.service.metrics._refused) == {"host": 1, "origin": 1, "url": 1, "encoding": 1}


async def test_a_client_that_goes_away_is_no_error(gate, caplog):
    from starlette.requests import Request

    async def read(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    gone = [piece(b"x", more=True), {"type": "http.disconnect"}]
    await raw(gate(read), "POST", [(b"host", b"127.0.0.1"), (b"content-length", b"9")], gone, answers=False)
    assert caplog.text == ""


# ── plain ASGI ──


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def raw(
    gate: Gate,
    method: str = "GET",
    headers: list[tuple[bytes, bytes]] | None = None,
    messages: list[Message] | None = None,
    *,
    path: str = "/x",
    leave_after: float = 30.0,
    answers: bool = True,
) -> tuple[Message, Any]:
    """A request as no client would send it; after its messages it goes silent, and leaves in the end."""
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "client": PEER, "headers": [(b"host", b"127.0.0.1")] if headers is None else headers,
    }  # fmt: skip
    waiting = list(messages or ([] if method == "POST" else [piece(b"")]))
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(leave_after)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope, receive, send)
    if not answers:
        return {}, None
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0], json.loads(body or b"null")
