"""What an embedder adds: a weighted sum of scores, before sessions and authors weigh in.

Fusing by rank measured worse: it knows nothing of how far apart two scores are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .documents import ASKS
from .index import Nearest, Row

if TYPE_CHECKING:
    from .ranking import Hit, Weights


def scaled(nearest: Nearest, documents: int) -> dict[int, float]:
    """Cosines in a scope of so many documents as 0..1: 0 at the scope's mean, 1 at its best."""
    top = max(nearest.cosines.values(), default=0.0)
    span = top - nearest.mean
    if documents == 1:  # its own mean tells nothing
        return {document: 1.0 for document, cosine in nearest.cosines.items() if cosine > 0}
    if span <= 0:
        return {}
    return {document: max(0.0, (cosine - nearest.mean) / span) for document, cosine in nearest.cosines.items()}


def fuse(hits: Sequence[Hit], similarity: Mapping[int, float], rows: Mapping[int, Row], weights: Weights) -> None:
    """Of each score its part of the best one, and to it the embedder's."""
    top = max((hit.score for hit in hits), default=0.0) or 1.0
    near = {document: similar**weights.vector_power for document, similar in similarity.items()}
    for hit in hits:
        own = near.get(hit.id, 0.0)
        row, before = rows[hit.id], rows.get(hit.id - 1)
        if before and before.flags & ASKS and before.session == row.session is not None:
            own += weights.vector_answer * near.get(hit.id - 1, 0.0) * weights.less_if_long(row.words)
        hit.vector = weights.vector * own
        hit.score = (1 - weights.vector) * hit.score / top + hit.vector
