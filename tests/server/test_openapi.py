"""The OpenAPI description is complete and true: it is what the server is fuzzed by."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from starlette.routing import BaseRoute, Route
from tests.server.running import Served, read_all, starting

from botwire.ops import Item
from botwire.stores.sqlite import SQLiteStore
from botwire_server import create_app
from botwire_server.app import DOORS, described
from botwire_server.examples import EXAMPLES
from botwire_server.routing import Place

REFUSED = ["400", "403", "404", "405", "412", "413", "415"]
ACCEPTED = ["2xx", "304", "404", "409", "412", "422"]  # conditions, ids and names that were drawn may say no
FULL = ["413", "429", "507"]  # so may quotas, which are drawn too


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with starting(tmp_path_factory.mktemp("openapi")) as start:
        yield start("--durability", "relaxed")


# ── complete ────────────────────────────────────────────────────────────────────────────────────────


def routes() -> list[BaseRoute]:
    return create_app(SQLiteStore(":memory:")).routes


def test_every_route_is_described():
    paths = described()["paths"]
    for route in routes():
        assert isinstance(route, Route)
        path = re.sub(":path}", "}", route.path)
        methods = {method.lower() for method in route.methods or ()} - {"head"}
        assert methods == set(paths[path]), path


def test_every_door_stands_in_a_route_and_has_an_operation_of_its_own():
    doors = [door for route in routes() if isinstance(route, Place) for door in route.doors.values()]
    assert {id(door) for door in doors} == {id(door) for door in DOORS}
    names = [operation["operationId"] for path in described()["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_every_operation_says_what_it_does_and_each_parameter_what_it_is_for():
    for path in described()["paths"].values():
        for operation in path.values():
            assert operation["summary"].endswith(".")
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description") or parameter["schema"].get("description"), parameter


def test_the_server_gives_out_what_is_tested_here(server: Served):
    assert server.ask("GET", "/openapi.json").json == json.loads(json.dumps(described()))


def test_every_reference_leads_somewhere():
    document = described()
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
        place: Any = document
        for part in reference.split("/"):
            place = place[part]


def test_every_example_is_of_its_kind():
    kinds = {
        kind.__name__: kind
        for door in DOORS
        for kind in (door.body, *door.answers.values())
        if type(kind) is type(Item)
    }
    for name, example in EXAMPLES.items():
        assert name in described()["components"]["schemas"]
        if name in kinds:
            msgspec.json.decode(msgspec.json.encode(example), type=kinds[name])


# ── true ────────────────────────────────────────────────────────────────────────────────────────────

CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": [*ACCEPTED, *FULL]},
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "507"]},
            "negative_data_rejection": {"expected-statuses": [*REFUSED, "422"]},
        }
    }
)
schema = schemathesis.openapi.from_dict(described(), config=CONFIG)
OPERATIONS: dict[str, Any] = {each.ok().label: each.ok() for each in schema.get_all_operations()}  # type: ignore[union-attr]  # an Err fails here
FILES = ("POST /v1/namespaces/{namespace}/import",)  # what is in a file no schema says; test_moves does


@schemathesis.serializer("application/jsonl")
def _lines(_: Any, value: Any) -> bytes:
    return str(value).encode("utf-8", "surrogateescape")


def depends_on_the_past(case: Case[Any]) -> bool:
    """Whether the case goes on with what was never begun, a listing or a load: no schema can say that it was not."""
    body = json.dumps(case.body) if isinstance(case.body, dict) else ""
    named = {*(case.query or {}), *(case.headers or {})} & {"cursor", "after", "Last-Event-ID"}
    return bool(named or re.search('"(cursor|after|vector)": "|"op": "(load|embed)"', body))


def whole(value: Any) -> Any:
    """JSON Schema takes 960.0 for an integer; here it is none."""
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fuzz(label: str, mode: GenerationMode, server: Served, examples: int) -> None:
    @hypothesis.seed(20)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(OPERATIONS[label].as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE:
            hypothesis.assume(not depends_on_the_past(case))
            case.body = whole(case.body)
        case.call_and_validate(base_url=server.url)

    check()


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label not in FILES])
def test_requests_as_described_are_answered_as_described(label: str, server: Served, rounds: Callable[[int, int], int]):
    fuzz(label, GenerationMode.POSITIVE, server, rounds(10, 200))


# Of several batches each is refused in its place. And some requests can only be right.
REFUSABLE = [label for label in OPERATIONS if ("{" in label or "/v1/" in label) and label != "POST /v1/batches"]


@pytest.mark.parametrize("label", REFUSABLE)
def test_requests_that_are_not_as_described_are_refused_as_described(
    label: str, server: Served, rounds: Callable[[int, int], int]
):
    fuzz(label, GenerationMode.NEGATIVE, server, rounds(10, 200))


# ── raw bytes ───────────────────────────────────────────────────────────────────────────────────────

REQUEST = b"PUT /v1/namespaces/n/items/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n" + b'{"value":1}'
LINES = [
    b"POST /v1/execute HTTP/1.1\r\n", b"GET /v1/namespaces/n/items/%2e%2e HTTP/1.1\r\n", b"Host: localhost\r\n",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"If-Match: \xff\r\n", b"\r\n", b"\x00",
    b"{}", b"0\r\n\r\n",
]  # fmt: skip


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@hypothesis.given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(LINES), max_size=12).map(b"".join)
    | st.tuples(st.integers(0, len(REQUEST)), st.binary(max_size=3)).map(
        lambda cut: REQUEST[: cut[0]] + cut[1] + REQUEST[cut[0] + len(cut[1]) :]
    )
)
def test_whatever_bytes_come_the_server_answers_or_hangs_up_and_lives(server: Served, data: bytes):
    with server.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = read_all(connection)
        except ConnectionResetError:
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b"500 Internal" not in answer
    assert server.ask("GET", "/healthz").status == 200


def test_nothing_of_all_this_was_an_unexpected_error(server: Served):
    assert "Traceback" not in server.log
