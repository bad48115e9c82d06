"""The client of a server: what it does when the network, the server or something in between misbehaves.

Over `tests/http_stores.py` all contract tests run over HTTP, too; here is what only a client can meet.
"""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from msgspec import Raw
from tests import http_stores
from tests.server import client_roles
from tests.server.faulty import Seen, answer, between, problem
from tests.server.running import PATIENCE, ROOT, environment, until
from tests.server.test_serve import make_certificate
from tests.stores import OnLoop

from botwire import (
    AccessDenied,
    BotWireError,
    Conflict,
    CursorExpired,
    InvalidInput,
    Memory,
    NotAuthenticated,
    OutcomeUnknown,
    RateLimited,
    RequestReused,
    StoreError,
    StoreUnavailable,
    TooLarge,
)
from botwire.ops import Append, Changes, Get, Messages, NewMessage, Put, Scan, Value
from botwire.stores.http import AsyncHTTPStore, HTTPStore, calls, lanes

WRITE = [Append("user-42", "talk", [NewMessage(Raw(b'"hi"'))])]
READ = [Get("user-42", "a")]


@pytest.fixture
def upstream(clock):
    """A server that is all right."""
    server = http_stores.running()
    url = server.open(":memory:", clock)
    yield url
    server.close(url)


@pytest.fixture
def faulty(upstream):
    """What stands between it and the client."""
    with between(upstream) as made:
        yield made


@pytest.fixture(params=["sync", "async"])
def client(request):
    """Make a client, of either kind; all are closed in the end."""
    made = []

    def make(url, **options):
        is_sync = request.param == "sync"
        made.append(HTTPStore(url, **options) if is_sync else OnLoop(lambda: AsyncHTTPStore(url, **options)))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def impatient(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.001)


def said(upstream):
    """How often the write was done."""
    store = HTTPStore(upstream)
    [page] = store.execute([Messages("user-42", "talk")])
    store.close()
    return len(page.messages)


def keys_of(faulty):
    return [seen.headers.get("idempotency-key") for seen in faulty.seen]


# ── trying again ──

BUSY = problem(503, "store-busy")
STOPPING = problem(503, "store-unavailable", "the server is stopping")
GATEWAY = answer(502, b"<html>Bad Gateway</html>", "text/html")
FAULTS = {
    "hangs up": "drop",
    "resets": "reset",
    "breaks after the commit": "cut",
    "breaks in the middle of the answer": "half",
    "is busy": BUSY,
    "is stopping": STOPPING,
    "is a gateway that lost its server": GATEWAY,
    "limits, and not for long": problem(429, "rate-limited", retry_after=0.01),
    "did not get all in time": answer(408, b"", "text/plain"),
    "answers what is no HTTP": b"what?\r\n\r\n",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_write_that_failed_on_the_way_is_tried_again_and_applied_once(client, upstream, faulty, fault):
    store = client(faulty.url)
    faulty.script.append(fault)
    [[stamp]] = store.execute(WRITE)
    assert stamp.version == 1
    assert said(upstream) == 1
    first, second = keys_of(faulty)
    assert first == second
    assert first


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_read_that_failed_on_the_way_is_tried_again(client, faulty, fault):
    store = client(faulty.url)
    store.execute([Put("user-42", "a", Raw(b"1"))])
    faulty.script.append(fault)
    assert store.execute(READ)[0].value == 1
    assert keys_of(faulty)[1:] == [None, None]


def test_each_write_has_an_id_of_its_own(client, faulty):
    store = client(faulty.url)
    store.execute(WRITE)
    store.execute(WRITE)
    first, second = keys_of(faulty)
    assert first != second


def test_a_write_that_never_comes_back_has_an_unknown_outcome(client, upstream, faulty, impatient):
    store = client(faulty.url)
    faulty.always = "cut"
    with pytest.raises(OutcomeUnknown, match="may or may not have") as raised:
        store.execute(WRITE)
    assert len(faulty.seen) == calls.TRIES
    assert len(set(keys_of(faulty))) == 1
    faulty.always = "pass"
    [name] = re.findall("request_id='(.*)'", str(raised.value))
    store.execute(WRITE, request_id=name)  # as the message says
    assert said(upstream) == 1


def test_a_read_that_never_comes_back_finds_the_store_unavailable(client, faulty, impatient):
    faulty.always = "cut"
    with pytest.raises(StoreUnavailable, match="gave no answer"):
        client(faulty.url).execute(READ)
    assert len(faulty.seen) == calls.TRIES


def test_nothing_was_sent_where_nothing_listens(client, impatient):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for ops in (WRITE, READ):
        with pytest.raises(StoreUnavailable, match="botwire serve"):
            client(f"http://127.0.0.1:{port}").execute(ops)


def test_a_write_sent_to_a_server_that_then_was_gone_has_an_unknown_outcome(client, faulty, impatient):
    store = client(faulty.url)

    def go(_):
        faulty._listening.shutdown(socket.SHUT_RDWR)
        faulty._listening.close()
        return b"what?\r\n\r\n"

    faulty.script.append(go)
    with pytest.raises(OutcomeUnknown, match="botwire serve"):
        store.execute(WRITE)


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        (problem(401, "not-authenticated"), OutcomeUnknown),
        (problem(403, "access-denied"), OutcomeUnknown),
        (problem(429, "rate-limited", retry_after=3_600), OutcomeUnknown),
        (problem(507, "store-full"), OutcomeUnknown),
        (answer(404, {"detail": "Not Found"}), OutcomeUnknown),
        (problem(409, "conflict", version=7), Conflict),  # the store has looked, and knows nothing of it
        (problem(422, "request-reused"), RequestReused),
    ],
)
def test_what_is_refused_after_an_unanswered_try_is_unknown_unless_the_store_itself_has_looked(
    client, faulty, then, kind
):
    store = client(faulty.url)
    faulty.script.extend(["drop", then])
    with pytest.raises(kind):
        store.execute(WRITE)


def test_a_conflict_carries_its_version(client, faulty):
    faulty.script.append(problem(409, "conflict", "the key has changed", version=7))
    with pytest.raises(Conflict, match="the key has changed") as raised:
        client(faulty.url).execute(WRITE)
    assert raised.value.version == 7


@pytest.mark.parametrize("ops", [WRITE, READ], ids=["write", "read"])
def test_who_writes_too_much_is_told_for_how_long_and_not_kept_waiting(client, faulty, ops):
    faulty.script.append(problem(429, "rate-limited", retry_after=3_600.5))
    with pytest.raises(RateLimited) as raised:
        client(faulty.url).execute(ops)
    assert raised.value.retry_after == 3_600.5
    assert len(faulty.seen) == 1


def test_a_server_that_wants_to_be_left_alone_for_long_is_not_asked_again(client, faulty):
    for said_so in ("120", "Fri, 31 Dec 2100 23:59:59 GMT"):
        faulty.script.append(answer(503, b"", "text/plain", retry_after=said_so))
        with pytest.raises(StoreUnavailable):
            client(faulty.url).execute(READ)
    assert len(faulty.seen) == 2


def test_an_error_of_the_store_is_not_tried_again(client, faulty):
    refused = {
        problem(400, "invalid-input"): InvalidInput,
        problem(413, "too-large"): TooLarge,
        problem(503, "store-read-only"): StoreError,
        problem(507, "store-full"): StoreError,
        problem(500, "store-corrupt"): StoreError,
    }
    for text, kind in refused.items():
        faulty.script.append(text)
        with pytest.raises(kind, match="it is so"):
            client(faulty.url).execute(WRITE)
    assert len(faulty.seen) == len(refused)


def test_a_write_that_the_server_failed_at_has_an_unknown_outcome_and_names_the_log_entry(client, faulty):
    broken = problem(500, "bot-wire-error", "something went wrong", request_id="abc-1")
    faulty.script.extend([broken, broken])
    with pytest.raises(OutcomeUnknown):
        client(faulty.url).execute(WRITE)
    with pytest.raises(BotWireError, match="something went wrong") as raised:
        client(faulty.url).execute(READ)
    assert "abc-1" in raised.value.__notes__[0]
    assert len(faulty.seen) == 2


# ── time-outs ──


@pytest.mark.parametrize("fault", ["stall", "hold"])
def test_a_server_that_never_answers_is_waited_for_as_long_as_was_said(client, faulty, fault):
    store = client(faulty.url, timeout=0.5)
    faulty.always = fault
    with pytest.raises(StoreUnavailable, match=r"time-out of 0\.5 seconds"):
        store.execute(READ)
    with pytest.raises(OutcomeUnknown):
        store.execute(WRITE)
    assert len(faulty.seen) == 2


def test_an_answer_that_trickles_in_is_not_waited_for_beyond_the_time_out(client, faulty):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(head)
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with pytest.raises(StoreUnavailable):
                client(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.4).execute(READ)
        finally:
            stop.set()
            thread.join()


# ── connections ──


def test_a_connection_that_the_server_has_closed_meanwhile_is_no_error(client, faulty):
    store = client(faulty.url)
    faulty.always = "close"
    for _ in range(20):
        store.execute(WRITE)
    assert len(set(keys_of(faulty))) == 20


def test_calls_one_after_another_use_one_connection(client, faulty):
    store = client(faulty.url)
    for _ in range(20):
        store.execute(READ)
    assert faulty.connections == 1


def test_more_threads_than_connections_wait_for_one(upstream):
    store = HTTPStore(upstream)
    memory, errors = Memory("user-42", store=store), []

    def write(number):
        try:
            for _ in range(3):
                memory.set(f"k{number}", number)
        except BotWireError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(memory) == 100
    store.close()


# ── what is no botwire server ──


def test_a_redirect_is_not_followed_but_told(client, faulty):
    faulty.always = answer(308, b"", "text/plain", location="https://memory.example.com/v1/execute")
    with pytest.raises(StoreUnavailable, match=r"url='https://memory\.example\.com'"):
        client(faulty.url, api_key="bw_secret").execute(WRITE)
    assert len(faulty.seen) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (answer(200, b"<html>Welcome</html>", "text/html"), StoreUnavailable),
        (answer(404, {"detail": "Not Found"}), StoreUnavailable),
        (answer(405, b"", "text/plain"), StoreUnavailable),
        (answer(501, b"Unsupported method", "text/html"), StoreUnavailable),
        (answer(400, b"The plain HTTP request was sent to HTTPS port", "text/html"), StoreUnavailable),
        (answer(401, b"who?", "text/plain"), NotAuthenticated),
        (answer(403, b"no", "text/plain"), AccessDenied),
        (answer(413, b"too much", "text/plain"), TooLarge),
        (answer(429, b"", "text/plain", retry_after="30"), RateLimited),
        (answer(200, b'{"results":[]}'), StoreError),
        (answer(200, b'{"results":[{"value":'), StoreError),
        (answer(200, b"\xff\xfe"), StoreError),
        (answer(500, b"oops", "text/plain"), StoreUnavailable),
    ],
    ids=lambda each: each[:13].decode() if isinstance(each, bytes) else each.__name__,
)
def test_answers_of_something_else_are_told_for_what_they_are(client, faulty, text, kind):
    faulty.always = text
    with pytest.raises(kind, match=re.escape(faulty.url)):
        client(faulty.url).execute(READ)


def test_a_write_that_was_answered_with_nonsense_has_an_unknown_outcome(client, faulty):
    faulty.always = answer(200, b'{"results":[]}')
    with pytest.raises(OutcomeUnknown):
        client(faulty.url).execute(WRITE)


def test_a_server_of_0_2_is_recognised_and_the_way_to_move_told(client, faulty):
    def as_0_2(request: Seen):
        if request.method == "GET" and re.fullmatch(r"/s/\d+/memory/[^/]+", request.target):
            return answer(200, {"namespace": "default", "keys": []})
        return answer(404, {"detail": "Not Found"})

    faulty.always = as_0_2
    for ops in (WRITE, READ):
        with pytest.raises(StoreUnavailable, match=r"0\.2.*docs/client\.md"):
            client(faulty.url, api_key="bw_secret").execute(ops)
    probes = [seen for seen in faulty.seen if seen.method == "GET"]
    assert probes
    assert not any("authorization" in probe.headers for probe in probes)


def test_something_else_is_not_taken_for_a_server_of_0_2(client, faulty):
    for body in (b"[]", b'{"keys":1}', b"<html>", b"\xff"):
        faulty.script.extend([answer(404), answer(200, body)])
        with pytest.raises(StoreUnavailable, match="no botwire server"):
            client(faulty.url).execute(READ)


# ── arguments ──


@pytest.mark.parametrize(
    "url",
    ["ftp://h", "http://", "http://user:secret@h", "http://h?key=secret", "http://h#f", "http://h:99999", "h", "",
     "http://a b", "http://h\n", "http://[::1", None],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_without_showing_a_password(url):
    for kind in (HTTPStore, AsyncHTTPStore):
        with pytest.raises(InvalidInput) as raised:
            kind(url)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["", "a\nb", "ключ", 5, "a b\r\nX: y"])
def test_an_api_key_that_is_none_is_refused_without_showing_it(key):
    with pytest.raises(InvalidInput) as raised:
        HTTPStore("http://localhost", api_key=key)
    assert key == "" or str(key) not in str(raised.value)


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("nan"), float("inf")])
def test_a_time_out_that_is_none_is_refused(timeout):
    for kind in (HTTPStore, AsyncHTTPStore):
        with pytest.raises(InvalidInput):
            kind("http://localhost", timeout=timeout)


IDS = ["r1", "with space", "ключ 🔑", "a%20b", "a b", "\n", "x" * 1_000, "x" * 1_001, "\ud800", "%sha256:x"]


def test_request_ids_of_any_kind_arrive_as_different_ones(client, upstream, faulty):
    store = client(faulty.url)
    for _ in range(2):
        for each in IDS:
            store.execute(WRITE, request_id=each)
    assert said(upstream) == len(IDS)
    assert len(set(keys_of(faulty))) == len(IDS)
    for wrong in ("", 5, b"r"):
        with pytest.raises(InvalidInput):
            store.execute(WRITE, request_id=wrong)


@pytest.mark.parametrize("where", [{"a": float("nan")}, {"a": {"$lt": float("inf")}}, {"a": {1: 2}}, {"a": object()}])
def test_a_filter_that_would_arrive_as_another_is_refused(client, upstream, where):
    memory = Memory("user-42", store=client(upstream))
    with pytest.raises(InvalidInput):
        list(memory.items(where=where))


@pytest.mark.parametrize("key", [b"abc", 5, None, "\ud800", "a\x00"])
def test_a_key_that_would_arrive_as_another_is_refused(client, faulty, key):
    store = client(faulty.url)
    for op in (Value("user-42", key), Get("user-42", key)):
        with pytest.raises(InvalidInput):
            store.execute([op])
    assert faulty.seen == []


# ── what an API key is shown to ──


def test_an_api_key_is_sent_in_its_header_alone_and_shown_nowhere(client, faulty, caplog, impatient):
    caplog.set_level(logging.DEBUG)
    store = client(faulty.url, api_key="bw_secret")
    faulty.script.extend(["drop", problem(403, "access-denied")])
    with pytest.raises(BotWireError) as raised:
        store.execute(WRITE)
    assert [seen.headers["authorization"] for seen in faulty.seen] == ["Bearer bw_secret"] * 2
    assert all("secret" not in seen.target for seen in faulty.seen)
    inner = getattr(store, "inner", store)
    shown = [repr(inner), repr(inner.server), str(raised.value), repr(raised.value.__cause__), caplog.text]
    shown.append(repr(Memory("a", url=faulty.url, api_key="bw_secret")))
    assert all("secret" not in each for each in shown)


def test_a_memory_with_its_store_can_be_pickled(client, upstream):
    for kind in (HTTPStore, AsyncHTTPStore):
        again = pickle.loads(pickle.dumps(kind(upstream, api_key="bw_secret", timeout=7)))
        assert type(again) is kind
        assert (again.server.url, again.server.api_key, again.server.timeout) == (upstream, "bw_secret", 7)
    memory = pickle.loads(pickle.dumps(Memory("user-42", url=upstream)))
    memory.set("a", 1)
    assert memory.get("a") == 1
    memory.close()


# ── beginning and end ──


def test_a_closed_store_says_so(client, upstream):
    store = client(upstream)
    store.execute(READ)
    inner = getattr(store, "inner", store)
    if inner is store:
        store.close()
        store.close()
    else:
        store._await(inner.close())
        store._await(inner.close())
    for use in (lambda: store.execute(READ), lambda: store.wait("user-42", "", 1), lambda: store.execute(WRITE)):
        with pytest.raises(StoreUnavailable, match="is closed: open a new one"):
            use()


def test_closing_ends_the_waiting_of_other_threads(upstream):
    store = HTTPStore(upstream)
    waiting = Waiting(store, "user-42", "v0", 3_600)
    until(lambda: store._connections._heard, "it listens")
    store.close()
    assert "closed" in str(waiting.result())


def test_closing_in_the_middle_of_calls_ends_them_as_errors_that_say_so(upstream):
    for _ in range(5):
        store, begun = HTTPStore(upstream), threading.Barrier(9)

        def use(store=store, begun=begun):
            store.execute(READ)
            begun.wait()
            while True:
                store.execute(READ)
                store.execute(WRITE)

        with ThreadPoolExecutor(8) as threads:
            running = [threads.submit(use) for _ in range(8)]
            begun.wait()
            store.close()
            for each in running:
                with pytest.raises(StoreUnavailable, match="is closed: open a new one"):
                    each.result(PATIENCE)
        assert store._connections._at_exit is not None
        assert not store._connections._at_exit.alive  # the last one has closed the connections


async def test_closing_in_the_middle_of_awaited_calls_ends_them_as_errors_that_say_so(upstream):
    store = AsyncHTTPStore(upstream)

    async def use(ops):
        while True:
            await store.execute(ops)

    tasks = [asyncio.create_task(use(ops)) for ops in (READ, WRITE, [Scan("user-42")]) for _ in range(4)]
    tasks.append(asyncio.create_task(store.wait("other", "v0", 3_600)))
    for _ in range(5):
        await store.execute(READ)
    await store.close()
    for each in tasks:
        with pytest.raises(StoreUnavailable, match="is closed: open a new one"):
            await each


@pytest.mark.parametrize(
    ("role", "answer"),
    [
        ("two_loops", "10"),
        ("two_loops_at_once", "80"),
        ("forgotten", "1"),
        ("cold", "False True"),
        ("fork", "[0, 0, 0, 0, 0, 0, 0, 0] 80 24"),
        ("fork_sockets", "1 0 1"),
    ],
)
def test_a_process(role, answer, upstream):
    if "fork" in role and not hasattr(os, "fork"):
        pytest.skip("this platform has no fork")
    script = str(Path(client_roles.__file__))
    done = subprocess.run(
        [sys.executable, "-W", "error", script, role, upstream],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr, done.returncode) == (answer, "", 0)


# ── proxies and TLS ──


@pytest.fixture
def proxy(faulty, monkeypatch):
    """A proxy that the environment names; it passes everything on to a server of ours."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{faulty.port}")
    return faulty


def elsewhere(proxy):
    """A URL that only the proxy can reach."""
    return f"http://memory.test/{proxy.url.split('/', 3)[3]}"


def test_a_proxy_of_the_environment_is_used(client, proxy, upstream):
    store = client(elsewhere(proxy))
    store.execute(WRITE)
    assert said(upstream) == 1
    assert proxy.seen[0].target.startswith("http://memory.test/s/")
    cursor = store.execute([Changes("user-42")])[0].cursor
    assert store.wait("user-42", "v0", 30) is True
    assert cursor == "v1"


def test_loopback_is_never_reached_through_a_proxy(client, proxy, upstream):
    client(upstream).execute(WRITE)
    client(upstream.replace("127.0.0.1", "localhost")).execute(WRITE)
    assert proxy.seen == []


def test_what_the_environment_exempts_is_reached_without_the_proxy(client, proxy, monkeypatch, impatient):
    monkeypatch.setenv("no_proxy", "memory.test")
    with pytest.raises(StoreUnavailable, match="name is not known"):
        client(elsewhere(proxy)).execute(READ)
    assert proxy.seen == []


@pytest.mark.parametrize("name", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1", "http://127.0.0.1:no"])
def test_a_proxy_that_cannot_be_used_is_named_as_the_reason(client, proxy, monkeypatch, name):
    monkeypatch.setenv("http_proxy", name)
    with pytest.raises(InvalidInput, match="proxy"):
        client(elsewhere(proxy)).execute(READ)


def test_a_proxy_that_is_down_is_no_answer_of_the_server(client, proxy, monkeypatch, impatient):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable, match=r"cannot be reached: .*proxy"):
        client(elsewhere(proxy)).execute(WRITE)


def test_a_server_of_tls_is_trusted_by_its_certificate(client, server, tmp_path, monkeypatch, impatient):
    chain, key = make_certificate(tmp_path)  # for 127.0.0.1
    served = server("--tls-cert", str(chain), "--tls-key", str(key))
    with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
        client(f"https://127.0.0.1:{served.port}").execute(READ)
    with pytest.raises(StoreUnavailable, match="begins with https://"):
        client(f"http://127.0.0.1:{served.port}").execute(READ)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    store = client(f"https://127.0.0.1:{served.port}")
    store.execute(WRITE)
    assert store.wait("user-42", "v0", 30) is True
    with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
        client(f"https://localhost:{served.port}").execute(READ)


def test_https_to_a_server_without_tls_is_said_to_be_that(client, upstream, impatient):
    with pytest.raises(StoreUnavailable, match="begins with http://"):
        client(upstream.replace("http://", "https://")).execute(READ)


def test_what_answers_in_tls_is_said_to_do_that(client, faulty, impatient):
    faulty.always = b"\x15\x03\x01\x00\x02\x02\x46"
    with pytest.raises(StoreUnavailable, match="begins with https://"):
        client(faulty.url).execute(READ)


# ── watching ──


def test_waiting_tells_of_what_is_there_already_and_of_nothing_else(client, upstream):
    store = client(upstream)
    store.execute(WRITE)
    for timeout in (0, 0.001, 30):
        assert store.wait("user-42", "v0", timeout) is True
        assert store.wait("", "", timeout, subtree=True) is True
    assert store.wait("user-42", "v1", 0) is False
    assert store.wait("user-42", "v1", 0.2) is False
    assert store.wait("other", "v0", 0.2) is False


@pytest.mark.parametrize("namespace", ["a/b", ".", "..", "ключ 🔑", "a%2Fb", "a?b#c", "a+b&c=d", "a.b/.c"])
def test_waiting_finds_every_namespace(client, upstream, namespace):
    store = client(upstream)
    store.execute([Put(namespace, "k", Raw(b"1"))])
    [page] = store.execute([Changes(namespace)])
    assert store.wait(namespace, "v0", 30) is True
    assert store.wait(namespace, page.cursor, 0.1) is False
    assert store.wait(namespace, "s0", 30, subtree=True) is True


def test_heartbeats_do_not_prolong_the_waiting(client, server):
    served = server("--heartbeat", "0.2")
    store = client(served.url)
    store.execute(WRITE)
    assert store.wait("user-42", "v1", 1.5) is False  # and not for ever


def test_waiting_behind_an_expired_cursor_wakes_whoever_will_then_be_told(client, upstream):
    store = client(upstream)
    memory = Memory("user-42", store=store)
    memory.set("a", 1)
    cursor = memory.cursor()
    memory.erase()
    memory.set("a", 1)
    assert store.wait("user-42", cursor, 30) is True
    with pytest.raises(CursorExpired):
        memory.changes(cursor)


def test_waiting_with_a_cursor_that_is_none_is_an_error(client, upstream):
    with pytest.raises(InvalidInput):
        client(upstream).wait("user-42", "nonsense", 30)
    with pytest.raises(InvalidInput):
        client(upstream).wait("", "v1", 30)


def test_waiting_goes_on_when_the_stream_breaks(client, upstream, faulty, impatient):
    store = client(faulty.url)
    faulty.script.extend(["drop", "reset", GATEWAY, STOPPING, answer(200, b":\n\n", "text/event-stream"), "pass"])
    waiting = Waiting(store, "user-42", "v0", 60)
    until(lambda: len(faulty.seen) >= 6, "it listens again")
    HTTPStore(upstream).execute(WRITE)
    assert waiting.result() is True


def test_a_server_that_stays_away_is_an_error_and_not_nothing_new(client, faulty, impatient):
    faulty.always = "drop"
    with pytest.raises(StoreUnavailable):
        client(faulty.url).wait("user-42", "v0", 0.5)


@pytest.mark.parametrize("kind", [AccessDenied, NotAuthenticated, RateLimited])
def test_who_may_not_watch_is_told(client, faulty, kind):
    told = {AccessDenied: (403, "access-denied"), NotAuthenticated: (401, "not-authenticated")}
    status, name = told.get(kind, (429, "rate-limited"))
    faulty.always = problem(status, name, retry_after=3_600 if status == 429 else None)
    with pytest.raises(kind):
        client(faulty.url).wait("user-42", "v0", 60)
    assert len(faulty.seen) == 1


def test_a_watch_goes_on_when_the_server_is_killed_and_comes_back(client, server):
    served = server()
    memory = Memory("user-42", store=client(served.url))
    watching = Watching(memory, 30)
    for number in range(10):
        memory.set(f"a{number}", number)
    until(lambda: len(watching.seen) == 10, "the first changes were seen")
    served.kill()
    served = server("--port", str(served.port))
    for number in range(10):
        memory.set(f"b{number}", number)
    served.stop()
    served = server("--port", str(served.port))
    for number in range(10):
        memory.set(f"c{number}", number)
    assert [change.version for change in watching.result()] == list(range(1, 31))
    assert served.stop() == 0


class Waiting(threading.Thread):
    """Waits for changes in a thread."""

    def __init__(self, store, *arguments):
        super().__init__(daemon=True)
        self._wait, self.answers = lambda: store.wait(*arguments), []
        self.start()

    def run(self):
        try:
            self.answers.append(self._wait())
        except BotWireError as error:
            self.answers.append(error)

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.answers[0]


class Watching(Waiting):
    """Watches in a thread until it has seen so many changes."""

    def __init__(self, memory, count):
        self.watch, self.count, self.seen = memory.watch(timeout=PATIENCE), count, []
        super().__init__(self)

    def wait(self):
        for change in itertools.islice(self.watch, self.count):
            self.seen.append(change)  # one by one: others look at it
        return self.seen


# ── many at once ──


@pytest.fixture
async def store(faulty):
    made = AsyncHTTPStore(faulty.url)
    yield made
    await made.close()


def put(key, value="1", **more):
    return [Put("user-42", key, Raw(value.encode()), **more)]


def get(key):
    return [Value("user-42", key)]


async def test_calls_made_at_the_same_time_travel_together(store, faulty):
    stamps = await asyncio.gather(*(store.execute(put(f"k{number}", str(number))) for number in range(100)))
    assert sorted(stamp.version for [stamp] in stamps) == list(range(1, 101))
    assert [seen.target.rpartition("/")[2] for seen in faulty.seen] == ["batches"]
    found = await asyncio.gather(*(store.execute(get(f"k{number}")) for number in range(100)))
    assert [bytes(raw) for [raw] in found] == [b"%d" % number for number in range(100)]
    assert len(faulty.seen) == 2


async def test_what_is_asked_while_enough_is_under_way_gathers(store, faulty):
    gate = threading.Event()
    faulty.always = lambda _: None if gate.wait(PATIENCE) else b""
    tasks = []
    for number in range(lanes.UNDER_WAY + 10):
        tasks.append(asyncio.create_task(store.execute(put(f"k{number}"))))
        for _ in range(5):
            await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert len(faulty.seen) == lanes.UNDER_WAY + 1
    assert len(json.loads(faulty.seen[-1].body)["batches"]) == 10


async def test_what_is_too_much_for_one_request_goes_in_several(store, faulty):
    await asyncio.gather(*(store.execute(put(f"k{number}")) for number in range(250)))
    await asyncio.gather(*(store.execute(put(f"k{number}", f'"{"x" * 200_000}"')) for number in range(8)))
    await asyncio.gather(*(store.execute(get("k") * 200) for number in range(8)))
    assert all(len(seen.body) < 1024 * 1024 for seen in faulty.seen)
    assert len([seen for seen in faulty.seen if seen.target.endswith("batches")]) == 3 + 4 + 4


async def test_one_call_alone_is_an_execute(store, faulty):
    await store.execute(put("a"))
    assert [seen.target.rpartition("/")[2] for seen in faulty.seen] == ["execute"]


async def test_each_keeps_its_own_atomicity_and_its_own_error(store):
    await store.execute(put("a"))
    answers: Any = await asyncio.gather(
        store.execute(put("b")),
        store.execute([*put("c"), *put("a", "2", if_version=99)]),
        store.execute(put("d")),
        store.execute([Append("user-42", "t", [NewMessage(Raw(b"1"))])]),
        return_exceptions=True,
    )
    assert [type(each) for each in answers] == [list, Conflict, list, list]
    assert answers[1].version == 1
    found = await asyncio.gather(*map(store.execute, map(get, "abcd")))
    assert [None if raw is None else bytes(raw) for [raw] in found] == [b"1", b"1", None, b"1"]


async def test_reads_keep_their_own_errors_too(store):
    await store.execute(put("a"))
    answers = await asyncio.gather(
        store.execute(get("a")),
        store.execute([Get("user-42", "a", 10**9)]),
        store.execute([Get("user-42", "x")]),
        store.execute([Value("user-42", "a\x00")]),
        return_exceptions=True,
    )
    assert [type(each) for each in answers] == [list, list, list, InvalidInput]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_writes_that_travelled_together_are_each_applied_once(store, upstream, faulty, fault):
    faulty.script.append(fault)
    stamps = await asyncio.gather(*(store.execute(WRITE) for _ in range(30)))
    assert sorted(stamp.version for [[stamp]] in stamps) == list(range(1, 31))
    assert said(upstream) == 30
    assert faulty.seen[0].body == faulty.seen[1].body


async def test_who_travelled_together_is_told_each_what_it_means_for_it(store, faulty, impatient):
    faulty.always = "cut"
    writes = await asyncio.gather(*(store.execute(WRITE) for _ in range(5)), return_exceptions=True)
    assert {type(each) for each in writes} == {OutcomeUnknown}
    assert len({re.findall("request_id='(.*)'", str(each))[0] for each in writes}) == 5
    reads = await asyncio.gather(*(store.execute(READ) for _ in range(5)), return_exceptions=True)
    assert {type(each) for each in reads} == {StoreUnavailable}


async def test_one_of_many_that_may_be_tried_again_is(store, upstream, faulty):
    def one_is_busy(request):
        asked = json.loads(request.body)["batches"]
        busy = json.loads(BUSY.partition(b"\r\n\r\n")[2])
        return answer(200, {"answers": [{"results": [[]]}] * (len(asked) - 1) + [{"problem": busy}]})

    faulty.script.append(one_is_busy)
    answers = await asyncio.gather(*(store.execute(WRITE) for _ in range(5)))
    assert [bool(stamps) for [stamps] in answers] == [False] * 4 + [True]
    assert said(upstream) == 1
    assert keys_of(faulty)[1] in faulty.seen[0].body.decode()


@pytest.mark.parametrize("status", [400, 413])
async def test_a_group_that_is_refused_as_a_whole_is_sent_one_by_one(store, faulty, status):
    faulty.script.append(problem(status, "too-large" if status == 413 else "invalid-input"))
    await asyncio.gather(*(store.execute(put(f"k{number}")) for number in range(10)))
    assert [seen.target.rpartition("/")[2] for seen in faulty.seen] == ["batches"] + ["execute"] * 10


async def test_one_broken_call_harms_no_other(store):
    answers = await asyncio.gather(
        store.execute(put("a")), store.execute(put("b", "nonsense")), store.execute(put("c")), return_exceptions=True
    )
    assert [type(each) for each in answers] == [list, InvalidInput, list]


async def test_reads_do_not_wait_for_writes(store, faulty):
    faulty.always = lambda seen: "stall" if b'"put"' in seen.body else None
    writes = [asyncio.create_task(store.execute(put(f"k{number}"))) for number in range(10)]
    await asyncio.sleep(0)
    assert await store.execute(get("a")) == [None]
    for each in writes:
        each.cancel()
    await asyncio.gather(*writes, return_exceptions=True)


async def test_whoever_is_cancelled_before_it_was_sent_is_not_sent_and_harms_no_other(store, upstream, faulty):
    tasks = [asyncio.create_task(store.execute(WRITE)) for _ in range(10)]
    await asyncio.sleep(0)
    for each in tasks[::2]:
        each.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in answers] == [asyncio.CancelledError, list] * 5
    assert said(upstream) == 5


async def test_long_calls_travel_alone(store, faulty):
    await asyncio.gather(*(store.execute([Scan("user-42")]) for _ in range(3)))
    await asyncio.gather(store.execute(put("a", '"\\ud800"')), store.execute(put("b", '"\\ud83d"')))
    assert [seen.target.rpartition("/")[2] for seen in faulty.seen] == ["execute"] * 5
    assert [Memory("user-42", url=faulty.url).get(key) for key in "ab"] == ["\ud800", "\ud83d"]


async def test_a_call_that_was_never_sent_in_time_has_a_known_outcome(faulty, upstream):
    store = AsyncHTTPStore(faulty.url, timeout=1)
    faulty.always = "hold"
    first = [asyncio.create_task(store.execute(WRITE)) for _ in range(lanes.UNDER_WAY)]
    for _ in range(lanes.UNDER_WAY):
        await asyncio.sleep(0.05)
        first.append(asyncio.create_task(store.execute(WRITE)))
    answers = await asyncio.gather(*first, return_exceptions=True)
    assert {type(each) for each in answers} <= {OutcomeUnknown, StoreUnavailable}
    assert OutcomeUnknown in map(type, answers)
    assert said(upstream) == 0
    await store.close()


# ── the documentation ──


def test_the_script_of_the_docs_brings_memories_over_from_the_published_wire(server, tmp_path):
    [script] = re.findall(r"(?s)```py\n(import contextlib\n.*?)```", (ROOT / "docs" / "client.md").read_text("utf-8"))
    old = server()
    kept = {
        "name": "Ana",
        "prefs": {"tea": [1, 2.5, None]},
        "list": [],
        "number": "5",
        "with space/ключ?#": "[draft] a }",
    }
    with httpx.Client(base_url=old.url) as published:
        for key, value in kept.items():  # as the client of 0.2 writes them
            text = value if isinstance(value, str) else json.dumps(value)
            published.put(f"/memory/my-agent/{quote(key)}", json={"value": text}).raise_for_status()
    script = script.replace("https://botwire.dev", old.url)
    for _ in range(2):  # it can be run again
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=environment(BOTWIRE_URL=f"sqlite:///{tmp_path / 'new.db'}"),
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (done.stderr, done.returncode) == ("", 0)
    items = Memory("my-agent", url=f"sqlite:///{tmp_path / 'new.db'}").items()
    assert {item.key: item.value for item in items} == kept
