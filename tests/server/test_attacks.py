"""Attacks on a real server: other people's memories, web pages, smuggled requests, bombs, floods and noise.

What the parts do by themselves is in `test_guard`, `test_keys`, `test_limits`, `test_audit` and `test_gate`.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import pytest
from tests.server.running import Answer, Served, Start, read_all, read_until, run, starting, until
from tests.server.samples import everything, kinds

from botwire import ops, transfer, wire
from botwire.ops import DumpRecord, EndRecord, NamespaceRecord, Op, Policy
from botwire_server.app import DOORS
from botwire_server.doors import Door, Media

SECRET = "the-secret-value"
VICTIM = "victim"
ROUTES = [door for door in DOORS if not door.public]
OF_NAMESPACES = [door for door in ROUTES if "{namespace}" in door.path]


class Keyed(NamedTuple):
    """A server that wants keys, and keys."""

    server: Served
    path: Path
    operator: str
    """May do all."""
    victim: str
    """An admin of what is attacked."""
    stranger: str
    """An admin of something else."""
    below: str
    """An admin of a namespace below the victim's."""
    alike: str
    """An admin of a namespace whose name the victim's begins with."""
    reader: str
    """One who reads the victim's."""
    whole_writer: str
    """One who writes everywhere, and is no admin."""

    def ask(self, key: str | None, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request with a key."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        return self.server.ask(method, path, body, sent)

    def execute(self, key: str, *asked: Op) -> Answer:
        """Ops, run with a key."""
        body, _ = wire.encode_ops(asked)
        return self.ask(key, "POST", wire.EXECUTE, body, content_type="application/json")


def make_key(path: Path, name: str, access: str = "admin", scope: str = "", *more: str) -> str:
    url = f"sqlite:///{path}"
    done = run("--url", url, "keys", "create", "--name", name, "--access", access, "--scope", scope, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def revoke_key(path: Path, key: str) -> None:
    done = run("--url", f"sqlite:///{path}", "keys", "revoke", key.split("_")[1])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    path = folder / "memory.db"
    keys = [
        make_key(path, "operator"),
        make_key(path, "victim", "admin", VICTIM),
        make_key(path, "stranger", "admin", "stranger"),
        make_key(path, "below", "admin", f"{VICTIM}/below"),
        make_key(path, "alike", "admin", VICTIM[:-1]),
        make_key(path, "reader", "read", VICTIM),
        make_key(path, "writer", "write", ""),
    ]
    with starting(folder) as start:
        made = Keyed(start("--max-batch", "50"), path, *keys)
        fill(made)
        yield made


def fill(keyed: Keyed) -> None:
    """Something to steal."""
    secret = msgspec.Raw(json.dumps(SECRET).encode())
    answer = keyed.execute(
        keyed.victim,
        ops.Put(VICTIM, "secret-key", msgspec.Raw(b'"an older secret"')),
        ops.Put(VICTIM, "secret-key", secret),
        ops.Append(VICTIM, "secret-talk", [ops.NewMessage(secret, "secret-message")]),
        ops.Put(f"{VICTIM}/inner", "secret-key", secret),
    )
    assert answer.status == 200, answer


@pytest.fixture(scope="module")
def keyless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with starting(tmp_path_factory.mktemp("keyless")) as start:
        yield start("--max-body", "200000", "--body-timeout", "1", "--header-timeout", "1")


@pytest.fixture
def keyless(keyless_server: Served) -> Iterator[Served]:
    """A server on loopback that wants no keys. Whatever is done to it, it answers afterwards, and has not stumbled."""
    before = len(keyless_server.log)
    yield keyless_server
    assert keyless_server.ask("GET", "/healthz").status == 200
    assert "Traceback" not in keyless_server.log[before:]


# ── every route, with another's key ─────────────────────────────────────────────────────────────────

BODIES: dict[str, Any] = {
    "NewItem": {"value": 1},
    "NewExpiry": {"ttl": 60},
    "Undo": {},
    "Policy": {"history": 3},
    "Erasure": {"key": "secret-key"},
    "SentMessages": {"messages": [{"value": "hi"}]},
    "NewText": {"value": "hi"},
    "Trimming": {"keep": 1},
    "PublishedValue": {"value": "hi"},
}


def body_of(door: Door, namespace: str) -> Any:
    """A body that the door takes."""
    if isinstance(door.body, Media):
        records: list[DumpRecord] = [NamespaceRecord(1, 1, 1), EndRecord(1, 0, 0)]
        return b"".join([transfer.first_line(namespace), *(transfer.line(record) for record in records)])
    return None if door.body is None else BODIES[door.body.__name__]


def path_of(door: Door, namespace: str) -> str:
    names = {"namespace": quote(namespace, safe=""), "key": "secret-key", "conversation": "secret-talk"}
    path = door.path
    for name, value in {**names, "message": "secret-message"}.items():
        path = re.sub(rf"\{{{name}(:path)?\}}", value, path)
    assert "{" not in path, f"a new part of a path: {path}"
    return path


def knock(keyed: Keyed, key: str | None, door: Door, namespace: str) -> Answer:
    return keyed.ask(key, door.method, path_of(door, namespace), body_of(door, namespace))


def names(doors: list[Door]) -> list[str]:
    return [f"{door.method} {door.path}" for door in doors]


@pytest.mark.parametrize("door", OF_NAMESPACES, ids=names(OF_NAMESPACES))
def test_a_route_is_shut_for_the_keys_of_others_and_tells_nothing(keyed, door):
    for key in (keyed.stranger, keyed.below, keyed.alike):
        told = set()
        for namespace in (VICTIM, "nobody", f"{VICTIM}/inner"):
            answer = knock(keyed, key, door, namespace)
            assert answer.status == 403, answer
            assert b"secret" not in answer.body
            told.add(answer.json["detail"].replace(f"not {namespace!r}", "not there"))
        assert len(told) == 1


@pytest.mark.parametrize("door", OF_NAMESPACES, ids=names(OF_NAMESPACES))
def test_the_same_request_is_a_good_one_with_the_right_key(keyed, door):
    """Or the test above would prove nothing."""
    scratch = f"{VICTIM}/scratch {door.method} {door.path.replace('/', ' ')}"
    if door.path.endswith("/import") or door.method == "POST":
        first = knock(keyed, keyed.victim, door, scratch)
        assert first.status in (200, 201, 204, 404), first
    put = ops.Put(scratch, "secret-key", msgspec.Raw(b"1"))
    talk = ops.Append(scratch, "secret-talk", [ops.NewMessage(msgspec.Raw(b"1"), "secret-message")])
    assert keyed.execute(keyed.operator, put, put, talk).status == 200
    if not door.path.endswith("/import"):
        answer = knock(keyed, keyed.victim, door, scratch)
        assert answer.status in (200, 201, 204), answer


@pytest.mark.parametrize("door", OF_NAMESPACES, ids=names(OF_NAMESPACES))
def test_botwires_own_namespaces_are_shut_for_all_but_operators(keyed, door):
    for key in (keyed.victim, keyed.whole_writer):
        for namespace in (".botwire/keys", f".botwire/audit/{VICTIM}"):
            assert knock(keyed, key, door, namespace).status == 403


@pytest.mark.parametrize("door", ROUTES, ids=names(ROUTES))
def test_no_route_opens_without_a_key(keyed, door):
    wrong = "bw_" + keyed.victim.split("_")[1] + "_" + "0" * 64
    for key in (None, wrong, keyed.victim + "0", keyed.victim.split("_")[2]):
        answer = keyed.ask(key, door.method, path_of(door, VICTIM), {})
        assert answer.status in (401, 429), answer
        if answer.status == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert b"secret" not in answer.body


READS = {"GET", "HEAD"}


@pytest.mark.parametrize("door", OF_NAMESPACES, ids=names(OF_NAMESPACES))
def test_a_key_that_reads_does_not_write(keyed, door):
    answer = knock(keyed, keyed.reader, door, VICTIM)
    if door.method in READS:
        assert answer.status == 200, answer
    else:
        assert answer.status == 403, answer


def test_a_key_that_writes_does_not_erase_import_or_configure(keyed):
    shut = {f"{door.method} {door.path}" for door in OF_NAMESPACES if is_shut_for_writers(keyed, door)}
    assert shut == {
        "POST /v1/namespaces/{namespace}/erase",
        "POST /v1/namespaces/{namespace}/import",
        "PATCH /v1/namespaces/{namespace}",
    }


def is_shut_for_writers(keyed: Keyed, door: Door) -> bool:
    return knock(keyed, keyed.whole_writer, door, "scratch/of-writers").status == 403


@pytest.mark.parametrize("op", everything(VICTIM), ids=[kind.__name__ for kind in kinds()])
def test_an_op_is_shut_for_the_keys_of_others_whichever_door_it_takes(keyed, op):
    one, _ = wire.encode_ops([op])
    text = one.decode().removeprefix('{"ops":').removesuffix("}")
    mixed = b'{"ops":[{"op":"value","namespace":"stranger","key":"k"},%b]}' % text[1:-1].encode()
    for body in (one, mixed):
        answer = keyed.ask(keyed.stranger, "POST", wire.EXECUTE, body)
        assert answer.status == 403, answer
        assert b"secret" not in answer.body
    batches = b'{"batches":[{"ops":%b}]}' % text.encode()
    answer = keyed.ask(keyed.stranger, "POST", wire.BATCHES, batches)
    assert answer.status == 200
    assert [each["problem"]["status"] for each in answer.json["answers"]] == [403]


def test_looks_at_the_whole_store_show_a_scoped_key_nothing_of_others(keyed):
    for path in ("/v1/namespaces?under=victim", "/v1/changes", "/v1/changes?after=", "/metrics"):
        answer = keyed.ask(keyed.stranger, "GET", path)
        assert answer.status == 403, (path, answer)
        assert b"secret" not in answer.body
    assert b"victim" not in keyed.ask(keyed.stranger, "GET", "/v1/namespaces").body
    stream = keyed.ask(keyed.stranger, "GET", "/v1/changes", accept="text/event-stream")
    assert stream.status == 403


def test_looks_at_the_whole_store_show_nobody_what_is_botwires_own(keyed):
    for path in ("/v1/namespaces", "/v1/changes?after=", "/v1/namespaces/victim"):
        answer = keyed.ask(keyed.operator, "GET", path)
        assert answer.status == 200
        assert b".botwire" not in answer.body


# ── names that look alike ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "/v1/namespaces/stranger/../victim/items/secret-key",
        "/v1/namespaces/stranger%2F..%2Fvictim/items/secret-key",
        "/v1/namespaces/stranger%2f%2e%2e%2fvictim/items/secret-key",
        "/v1/namespaces/stranger/items/..%2F..%2Fvictim%2Fitems%2Fsecret-key",
        "/v1/namespaces/stranger/items/../../victim/items/secret-key",
        "/v1/namespaces/stranger%252F..%252Fvictim/items/secret-key",
        "/v1/namespaces/stranger%00victim/items/secret-key",
        "/v1/namespaces/stranger/%2e%2e/victim/items/secret-key",
        "/v1/namespaces//victim/items/secret-key",
        "//v1/namespaces/victim/items/secret-key",
        "/v1/./namespaces/victim/items/secret-key",
        "/V1/namespaces/victim/items/secret-key",
        "/v1/namespaces/victim;x=1/items/secret-key",
        "/v1/namespaces/victim%20/items/secret-key",
        "/v1/namespaces/Victim/items/secret-key",
        "/v1/namespaces/%EF%BD%96ictim/items/secret-key",  # a full-width v
        "/v1/namespaces/v%C4%B1ctim/items/secret-key",  # an i without its dot
        "/v1/namespaces/victim%EF%BC%8Finner/items/secret-key",  # a full-width slash
        "/v1/namespaces/stranger%EF%BC%8F..%EF%BC%8Fvictim/items/secret-key",
        "/v1/namespaces/victim%C0%AFinner/items/secret-key",  # an overlong slash
        "/memory/stranger/../victim/secret-key",
        "/memory/stranger%2F..%2Fvictim/secret-key",
        "/memory/stranger/..%2Fvictim%2Fsecret-key",
        "/memory//victim/secret-key",
        "/memory/victim?x=/memory/stranger/k",
        "/memory/stranger/%2E%2E/victim/secret-key",
    ],
)
def test_no_spelling_of_a_path_leads_into_anothers_namespace(keyed, path):
    for key in (keyed.stranger, keyed.alike):
        answer = keyed.ask(key, "GET", path)
        assert answer.status in (400, 403, 404), answer
        assert SECRET.encode() not in answer.body


def test_a_slash_in_a_name_is_no_slash_of_the_path(keyed):
    assert keyed.ask(keyed.victim, "PUT", "/v1/namespaces/victim%2Fa/items/b%2Fc", {"value": 1}).status == 201
    assert keyed.ask(keyed.victim, "GET", "/v1/namespaces/victim%2Fa/items/b%2Fc").status == 200
    assert keyed.ask(keyed.victim, "GET", "/v1/namespaces/victim/items/a%2Fb%2Fc").status == 404
    assert keyed.ask(keyed.victim, "GET", "/v1/namespaces/victim%2Fa%2Fb/items/c").status == 404


def test_a_cursor_of_others_leads_nowhere(keyed):
    """A cursor says where a listing goes on, not what may be listed."""
    scan = ops.Scan("", subtree=True, limit=1)
    cursor = keyed.execute(keyed.operator, scan).json["results"][0]["cursor"]
    put = ops.Put("stranger", "own", msgspec.Raw(b"1"))
    own = msgspec.structs.replace(scan, namespace="stranger", cursor=cursor, limit=100)
    answer = keyed.execute(keyed.stranger, put, own)
    assert b"secret" not in answer.body
    changes = keyed.execute(keyed.operator, ops.Changes("", "", subtree=True, limit=1)).json["results"][0]["cursor"]
    for subtree in (False, True):
        answer = keyed.execute(keyed.stranger, ops.Changes("stranger", changes, subtree))
        assert b"secret" not in answer.body
        assert b"victim" not in answer.body


# ── what a tenant's admin cannot do ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", ["writes_per_day", "max_bytes", "max_items", "max_value_bytes"])
def test_an_admin_of_a_part_does_not_raise_its_own_limits(keyed, field):
    policy: dict[str, Any] = {field: 10**12}
    assert keyed.ask(keyed.victim, "PATCH", "/v1/namespaces/victim", policy).status == 403
    assert keyed.ask(keyed.victim, "PATCH", "/v1/namespaces/victim%2Fnew", policy).status == 403
    record = NamespaceRecord(1, 1, 1, policy=Policy(**policy))
    lines = transfer.first_line("victim/other") + transfer.line(record) + transfer.line(EndRecord(1, 0, 0))
    assert keyed.ask(keyed.victim, "POST", "/v1/namespaces/victim%2Fother/import", lines).status == 403
    assert keyed.ask(keyed.victim, "PATCH", "/v1/namespaces/victim", {"history": 5}).status == 200
    kept = keyed.ask(keyed.operator, "GET", "/v1/namespaces/victim").json["policy"]
    assert kept.get(field) != 10**12


def test_the_id_of_a_request_belongs_to_its_key(keyed):
    other = make_key(keyed.path, "another", "write", VICTIM)
    until(lambda: keyed.ask(other, "GET", "/v1/namespaces/victim").status == 200, "the new key holds")
    for key, value in ((keyed.victim, 1), (other, 2)):
        put = keyed.ask(key, "PUT", "/v1/namespaces/victim/items/once", {"value": value}, idempotency_key="same-id")
        assert put.status in (200, 201)
    again = keyed.ask(keyed.victim, "PUT", "/v1/namespaces/victim/items/once", {"value": 3}, idempotency_key="same-id")
    assert again.status == 422
    assert keyed.ask(keyed.victim, "GET", "/memory/victim/once").json["value"] == 2


def test_keys_are_made_and_revoked_through_the_server_by_operators_alone(keyed):
    url = keyed.server.url
    made = run("--url", url, "keys", "create", "--name", "remote", "--scope", "acme", BOTWIRE_API_KEY=keyed.operator)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    until(lambda: keyed.ask(key, "GET", "/memory/acme/k").status == 404, "the new key holds")
    listed = run("--url", url, "keys", "list", BOTWIRE_API_KEY=keyed.operator)
    assert key.split("_")[1] in listed.stdout
    assert key.split("_")[2] not in listed.stdout
    for other in (keyed.victim, keyed.whole_writer, key):
        for command in (["list"], ["create", "--name", "x"], ["revoke", key.split("_")[1]]):
            refused = run("--url", url, "keys", *command, BOTWIRE_API_KEY=other)
            assert refused.returncode == 3, refused
            assert refused.stdout == ""
    assert run("--url", url, "keys", "revoke", key, BOTWIRE_API_KEY=keyed.operator).returncode == 0
    until(lambda: keyed.ask(key, "GET", "/memory/acme/k").status in (401, 429), "the key is revoked")


# ── keys that are revoked or expire ─────────────────────────────────────────────────────────────────


LAST_CHUNK = b"\r\n0\r\n\r\n"


def open_stream(keyed: Keyed, key: str, path: str = "/v1/namespaces/victim/changes") -> socket.socket:
    connection = keyed.server.connect()
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream", f"Authorization: Bearer {key}"]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    head = read_until(connection, b"\r\n\r\n")
    assert b"200 OK" in head, head
    return connection


def test_revoking_a_key_ends_its_open_streams_and_no_others(keyed):
    doomed = make_key(keyed.path, "doomed", "read", VICTIM)
    until(lambda: keyed.ask(doomed, "GET", "/v1/namespaces/victim").status == 200, "the new key holds")
    streams = [open_stream(keyed, doomed) for _ in range(3)]
    other = open_stream(keyed, keyed.reader)
    revoke_key(keyed.path, doomed)
    for stream in streams:
        told = read_until(stream, LAST_CHUNK)
        assert b"event: problem" in told
        assert b"not-authenticated" in told
        stream.close()
    assert keyed.ask(doomed, "GET", "/v1/namespaces/victim").status in (401, 429)  # others have guessed before
    assert keyed.execute(keyed.victim, ops.Put(VICTIM, "news", msgspec.Raw(b"1"))).status == 200
    assert b"news" in read_until(other, b'"news"')
    other.close()


def test_a_key_that_expires_ends_its_open_streams(keyed):
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
    doomed = make_key(keyed.path, "doomed", "read", VICTIM, "--expires", end)
    until(lambda: keyed.ask(doomed, "GET", "/v1/namespaces/victim").status == 200, "the new key holds")
    stream = open_stream(keyed, doomed)
    assert b"event: problem" in read_until(stream, LAST_CHUNK)
    stream.close()
    assert keyed.ask(doomed, "GET", "/v1/namespaces/victim").status in (401, 429)  # others have guessed before


def test_the_streams_of_a_key_are_limited(tmp_path):
    path = tmp_path / "memory.db"
    key = make_key(path, "x", "read", "")
    with starting(tmp_path) as start:
        keyed = Keyed(start("--max-streams", "2"), path, *[key] * 7)
        streams = [open_stream(keyed, key) for _ in range(2)]
        refused = keyed.ask(key, "GET", "/v1/namespaces/victim/changes", accept="text/event-stream")
        assert refused.status == 429
        assert refused.headers["ratelimit-policy"] == '"streams";q=2;qu="concurrent-requests"'
        for stream in streams:
            stream.close()
        body = wire.encode_ops([ops.Changes("victim", None)])[0]  # meanwhile other requests pass
        assert keyed.ask(key, "POST", wire.EXECUTE, body).status == 200

        def reopened() -> bool:
            answer = keyed.ask(key, "HEAD", "/v1/namespaces/victim/changes", accept="text/event-stream")
            return answer.status == 200

        until(reopened, "streams that were closed are counted no longer")


# ── guessing ────────────────────────────────────────────────────────────────────────────────────────


def test_wrong_keys_are_held_up_and_right_ones_are_not(tmp_path):
    path = tmp_path / "memory.db"
    right = make_key(path, "right", "read", "")
    with starting(tmp_path) as start:
        keyed = Keyed(start(), path, *[right] * 7)
        wrong = [keyed.ask(f"bw_{number:012x}_{'0' * 64}", "GET", "/memory/a/b") for number in range(60)]
        assert {answer.status for answer in wrong[:20]} == {401}
        limited = [answer for answer in wrong if answer.status == 429]
        assert len(limited) >= 20
        assert int(limited[0].headers["retry-after"]) >= 1
        assert keyed.ask(right, "GET", "/memory/a/b").status == 404


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────


def test_requests_over_the_rate_are_told_when_to_come_back(server: Start, tmp_path):
    path = tmp_path / "memory.db"
    one, two = make_key(path, "one", "write", "a"), make_key(path, "two", "write", "b")
    keyed = Keyed(server("--requests-per-second", "0.01", "--burst", "3"), path, one, two, *[one] * 5)
    answers = [keyed.ask(one, "GET", "/memory/a/k") for _ in range(3)]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0"]
    for method, path_ in (("GET", "/memory/a/k"), ("PUT", "/memory/a/k"), ("GET", "/v1/namespaces/a")):
        refused = keyed.ask(one, method, path_, {"value": 1} if method == "PUT" else None)
        assert refused.status == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert refused.headers["ratelimit-policy"] == '"requests";q=3;w=300'
        assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert refused.json["retry_after"] > 0
    assert keyed.ask(two, "GET", "/memory/b/k").status == 404


@pytest.mark.parametrize("path", ["/memory/a/k", "/v1/namespaces/a/items/k"])
def test_the_quotas_of_the_store_are_told_over_http(server: Start, path):
    served = server("--writes-per-day", "2", "--max-bytes", "1000")
    assert served.ask("PUT", path, {"value": "x" * 2_000}).status == 507
    assert {served.ask("PUT", path, {"value": 1}).status for _ in range(2)} <= {200, 201}
    refused = served.ask("PUT", path, {"value": 1})
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 86_401
    assert refused.headers["ratelimit"].startswith('"writes-per-day";r=0;t=')
    assert served.ask("GET", path).status == 200


def test_the_free_tier_is_a_flag(server: Start):
    policy = server("--free-tier").ask("GET", "/v1/namespaces/any").json["policy"]
    assert (policy["writes_per_day"], policy["max_bytes"]) == (1_000, 50_000_000)


# ── audit ───────────────────────────────────────────────────────────────────────────────────────────


def test_no_door_writes_without_a_record(tmp_path):
    """With values, keys of others and all: what the record holds is who, what and when."""
    path = tmp_path / "memory.db"
    operator, stranger = make_key(path, "operator"), make_key(path, "stranger", "admin", "stranger")
    with starting(tmp_path) as start:
        keyed = Keyed(start("--audit"), path, operator, *[stranger] * 6)
        fill(keyed._replace(victim=operator))
        for door in OF_NAMESPACES:
            before = recorded(keyed)
            answer = knock(keyed, operator, door, VICTIM)
            if door.method not in READS and answer.status < 300:
                assert recorded(keyed) > before or "erase" in door.path, door.path
            assert knock(keyed, stranger, door, VICTIM).status == 403
        asked = [op for op in everything("stranger") if op.access != "read"]
        assert keyed.execute(stranger, *asked).status == 200
        until(lambda: refusals(keyed) >= len(OF_NAMESPACES), "refusals are written down")
        exported = keyed.ask(operator, "GET", "/v1/namespaces/.botwire%2Faudit%2Fvictim/export").body
    assert b'"secret-key"' in exported or b'"secret-talk"' in exported
    assert SECRET.encode() not in exported
    assert b'"hi"' not in exported


def recorded(keyed: Keyed) -> int:
    info = keyed.ask(keyed.operator, "GET", "/v1/namespaces/.botwire%2Faudit%2Fvictim")
    messages: int = info.json.get("messages", 0)
    return messages


def refusals(keyed: Keyed) -> int:
    messages: int = keyed.ask(keyed.operator, "GET", "/v1/namespaces/.botwire%2Frefusals").json.get("messages", 0)
    return messages


# ── web pages ───────────────────────────────────────────────────────────────────────────────────────

PATHS = ["/memory/a/k", "/v1/namespaces/a/items/k", "/v1/namespaces", "/"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "0.0.0.0", "localhost.evil.example", "10.0.0.1"])
def test_a_name_that_was_made_to_point_here_reaches_nothing(keyless, path, host):
    for method in ("GET", "PUT"):
        answer = keyless.ask(method, path, {"value": 1} if method == "PUT" else None, {"Host": host})
        assert answer.status == 403
        assert answer.json["detail"].startswith("Host")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_web_page_reaches_nothing(keyless, path, headers):
    for method in ("GET", "PUT", "POST", "DELETE", "OPTIONS"):
        answer = keyless.ask(method, path, {"value": 1} if method in ("PUT", "POST") else None, headers)
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers


def test_what_a_form_can_send_changes_nothing(keyless):
    put = b'{"ops":[{"op":"put","namespace":"csrf","key":"k","value":1,"x":"="}]}'
    body, _ = wire.encode_ops([ops.Put("csrf", "k", msgspec.Raw(b"1"))])
    for content in (put, body):
        for media in ("text/plain", "text/plain; charset=utf-8", "multipart/form-data; boundary=x"):
            assert keyless.ask("POST", wire.EXECUTE, content, {"Content-Type": media}).status == 415
    assert keyless.ask("GET", "/memory/csrf/k").status == 404
    assert keyless.ask("POST", wire.EXECUTE, body, {"Content-Type": "application/json"}).status == 200


def test_answers_can_be_nothing_but_data_for_a_browser(keyless):
    keyless.ask("PUT", "/memory/html/k", {"value": "<script>alert(1)</script>"})
    for path in ("/memory/html/k", "/v1/namespaces/html/items/k", "/v1/namespaces/html/export", "/nothing"):
        headers = keyless.ask("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "json" in headers["content-type"]


# ── keys in logs ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_reaches_the_output_of_a_server_or_an_answer(server: Start, tmp_path, form):
    path = tmp_path / "memory.db"
    key = make_key(path, "x", "admin", "")
    secret = key.split("_")[2]
    served = server("--log-level", "debug", "--access-log", "--log-format", form)
    wrong = {"Authorization": f"Bearer {key}0"}
    answers = [
        served.ask("GET", "/memory/a/b", None, {"Authorization": f"Bearer {key}"}),
        served.ask("GET", "/memory/a/b", None, wrong),
        served.ask("GET", "/memory/a/b", None, {"Authorization": f"Basic {key}"}),
        served.ask("GET", "/memory/a/b", None, {"Authorization": key}),
        served.ask("GET", "/memory/a/b", None, {"X-API-Key": key}),
        served.ask("GET", f"/memory/a/b?api_key={key}"),
        served.ask("GET", f"/v1/namespaces?key={key}"),
        served.ask("GET", f"/memory/a/{key}", None, {"Authorization": f"Bearer {key}"}),
        served.ask("PUT", f"/memory/a/{key}", {"value": 1}, {"Authorization": f"Bearer {key}"}),
        served.ask("GET", "/memory/a/b", None, {"Host": key}),
        served.ask("GET", "/memory/a/b", None, {"Origin": f"https://{key}.example"}),
        served.ask("GET", "/memory/a/b", None, {"X-Request-Id": key[:64], "Authorization": f"Bearer {key}"}),
        served.ask("POST", wire.EXECUTE, b'{"ops":["%b"]}' % key.encode(), {"Authorization": f"Bearer {key}"}),
    ]
    assert served.stop() == 0
    rest = served.process.stdout.read() if served.process.stdout else ""
    assert secret[:20] not in served.log
    assert secret[:20] not in rest
    for answer in answers[:-1]:
        assert secret.encode() not in answer.body
    assert [answer.status for answer in answers[:3]] == [404, 401, 401]
    assert [answer.status for answer in answers[5:9]] == [400] * 4


# ── smuggled requests ───────────────────────────────────────────────────────────────────────────────

INNER = (
    b"PUT /memory/smuggled/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 11\r\nConnection: close\r\n\r\n{"value":1}'
)
CHUNKED = b"POST /v1/execute HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n0\r\n\r\n"
SIZED = b'PUT /memory/a/b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n{"value":1}'
CHUNKS = b"POST /v1/execute HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n%b"

AMBIGUOUS = {
    "both lengths": CHUNKED % b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "both lengths, the other way round": CHUNKED % b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "two different lengths": SIZED % b"Content-Length: 11\r\nContent-Length: 160\r\n",
    "twice the same length": SIZED % b"Content-Length: 11\r\nContent-Length: 11\r\n",
    "a list of lengths": SIZED % b"Content-Length: 11, 11\r\n",
    "a length with a sign": SIZED % b"Content-Length: +11\r\n",
    "a hexadecimal length": SIZED % b"Content-Length: 0xb\r\n",
    "a negative length": SIZED % b"Content-Length: -1\r\n",
    "a length beyond 64 bits": SIZED % b"Content-Length: 18446744073709551627\r\n",
    "a space before the colon": SIZED % b"Content-Length : 11\r\n",
    "a coding behind chunked": CHUNKED % b"Transfer-Encoding: chunked, identity\r\n",
    "a coding before chunked": CHUNKED % b"Transfer-Encoding: identity, chunked\r\n",
    "an unknown coding": CHUNKED % b"Transfer-Encoding: xchunked\r\n",
    "two codings": CHUNKED % b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "a vertical tab before chunked": CHUNKED % b"Transfer-Encoding: \x0bchunked\r\n",
    "a folded coding": CHUNKED % b"Transfer-Encoding:\r\n chunked\r\n",
    "a coding in HTTP/1.0": (CHUNKED % b"Transfer-Encoding: chunked\r\n").replace(b"1.1", b"1.0"),
    "a chunk beyond 64 bits": CHUNKS % b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": CHUNKS % b"-1\r\nabc\r\n0\r\n\r\n",
    "chunks with bare line feeds": CHUNKS % b"3\nabc\n0\n\n",
    "a chunk longer than it says": CHUNKS % b"3\r\nabcXX0\r\n\r\n",
    "a length behind the body": CHUNKS % b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a folded header": b"GET /memory/a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET /memory/a HTTP/1.1\nHost: 127.0.0.1\n\n",
    "a bare line feed between headers": b"GET /memory/a HTTP/1.1\r\nHost: 127.0.0.1\nX-A: b\r\n\r\n",
    "a bare carriage return": b"GET /memory/a HTTP/1.1\r\nHost: 127.0.0.1\rX-A: b\r\n\r\n",
    "a zero in a value": b"GET /memory/a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: a\x00b\r\n\r\n",
    "a zero in a name": b"GET /memory/a HTTP/1.1\r\nHost: 127.0.0.1\r\nX\x00A: b\r\n\r\n",
    "two hosts": b"GET /memory/a HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "a method that is none": b"G\x00T /memory/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a space in the path": b"GET /memory/a b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a path of bytes": b"GET /memory/\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a version in small letters": b"GET /memory/a http/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no version": b"GET /memory/a\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("head", AMBIGUOUS.values(), ids=[*AMBIGUOUS])
def test_a_request_that_can_be_read_in_two_ways_is_refused_with_all_that_follows(keyless, head):
    keyless.ask("DELETE", "/memory/smuggled/k")
    with keyless.connect() as connection:
        connection.sendall(head + INNER)
        answered = read_all(connection)  # the server closes
    statuses = re.findall(rb"^HTTP/1\.1 (\d+)", answered, re.MULTILINE)
    assert statuses in ([], [b"400"])
    assert keyless.ask("GET", "/memory/smuggled/k").status == 404


def test_what_follows_a_plain_request_is_a_request(keyless):
    """Or the test above would prove nothing."""
    with keyless.connect() as connection:
        connection.sendall(SIZED % b"Content-Length: 11\r\n" + INNER.replace(b"smuggled", b"plain"))
        answered = read_all(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answered) == [b"200", b"200"]
    assert keyless.ask("GET", "/memory/plain/k").status == 200


def test_trailers_change_nothing(keyless):
    body = b'{"ops":[]}'
    request = CHUNKS % (b"%x\r\n%b\r\n0\r\nHost: evil.example\r\nAuthorization: Bearer x\r\n\r\n" % (len(body), body))
    with keyless.connect() as connection:
        connection.sendall(request.replace(b"chunked", b"chunked\r\nConnection: close", 1))
        assert b"HTTP/1.1 200" in read_all(connection)


@pytest.mark.parametrize("target", ["http://evil.example/memory/a/k", "http://127.0.0.1/memory/a/k"])
def test_a_whole_url_as_the_target_is_judged_by_the_host_header(keyless, target):
    for host, status in (("127.0.0.1", 404), ("evil.example", 403)):
        with keyless.connect() as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert f"HTTP/1.1 {status}".encode() in read_all(connection)


# ── bombs ───────────────────────────────────────────────────────────────────────────────────────────

DEEP = 90_000


def big(server: Served, body: bytes, method: str = "PUT", path: str = "/v1/namespaces/a/items/k") -> Answer:
    return server.ask(method, path, body, {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    "value",
    [
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
        b"[" * 129 + b"]" * 129,
        b"1e400",
        b"-1e400",
        b"NaN",
        b"Infinity",
        b'"\xff\xfe"',
        b'"\x00"',
        b'"\\u12"',
        b"01",
        b"1.",
        b"'a'",
        b'{"a":1,}',
        b"[1,]",
        b"nul",
        b"",
    ],
    ids=lambda value: repr(value[:20]),
)
def test_values_that_are_bombs_or_no_json_are_refused(keyless, value):
    for path in ("/v1/namespaces/a/items/bomb", "/memory/a/bomb"):
        answer = big(keyless, b'{"value":%b}' % value, path=path)
        assert answer.status == 400, answer
    body = b'{"ops":[{"op":"put","namespace":"a","key":"bomb","value":%b}]}' % value
    assert big(keyless, body, "POST", wire.EXECUTE).status == 400
    assert keyless.ask("GET", "/memory/a/bomb").status == 404


@pytest.mark.parametrize(
    "value", [b"9" * 100_000, b"1e-400", b"1" + b"0" * 4_000, b"0." + b"1" * 100_000, b"[" + b"1," * 90_000 + b"1]"]
)
def test_numbers_of_any_length_do_no_harm(keyless, value):
    answer = big(keyless, b'{"value":%b}' % value)
    assert answer.status in (200, 201, 400, 413), answer
    if answer.status < 400:
        assert keyless.ask("GET", "/v1/namespaces/a/items/k").status == 200
        assert keyless.ask("GET", "/v1/namespaces/a/items?where=" + quote('{"x":{"$gt":1}}')).status == 200


def test_of_a_field_that_comes_twice_the_guard_and_the_store_see_the_same(keyed):
    body = b'{"ops":[{"op":"value","namespace":"%b","namespace":"%b","key":"k","key":"secret-key"}]}'
    for one, other in ((b"victim", b"stranger"), (b"stranger", b"victim")):
        answer = keyed.ask(keyed.stranger, "POST", wire.EXECUTE, body % (one, other))
        assert answer.status in (400, 403) or answer.json["results"] == [None]
        assert b"secret" not in answer.body


NUMBERS = [2**63 - 1, 2**63, 2**64, 2**200, -1, -(2**63), -(2**64)]


def integers() -> Iterator[tuple[str, str, int]]:
    """Each whole number that an op takes, with numbers that do not fit everywhere."""
    for kind in kinds():
        for field in msgspec.structs.fields(kind):
            if "int" in str(field.type) or "float" in str(field.type):
                for number in NUMBERS:
                    yield kind.__name__, field.name, number


@pytest.mark.parametrize(("kind", "field"), sorted({(kind, field) for kind, field, _ in integers()}))
def test_numbers_that_fit_nowhere_are_refused_and_no_mistake_of_ours(keyless, kind, field):
    for number in NUMBERS:
        [op] = [each for each in everything("numbers") if type(each).__name__ == kind]
        about = json.loads(wire.encode_ops([op])[0])["ops"][0]
        if field == "keep":
            about.pop("ids", None)
        if field in ("expires", "ttl"):
            about.pop("ttl", None)
        if field == "older_than":
            about.pop("keep", None)
        answer = big(keyless, json.dumps({"ops": [about | {field: number}]}).encode(), "POST", wire.EXECUTE)
        assert answer.status < 500, (number, answer.body)


@pytest.mark.parametrize("field", ["restored"])
def test_numbers_beside_a_value_are_no_mistake_of_ours_either(keyless, field):
    for number in NUMBERS:
        about = {"op": "put", "namespace": "numbers", "key": "k", "value": 1, "meta": {field: number}}
        answer = big(keyless, json.dumps({"ops": [about]}).encode(), "POST", wire.EXECUTE)
        assert answer.status < 500, (number, answer.body)
        assert keyless.ask("GET", "/v1/namespaces/numbers/items/k/history").status == 200


CURSORS = [
    *("", "v", "s", "v-1", "v1e9", "v99999999999999999999", "s18446744073709551616", "v" + "9" * 5_000, "x1"),
    *("\u0661", "\ud800", "\x00", "=" * 50, "A" * 5_000),
]
HUGE = 2**64 - 1  # the largest number of MessagePack; SQLite's is smaller
FORGED = [
    *([], [1], ["a"], ["a", 1], [None], [HUGE], {}, "a", [HUGE, "a"], [HUGE, "a", "b"], ["a", "b"], ["a", "b", "c"]),
    *(["items", "", HUGE, 0, 0], ["messages", "a", -1, -1, HUGE], ["messages", "talk", HUGE, HUGE, HUGE]),
]


@pytest.mark.parametrize("kind", [kind for kind in kinds() if {"cursor", "after"} & set(kind.__struct_fields__)])
def test_a_forged_cursor_is_no_mistake_of_ours(keyless, kind):
    [op] = [each for each in everything("cursors") if type(each) is kind]
    about = json.loads(wire.encode_ops([op])[0])["ops"][0]
    forged = [base64.urlsafe_b64encode(msgspec.msgpack.encode(each)).rstrip(b"=").decode() for each in FORGED]
    orders: list[dict[str, Any]] = [{"order": "key"}, {"order": "updated"}] if kind is ops.Scan else [{}]
    for cursor in (*CURSORS, *forged):
        for field in {"cursor", "after"} & set(kind.__struct_fields__):
            for order in orders:
                body = {"ops": [about | {field: cursor} | order]}
                answer = big(keyless, json.dumps(body).encode(), "POST", wire.EXECUTE)
                assert answer.status < 500, (field, cursor, answer.body)


ODD = ["\x00", "\ud800", "x" * 600, "", " ", "\u202e", "a/b", "#1", "$where", "a.b.c" * 100]
WHERES = [
    {"a": {"$in": "x"}},
    {"a": {"$in": {}}},
    {"a": {"$gt": None}},
    {"a": {"$gt": []}},
    {"a": {"$regex": "(a+)+$"}},
    {"$or": []},
    {"": 1},
    {".": 1},
    {"a..b": 1},
    {"a": {"$contains": {}}},
    {"a": {"$gt": 1, "b": 2}},
    {"a": {"$exists": "no"}},
    {"a": 10**400},
    {"a": {"$lt": 10**400}},
]


def test_odd_texts_and_filters_are_no_mistake_of_ours(keyless):
    keyless.ask("PUT", "/memory/odd/k", {"value": {"a": 1.5}})
    keyless.ask("PUT", "/memory/odd/l", {"value": {"a": "x"}})
    asked = [{"op": "scan", "where": where} for where in WHERES]
    for text in ODD:
        asked += [{"op": "scan", field: text} for field in ("prefix", "author", "order")]
        asked += [{"op": "scan", "tags": [text]}, {"op": "get", "key": text}, {"op": "value", "key": text}]
        asked += [{"op": "messages", "conversation": "t", "ids": [text]}, {"op": "delete", "key": text}]
        asked += [
            {"op": "put", "key": text, "value": 1},
            {"op": "put", "key": "k", "value": 1, "meta": {"author": text}},
        ]
        asked += [{"op": "append", "conversation": "t", "messages": [{"value": 1, "id": text, "role": text}]}]
        asked += [{"op": "get", "key": "k", "namespace": text}, {"op": "describe", "namespace": text}]
    for about in asked:
        answer = big(keyless, json.dumps({"ops": [{"namespace": "odd", **about}]}).encode(), "POST", wire.EXECUTE)
        assert answer.status < 500, (about, answer.body)


@pytest.mark.parametrize("depth", [10, 100, 300, 900, 5_000])
def test_a_filter_of_any_depth_is_no_mistake_of_ours(keyless, depth):
    keyless.ask("PUT", "/memory/where/k", {"value": {"a": 1}})
    where = '{"a":' * depth + "1" + "}" * depth
    body = '{"ops":[{"op":"scan","namespace":"where","where":' + where + "}]}"
    assert big(keyless, body.encode(), "POST", wire.EXECUTE).status in (200, 400)


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_lists_of_any_length_are_no_mistake_of_ours(keyless, count):
    ids = [f"m{number}" for number in range(count)]
    for about in (
        {"op": "messages", "conversation": "talk", "ids": ids},
        {"op": "messages", "conversation": "talk", "roles": ids},
        {"op": "trim", "conversation": "talk", "ids": ids},
        {"op": "scan", "tags": ids},
        {"op": "scan", "where": {"a": {"$in": ids}}},
        {"op": "put", "key": "k", "value": 1, "meta": {"tags": ids}},
    ):
        body = json.dumps({"ops": [about | {"namespace": "lists"}]}).encode()
        if len(body) < 200_000:
            answer = big(keyless, body, "POST", wire.EXECUTE)
            assert answer.status < 500, (about["op"], answer.body[:300])


def test_too_many_ops_in_a_request_are_refused(keyed):
    many = [ops.Get("stranger", "k")] * 51
    assert keyed.execute(keyed.stranger, *many).status == 413
    assert keyed.execute(keyed.stranger, *many[:50]).status == 200


MOST = 64 * 1024 * 1024  # bytes of an answer


def test_a_small_request_makes_no_huge_answer(keyless):
    """A key that only reads must not be able to fill the server's memory."""
    value = "x" * 190_000
    body, _ = wire.encode_ops([ops.Put("huge", "k", msgspec.Raw(json.dumps(value).encode()))])
    assert big(keyless, body, "POST", wire.EXECUTE).status == 200
    many, _ = wire.encode_ops([ops.Get("huge", "k")] * 900)
    size = len(big(keyless, many, "POST", wire.EXECUTE).body)
    assert size < MOST


def test_a_page_is_no_longer_than_can_be_held(keyless):
    value = "x" * 190_000
    for number in range(400):
        assert keyless.ask("PUT", f"/memory/pages/{number}", {"value": value}).status == 200
    for op in (ops.Scan("pages", limit=10_000), ops.Dump("pages", limit=10_000, cursor=None)):
        body, _ = wire.encode_ops([op])
        size = len(big(keyless, body, "POST", wire.EXECUTE).body)
        assert size < MOST


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_compressed_body_is_never_opened(keyless, coding):
    bomb = gzip.compress(b"[" * 20_000_000)
    for method, path in (("PUT", "/memory/a/k"), ("POST", wire.EXECUTE), ("POST", "/v1/namespaces/a/import")):
        answer = keyless.ask(method, path, bomb, {"Content-Encoding": coding})
        assert answer.status == 415, answer


def test_a_body_over_the_limit_is_refused_before_it_is_read(keyless):
    with keyless.connect() as connection:
        connection.sendall(b"PUT /memory/a/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n")
        assert b"HTTP/1.1 413" in read_until(connection, b"\r\n\r\n")


def test_who_sends_too_much_reads_why(keyless):
    answer = keyless.ask("PUT", "/memory/a/k", {"value": "x" * 1_000_000})
    assert answer.status == 413
    assert "200,000 bytes" in answer.json["detail"]


def test_a_body_in_pieces_is_counted(keyless):
    with keyless.connect() as connection:
        connection.sendall(b"PUT /memory/a/k HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
        for _ in range(4):
            connection.sendall(piece)
        assert b"HTTP/1.1 413" in read_until(connection, b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * 1_000_000,
        b"".join(b"X-%d: y\r\n" % number for number in range(100_000))[:-2],
        b"x" * 1_000_000 + b": y",
        b"Authorization: Bearer " + b"x" * 400_000,
        b"X-Forwarded-For: " + b"127.0.0.1, " * 50_000,
    ],
    ids=lambda head: repr(head[:12]),
)
def test_huge_headers_are_cut_off(keyless, head):
    with keyless.connect() as connection:
        answered = b""
        try:
            connection.sendall(b"GET /memory/a/k HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n\r\n")
            answered = read_until(connection, b"\r\n")
        except OSError:  # it had enough of it
            pass
    assert answered == b"" or re.match(rb"HTTP/1\.1 (400|401|413|431)", answered), answered


def test_a_huge_target_is_cut_off(keyless):
    with keyless.connect() as connection:
        try:
            connection.sendall(b"GET /memory/a/" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answered = read_until(connection, b"\r\n")
        except OSError:
            answered = b""
    assert answered == b"" or re.match(rb"HTTP/1\.1 4\d\d", answered), answered


# ── the slow and the many ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/memory/a/k", "/v1/namespaces/a/import", "/v1/execute"])
def test_a_body_that_stops_coming_is_given_up(keyless, path):
    method = "PUT" if path.startswith("/memory") else "POST"
    with keyless.connect() as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"val')
        assert b"HTTP/1.1 408" in read_all(connection)


def test_a_body_that_trickles_is_given_up(keyless):
    with keyless.connect() as connection:
        connection.sendall(b"PUT /memory/a/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
        connection.settimeout(0.2)
        answered = trickle(connection)
        assert b"HTTP/1.1 408" in answered


def trickle(connection: socket.socket) -> bytes:
    """A byte now and then, for as long as the other side bears it."""
    for _ in range(600):
        try:
            connection.sendall(b"x")
            if data := connection.recv(65_536):
                return data
        except TimeoutError:
            continue
        except OSError:
            return b""
    return b""


def test_a_head_that_trickles_is_given_up(keyless):
    with keyless.connect() as connection:
        connection.sendall(b"GET /memory/a/k HTTP/1.1\r\nX: ")
        connection.settimeout(0.2)
        assert re.match(rb"HTTP/1\.1 408|$", trickle(connection))


def test_connections_that_say_nothing_do_not_keep_others_out(server: Start):
    served = server("--max-connections", "20", "--header-timeout", "1")
    idle = [served.connect() for _ in range(30)]
    until(lambda: served.ask("GET", "/healthz").status == 200, "those who say nothing are closed")
    for each in idle:
        each.close()


# ── noise ───────────────────────────────────────────────────────────────────────────────────────────

HEAD = b"%b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n"
SEEDS = [
    HEAD % (b"GET /memory/a/k", b""),
    HEAD % (b"GET /v1/namespaces/a/items?prefix=x&limit=5&where=%7B%7D", b'If-None-Match: "3"\r\n'),
    HEAD % (b"PUT /v1/namespaces/a/items/k", b'If-Match: "1"\r\nContent-Length: 11\r\n') + b'{"value":1}',
    HEAD % (b"POST /v1/execute", b"Content-Length: 58\r\n")
    + b'{"ops":[{"op":"put","namespace":"a","key":"k","value":[1]}]}',
    HEAD % (b"POST /v1/batches", b"Transfer-Encoding: chunked\r\n") + b'10\r\n{"batches":[    \r\n2\r\n]}\r\n0\r\n\r\n',
    HEAD % (b"GET /v1/namespaces/a/changes?after=v0", b"Accept: text/event-stream\r\n"),
    HEAD % (b"DELETE /memory/a/k", b"Idempotency-Key: r1\r\n"),
]
SPICE = [
    *(b"\x00", b"\xff", b"\r\n", b"\n", b"%", b"%2F", b"%00", b"%ff", b"/", b"..", b"{", b"[" * 200, b'"', b"\\ud800"),
    *(b":", b" ", b"-1", b"99999999999999999999", b"1e999", b"null", b"bw_"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"),
]


def mutated(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[place:place] = chance.choice(SPICE)
            case 1:
                del data[place : place + chance.randint(1, 8)]
            case 2:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case _:
                other = chance.choice(SEEDS)
                data[place:] = other[chance.randrange(len(other)) :]
    return bytes(data)


def test_noise_is_answered_or_closed_and_never_a_mistake_of_ours(keyless, rounds):
    chance = random.Random(20_260_131)
    for _ in range(rounds(400, 20_000)):
        noise = mutated(chance)
        answered = send_noise(keyless, noise)
        for status in re.findall(rb"HTTP/1\.1 (\d+)", answered):
            assert int(status) < 500, (noise, answered)


def send_noise(server: Served, noise: bytes) -> bytes:
    with server.connect() as connection:
        connection.settimeout(5)
        try:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            return read_until(connection, b"event: change") if b"event-stream" in noise else read_all(connection)
        except TimeoutError:
            return b""  # a stream, or a request that it takes for unfinished: it is closed in its time
        except OSError:
            return b""


def test_what_is_not_answered_at_all_is_never_a_door(keyed):
    """Paths and methods that are not there say so to those with a key, and nothing to others."""
    for path in ("/v2", "/v1", "/admin", "/docs", "/redoc", "/debug", "/.env", "/v1/keys", "/static/../etc/passwd"):
        for method in ("GET", "POST", "TRACE", "PROPFIND"):
            answer = keyed.ask(keyed.operator, method, path)
            assert answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.BAD_REQUEST)
            assert b"secret" not in answer.body
