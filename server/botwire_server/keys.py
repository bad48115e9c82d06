"""API keys: random, shown once, stored hashed.

A key reads `bw_<id>_<secret>`: the id is public, the secret has 256 random bits. The store holds the SHA-256 of the
secret in an item of the hidden namespace `.botwire/keys`. A slow hash, as for passwords, would add nothing: what has
256 random bits cannot be guessed, however fast one guesses.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from botwire.errors import BotWireError, CursorExpired, InvalidInput, NotAuthenticated
from botwire.names import check_name, check_namespace, is_hidden
from botwire.ops import MICROSECONDS, Access, Changes, Describe, Item, Scan
from botwire.stores.base import AsyncStore

from .guard import LOCAL, Principal
from .settings import Settings, is_loopback

log = logging.getLogger("botwire.server.keys")

NAMESPACE: Final = ".botwire/keys"
PATIENCE: Final = 30.0  # seconds that one wait for changes lasts: after it the keys are read again in any case
RETRY: Final = (0.5, 1.0, 2.0, 5.0)  # seconds between two tries when the store is in trouble; the last one repeats
PAGE: Final = 1_000

_ID: Final = re.compile("[0-9a-f]{12}").fullmatch
_SHA256: Final = re.compile("[0-9a-f]{64}").fullmatch
_NO_DIGEST: Final = bytes(32)  # what unknown ids are compared with, so that they cost the same
_SECRETS: Final = re.compile("(bw_[0-9a-f]{12}_)[0-9a-f]+")

_WANTED = "this server wants an API key: send it as `Authorization: Bearer bw_…` (Memory takes api_key=…)"
_REFUSED = "this API key is unknown, expired or revoked"


# ── a key as it is stored ───────────────────────────────────────────────────────────────────────────


class Key(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the store holds of a key. A field that this version does not know makes the key invalid, never wider."""

    name: str
    access: Access
    scope: str
    sha256: str
    created: int
    expires: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        check_namespace(self.scope, root=True)
        if is_hidden(self.scope):
            raise InvalidInput(f"scope {self.scope!r} is botwire's own: no key is made for it")
        if not _SHA256(self.sha256):
            raise InvalidInput("sha256 must be 64 hexadecimal digits")


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def new_key(name: str, access: Access, scope: str = "", expires: int | None = None) -> tuple[str, Key, str]:
    """A new key: its id, what is stored, and the key itself, which is shown once and kept nowhere."""
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    return key_id, Key(name, access, scope, _digest(secret).hex(), now(), expires), f"bw_{key_id}_{secret}"


def redacted(text: str) -> str:
    """The text without the secrets of keys: for logs."""
    return _SECRETS.sub(r"\1…", text) if "bw_" in text else text


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


# ── where a server listens ──────────────────────────────────────────────────────────────────────────


def is_local(address: str) -> bool:
    """Whether an address, or `localhost`, is this machine's own.

    >>> is_local("127.0.0.1"), is_local("::ffff:127.0.0.1"), is_local("10.0.0.1")
    (True, True, False)
    """
    if address in ("127.0.0.1", "::1"):
        return True
    return is_loopback(address.lower().removeprefix("::ffff:"))  # IPv4 as a socket for both shows it


def is_exposed(settings: Settings) -> bool:
    """Whether others than this machine reach the server: it listens beyond loopback, or a proxy stands before it."""
    return not is_loopback(settings.host) or bool(settings.trusted_proxies)


def startup_check(settings: Settings, keyring: Keyring) -> None:
    """Raise `InvalidInput` if a server with these settings would be open to whom it should not be."""
    if is_exposed(settings):
        where = f"host={settings.host!r}" if not is_loopback(settings.host) else "trusted_proxies"
        if settings.keys == "off":
            raise InvalidInput(f"keys='off' is for loopback alone, and {where} lets others in: leave out keys='off'")
        if not keyring.usable:
            raise InvalidInput(
                f"{where} lets others than this machine in, and there is no valid API key: make one first with "
                "`botwire keys create --name NAME` (with the same --url), or listen on 127.0.0.1"
            )


# ── the keys of a store ─────────────────────────────────────────────────────────────────────────────


class _Held(NamedTuple):
    principal: Principal
    digest: bytes
    expires: int | None


class _Watcher:
    """Somebody who is to be told when a key is valid no longer."""

    __slots__ = ("end", "principal", "timer")

    def __init__(self, principal: Principal, end: Callable[[], object]) -> None:
        self.principal = principal
        self.end = end
        self.timer: asyncio.TimerHandle | None = None


class Keyring:
    """The keys of a store, held in memory and kept up to date: it follows the feed of `.botwire/keys`."""

    def __init__(self, store: AsyncStore, settings: Settings, clock: Callable[[], int] = now) -> None:
        self.store = store
        self.settings = settings
        self._clock = clock
        self._off = settings.keys == "off"
        self._always = settings.keys == "required" or is_exposed(settings)
        self._held: dict[str, _Held] = {}
        self._made = False  # whether a key was ever made here
        self._cursor = ""
        self._watchers: dict[str, set[_Watcher]] = {}
        self._following: asyncio.Task[None] | None = None
        self._complained: dict[str, str] = {}

    # ── keeping up to date ──

    async def start(self) -> None:
        """Read the keys, refuse to go on if the server would be too open, and follow their changes."""
        await self.load()
        startup_check(self.settings, self)
        self._following = asyncio.create_task(self._follow(), name="botwire keys")

    async def stop(self) -> None:
        """Follow them no longer."""
        following, self._following = self._following, None
        while following is not None and not following.done():
            following.cancel()
            # Once more if it was not heard: Python 3.11's wait_for forgets a cancellation that comes with its result.
            await asyncio.wait({following}, timeout=0.1)

    async def load(self) -> None:
        """Read all keys, as they are now."""
        page, about, found = await self.store.execute(
            [Changes(NAMESPACE), Describe(NAMESPACE), Scan(NAMESPACE, limit=PAGE)]
        )
        items: list[Item] = found.items
        while found.cursor is not None:
            [found] = await self.store.execute([Scan(NAMESPACE, limit=PAGE, cursor=found.cursor)])
            items += found.items
        held = {item.key: entry for item in items if (entry := self._read(item)) is not None}
        self._held, self._made, self._cursor = held, about.version > 0, page.cursor
        self._end_invalid()

    def _read(self, item: Item) -> _Held | None:
        """A key from its item. One that cannot be read opens nothing."""
        try:
            if not _ID(item.key):
                raise InvalidInput("its id is not 12 hexadecimal digits")  # noqa: TRY301  # handled like the others
            key = msgspec.json.decode(item.raw, type=Key)
        except (msgspec.MsgspecError, InvalidInput) as error:
            if self._complained.get(item.key) != str(error):
                self._complained[item.key] = str(error)
                log.error(  # noqa: TRY400  # the trace says nothing more
                    "%r in %s is no API key, and is left out: %s", item.key, NAMESPACE, redacted(str(error))
                )
            return None
        principal = Principal(item.key, key.name, key.access, key.scope)
        return _Held(principal, bytes.fromhex(key.sha256), key.expires)

    async def _follow(self) -> None:
        """Read the keys again whenever they change. In trouble it goes on trying, and says so every time."""
        failures = 0
        while True:
            try:
                with suppress(CursorExpired):  # the keys were erased or restored: read them afresh
                    await self.store.wait(NAMESPACE, self._cursor, PATIENCE)
                await self.load()
            except Exception as error:  # noqa: BLE001  # whatever it was, the next revocation must be heard of
                delay = RETRY[min(failures, len(RETRY) - 1)]
                failures += 1
                detail = redacted(str(error)) if isinstance(error, BotWireError) else type(error).__name__
                log.error(  # noqa: TRY400  # the trace of a store in trouble says nothing more
                    "API keys cannot be read, revoked ones stay valid until they can (next try in %g s): %s",
                    delay,
                    detail,
                )
                await asyncio.sleep(delay)
            else:
                if failures:
                    log.warning("API keys can be read again")
                failures = 0

    # ── who asks ──

    @property
    def required(self) -> bool:
        """Whether nobody gets in without a key: once one was made, that stays so when the last one is revoked."""
        return not self._off and (self._made or self._always)

    @property
    def usable(self) -> int:
        """How many keys are valid."""
        return sum(self._is_live(held) for held in self._held.values())

    def principal(self, credentials: str | None, address: str) -> Principal:
        """Whose key this is: `credentials` is the value of the header `Authorization`. Raises `NotAuthenticated`.

        Without keys it is `LOCAL`, for callers at an address of this machine.
        """
        if credentials is None or self._off or credentials[:7].lower() != "bearer ":
            return self._local(address)
        parts = credentials[7:].split("_")
        prefix, key_id, secret = parts if len(parts) == 3 else ("", "", "")
        held = self._held.get(key_id)
        same = hmac.compare_digest(_digest(secret), _NO_DIGEST if held is None else held.digest)
        if held is None or not same or prefix != "bw" or not self._is_live(held):
            raise NotAuthenticated(_REFUSED)
        return held.principal

    def _local(self, address: str) -> Principal:
        if self.required:
            raise NotAuthenticated(_WANTED)
        if not is_local(address):
            raise NotAuthenticated(
                "without API keys this server answers programs of its own machine alone: make a key with "
                "`botwire keys create --name NAME`"
            )
        return LOCAL

    def _is_live(self, held: _Held) -> bool:
        return held.expires is None or self._clock() < held.expires

    def still_valid(self, principal: Principal) -> bool:
        """Whether the key still allows what it did."""
        if principal == LOCAL:
            return not self.required
        held = self._held.get(principal.id)
        return held is not None and held.principal == principal and self._is_live(held)

    # ── telling those who stream ──

    @contextmanager
    def watched(self, principal: Principal, end: Callable[[], object]) -> Generator[None]:
        """Have `end()` called, once, on the event loop, when the key is revoked, changed or expires meanwhile.

        >>> with keyring.watched(principal, task.cancel):  # doctest: +SKIP
        ...     await send_changes()
        """
        watcher = _Watcher(principal, end)
        self._watchers.setdefault(principal.id, set()).add(watcher)
        self._check(watcher)
        try:
            yield
        finally:
            self._forget(watcher)

    def _check(self, watcher: _Watcher) -> None:
        """End what is valid no longer; look again when the key expires."""
        watcher.timer = None
        if not self.still_valid(watcher.principal):
            self._forget(watcher)
            watcher.end()
            return
        held = self._held.get(watcher.principal.id)
        if held is not None and held.expires is not None:
            left = (held.expires - self._clock()) / MICROSECONDS
            # An hour at most: the machine's clock may be set meanwhile, the loop's goes its own way.
            delay = min(max(left, 0.0) + 0.001, 3_600.0)
            watcher.timer = asyncio.get_running_loop().call_later(delay, self._check, watcher)

    def _forget(self, watcher: _Watcher) -> None:
        if watcher.timer is not None:
            watcher.timer.cancel()
        others = self._watchers.get(watcher.principal.id, set())
        others.discard(watcher)
        if not others:
            self._watchers.pop(watcher.principal.id, None)

    def _end_invalid(self) -> None:
        for watchers in list(self._watchers.values()):
            for watcher in list(watchers):
                if not self.still_valid(watcher.principal):
                    self._forget(watcher)
                    watcher.end()
