"""The JSON Schemas of what travels: from the structs, what their source says of the fields, and what they check."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final, cast, get_args

import msgspec

from botwire import ops, wire

from .constraints import CONSTRAINTS, FILTER, FILTER_ITSELF, OWN, TIME, TIME_TEXT, WHOLE, Schema
from .doors import Door, Media
from .examples import EXAMPLES

OPS: Final[tuple[type[ops.Op], ...]] = get_args(ops.AnyOp)
REF: Final = "#/components/schemas/{name}"


def kinds_of(door: Door) -> list[Any]:
    """Everything that a door takes or answers."""
    found: list[Any] = [door.body]
    for kind in door.answers.values():
        found += kind if isinstance(kind, tuple) else (kind,)
    return [each for each in found if each is not None]


def schemas_of(doors: Sequence[Door]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """The schema of each type that travels, and the components that these refer to."""
    kinds = list(dict.fromkeys(kind for door in doors for kind in kinds_of(door) if not isinstance(kind, Media)))
    kinds += [each for each in (wire.Problem, *(op.result for op in OPS)) if each not in kinds]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    structs = {each.__name__: each for each in _structs(kinds)}
    sent = {each.__name__ for each in _structs([*OPS, *(door.body for door in doors if isinstance(door.body, type))])}
    for label, schema in components.items():
        _describe(schema, structs[label])
        if label in sent:
            _narrow(schema, label)
            schema.update(WHOLE.get(label, {}))
        if label in EXAMPLES:
            schema["examples"] = [EXAMPLES[label]]
    components["Filter"] = FILTER_ITSELF
    _classes.cache_clear()
    return dict(zip(kinds, schemas, strict=True)), components


def _structs(kinds: Iterable[Any]) -> set[type[msgspec.Struct]]:
    """Every struct that is part of these types."""
    found: set[type[msgspec.Struct]] = set()
    left: list[Any] = list(msgspec.inspect.multi_type_info(list(kinds)))
    while left:
        each = left.pop()
        if isinstance(each, msgspec.inspect.StructType):
            if each.cls not in found:
                found.add(each.cls)
                left += [field.type for field in each.fields]
        elif isinstance(each, msgspec.inspect.UnionType):
            left += each.types
        elif (inner := getattr(each, "item_type", None)) is not None:
            left.append(inner)
    return found


def _describe(schema: Schema, struct: type[msgspec.Struct]) -> None:
    """Add what the code says of a struct and of its fields."""
    schema["description"] = inspect.cleandoc(struct.__doc__ or "")
    if issubclass(struct, ops.Op):
        schema["description"] += f" Answers: {_told(struct.result)}."
        if "subtree" in schema["properties"]:
            default: bool = schema["properties"]["subtree"]["default"]
            schema["anyOf"] = [_NO_ROOT, _subtree(is_default=default)]
    for name, text in field_docs(struct).items():
        if name in schema["properties"]:
            schema["properties"][name]["description"] = text


_NO_ROOT: Final = {"properties": {"namespace": {"minLength": 1}}}
_ROOTED: Final = ("Describe", "Configure")


def _subtree(*, is_default: bool) -> Schema:
    """That an op reaches a subtree: only then its namespace may be the root of all."""
    return {"properties": {"subtree": {"const": True}}, **({} if is_default else {"required": ["subtree"]})}


def _told(kind: Any) -> str:
    """A type as text: `Item | None` as "Item or null"."""
    text = str(kind) if get_args(kind) else kind.__name__
    return (
        re.sub(r"[\w.]+\.(\w+)", r"\1", text).replace(" | ", " or ").replace("None", "null").replace("Raw", "{value}")
    )


def field_docs(struct: type) -> dict[str, str]:
    """The strings that stand below a struct's fields in its source."""
    docs: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        definition = _classes(each.__module__).get(each.__name__)
        for field, below in pairwise(definition.body if definition is not None else ()):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                docs[cast("ast.Name", field.target).id] = inspect.cleandoc(ast.literal_eval(below.value))
    return docs


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes in a module's source; of a module that is not ours, none."""
    if not module.startswith("botwire"):
        return {}
    source = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: each for each in source.body if isinstance(each, ast.ClassDef)}


def _narrow(schema: Schema, label: str) -> None:
    """Add what is checked in code to the schema of something that is sent here."""
    for name, own in schema["properties"].items():
        if name == "where":
            own["anyOf"][0] = FILTER
        rule = OWN.get((label, name)) or CONSTRAINTS.get(name)
        if rule is None or (own.get("default") == "" and "minLength" in rule):
            continue
        branches: list[Schema] = own.get("anyOf", [own])
        for branch in branches:
            narrower = TIME_TEXT if rule is TIME and branch.get("type") == "string" else rule
            if branch.get("type") == narrower["type"]:
                branch.update({key: value for key, value in narrower.items() if key != "description"})
        if name == "namespace" and (label in _ROOTED or "anyOf" in schema):
            own.update({"minLength": 0, "pattern": f"^$|{rule['pattern']}"})
