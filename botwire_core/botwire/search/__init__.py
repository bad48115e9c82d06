"""Search: what any store's index needs to find and rank. Pure functions; an engine brings its `Index`."""

from .finding import find, for_embedder
from .index import Index, Nearest, Postings, Row, Scope
from .ranking import Hit
from .snippets import snippet

__all__ = ["Hit", "Index", "Nearest", "Postings", "Row", "Scope", "find", "for_embedder", "snippet"]
