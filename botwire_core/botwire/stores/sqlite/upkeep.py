"""Upkeep of a store's file: backup, restore, and the checks of `botwire doctor`.

All of it goes through SQLite: a file that is open somewhere in this process is never opened in any other way, for
closing it would drop SQLite's locks.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import apsw

from botwire.errors import BotWireError, InvalidInput, StoreCorrupt, StoreFull, StoreReadOnly, StoreUnavailable

from .connection import connect, in_our_words, translated
from .migrations import APPLICATION_ID, old_backups, prepare, schema_version, scripts
from .turnstile import Turnstile
from .writes import MESSAGE_SIZE

Progress = Callable[[int, int], object]
"""Called with the pages that are copied, and how many there are in all."""

PAGES_PER_STEP = 1_000
PARTIAL = ".partial-"

# ── backup ──────────────────────────────────────────────────────────────────────────────────────────


def backup(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Copy the store at `path` to the file `target`, while others go on using it. Returns its size in bytes.

    The copy is one moment of the store. It is checked, and takes its name only when it is sound and on the disk.
    Raises `InvalidInput` if the target exists, unless `force`.
    """
    source, goal = _absolute(path, "back up"), _absolute(target, "back up to")
    mode = stat.S_IMODE(_existing(source).st_mode)
    _check_goal(source, goal, force=force)
    with _scratch(goal) as folder:
        copy = folder / goal.name
        _copy_store(source, copy, progress or _silent)
        check_store(copy, told=source)
        copy.chmod(mode)  # as private as what it was made of
        size = copy.stat().st_size
        _take_name(copy, goal)
    return size


def _check_goal(source: Path, goal: Path, *, force: bool) -> None:
    if goal.is_dir():
        raise InvalidInput(f"{goal} is a folder: name a file in it, such as {goal / source.name}")
    if not goal.exists():
        return
    if goal.samefile(source):
        raise InvalidInput(f"{goal} is the store itself: name another file for its backup")
    if not force:
        raise InvalidInput(f"{goal} exists: name another file, or overwrite it with force=True (--force)")
    if _beside(goal, "-wal").exists():  # a new file beside an old log would be a damaged one
        raise InvalidInput(f"{goal} is open as a store, or was left open by a crash: name another file")


def _copy_store(source: Path, target: Path, progress: Progress) -> None:
    """Copy one moment of a store, whoever else has it open or opens it meanwhile."""
    before = _Moment(source)
    with translated(str(source)), closing(_look(source)) as reader:
        _copy_held(reader, target, progress, source)
    if before.has_passed():
        target.unlink()
        with translated(str(source)), closing(connect(str(source), "full", reader=True)) as reader:
            _copy_held(reader, target, progress, source)


class _Moment:
    """Tells whether a file that nobody had open, and that was therefore read without locks, was changed since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._had_log = _has_log(path)
        self._status = path.stat()

    def has_passed(self) -> bool:
        """Whether what was read may not be one moment of the file."""
        if self._had_log:
            return False  # read under SQLite's locks
        now = self._path.stat()
        return _has_log(self._path) or any(
            getattr(self._status, field) != getattr(now, field) for field in ("st_ino", "st_size", "st_mtime_ns")
        )


def _copy_held(source: apsw.Connection, target: Path, progress: Progress, told: Path) -> None:
    """Copy in steps, for progress and interruption, while one read transaction keeps it one moment of the file."""
    try:
        source.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        raise in_our_words(error, str(told)) from error
    try:
        with closing(connect(str(target), "full")) as other:
            _copy(source, other, progress)
    except apsw.Error as error:
        damaged = isinstance(error, apsw.CorruptError | apsw.NotADBError)
        raise in_our_words(error, str(told if damaged else target.parent.parent)) from error


def _copy(source: apsw.Connection, target: apsw.Connection, progress: Progress) -> None:
    with target.backup("main", source, "main") as copying:
        _run(copying, progress)


def _run(copying: apsw.Backup, progress: Progress) -> None:
    while not copying.done:
        copying.step(PAGES_PER_STEP)
        progress(copying.page_count - copying.remaining, copying.page_count)


def _take_name(copy: Path, goal: Path) -> None:
    _flush(copy)
    copy.replace(goal)
    _flush(goal.parent)


def _flush(path: Path) -> None:
    """Have a file, which nobody has open, or a folder on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot flush folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ── restore ─────────────────────────────────────────────────────────────────────────────────────────


_IDS = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'namespaces'), 0)"
_VERSION = "max(mark, coalesce((SELECT max(version) FROM namespaces), 0))"
_SEQUENCE = "max(sequence, coalesce((SELECT max(sequence) FROM changes), 0))"


class Given(NamedTuple):
    """What a store has given out, and must never give out again."""

    ids: int
    version: int
    sequence: int


def restore(
    backup: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Make the store at `path` what the backup is. Returns its size in bytes.

    The backup is copied and checked before anything is touched; then the store changes in one commit, so other
    processes that have it open see the old one or the new one. What replaces a store goes on above the ids, versions
    and feed places that this one had given out: a feed cursor from before the restore raises `CursorExpired`.

    Raises `InvalidInput` if the store holds something, unless `force`. A damaged file is moved aside with `force`.
    """
    source, goal = _absolute(backup, "restore"), _absolute(path, "restore to")
    _existing(source)
    if goal.exists() and goal.samefile(source):
        raise InvalidInput(f"{source} is the store itself: name a backup of it")
    _given(goal, force=force)
    report = progress or _silent
    with _scratch(goal) as folder:
        staged = folder / "staged.db"
        _stage(source, staged, lambda done, total: report(done, 2 * total))
        with _turn(goal):
            if _given(goal, force=force) is None:
                _move_aside(goal)
            _put_in_place(staged, goal, lambda done, total: report(total + done, 2 * total), force=force)
        return staged.stat().st_size


def _stage(source: Path, staged: Path, progress: Progress) -> None:
    """A sound copy of the backup, in the current schema."""
    _copy_store(source, staged, progress)
    check_store(staged, told=source, known=True)
    with translated(str(staged)), closing(connect(str(staged), "relaxed")) as writer:
        prepare(writer, str(staged))


@contextmanager
def _turn(path: Path) -> Generator[None]:
    """Keep other processes of botwire from making the file while we do."""
    turnstile = Turnstile(str(path))
    try:
        with turnstile:
            yield
    finally:
        turnstile.close()


def _given(path: Path, *, force: bool) -> Given | None:
    """What the store that is to be replaced has given out; `None` if it is too damaged to tell.

    Raises `InvalidInput` if it holds something, and `StoreCorrupt` if it is none of ours.
    """
    if not path.parent.is_dir():
        raise StoreUnavailable(f"{path.parent} does not exist: create the folder, or give another path")
    if path.is_dir():
        raise StoreUnavailable(f"{path} is a folder: give the path of a file, such as {path / 'botwire.db'}")
    if not path.exists() or not path.stat().st_size:
        return Given(0, 0, 0)
    try:
        with closing(_look(path)) as reader:
            if kind := _foreign(reader):
                raise StoreCorrupt(f"{path} {kind}; it was left as it is: choose another path")
            return _read_given(reader, path, force=force)
    except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
        if force:
            return None
        raise StoreCorrupt(
            f"{path} is damaged, or no store of botwire ({error}); it was left as it is. "
            "With force=True (--force) it is moved aside and the backup takes its place"
        ) from error
    except apsw.Error as error:
        raise in_our_words(error, str(path)) from error


def _foreign(reader: apsw.Connection) -> str | None:
    """Why a file is none that this botwire may replace."""
    application, seen = _marks(reader)
    if application != APPLICATION_ID:
        tables: int = reader.execute("SELECT count(*) FROM sqlite_schema").get
        return "is an SQLite file, but not of botwire" if application or seen or tables else None
    if seen > len(scripts()):
        return f"was written by a newer botwire (schema {seen}, this one knows {len(scripts())})"
    return None


def _read_given(reader: apsw.Connection, path: Path, *, force: bool) -> Given:
    if not schema_version(reader):
        return Given(0, 0, 0)
    held: int = reader.execute("SELECT count(*) FROM namespaces").get
    if held and not force:
        what = _many(held, "namespace")
        raise InvalidInput(f"{path} holds {what}: restore to another path, or replace it with force=True (--force)")
    ids, version, sequence = reader.execute(f"SELECT {_IDS}, {_VERSION}, {_SEQUENCE} FROM store").get
    return Given(ids, version, sequence)


def _move_aside(path: Path) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for ending in ("", "-wal", "-shm", "-journal"):
        part = _beside(path, ending)
        if part.exists():
            part.rename(f"{path}.damaged-{stamp}{ending}")


def _put_in_place(staged: Path, path: Path, progress: Progress, *, force: bool) -> None:
    with (
        translated(str(path)),
        closing(connect(str(staged), "relaxed")) as source,
        closing(connect(str(path), "full")) as target,
    ):
        target.execute("PRAGMA journal_mode = wal").fetchall()
        with target.backup("main", source, "main") as copying:
            copying.step(1)  # holds the target's write lock from here on: what it has given out is final
            given = _given(path, force=force)
            if given is not None and given.ids:
                _go_on_above(source, given)  # SQLite brings what it has copied up to date
            _run(copying, progress)
        try:
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except apsw.BusyError:
            return  # somebody reads the old store still; the log is emptied when they are done


_MADE_ANEW = [
    f"search_{name}" for name in ("namespaces", "documents", "blocks", "postings", "conversations", "pending")
]


def _go_on_above(writer: apsw.Connection, given: Given) -> None:
    """Have a store give out nothing that the one it replaces had given out.

    Processes remember namespaces by id; cursors and compare-and-set trust that no version comes twice.
    """
    sql = writer.execute
    with writer:
        own, own_sequence = sql(f"SELECT {_IDS}, {_SEQUENCE} FROM store").get
        shift = max(given.ids, own)  # beyond all ids that there are: no two meet on the way
        sequence = max(given.sequence, own_sequence) + 1
        for table in ("changes", "changes_of_namespace"):  # feeds begin anew, so that older cursors expire
            sql(f"DELETE FROM {table}")
        for table in _MADE_ANEW:  # by the next search
            sql(f"DELETE FROM {table}")
        for table in ("items", "revisions", "conversations", "search_vectors", "search_embedders"):
            sql(f"UPDATE {table} SET namespace = namespace + ?", (shift,))
        sql("UPDATE namespaces SET id = id + ?, version = max(version, ?) + 1", (shift, given.version))
        sql("UPDATE namespaces SET feed_floor = version, feed_trimmed = ?", (sequence,))
        sql("DELETE FROM sqlite_sequence WHERE name = 'namespaces'")
        sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('namespaces', ?)", (shift + own,))
        sql("UPDATE store SET mark = max(mark, ?)", (given.version + 1,))
        sql("UPDATE store SET sequence = ?1, indexed = ?1, trimmed = ?1, erased = ?1", (sequence,))


# ── what both need ──────────────────────────────────────────────────────────────────────────────────


def _silent(done: int, total: int) -> None:
    """Report nothing."""


def _absolute(path: str | os.PathLike[str], what: str) -> Path:
    text = os.fspath(path)
    if text in ("", ":memory:"):
        raise InvalidInput(f"{text!r} is no file to {what}: a store in memory goes with its process; use `export`")
    return Path(os.path.realpath(text))


def _existing(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnavailable(f"{path} is no file: give the path of a store")
    return status


@contextmanager
def _scratch(goal: Path) -> Generator[Path]:
    """A private folder on the goal's disk, that goes when we are done. Says the system's errors in our words."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{goal.name[:100]}{PARTIAL}", dir=goal.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
    except OSError as error:
        raise _system_error(error, goal) from error


def _system_error(error: OSError, goal: Path) -> BotWireError:
    told = f"{goal} cannot be written: {error.strerror}"
    if error.errno == errno.ENOSPC:
        return StoreFull(f"{told}. Free some space, or choose another disk")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreReadOnly(f"{told}. Make {goal.parent} writable for this user, or choose another folder")
    return StoreUnavailable(f"{told}. See that {goal.parent} exists")


def _look(path: Path) -> apsw.Connection:
    """Open a file for reading, with nothing left beside it. Raises SQLite's own errors.

    A file without a log is open nowhere, or was only just opened: it can be read as if it never changed.
    """
    if _has_log(path):
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    else:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        reader = apsw.Connection(f"{path.as_uri()}?immutable=1", flags=flags)
    reader.set_busy_timeout(10_000)
    return reader


def _has_log(path: Path) -> bool:
    return _beside(path, "-wal").exists() or _beside(path, "-journal").exists()


def _marks(reader: apsw.Connection) -> tuple[int, int]:
    return reader.execute("PRAGMA application_id").get, schema_version(reader)


def check_store(path: Path, *, told: Path, known: bool = False) -> None:
    """Raise `StoreCorrupt`, about the file `told`, unless this file is a sound store; `known`: of a schema we know."""
    with translated(str(told)), closing(_look(path)) as reader:
        application, seen = _marks(reader)
        if application != APPLICATION_ID or not seen:
            raise StoreCorrupt(f"{told} is no store of botwire: nothing was written")
        if known and seen > len(scripts()):
            raise StoreCorrupt(
                f"{told} was written by a newer botwire (schema {seen}, this one knows {len(scripts())}): "
                "nothing was written; upgrade with `pip install --upgrade botwire`"
            )
        problems = _problems(reader)
    if problems:
        raise StoreCorrupt(f"{told} is damaged: {problems[0]}. Nothing was written; see `botwire doctor`")


def _problems(reader: apsw.Connection) -> list[str]:
    """What SQLite finds wrong with the file, at most twenty."""
    rows = reader.execute("PRAGMA integrity_check(20)").fetchall()
    lines = [line for (text,) in rows for line in str(text).splitlines()]
    return [line for line in lines if line != "ok"]


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# ── the doctor ──────────────────────────────────────────────────────────────────────────────────────

State = Literal["ok", "warning", "failed"]


class Check(NamedTuple):
    """One thing that the doctor looked at: what was found, and what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""


SAFE_SQLITE = (3, 51, 3)  # before, a reset of the log could lose what two connections wrote
MUCH_LOG = 256 * 1024 * 1024  # bytes
NETWORK = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "9p", "fuse.sshfs", "glusterfs", "fuse.glusterfs", "ceph"]
)
_RESTORE = "copy the file away, then restore the last backup over it: `botwire restore BACKUP --force`"
_REBUILD = "nothing is lost by it; `botwire export` each namespace and import it into a new store, and please report it"


def examine(path: str | os.PathLike[str]) -> list[Check]:
    """Look the store at `path` over. Nothing is changed."""
    file = Path(os.path.realpath(os.fspath(path)))
    first = _check_file(file)
    checks = [first]
    if first.state != "failed":
        checks += _settled(file)
        checks += [_check_log(file), _check_old_backups(file)]
    checks.append(check_sqlite(sqlite_version()))
    if file.parent.is_dir():
        size = file.stat().st_size if file.is_file() else 0
        checks += [check_space(size, shutil.disk_usage(file.parent).free), _check_file_system(file)]
    return checks


def _check_file(file: Path) -> Check:
    if not file.exists():
        return Check("file", "failed", f"{file} does not exist", "check the URL; the first write makes the file")
    if not file.is_file():
        return Check("file", "failed", f"{file} is no file", "give the path of a store")
    if not os.access(file, os.R_OK):
        found = f"{file} cannot be read by this user"
        return Check("file", "failed", found, "change its permissions, or run as its owner")
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        found = f"{file}, or its folder, cannot be written by this user"
        return Check("file", "warning", found, "reading works; to write, change the permissions of both")
    return Check("file", "ok", f"{file}, {file.stat().st_size:,} bytes")


def _settled(file: Path) -> list[Check]:
    """What the inside of the file says, looked at again if somebody opened the file in the meantime."""
    checks: list[Check] = []
    for _ in range(3):
        before = _Moment(file)
        checks = list(_check_inside(file))
        if not before.has_passed():
            break
    return checks


def _check_inside(file: Path) -> Generator[Check]:
    try:
        with closing(_look(file)) as reader:
            reader.execute("BEGIN")  # all checks look at one moment of the file
            kind = _check_kind(reader)
            yield kind
            if kind.state == "failed":
                return
            yield _checked("integrity", _check_integrity, reader)
            if schema_version(reader) == len(scripts()):
                yield _checked("counters", _check_counters, reader)
                yield _checked("orphans", _check_orphans, reader)
                yield _checked("search", _check_search, reader)
                yield _checked("imports", _check_imports, reader)
    except apsw.NotADBError:
        yield Check("store", "failed", f"{file} is no SQLite file, or its beginning is damaged", _RESTORE)
    except apsw.Error as error:
        yield Check("store", "failed", f"{file} cannot be read: {error}", _RESTORE)


def _checked(name: str, check: Callable[[apsw.Connection], Check], reader: apsw.Connection) -> Check:
    try:
        return check(reader)
    except apsw.Error as error:
        return Check(name, "failed", f"cannot be checked: {error}", _RESTORE)


def _check_kind(reader: apsw.Connection) -> Check:
    application, seen = _marks(reader)
    newest = len(scripts())
    if application != APPLICATION_ID or not seen:
        if not application and not reader.execute("SELECT count(*) FROM sqlite_schema").get:
            return Check(
                "store", "failed", "the file is empty", "the first write makes it a store, or restore a backup"
            )
        return Check("store", "failed", "an SQLite file, but not of botwire", "give the path of a store")
    if seen > newest:
        found = f"schema {seen}, from a newer botwire; this one knows {newest}"
        return Check("store", "failed", found, "pip install --upgrade botwire")
    if seen < newest:
        found = f"schema {seen}, from an older botwire; this one has {newest}"
        return Check("store", "warning", found, "the next use brings it up to date, after a backup beside the file")
    return Check("store", "ok", f"a store of botwire, schema {seen}")


def _check_integrity(reader: apsw.Connection) -> Check:
    problems = _problems(reader)
    if problems:
        return Check("integrity", "failed", _some(problems), _RESTORE)
    return Check("integrity", "ok", "every page, row and index fits")


_SAID = (
    f"SELECT place >> 32 AS conversation, count(*) AS messages, sum({MESSAGE_SIZE}) AS bytes FROM messages GROUP BY 1"
)
_RECOUNT = f"""
WITH held AS (
    SELECT namespace, count(value) AS items, sum(length(CAST(key AS BLOB)) + coalesce(length(value), 0)
        + coalesce(length(meta), 0) + coalesce(length(past), 0)) AS bytes FROM items GROUP BY namespace),
past AS (SELECT namespace, sum(length(page)) AS bytes FROM revisions GROUP BY namespace),
said AS ({_SAID}),
talks AS (
    SELECT c.namespace, count(*) AS conversations, coalesce(sum(said.messages), 0) AS messages,
        coalesce(sum(said.bytes), 0) AS bytes
    FROM conversations c LEFT JOIN said ON said.conversation = c.id GROUP BY c.namespace)
SELECT n.name, n.items, n.messages, n.conversations, n.bytes, coalesce(held.items, 0), coalesce(talks.messages, 0),
    coalesce(talks.conversations, 0), coalesce(held.bytes, 0) + coalesce(past.bytes, 0) + coalesce(talks.bytes, 0)
FROM namespaces n LEFT JOIN held ON held.namespace = n.id LEFT JOIN past ON past.namespace = n.id
    LEFT JOIN talks ON talks.namespace = n.id
"""
_RECOUNT_CONVERSATIONS = f"""
SELECT n.name, c.name, c.messages, coalesce(said.messages, 0), c.bytes, coalesce(said.bytes, 0)
FROM conversations c JOIN namespaces n ON n.id = c.namespace LEFT JOIN ({_SAID}) said
    ON said.conversation = c.id
WHERE c.messages != coalesce(said.messages, 0) OR c.bytes != coalesce(said.bytes, 0) LIMIT 100
"""


def _check_counters(reader: apsw.Connection) -> Check:
    words = ("items", "messages", "conversations", "bytes")
    wrong: list[str] = []
    rows = reader.execute(_RECOUNT).fetchall()
    for name, *numbers in rows:
        for word, said, counted in zip(words, numbers[:4], numbers[4:], strict=True):
            if said != counted:
                wrong.append(f"{name!r} says {said:,} {word}, and {counted:,} are there")
    for name, talk, said, counted, size, weighed in reader.execute(_RECOUNT_CONVERSATIONS).fetchall():
        what = f"says {said:,} messages of {size:,} bytes, and {counted:,} of {weighed:,} are there"
        wrong.append(f"conversation {talk!r} in {name!r} {what}")
    if wrong:
        return Check("counters", "failed", _some(wrong), _REBUILD)
    return Check("counters", "ok", f"those of {_many(len(rows), 'namespace')} are right")


_ORPHANS = {
    "items of no namespace": "items WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "past values of no namespace": "revisions WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "past values of no item": "revisions r WHERE NOT EXISTS "
    "(SELECT 1 FROM items i WHERE i.namespace = r.namespace AND i.key = r.key)",
    "changes of no namespace": "changes WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "entries of no change": "changes_of_namespace WHERE sequence NOT IN (SELECT sequence FROM changes)",
    "conversations of no namespace": "conversations WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "messages of no conversation": "messages WHERE place >> 32 NOT IN (SELECT id FROM conversations)",
    "search documents of no namespace": "search_documents WHERE namespace NOT IN "
    "(SELECT namespace FROM search_namespaces)",
    "search postings of no namespace": "search_postings WHERE namespace NOT IN "
    "(SELECT namespace FROM search_namespaces)",
    "search indexes of no namespace": "search_namespaces WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "vectors of no namespace": "search_vectors WHERE namespace NOT IN (SELECT id FROM namespaces)",
}


def _check_orphans(reader: apsw.Connection) -> Check:
    counts = [(reader.execute(f"SELECT count(*) FROM {where}").get, what) for what, where in _ORPHANS.items()]
    found = [f"{count:,} {what}" for count, what in counts if count]
    if found:
        return Check("orphans", "failed", ", ".join(found), f"nobody can read or erase these rows: {_REBUILD}")
    return Check("orphans", "ok", "every row has its owner")


def _check_search(reader: apsw.Connection) -> Check:
    from .checking import problems  # the ranking: not for those who never search

    wrong = list(problems(reader.cursor().execute, time.time_ns() // 1_000))
    if wrong:
        return Check("search", "failed", _some(wrong), "make the index anew: `botwire index --afresh`")
    return Check("search", "ok", "the indexes say what the rows say")


def _check_imports(reader: apsw.Connection) -> Check:
    names = [name for (name,) in reader.execute("SELECT name FROM namespaces WHERE loading ORDER BY name")]
    if names:
        found = f"an import into {_some([repr(name) for name in names])} is under way, or was cut off"
        return Check("imports", "warning", found, "if none is running, run it again, or erase the namespace")
    return Check("imports", "ok", "none was cut off")


def _check_log(file: Path) -> Check:
    log = _beside(file, "-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > MUCH_LOG:
        advice = "a process has been reading for long: end it; the log goes when the last process closes the store"
        return Check("log", "warning", f"{log.name} has grown to {size:,} bytes", advice)
    return Check("log", "ok", f"{size:,} bytes")


def _check_old_backups(file: Path) -> Check:
    backups = old_backups(str(file))
    if backups:
        found = f"migrations left {_some([each.name for each in backups])}"
        return Check("backups", "warning", found, "delete them when all is well: they hold what was deleted since")
    return Check("backups", "ok", "none left by migrations")


def sqlite_version() -> str:
    """The version of the SQLite that is used."""
    version: str = apsw.sqlite_lib_version()
    return version


def check_sqlite(version: str) -> Check:
    """Whether this SQLite can be trusted with a file that several connections write."""
    if tuple(int(part) for part in version.split(".")[:3]) < SAFE_SQLITE:
        found = f"SQLite {version} has a bug that can damage a file which two connections write"
        return Check("SQLite", "failed", found, "pip install --upgrade apsw")
    return Check("SQLite", "ok", version)


def check_space(size: int, free: int) -> Check:
    """Whether the disk has room for a backup or a migration beside the file: twice its size."""
    found = f"{free:,} bytes free"
    if free < 2 * size:
        return Check("space", "warning", f"{found}, and the file takes {size:,}", "free some space, or move the file")
    return Check("space", "ok", found)


def _check_file_system(file: Path) -> Check:
    try:
        mounts = Path("/proc/mounts").read_text(errors="surrogateescape")
    except OSError:
        return Check("file system", "ok", "not known on this platform; keep stores off network file systems")
    return check_mount(file_system(str(file), mounts))


def file_system(path: str, mounts: str) -> str:
    r"""The type of the file system that a path lies on, by the text of /proc/mounts; `""` if it does not say.

    >>> file_system("/mnt/my disk/memory.db", "/dev/sda / ext4 rw 0 0\nserver:/x /mnt/my\\040disk nfs4 rw 0 0\n")
    'nfs4'
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        _, mount, type_, *_ = [*line.split(" "), "", "", ""]
        for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            mount = mount.replace(code, letter)
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if mount and inside and len(mount) >= len(best):
            best, kind = mount, type_
    return kind


def check_mount(kind: str) -> Check:
    """Whether a type of file system keeps its locks."""
    if kind in NETWORK:
        advice = "its locks cannot be relied on: move the file to a local disk, or share it through a server"
        return Check("file system", "warning", f"{kind}, a network file system", advice)
    return Check("file system", "ok", kind or "not known")


def _some(found: Iterable[str]) -> str:
    """The first five, and how many more."""
    told = list(found)
    rest = len(told) - 5
    return "; ".join(told[:5]) + (f"; and {rest:,} more" if rest > 0 else "")
