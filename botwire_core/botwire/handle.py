"""What `Memory` and `AsyncMemory` share: their arguments, and their hold on a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from .errors import InvalidInput
from .names import check_name, check_namespace
from .stores import opening

if TYPE_CHECKING:
    from .embedding import Embedding

H = TypeVar("H", bound="Handle")

_DEFAULT: Final = opening.Asked(None)


class Handle:
    """A namespace, and where it is kept. It opens nothing before it is used."""

    __slots__ = (
        "__weakref__", "_asked", "_embedding", "_encryption", "_given", "_shared", "_store", "author", "namespace",
    )  # fmt: skip

    _encrypted: ClassVar[str]  # what encrypts, in `stores.encrypted`
    namespace: str
    author: str | None

    def __init__(
        self,
        namespace: str = "default",
        url: str | None = None,
        timeout: float | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        store: Any = None,
        durability: str | None = None,
        author: str | None = None,
        encryption_key: str | Sequence[str] | None = None,
        hide_keys: bool = False,
        embedder: Any = None,
    ) -> None:
        check_namespace(namespace)
        if base_url is not None:
            if url is not None:
                raise InvalidInput("url and base_url are two names for one argument: give one of them")
            url = base_url
        self.namespace = namespace
        self.author = author
        self._asked = _DEFAULT
        self._encryption: tuple[Any, bool] | None = None
        self._shared: opening.Shared | None = None
        self._given: Any = store
        self._store: Any = store  # or opened by the first use
        if not (url is None and durability is None and api_key is None and timeout is None):
            self._asked = opening.Asked(url, durability, api_key, timeout)
        self._embedding: Embedding | None = None
        if not (author is None and store is None and self._asked is _DEFAULT):
            self._check_arguments(store)
        if encryption_key is not None or hide_keys:
            self._encrypt(encryption_key, hide_keys=hide_keys)
        if embedder is not None:
            self._take_embedder(embedder)

    def _check_arguments(self, store: Any) -> None:
        url, durability, api_key, timeout = self._asked
        if store is not None and (url, durability, api_key) != (None, None, None):
            raise InvalidInput("a store object has its place already: leave out url, durability and api_key")
        if self.author is not None:
            check_name(self.author, "author")
        if url is not None and not isinstance(url, str):
            raise InvalidInput(f"url must be a str such as 'sqlite:///memory.db', not {url!r}")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
            raise InvalidInput(f"timeout={timeout!r} must be a number of seconds, more than 0")
        if api_key is not None and (not isinstance(api_key, str) or not api_key.isascii() or not api_key.isprintable()):
            raise InvalidInput("api_key must be a str as `botwire keys create` prints it")
        if store is None:
            opening.check(self._asked)

    def _encrypt(self, key: Any, *, hide_keys: bool) -> None:
        if key is None:
            raise InvalidInput("hide_keys=True goes with an encryption_key: `botwire keygen` makes one")
        self._encryption = (key, hide_keys)
        if self._given is not None:
            self._store = self._wrapped(self._given)

    def _wrapped(self, store: Any) -> Any:
        """The store, behind what this memory wants between itself and it."""
        if self._encryption is None:
            return store
        from .stores import encrypted  # brings cryptography: only when it is asked for

        key, hide_keys = self._encryption
        return getattr(encrypted, self._encrypted)(store, key, hide_keys=hide_keys)

    @property
    def timeout(self) -> float | None:
        """Seconds to wait for a server."""
        return self._asked.timeout

    def _take_embedder(self, embedder: Any) -> None:
        from .embedding import Embedding  # only for those who have one

        if self._encryption is not None:
            raise InvalidInput("what is encrypted is not searched: leave out embedder or encryption_key")
        self._embedding = Embedding(embedder)

    def _twin(self, kind: type[H]) -> H:
        """The same memory as the other class."""
        arguments = self._arguments()
        if self._given is not None:
            if not hasattr(self._given, "twin"):
                kind_of_store = type(self._given).__name__
                raise InvalidInput(f"{kind_of_store} has no twin(): make both memories from one URL instead")
            arguments["store"] = self._given.twin()
        return kind(**arguments)

    def _acquire(self) -> opening.Shared:
        shared = self._shared = opening.acquire(self._asked, self)
        return shared

    def _release(self) -> opening.Shared | None:
        """Give up the shared store. Returns it if it is now ours to close."""
        shared, self._shared = self._shared, None
        return shared if shared is not None and opening.release(shared, self) else None

    def __del__(self) -> None:
        # A memory that is simply dropped gives up its claim; the store stays open for the next one.
        shared = getattr(self, "_shared", None)
        if shared is not None:
            shared.users.discard(id(self))

    def __repr__(self) -> str:
        url = self._asked.url
        place = repr(opening.without_password(url)) if url else repr(self._given) if self._given else "default"
        return f"{type(self).__name__}({self.namespace!r}, {place})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """What makes another one like it."""
        key, hide_keys = self._encryption or (None, False)
        return self._asked._asdict() | {
            "namespace": self.namespace,
            "store": self._given,
            "author": self.author,
            "encryption_key": key,
            "hide_keys": hide_keys,
            "embedder": None if self._embedding is None else self._embedding.given,
        }


def _rebuild(kind: type[Handle], arguments: dict[str, Any]) -> Handle:
    return kind(**arguments)
