"""What LangGraph calls things, as names of botwire.

A namespace such as `("users", "ana")` becomes `graph/users/ana`, below the adapter's own. In a label `/`, `%` and what
botwire allows in no name (control characters, half a surrogate pair) are written as in a URL: `a/b` is `a%2Fb`.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from langgraph.store.base import GetOp, InvalidNamespaceError, validate_op_namespace

REMEMBERED = 10_000  # namespaces whose names need not be put together again

_special = re.compile("[%/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_escaped = re.compile("(?:%[0-9A-F]{2})+")


def escape(label: str) -> str:
    """The label as one level of a namespace.

    >>> escape("a/b 100%")
    'a%2Fb 100%25'
    """
    return _special.sub(lambda found: "".join(f"%{byte:02X}" for byte in _bytes(found[0])), label)


def unescape(level: str) -> str:
    """The label that `escape` made a level of.

    >>> unescape("a%2Fb 100%25")
    'a/b 100%'
    """
    return _escaped.sub(_unescaped, level) if "%" in level else level


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _unescaped(found: re.Match[str]) -> str:
    try:
        return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # a namespace that somebody else has named
        return found[0]


def short(text: str, most: int) -> str:
    """A level of at most `most` bytes: escaped, and if that is too long, its beginning and a digest.

    No two texts have the same one: `%~` is in no escaped text.
    """
    level = escape(text)
    data = level.encode()
    if len(data) <= most:
        return level
    digest = hashlib.sha256(_bytes(text)).hexdigest()
    return f"{data[: most - 66].decode(errors='ignore')}%~{digest}"


class Names:
    """The namespaces of a store, below its root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._name = lru_cache(REMEMBERED)(self._put_together)

    def of(self, labels: tuple[str, ...]) -> str:
        """The name of a namespace; no labels: the root. Raises `InvalidNamespaceError` for what is none."""
        if type(labels) is not tuple:
            labels = _as_tuple(labels)
        try:
            return self._name(labels)
        except TypeError:  # one of the labels is a list, perhaps
            validate_op_namespace(GetOp(labels, ""))
            raise

    def labels(self, name: str) -> tuple[str, ...]:
        """The labels of a namespace at or below the root."""
        if len(name) == len(self.root):
            return ()
        return tuple(map(unescape, name[len(self.root) + 1 :].split("/")))

    def _put_together(self, labels: tuple[str, ...]) -> str:
        validate_op_namespace(GetOp(labels, ""))
        return "/".join([self.root, *map(escape, labels)])


def _as_tuple(labels: object) -> tuple[str, ...]:
    if isinstance(labels, list | tuple):
        return tuple(labels)
    raise InvalidNamespaceError(
        f"a namespace is a tuple of labels, such as ('users', 'ana'), not {type(labels).__name__}: {labels!r}"
    )
