"""Every error of botwire, as a tree.

    BotWireError
    ├── InvalidInput (ValueError)      a name, value, option or URL that cannot be used as given
    │   └── TooLarge                   a value, name or batch over its limit
    ├── NotFound (KeyError)            `memory[key]` of a key that is not there
    ├── Conflict                       compare-and-set lost: `.version` is the current version
    ├── HistoryExpired                 an as-of read from before the kept history
    ├── CursorExpired                  a feed cursor from before the kept feed: read afresh, go on from now
    ├── RequestReused                  a request id came again with other ops
    ├── RateLimited                    too many writes: `.retry_after` seconds
    ├── QuotaExceeded                  the namespace is full: items or bytes
    ├── AccessDenied                   the API key does not allow this
    │   └── NotAuthenticated           there is no API key, or it is unknown, expired or revoked
    ├── OutcomeUnknown                 the connection broke: the write may or may not have happened
    ├── EmbedderFailed                 the embedder answered nothing usable: text search works without it
    ├── HostedOnly                     a name of the hosted 0.2 platform that is not part of this library
    └── StoreError                     the engine below: the file, the disk, the server
        ├── StoreUnavailable           cannot be opened or reached
        ├── StoreBusy                  somebody else held the lock for too long
        ├── StoreFull                  no space left: nothing was written
        ├── StoreReadOnly              the file or its folder cannot be written
        └── StoreCorrupt               not a botwire store, or a damaged one

Catch `BotWireError` for all of them. Messages say what happened, where, and what to do.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "BotWireError",
    "Conflict",
    "CursorExpired",
    "EmbedderFailed",
    "HistoryExpired",
    "HostedOnly",
    "InvalidInput",
    "NotAuthenticated",
    "NotFound",
    "OutcomeUnknown",
    "QuotaExceeded",
    "RateLimited",
    "RequestReused",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreUnavailable",
    "TooLarge",
]


class BotWireError(Exception):
    """The base of every error that botwire raises on purpose."""


class InvalidInput(BotWireError, ValueError):
    """A name, value, option or URL that cannot be used as given."""


class TooLarge(InvalidInput):
    """A value, name or batch over its limit."""


class NotFound(BotWireError, KeyError):
    """The key is not in the memory; `get(key)` answers a default instead."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class Conflict(BotWireError):
    """A compare-and-set lost. `version` is the current one; 0 means that the key does not exist."""

    def __init__(self, message: str, version: int = 0) -> None:
        super().__init__(message)
        self.version = version

    def __reduce__(self) -> tuple[type[Conflict], tuple[str, int]]:
        return type(self), (self.args[0], self.version)


class HistoryExpired(BotWireError):
    """The moment asked for lies before the history that is kept."""


class CursorExpired(BotWireError):
    """The feed no longer reaches back to this cursor: read the memory afresh and watch from now."""


class RequestReused(BotWireError):
    """A request id was used again with different ops."""


class RateLimited(BotWireError):
    """Too many writes for now. `retry_after` is in seconds."""

    def __init__(self, retry_after: float = 60, message: str | None = None) -> None:
        super().__init__(message or f"rate limited: retry after {retry_after:g} seconds")
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[RateLimited], tuple[float, str]]:
        return type(self), (self.retry_after, self.args[0])


class QuotaExceeded(BotWireError):
    """The namespace is full: delete something, or raise its limit with `configure`."""


class AccessDenied(BotWireError):
    """The caller's API key does not allow this."""


class NotAuthenticated(AccessDenied):
    """The server wants an API key, and there is none, or it is unknown, expired or revoked."""


class OutcomeUnknown(BotWireError):
    """The write was sent, and no answer came: it may or may not have happened."""


class EmbedderFailed(BotWireError):
    """The embedder could not be reached, failed, or answered something else than vectors."""


class HostedOnly(BotWireError):
    """A name of the hosted 0.2 platform; this library is the memory alone."""


class StoreError(BotWireError):
    """Something went wrong in the engine below: the file, the disk or the server."""


class StoreUnavailable(StoreError):
    """The store cannot be opened or reached."""


class StoreBusy(StoreError):
    """Another process or connection held the store's lock for too long. Nothing was written."""


class StoreFull(StoreError):
    """No space left on the device. Nothing was written; reading goes on."""


class StoreReadOnly(StoreError):
    """The file, its folder or its file system cannot be written. Nothing was written."""


class StoreCorrupt(StoreError):
    """The file is not a botwire store, was written by a newer botwire, or is damaged."""
