"""`HTTPStore`: a store that is a server somewhere else."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from botwire.ops import Changes, Op

from .calls import Call, Got, Listen, Send, Server, Step, Steps, attempts, listening
from .connections import Connections

if TYPE_CHECKING:
    from .async_store import AsyncHTTPStore

T = TypeVar("T")


class HTTPStore:
    """A server's store, over HTTP. Safe to share between threads, and with a forked child.

    `timeout`: seconds that a call takes at most, all tries together (60). What failed on the way is tried again; a
    write carries an id by which the server knows it, so that it is applied once.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float | None = None) -> None:
        self.server = Server(url, api_key, timeout)
        self._connections = Connections(self.server)

    def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `Store.execute`. Raises `OutcomeUnknown` for a write that was sent and never answered."""
        call = Call(ops, request_id)
        outcome = self._run(attempts(call, self.server, monotonic() + self.server.timeout))
        return call.concluded(outcome, self.server)

    def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `Store.wait`, over a stream of server-sent events."""
        look = Changes(namespace, cursor, subtree, 1)
        if timeout > 0:
            found = self._run(listening(self.server, namespace, cursor, monotonic() + timeout, subtree=subtree))
            if found is not None:
                return found
        return bool(self.execute([look])[0].changes)

    def _run(self, steps: Steps[T]) -> T:
        got: Got = None
        while True:
            try:
                step = steps.send(got)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the T of the steps
            got = self._do(step)

    def _do(self, step: Step) -> Got:
        if isinstance(step, Send):
            return self._connections.send(step.request, step.deadline)
        if isinstance(step, Listen):
            return self._connections.listen(step.request, step.deadline)
        self._connections.sleep(step.seconds)
        return None

    def twin(self) -> AsyncHTTPStore:
        """The same server for an event loop, over connections of its own."""
        from .async_store import AsyncHTTPStore  # it imports this module

        server = self.server
        return AsyncHTTPStore(server.url, api_key=server.api_key, timeout=server.timeout)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return remade, (type(self), self.server.url, self.server.api_key, self.server.timeout)

    def __repr__(self) -> str:
        return f"HTTPStore({self.server.url!r})"


def remade(kind: type[Any], url: str, api_key: str | None, timeout: float) -> Any:
    """A store from its arguments: what a pickle holds of one."""
    return kind(url, api_key=api_key, timeout=timeout)
