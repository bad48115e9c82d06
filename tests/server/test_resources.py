"""The resources under /v1: items, namespaces and conversations, with ETags, conditions, and problems."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from msgspec import Raw
from tests.server.asking import NS, App, asking, refused
from tests.stores import Clock

from botwire.ops import Item, Put
from botwire.stores.sqlite import SQLiteStore
from botwire_server import Settings, create_app, keys

VALUE = next(field.encode_name for field in msgspec.structs.fields(Item) if field.name == "raw")
ITEM = NS + "/items/k"


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with asking() as app:
        yield app


# ── items ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_value_is_put_and_read_with_all_that_stands_beside_it(app: App):
    put = await app.put("k", {"city": "Rome"}, ttl=60, tags=["b", "a", "b"], author="planner")
    assert (put.status_code, put.headers["etag"], put.json()["version"]) == (201, '"1"', 1)
    answer = await app.ask("GET", ITEM)
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-type"] == "application/json"
    item = answer.json()
    assert (item[VALUE], item["key"], item["namespace"]) == ({"city": "Rome"}, "k", "n")
    assert item["meta"] == {"tags": ["a", "b"], "author": "planner"}
    assert item["expires"] - item["updated"] == 60_000_000


async def test_putting_again_says_that_there_was_something(app: App):
    await app.put("k", 1)
    again = await app.put("k", 2)
    assert (again.status_code, again.headers["etag"]) == (200, '"2"')


@pytest.mark.parametrize(
    "text", [b"null", b"1.0", b"12345678901234567890123", b'"\\u0041"', b'{"b":1,"a":2}', b'"\\ud83d"', b'""', b"[]"]
)
async def test_a_value_comes_back_as_the_json_that_it_was(app: App, text: bytes):
    await app.ask("PUT", ITEM, b'{"value": ' + text + b"}")
    answer = await app.ask("GET", ITEM)
    assert b'"%b":%b,' % (VALUE.encode(), text) in answer.content or text == b'"\\u0041"'


async def test_slashes_in_names_are_encoded_and_keep_namespace_and_key_apart(app: App):
    await app.put("a%2Fb", "inside", namespace="acme%2Fuser-42")
    item = await app.get("/v1/namespaces/acme%2Fuser-42/items/a%2Fb")
    assert (item["namespace"], item["key"]) == ("acme/user-42", "a/b")
    refused(await app.ask("GET", "/v1/namespaces/acme/user-42/items/a/b"), 404)
    refused(await app.ask("GET", "/v1/namespaces/acme%2Fuser-42/items/a/b"), 404)
    refused(await app.ask("GET", "/v1/namespaces/acme/items/user-42%2Fa%2Fb"), 404, "'user-42/a/b' in 'acme'")


@pytest.mark.parametrize(
    "key", ["%25", "%252F", "ü", "%C3%BC", "a%20b", "+", "%3F%23", "history%2Fundo", "%F0%9F%98%80"]
)
async def test_any_name_can_be_a_key(app: App, key: str):
    await app.put(key, key)
    keys = [item["key"] for item in (await app.get(NS + "/items"))["items"]]
    assert keys == [httpx.URL("http://x/" + key).path[1:]]
    assert (await app.get(NS + "/items/" + key))[VALUE] == key


async def test_a_path_that_is_no_utf8_or_ends_in_the_midst_of_an_escape_is_refused(app: App):
    refused(await app.ask("GET", NS + "/items/%FF"), 400, "key is no UTF-8")
    refused(await app.ask("GET", "/v1/namespaces/%C3%28/items/k"), 400, "namespace is no UTF-8")


async def test_names_that_are_none_are_refused(app: App):
    refused(await app.ask("GET", NS + "/items/%00"), 400, "control character")
    refused(await app.ask("GET", "/v1/namespaces/a%2F%2Fb/items/k"), 400, "empty level")
    refused(await app.ask("GET", NS + "/items/" + "x" * 513), 413, "513 bytes")


async def test_what_is_not_there_is_a_404(app: App):
    problem = refused(await app.ask("GET", ITEM), 404, "no 'k' in 'n'")
    assert problem["type"] == "urn:botwire:problem:not-found"
    for method, body in (("DELETE", None), ("PATCH", {"ttl": 1}), ("POST", {})):
        path = ITEM + ("/undo" if method == "POST" else "")
        refused(await app.ask(method, path, body), 404)


async def test_head_says_what_get_says_without_the_body(app: App):
    await app.put("k", "value")
    for path in (ITEM, NS + "/items", NS, "/v1/namespaces", ITEM + "/history", "/", NS + "/items/nothing"):
        got, head = await app.ask("GET", path), await app.ask("HEAD", path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""} or path.endswith("nothing")


async def test_deleting_leaves_nothing_and_undo_brings_it_back(app: App):
    await app.put("k", "first")
    gone = await app.ask("DELETE", ITEM)
    assert (gone.status_code, gone.content) == (204, b"")
    refused(await app.ask("GET", ITEM), 404)
    back = await app.ask("POST", ITEM + "/undo", {"author": "me"})
    assert (back.status_code, back.json()[VALUE], back.headers["etag"]) == (200, "first", '"3"')
    assert back.json()["meta"]["author"] == "me"
    await app.ask("DELETE", ITEM)
    assert (await app.ask("POST", ITEM + "/undo")).json()[VALUE] == "first"


async def test_deleting_without_history_leaves_no_past(app: App):
    await app.put("k", "first")
    await app.ask("DELETE", ITEM + "?history=false")
    assert await app.get(ITEM + "/history") == []


async def test_history_and_reads_of_the_past():
    clock = Clock()
    async with asking(SQLiteStore(":memory:", clock=clock)) as app:
        await app.put("k", "first")
        clock.advance(10)
        await app.put("k", "second")
        assert [each[VALUE] for each in await app.get(ITEM + "/history")] == ["second", "first"]
        assert len(await app.get(ITEM + "/history?limit=1")) == 1
        assert (await app.get(ITEM + "?as_of=1"))[VALUE] == "first"
        assert (await app.get(ITEM + "?as_of=2023-11-14T22:13:25Z"))[VALUE] == "first"
        assert (await app.get(ITEM + "?as_of=2023-11-14T23:13:31%2B01:00"))[VALUE] == "second"
        refused(await app.ask("GET", ITEM + "?as_of=2023-11-14T22:13:25+00:00"), 400, "%2B")
        refused(await app.ask("GET", ITEM + "?as_of=2023-11-14T22:13:25"), 400, "no time zone")
        refused(await app.ask("GET", ITEM + "?as_of=-1"), 400, "as_of='-1'")
        await app.ask("PATCH", NS, {"history": 0})
        await app.put("k", "third")
        problem = refused(await app.ask("GET", ITEM + "?as_of=1"), 410)
        assert problem["type"] == "urn:botwire:problem:history-expired"


async def test_an_expiry_is_set_and_taken_away(app: App):
    await app.put("k", "value")
    touched = await app.ask("PATCH", ITEM, {"ttl": 60})
    assert (touched.status_code, touched.headers["etag"]) == (200, '"2"')
    assert "expires" in touched.json()
    assert "expires" not in (await app.ask("PATCH", ITEM, {"ttl": None})).json()
    refused(await app.ask("PATCH", ITEM, {}), 400, "`ttl`")


# ── conditions ──────────────────────────────────────────────────────────────────────────────────────


async def test_if_match_replaces_that_version_alone(app: App):
    await app.put("k", 1)
    problem = refused(await app.ask("PUT", ITEM, {"value": 2}, if_match='"7"'), 412)
    assert (problem["type"], problem["version"]) == ("urn:botwire:problem:conflict", 1)
    assert (await app.ask("PUT", ITEM, {"value": 2}, if_match='"1"')).headers["etag"] == '"2"'
    refused(await app.ask("PATCH", ITEM, {"ttl": 9}, if_match='"1"'), 412)
    refused(await app.ask("DELETE", ITEM, if_match='"1"'), 412)
    assert (await app.ask("DELETE", ITEM, if_match='"2"')).status_code == 204
    refused(await app.ask("DELETE", ITEM, if_match='"2"'), 412)


async def test_if_match_star_wants_something_to_be_there(app: App):
    for method, body in (("PUT", {"value": 1}), ("PATCH", {"ttl": 9}), ("DELETE", None)):
        refused(await app.ask(method, ITEM, body, if_match="*"), 412, "does not exist")
    await app.put("k", 1)
    assert (await app.ask("PUT", ITEM, {"value": 2}, if_match="*")).status_code == 200
    assert (await app.ask("DELETE", ITEM, if_match="*")).status_code == 204


async def test_if_match_star_holds_however_many_write_at_once(app: App):
    await app.put("k", 0)
    answers = await asyncio.gather(*(app.ask("PUT", ITEM, {"value": n}, if_match="*") for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await app.get(ITEM + "/history?limit=100")) == 17  # what history keeps, and what it is now


async def test_if_none_match_star_creates_and_never_replaces(app: App):
    assert (await app.ask("PUT", ITEM, {"value": 1}, if_none_match="*")).status_code == 201
    refused(await app.ask("PUT", ITEM, {"value": 2}, if_none_match="*"), 412, "is at version 1")
    refused(await app.ask("PUT", ITEM, {"value": 2}, if_none_match='"1"'), 400, "takes * alone")
    refused(await app.ask("PUT", ITEM, {"value": 2}, if_none_match="*", if_match='"1"'), 412)
    assert (await app.get(ITEM))[VALUE] == 1


async def test_a_reader_that_has_the_version_is_told_so(app: App):
    await app.put("k", 1)
    for known in ('"1"', 'W/"1"', '"0", "1"', "*"):
        answer = await app.ask("GET", ITEM, if_none_match=known)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')
    assert (await app.ask("GET", ITEM, if_none_match='"2"')).status_code == 200
    assert (await app.ask("HEAD", ITEM, if_none_match='"1"')).status_code == 304
    assert (await app.ask("GET", ITEM, if_match='"2", "1"')).status_code == 200
    refused(await app.ask("GET", ITEM, if_match='"2"'), 412)


@pytest.mark.parametrize("tag", ["3", "v3", '"a', ""])
async def test_a_condition_that_is_none_is_refused(app: App, tag: str):
    refused(await app.ask("PUT", ITEM, {"value": 1}, if_match=tag), 400, "in quotes")


@pytest.mark.parametrize("tag", ['"0"', '"x"', '"01"', 'W/"1"', '"99999999999999999999"'])
async def test_an_etag_of_elsewhere_matches_nothing(app: App, tag: str):
    await app.put("k", 1)
    refused(await app.ask("PUT", ITEM, {"value": 2}, if_match=tag), 412)
    refused(await app.ask("PUT", NS + "/items/new", {"value": 2}, if_match=tag), 412)


async def test_a_condition_that_would_be_ignored_is_refused(app: App):
    refused(await app.ask("DELETE", NS, if_match='"1"'), 412, "not heeded here")
    refused(await app.ask("POST", "/v1/execute", {"ops": []}, if_none_match="*"), 412)
    refused(await app.ask("PUT", ITEM, {"value": 1}, if_unmodified_since="Mon, 01 Jan 2024 00:00:00 GMT"), 412)


async def test_a_write_that_is_sent_twice_with_one_id_is_applied_once(app: App):
    first = await app.ask("PUT", ITEM, {"value": 1}, idempotency_key="a")
    second = await app.ask("PUT", ITEM, {"value": 1}, idempotency_key="a")
    assert (second.json(), second.headers["etag"]) == (first.json(), '"1"')
    refused(await app.ask("PUT", ITEM, {"value": 2}, idempotency_key="a"), 422)
    assert (await app.get(ITEM))[VALUE] == 1


# ── what is sent ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"value": 1, "tll": 5}', "unknown field `tll`"),
        (b'{"ttl": 5}', "missing required field `value`"),
        (b"[]", "Expected `object`"),
        (b"", "the body cannot be used"),
        (b'{"value": 1', "the body cannot be used"),
        (b'{"value": NaN}', "the body cannot be used"),
        (b'{"value": 1, "ttl": 0}', "ttl=0"),
        (b'{"value": 1, "ttl": "5"}', "Expected `float | null`"),
        (b'{"value": 1, "tags": "a"}', "Expected `array`"),
        (b'{"value": "\xff"}', ""),
        (b'{"value": ' + b"[" * 200 + b"]" * 200 + b"}", "200 levels deep"),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused(app: App, body: bytes, words: str):
    refused(await app.ask("PUT", ITEM, body), 400, words)
    refused(await app.ask("GET", ITEM), 404)


async def test_a_misspelt_parameter_is_refused(app: App):
    refused(await app.ask("GET", NS + "/items?prefx=a"), 400, "unknown parameter 'prefx'", "prefix, where")
    refused(await app.ask("PUT", ITEM + "?ttl=5", {"value": 1}), 400, "unknown parameter 'ttl'", "there are none")
    refused(await app.ask("GET", NS + "/items?limit=1&limit=2"), 400, "2 times")
    refused(await app.ask("GET", NS + "/items?prefix=%FF"), 400, "UTF-8")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=x", "whole number"),
        ("limit=-1", "whole number"),
        ("limit=10001", "10,000"),
        ("reverse=1", "true or false"),
        ("order=size", "one of key, updated"),
        ("since=yesterday", "2026-01-31T12:00:00Z"),
        ("where=[]", "JSON object"),
        ('where={"a":{"$near":1}}', "$near"),
        ("cursor=x", "no cursor"),
        ("tag=", "tag is empty"),
    ],
)
async def test_a_parameter_that_cannot_be_used_is_refused(app: App, query: str, words: str):
    refused(await app.ask("GET", NS + "/items?" + query), 400, words)


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/x-www-form-urlencoded",
        "application/vnd.x+json",
    ],
)
async def test_json_is_taken_also_as_curl_sends_it(app: App, media: str):
    assert (await app.ask("PUT", ITEM, {"value": 1}, content_type=media)).status_code == 201


@pytest.mark.parametrize(
    "media", ["text/xml", "application/json; charset=utf-16", "text/plain", "multipart/form-data; boundary=x", "x"]
)
async def test_a_body_that_says_to_be_something_else_is_refused(app: App, media: str):
    refused(await app.ask("PUT", ITEM, {"value": 1}, content_type=media), 415, "application/json")
    refused(await app.ask("POST", NS + "/conversations/t/trim", {"keep": 1}, content_type=media), 415)


# ── listings ────────────────────────────────────────────────────────────────────────────────────────


async def test_items_are_listed_page_by_page(app: App):
    for number in range(5):
        await app.put(f"k{number}", number)
    keys: list[str] = []
    path = NS + "/items?limit=2"
    while path:
        page = await app.get(path)
        keys += [item["key"] for item in page["items"]]
        path = NS + f"/items?limit=2&cursor={page['cursor']}" if "cursor" in page else ""
    assert keys == ["k0", "k1", "k2", "k3", "k4"]


async def test_items_are_filtered_and_ordered(app: App):
    await app.put("a1", {"city": "Rome", "age": 3}, tags=["x", "y"], author="me")
    await app.put("a2", {"city": "Oslo"}, tags=["x"])
    await app.put("b", {"city": "Rome"}, namespace="n%2Fbelow")

    async def found(query: str) -> list[str]:
        return [item["key"] for item in (await app.get(NS + "/items?" + query))["items"]]

    assert await found("prefix=a") == ["a1", "a2"]
    assert await found('where={"city":{"$in":["Rome"]}}&subtree=true') == ["a1", "b"]
    assert await found("tag=x&tag=y") == ["a1"]
    assert await found("author=me") == ["a1"]
    assert await found("order=updated&reverse=true") == ["a2", "a1"]
    assert await found("since=2200-01-01T00:00:00Z") == []
    assert [item[VALUE] for item in (await app.get(NS + "/items?values=false"))["items"]] == [None, None]


# ── namespaces ──────────────────────────────────────────────────────────────────────────────────────


async def test_namespaces_are_listed_described_configured_and_cleared(app: App):
    await app.put("k", 1, namespace="a%2Fb")
    await app.put("k", 1, namespace="c")
    names = [each["name"] for each in (await app.get("/v1/namespaces"))["namespaces"]]
    assert names == ["a/b", "c"]
    assert [each["name"] for each in (await app.get("/v1/namespaces?under=a"))["namespaces"]] == ["a/b"]
    assert (await app.get("/v1/namespaces/c"))["items"] == 1
    assert "version" not in await app.get("/v1/namespaces/nobody")
    configured = await app.ask("PATCH", "/v1/namespaces/c", {"max_items": 1, "history": None})
    assert (configured.json()["policy"]["max_items"], configured.json()["policy"]["history"]) == (1, 16)
    refused(await app.ask("PUT", "/v1/namespaces/c/items/more", {"value": 1}), 507)
    refused(await app.ask("PATCH", "/v1/namespaces/c", {"max_itms": 1}), 400, "max_itms")
    assert (await app.ask("DELETE", "/v1/namespaces/c")).json()["items"] == 1
    assert (await app.get("/v1/namespaces/c/items/k/history"))[0]["deleted"]


async def test_a_key_lists_the_namespaces_that_it_reaches(tmp_path: Path):
    store = SQLiteStore(str(tmp_path / "memory.db"))
    key_id, key, secret = keys.new_key("test", "write", "acme")
    store.execute([Put(keys.NAMESPACE, key_id, Raw(msgspec.json.encode(key)))])
    async with asking(store) as app:
        app.client.headers["Authorization"] = f"Bearer {secret}"
        await app.put("k", 1, namespace="acme%2Fuser-42")
        refused(await app.ask("PUT", "/v1/namespaces/acmes/items/k", {"value": 1}), 403)
        assert [each["name"] for each in (await app.get("/v1/namespaces"))["namespaces"]] == ["acme/user-42"]
        refused(await app.ask("GET", "/v1/namespaces?under="), 403)
        del app.client.headers["Authorization"]
        assert refused(await app.ask("GET", "/v1/namespaces"), 401)
        assert (await app.ask("GET", "/v1/namespaces")).headers["www-authenticate"] == 'Bearer realm="botwire"'
        assert (await app.ask("GET", "/")).status_code == 200
    store.close()


async def test_erasing_destroys_what_it_is_told_to_and_nothing_else(app: App):
    for key in ("a", "b", "c"):
        await app.put(key, 1)
    refused(await app.ask("POST", NS + "/erase"), 400, "{} for the whole namespace")
    refused(await app.ask("POST", NS + "/erase", {"key": ""}), 400, "key is empty")
    refused(await app.ask("POST", NS + "/erase", {"conversation": ""}), 400, "conversation is empty")
    refused(await app.ask("POST", NS + "/erase", {"key": None}), 400)
    refused(await app.ask("POST", NS + "/erase", {"kye": "a"}), 400, "kye")
    refused(await app.ask("POST", NS + "/erase", {"key": "a", "subtree": True}), 400, "at most one")
    assert (await app.get(NS))["items"] == 3
    assert (await app.ask("POST", NS + "/erase", {"key": "a"})).json()["items"] == 1
    assert await app.get(NS + "/items/a/history") == []
    assert (await app.ask("POST", NS + "/erase", {})).json() == {"items": 2, "namespaces": 1}


# ── conversations ───────────────────────────────────────────────────────────────────────────────────

TALK = NS + "/conversations/thread%2F1"


async def say(app: App, *messages: Any, **headers: str) -> httpx.Response:
    return await app.ask("POST", TALK + "/messages", {"messages": list(messages)}, **headers)


async def test_messages_are_appended_and_read_with_what_is_recognised_in_them(app: App):
    answer = await say(
        app,
        {"value": {"role": "user", "content": "hi", "name": "ann"}, "id": "m1", "at": "2026-01-31T12:00:00Z"},
        {"value": "plain", "role": "assistant", "author": "bot", "at": 5},
        {"value": {"type": "human", "data": {"content": "x"}}},
    )
    assert (answer.status_code, [stamp["version"] for stamp in answer.json()]) == (201, [1, 2, 3])
    first, second, third = (await app.get(TALK + "/messages"))["messages"]
    assert (first["id"], first["role"], first["author"], first["created"]) == ("m1", "user", "ann", 1769860800000000)
    assert (second["id"], second["role"], second["author"], second["created"]) == ("#2", "assistant", "bot", 5)
    assert (third["role"], third[VALUE]) == ("user", {"type": "human", "data": {"content": "x"}})
    refused(await say(app, {"value": 1, "at": "2026-01-31T12:00:00"}), 400, "no time zone")
    refused(await say(app, {"value": 1, "rol": "user"}), 400, "`rol`")


async def test_a_message_with_an_id_that_is_there_is_not_added_again(app: App):
    await say(app, {"value": 1, "id": "m1"})
    await say(app, {"value": 1, "id": "m1"})
    assert len((await app.get(TALK + "/messages"))["messages"]) == 1


async def test_messages_are_selected(app: App):
    await say(
        app, *({"value": {"role": role, "content": n}} for n, role in enumerate(["system", "user", "tool", "user"]))
    )

    async def found(query: str) -> list[int]:
        return [each["version"] for each in (await app.get(TALK + "/messages?" + query))["messages"]]

    assert await found("after=1&before=4") == [2, 3]
    assert await found("role=system&role=tool") == [1, 3]
    assert await found("id=%232") == [2]
    assert await found("reverse=true&limit=2") == [4, 3]
    assert (await app.get(TALK + "/messages?limit=2"))["more"]


async def test_appending_can_depend_on_the_conversation_being_as_it_was_read(app: App):
    assert (await say(app, {"value": 1}, if_none_match="*")).status_code == 201
    tag = (await app.ask("GET", TALK)).headers["etag"]
    assert (await say(app, {"value": 2}, if_match=tag)).status_code == 201
    refused(await say(app, {"value": 3}, if_match=tag), 412)
    refused(await say(app, {"value": 3}, if_none_match="*"), 412)
    refused(await say(app, {"value": 3}, if_match="*"), 400, "one ETag")


async def test_messages_are_edited_and_removed_where_they_stand(app: App):
    await say(app, {"value": {"role": "user", "content": "hi"}, "id": "m1", "author": "ann"}, {"value": 2})
    edited = await app.ask("PUT", TALK + "/messages/m1", {"value": "bye", "redacted": True})
    assert edited.status_code == 200
    message = (await app.get(TALK + "/messages?id=m1"))["messages"][0]
    assert (message[VALUE], message["role"], message["author"], message["redacted"]) == ("bye", "user", "ann", True)
    assert (await app.ask("DELETE", TALK + "/messages/%232")).status_code == 204
    refused(await app.ask("DELETE", TALK + "/messages/%232"), 404)
    refused(await app.ask("PUT", TALK + "/messages/m2", {"value": 1}), 404, "no message 'm2'")


async def test_conversations_are_listed_trimmed_and_deleted(app: App):
    refused(await app.ask("GET", TALK), 404)
    refused(await app.ask("DELETE", TALK), 404)
    await say(app, *({"value": n, "at": n} for n in range(5)))
    assert [each["name"] for each in (await app.get(NS + "/conversations"))["conversations"]] == ["thread/1"]
    assert (await app.get(TALK))["messages"] == 5
    assert (await app.ask("POST", TALK + "/trim", {"older_than": 2})).json()["messages"] == 2
    assert (await app.ask("POST", TALK + "/trim", {"older_than": "1970-01-01T00:00:00.000003Z"})).json()[
        "messages"
    ] == 1
    assert (await app.ask("POST", TALK + "/trim", {"keep": 1})).json()["messages"] == 1
    refused(await app.ask("POST", TALK + "/trim", {}), 400, "exactly one")
    assert (await app.ask("DELETE", TALK)).status_code == 204
    assert await app.get(NS + "/conversations") == {"conversations": []}


# ── where nothing is, and where the app is ──────────────────────────────────────────────────────────


async def test_a_path_or_method_that_is_not_there_is_a_problem_too(app: App):
    refused(await app.ask("GET", "/v2"), 404, "/openapi.json")
    refused(await app.ask("GET", NS + "/"), 404)
    answer = await app.ask("POST", ITEM)
    refused(answer, 405, "POST")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"


async def test_the_first_page_says_where_to_go_on(app: App):
    page = await app.get("/")
    assert page["name"] == "botwire"
    assert (await app.get(page["openapi"]))["openapi"] == "3.1.0"
    assert (await app.get(page["namespaces"])) == {"namespaces": []}


async def test_a_mistake_of_ours_is_told_without_its_text(app: App, caplog: pytest.LogCaptureFixture):
    app.app.state.service.execute = None  # what is not there cannot be called
    problem = refused(await app.ask("GET", ITEM), 500)
    assert "NoneType" not in problem["detail"]
    assert problem["request_id"] in caplog.text
    assert "NoneType" in caplog.text


def mounted(*stores: SQLiteStore) -> FastAPI:
    """An app of somebody else, with ours in it."""
    parent = FastAPI()
    for number, store in enumerate(stores):
        parent.mount(f"/bot {number}/me", create_app(store, Settings()))
    return parent


async def test_mounted_in_another_app_it_works_and_begins_with_its_first_request():
    store = SQLiteStore(":memory:")
    transport = httpx.ASGITransport(mounted(store), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        put = await client.put("/bot%200/me/v1/namespaces/a%2Fb/items/c%2Fd", json={"value": 1})
        assert put.status_code == 201
        item = (await client.get("/bot 0/me/v1/namespaces/a%2Fb/items/c%2Fd")).json()
        assert (item["namespace"], item["key"]) == ("a/b", "c/d")
        assert (await client.get("/bot 0/me/")).json()["openapi"] == "/bot 0/me/openapi.json"
        assert (await client.get("/v1/namespaces/a%2Fb/items/c%2Fd")).status_code == 404
        assert (await client.get("/bot 0/me/readyz")).status_code == 200
    store.close()


async def test_mounted_where_it_would_be_too_open_it_answers_nothing(caplog: pytest.LogCaptureFixture):
    store = SQLiteStore(":memory:")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(store, Settings(host="0.0.0.0", insecure_http=True))),
        base_url="http://localhost",
    ) as client:
        for _ in range(2):
            answer = await client.get("/v1/namespaces")
            assert (answer.status_code, answer.json()["status"]) == (503, 503)
    assert "no valid API key" in caplog.text
    store.close()


async def test_under_a_root_path_it_finds_its_paths(tmp_path: Any):
    async with asking(root="/some/where") as app:
        await app.ask("PUT", "/some/where" + ITEM, {"value": 1})
        assert (await app.get("/some/where" + ITEM))[VALUE] == 1
        assert (await app.get("/some/where/openapi.json"))["servers"] == [{"url": "/some/where"}]


async def test_any_sync_store_can_be_served():
    class Wrapped:
        """A store around a store, as encryption or a program's own is."""

        def __init__(self) -> None:
            self.inner = SQLiteStore(":memory:")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def execute(self, ops: Any, *, request_id: str | None = None) -> Any:
            return self.inner.execute(ops, request_id=request_id)

    store = Wrapped()
    async with asking(store) as app:
        await app.put("k", 1)
        assert (await app.get(ITEM))[VALUE] == 1
    store.inner.close()


async def raw(app: App, path: bytes) -> int:
    """The status of a GET whose path goes out just so: httpx would repair it."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    await app.app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_an_escape_that_is_none_is_refused_but_on_the_published_wire(app: App):
    await app.put("50%25", 1)
    assert await raw(app, b"/v1/namespaces/n/items/50%25") == 200
    assert await raw(app, b"/v1/namespaces/n/items/50%") == 400
    assert await raw(app, b"/v1/namespaces/n/items/%zz") == 400
    assert await raw(app, b"/memory/n/50%") == 200
    assert await raw(app, b"/memory/n/50%25") == 200
    assert await raw(app, b"/memory/n/%ff") == 400
