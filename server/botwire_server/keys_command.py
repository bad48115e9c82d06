"""`botwire keys`: make, list and revoke API keys.

It speaks to the store itself, by the URL that every command takes: a file, or a server with an admin key of the whole
store. The secret is made here, so that a server never sees more of it than its hash.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from botwire.errors import BotWireError, InvalidInput, NotFound
from botwire.names import check_name, check_namespace

if TYPE_CHECKING:
    from botwire import Memory
    from botwire.ops import Item

    from .keys import Key

ACCESS: Final = {
    "read": "read",
    "write": "read and write",
    "admin": "read, write, erase, import and configure",
}
_UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}  # seconds


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


# ── create ──────────────────────────────────────────────────────────────────────────────────────────


def _expiry(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """`90d`, or a time with its zone, as microseconds since 1970."""
    if text is None:
        return None
    span = re.fullmatch(r"([0-9]{1,5})([mhdw])", text)
    now = datetime.now(UTC).timestamp()
    if span:
        return round((now + int(span[1]) * _UNITS[span[2]]) * 1_000_000)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time: write 90d, 12h, or 2027-01-31T12:00:00Z") from None
    if when.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no time zone: end it with Z for UTC, or +02:00")
    if when.timestamp() <= now:
        raise click.BadParameter(f"{text!r} is in the past")
    return round(when.timestamp() * 1_000_000)


@keys.command()
@click.option("--name", required=True, help="Whose key it is, or what for: the list and the audit show it.")
@click.option("--scope", default="", metavar="NAMESPACE", help="That namespace and all below it.  [default: all]")
@click.option(
    "--access",
    type=click.Choice([*ACCESS]),
    default="write",
    show_default=True,
    help="write: reading as well; admin: erasing, importing and configuring as well.",
)
@click.option("--expires", callback=_expiry, metavar="WHEN", help="After 90d, 12h, or at 2027-01-31T12:00:00Z.")
@click.pass_obj
def create(where: Any, name: str, scope: str, access: Any, expires: int | None) -> None:
    """Make an API key and print it, this once.

    Only its hash is kept, so a lost key cannot be shown again: revoke it, and make another.
    """
    from .keys import new_key  # here, so that --help is quick

    _check_input(name, scope)
    memory = _memory(where, new=True)
    key_id, key, secret = new_key(name, access, scope, expires)
    memory.set(key_id, key, if_version=0, history=False)
    _tell(f"{key_id}: may {ACCESS[access]}, in {scope or 'the whole store'}, {_until(expires)}")
    _tell("This is the key; it is not kept, and cannot be shown again:")
    click.echo(secret)


def _check_input(name: str, scope: str) -> None:
    from botwire.names import is_hidden

    check_name(name, "name")
    check_namespace(scope, root=True)
    if is_hidden(scope):
        raise InvalidInput(f"scope {scope!r} is botwire's own: an admin key of the whole store reaches it")


def _until(expires: int | None) -> str:
    return "until it is revoked" if expires is None else f"until {_time(expires)}"


# ── list and revoke ─────────────────────────────────────────────────────────────────────────────────


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="An object a line.")
@click.pass_obj
def list_(where: Any, as_json: bool) -> None:
    """List the API keys: id, access, scope, name, and until when they are valid. Never the keys themselves."""
    for item in _memory(where).items():
        key = _read(item)
        if as_json:
            click.echo(json.dumps(_record(item.key, key), ensure_ascii=False))
        elif key is None:
            click.echo(f"{item.key}  (no API key that this version can read)")
        else:
            scope = key.scope or "(whole store)"
            click.echo(f"{item.key}  {key.access:5}  {scope:24}  {_state(key):26}  {_plain(key.name)}")


def _record(key_id: str, key: Key | None) -> dict[str, Any]:
    if key is None:
        return {"id": key_id, "valid": False}
    return {
        "id": key_id,
        "name": key.name,
        "access": key.access,
        "scope": key.scope,
        "created": _time(key.created),
        "expires": None if key.expires is None else _time(key.expires),
        "valid": not _is_expired(key),
    }


def _state(key: Key) -> str:
    if key.expires is None:
        return "no expiry"
    return f"{'expired' if _is_expired(key) else 'until'} {_time(key.expires)}"


def _is_expired(key: Key) -> bool:
    return key.expires is not None and key.expires <= datetime.now(UTC).timestamp() * 1_000_000


@keys.command()
@click.argument("key_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def revoke(where: Any, key_ids: tuple[str, ...]) -> None:
    """Revoke API keys by their ids, all in one go.

    Servers refuse them within a moment, and end the streams that they have open.
    """
    from botwire.ops import Delete

    memory = _memory(where)
    wanted = [_id_of(key_id) for key_id in key_ids]
    missing = [key_id for key_id in wanted if key_id not in memory]
    if missing:
        raise NotFound(f"no API key {', '.join(missing)}: see `botwire keys list`; nothing was revoked")
    memory.execute([Delete(memory.namespace, key_id, history=False) for key_id in dict.fromkeys(wanted)])
    _tell(f"revoked {', '.join(dict.fromkeys(wanted))}")


def _id_of(text: str) -> str:
    """The id; somebody in a hurry gives the whole key."""
    found = re.fullmatch("(?:bw_)?([0-9a-f]{12})(?:_[0-9a-f]*)?", text)
    if not found:
        raise InvalidInput("an id has 12 hexadecimal digits: see `botwire keys list`")
    return found[1]


# ── what they share ─────────────────────────────────────────────────────────────────────────────────


def _memory(where: Any, *, new: bool = False) -> Memory:
    """The namespace of the keys, in the store that the global options name."""
    from .keys import NAMESPACE

    if where.given_namespace is not None:
        raise click.UsageError("keys are of the whole store: leave out -n, and say --scope")
    memory: Memory = type(where)(where.url, NAMESPACE).memory(new=new)
    return memory


def _read(item: Item) -> Key | None:
    from .keys import Key

    try:
        found: Key = item.value_as(Key)
    except BotWireError:  # of a newer version, or not written by botwire: it opens nothing
        return None
    return found


def _time(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _plain(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _tell(text: str) -> None:
    click.echo(text, err=True)
