"""Which store a server serves, and having it open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from botwire.errors import BotWireError, InvalidInput
from botwire.ops import Changes
from botwire.stores import opening
from botwire.stores.base import AsyncStore
from botwire.stores.opening import Address, Asked

from .settings import Settings


class Place(NamedTuple):
    """Where the data lies, and what there is to say about it."""

    address: Address
    file: Path | None
    note: str = ""


def what_to_serve(settings: Settings, environ: Mapping[str, str]) -> Place:
    """The store that is meant: `store`, else `BOTWIRE_URL` if it names a file, else the default file."""
    url, note = settings.store, ""
    if url is None:
        url = environ.get("BOTWIRE_URL")
        if url is not None and url.startswith(("http://", "https://")):
            url, note = None, "BOTWIRE_URL names a server, which programs use, and is not what is served"
    elif url.startswith(("http://", "https://")):
        raise InvalidInput(f"store={url!r} is a server itself: give the store that it serves, or serve a file of yours")
    address = opening.address(Asked(url, settings.durability))
    if address.kind != "sqlite":
        raise InvalidInput(f"store={url!r} cannot be served")
    file = None if address.place == ":memory:" else Path(address.place)
    if url is None and file is not None:
        _make_folder(file.parent)
    return Place(address, file, note)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BotWireError(
            f"{folder} cannot be made ({error.strerror}): say where to keep data, with --store"
        ) from error


@contextlib.asynccontextmanager
async def opened(address: Address) -> AsyncGenerator[AsyncStore]:
    """The store, open."""
    url = "sqlite://" if address.place == ":memory:" else "sqlite:///" + quote(address.place)
    user = object()
    shared = opening.acquire(Asked(url, address.durability), user)
    store: AsyncStore = shared.async_store
    try:
        await store.execute([Changes("", None, True)])  # opens it: now is the time to say that it cannot be
        yield store
    finally:
        if opening.release(shared, user):
            await store.close()
