"""What every adapter begins with: its arguments, and the words for a framework that is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypedDict

from .errors import InvalidInput
from .memory import Memory


class Place(TypedDict, total=False):
    """Where an adapter keeps what it is given, in the words of `Memory`."""

    url: str | None
    api_key: str | None
    timeout: float | None
    durability: str | None
    encryption_key: str | Sequence[str] | None
    hide_keys: bool
    embedder: Any


def memory_for(memory: Memory | None, namespace: str | None, place: Place, *, default: str = "default") -> Memory:
    """The memory that an adapter works on: the one that it was given, or one made from a namespace and a place.

    Args:
        memory: what the caller passed as `memory=`.
        namespace: … as `namespace=`.
        place: … as further keywords.
        default: the namespace if there is neither a memory nor a namespace.

    Raises:
        InvalidInput: both were given, or what was given is no `Memory`.
        TypeError: an argument that there is not.

    >>> memory_for(None, None, {"url": "sqlite://"}, default="graph")
    Memory('graph', 'sqlite://')

    """
    unknown = [name for name in place if name not in Place.__annotations__]
    if unknown:
        near = get_close_matches(unknown[0], [*Place.__annotations__, "namespace", "memory"], 1)
        hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(Place.__annotations__)}"
        raise TypeError(f"unknown argument {unknown[0]}{hint}")
    if memory is None:
        return Memory(default if namespace is None else namespace, **place)
    if not isinstance(memory, Memory):
        hint = ": await-able memories have a twin(), pass that" if hasattr(memory, "twin") else ""
        raise InvalidInput(f"memory must be a botwire Memory, not {type(memory).__name__}{hint}")
    if namespace is not None or place:
        names = ", ".join([*(["namespace"] if namespace is not None else []), *place])
        raise InvalidInput(f"a memory has its namespace and its place already: leave out {names}")
    return memory


def missing(extra: str, error: ImportError) -> ImportError:
    """What an adapter raises when its framework is not installed; `extra` is what brings it."""
    return ImportError(f'{error.name} is not installed: pip install "botwire[{extra}]"', name=error.name)
