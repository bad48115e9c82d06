"""Embeddings as they are kept, and the nearest of them to a question: exact, over all of a scope.

With numpy (`pip install "botwire[search]"`) a scope is one matrix product; without it the same is done by the
standard library, which takes some 10 µs for each document of 384 numbers.
"""

from __future__ import annotations

import heapq
import math
import operator
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

from botwire.errors import InvalidInput

from .index import Nearest

BYTES = 4  # of a number: float32


def pack(vector: Iterable[float]) -> bytes:
    """A vector of length 1 as bytes, little-endian. Its dimension is the fourth part of their number."""
    numbers = array("f", vector)
    length = math.sqrt(sum(map(operator.mul, numbers, numbers)))
    if length:
        numbers = array("f", (number / length for number in numbers))
    return _turned(numbers).tobytes()


def unpack(blob: bytes | bytearray) -> array[float]:
    """The numbers of a packed vector."""
    numbers: array[float] = array("f")
    numbers.frombytes(memoryview(blob))
    return _turned(numbers)


def dimension(blob: bytes) -> int:
    """How many numbers a packed vector has."""
    return len(blob) // BYTES


def _turned(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class Matrix:
    """The packed vectors of a scope's documents, all of one dimension."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.ids: list[int] = []
        self._data = bytearray()

    def add(self, document: int, blob: bytes) -> None:
        """Add a document that is not in it."""
        if len(blob) != self.dimension * BYTES:
            raise InvalidInput(f"a vector of {len(blob) // BYTES} numbers among those of {self.dimension}")
        self.ids.append(document)
        self._data += blob

    def without(self, documents: Collection[int]) -> Matrix:
        """The same less some documents."""
        rest, size = Matrix(self.dimension), self.dimension * BYTES
        for place, document in enumerate(self.ids):
            if document not in documents:
                rest.add(document, bytes(self._data[place * size : place * size + size]))
        return rest

    def nearest(self, query: bytes, limit: int, admitted: Callable[[int], bool] | None = None) -> Nearest | None:
        """The `limit` documents nearest to the query of those admitted; `None` if there is no document at all.

        The mean is that of all documents.
        """
        if not self.ids:
            return None
        if dimension(query) != self.dimension:
            raise InvalidInput(f"the query's vector has {dimension(query)} numbers, the index's {self.dimension}")
        cosines = _products(self._data, self.dimension, query)
        mean = math.fsum(cosines) / len(cosines)
        if admitted is None:
            best = _best(cosines, limit)
        else:
            places = [place for place, document in enumerate(self.ids) if admitted(document)]
            best = heapq.nlargest(limit, places, key=cosines.__getitem__)
        return Nearest({self.ids[place]: float(cosines[place]) for place in best}, mean)


def _best(cosines: Sequence[float], limit: int) -> Iterable[int]:
    numpy = _numpy()
    if numpy is None or limit >= len(cosines):
        return heapq.nlargest(limit, range(len(cosines)), key=cosines.__getitem__)
    return cast("list[int]", numpy.argpartition(cosines, -limit)[-limit:].tolist())


def _products(data: bytearray, dimension: int, query: bytes) -> Sequence[float]:
    numpy = _numpy()
    if numpy is not None:
        matrix = numpy.frombuffer(data, dtype="<f4").reshape(-1, dimension)
        return cast("Sequence[float]", matrix @ numpy.frombuffer(query, dtype="<f4"))
    numbers, wanted = unpack(data), unpack(query)
    product = _sumproduct()
    return [product(numbers[i : i + dimension], wanted) for i in range(0, len(numbers), dimension)]


def _sumproduct() -> Callable[[array[float], array[float]], float]:
    exact: Any = getattr(math, "sumprod", None)  # from Python 3.12 on, and much faster
    if exact is not None:
        return lambda a, b: exact(a.tolist(), b.tolist())
    return lambda a, b: sum(map(operator.mul, a, b))


@lru_cache(maxsize=1)
def _numpy() -> Any:
    """The numpy that is installed, or `None`. Only loaded where there are vectors."""
    try:
        import numpy
    except ModuleNotFoundError:
        return None
    return numpy
