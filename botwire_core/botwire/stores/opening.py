"""From a URL to a store; and within a process, one store for all who name the same place.

sqlite:///relative.db    sqlite:////absolute.db    sqlite://   (in memory)    http://host:port    https://…
nothing: BOTWIRE_URL, else a file in the user's data directory
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botwire.errors import InvalidInput, StoreUnavailable
from botwire.settings import check_environment

from .base import AsyncStore, Store

if TYPE_CHECKING:
    from pathlib import Path


class Address(NamedTuple):
    """Where a store lies, and how it was asked for. Equal addresses share a store."""

    kind: str
    place: str
    durability: str = ""
    api_key: str | None = None
    timeout: float | None = None


class Asked(NamedTuple):
    """How a caller spelled it."""

    url: str | None
    durability: str | None = None
    api_key: str | None = None
    timeout: float | None = None


class Shared:
    """A store that several memories of this process use; closed when the last of them closes it."""

    def __init__(self, address: Address, store: Store, make_async: Callable[[], AsyncStore]) -> None:
        self.address = address
        self.store = store
        self._make_async = make_async
        self._async_store: AsyncStore | None = None
        self.users: set[int] = set()

    @property
    def async_store(self) -> AsyncStore:
        """The same store for an event loop."""
        if self._async_store is None:
            self._async_store = self._make_async()
        return self._async_store

    async def aclose(self) -> None:
        """Close it on both sides."""
        import asyncio  # here, so that `import botwire` stays quick

        if self._async_store is not None:
            await self._async_store.close()
        await asyncio.get_running_loop().run_in_executor(None, self.store.close)


_shared: dict[Address, Shared] = {}
_asked: dict[Asked, Shared] = {}  # spares reading the URL again
_lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # no other thread may hold it while the process forks: it would stay held
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def default_path() -> Path:
    """The file that is used when nobody names another."""
    import platformdirs  # only needed once in a process

    return platformdirs.user_data_path("botwire", appauthor=False) / "memory.db"


def address(asked: Asked) -> Address:
    """What a URL means. Raises `InvalidInput` for one that means nothing."""
    url, durability = asked.url, asked.durability
    if durability not in (None, "full", "relaxed"):
        raise InvalidInput(f"durability={durability!r} must be 'full' or 'relaxed'")
    kind, separator, rest = ("sqlite", "://", "") if url is None else url.partition("://")
    if not separator:
        raise InvalidInput(f"{url!r} is no URL: {_meant(str(url))}")
    if kind == "sqlite":
        if asked.api_key is not None:
            raise InvalidInput("an API key is for a server: leave it out, or give its URL, http(s)://…")
        return Address("sqlite", str(default_path()) if url is None else _sqlite_place(url, rest), durability or "full")
    if kind in ("http", "https"):
        assert url is not None  # its kind was read from it
        return _server_address(url, asked)
    raise InvalidInput(
        f"{without_password(str(url))!r}: this botwire keeps memories in 'sqlite:///file.db', 'sqlite://' (in memory) "
        f"or on a server, 'http(s)://…', not in {kind!r}"
    )


def _meant(url: str) -> str:
    """What somebody who wrote this for a URL may have meant."""
    if not url:
        return "leave it out, or unset BOTWIRE_URL"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", url):
        return f"for a server write 'http://{url}'"
    return f"for a file write 'sqlite:///{url}'"


def _server_address(url: str, asked: Asked) -> Address:
    if asked.durability is not None:
        raise InvalidInput(f"{url!r}: how durable writes are is the server's to say; leave out durability")
    from urllib.parse import urlsplit  # here, so that `import botwire` stays quick

    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise InvalidInput(
            f"{without_password(url)!r} must be the address of a server, such as 'http://localhost:8765', and nothing "
            "else; a key goes into api_key= or BOTWIRE_API_KEY"
        )
    key = asked.api_key or os.environ.get("BOTWIRE_API_KEY")
    return Address("http", url.rstrip("/"), "", key, asked.timeout)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:…@", url)


def _sqlite_place(url: str, rest: str) -> str:
    if rest == "":
        return ":memory:"
    if not rest.startswith("/"):
        raise InvalidInput(f"{url!r} has two slashes: write 'sqlite:///{rest}' (relative) or 'sqlite:////…' (absolute)")
    from urllib.parse import unquote  # here, so that `import botwire` stays quick

    path = unquote(rest[1:])
    if "?" in rest or not path or "\x00" in path:
        raise InvalidInput(f"{url!r} must be 'sqlite:///' and the path of a file, nothing else")
    return ":memory:" if path == ":memory:" else os.path.realpath(path)


def check(asked: Asked) -> None:
    """Raise `InvalidInput` if what was asked for means nothing, without opening anything."""
    asked = _with_default(asked)
    if asked not in _asked:
        address(asked)


def _with_default(asked: Asked) -> Asked:
    """Where a URL is left out, that of the environment, if there is one."""
    if asked.url is None and (url := os.environ.get("BOTWIRE_URL")) is not None:
        return asked._replace(url=url)
    return asked


def acquire(asked: Asked, user: object) -> Shared:
    """The store that was asked for, shared within the process; `user` is counted as one of its users."""
    asked = _with_default(asked)
    with _lock:
        shared = _asked.get(asked) or _acquire(asked)
        shared.users.add(id(user))
        return shared


def _is_stable(url: str | None) -> bool:
    """Whether the URL means the same wherever the working directory is."""
    return url is None or url.startswith("sqlite:////") or url == "sqlite://"


def _acquire(asked: Asked) -> Shared:
    check_environment()
    place = address(asked)
    shared = _shared.get(place)
    if shared is None:
        if asked.url is None:
            _make_default_folder(place.place)
        shared = _shared[place] = _open_server(place) if place.kind == "http" else _open_file(place)
    if _is_stable(asked.url):
        _asked[asked] = shared
    return shared


def _make_default_folder(path: str) -> None:
    from pathlib import Path

    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"{folder} cannot be made ({error}): pass url='sqlite:///…', or set BOTWIRE_URL"
        ) from error


def _open_server(place: Address) -> Shared:
    from .http import AsyncHTTPStore, HTTPStore  # brings httpx: only when a server is asked

    options: Any = {"api_key": place.api_key, "timeout": place.timeout}
    return Shared(place, HTTPStore(place.place, **options), lambda: AsyncHTTPStore(place.place, **options))


def _open_file(place: Address) -> Shared:
    from .sqlite import SQLiteStore  # brings apsw: only when a store is opened

    store = SQLiteStore(place.place, durability=cast("Any", place.durability))

    def make_async() -> AsyncStore:
        from .sqlite import AsyncSQLiteStore

        return AsyncSQLiteStore(store)

    return Shared(place, store, make_async)


def release(shared: Shared, user: object) -> bool:
    """Count the user out. Returns whether nobody uses the store any more: then it is the caller's to close."""
    with _lock:
        shared.users.discard(id(user))
        if shared.users or _shared.get(shared.address) is not shared:
            return False
        del _shared[shared.address]
        for asked in [asked for asked, each in _asked.items() if each is shared]:
            del _asked[asked]
        return True
