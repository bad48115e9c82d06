"""`SQLiteStore`: who runs what, and where.

One connection writes, and its callers share commits; a pool of others reads. What a reader sees is one moment of
the file, and a long read never delays a short one.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import apsw
import msgspec
from msgspec import Raw

from botwire.errors import (
    BotWireError,
    InvalidInput,
    RequestReused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TooLarge,
)
from botwire.ops import MAX_OPS, Changes, Erase, Erased, Get, Index, Item, Load, Op, Search, Unembedded, Value
from botwire.signals import Signals

from .commits import Commits, Request
from .connection import Durability, Patience, connect, in_our_words, translated
from .ledger import Ledger
from .migrations import old_backups, prepare
from .moves import ALL_READS, MOVES, Flush
from .reads import GET, NAMESPACE_ID, VALUE, answer_bytes, item_of
from .turnstile import NoTurnstile, Turnstile
from .writes import Transaction

if TYPE_CHECKING:
    from .async_store import AsyncSQLiteStore
    from .finding import Searches
    from .recent import Recent

REQUESTS_KEPT = 24 * 3_600 * 1_000_000  # microseconds
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # of values, in the answers to one batch
MAX_READERS = 16  # idle connections kept
INDEXED_TOGETHER = 500  # older entries
MAX_IDS = 100_000  # namespace ids remembered
FORK_PATIENCE = 1.0  # seconds that a fork waits for other threads' reads to end
POLL = 0.05  # seconds between two looks for what other processes wrote, while somebody waits

Clock = Callable[[], int]
Reads = Mapping[type[Op], Callable[..., Any]]


def system_clock() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class SQLiteStore:
    """One SQLite file as a store. `path=":memory:"` is a store that goes with this object.

    `durability="full"` (the default): an acknowledged write survives power loss. `"relaxed"`: it survives the end
    of the process, and a power loss may undo the last ones.

    >>> store = SQLiteStore(":memory:")
    >>> store.execute([Get("user-42", "coffee")])
    [None]
    """

    def __init__(self, path: str = ":memory:", *, durability: Durability = "full", clock: Clock = system_clock) -> None:
        self.in_memory = path == ":memory:"
        self.path = path if self.in_memory else str(Path(path).absolute())
        self.durability: Durability = durability
        self._clock = clock
        self._why_closed = ""
        self._start()
        _stores.add(self)

    def _start(self) -> None:
        """The state of a store that has opened nothing yet, also after a fork."""
        self._lock = threading.RLock()  # held by whoever opens, closes, or uses the writing connection
        self._opening_reader = threading.Lock()
        self._writer: apsw.Connection | None = None
        self._ledger: Ledger | None = None
        self._mapped: deque[apsw.Cursor] = deque()  # idle readers for single gets
        self._readers: deque[apsw.Cursor] = deque()  # … and for everything else
        self._connections: list[apsw.Connection] = []  # all readers, idle or not
        self._ids: dict[str, int] = {}
        self._turnstile = NoTurnstile("") if self.in_memory else Turnstile(self.path)
        self._commits = Commits(self._run_group)
        self.signals = Signals(self._poll, POLL)
        self._searches: Searches | None = None  # what searches have found out; made by the first
        self._index_writer: threading.Thread | None = None
        self._polled = -1
        self._erased = False
        self._failure: BotWireError | None = None

    # ── opening and closing ──

    def open(self) -> SQLiteStore:
        """Open the file now, and bring its schema up to date; the first `execute` would do it too."""
        with self._lock:
            if self._why_closed:
                raise StoreUnavailable(self._why_closed)
            if self._writer is None:
                with translated(self.path):
                    self._writer = self._open_writer()
        return self

    def _open_writer(self) -> apsw.Connection:
        if not self.in_memory and (Path(self.path).is_dir() or not Path(self.path).parent.is_dir()):
            raise apsw.CantOpenError("unable to open database file")
        try:
            with self._turnstile:
                writer = self._connect_writer()
        except PermissionError as error:  # the lock files cannot be made: then nothing can be written either
            writer = self._connect_read_only(error)
        except OSError as error:
            raise _as_ours(error, self.path) from error
        self._ledger = Ledger(writer)
        self._sql = writer.cursor().execute
        return writer

    def _connect_writer(self) -> apsw.Connection:
        writer = connect(self.path, self.durability)
        try:
            prepare(writer, self.path)
        except BaseException:
            writer.close()
            raise
        writer.set_busy_handler(Patience(self._turnstile.others_write))
        return writer

    def _connect_read_only(self, error: PermissionError) -> apsw.Connection:
        if not os.access(self.path, os.R_OK):
            raise StoreUnavailable(f"{self.path}: {error}. This user needs the right to write there") from error
        self._failure = StoreReadOnly(f"{self.path}: {error}. Nothing was written. Reading works")
        reader = connect(self.path, self.durability, reader=True)
        prepare(reader, self.path)
        return reader

    def twin(self) -> AsyncSQLiteStore:
        """The same store for an event loop."""
        from .async_store import AsyncSQLiteStore  # it imports this module

        return AsyncSQLiteStore(self)

    def close(self) -> None:
        """Close the file. What was written stays, except of `":memory:"`."""
        with self._lock:
            if self._why_closed:
                return
            self._why_closed = f"the store {self.path} is closed: open a new one"
            self.signals.close()
            self._disconnect()
            self._turnstile.close()

    def _disconnect(self) -> None:
        """Close every connection that nobody is using just now."""
        for idle in (self._mapped, self._readers):
            while idle:
                connection = idle.pop().connection
                self._connections.remove(connection)
                connection.close()
        if self._writer is not None:
            self._writer.close()
        self._writer = self._ledger = None

    # ── forks ──

    def before_fork(self) -> None:
        """Have nothing open while the process forks: SQLite's notes on its locks would be wrong in the child."""
        self._lock.acquire()
        self._opening_reader.acquire()
        if self.in_memory:
            return
        self._disconnect()
        deadline = time.monotonic() + FORK_PATIENCE
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.000_5)  # other threads are reading: they put their connections back
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the next use opens the file again."""
        self._opening_reader.release()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: locks and threads of the parent are not ours."""
        if self.in_memory and self._writer is not None and not self._why_closed:
            self._why_closed = "a store in memory stays in the process that made it: give it a file to share it"
        if self._connections and not self._why_closed:
            self._why_closed = (
                f"{self.path} was being read while this process was forked off: open it in the parent alone"
            )
        abandoned.append((self._writer, self._connections, self._mapped, self._readers))
        self._turnstile.close()
        self._start()

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r}, durability={self.durability!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.in_memory or self._clock is not system_clock:
            raise TypeError("a store in memory cannot be pickled: it lives in this process alone; give it a file")
        return _reopen, (self.path, self.durability)

    # ── the seam ──

    def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """Run the ops in order, all or nothing: see `botwire.stores.base.Store`."""
        if len(ops) == 1:
            op = ops[0]
            if type(op) is Value and not self.in_memory:
                return [self._value(op)]
            if type(op) is Get and op.as_of is None and op.as_of_time is None and not self.in_memory:
                return [self._get(op)]
        if is_read_only(ops):
            return self._read(ops)
        if self._writer is None or self._failure is not None:
            self._check_writable()
        request = Request(ops, request_id)
        self._commits.submit([request])
        if request.error is not None:
            raise request.error
        return request.results

    def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """Block until there may be changes behind the cursor, or the time is up."""
        deadline = time.monotonic() + timeout
        changed = threading.Event()
        with self.signals.registered(namespace, changed.set, subtree=subtree):
            while True:
                changed.clear()
                page = self.execute([Changes(namespace, cursor, subtree=subtree, limit=1)])[0]
                if page.changes:
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or not changed.wait(left):
                    return False

    # ── reading ──

    @property
    def reads_at_once(self) -> bool:
        """Whether a single read waits for nothing but the file: it is open, and no write can hold it up."""
        return self._writer is not None and not self.in_memory

    def _value(self, op: Value) -> Raw | None:
        """The most frequent read, with nothing in its way."""
        row = self._row(VALUE, op)
        if row is None:
            return None
        value, expires = row
        if value is None or (expires is not None and expires <= self._clock()):
            return None
        return Raw(value)

    def _get(self, op: Get) -> Item | None:
        return item_of(self._row(GET, op), op.key, self._clock(), op.namespace)

    def _row(self, select: str, op: Value | Get) -> Any:
        """The row of a key."""
        try:
            cursor = self._mapped.pop()
        except IndexError:
            cursor = self._open_reader(mapped=True)
        try:
            namespace = self._ids.get(op.namespace)
            row = cursor.execute(select, (namespace, op.key)).get if namespace else None
            if row is None:  # the namespace may have been erased and made again, by whatever process
                op.check_names()
                namespace = self._look_up(cursor, op.namespace)
                row = cursor.execute(select, (namespace, op.key)).get if namespace else None
        except apsw.Error as error:
            raise in_our_words(error, self.path) from error
        except (TypeError, UnicodeEncodeError):  # what SQLite cannot take is no name
            op.check_names()
            raise
        finally:
            self._mapped.append(cursor)
        return row

    def _look_up(self, cursor: apsw.Cursor, name: str) -> int | None:
        namespace: int | None = cursor.execute(NAMESPACE_ID, (name,)).get
        if namespace is not None:
            if len(self._ids) >= MAX_IDS:
                self._ids.clear()
            self._ids[name] = namespace
        return namespace

    def _read(self, ops: Sequence[Op]) -> list[Any]:
        """Run reading ops against one moment of the file."""
        if any(type(op) in (Search, Unembedded) for op in ops):
            return self._search(ops)
        return self._read_with(ALL_READS, ops)

    def _read_with(self, reads: Reads, ops: Sequence[Op]) -> list[Any]:
        if self._writer is None:
            self.open()
        if self.in_memory:
            with self._lock, translated(self.path):
                return _run_reads(self._sql, self._clock(), ops, reads)
        try:
            cursor = self._readers.pop()
        except IndexError:
            cursor = self._open_reader()
        try:
            with translated(self.path):
                return _run_reads(cursor.execute, self._clock(), ops, reads)
        finally:
            self._give_back(cursor)

    # ── searching ──

    def _search(self, ops: Sequence[Op]) -> list[Any]:
        """Run reads with searches among them. What a search takes in is written when there is much of it."""
        from .finding import (  # the ranking: not for those who never search
            ROUNDS,
            FullError,
            Searches,
            find,
            unembedded,
        )

        writable, rounds = True, ROUNDS
        searches = self._searches = self._searches or Searches()
        while True:
            search = partial(find, searches=searches, writable=writable, rounds=rounds)
            reads: Reads = {**ALL_READS, Search: search, Unembedded: partial(unembedded, searches=searches)}
            try:
                results = self._read_with(reads, ops)
            except FullError as full:
                writable, rounds = self._write_index(full.recent), max(0, rounds - 1)
            else:
                self._write_index_later()
                return results

    def _write_index(self, recent: Recent) -> bool:
        """Write what searches have taken in. False: it cannot be written, and stays in memory."""
        from .finding import write

        request = Request([cast("Op", Flush(partial(write, recent=recent)))])
        try:
            self.submit([request])
            if request.error is not None:
                raise request.error
        except (StoreBusy, StoreFull, StoreReadOnly, StoreUnavailable):
            return False
        if self._searches is not None:
            self._searches.forget(recent)
        return True

    def _write_index_later(self) -> None:
        """Have another thread write what is worth it: the search itself has been answered."""
        if self._failure is not None or (self._index_writer is not None and self._index_writer.is_alive()):
            return
        if self._searches is not None and (full := self._searches.full()):
            thread = threading.Thread(target=self._write_indexes, args=(full,), name="botwire-index", daemon=True)
            with suppress(RuntimeError):  # the interpreter is going down
                thread.start()
                self._index_writer = thread

    def _write_indexes(self, recents: list[Recent]) -> None:
        try:
            for recent in recents:
                if not self._write_index(recent):
                    return
                if recent.counts.walk is not None:
                    self._take_in_the_rest(recent.name)
        except BotWireError as error:  # nobody waits for this thread; what it would have written stays in memory
            import logging  # only for this

            logging.getLogger("botwire").warning("the search index of %s cannot be written: %s", self.path, error)

    def _take_in_the_rest(self, namespace: str) -> None:
        """Index what was there before there was search, in small steps, so that others can work too."""
        left = 1
        while left:
            start = time.monotonic()
            left = self.execute([Index(namespace, limit=INDEXED_TOGETHER)])[0].left
            time.sleep(time.monotonic() - start)

    def _open_reader(self, *, mapped: bool = False) -> apsw.Cursor:
        if self._writer is None:
            self.open()
        with self._opening_reader, translated(self.path):  # not the writer's lock: reads never wait for writes
            connection = connect(self.path, self.durability, reader=True, mapped=mapped)
            self._connections.append(connection)
            return connection.cursor()

    def _give_back(self, cursor: apsw.Cursor) -> None:
        if self._why_closed or len(self._readers) >= MAX_READERS:
            self._connections.remove(cursor.connection)
            cursor.connection.close()
        else:
            self._readers.append(cursor)

    # ── writing ──

    def _check_writable(self) -> None:
        self.open()
        if self._failure is not None:
            raise self._failure

    def submit(self, requests: list[Request]) -> None:
        """Have several requests committed together; each holds its own answer."""
        self._check_writable()
        self._commits.submit(requests)

    def _run_group(self, requests: list[Request]) -> None:
        """Commit a group. Every request is done afterwards, unless this thread was interrupted before the commit."""
        try:
            touched = self._commit_in_turn(requests)
        except (BotWireError, apsw.Error, OSError) as error:
            _fail(requests, _as_ours(error, self.path))
        except Exception as error:  # noqa: BLE001  # a mistake in one request must not become another caller's error
            if len(requests) == 1:
                _fail(requests, error)
            else:
                for request in requests:
                    request.error = None
                    self._run_group([request])
        else:
            self._after_commit(requests, touched)

    def _commit_in_turn(self, requests: list[Request]) -> set[str]:
        with self._lock:
            self.open()
            if not self._turnstile.needed:
                return self._commit(requests)
            try:
                with self._turnstile:
                    return self._commit(requests)
            except BaseException:  # an interrupt can come before the turnstile's own exit has begun
                self._turnstile.leave()
                raise

    def _after_commit(self, requests: list[Request], touched: set[str]) -> None:
        if self.signals.wanted and touched:
            self.signals.notify(touched)
        if self._erased:
            self._erased = False
            if self._searches is not None:
                self._searches.forget()
            self._scrub(requests)

    def _commit(self, requests: list[Request]) -> set[str]:
        sql, ledger, writer = self._sql, self._ledger, self._writer
        assert ledger is not None  # the store was opened under the lock that we hold
        assert writer is not None
        committing = False
        try:
            sql("BEGIN IMMEDIATE")
            if ledger.begin(self._clock()):
                self._turnstile.others_write()
            transaction = Transaction(sql, ledger)
            for request in requests:
                self._apply(transaction, request)
            touched = ledger.flush()
            committing = True
            sql("COMMIT")
            for request in requests:
                request.done = True
            ledger.committed()
        except BaseException as error:
            if writer.in_transaction:
                sql("ROLLBACK")
            elif committing and not isinstance(error, Exception):  # interrupted just behind the commit: it stands
                for request in requests:
                    request.done = True
            ledger.forget()
            if isinstance(error, apsw.IOError) and committing:
                # After a failed fsync nobody knows what is on the disk: stop rather than try again.
                self._failure = StoreError(f"{self.path}: {error}. Writing is off until the store is opened again")
            raise
        return touched

    def _apply(self, transaction: Transaction, request: Request) -> None:
        """Run one caller's batch. Its error is its own: the rest of the group goes on."""
        op = request.ops[0]
        alone = len(request.ops) == 1 and request.request_id is None and type(op) is not Load
        try:
            if alone:  # a single op checks everything before it changes anything; but a Load is many in one
                request.results = [MOVES[type(op)](transaction, op)]
            else:
                self._apply_batch(transaction, request)
            self._erased = self._erased or any(type(op) is Erase for op in request.ops)
        except BotWireError as error:
            request.error = error

    def _apply_batch(self, transaction: Transaction, request: Request) -> None:
        transaction.ledger.save()
        transaction.sql("SAVEPOINT batch")
        try:
            replay = None if request.request_id is None else _recall(transaction, request)
            request.results = _run_batch(transaction, request.ops, replay)
            if request.request_id is not None and replay is None:
                _remember(transaction, request)
        except BotWireError:
            transaction.sql("ROLLBACK TO batch")
            transaction.sql("RELEASE batch")
            transaction.ledger.restore()
            raise
        transaction.sql("RELEASE batch")
        transaction.ledger.keep()

    def _scrub(self, requests: list[Request]) -> None:
        """After an erase: overwrite the log that still holds old pages, and delete our own copies of the file."""
        try:
            for backup in old_backups(self.path):
                backup.unlink(missing_ok=True)
            with self._lock, self._turnstile:
                pending = not self.in_memory and not self._rewrite()
        except (BotWireError, apsw.Error, OSError):  # the erase itself is committed; what is left of it is told so
            pending = True
        for request in requests:
            request.results = [
                msgspec.structs.replace(result, pending=pending) if isinstance(result, Erased) else result
                for result in request.results
            ]

    def _rewrite(self) -> bool:
        """Write the file anew and empty its log: pages that were split keep copies of rows outside of any row."""
        writer, ledger = self._writer, self._ledger
        assert writer is not None  # we have just committed with them
        assert ledger is not None
        writer.set_busy_timeout(1_000)
        try:
            writer.execute("VACUUM")
            busy, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
        except apsw.BusyError:
            return False
        finally:
            writer.set_busy_handler(Patience(self._turnstile.others_write))
            ledger.forget()
        return not busy

    # ── what other processes write ──

    def _poll(self) -> set[str] | None:
        """The namespaces that were changed, by whomever, since the last time; `None` the first time."""
        first = self._polled < 0
        with translated(self.path):
            self._polled, names = self._changed_since(self._polled)
        return None if first else names

    def _changed_since(self, sequence: int) -> tuple[int, set[str]]:
        if self.in_memory:
            return sequence, set()  # nobody else can write to it
        cursor = self._readers.pop() if self._readers else self._open_reader()
        try:
            if sequence < 0:
                return cursor.execute("SELECT coalesce(max(sequence), 0) FROM changes").get, set()
            rows: Any = cursor.execute(
                "SELECT max(c.sequence), n.name FROM changes c JOIN namespaces n ON n.id = c.namespace "
                "WHERE c.sequence > ? GROUP BY c.namespace",
                (sequence,),
            ).fetchall()
        finally:
            self._give_back(cursor)
        return max((head for head, _ in rows), default=sequence), {name for _, name in rows}


def is_read_only(ops: Sequence[Op]) -> bool:
    """Whether the batch only reads. Raises `InvalidInput` for what is no batch of ops."""
    if len(ops) > MAX_OPS:
        raise InvalidInput(f"{len(ops):,} ops in one batch: the limit is {MAX_OPS:,}")
    writes = [op for op in ops if type(op) not in ALL_READS]
    for op in writes:
        if type(op) not in MOVES:
            raise InvalidInput(f"{op!r} is no op of this store")
    return not writes


def _run_reads(sql: Callable[..., Any], now: int, ops: Sequence[Op], reads: Reads) -> list[Any]:
    sql("BEGIN")
    try:
        budget = Budget()
        return [budget.spent_on(reads[type(op)](sql, now, op)) for op in ops]
    finally:
        sql("COMMIT")


class Budget:
    """How much the answers to one batch may hold: a small batch can ask for a great deal."""

    def __init__(self) -> None:
        self._left = MAX_ANSWER_BYTES

    def spent_on(self, result: Any) -> Any:
        """The result. Raises `TooLarge` if it is too much with those before it."""
        self._left -= answer_bytes(result)
        if self._left < 0:
            raise TooLarge(f"the answers to this batch hold over {MAX_ANSWER_BYTES:,} bytes: ask in several batches")
        return result


def _run_batch(transaction: Transaction, ops: Sequence[Op], replay: list[msgspec.Raw] | None) -> list[Any]:
    results: list[Any] = []
    budget = Budget()
    for place, op in enumerate(ops):
        if (read := ALL_READS.get(type(op))) is not None:
            transaction.ledger.flush()
            results.append(budget.spent_on(read(transaction.sql, transaction.now, op)))
        elif replay is not None:
            results.append(msgspec.msgpack.decode(replay[place], type=type(op).result))
        else:
            results.append(MOVES[type(op)](transaction, op))
    return results


def _digest(ops: Sequence[Op]) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(ops), digest_size=16).digest()


def _recall(transaction: Transaction, request: Request) -> list[msgspec.Raw] | None:
    """What this request answered when it came before, if it did."""
    found = transaction.sql("SELECT digest, results FROM requests WHERE id = ?", (request.request_id,)).get
    if found is None:
        return None
    digest, results = found
    if digest != _digest(request.ops):
        raise RequestReused(
            f"request id {request.request_id!r} was used before, for other ops: give each write its own"
        )
    return msgspec.msgpack.decode(results, type=list[msgspec.Raw])


def _remember(transaction: Transaction, request: Request) -> None:
    """Keep what the writes answered: versions and times, never values."""
    answers = [
        None if type(op) in ALL_READS else result for op, result in zip(request.ops, request.results, strict=True)
    ]
    transaction.sql(
        "INSERT INTO requests VALUES (?, ?, ?, ?)",
        (request.request_id, _digest(request.ops), msgspec.msgpack.encode(answers), transaction.now),
    )
    transaction.sql(
        "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE at < ? LIMIT 10)",
        (transaction.now - REQUESTS_KEPT,),
    )


def _as_ours(error: BotWireError | apsw.Error | OSError, path: str) -> BotWireError:
    if isinstance(error, apsw.Error):
        return in_our_words(error, path)
    return error if isinstance(error, BotWireError) else StoreUnavailable(f"{path}: {error}")


def _fail(requests: list[Request], error: BaseException) -> None:
    for request in requests:
        request.error = request.error or error
        request.done = True


def _reopen(path: str, durability: Durability) -> SQLiteStore:
    return SQLiteStore(path, durability=durability)


# ── forks ───────────────────────────────────────────────────────────────────────────────────────────

_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_fork_lock = threading.Lock()  # one fork at a time
_forking: list[SQLiteStore] = []
abandoned: list[Any] = []  # what a child could not help inheriting: kept, for closing it would touch the parent's file


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking[:] = list(_stores)
    for store in _forking:
        store.before_fork()


def _after_fork_in_parent() -> None:
    for store in reversed(_forking):
        store.after_fork_in_parent()
    _forking.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _fork_lock  # noqa: PLW0603  # the old one is held by a thread that is not here
    _fork_lock = threading.Lock()
    for store in _forking:
        store.after_fork_in_child()
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
