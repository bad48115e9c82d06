"""What an item was: how its past is packed, kept, and read. Pure functions, shared by every store.

The newest past values travel packed inside the item's row, so that a write touches one place; when they take
more than `PACKED_BYTES`, the older ones move out together, as a page in a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from .errors import HistoryExpired
from .ops import MICROSECONDS, NO_META, UNSEARCHED, Item, Meta, Policy, Revision

PACKED_BYTES = 3_000  # with a usual value and its key, a row still fits into one 4 KiB page of a file
_NULL = Raw(b"null")


PastRevision = tuple[int, int, int | None, bytes | None, bytes | None]
"""A revision as it is kept: `(version, updated, expires, meta, value)`. No value: deleted."""


class Page(Struct, array_like=True, frozen=True):
    """What a row knows of revisions that have moved out: the newest one's version, how many, and their bytes."""

    version: int
    count: int
    size: int


class Past(Struct, array_like=True):
    """A key's past, newest first."""

    revisions: list[PastRevision] = []
    complete: bool = True
    """Whether it reaches back to the key's beginning."""
    pages: list[Page] = []
    """Older revisions, newest page first."""
    since: int = 0
    """The version since which the item is what it is, if a touch has given it a newer one."""


class Pushed(NamedTuple):
    """What a past becomes when its item changes."""

    packed: bytes | None
    moved: tuple[int, bytes] | None
    """A page to be stored, by the version of its newest revision."""
    dropped: list[Page]
    """Pages to be deleted."""


_unpack = msgspec.msgpack.Decoder(Past).decode
_pack = msgspec.msgpack.Encoder().encode
_unpack_page = msgspec.msgpack.Decoder(list[PastRevision]).decode
_meta = msgspec.json.Decoder(Meta).decode
_UNSEARCHED = msgspec.json.encode(UNSEARCHED)


def unpack(packed: bytes | None) -> Past:
    """The past of a row."""
    return _unpack(packed) if packed else Past()


def pack(past: Past) -> bytes | None:
    """The past for a row; `None` when there is nothing to say."""
    return None if past.complete and not (past.revisions or past.pages or past.since) else _pack(past)


def read_meta(text: bytes | None) -> Meta:
    """Meta from its column."""
    return NO_META if text is None else _meta(text)


def write_meta(meta: Meta) -> bytes | None:
    """Meta for its column."""
    if meta is UNSEARCHED:
        return _UNSEARCHED
    return None if meta == NO_META else msgspec.json.encode(meta)


def unpack_pages(pages: Iterable[bytes]) -> list[PastRevision]:
    """The revisions of some pages, newest page first."""
    return [revision for page in pages for revision in _unpack_page(page)]


def push(past: Past, was: PastRevision, now: int, policy: Policy, *, keep: bool) -> Pushed:
    """Put what the item was on top of its past, and let go of what is over the limits."""
    limit = (policy.history or 0) if keep else 0
    if past.since:
        was, past.since = (past.since, *was[1:]), 0
    revisions = past.revisions
    revisions.insert(0, was)
    length = len(revisions)
    kept = min(length, limit)
    oldest_allowed = now - int((policy.max_age or 0) * MICROSECONDS)
    while kept > 1 and revisions[kept - 2][1] < oldest_allowed:  # superseded when the next one came
        kept -= 1
    if cut := kept < length:
        del revisions[kept:]
        past.complete = False
    packed = pack(past)
    if packed is None or (len(packed) <= PACKED_BYTES and not past.pages):
        return Pushed(packed, None, [])
    dropped: list[Page] = []
    if cut:  # pages are older than what was cut
        dropped, past.pages = past.pages, []
    moved = move_out(past) if len(packed) > PACKED_BYTES else None
    dropped += _drop_pages(past, limit)
    return Pushed(pack(past), moved, dropped)


def _drop_pages(past: Past, limit: int) -> list[Page]:
    dropped: list[Page] = []
    count = len(past.revisions) + sum(page.count for page in past.pages)
    while past.pages and count - past.pages[-1].count >= limit:
        count -= past.pages[-1].count
        dropped.append(past.pages.pop())
        past.complete = False
    return dropped


def move_out(past: Past) -> tuple[int, bytes] | None:
    """Make a page of the older part of a past that takes too many bytes: half of them go, so that it is seldom done."""
    size, kept = 0, 0
    for _, _, _, meta, value in past.revisions:
        size += 16 + len(value or b"") + len(meta or b"")
        if size > PACKED_BYTES // 2:
            break
        kept += 1
    older = past.revisions[kept:]
    if not older:
        return None
    del past.revisions[kept:]
    packed = _pack(older)
    past.pages.insert(0, Page(older[0][0], len(older), len(packed)))
    return older[0][0], packed


def readable(
    current: PastRevision, past: Sequence[PastRevision], complete: bool, now: int, policy: Policy
) -> tuple[list[PastRevision], bool]:
    """The revisions that may still be read, newest first, the current one included, and whether they are all.

    A past value is readable until `max_age` after it was superseded. Values past their own expiry are left out
    everywhere, but remembered as a gap where nothing was.
    """
    oldest_allowed = now - round((policy.max_age or 0) * MICROSECONDS)
    kept = [current]
    for revision in past[: policy.history or 0]:
        if kept[-1][1] < oldest_allowed:
            break
        kept.append(revision)
    return kept, complete and len(kept) == len(past) + 1


def is_live(revision: PastRevision, now: int) -> bool:
    """Whether the revision holds a value that has not expired."""
    _, _, expires, _, value = revision
    return value is not None and (expires is None or expires > now)


def history(kept: Sequence[PastRevision], now: int) -> list[Revision]:
    """The revisions as users see them: deletions are shown, expired values are not.

    A current value that has expired and is not swept yet shows as the deletion that it will be.
    """
    if not kept:
        return []
    current, *past = kept
    version, _, expires, _, value = current
    if value is not None and expires is not None and expires <= now:
        current = (version, expires, None, None, None)
    shown = [current, *(revision for revision in past if revision[4] is None or is_live(revision, now))]
    return [_revision(revision) for revision in shown]


def _revision(revision: PastRevision) -> Revision:
    version, updated, expires, meta, value = revision
    return Revision(
        raw=_NULL if value is None else Raw(value),
        version=version,
        updated=updated,
        expires=expires,
        meta=read_meta(meta),
        deleted=value is None,
    )


def packed(revision: Revision) -> PastRevision:
    """The other way: a revision as it is kept."""
    value = None if revision.deleted else bytes(revision.raw)
    return revision.version, revision.updated, revision.expires, write_meta(revision.meta), value


def as_of(
    kept: Sequence[PastRevision],
    complete: bool,
    floor: tuple[int, int],
    *,
    version: int | None,
    time: int | None,
) -> PastRevision | None:
    """The revision that held at a version or at a time (inclusive); `None` if there was none yet.

    `floor` is the version and time before which the namespace remembers no deleted keys.
    Raises `HistoryExpired` for a moment before what is kept.
    """
    for revision in kept:
        if revision[0] <= version if version is not None else revision[1] <= (time or 0):
            return revision
    expired = not complete or (version < floor[0] if version is not None else (time or 0) < floor[1])
    if expired:
        moment = f"version {version}" if version is not None else "that time"
        raise HistoryExpired(f"the history kept does not reach back to {moment}: see `history(key)` for what there is")
    return None


def to_item(key: str, created: int, revision: PastRevision, namespace: str = "") -> Item:
    """A revision as the item it was."""
    version, updated, expires, meta, value = revision
    return Item(Raw(value or b"null"), key, version, created, updated, expires, read_meta(meta), namespace)
