"""Waking those who wait for changes.

A store calls `notify` with the namespaces that its own commits touched. What others write (other processes) is
asked for with `poll`, by one thread, and only while somebody waits; `None` means that anything may have changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from .errors import BotWireError
from .names import ancestors

Wake = Callable[[], None]


class Signals:
    """Who waits for which namespace or subtree."""

    def __init__(self, poll: Callable[[], set[str] | None], every: float) -> None:
        self._poll = poll
        self._every = every
        self._lock = threading.Lock()
        self._waiters: dict[tuple[str, bool], list[Wake]] = {}
        self._poller: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    def notify(self, namespaces: set[str]) -> None:
        """Wake everyone who waits for one of these namespaces, or for a subtree that holds it."""
        with self._lock:
            wakes = [
                wake
                for namespace in namespaces
                for scope in [(namespace, False), *((above, True) for above in ancestors(namespace))]
                for wake in self._waiters.get(scope, ())
            ]
        for wake in wakes:
            wake()

    @contextmanager
    def registered(self, namespace: str, wake: Wake, *, subtree: bool) -> Generator[None]:
        """Have `wake` called, from whatever thread, at each change in the scope."""
        scope = (namespace, subtree)
        with self._lock:
            self._waiters.setdefault(scope, []).append(wake)
            if self._poller is None or not self._poller.is_alive():
                self._poller = threading.Thread(target=self._poll_while_wanted, name="botwire-poll", daemon=True)
                self._poller.start()
        try:
            yield
        finally:
            with self._lock:
                self._waiters[scope].remove(wake)
                if not self._waiters[scope]:
                    del self._waiters[scope]

    def _poll_while_wanted(self) -> None:
        while not self._stop.wait(self._every):
            with self._lock:
                if not self._waiters:
                    self._poller = None
                    return
            try:
                changed = self._poll()
            except BotWireError:
                changed = None  # whoever waits reads for itself, and gets the error there
            if changed is None:
                self._wake_all()
            elif changed:
                self.notify(changed)

    def _wake_all(self) -> None:
        with self._lock:
            wakes = [wake for each in self._waiters.values() for wake in each]
        for wake in wakes:
            wake()

    def close(self) -> None:
        """Stop looking. Those who still wait run into their time-outs."""
        self._stop.set()
