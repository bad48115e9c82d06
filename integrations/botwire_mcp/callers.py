"""The memories of those who call over HTTP: one for each API key, which the server behind judges."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from botwire import AsyncMemory

MOST: Final = 100  # memories that are kept open, each with its connections


class _Held:
    __slots__ = ("memory", "users")

    def __init__(self, memory: AsyncMemory) -> None:
        self.memory = memory
        self.users = 0


class Callers:
    """Makes a memory for each key, and keeps those that were used last."""

    def __init__(self, make: Callable[[str | None], AsyncMemory], most: int = MOST) -> None:
        self._make = make
        self._most = most
        self._held: dict[str | None, _Held] = {}

    @asynccontextmanager
    async def memory(self, key: str | None) -> AsyncGenerator[AsyncMemory]:
        """The memory as the holder of this key sees it."""
        held = self._held.pop(key, None) or _Held(self._make(key))
        self._held[key] = held  # the last in the dict is the one used last
        held.users += 1
        try:
            yield held.memory
        finally:
            held.users -= 1
            if not held.users and self._held.get(key) is not held:  # it was dropped
                await held.memory.close()
            await self._close(self._most)

    def drop(self, key: str | None) -> None:
        """Keep the memory of this key no longer than those who use it now."""
        self._held.pop(key, None)

    async def close(self) -> None:
        """Let go of all of them."""
        await self._close(0)

    async def _close(self, most: int) -> None:
        """Let go of those that were not used for longest, until no more than `most` are left."""
        for key, held in list(self._held.items()):
            if len(self._held) <= most:
                return
            if not held.users and self._held.get(key) is held:
                del self._held[key]
                await held.memory.close()
