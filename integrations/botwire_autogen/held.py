"""The memory that a component works on, and how its configuration describes it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from botwire import AsyncMemory, InvalidInput, Memory
from botwire.adapting import Place, memory_for
from botwire.stores.opening import without_password

DEFAULT: Final = "autogen"


class PlaceConfig(BaseModel):
    """Where a memory is kept, in a configuration. It has no room for secrets."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = DEFAULT
    url: str | None = None
    """By default `BOTWIRE_URL` where it is loaded, else a file in the user's data directory."""
    timeout: float | None = None
    durability: str | None = None
    embedder: str | None = None


class Held:
    """A memory for event loops, made when it is first used, and what it was made from."""

    def __init__(self, memory: Memory | None, namespace: str | None, place: Place) -> None:
        self._memory = memory_for(memory, namespace, place, default=DEFAULT)
        self._place: Place | None = place if memory is None else None
        self._twin: AsyncMemory | None = None

    @property
    def memory(self) -> AsyncMemory:
        """The memory: one for all event loops."""
        if self._twin is None:
            self._twin = self._memory.twin()
        return self._twin

    async def close(self) -> None:
        """Let go of the store, if it was opened here. Using the memory opens it again."""
        if self._place is None:
            return  # the caller's
        twin, self._twin = self._twin, None
        if twin is not None:
            await twin.close()

    def described(self) -> dict[str, Any]:
        """The fields of a `PlaceConfig`. Raises `InvalidInput` for what a configuration cannot say, or must not."""
        if self._place is None:
            raise InvalidInput(
                "a memory object cannot be written into a configuration: give namespace= and url= instead of memory="
            )
        if self._place.get("encryption_key") is not None:
            raise InvalidInput(
                "an encryption key is not written into a configuration, and without it nothing would be encrypted: "
                "make this one in code"
            )
        url, embedder = self._place.get("url"), self._place.get("embedder")
        if url is not None and without_password(url) != url:
            raise InvalidInput("a password is not written into a configuration: leave out url and set BOTWIRE_URL")
        if isinstance(embedder, str) and "@" in embedder.partition("://")[2]:
            raise InvalidInput("a password is not written into a configuration: leave it out of the embedder's URL")
        if embedder is not None and not isinstance(embedder, str):
            raise InvalidInput("a configuration can name an embedder ('openai:MODEL', …), not hold a function")
        known = {name: value for name, value in self._place.items() if name in PlaceConfig.model_fields}
        return {"namespace": self._memory.namespace, **known}


def place_of(config: PlaceConfig) -> Place:
    """The place that a configuration describes; the API key is in `BOTWIRE_API_KEY`, never in there."""
    found: Any = config.model_dump(include={"url", "timeout", "durability", "embedder"}, exclude_none=True)
    return found  # type: ignore[no-any-return]  # these fields are all of Place
