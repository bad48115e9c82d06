"""The seam: what a store is.

A store executes ops, and signals when something changed. Wrappers (encryption, guards, metrics) are stores
around a store; faces (`Memory`, the command line, a server's routes) build ops and read results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from botwire.ops import Op


@runtime_checkable
class Store(Protocol):
    """Executes ops. Safe to share between threads."""

    def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """Run the ops in order, all or nothing, and answer one result for each, of its `Op.result` type.

        When it returns, what was written is committed and readable by everyone. With a `request_id` the
        same call can be repeated: within 24 hours it is applied once.

        Raises a `BotWireError`; then nothing was written (but see `OutcomeUnknown`).
        """
        ...

    def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """Block until there may be changes behind the cursor, at most `timeout` seconds. False: time is up.

        It only signals. Ask for `Changes` afterwards, also when it answered False.
        """
        ...

    def close(self) -> None:
        """Release what the store holds. Closing twice is harmless; using it afterwards is an error."""
        ...


@runtime_checkable
class AsyncStore(Protocol):
    """The same, for one's event loop: nothing blocks it."""

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `Store.execute`. A cancelled write may have been applied."""
        ...

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `Store.wait`."""
        ...

    async def close(self) -> None:
        """As `Store.close`."""
        ...
