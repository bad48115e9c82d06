"""`Call` and `Plan`: how what has to be done is told apart from who does it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from botwire.ops import Op

T = TypeVar("T")


class Call(NamedTuple):
    """What a plan asks of the store below."""

    ops: Sequence[Op]
    request_id: str | None = None


Plan = Generator[Call, list[Any], T]
"""Yields calls, is sent their results (or has their error thrown in), and returns an answer. No I/O."""
