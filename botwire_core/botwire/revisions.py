"""What an item was: how its past is packed, kept, and read. Pure functions, shared by every store.

The newest past values travel packed inside the item's row, so that a write touches one place; when they take
more than `PACKED_BYTES`, the oldest of them move to rows of their own ("spilled").
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from .errors import HistoryExpired
from .ops import MICROSECONDS, NO_META, Item, Meta, Policy, Revision

PACKED_BYTES = 2_000
_NULL = Raw(b"null")


class Past(Struct, array_like=True):
    """A key's past, newest first. A revision is kept as `(version, updated, expires, meta, value)`; no value: deleted."""

    revisions: list[tuple[int, int, int | None, bytes | None, bytes | None]] = []
    complete: bool = True
    """Whether it reaches back to the key's beginning."""
    spilled: int = 0
    """How many older revisions stand in rows of their own."""
    since: int = 0
    """The version since which the item is what it is, if a touch has given it a newer one."""


PastRevision = tuple[int, int, int | None, bytes | None, bytes | None]

_unpack = msgspec.msgpack.Decoder(Past).decode
_pack = msgspec.msgpack.Encoder().encode
_meta = msgspec.json.Decoder(Meta).decode


def unpack(packed: bytes | None) -> Past:
    """The past of a row."""
    return _unpack(packed) if packed else Past()


def pack(past: Past) -> bytes | None:
    """The past for a row; `None` when there is nothing to say."""
    return None if past.complete and not (past.revisions or past.spilled or past.since) else _pack(past)


def read_meta(text: bytes | None) -> Meta:
    """Meta from its column."""
    return NO_META if text is None else _meta(text)


def write_meta(meta: Meta) -> bytes | None:
    """Meta for its column."""
    return None if meta == NO_META else msgspec.json.encode(meta)


def push(past: Past, was: PastRevision, now: int, policy: Policy, *, keep: bool) -> tuple[list[PastRevision], int]:
    """Put what the item was on top of its past, and let go of what is over the limits.

    Returns the revisions to move to rows of their own, and how many of the oldest such rows must go.
    """
    limit = (policy.history or 0) if keep else 0
    if past.since:
        was, past.since = (past.since, *was[1:]), 0
    past.revisions.insert(0, was)
    kept = min(len(past.revisions), limit)
    oldest_allowed = now - round((policy.max_age or 0) * MICROSECONDS)
    while kept > 1 and past.revisions[kept - 2][1] < oldest_allowed:  # superseded when the next one came
        kept -= 1
    if cut := kept < len(past.revisions):
        del past.revisions[kept:]
    spilled = spill(past)
    allowed = 0 if cut else max(0, limit - len(past.revisions))  # rows of their own are older than what was cut
    over = max(0, past.spilled - allowed)
    past.spilled -= over
    if cut or over:
        past.complete = False
    return spilled, over


def spill(past: Past) -> list[PastRevision]:
    """Take out of a past what does not fit into a row; returns the revisions for rows of their own."""
    spilled = _overflow(past.revisions)
    past.spilled += len(spilled)
    return spilled


def _overflow(revisions: list[PastRevision]) -> list[PastRevision]:
    size = sum(16 + len(value or b"") + len(meta or b"") for _, _, _, meta, value in revisions)
    spilled: list[PastRevision] = []
    while revisions and size > PACKED_BYTES:
        oldest = revisions.pop()
        size -= 16 + len(oldest[4] or b"") + len(oldest[3] or b"")
        spilled.append(oldest)
    return spilled


def readable(current: PastRevision, past: Sequence[PastRevision], complete: bool, now: int, policy: Policy) -> tuple[list[PastRevision], bool]:
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
    """The revisions as users see them: deletions are shown, expired values are not."""
    return [_revision(revision) for revision in kept if revision[4] is None or is_live(revision, now)]


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
