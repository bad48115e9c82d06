"""The schema, as numbered files that are never edited once released.

A file of an older schema is backed up beside itself before it is changed. Opening is done under the turnstile:
of many processes that open a new file at once, one makes it.
"""

from __future__ import annotations

import time
from functools import cache
from importlib import resources
from pathlib import Path

import apsw

from botwire.errors import StoreCorrupt

APPLICATION_ID = 0x626F7477  # "botw"


@cache
def scripts() -> list[str]:
    """The migrations, oldest first; the schema's version is how many of them a file has seen."""
    folder = resources.files("botwire.stores.sqlite") / "schema"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def prepare(connection: apsw.Connection, path: str) -> None:
    """Bring the file that the connection has open to the current schema, in one transaction."""
    current = _is_current(connection, path)
    if path != ":memory:" and connection.execute("PRAGMA journal_mode").get != "wal":
        connection.execute("PRAGMA journal_mode = wal").fetchall()
    if current:
        return
    seen = schema_version(connection)
    if seen:
        copy_to(connection, backup_path(path, seen))
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in scripts()[seen:]:
            connection.execute(script)
        connection.execute(f"PRAGMA user_version = {len(scripts())}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def schema_version(connection: apsw.Connection) -> int:
    """How many migrations the file has seen."""
    seen: int = connection.execute("PRAGMA user_version").get
    return seen


def _is_current(connection: apsw.Connection, path: str) -> bool:
    application: int = connection.execute("PRAGMA application_id").get
    seen = schema_version(connection)
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application != APPLICATION_ID and (application or seen or tables):
        raise StoreCorrupt(f"{path} is an SQLite file, but not of botwire; it was left as it is: choose another path")
    if seen > len(scripts()):
        raise StoreCorrupt(
            f"{path} was written by a newer botwire (schema {seen}, this one knows {len(scripts())}); "
            "it was left as it is: upgrade with `pip install --upgrade botwire`"
        )
    return seen == len(scripts())


def backup_path(path: str, seen: int) -> str:
    """Where the copy goes that is made before a migration."""
    return f"{path}.backup-schema{seen}-{time.strftime('%Y%m%d-%H%M%S')}"


def old_backups(path: str) -> list[Path]:
    """The copies that migrations have left beside the file."""
    file = Path(path)
    return sorted(file.parent.glob(f"{_escaped(file.name)}.backup-schema*"))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def copy_to(connection: apsw.Connection, target: str) -> None:
    """Copy the whole file in one step, through SQLite. It takes its name when it is whole."""
    partial = f"{target}.partial"
    Path(partial).unlink(missing_ok=True)
    other = apsw.Connection(partial)
    try:
        with other.backup("main", connection, "main") as backup:
            backup.step(-1)
    finally:
        other.close()
    Path(partial).replace(target)
