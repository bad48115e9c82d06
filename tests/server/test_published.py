"""The published wire: what the client of botwire 0.2 sends and gets; `test_published_client` runs that client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from tests.server.asking import App, asking, refused
from tests.server.test_resources import VALUE

from botwire_server.published import meant


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with asking() as app:
        yield app


async def kept(app: App, value: Any) -> tuple[Any, Any]:
    """What comes back on the published wire, and what everyone else reads, after the old client has set a value."""
    sent = value if isinstance(value, str) else json.dumps(value)  # as the old client does
    answer = await app.ask("PUT", "/memory/n/k", {"value": sent})
    assert answer.status_code == 200
    return (await app.get("/memory/n/k"))["value"], (await app.get("/v1/namespaces/n/items/k"))[VALUE]


async def test_lists_and_objects_are_stored_as_what_they_are(app: App):
    for value in ({"a": [1, 2.5, None]}, [], [{"type": "human"}], {}):
        assert await kept(app, value) == (value, value)


async def test_strings_stay_strings_also_when_they_only_begin_like_json(app: App):
    for value in (
        "",
        "plain",
        "[draft] call ann",
        "{curly}",
        '{"a": 1',
        "[NaN]",
        "[1e999]",
        " [1]",
        '"quoted"',
        "[" * 200,
    ):
        assert await kept(app, value) == (value, value)


async def test_scalars_are_the_strings_as_which_they_were_sent(app: App):
    for value, text in ((5, "5"), (1.5, "1.5"), (True, "true"), (None, "null")):
        assert await kept(app, value) == (text, text)


async def test_whatever_others_have_stored_can_be_read(app: App):
    for value in (5, None, True, "text", {"a": 1}, [1]):
        await app.put("k", value)
        assert await app.get("/memory/n/k") == {"namespace": "n", "key": "k", "value": value}


async def test_json_that_curl_sends_is_stored_as_it_is(app: App):
    answer = await app.ask("PUT", "/memory/n/k", {"value": {"a": 1}})
    assert answer.json() == {"namespace": "n", "key": "k", "stored": True, "bytes": 7}
    assert (await app.get("/memory/n/k"))["value"] == {"a": 1}


async def test_keys_are_listed_all_of_them(app: App):
    body = {"ops": [{"op": "put", "namespace": "n", "key": f"k{n:04}", "value": n} for n in range(1_000)]}
    for _ in range(2):
        assert (await app.ask("POST", "/v1/execute", body)).status_code == 200
    await app.put("more", 1)
    found = await app.get("/memory/n")
    assert (found["count"], found["keys"][0], found["keys"][-1]) == (1_001, "k0000", "more")
    assert await app.get("/memory/empty") == {"namespace": "empty", "count": 0, "keys": []}


async def test_what_is_not_there_is_a_404(app: App):
    refused(await app.ask("GET", "/memory/n/k"), 404)
    refused(await app.ask("DELETE", "/memory/n/k"), 404)
    await app.put("k", 1)
    assert (await app.ask("DELETE", "/memory/n/k")).json() == {"namespace": "n", "key": "k", "deleted": True}
    refused(await app.ask("GET", "/memory/n/k"), 404)


async def test_everything_behind_the_namespace_is_the_key_slashes_included(app: App):
    for path, key in (("a/b", "a/b"), ("a%2Fc", "a/c"), ("/x", "/x"), ("x/", "x/"), ("%2E%2E/y", "../y")):
        assert (await app.ask("PUT", f"/memory/n/{path}", {"value": "v"})).json()["key"] == key
    assert (await app.get("/memory/n"))["keys"] == ["../y", "/x", "a/b", "a/c", "x/"]
    await app.ask("PUT", "/memory/n%2Fbelow/k", {"value": "v"})
    assert (await app.get("/memory/n%2Fbelow"))["keys"] == ["k"]


async def test_a_key_with_a_question_mark_is_not_cut_off_silently(app: App):
    refused(await app.ask("PUT", "/memory/n/what?is=this", {"value": "v"}), 400, "unknown parameter 'is'")
    assert (await app.ask("PUT", "/memory/n/what%3Fis=this", {"value": "v"})).json()["key"] == "what?is=this"


async def test_wrong_bodies_and_names_are_refused(app: App):
    refused(await app.ask("PUT", "/memory/n/k", {"value": "v", "ttl": 5}), 400, "`ttl`")
    refused(await app.ask("PUT", "/memory/n/k", {}), 400, "`value`")
    refused(await app.ask("PUT", "/memory/n/", {"value": "v"}), 400, "key is empty")
    refused(await app.ask("PUT", "/memory/n", {"value": "v"}), 405)
    refused(await app.ask("PUT", "/memory//k", {"value": "v"}), 404)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON | st.text().map("[".__add__) | st.text().map("{".__add__))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_the_old_client_gets_what_it_got_from_its_own_server(value: Any):
    text = value if isinstance(value, str) else json.dumps(value)
    raw = bytes(meant(Raw(json.dumps(text).encode())))
    assert old_clients_reading(json.loads(raw)) == old_clients_reading(text)


def old_clients_reading(found: Any) -> Any:
    """What `get` of botwire 0.2.1 makes of the value that it is sent."""
    if isinstance(found, str) and found and found[0] in "[{":
        try:
            return repr(json.loads(found))
        except ValueError:
            return found
    return repr(found) if isinstance(found, list | dict) else found
