"""`botwire`: the command line.

Each command is one function. What takes long to import is imported inside, so that `botwire --help` is quick.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import click

from . import __version__
from .errors import BotWireError, Conflict, HistoryExpired, InvalidInput, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .memory import Memory
    from .ops import ConversationInfo, Hit, Item, Message, NamespaceInfo, Revision
    from .stores.opening import Address
    from .stores.sqlite.upkeep import Check

NOTHING, BAD_INPUT, TROUBLE, INTERRUPTED, PIPE_CLOSED = (
    1,
    2,
    3,
    130,
    141,
)  # exit codes; the last two as shells have them

_HELP = """
The memory that stays: look into it, change it, and keep it safe.

\b
botwire set coffee '"Ethiopian Yirgacheffe"'
botwire get coffee
botwire -n user-42 ls --long
"""
_EPILOG = """
\b
Exit codes:
  0    done
  1    not there, nothing to do, or somebody else was first (--if-version)
  2    wrong usage or bad input
  3    trouble with the store: its file, the disk, a limit
  130  interrupted
  141  whoever read the output went away
(`botwire doctor` has its own.)
"""


# ── how it runs ─────────────────────────────────────────────────────────────────────────────────────


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line, and exit with its code."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="botwire", standalone_mode=False)
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BotWireError as error:
        _say("error: " + " ".join(str(error).split()))
        return _exit_code(error)
    return code if isinstance(code, int) else 0


def _exit_code(error: BotWireError) -> int:
    match error:
        case NotFound() | Conflict() | HistoryExpired():
            return NOTHING
        case InvalidInput():
            return BAD_INPUT
        case _:
            return TROUBLE


def _leave_pipe() -> int:
    """`botwire ls | head` has read enough: say nothing, not even when Python flushes at its end."""
    _drop_output()
    return PIPE_CLOSED


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _put_out(data: bytes) -> int:
    """Write to stdout; no data: flush it. A full disk behind it is trouble, not a traceback."""
    try:
        return sys.stdout.buffer.write(data) if data else sys.stdout.flush() or 0
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise BotWireError(f"the output cannot be written: {error.strerror}") from error


def _say(text: str) -> None:
    """One line for people, on stderr; what it cannot show is escaped."""
    click.echo(text.encode("utf-8", "backslashreplace").decode(), err=True)


def _note(text: str) -> None:
    """Say what was done, to somebody who is watching."""
    if sys.stderr.isatty():
        _say(text)


def _write(line: str | bytes) -> None:
    """One line on stdout, exactly, whatever the terminal's encoding; half a surrogate pair goes out as it is."""
    data = line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")
    _put_out(data + b"\n")


def _write_json(record: dict[str, Any], value: bytes | None = None) -> None:
    """An object on a line of its own; what is not there is left out. `value` is JSON that goes in as it is stored."""
    present = {name: field for name, field in record.items() if field is not None and field != []}
    line = json.dumps(present, ensure_ascii=False).encode()
    _write(line if value is None else line[:-1] + b', "value": ' + value + b"}")


class _Botwire(click.Group):
    """Takes in the commands that other packages add, and tells a closed pipe from a fault."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Our own commands and those of the entry point group `botwire.commands`."""
        return sorted({*super().list_commands(ctx), *_added_commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        own = super().get_command(ctx, cmd_name)
        if own is None and (entry := _added_commands().get(cmd_name)) is not None:
            command: click.Command = entry.load()
            return command
        return own

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Click exits with 1 when the pipe is closed, which means something else here."""
        try:
            result = super().invoke(ctx)
            _put_out(b"")  # here, where a closed pipe can still be told from a fault
        except BrokenPipeError:
            return _leave_pipe()
        return result


def _added_commands() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="botwire.commands")}


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}  # seconds


def _duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """`90`, `90s`, `15m`, `2h`, `7d` or `1w`, in seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text, re.ASCII)
    if not found:
        raise click.BadParameter(f"{text!r} is no duration: write seconds, or 15m, 2h, 7d, 1w")
    return float(found[1]) * _UNITS[found[2]]


def _moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | datetime | None:
    """A version, or a time with its zone."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 19:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no version and no time: write 3, or 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no time zone: end it with Z for UTC, or +02:00")
    return moment


def _time(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """A time with its zone."""
    moment = _moment(context, parameter, text)
    if isinstance(moment, int):
        raise click.BadParameter(f"{text!r} is no time: write 2026-01-31T12:00:00Z")
    return moment


class _Where:
    """What the global options say: where the memory is, and which namespace of it is meant."""

    def __init__(self, url: str | None, namespace: str | None) -> None:
        self.url = url
        self.given_namespace = namespace
        self.namespace = "default" if namespace is None else namespace

    def address(self) -> Address:
        """Where the store lies."""
        from .settings import check_environment
        from .stores import opening

        check_environment()
        return opening.address(opening.Asked(os.environ.get("BOTWIRE_URL") if self.url is None else self.url))

    def file(self) -> Path:
        """The store's file. Raises `InvalidInput` if it has none."""
        address = self.address()
        if address.kind != "sqlite" or address.place == ":memory:":
            raise InvalidInput("this command is about a file: name one with --url sqlite:///FILE")
        return Path(address.place)

    def memory(self, *, new: bool = False, embedder: str | None = None) -> Memory:
        """The memory that is meant. Unless it may be `new`, its store must be there: to read makes no files."""
        from .memory import Memory

        address = self.address()
        if address.kind == "sqlite" and address.place != ":memory:" and not new and not os.path.lexists(address.place):
            raise StoreUnavailable(f"there is no store at {address.place}: `botwire set` makes one; or see --url")
        memory = Memory(self.namespace, self.url, embedder=embedder)
        click.get_current_context().call_on_close(memory.close)
        return memory


_where = click.make_pass_decorator(_Where)


@click.group(cls=_Botwire, help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url",
    metavar="URL",
    help="sqlite:///FILE or http://HOST:PORT. By default BOTWIRE_URL, else a file in your data directory.",
)
@click.option("-n", "--namespace", metavar="NAME", help="Which namespace, such as acme/user-42.  [default: default]")
@click.version_option(__version__, "-V", "--version", prog_name="botwire", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, url: str | None, namespace: str | None) -> None:
    """The memory that stays: look into it, change it, and keep it safe."""
    ctx.obj = _Where(url, namespace)


# ── values ──────────────────────────────────────────────────────────────────────────────────────────


@cli.command()
@click.argument("key")
@click.option("--raw", is_flag=True, help="Print a string bare, without quotes.")
@click.option(
    "--as-of",
    callback=_moment,
    metavar="VERSION|TIME",
    help="As it was at a version, or at a time such as 2026-01-31T12:00:00Z.",
)
@_where
def get(where: _Where, key: str, raw: bool, as_of: int | datetime | None) -> int:
    """Print the value of KEY as JSON. Exits with 1, silently, if it is not there."""
    item = where.memory().item(key, as_of=as_of)
    if item is None:
        return NOTHING
    _write(item.value if raw and isinstance(item.value, str) else bytes(item.raw))
    return 0


@cli.command()
def keygen() -> None:
    """Print a new key for `encryption_key=`. Who loses it loses what was encrypted with it."""
    from .stores.encrypted import generate_key

    _write(generate_key())


@cli.command(name="set")
@click.argument("key")
@click.argument("value")
@click.option("--text", is_flag=True, help="VALUE is plain text, not JSON.")
@click.option("--ttl", callback=_duration, metavar="DURATION", help="How long it can be read: seconds, or 15m, 2h, 7d.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given several times.")
@click.option("--if-version", type=int, help="Only if this is its version now; 0: only if it is not there.")
@_where
def set_(
    where: _Where, key: str, value: str, text: bool, ttl: float | None, tags: tuple[str, ...], if_version: int | None
) -> None:
    """Store VALUE under KEY.

    VALUE is JSON; `-` reads it from stdin. Prints the new version. With --text a value from stdin loses the end of
    its last line, as $(...) does.
    """
    given = _stdin_text(text) if value == "-" else value
    plain = given if text else _parsed(given)
    item = where.memory(new=True).set(key, plain, ttl=ttl, if_version=if_version, tags=tags)
    _write(str(item.version))


def _stdin_text(bare: bool) -> str:
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"stdin is no UTF-8 text ({error}): values are JSON or text") from error
    return text.removesuffix("\n").removesuffix("\r") if bare else text


def _parsed(text: str) -> Any:
    """The value of a JSON text, with a hint for those who meant plain text."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidInput("the value is nested too deep: the limit is 128 levels") from None
    except ValueError as error:
        shown = text if len(text) <= 40 else text[:39] + "…"
        raise InvalidInput(f"{shown!r} is not JSON ({error}): put text in quotes ('\"…\"'), or pass --text") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


@cli.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--if-version", type=int, help="Only if this is its version now; for a single KEY.")
@_where
def delete(where: _Where, keys: tuple[str, ...], if_version: int | None) -> int:
    """Delete keys, all in one go. Exits with 1 if one of them was not there. Their past stays for `undo`."""
    from .ops import Delete

    if if_version is not None and len(keys) > 1:
        raise InvalidInput("--if-version is about a single key")
    memory = where.memory()
    wanted = list(dict.fromkeys(keys))
    results = memory.execute([Delete(memory.namespace, key, if_version) for key in wanted])
    missing = [key for key, stamp in zip(wanted, results, strict=True) if stamp is None]
    for key in missing:
        _say(f"no {key!r} in {memory.namespace!r}")
    return NOTHING if missing else 0


@cli.command()
@click.argument("key")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="An object a line.")
@_where
def history(where: _Where, key: str, limit: int, as_json: bool) -> int:
    """Print what KEY was, newest first.

    Version, time and value. Exits with 1 if there is nothing.
    """
    revisions = where.memory().history(key, limit=limit)
    for revision in revisions:
        if as_json:
            _write_json(_revision_record(revision), b"null" if revision.deleted else bytes(revision.raw))
        else:
            value = "(deleted)" if revision.deleted else bytes(revision.raw).decode()
            _write(f"{revision.version:>8}  {_clock(revision.at)}  {value}")
    return 0 if revisions else NOTHING


def _revision_record(revision: Revision) -> dict[str, Any]:
    return {
        "version": revision.version,
        "at": revision.at.isoformat(),
        "expires": None if revision.expires is None else _iso(revision.expires),
        "tags": list(revision.meta.tags),
        "author": revision.meta.author,
        "restored": revision.meta.restored,
        "deleted": revision.deleted or None,
    }


@cli.command()
@click.argument("key")
@_where
def undo(where: _Where, key: str) -> int:
    """Bring back the value before this one.

    Also after a delete. Prints it; again goes further back. Exits with 1 if there is nothing to undo.
    """
    item = where.memory().undo(key)
    if item is None:
        _say(f"there is nothing to undo for {key!r} in {where.namespace!r}")
        return NOTHING
    _write(bytes(item.raw))
    return 0


# ── listings ────────────────────────────────────────────────────────────────────────────────────────


@cli.command()
@click.option("--prefix", default="", help="Only names that begin so.")
@click.option("-l", "--long", "long_", is_flag=True, help="With versions, times and sizes.")
@click.option("--json", "as_json", is_flag=True, help="An object a line.")
@click.option("--conversations", "what", flag_value="conversations", help="List conversations.")
@click.option("--namespaces", "what", flag_value="namespaces", help="List namespaces: all, or those of --namespace.")
@_where
def ls(where: _Where, prefix: str, long_: bool, as_json: bool, what: str | None) -> None:
    """List keys, a line each, in order."""
    listing, row, record = _LISTINGS[what or "keys"]
    for entry in listing(where, prefix):
        if as_json:
            _write_json(record(entry))
        else:
            _write(row(entry) if long_ else record(entry)["name"])


def _list_keys(where: _Where, prefix: str) -> Iterator[Item]:
    from . import flows

    memory, op = where.memory(), flows.scan_op(where.namespace, prefix=prefix, values=False)
    return (item for page in _pages(memory, op) for item in page.items)


def _list_conversations(where: _Where, prefix: str) -> Iterator[ConversationInfo]:
    return where.memory().conversations(prefix)


def _list_namespaces(where: _Where, prefix: str) -> Iterator[NamespaceInfo]:
    from .ops import Namespaces

    pages = _pages(where.memory(), Namespaces(where.given_namespace or "", limit=500))
    return (each for page in pages for each in page.namespaces if each.name.startswith(prefix))


def _pages(memory: Memory, op: Any) -> Iterator[Any]:
    from . import flows

    while op is not None:
        page = memory.ask(op)
        yield page
        op = flows.next_page(op, page, None)


def _key_row(item: Item) -> str:
    return f"{item.version:>8}  {_clock(item.updated_at)}  {_clock(item.expires_at):20}  {item.key}"


def _key_record(item: Item) -> dict[str, Any]:
    return {
        "name": item.key,
        "version": item.version,
        "created": _iso(item.created),
        "updated": _iso(item.updated),
        "expires": None if item.expires is None else _iso(item.expires),
        "tags": list(item.tags),
        "author": item.author,
    }


def _conversation_row(talk: ConversationInfo) -> str:
    return f"{talk.messages:>8}  {_clock(talk.updated_at)}  {_size(talk.bytes):>10}  {talk.name}"


def _conversation_record(talk: ConversationInfo) -> dict[str, Any]:
    about = {"name": talk.name, "messages": talk.messages, "bytes": talk.bytes, "version": talk.version}
    return {**about, "created": _iso(talk.created), "updated": _iso(talk.updated)}


def _namespace_row(space: NamespaceInfo) -> str:
    from .ops import moment

    counts = f"{space.items:>8} items  {space.messages:>8} messages  {_size(space.bytes):>10}"
    return f"{counts}  {_clock(moment(space.updated))}  {space.name}"


def _namespace_record(space: NamespaceInfo) -> dict[str, Any]:
    return {
        "name": space.name,
        "items": space.items,
        "messages": space.messages,
        "conversations": space.conversations,
        "bytes": space.bytes,
        "version": space.version,
        "created": _iso(space.created),
        "updated": _iso(space.updated),
    }


_Listing = tuple[Callable[[_Where, str], Iterator[Any]], Callable[[Any], str], Callable[[Any], dict[str, Any]]]
_LISTINGS: dict[str, _Listing] = {
    "keys": (_list_keys, _key_row, _key_record),
    "conversations": (_list_conversations, _conversation_row, _conversation_record),
    "namespaces": (_list_namespaces, _namespace_row, _namespace_record),
}


def _iso(microseconds: int) -> str:
    from .ops import moment

    return moment(microseconds).isoformat()


def _clock(when: datetime | None) -> str:
    return "-" if when is None else f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _size(count: int) -> str:
    """Bytes, as people read them.

    >>> _size(800), _size(1_300_000)
    ('800 B', '1.2 MiB')
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


# ── search ──────────────────────────────────────────────────────────────────────────────────────────

_EMBEDDER = "openai:MODEL, openai:MODEL@URL, sentence-transformers:MODEL or fastembed:MODEL"


@cli.command()
@click.argument("query")
@click.option("--limit", type=click.IntRange(1, 1_000), default=10, show_default=True, help="How many, at most.")
@click.option(
    "--where", "filter_", metavar="JSON", help='Only values with such fields: \'{"city": {"$in": ["Rome"]}}\'.'
)
@click.option("--kind", type=click.Choice(["item", "message"]), help="Only these.")
@click.option("--conversation", metavar="NAME", help="Only messages of this conversation.")
@click.option("--tag", "tags", multiple=True, help="Only items with this tag; may be given several times.")
@click.option("--author", help="Only what this author wrote.")
@click.option("--since", callback=_time, metavar="TIME", help="Only what was said or set then or later.")
@click.option("--until", callback=_time, metavar="TIME", help="Only what was said or set before then.")
@click.option("--around", type=click.IntRange(0, 50), default=0, help="How many messages before and after to show.")
@click.option("--subtree", is_flag=True, help="The namespaces below, too.")
@click.option("--embedder", metavar="EMBEDDER", help=f"Find by meaning, too: {_EMBEDDER}.")
@click.option("--explain", is_flag=True, help="Show how each score came about.")
@click.option("--json", "as_json", is_flag=True, help="An object a line.")
@_where
def search(where: _Where, /, query: str, as_json: bool, explain: bool, embedder: str | None, **options: Any) -> int:
    """Find items and messages by what they say, best first.

    Exits with 1 if there are none.
    """
    filter_, kinds = options.pop("filter_"), options.pop("kind")
    memory = where.memory(embedder=embedder)
    fields = None if filter_ is None else _parsed(filter_)
    hits = memory.search(query, where=fields, kinds=kinds, explain=explain, **options)
    for hit in hits:
        if as_json:
            _write_json(_hit_record(hit), bytes(hit.found.raw))
        else:
            _show_hit(hit, memory.namespace)
    return 0 if hits else NOTHING


def _show_hit(hit: Hit, here: str) -> None:
    name = hit.key if hit.message is None else f"{hit.conversation} {hit.message.id}"
    space = "" if hit.namespace == here else f"{hit.namespace}  "
    for message in hit.before:
        _show_neighbour(message)
    _write(f"{hit.score:8.3f}  {space}{name}  {_one_line(hit.snippet)}")
    for message in hit.after:
        _show_neighbour(message)
    if hit.parts is not None:
        _write(f"{'':10}" + "  ".join(f"{part}={value:.3g}" for part, value in hit.parts.items()))


def _show_neighbour(message: Message) -> None:
    from .search import texts

    _write(f"{'':10}{message.conversation} {message.id}  {_one_line(texts.of_message(message.value))}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _hit_record(hit: Hit) -> dict[str, Any]:
    found = hit.message
    return {
        "score": hit.score,
        "namespace": hit.namespace,
        "key": hit.key,
        "conversation": hit.conversation,
        "id": None if found is None else found.id,
        "role": None if found is None else found.role,
        "author": hit.found.author,
        "at": _hit_time(hit).isoformat(),
        "snippet": hit.snippet,
        "parts": hit.parts,
        "before": [_message_record(each) for each in hit.before],
        "after": [_message_record(each) for each in hit.after],
    }


def _hit_time(hit: Hit) -> datetime:
    from .ops import Item

    return hit.found.updated_at if isinstance(hit.found, Item) else hit.found.at


def _message_record(message: Message) -> dict[str, Any]:
    return {"id": message.id, "role": message.role, "author": message.author, "value": message.value}


@cli.command()
@click.option("--afresh", is_flag=True, help="Forget the index first.")
@_where
def index(where: _Where, afresh: bool) -> None:
    """Make the search index of all namespaces, or of --namespace and those below it.

    Nothing needs it: searches take in what they need. It is there for large stores from before there was search. Cut
    off, it goes on where it was when it is called again (without --afresh).
    """
    from .ops import Describe, Index

    memory = where.memory()
    scope = where.given_namespace or ""
    about = memory.ask(Describe(scope))
    done = 0
    with _progress("indexing", about.items + about.messages if afresh else about.unindexed) as told:
        while True:
            made = memory.ask(Index(scope, subtree=True, afresh=afresh and not done, limit=2_000))
            done += made.done
            told(made.done)
            if not made.left:
                break
    _note(f"indexed {done:,} entries")


@cli.command()
@click.option("--embedder", required=True, metavar="EMBEDDER", help=f"{_EMBEDDER}.")
@click.option("--replace", is_flag=True, help="Replace the vectors of another embedder.")
@_where
def embed(where: _Where, embedder: str, replace: bool) -> None:
    """Embed what has no vector yet, in --namespace and those below it.

    Searches with an embedder do this little by little. Cut off, it goes on where it was when it is called again.
    """
    from .ops import Describe

    memory = where.memory(embedder=embedder)
    about = memory.ask(Describe(where.namespace))
    with _progress("embedding", about.items + about.messages if replace else about.unembedded) as told:
        shown = 0

        def report(done: int, _total: int) -> None:
            nonlocal shown
            told(done - shown)
            shown = done

        count = memory.embed(replace=replace, subtree=True, progress=report)
    _note(f"embedded {count:,} texts")


# ── moving ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _progress(label: str, total: int) -> Generator[Callable[[int], None]]:
    """A function to be told how much more is done; it draws a bar if somebody is watching."""
    if not sys.stderr.isatty():
        yield lambda more: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield bar.update


class _Counted:
    """Something to write an export to, which tells how many lines went through."""

    def __init__(self, write: Callable[[bytes], int], told: Callable[[int], None]) -> None:
        self._write = write
        self._told = told

    def write(self, line: bytes) -> int:
        """Write a line."""
        self._told(1)
        return self._write(line)


def _counted_lines(lines: Iterable[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    for line in lines:
        yield line
        told(len(line))


@cli.command()
@click.argument("file", default="-")
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
@_where
def export(where: _Where, file: str, force: bool) -> None:
    """Write the namespace to FILE as JSON Lines.

    Values, versions, times, history and conversations: `botwire import` makes an equal namespace of it. Without
    FILE, or with `-`, it goes to stdout.
    """
    from . import transfer

    memory = where.memory()
    about = memory.stats()
    if not about.created:
        raise NotFound(f"there is no namespace {memory.namespace!r}: see `botwire ls --namespaces`")
    if file != "-" and not force and os.path.lexists(file):
        raise InvalidInput(f"{file} exists: name another file, or overwrite it with --force")
    with _progress("exporting", about.items + about.messages + about.conversations) as told:
        if file == "-":
            end = memory.export(cast("BinaryIO", _Counted(_put_out, told)))
        else:
            with transfer.replacing(file) as stream:
                end = memory.export(cast("BinaryIO", _Counted(stream.write, told)))
    _note(f"exported {end.items:,} items and {end.messages:,} messages of {memory.namespace!r}")


@cli.command(name="import")
@click.argument("file")
@_where
def import_(where: _Where, file: str) -> None:
    """Read an export from FILE.

    The namespace must be empty. It takes in all or nothing. `-` reads stdin.
    """
    from . import transfer

    memory = where.memory(new=True)
    if file == "-":
        about = memory.load(transfer.read_batches(sys.stdin.buffer))
    else:
        with transfer.opened(file) as stream, _progress("importing", os.fstat(stream.fileno()).st_size) as told:
            about = memory.load(transfer.read_batches(_counted_lines(stream, told)))
    _note(f"imported {about.items:,} items and {about.messages:,} messages into {memory.namespace!r}")


# ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _pages_done(label: str) -> Generator[Callable[[int, int], None]]:
    """What backup and restore report to: pages done, of how many."""
    shown = 0
    with _progress(label, 1_000) as told:

        def report(done: int, total: int) -> None:
            nonlocal shown
            now = 1_000 * done // max(1, total)
            told(now - shown)
            shown = now

        yield report


@cli.command()
@click.argument("file")
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
@_where
def backup(where: _Where, file: str, force: bool) -> None:
    """Copy the whole store to FILE.

    All its namespaces, in one moment, while others go on using it. The copy is checked before it takes its name.
    """
    from .stores.sqlite import upkeep

    with _pages_done("backing up") as report:
        size = upkeep.backup(where.file(), file, force=force, progress=report)
    _note(f"{file}: {_size(size)}")


@cli.command()
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace a store that holds something, or is damaged.")
@_where
def restore(where: _Where, file: str, force: bool) -> None:
    """Bring the store back from a backup.

    It becomes what it was when FILE was backed up. FILE is checked before anything is touched. Programs that have
    the store open see the old one or the new one, and need not be ended.
    """
    from .stores.sqlite import upkeep

    path = where.file()
    if where.url is None and "BOTWIRE_URL" not in os.environ:  # the default place, which need not be there yet
        _make_folder(path.parent)
    with _pages_done("restoring") as report:
        size = upkeep.restore(file, path, force=force, progress=report)
    _note(f"{path}: {_size(size)}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"{folder} cannot be made ({error.strerror}): name a file with --url") from error


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="An object a line.")
@_where
def doctor(where: _Where, as_json: bool) -> int:
    """Check the store and say what to do.

    Changes nothing. Exits with 0 if all is sound, 1 if there are warnings, 2 if something has failed.
    """
    from .stores.sqlite import upkeep

    checks = upkeep.examine(where.file())
    for check in checks:
        if as_json:
            _write_json(check._asdict())
        else:
            _show_check(check)
    states = {check.state for check in checks}
    return 2 if "failed" in states else 1 if "warning" in states else 0


def _show_check(check: Check) -> None:
    state = f"{check.state:8}"
    if sys.stdout.isatty():
        state = click.style(state, fg={"ok": "green", "warning": "yellow", "failed": "red"}[check.state])
    _write(f"{state}{check.name:12} {check.found}")
    if check.advice:
        _write(f"{'':20} -> {check.advice}")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One object.")
@_where
def info(where: _Where, as_json: bool) -> None:
    """Print versions, place and sizes.

    Makes no file if there is none yet.
    """
    from .stores.sqlite import upkeep

    address = where.address()
    about: dict[str, Any] = {
        "botwire": __version__,
        "sqlite": upkeep.sqlite_version(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "store": address.place,
        "durability": address.durability or "the server's",
        "exists": address.kind != "sqlite" or address.place == ":memory:" or os.path.lexists(address.place),
    }
    if about["exists"]:
        about |= _contents(where)
    if as_json:
        _write(json.dumps(about, ensure_ascii=False))
        return
    for name, value in about.items():
        _write(f"{name + ':':16}{_shown(name, value)}")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _size(value) if name.endswith("bytes") else f"{value:,}"
    return str(value)


def _contents(where: _Where) -> dict[str, Any]:
    from .ops import Describe

    memory, path = where.memory(), Path(where.address().place)
    total = memory.ask(Describe(""))
    sizes = {"file_bytes": path.stat().st_size} if path.is_file() else {}
    log = path.with_name(path.name + "-wal")
    if log.is_file():
        sizes["log_bytes"] = log.stat().st_size
    return {
        **sizes,
        "namespaces": sum(1 for _ in _list_namespaces(_Where(where.url, None), "")),
        "items": total.items,
        "conversations": total.conversations,
        "messages": total.messages,
        "bytes": total.bytes,
        "unindexed": total.unindexed,
        "unembedded": total.unembedded,
    }


if __name__ == "__main__":
    main()
