"""The change feed: pages, and streams that miss nothing and repeat nothing, whoever breaks off when."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from starlette.requests import ClientDisconnect
from tests.server.asking import NS, asking, refused
from tests.server.events import Event, Stream
from tests.server.running import Served, Start, starting, until

from botwire import Memory
from botwire.ops import Delete, Put
from botwire.stores.sqlite import SQLiteStore
from botwire_server import keys, streaming

FEED = NS + "/changes"


def memory(server: Served, namespace: str = "n") -> Memory:
    return Memory(namespace, url=server.url)


def put(server: Served, key: str, namespace: str = "n", value: Any = 1) -> None:
    assert server.ask("PUT", f"/v1/namespaces/{namespace}/items/{key}", {"value": value}).status < 300


def metric(server: Served, name: str) -> float:
    text = server.ask("GET", "/metrics").body.decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


def memory_of(pid: int) -> int:
    """Resident memory in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for tests that leave each other alone by using namespaces of their own."""
    with starting(tmp_path_factory.mktemp("feed")) as start:
        yield start("--durability", "relaxed", "--heartbeat", "0.3")


# ── pages ───────────────────────────────────────────────────────────────────────────────────────────


async def test_changes_are_read_page_by_page():
    async with asking() as app:
        start = await app.get(FEED)
        assert start["changes"] == []
        for number in range(3):
            await app.put(f"k{number}", number)
        page = await app.get(FEED + f"?after={start['cursor']}&limit=2")
        assert ([change["key"] for change in page["changes"]], page["more"]) == (["k0", "k1"], True)
        rest = await app.get(FEED + f"?after={page['cursor']}")
        assert [change["key"] for change in rest["changes"]] == ["k2"]
        assert len((await app.get(FEED + "?after="))["changes"]) == 3
        refused(await app.ask("GET", FEED + "?after=x"), 400, "no feed cursor")
        refused(await app.ask("GET", FEED + "?after=v99"), 410)


async def test_changes_of_a_subtree_and_of_the_whole_store():
    async with asking() as app:
        await app.put("a", 1)
        await app.put("b", 1, namespace="n%2Fbelow")
        await app.put("c", 1, namespace="other")

        async def keys_of(path: str) -> list[str]:
            return [change["key"] for change in (await app.get(path))["changes"]]

        assert await keys_of(FEED + "?after=") == ["a"]
        assert await keys_of(FEED + "?after=&subtree=true") == ["a", "b"]
        assert await keys_of("/v1/changes?after=") == ["a", "b", "c"]


async def test_whoever_takes_json_too_gets_json():
    async with asking() as app:
        assert "cursor" in await app.get(FEED, accept="application/json, text/event-stream")
        assert "cursor" in await app.get(FEED, accept="*/*")


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────


def test_changes_come_as_they_happen(shared: Served):
    with Stream(shared, "/v1/namespaces/live/changes") as stream:
        assert stream.response.getheader("Content-Type") == "text/event-stream"
        place = next(stream.blocks_one_by_one())
        assert (place.kind, place.id) == ("", "v0")
        put(shared, "first", "live")
        change = stream.next()
        assert (change.id, change.data["key"], change.data["kind"]) == ("v1", "first", "set")
        put(shared, "second", "live")
        assert stream.next().data["cursor"] == "v2"


def test_a_stream_that_saw_no_change_still_knows_where_to_go_on(shared: Served):
    put(shared, "before", "quiet")
    with Stream(shared, "/v1/namespaces/quiet/changes") as stream:
        next(stream.blocks_one_by_one())
        place = stream.last_id
    put(shared, "between", "quiet")
    with Stream(shared, "/v1/namespaces/quiet/changes", Last_Event_ID=place) as stream:
        assert stream.next().data["key"] == "between"


def test_what_was_seen_wins_over_where_the_url_begins(shared: Served):
    for key in ("a", "b", "c"):
        put(shared, key, "resumed")
    with Stream(shared, "/v1/namespaces/resumed/changes?after=") as stream:
        assert [stream.next().data["key"] for _ in range(2)] == ["a", "b"]
        place = stream.last_id
    with Stream(shared, "/v1/namespaces/resumed/changes?after=", Last_Event_ID=place) as stream:
        assert stream.next().data["key"] == "c"


def test_a_subtree_and_the_whole_store_are_streamed(shared: Served):
    with (
        Stream(shared, "/v1/namespaces/tree/changes?subtree=true") as tree,
        Stream(shared, "/v1/changes") as everything,
    ):
        for stream in (tree, everything):
            next(stream.blocks_one_by_one())
        put(shared, "outside", "trees")
        put(shared, "inside", "tree%2Fleaf")
        assert tree.next().data["namespace"] == "tree/leaf"
        assert [everything.next().data["namespace"] for _ in range(2)] == ["trees", "tree/leaf"]


def test_a_quiet_stream_gives_signs_of_life(shared: Served):
    with Stream(shared, "/v1/namespaces/silent/changes") as stream:
        blocks = stream.blocks_one_by_one()
        while stream.comments < 3:
            assert next(blocks).kind == ""


def test_a_stream_takes_no_limit_and_no_wrong_cursor(shared: Served):
    for query, status in (("limit=3", 400), ("after=x", 400), ("after=s1", 400), ("after=v99999", 410)):
        with Stream(shared, f"/v1/namespaces/n/changes?{query}") as stream:
            assert stream.status == status
            assert stream.response.getheader("Content-Type") == "application/problem+json"


def test_head_of_a_stream_ends_at_once(shared: Served):
    answer = shared.ask("HEAD", FEED, headers={"Accept": "text/event-stream"})
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")


def test_a_cursor_before_the_horizon_is_told_so(shared: Served):
    put(shared, "a", "gone")
    with Stream(shared, "/v1/namespaces/gone/changes?after=") as stream:
        stream.next()
        assert shared.ask("POST", "/v1/namespaces/gone/erase", {"key": "a"}).status == 200
        problem = stream.next("problem")
        assert (problem.data["type"], problem.data["status"]) == ("urn:botwire:problem:cursor-expired", 410)
        assert list(stream.blocks()) == []
    with Stream(shared, "/v1/namespaces/gone/changes?after=v1") as stream:
        assert stream.status == 410


def test_a_reader_that_goes_is_noticed(server: Start):
    served = server()
    streams = [Stream(served, FEED) for _ in range(5)]
    until(lambda: metric(served, "botwire_streams") == 5, "five streams are open")
    for stream in streams:
        stream.close()
    until(lambda: metric(served, "botwire_streams") == 0, "none is open")


# ── nothing missed, nothing repeated ────────────────────────────────────────────────────────────────


def follow(server: Served, path: str, cuts: list[int], done: Callable[[list[Event]], bool]) -> list[Event]:
    """Read a stream that is cut off after so many bytes, again and again, until all is there."""
    seen: list[Event] = []
    place: dict[str, str] = {}
    left = list(cuts)
    while not done(seen):
        with Stream(server, path, **place) as stream:
            assert stream.status == 200
            for event in stream.blocks(left.pop() if left else 1 << 60):
                place = {"Last_Event_ID": stream.last_id}
                if event.kind == "change":
                    seen.append(event)
                if done(seen):
                    break
    return seen


_rounds = iter(range(1_000_000))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 2_000), max_size=30),
    writes=st.lists(st.sampled_from(["a", "b", "b/c", "elsewhere"]), min_size=1, max_size=60),
    subtree=st.booleans(),
)
def test_a_stream_cut_off_anywhere_misses_nothing_and_repeats_nothing(
    shared: Served, cuts: list[int], writes: list[str], subtree: bool
):
    root = f"cut{next(_rounds)}"
    scope = root if subtree else root + "%2Fb"
    wanted = [str(number) for number, place in enumerate(writes) if subtree or place == "b"]
    path = f"/v1/namespaces/{scope}/changes?after=&subtree={str(subtree).lower()}"
    if subtree:  # from the beginning of the store's feed would be from before this round
        with Stream(shared, f"/v1/namespaces/{scope}/changes?subtree=true") as stream:
            next(stream.blocks_one_by_one())
            path = path.replace("after=", "after=" + stream.last_id)

    def write() -> None:
        for number, place in enumerate(writes):
            put(shared, str(number), f"{root}%2F{place.replace('/', '%2F')}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = follow(shared, path, cuts, lambda seen: len(seen) >= len(wanted) and not writer.is_alive())
    finally:
        writer.join()
    assert [event.data["key"] for event in seen] == wanted
    assert len({event.id for event in seen}) == len(seen)


# ── keys and limits ─────────────────────────────────────────────────────────────────────────────────


class Keys:
    """Keys in the store of a server, made and revoked from outside it."""

    def __init__(self, folder: Path) -> None:
        self.store = SQLiteStore(str(folder / "memory.db"))

    def make(self, **about: Any) -> tuple[str, dict[str, str]]:
        key_id, key, secret = keys.new_key("test", **{"access": "read", **about})
        self.store.execute([Put(keys.NAMESPACE, key_id, Raw(msgspec.json.encode(key)))])
        return key_id, {"Authorization": f"Bearer {secret}"}

    def revoke(self, key_id: str) -> None:
        self.store.execute([Delete(keys.NAMESPACE, key_id)])


@pytest.fixture
def store_keys(tmp_path: Path) -> Iterator[Keys]:
    made = Keys(tmp_path)
    yield made
    made.store.close()


def test_revoking_a_key_ends_its_streams_and_no_others(server: Start, store_keys: Keys):
    first, first_key = store_keys.make()
    _, second_key = store_keys.make()
    served = server("--keys", "required")
    with Stream(served, FEED, **first_key) as ended, Stream(served, FEED, **second_key) as goes_on:
        assert (ended.status, goes_on.status) == (200, 200)
        next(ended.blocks_one_by_one())
        store_keys.revoke(first)
        problem = ended.next("problem")
        assert (problem.data["type"], problem.data["status"]) == ("urn:botwire:problem:not-authenticated", 401)
        assert list(ended.blocks()) == []
        store_keys.store.execute([Put("n", "k", Raw(b"1"))])
        assert goes_on.next().data["key"] == "k"
    with Stream(served, FEED, **first_key) as again:
        assert again.status == 401


def test_a_key_that_expires_ends_its_streams(server: Start, store_keys: Keys):
    _, key = store_keys.make(expires=keys.now() + 3_000_000)
    served = server("--keys", "required")
    with Stream(served, FEED, **key) as stream:
        assert stream.next("problem").data["status"] == 401


def test_a_key_streams_what_it_reaches_and_nothing_else(server: Start, store_keys: Keys):
    _, key = store_keys.make(scope="n")
    served = server("--keys", "required")
    for path, status in (("/v1/changes", 403), ("/v1/namespaces/nn/changes", 403), (FEED, 200)):
        with Stream(served, path, **key) as stream:
            assert stream.status == status


def test_a_key_has_so_many_streams_and_no_more(server: Start, store_keys: Keys):
    _, key = store_keys.make()
    served = server("--keys", "required", "--max-streams", "2")
    with Stream(served, FEED, **key) as first, Stream(served, FEED, **key):
        next(first.blocks_one_by_one())
        with Stream(served, FEED, **key) as third:
            assert third.status == 429
            assert int(third.response.getheader("Retry-After") or 0) > 0
        first.close()

        def opened() -> bool:
            with Stream(served, FEED, **key) as fourth:
                return fourth.status == 200

        until(opened, "a stream that ended has made room")


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_stops_ends_its_streams_cleanly(server: Start):
    served = server("--shutdown-timeout", "60")
    streams = [Stream(served, FEED) for _ in range(3)]
    for stream in streams:
        next(stream.blocks_one_by_one())
    served.tell(signal.SIGTERM)
    for stream in streams:
        assert [event.kind for event in stream.blocks() if event.kind] == []  # no IncompleteRead: it was ended properly
        stream.close()
    assert served.wait() == 0
    assert "error" not in served.log


def test_streams_go_on_where_they_were_on_the_next_server(server: Start):
    first = server()
    put(first, "a")
    with Stream(first, FEED + "?after=") as stream:
        stream.next()
        first.kill()
        place = stream.last_id
    second = server()
    put(second, "b")
    with Stream(second, FEED, Last_Event_ID=place) as stream:
        assert stream.next().data["key"] == "b"


# ── slow readers, and many ──────────────────────────────────────────────────────────────────────────


def test_a_reader_that_does_not_read_costs_the_server_no_memory(server: Start, tmp_path: Path):
    store = SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed")
    for start in range(0, 60_000, 5_000):
        store.execute([Put("n", f"key {number}", Raw(b"1")) for number in range(start, start + 5_000)])
    served = server()
    with Stream(served, FEED + "?after=") as warm:
        for _ in range(1_000):
            warm.next()
    before = memory_of(served.pid)
    with ExitStack() as opened:
        lazy = [opened.enter_context(Stream(served, FEED + "?after=")) for _ in range(10)]
        until(lambda: metric(served, "botwire_streams") == 10, "all are open")
        put(served, "more")
        assert memory_of(served.pid) - before < 30_000_000  # all that they have not read is 100 MB
        assert sum(1 for event in lazy[0].blocks_until("v60001") if event.kind == "change") == 60_001
    store.close()


async def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "PATIENCE", 0.05)
    never = asyncio.Event()

    class Endless(streaming.Streamed):
        async def pieces(self) -> Any:
            while True:
                yield b"x"

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never.wait()

    async def receive() -> Any:
        await never.wait()

    with pytest.raises(ClientDisconnect):
        await Endless({})({"type": "http"}, receive, send)


def test_many_idle_streams_cost_little(server: Start, rounds: Callable[[int, int], int]):
    count = rounds(200, 1_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_000)), hard))
    served = server("--log-level", "error")
    put(served, "k")
    with Stream(served, FEED) as warm:
        next(warm.blocks_one_by_one())
    before = memory_of(served.pid)
    streams = [Stream(served, FEED) for _ in range(count)]
    until(lambda: metric(served, "botwire_streams") == count, "all are open")
    assert memory_of(served.pid) - before < count * 50_000
    threads = len(list(Path(f"/proc/{served.pid}/task").iterdir()))
    assert threads < 30
    put(served, "k")
    for stream in streams:
        assert stream.next().data["key"] == "k"
        stream.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
