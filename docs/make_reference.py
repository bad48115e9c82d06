"""Writes docs/reference.md from the docstrings: `python docs/make_reference.py`.

With `--check` it writes nothing and fails when the file is not what it would write. Reading the code is done by
griffe, which does not run it; only the command line's help is asked of the program itself.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import griffe

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"

INTRODUCTION = """\
# API reference

Made from the docstrings by `python docs/make_reference.py`; a test fails when it is out of date.
`AsyncMemory` and `AsyncConversation` have the same methods, awaited, and are listed with their twins.
"""

# What is shown, in this order: a heading, the module, and the names in it (none: all its public classes).
PARTS: list[tuple[str, str, list[str] | None]] = [
    ("Memory", "botwire.memory", ["Memory"]),
    ("Batch", "botwire.batch", ["BatchOps"]),
    ("Conversation", "botwire.conversation", ["Conversation"]),
    ("Twins for an event loop", "botwire.async_memory", ["AsyncMemory"]),
    (
        "What is stored, and what comes back",
        "botwire.ops",
        [
            "Item",
            "Revision",
            "Message",
            "Change",
            "Meta",
            "Policy",
            "NamespaceInfo",
            "ConversationInfo",
            "Removed",
            "Erased",
        ],
    ),
    ("Errors", "botwire.errors", []),
    ("Tools for agents", "botwire.tools", ["Tool", "call", "acall", "remember", "recall", "forget", "list_memories"]),
    ("What adapters begin with", "botwire.adapting", ["Place", "memory_for", "missing"]),
    ("Names", "botwire.names", None),
    ("Values", "botwire.values", None),
    ("Filters", "botwire.where", None),
    ("Environment variables", "botwire.settings", None),
    ("Stores and URLs", "botwire.stores.opening", None),
    ("The seam", "botwire.stores.base", ["Store", "AsyncStore"]),
    ("The embedded store", "botwire.stores.sqlite.store", ["SQLiteStore"]),
    (
        "Ops",
        "botwire.ops",
        [
            "Op",
            "Get",
            "Scan",
            "History",
            "Messages",
            "Conversations",
            "Changes",
            "Describe",
            "Namespaces",
            "Dump",
            "Put",
            "Delete",
            "Touch",
            "NewMessage",
            "Append",
            "Edit",
            "Trim",
            "Clear",
            "Erase",
            "Configure",
            "Load",
        ],
    ),
    ("Export format", "botwire.transfer", None),
    ("Test fixtures", "botwire.testing", []),
]

# Shown by their docstring alone: their methods are listed with the twin.
WITHOUT_METHODS = {"AsyncMemory", "AsyncStore"}
NOT_FOR_USERS = {"check", "submit"}
CONSTRUCTORS = {"Memory": "handle.Handle.__init__", "SQLiteStore": "stores.sqlite.store.SQLiteStore.__init__"}
MAPPING = """\
#### As a mapping

* `memory[key]`, `del memory[key]`: as `get` and `delete`, but `NotFound` (a `KeyError`) if the key is not there.
* `memory[key] = value`: as `set`.
* `key in memory`, `len(memory)`, `for key in memory`: the keys that can be read now.
* `bool(memory)` is always true: an empty memory is still one.
"""


def render() -> str:
    """The whole page."""
    package = cast("griffe.Module", griffe.load("botwire", search_paths=[str(ROOT / "botwire_core")]))
    lines = [INTRODUCTION]
    lines += [f"* [{title}](#{_anchor(title)})" for title, _, _ in PARTS] + ["* [Command line](#command-line)", ""]
    for title, path, names in PARTS:
        module = cast("griffe.Module", package[path.partition(".")[2]])
        lines += [f"## {title}", "", *_part(module, names)]
    lines += ["## Command line", "", *_command_line()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _part(module: griffe.Module, names: list[str] | None) -> Iterator[str]:
    """What is shown of a module: the named classes; or its docstring, with all its classes ([]) or none (None)."""
    if not names:
        yield from _prose(module)
    if module.path == "botwire.settings":
        yield from _variables(module)
    if names is None:
        return
    for name in names or [name for name, each in module.members.items() if _is_shown(name, each)]:
        member = module.members[name]
        if isinstance(member, griffe.Class):
            yield from _class(member, short=module.path == "botwire.errors")
        elif isinstance(member, griffe.Function):
            yield from _function(member, member.name)


def _is_shown(name: str, member: griffe.Object | griffe.Alias) -> bool:
    return not name.startswith("_") and not member.is_alias and (member.is_class or member.is_function)


def _variables(module: griffe.Module) -> Iterator[str]:
    table = cast("griffe.Attribute", module["VARIABLES"]).value
    for name, text in ast.literal_eval(str(table)).items():
        yield f"* `{name}`: {text}"
    yield ""


# ── classes and functions ───────────────────────────────────────────────────────────────────────────


def _class(each: griffe.Class, *, short: bool) -> Iterator[str]:
    bases = ", ".join(str(base) for base in each.bases)
    if short:  # the errors: their tree stands above them
        yield f"* **`{each.name}`** ({bases}): {' '.join(_text(each).split())}"
        yield ""
        return
    yield f"### `{each.name}`"
    yield ""
    if each.name in CONSTRUCTORS:
        constructor = cast("griffe.Function", each.package[CONSTRUCTORS[each.name]])
        yield from ("```py", _signature(constructor, each.name), "```", "")
    yield from _prose(each)
    if "result" in each.members and each.name != "Op":
        access = str(_value(each, "access") or "read").strip("'\"")
        yield f"Access: {access}. Answer: `{_value(each, 'result')}`."
        yield ""
    yield from _fields(each)
    if each.name in WITHOUT_METHODS:
        return
    for method in _members(each):
        if isinstance(method, griffe.Function) and not method.name.startswith("_") and method.name not in NOT_FOR_USERS:
            yield from _function(method, f"{each.name}.{method.name}")
    if each.name == "Memory":
        yield MAPPING


def _value(each: griffe.Class, name: str) -> Any:
    return getattr(each.members.get(name), "value", None)


def _members(each: griffe.Class) -> Iterator[griffe.Object | griffe.Alias]:
    """The members of a class, after those of a private class that it builds on."""
    for base in each.bases:
        if str(base).startswith("_"):
            yield from cast("griffe.Class", each.module[str(base)]).members.values()
    yield from each.members.values()


def _fields(each: griffe.Class) -> Iterator[str]:
    fields = [
        member
        for member in _members(each)
        if isinstance(member, griffe.Attribute)
        and not member.name.startswith("_")
        and "ClassVar" not in str(member.annotation)
        and ("property" in member.labels or each.module.path == "botwire.ops")
        and member.name not in ("access", "result")
    ]
    for field in fields:
        default = "" if field.value is None else f" = {field.value}"
        text = " ".join(_text(field).split())
        computed = "property" in field.labels
        yield f"* `{field.name}: {field.annotation}{'' if computed else default}`{': ' + text if text else ''}"
    if fields:
        yield ""


def _function(each: griffe.Function, title: str) -> Iterator[str]:
    yield f"#### `{title}`"
    yield ""
    yield "```py"
    yield _signature(each, title)
    yield "```"
    yield ""
    yield from _prose(each)


def _signature(each: griffe.Function, title: str) -> str:
    parts: list[str] = []
    keywords = False
    for parameter in each.parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not keywords:
            parts.append("*")
        keywords = keywords or parameter.kind in (
            griffe.ParameterKind.keyword_only,
            griffe.ParameterKind.var_positional,
        )
        stars = "*" if parameter.kind is griffe.ParameterKind.var_positional else ""
        written = stars + parameter.name
        if parameter.annotation is not None:
            written += f": {parameter.annotation}"
        if parameter.default is not None and not stars:
            written += f" = {parameter.default}" if parameter.annotation is not None else f"={parameter.default}"
        parts.append(written)
    one_line = f"{title}({', '.join(parts)}) -> {each.returns}"
    if len(one_line) <= 110:
        return one_line
    return f"{title}(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {each.returns}"


# ── docstrings ──────────────────────────────────────────────────────────────────────────────────────


def _text(each: griffe.Object) -> str:
    return each.docstring.value.strip() if each.docstring is not None else ""


def _prose(each: griffe.Object) -> Iterator[str]:
    """A docstring as Markdown: arguments as a list, examples and indented text as code."""
    if not (text := _text(each)):
        return
    for paragraph in re.split(r"\n\n+", text):
        if paragraph.startswith(">>>"):
            yield f"```pycon\n{paragraph}\n```"
        elif paragraph.startswith("Args:"):
            yield re.sub(r"\n {5,}", " ", re.sub(r"(?m)^    (\w+): ", r"* `\1`: ", paragraph.partition("\n")[2]))
        elif re.search(r"\S {3,}\S", paragraph):  # a table or a tree
            yield f"```text\n{textwrap.dedent(paragraph)}\n```"
        else:
            yield paragraph
        yield ""


# ── the command line ────────────────────────────────────────────────────────────────────────────────


def _command_line() -> Iterator[str]:
    sys.path.insert(0, str(ROOT / "botwire_core"))
    import click

    from botwire.cli import cli

    yield from _commands(cli, click.Context(cli, info_name="botwire"))


def _commands(command: Any, context: Any) -> Iterator[str]:
    """A command and those below it."""
    yield from _command(command, context)
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        below = command.get_command(context, name)
        if not below.hidden:
            yield from _commands(below, type(context)(below, info_name=name, parent=context))


def _command(command: Any, context: Any) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### `{context.command_path}`"
    yield ""
    yield "```text"
    yield f"{context.command_path} {usage}"
    yield "```"
    yield ""
    yield from _help_text(command.help)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield f"* `{record[0]}`: {record[1]}"
    yield ""
    yield from _help_text(command.epilog)


def _help_text(text: str | None) -> Iterator[str]:
    """Click's help as Markdown: what is marked as laid out by hand becomes a block."""
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        laid_out = paragraph.startswith("\b\n")
        yield f"```text\n{paragraph[2:]}\n```" if laid_out else paragraph
        yield ""


def _main() -> int:
    page = render()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(page, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == page:
        return 0
    sys.stderr.write("docs/reference.md is out of date: run `python docs/make_reference.py`\n")
    return 1


if __name__ == "__main__":
    sys.exit(_main())
