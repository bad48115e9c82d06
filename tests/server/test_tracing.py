"""OpenTelemetry spans, if a tracer is set up: one for each request and each execute; never names or values."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.server.running import environment

from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import create_app, tracing
from botwire_server.tracing import door


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is traced while the test runs. The API takes a provider once in a process, so it is put in its place."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
async def client(exporter: InMemorySpanExporter) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(AsyncSQLiteStore(SQLiteStore(":memory:")))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            exporter.clear()
            yield client
    await app.state.service.store.close()


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    found = {span.name: span for span in exporter.get_finished_spans()}
    exporter.clear()
    return found


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_and_its_execute_are_spans_one_in_the_other(client, exporter):
    answer = await client.put("/v1/namespaces/user-42/items/coffee", json={"value": "black"})
    assert answer.status_code == 201
    spans = named(exporter)
    assert spans.keys() == {"PUT /v1/namespaces/{}/items/{}", "execute put"}
    request, execute = spans["PUT /v1/namespaces/{}/items/{}"], spans["execute put"]
    assert execute.parent is not None
    assert request.context is not None
    assert execute.parent.span_id == request.context.span_id
    assert request.kind is SpanKind.SERVER
    assert about(request) == {
        "http.request.method": "PUT",
        "http.route": "/v1/namespaces/{}/items/{}",
        "http.response.status_code": 201,
        "botwire.request_id": answer.headers["x-request-id"],
    }
    assert about(execute) == {"botwire.ops": ("put",), "botwire.op_count": 1}


async def test_a_batch_names_its_kinds_once(client, exporter):
    op = {"namespace": "user-42", "key": "coffee"}
    ops = [{"op": "get", **op}, {"op": "delete", **op}, {"op": "get", **op}]
    assert (await client.post("/v1/execute", json={"ops": ops})).status_code == 200
    assert about(named(exporter)["execute batch"]) == {"botwire.ops": ("get", "delete"), "botwire.op_count": 3}


async def test_a_request_is_a_child_of_the_callers_span(client, exporter):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.get("/memory/user-42/coffee", headers={"traceparent": parent})
    span = named(exporter)["GET /memory/{}/{}"]
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


async def test_errors_are_told_by_their_kind_alone(client, exporter):
    stale = {"If-Match": '"99"'}
    await client.put("/v1/namespaces/user-42/items/secret-key", json={"value": "secret-value"}, headers=stale)
    spans = named(exporter)
    execute = spans["execute put"]
    assert about(execute)["error.type"] == "conflict"
    assert execute.status.status_code is StatusCode.UNSET, "a conflict is nobody's fault"
    assert not execute.events
    assert about(spans["PUT /v1/namespaces/{}/items/{}"])["http.response.status_code"] == 412


async def test_no_span_holds_a_name_a_value_or_a_key(client, exporter):
    auth = {"Authorization": "Bearer bw_0123456789ab_secret"}
    await client.put("/v1/namespaces/secret-ns/items/secret-key", json={"value": "secret-value"})
    await client.get("/memory/secret-ns/secret-key?secret=1", headers=auth)
    await client.get("/secret/place")
    await client.get("/v1/namespaces/secret-ns/items?prefix=secret")
    spans = exporter.get_finished_spans()
    assert len(spans) >= 6
    assert "secret" not in "".join(span.to_json() for span in spans)


def test_only_the_words_of_doors_are_kept_of_a_path():
    for path, kept in [
        (b"/memory/acme%2Fa/b/c", "/memory/{}/{}/{}"),
        (b"/v1/namespaces/a/conversations/b/messages", "/v1/namespaces/{}/conversations/{}/messages"),
        (b"/v1/execute", "/v1/execute"),
        (b"/", "/"),
        (b"/caf\xc3\xa9", "/{}"),
    ]:
        assert door(path) == kept


async def test_without_a_tracer_the_store_is_left_as_it_is():
    store = AsyncSQLiteStore(SQLiteStore(":memory:"))
    assert tracing.tracer() is None
    assert tracing.traced(store) is store
    app = create_app(store)
    assert app.state.service.store is store
    await store.close()


def test_opentelemetry_is_not_needed():
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from botwire_server import tracing\n"
        "assert tracing.tracer() is None; print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
