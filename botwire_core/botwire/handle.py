"""What `Memory` and `AsyncMemory` share: their arguments, and their hold on a store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput
from .names import check_name, check_namespace
from .stores import opening
from .stores.base import Store

if TYPE_CHECKING:
    from .embedding import Embedding


class Handle:
    """A namespace, and where it is kept. It opens nothing before it is used."""

    __slots__ = (
        "__weakref__", "_durability", "_embedding", "_shared", "_store", "_url", "author", "namespace", "timeout",
    )  # fmt: skip

    namespace: str
    author: str | None

    def __init__(
        self,
        namespace: str = "default",
        url: str | None = None,
        timeout: float | None = None,
        *,
        base_url: str | None = None,
        store: Any = None,
        durability: str | None = None,
        author: str | None = None,
        embedder: Any = None,
    ) -> None:
        check_namespace(namespace)
        if base_url is not None:
            if url is not None:
                raise InvalidInput("url and base_url are two names for one argument: give one of them")
            url = base_url
        self.namespace = namespace
        self.author = author
        self.timeout = timeout
        self._url = url
        self._durability = durability
        self._shared: opening.Shared | None = None
        self._store: Any = store
        self._embedding: Embedding | None = None
        if embedder is not None:
            self._take_embedder(embedder)
        if not (url is None and durability is None and author is None and store is None and timeout is None):
            self._check_arguments(store)

    def _check_arguments(self, store: Any) -> None:
        if store is not None and (self._url is not None or self._durability is not None):
            raise InvalidInput("a store object has its place and durability already: leave out url and durability")
        if self.author is not None:
            check_name(self.author, "author")
        if self._url is not None and not isinstance(self._url, str):
            raise InvalidInput(f"url must be a str such as 'sqlite:///memory.db', not {self._url!r}")
        timeout = self.timeout
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
            raise InvalidInput(f"timeout={timeout!r} must be a number of seconds, more than 0")
        if store is None:
            opening.check(self._url, self._durability)

    def _take_embedder(self, embedder: Any) -> None:
        from .embedding import Embedding  # only for those who have one

        url = os.environ.get("BOTWIRE_URL") if self._url is None and self._store is None else self._url
        if url is not None and url.startswith(("http://", "https://")):
            raise InvalidInput(
                "an embedder belongs to whoever opens the store: give it to the server, not to its client"
            )
        self._embedding = Embedding(embedder)

    def _acquire(self) -> opening.Shared:
        shared = self._shared = opening.acquire(self._url, self._durability, self)
        return shared

    def _release(self) -> Store | None:
        """Give up the shared store. Returns it if it is now ours to close."""
        shared, self._shared = self._shared, None
        return None if shared is None else opening.release(shared, self)

    def __del__(self) -> None:
        # A memory that is simply dropped gives up its claim; the store stays open for the next one.
        shared = getattr(self, "_shared", None)
        if shared is not None:
            shared.users.discard(id(self))

    def __repr__(self) -> str:
        own_store = self._store if self._shared is None else None
        place = repr(opening.without_password(self._url)) if self._url else repr(own_store) if own_store else "default"
        return f"{type(self).__name__}({self.namespace!r}, {place})"

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            "namespace": self.namespace,
            "url": self._url,
            "timeout": self.timeout,
            "store": self._store if self._shared is None else None,
            "durability": self._durability,
            "author": self.author,
            "embedder": None if self._embedding is None else self._embedding.given,
        }
        return _rebuild, (type(self), arguments)


def _rebuild(kind: type[Handle], arguments: dict[str, Any]) -> Handle:
    return kind(**arguments)
