"""One of each op, in a namespace of one's choice: for tests that must not forget one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from msgspec import Raw

from botwire import ops
from botwire.ops import AnyOp, Op, Policy

VALUE = Raw(b'"x"')

MAKE: dict[type[Op], Callable[[str], Op]] = {
    ops.Value: lambda ns: ops.Value(ns, "k"),
    ops.Get: lambda ns: ops.Get(ns, "k"),
    ops.Scan: lambda ns: ops.Scan(ns, subtree=True),
    ops.History: lambda ns: ops.History(ns, "k"),
    ops.Messages: lambda ns: ops.Messages(ns, "talk"),
    ops.Conversations: lambda ns: ops.Conversations(ns, subtree=True),
    ops.Changes: lambda ns: ops.Changes(ns, "", subtree=True),
    ops.Describe: ops.Describe,
    ops.Namespaces: ops.Namespaces,
    ops.Dump: ops.Dump,
    ops.Search: lambda ns: ops.Search(ns, "x", subtree=True),
    ops.Unembedded: lambda ns: ops.Unembedded(ns, "model", subtree=True),
    ops.Embed: lambda ns: ops.Embed(ns, "model", 1, [], subtree=True),
    ops.Index: lambda ns: ops.Index(ns, subtree=True),
    ops.Put: lambda ns: ops.Put(ns, "k", VALUE),
    ops.Delete: lambda ns: ops.Delete(ns, "k"),
    ops.Touch: lambda ns: ops.Touch(ns, "k", 60.0),
    ops.Append: lambda ns: ops.Append(ns, "talk", [ops.NewMessage(VALUE, "m1")]),
    ops.Edit: lambda ns: ops.Edit(ns, "talk", "m1", VALUE),
    ops.Trim: lambda ns: ops.Trim(ns, "talk", keep=0),
    ops.Clear: ops.Clear,
    ops.Erase: lambda ns: ops.Erase(ns, key="k"),
    ops.Configure: lambda ns: ops.Configure(ns, Policy(history=3)),
    ops.Load: lambda ns: ops.Load(ns, [ops.NamespaceRecord(1, 1, 1), ops.EndRecord(1, 0, 0)]),
}


def kinds() -> list[type[Op]]:
    """Every op there is: one that has no sample yet fails here."""
    known: list[type[Op]] = list(get_args(AnyOp))
    missing = [kind.__name__ for kind in known if kind not in MAKE]
    assert not missing, f"add a sample of {missing} to {__file__}, and think about who may do it"
    return known


def sample(kind: type[Op], namespace: str) -> Op:
    """An op of this kind there."""
    return MAKE[kind](namespace)


def everything(namespace: str) -> list[Any]:
    """One of each op."""
    return [sample(kind, namespace) for kind in kinds()]
