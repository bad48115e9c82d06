"""Export and import: whole namespaces, streamed, in little memory, all or nothing."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from tests.server.asking import NS, App, asking, refused
from tests.server.running import PATIENCE, Served, Start, until
from tests.server.test_event_streams import Keys, memory_of

from botwire import Memory, transfer
from botwire.errors import TooLarge
from botwire.ops import EndRecord, ItemRecord, NamespaceRecord, Put, Revision
from botwire.stores.sqlite import SQLiteStore
from botwire_server import moves

COPY = "/v1/namespaces/copy"
MEGABYTE = 1_000_000


@pytest.fixture
def store() -> Iterator[SQLiteStore]:
    store = SQLiteStore(":memory:")
    yield store
    store.close()


@pytest.fixture
async def app(store: SQLiteStore) -> AsyncIterator[App]:
    async with asking(store) as app:
        yield app


def fill(store: SQLiteStore, name: str = "n") -> Memory:
    memory = Memory(name, store=store)
    for number in range(300):
        memory.set(f"key {number}", {"number": number, "text": "x" * number}, tags=["t"], author="me")
    memory.set("key 1", "changed")
    memory.delete("key 2")
    memory.set("half", "\ud83d")
    memory.conversation("talk").extend({"role": "user", "content": str(number)} for number in range(300))
    return memory


def record_lines(export: bytes) -> list[bytes]:
    """The lines of an export but the first, which names the namespace."""
    return export.splitlines()[1:]


async def test_what_is_exported_here_is_what_the_library_exports(app: App, store: SQLiteStore, tmp_path: Path):
    memory = fill(store)
    answer = await app.ask("GET", NS + "/export")
    assert answer.headers["content-type"] == "application/jsonl"
    assert "filename=\"n.jsonl\"; filename*=UTF-8''n.jsonl" in answer.headers["content-disposition"]
    memory.export(tmp_path / "export.jsonl")
    assert answer.content == (tmp_path / "export.jsonl").read_bytes()


async def test_an_import_makes_an_equal_namespace(app: App, store: SQLiteStore):
    fill(store)
    export = (await app.ask("GET", NS + "/export")).content
    answer = await app.ask("POST", COPY + "/import", export, content_type="application/jsonl")
    assert answer.status_code == 200
    assert (answer.json()["items"], answer.json()["messages"]) == (300, 300)
    assert record_lines((await app.ask("GET", COPY + "/export")).content) == record_lines(export)


async def test_names_are_safe_in_the_file_name(app: App):
    answer = await app.ask("GET", "/v1/namespaces/a%2Fb%22%C3%BC/export")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"a_b__.jsonl\"; filename*=UTF-8''a%2Fb%22%C3%BC.jsonl"
    )


async def test_head_of_an_export_ends_at_once(app: App, store: SQLiteStore):
    fill(store)
    answer = await app.ask("HEAD", NS + "/export")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_an_import_needs_an_empty_namespace(app: App, store: SQLiteStore):
    fill(store)
    export = (await app.ask("GET", NS + "/export")).content
    refused(await app.ask("POST", NS + "/import", export), 409, "not empty")
    assert (await app.get(NS))["items"] == 300


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: lines[:400], "cut off"),
        (lambda lines: [*lines[:400], b'{"kind": "nix"}', *lines[400:]], "line 401"),
        (lambda lines: [*lines[:400], *lines[401:]], "not whole"),
        (lambda lines: lines[1:], "line 1"),
        (lambda lines: [*lines, lines[-1]], "follows the end"),
        (lambda lines: [], "empty"),
        (lambda lines: [b'{"botwire_export": 99, "namespace": "n"}', *lines[1:]], "upgrade"),
        (lambda lines: [b"\xff", *lines], "line 1"),
        (lambda lines: [*lines[:400], b"\xff", *lines[400:]], "line 401"),
    ],
)
async def test_a_broken_import_leaves_the_namespace_empty(
    app: App, store: SQLiteStore, damage: Callable[[list[bytes]], list[bytes]], words: str
):
    fill(store)
    export = (await app.ask("GET", NS + "/export")).content
    broken = b"\n".join(damage(export.splitlines()))
    refused(await app.ask("POST", COPY + "/import", broken), 400, words)
    assert "items" not in await app.get(COPY)
    assert (await app.ask("POST", COPY + "/import", export)).status_code == 200


async def test_a_file_that_says_to_be_something_else_is_refused(app: App):
    refused(await app.ask("POST", COPY + "/import", b"", content_type="text/csv"), 415, "application/jsonl")
    for media in moves.TAKEN:
        refused(await app.ask("POST", COPY + "/import", b"", content_type=media), 400, "empty")


# ── lines, however they come ────────────────────────────────────────────────────────────────────────


@given(st.binary(), st.lists(st.integers(0, 50)))
def test_lines_are_the_same_however_the_text_is_cut(text: bytes, cuts: list[int]):
    text = text.replace(b"a", b"\n")
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    chunks = [text[start:end] for start, end in pairwise(places)]
    whole = text.split(b"\n")
    assert list(moves.lines(chunks)) == (whole if whole[-1] else whole[:-1])


def test_a_line_that_is_too_long_is_refused_before_it_is_held(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moves, "MAX_LINE", 100)
    assert list(moves.lines([b"x" * 100 + b"\n", b"y"])) == [b"x" * 100, b"y"]
    endless = iter(lambda: b"x" * 30, None)
    with pytest.raises(TooLarge, match="botwire import"):
        list(moves.lines(endless))


def test_batches_hold_about_a_megabyte():
    def export() -> Iterator[bytes]:
        yield transfer.first_line("n")
        yield transfer.line(NamespaceRecord(1, 1, 1))
        for number in range(500):
            text = b'"' + b"x" * (300_000 if number < 10 else 10) + b'"'
            yield transfer.line(ItemRecord(str(number), 1, [Revision(Raw(text), number + 1, 1)]))
        yield transfer.line(EndRecord(500, 500, 0))

    batches = list(moves.in_batches(export()))
    assert sum(len(batch) for batch in batches) == 502
    assert max(len(batch) for batch in batches) <= moves.MOST_RECORDS
    assert len(batches[0]) == 5  # the namespace, and four times 300 kB


# ── over real connections ───────────────────────────────────────────────────────────────────────────


def big_export(megabytes: int, seed: int = 0) -> Iterator[bytes]:
    """An export as it grows, a record at a time."""
    random_bytes = random.Random(seed).randbytes
    yield transfer.first_line("n")
    yield transfer.line(NamespaceRecord(1, 1, 1))
    for number in range(megabytes * 10):
        text = json.dumps(random_bytes(50_000).hex()[:99_900]).encode()
        yield transfer.line(ItemRecord(f"k{number:06}", 1, [Revision(Raw(text), number + 1, 1)]))
    yield transfer.line(EndRecord(megabytes * 10, megabytes * 10, 0))


def post(server: Served, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body, {"Transfer-Encoding": "chunked", **headers}, encode_chunked=True)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


class Watch:
    """The most memory that a process held while it was watched."""

    def __init__(self, pid: int) -> None:
        self.before = self.most = memory_of(pid)
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._end.wait(0.02):
            self.most = max(self.most, memory_of(self._pid))

    def grown(self) -> int:
        """By how many bytes it grew at the most."""
        self._end.set()
        self._thread.join()
        return self.most - self.before


def test_a_large_namespace_is_moved_in_little_memory(server: Start, rounds: Callable[[int, int], int], tmp_path: Path):
    megabytes = rounds(100, 1_000)
    served = server("--durability", "relaxed")
    for body in (big_export(1), big_export(1)):  # whatever is loaded once, is
        post(served, "/v1/namespaces/warm/import", body)
    watch = Watch(served.pid)
    status, about = post(served, COPY + "/import", big_export(megabytes))
    assert (status, about["items"]) == (200, megabytes * 10)
    assert watch.grown() < 60 * MEGABYTE
    watch = Watch(served.pid)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("GET", COPY + "/export")
    response = connection.getresponse()
    sent = big_export(megabytes)
    next(sent)
    assert response.readline() == transfer.first_line("copy")
    for line in sent:
        came = response.readline()
        assert came == line or came.startswith((b'{"kind":"namespace"', b'{"kind":"end"'))
    assert response.read() == b""
    response.close()
    connection.close()
    assert watch.grown() < 60 * MEGABYTE


def test_a_client_that_vanishes_in_the_midst_leaves_the_namespace_empty(server: Start):
    served = server()
    lines = list(big_export(8))

    def breaks_off() -> Iterator[bytes]:
        yield from lines[:60]
        until(lambda: "items" in served.ask("GET", COPY).json, "part of it is loaded")
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        post(served, COPY + "/import", breaks_off())
    until(lambda: "items" not in served.ask("GET", COPY).json, "it is empty again")
    until(lambda: post(served, COPY + "/import", iter(lines))[0] == 200, "it can be imported again")


def test_a_second_import_does_not_disturb_the_first(server: Start):
    served = server("--durability", "relaxed")
    lines = list(big_export(8))
    second: list[tuple[int, Any]] = []

    def interrupted() -> Iterator[bytes]:
        yield from lines[:60]
        until(lambda: "items" in served.ask("GET", COPY).json, "part of it is loaded")
        second.append(post(served, COPY + "/import", iter(lines)))
        yield from lines[60:]

    assert post(served, COPY + "/import", interrupted())[0] == 200
    assert (second[0][0], "under way" in second[0][1]["detail"]) == (409, True)
    assert served.ask("GET", COPY).json["items"] == 80


def test_a_server_that_is_killed_in_the_midst_takes_the_import_again(server: Start):
    first = server()
    lines = list(big_export(8))

    def killed() -> Iterator[bytes]:
        yield from lines[:60]
        until(lambda: "items" in first.ask("GET", COPY).json, "part of it is loaded")
        first.kill()
        yield from lines[60:]

    with pytest.raises((OSError, http.client.HTTPException)):
        post(first, COPY + "/import", killed())
    second = server()
    assert post(second, COPY + "/import", iter(lines))[0] == 200
    assert second.ask("GET", COPY).json["items"] == 80


def test_a_key_that_is_revoked_gets_no_more_of_an_export(server: Start, tmp_path: Path):
    made = Keys(tmp_path)
    key_id, key = made.make()
    for number in range(400):
        made.store.execute([Put("n", f"k{number}", Raw(msgspec.json.encode("x" * 100_000)))])
    served = server("--keys", "required")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("GET", NS + "/export", headers=key)
    response = connection.getresponse()
    response.read(100_000)
    made.revoke(key_id)
    until(lambda: served.ask("GET", NS, headers=key).status == 401, "the key is revoked")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    response.close()
    connection.close()
    made.store.close()


def test_an_import_that_brings_nothing_for_long_is_ended(server: Start):
    served = server("--body-timeout", "0.5")
    with served.connect() as connection:
        connection.sendall(
            b"POST /v1/namespaces/copy/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(b"5\r\n" + b'{"bot' + b"\r\n")
        assert b" 408 " in connection.recv(1_000)
    until(lambda: post(served, COPY + "/import", iter(list(big_export(1))))[0] == 200, "it can be imported now")
