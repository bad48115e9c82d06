"""What an embedder adds: a weighted sum of scores, before sessions and authors weigh in.

Fusing by rank measured worse: it knows nothing of how far apart two scores are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .index import Nearest

if TYPE_CHECKING:
    from .ranking import Hit


def scaled(nearest: Nearest) -> dict[int, float]:
    """Cosines as 0..1: 0 at the scope's mean, 1 at its best."""
    top = max(nearest.cosines.values(), default=0.0)
    span = top - nearest.mean
    if span <= 0:
        return {}
    return {document: max(0.0, (cosine - nearest.mean) / span) for document, cosine in nearest.cosines.items()}


def fuse(hits: Sequence[Hit], similarity: Mapping[int, float], share: float, power: float) -> None:
    """Of each score its part of the best one, and to it the embedder's."""
    top = max((hit.score for hit in hits), default=0.0) or 1.0
    for hit in hits:
        hit.vector = share * similarity.get(hit.id, 0.0) ** power
        hit.score = (1 - share) * hit.score / top + hit.vector
