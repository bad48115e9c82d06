"""`Encrypted` and `AsyncEncrypted`: who carries the plans out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from botwire.errors import BotWireError
from botwire.ops import Op
from botwire.stores.base import AsyncStore, Store

from . import plans, rotation
from .calls import Plan
from .rotation import Rewritten
from .sealer import Sealer

T = TypeVar("T")
W = TypeVar("W", bound="_Wrapper")

# Namespaces that were seen to be encrypted as they should be. Kept beside the store and not in the wrapper, for a
# memory is often made anew with each request.
_known: WeakKeyDictionary[Any, dict[Sealer, set[str]]] = WeakKeyDictionary()


class _Wrapper:
    """What the twins share."""

    def __init__(self, store: Any, key: str | Sequence[str], *, hide_keys: bool = False) -> None:
        self.store = store
        self._sealer = Sealer(key, hide_keys=hide_keys)
        self._state = plans.State(_known_beside(store, self._sealer))

    def _twin(self, kind: type[W]) -> W:
        return kind(self.store.twin(), self._sealer.keyring.texts, hide_keys=self._sealer.hide_keys)

    @property
    def key_id(self) -> str:
        """The id of the key that encrypts, as it stands in what it has encrypted."""
        return self._sealer.keyring.newest.id

    def __repr__(self) -> str:
        hidden = ", hide_keys=True" if self._sealer.hide_keys else ""
        return f"{type(self).__name__}({self.store!r}, {self._sealer.keyring!r}{hidden})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Wrapper) and (type(self), self.store, self._sealer) == (
            type(other),
            other.store,
            other._sealer,
        )

    def __hash__(self) -> int:
        return hash((self.store, self._sealer))

    def __reduce__(self) -> tuple[Any, ...]:  # with the keys in it
        return _rebuild, (type(self), self.store, self._sealer.keyring.texts, self._sealer.hide_keys)


class Encrypted(_Wrapper):
    """A store around a store: what reaches the inner one is encrypted.

    Args:
        store: where the ciphertext is kept.
        key: from `botwire keygen` or `generate_key()`; or several, the newest first: that one encrypts, all decrypt.
        hide_keys: encrypt the names of keys and conversations too, and message ids.

    >>> from botwire import Memory
    >>> from botwire.ops import Value
    >>> from botwire.stores.encrypted import generate_key
    >>> from botwire.stores.sqlite import SQLiteStore
    >>> store = SQLiteStore(":memory:")
    >>> memory = Memory("user-42", store=Encrypted(store, generate_key()))
    >>> memory.set("coffee", "Ethiopian Yirgacheffe")
    Item('coffee', 'Ethiopian Yirgacheffe', version=1)
    >>> b"Yirgacheffe" in bytes(store.execute([Value("user-42", "coffee")])[0])
    False

    """

    store: Store

    def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `Store.execute`."""
        return self._run(plans.execute(self._sealer, self._state, ops, request_id))

    def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `Store.wait`."""
        return self.store.wait(namespace, cursor, timeout, subtree=subtree)

    def twin(self) -> AsyncEncrypted:
        """The same for an event loop."""
        return self._twin(AsyncEncrypted)

    def close(self) -> None:
        """Close the store inside."""
        self.store.close()

    def rewrite(self, namespace: str) -> Rewritten:
        """Encrypt with the newest key what an older one has encrypted; others may write meanwhile.

        Past values stay as they are until they are let go of: `Rewritten.older` counts what an older key is still
        needed for. Interrupted, call it again.
        """
        return self._run(rotation.rewrite(self._sealer, namespace))

    def keys_in_use(self, namespace: str) -> dict[str, int]:
        """How many values, past ones included, and messages each key has encrypted, by the key's id."""
        return self._run(rotation.keys_in_use(namespace))

    def _run(self, plan: Plan[T]) -> T:
        try:
            call = next(plan)
            while True:
                try:
                    results = self.store.execute(call.ops, request_id=call.request_id)
                except BotWireError as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(results)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # the plan's T


class AsyncEncrypted(_Wrapper):
    """The twin of `Encrypted`, around an `AsyncStore`."""

    store: AsyncStore

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `AsyncStore.execute`."""
        return await self._run(plans.execute(self._sealer, self._state, ops, request_id))

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `AsyncStore.wait`."""
        return await self.store.wait(namespace, cursor, timeout, subtree=subtree)

    def twin(self) -> Encrypted:
        """The same for threads."""
        return self._twin(Encrypted)

    async def close(self) -> None:
        """Close the store inside."""
        await self.store.close()

    async def rewrite(self, namespace: str) -> Rewritten:
        """As `Encrypted.rewrite`."""
        return await self._run(rotation.rewrite(self._sealer, namespace))

    async def keys_in_use(self, namespace: str) -> dict[str, int]:
        """As `Encrypted.keys_in_use`."""
        return await self._run(rotation.keys_in_use(namespace))

    async def _run(self, plan: Plan[T]) -> T:
        try:
            call = next(plan)
            while True:
                try:
                    results = await self.store.execute(call.ops, request_id=call.request_id)
                except BotWireError as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(results)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # the plan's T


def _known_beside(store: Any, sealer: Sealer) -> set[str]:
    try:
        return _known.setdefault(store, {}).setdefault(sealer, set())
    except TypeError:  # a store that cannot be hashed, or not be referred to weakly
        return set()


def _rebuild(kind: type[_Wrapper], store: Any, keys: tuple[str, ...], hide_keys: bool) -> _Wrapper:
    return kind(store, keys, hide_keys=hide_keys)
