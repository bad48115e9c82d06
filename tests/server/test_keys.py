"""API keys: made once, kept as hashes, followed by every server of the store; and the command that makes them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import botwire
from botwire import InvalidInput, Memory
from botwire.errors import NotAuthenticated, StoreUnavailable
from botwire.ops import Delete, Erase, Op, Put
from botwire.stores.base import AsyncStore
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings
from botwire_server.guard import LOCAL
from botwire_server.keys import NAMESPACE, Key, Keyring, is_local, new_key, now, redacted, startup_check

HERE = "127.0.0.1"
SECOND = 1_000_000
MOMENT = 30.0  # seconds after which what should have come in a moment is given up
CODE = str(Path(botwire.__file__).parents[1])


async def store_key(store: AsyncStore, key_id: str, key: Key) -> None:
    await store.execute([Put(NAMESPACE, key_id, msgspec.Raw(msgspec.json.encode(key)))])


async def revoke(store: AsyncStore, key_id: str) -> None:
    await store.execute([Delete(NAMESPACE, key_id, history=False)])


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes in a moment."""
    async with asyncio.timeout(MOMENT):
        while not holds():  # noqa: ASYNC110  # what is waited for knows nothing of events
            await asyncio.sleep(0.01)


class Clock:
    def __init__(self) -> None:
        self.now = now()

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[AsyncStore]:
    made = AsyncSQLiteStore(SQLiteStore(str(path), durability="relaxed"))
    yield made
    await made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keyring(store: AsyncStore, clock: Clock) -> AsyncIterator[Keyring]:
    made = Keyring(store, Settings(), clock)
    await made.start()
    yield made
    await made.stop()


def refused(keyring: Keyring, credentials: str | None, address: str = HERE) -> str:
    with pytest.raises(NotAuthenticated) as error:
        keyring.principal(credentials, address)
    return str(error.value)


# ── what a key is ──


def test_a_key_is_random_and_what_is_stored_does_not_tell_it():
    key_id, key, text = new_key("laptop", "write", "acme")
    assert re.fullmatch("bw_[0-9a-f]{12}_[0-9a-f]{64}", text)  # 64 digits are 256 bits
    assert text.startswith(f"bw_{key_id}_")
    assert text.split("_")[2] not in msgspec.json.encode(key).decode()
    assert new_key("laptop", "write")[2] != new_key("laptop", "write")[2]


@pytest.mark.parametrize("scope", [".botwire/keys", ".botwire", "a//b", "/a", "a/"])
def test_no_key_is_made_for_what_is_botwires_own_or_no_namespace(scope):
    with pytest.raises(InvalidInput):
        new_key("x", "admin", scope)


async def test_a_right_key_is_its_principal(keyring, store):
    key_id, key, text = new_key("laptop", "write", "acme")
    await store_key(store, key_id, key)
    await keyring.load()
    found = keyring.principal(f"Bearer {text}", "203.0.113.9")
    assert (found.id, found.name, found.access, found.scope) == (key_id, "laptop", "write", "acme")
    assert keyring.principal(f"bearer {text}", HERE) == found


async def test_every_wrong_key_is_told_the_same(keyring, store):
    key_id, key, text = new_key("laptop", "write")
    gone_id, gone, gone_text = new_key("old", "admin", expires=now() - SECOND)
    await store_key(store, key_id, key)
    await store_key(store, gone_id, gone)
    await keyring.load()
    other = new_key("x", "read")[2]
    wrong = [
        f"Bearer {other}",
        f"Bearer {gone_text}",
        f"Bearer {text[:-1]}",
        f"Bearer {text}0",
        f"Bearer {text.upper()}",
        f"Bearer {text} ",
        f"Bearer  {text}",
        f"Bearer {text}, {text}",
        f"Bearer xx{text[2:]}",
        f"Bearer bw_{key_id}_{key.sha256}",
        f"Bearer bw_{key_id}_",
        f"Bearer {key_id}",
        "Bearer bw__",
        "Bearer ___",
        "Bearer \xff",
        "Bearer ",
    ]
    assert {refused(keyring, each) for each in wrong} == {"this API key is unknown, expired or revoked"}


async def test_nothing_but_a_bearer_key_is_a_key(keyring, store):
    key_id, key, text = new_key("laptop", "admin")
    await store_key(store, key_id, key)
    await keyring.load()
    for credentials in (None, "", text, f"Basic {text}", f"Token {text}", f"Bearer{text}"):
        assert "wants an API key" in refused(keyring, credentials)


def test_secrets_are_taken_out_of_text():
    key_id, _, text = new_key("x", "read")
    assert redacted(f"GET /v1?key={text} 200 {text}") == f"GET /v1?key=bw_{key_id}_… 200 bw_{key_id}_…"
    assert redacted(text[:40]) == f"bw_{key_id}_…"
    assert redacted("nothing of that kind") == "nothing of that kind"


# ── records that are no keys ──


@pytest.mark.parametrize(
    "change",
    [
        {"scope": ".botwire"},
        {"scope": "a//b"},
        {"access": "root"},
        {"sha256": "00"},
        {"sha256": None},
        {"only_from": "10.0.0.1"},
        {"expires": "tomorrow"},
        {"name": ""},
    ],
)
async def test_a_record_that_cannot_be_read_opens_nothing_and_is_logged(keyring, store, caplog, change):
    key_id, key, text = new_key("laptop", "admin")
    record = json.loads(msgspec.json.encode(key)) | change
    await store.execute([Put(NAMESPACE, key_id, msgspec.Raw(json.dumps(record).encode()))])
    await keyring.load()
    refused(keyring, f"Bearer {text}")
    assert key_id in caplog.text
    assert key.sha256 not in caplog.text
    assert keyring.required


@pytest.mark.parametrize("name", ["local", "0123456789AB", "k", "0123456789ab0"])
async def test_an_item_whose_name_is_no_id_opens_nothing(keyring, store, caplog, name):
    _, key, text = new_key("x", "admin")
    await store_key(store, name, key)
    await keyring.load()
    refused(keyring, f"Bearer bw_{name}_{text.split('_')[2]}")
    assert "no API key" in caplog.text


# ── when a key is wanted ──


async def test_without_keys_this_machine_is_let_in_and_nobody_else(keyring):
    for address in (HERE, "::1", "127.0.0.53", "::ffff:127.0.0.1"):
        assert keyring.principal(None, address) is LOCAL
    for address in ("203.0.113.9", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", "testclient", "0.0.0.0"):
        assert "its own machine alone" in refused(keyring, None, address)


async def test_once_a_key_was_made_it_is_wanted_even_when_the_last_one_is_revoked(keyring, store):
    assert not keyring.required
    key_id, key, _ = new_key("x", "read")
    await store_key(store, key_id, key)
    await keyring.load()
    assert keyring.required
    await revoke(store, key_id)
    await keyring.load()
    assert (keyring.required, keyring.usable) == (True, 0)
    refused(keyring, None)


async def test_an_unknown_key_is_refused_where_none_is_wanted(keyring):
    assert "unknown" in refused(keyring, f"Bearer {new_key('x', 'read')[2]}")
    assert keyring.principal("Basic dXNlcjpwYXNz", HERE) is LOCAL  # a proxy's own affair


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (Settings(), False),
        (Settings(keys="required"), True),
        (Settings(keys="off"), False),
        (Settings(host="0.0.0.0"), True),
        (Settings(host="memory.example.com"), True),
        (Settings(host="::1"), False),
        (Settings(host="localhost"), False),
        (Settings(trusted_proxies=("127.0.0.1",)), True),
    ],
)
async def test_whether_a_key_is_wanted_goes_by_where_the_server_listens(store, settings, wanted):
    assert Keyring(store, settings).required is wanted


async def test_keys_off_lets_this_machine_in_whatever_is_stored(store):
    key_id, key, text = new_key("x", "read")
    await store_key(store, key_id, key)
    keyring = Keyring(store, Settings(keys="off"))
    await keyring.load()
    assert keyring.principal(None, HERE) is LOCAL
    assert keyring.principal(f"Bearer {text}", HERE) is LOCAL
    refused(keyring, None, "203.0.113.9")


@pytest.mark.parametrize("settings", [Settings(host="0.0.0.0"), Settings(trusted_proxies=("10.0.0.0/8",))])
async def test_a_server_that_others_reach_does_not_start_without_a_valid_key(store, settings):
    keyring = Keyring(store, settings)
    with pytest.raises(InvalidInput, match="botwire keys create"):
        await keyring.start()
    key_id, key, _ = new_key("old", "admin", expires=now() - SECOND)
    await store_key(store, key_id, key)
    with pytest.raises(InvalidInput, match="no valid API key"):
        await keyring.start()
    key_id, key, _ = new_key("good", "read")
    await store_key(store, key_id, key)
    await keyring.start()
    await keyring.stop()


async def test_keys_off_behind_a_proxy_does_not_start(store):
    settings = Settings(keys="off", trusted_proxies=("127.0.0.1",))
    with pytest.raises(InvalidInput, match="keys='off' is for loopback alone"):
        startup_check(settings, Keyring(store, settings))


def test_addresses_of_this_machine():
    assert all(map(is_local, ("127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1", "::FFFF:127.0.0.1")))
    assert not any(map(is_local, ("0.0.0.0", "10.0.0.1", "::", "example.com", "", "127.0.0.1.example.com", "127.1")))


# ── following the store ──


async def test_what_another_process_does_holds_within_a_moment(keyring, path):
    made = botwire_command("keys", "create", "--name", "ci", "--scope", "acme", url=f"sqlite:///{path}")
    text = made.stdout.strip()
    key_id = text.split("_")[1]
    await until(lambda: keyring.usable == 1)
    assert keyring.principal(f"Bearer {text}", HERE).scope == "acme"
    botwire_command("keys", "revoke", key_id, url=f"sqlite:///{path}")
    await until(lambda: keyring.usable == 0)
    refused(keyring, f"Bearer {text}")


async def test_keys_that_were_erased_are_forgotten(keyring, store):
    key_id, key, _ = new_key("x", "read")
    await store_key(store, key_id, key)
    await until(lambda: keyring.usable == 1)
    await store.execute([Erase(NAMESPACE)])
    await until(lambda: keyring.usable == 0)
    assert not keyring.required  # as if none had ever been made


async def test_more_keys_than_fit_on_a_page_are_read(keyring, store):
    made = [new_key(f"key {n}", "read", "acme") for n in range(1_100)]
    ops = [Put(NAMESPACE, key_id, msgspec.Raw(msgspec.json.encode(key))) for key_id, key, _ in made]
    await store.execute(ops)
    await keyring.load()
    assert keyring.usable == 1_100
    assert all(keyring.principal(f"Bearer {text}", HERE).id == key_id for key_id, _, text in made[::50])


class Troubled:
    """A store whose disk can be taken away."""

    def __init__(self, inner: AsyncStore) -> None:
        self.inner = inner
        self.is_down = False
        self.asked = 0

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        if self.is_down:
            self.asked += 1
            raise StoreUnavailable("the disk is gone")
        return await self.inner.execute(ops, request_id=request_id)

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        if self.is_down:
            self.asked += 1
            raise StoreUnavailable("the disk is gone")
        return await self.inner.wait(namespace, cursor, min(timeout, 0.05), subtree=subtree)

    async def close(self) -> None:
        await self.inner.close()


async def test_trouble_with_the_store_is_logged_and_revocations_are_heard_of_afterwards(store, caplog):
    troubled = Troubled(store)
    keyring = Keyring(troubled, Settings())
    key_id, key, text = new_key("x", "read")
    await store_key(store, key_id, key)
    await keyring.start()
    troubled.is_down = True
    await revoke(store, key_id)
    await until(lambda: troubled.asked >= 2)
    assert "revoked ones stay valid" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * len(caplog.records)
    assert keyring.principal(f"Bearer {text}", HERE).id == key_id
    troubled.is_down = False
    await until(lambda: keyring.usable == 0)
    assert "can be read again" in caplog.text
    await keyring.stop()


# ── those who stream ──


@pytest.fixture
async def streamer(keyring, store):
    """A key, and whether its stream was ended."""
    key_id, key, text = new_key("x", "read", "acme")
    await store_key(store, key_id, key)
    await keyring.load()
    principal = keyring.principal(f"Bearer {text}", HERE)
    ended: list[int] = []
    with keyring.watched(principal, lambda: ended.append(1)):
        yield key_id, key, ended


async def test_revoking_a_key_ends_its_streams(streamer, keyring, store):
    key_id, _, ended = streamer
    await asyncio.sleep(0.1)
    assert not ended
    await revoke(store, key_id)
    await until(lambda: bool(ended))
    await keyring.load()
    assert ended == [1]


async def test_other_keys_streams_go_on(streamer, keyring, store):
    _, _, ended = streamer
    key_id, key, _ = new_key("y", "read")
    await store_key(store, key_id, key)
    await until(lambda: keyring.usable == 2)
    await revoke(store, key_id)
    await until(lambda: keyring.usable == 1)
    assert not ended


@pytest.mark.parametrize("change", [{"scope": "acme/eu"}, {"access": "write"}, {"name": "z"}])
async def test_changing_a_key_ends_its_streams(streamer, store, change):
    key_id, key, ended = streamer
    await store_key(store, key_id, msgspec.structs.replace(key, **change))
    await until(lambda: bool(ended))


async def test_expiry_ends_a_stream_without_anybody_writing(store):
    keyring = Keyring(store, Settings())
    key_id, key, text = new_key("x", "read", expires=now() + SECOND // 5)
    await store_key(store, key_id, key)
    await keyring.load()
    principal = keyring.principal(f"Bearer {text}", HERE)
    ended = asyncio.Event()
    with keyring.watched(principal, ended.set):
        assert keyring.still_valid(principal)
        await asyncio.wait_for(ended.wait(), MOMENT)
        assert not keyring.still_valid(principal)
    refused(keyring, f"Bearer {text}")


async def test_a_stream_of_a_key_that_is_revoked_already_ends_at_once(keyring, store):
    key_id, key, text = new_key("x", "read")
    await store_key(store, key_id, key)
    await keyring.load()
    principal = keyring.principal(f"Bearer {text}", HERE)
    await revoke(store, key_id)
    await keyring.load()
    ended: list[int] = []
    with keyring.watched(principal, lambda: ended.append(1)):
        assert ended == [1]
    assert not keyring.still_valid(principal)


async def test_the_first_key_ends_the_streams_of_those_who_had_none(keyring, store):
    ended: list[int] = []
    with keyring.watched(LOCAL, lambda: ended.append(1)):
        assert keyring.still_valid(LOCAL)
        key_id, key, _ = new_key("x", "read")
        await store_key(store, key_id, key)
        await until(lambda: bool(ended))
    assert not keyring.still_valid(LOCAL)


async def test_what_has_ended_is_forgotten(keyring, store):
    key_id, key, text = new_key("x", "read", expires=now() + 3_600 * SECOND)
    await store_key(store, key_id, key)
    await keyring.load()
    principal = keyring.principal(f"Bearer {text}", HERE)
    for _ in range(3):
        with keyring.watched(principal, lambda: None), keyring.watched(principal, lambda: None):
            pass
    assert keyring._watchers == {}


# ── the command ──


def botwire_command(*arguments: str, url: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": CODE, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-m", "botwire.cli", "--url", url, *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def command(path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return botwire_command("keys", *arguments, url=f"sqlite:///{path}", code=code)

    return run


def test_the_command_prints_a_key_once_and_alone(command, path):
    done = command("create", "--name", "laptop", "--scope", "acme", "--access", "read", "--expires", "90d")
    assert re.fullmatch("bw_[0-9a-f]{12}_[0-9a-f]{64}\n", done.stdout)
    assert "acme" in done.stderr
    secret = done.stdout.strip().split("_")[2]
    assert secret not in done.stderr
    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()
    assert secret not in command("list").stdout + command("list", "--json").stdout


def test_the_list_tells_all_but_secrets(command):
    text = command("create", "--name", "läptop", "--access", "admin").stdout
    command("create", "--name", "ci", "--scope", "acme/eu", "--expires", "2199-01-31T12:00:00Z")
    listed = [json.loads(line) for line in command("list", "--json").stdout.splitlines()]
    assert sorted((each["name"], each["access"], each["scope"], each["valid"]) for each in listed) == [
        ("ci", "write", "acme/eu", True),
        ("läptop", "admin", "", True),
    ]
    assert {each["expires"] for each in listed} == {None, "2199-01-31T12:00:00Z"}
    shown = command("list").stdout
    assert "läptop" in shown
    assert "(whole store)" in shown
    assert text.split("_")[1] in shown
    assert not re.search("[0-9a-f]{64}", shown)


def test_a_revoked_key_leaves_no_trace_of_its_hash(command, path):
    text = command("create", "--name", "x").stdout.strip()
    key_id = text.split("_")[1]
    command("revoke", key_id)
    assert command("list").stdout == ""
    memory = Memory(NAMESPACE, f"sqlite:///{path}")
    assert [revision.deleted for revision in memory.history(key_id)] in ([], [True])
    memory.close()


def test_revoke_takes_a_whole_key_too_and_several_at_once(command):
    one, two = (command("create", "--name", name).stdout.strip() for name in "ab")
    done = command("revoke", one, two.split("_")[1])
    assert one.split("_")[2] not in done.stderr
    assert command("list").stdout == ""


def test_revoke_is_all_or_nothing(command):
    key_id = command("create", "--name", "x").stdout.split("_")[1]
    assert "nothing was revoked" in command("revoke", key_id, "000000000000", code=1).stderr
    assert key_id in command("list").stdout
    command("revoke", "not-an-id", code=2)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--name", ""],
        ["--name", "x\ny"],
        [],
        ["--name", "x", "--scope", ".botwire/keys"],
        ["--name", "x", "--scope", "a//b"],
        ["--name", "x", "--access", "root"],
        ["--name", "x", "--expires", "soon"],
        ["--name", "x", "--expires", "2020-01-01T00:00:00Z"],
        ["--name", "x", "--expires", "2199-01-01T00:00:00"],
        ["--name", "x", "--expires", "90"],
    ],
)
def test_wrong_arguments_make_no_key(command, path, wrong):
    command("create", *wrong, code=2)
    assert not path.exists()


def test_listing_makes_no_store(command, path):
    assert "there is no store" in command("list", code=3).stderr
    assert not path.exists()


def test_the_command_takes_no_namespace(path):
    done = botwire_command("-n", "acme", "keys", "list", url=f"sqlite:///{path}", code=2)
    assert "--scope" in done.stderr
