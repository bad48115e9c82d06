"""The rules for names: namespaces, keys, conversations, message ids, tags, authors.

A name is Unicode text of 1 to 512 bytes (UTF-8) without control characters. In a namespace `/`
separates levels, none of them empty; everywhere else it is a character like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import InvalidInput, TooLarge

MAX_NAME_BYTES = 512
MAX_TAGS = 32

# C0 and C1 controls and DEL; lone surrogates have no UTF-8 form. {1,128}: at most 512 bytes whatever the script.
_allowed = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+").fullmatch
_short = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}").fullmatch


def check_name(name: str, what: str) -> None:
    """Raise `InvalidInput` unless `name` is a valid name. `what` says what it names: "key", "author"."""
    if type(name) is not str:
        if not isinstance(name, str):
            raise InvalidInput(f"{what} must be a str, not {type(name).__name__}: {name!r}")
        raise InvalidInput(f"{what} must be a plain str, not {type(name).__name__}: pass str({name!r})")
    if _short(name):
        return
    if not name:
        raise InvalidInput(f"{what} is empty: give it at least one character")
    if not _allowed(name):
        raise InvalidInput(f"{what} {name[:80]!r} holds a control character or half a surrogate pair: remove it")
    check_size(name, what)


def is_name(name: str) -> bool:
    """Whether this can name something at all: what cannot is found nowhere."""
    return _allowed(name) is not None


def check_size(name: str, what: str) -> None:
    """Raise `TooLarge` if `name` takes more than 512 bytes in UTF-8."""
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise TooLarge(f"{what} {name[:40]!r}… is {size} bytes long: the limit is {MAX_NAME_BYTES}")


def check_prefix(prefix: str, what: str) -> None:
    """Like `check_name`, but the empty string (everything) is welcome."""
    if prefix or not isinstance(prefix, str):
        check_name(prefix, what)


def check_namespace(name: str, *, root: bool = False) -> None:
    """Raise `InvalidInput` unless `name` is a namespace; `root` also admits `""`, the whole store."""
    if root and name == "":
        return
    check_name(name, "namespace")
    if "/" in name and "" in name.split("/"):
        raise InvalidInput(f"namespace {name!r} has an empty level: write it without a leading, trailing or double '/'")


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags as a sorted tuple without doubles."""
    if isinstance(tags, str):
        raise InvalidInput(f"tags must be a list of strings: write tags=[{tags!r}]")
    checked = tuple(tags)
    for tag in checked:
        check_name(tag, "tag")
    if len(checked) > MAX_TAGS:
        raise TooLarge(f"{len(checked)} tags: the limit is {MAX_TAGS}")
    return tuple(sorted(set(checked)))


def is_hidden(namespace: str) -> bool:
    """Whether the namespace is botwire's own (API keys, audit): it begins with a dot.

    As with the files of a folder, a look at the whole store (`""`) leaves those out; one asks for them by name.
    """
    return namespace.startswith(".")


def ancestors(namespace: str) -> list[str]:
    """Every subtree that holds the namespace, itself first and `""`, which holds no hidden ones, last.

    >>> ancestors("acme/eu/user-42")
    ['acme/eu/user-42', 'acme/eu', 'acme', '']
    """
    levels = namespace.split("/") if namespace else []
    top = 0 if is_hidden(namespace) else -1
    return ["/".join(levels[:count]) for count in range(len(levels), top, -1)]


def within(namespace: str, scope: str) -> bool:
    """Whether the namespace is `scope` or lies below it; `""` holds all but the hidden ones."""
    if not scope:
        return not is_hidden(namespace)
    return namespace == scope or namespace.startswith(scope + "/")
