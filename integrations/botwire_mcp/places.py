"""The addresses of what is remembered, as MCP resources: `botwire://NAMESPACE/items/KEY` and `…/conversations/NAME`."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote

Kind = Literal["items", "conversations"]
KINDS: Final[tuple[Kind, ...]] = ("items", "conversations")


class Place(NamedTuple):
    """What an address names."""

    namespace: str
    kind: Kind
    name: str


def uri(namespace: str, kind: Kind, name: str) -> str:
    """The address of an item or a conversation.

    >>> uri("acme/user-42", "items", "coffee")
    'botwire://acme%2Fuser-42/items/coffee'
    """
    return f"{prefix(namespace, kind)}{quote(name, safe='')}"


def prefix(namespace: str, kind: Kind) -> str:
    """What the addresses of a kind begin with."""
    return f"botwire://{quote(namespace, safe='')}/{kind}/"


def read(text: str) -> Place | None:
    """What an address names; `None` if it is none of ours.

    >>> read("botwire://acme%2Fuser-42/items/coffee")
    Place(namespace='acme/user-42', kind='items', name='coffee')
    """
    scheme, _, rest = text.partition("://")
    parts = rest.split("/")
    if scheme != "botwire" or len(parts) != 3 or parts[1] not in KINDS:
        return None
    return Place(unquote(parts[0]), parts[1], unquote(parts[2]))
