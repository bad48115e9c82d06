"""`Memory(storage="botwire:namespace")`: CrewAI is told what such a string means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crewai.memory.storage import factory as crewai_factory
from crewai.memory.storage.backend import StorageBackend

from botwire.adapting import Place, memory_for

from .storage import BotWireStorage

if TYPE_CHECKING:
    from typing import Unpack

SCHEME = "botwire:"


def register(**place: Unpack[Place]) -> None:
    """Have CrewAI understand `Memory(storage="botwire:namespace")`, in this process, from now on.

    Call it once, at the start. `place` is where all these namespaces are kept: `url`, `api_key` … as for `Memory`.
    A factory that was set before goes on answering for every other string.
    """
    memory_for(None, None, place)  # raises now what is wrong with the place, not at the first crew
    # CrewAI has no public way to ask which factory is set.
    before = crewai_factory._factory  # pyright: ignore[reportPrivateUsage]

    def storage(spec: str) -> StorageBackend | None:
        if spec.startswith(SCHEME):
            return BotWireStorage(namespace=spec.removeprefix(SCHEME), **place)
        return None if before is None else before(spec)

    crewai_factory.set_memory_storage_factory(storage)
