"""What stands behind every door: who asks, may they, how much; then the store, and a note of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from botwire.errors import BotWireError, NotAuthenticated
from botwire.ops import Changes, Op
from botwire.stores.base import AsyncStore

from . import guard
from .audit import Audit
from .guard import Principal
from .keys import Keyring
from .limits import Limits
from .metrics import Metrics
from .outside import checked
from .settings import Settings


class Service:
    """A store as a server offers it. `create_app` makes one, and the doors ask nothing else."""

    def __init__(self, store: AsyncStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.keyring = Keyring(store, settings)
        self.limits = Limits(settings)
        self.audit = Audit(store, settings)
        self.metrics = Metrics(settings)

    async def start(self) -> None:
        """Read the keys, and follow what becomes of them."""
        await self.keyring.start()
        await self.audit.start()

    async def stop(self) -> None:
        """End what `start` began; the store stays open."""
        await self.audit.stop()
        await self.keyring.stop()

    def identify(self, credentials: str | None, address: str) -> Principal:
        """Who asks, by the key that was sent (or none) and the address it came from.

        Raises `NotAuthenticated` or `RateLimited`.
        """
        try:
            try:
                principal = self.keyring.principal(credentials, address)
            except NotAuthenticated:
                self.limits.failed(address)
                raise
            self.limits.spend(principal, address)
        except BotWireError as error:
            self.metrics.failed((), error, 0.0)
            raise
        return principal

    def admit(self, principal: Principal, ops: Sequence[Op]) -> list[Op]:
        """The ops as the store may see them. Raises `AccessDenied`, and `InvalidInput` for bad values."""
        guard.check(principal, ops)
        return checked(ops, self.settings)

    def settled(self, principal: Principal, ops: Sequence[Op], error: BotWireError | None, seconds: float) -> None:
        """Note how ops ended, and after how long."""
        if error is None:
            self.metrics.done(ops, seconds)
        else:
            self.metrics.failed(ops, error, seconds)
            self.audit.refused(principal, ops, error)

    async def execute(self, principal: Principal, ops: Sequence[Op], request_id: str | None = None) -> list[Any]:
        """Run ops for somebody. Raises what `admit` and the store do."""
        begun = time.perf_counter()
        try:
            admitted = self.admit(principal, ops)
            own_id = None if request_id is None else f"{principal.id}:{request_id}"
            results = await self.audit.execute(principal, admitted, own_id)
        except BotWireError as error:
            self.settled(principal, ops, error, time.perf_counter() - begun)
            raise
        self.settled(principal, ops, None, time.perf_counter() - begun)
        return results

    async def wait(
        self, principal: Principal, namespace: str, cursor: str, timeout: float, *, subtree: bool = False
    ) -> bool:
        """As `Store.wait`, of what the principal may read."""
        guard.check(principal, [Changes(namespace, None, subtree)])
        return await self.store.wait(namespace, cursor, timeout, subtree=subtree)
