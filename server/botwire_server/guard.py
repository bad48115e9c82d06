"""Who may do what: a rule over ops, written once for every door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from botwire.errors import AccessDenied
from botwire.names import is_hidden
from botwire.ops import Access, Configure, Load, NamespaceRecord, Op, Policy

ORDER: Final[dict[Access, int]] = {"read": 0, "write": 1, "admin": 2}

LIMITS: Final = ("writes_per_day", "max_bytes", "max_items", "max_value_bytes")
"""The fields of a policy that say how much somebody may use: nobody sets them for himself."""


class Principal(Struct, frozen=True):
    """Who asks: what a key allows, and where."""

    id: str
    name: str
    access: Access = "read"
    scope: str = ""
    """A namespace and all below it; `""` is the whole store."""

    @property
    def is_operator(self) -> bool:
        """Whether this is an admin of the whole store: the one who reaches botwire's own, and sets limits."""
        return self.scope == "" and self.access == "admin"


LOCAL: Final = Principal("local", "local", "admin")
"""Whoever asks a server on loopback that wants no keys."""


def check(principal: Principal, ops: Sequence[Op]) -> None:
    """Raise `AccessDenied` unless the principal may do all of this.

    The answer never depends on what is stored: a namespace out of scope looks the same whether it is there or not.
    """
    rank = ORDER[principal.access]
    for op in ops:
        if ORDER[op.access] > rank:
            raise AccessDenied(f"this key allows to {principal.access}, and {type(op).__name__.lower()} is {op.access}")
        if not allows(principal, op.namespace):
            raise AccessDenied(f"this key reaches {_reach(principal)} alone, not {op.namespace!r}")
        if rank == ORDER["admin"] and principal.scope:
            _check_limits(op)


def allows(principal: Principal, namespace: str) -> bool:
    """Whether the namespace, and so all below it, is in the principal's reach."""
    if is_hidden(namespace):  # botwire's own, keys and audit: whatever a scope says
        return principal.is_operator
    scope = principal.scope
    return not scope or namespace == scope or namespace.startswith(scope + "/")


def _reach(principal: Principal) -> str:
    return repr(principal.scope) if principal.scope else "what is not botwire's own"


def _check_limits(op: Op) -> None:
    """An admin of a part of the store sets what is kept there, not how much of the store it may use."""
    match op:
        case Configure(policy=policy):
            _refuse_limits(policy)
        case Load(records=records):
            for record in records:
                if isinstance(record, NamespaceRecord):
                    _refuse_limits(record.policy)
        case _:
            pass


def _refuse_limits(policy: Policy) -> None:
    own = [field for field in LIMITS if getattr(policy, field) is not None]
    if own:
        raise AccessDenied(f"{', '.join(own)}: set by admins of the whole store alone; leave it out of the policy")
