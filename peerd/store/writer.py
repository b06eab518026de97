"""The one writer: a thread with its own connection that commits many small writes at once.

A write is a synchronous function of a :class:`Tx`, without I/O or await. Up to :data:`MAX_BATCH` functions that wait
together share one ``BEGIN IMMEDIATE``, each inside a savepoint, and are answered after ``COMMIT``: one fsync for all
of them. A function that raises is rolled back alone. When SQLite itself gives the transaction up (SQLITE_FULL and
interrupts roll back everything), the batch is undone and each function runs again by itself; so functions must be
repeatable: no effect outside their transaction.

A full disk refuses what does not fit and nothing else. A failed write to disk is fatal at once, before anything is
tried again; so is the end of the thread. See :mod:`peerd.store.failures`.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from peerd import metrics
from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store.failures import RAISED, code_of, is_fatal, is_of_disk, out_of_room, translate

_log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_BATCH = 64
"""More would not save fsyncs worth having, and makes the first in a batch wait for the last."""

Params = Sequence[object] | Mapping[str, object]


class Tx:
    """A write transaction; valid only inside the function it is given to."""

    def __init__(self, connection: sqlite3.Connection, now: Millis, steady: Millis | None = None) -> None:
        self._connection = connection
        self._callbacks: list[Callable[[], None]] = []
        self.now = now
        """The one moment of this transaction."""
        self.steady = now if steady is None else steady
        """The same moment by the clock that nobody sets, for leases and pauses."""

    def execute(self, sql: str, params: Params = ()) -> sqlite3.Cursor:
        """Run one statement with bound parameters."""
        return self._connection.execute(sql, params)

    def executemany(self, sql: str, rows: Iterable[Params]) -> sqlite3.Cursor:
        """Run one statement for each row of parameters."""
        return self._connection.executemany(sql, rows)

    def one(self, sql: str, params: Params = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self.execute(sql, params).fetchone()
        return row

    def all(self, sql: str, params: Params = ()) -> list[sqlite3.Row]:
        """All rows."""
        return self.execute(sql, params).fetchall()

    def insert(self, sql: str, params: Params = ()) -> int:
        """Run an INSERT and return the new row's id."""
        rowid = self.execute(sql, params).lastrowid
        assert rowid is not None  # noqa: S101 - an INSERT that did not raise has one
        return rowid

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call this on the event loop once the transaction is durable; never if it is rolled back."""
        self._callbacks.append(callback)


class _Write(Generic[T]):
    """A function that waits for its turn, and the future of whoever waits for it."""

    def __init__(self, function: Callable[[Tx], T], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._callbacks: list[Callable[[], None]] = []
        self._result: T | None = None
        self._error: BaseException | None = None
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()

    def run(self, connection: sqlite3.Connection, now: Millis, steady: Millis) -> None:
        """Run inside a savepoint. Keeps what the function raised; raises only when the transaction is lost."""
        tx = Tx(connection, now, steady)
        self._result, self._error, self._callbacks = None, None, []
        connection.execute("SAVEPOINT write")
        try:
            self._result = self._function(tx)
            self._callbacks = tx._callbacks
        except Exception as error:
            if isinstance(error, sqlite3.Error) and (is_of_disk(error) or not connection.in_transaction):
                raise  # the whole batch is lost, or may be, with this as its reason
            self._error = error
            connection.execute("ROLLBACK TO write")
        connection.execute("RELEASE write")

    def fail(self, error: BaseException) -> None:
        self._error, self._callbacks = error, []

    def resolve(self, path: Path) -> None:
        """On the event loop: tell whoever waits."""
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - it is stored all the same, and the others of the batch wait, too
                _log.exception("store.callback_crashed")
        if self.future.cancelled():
            return
        if self._error is None:
            self.future.set_result(self._result)  # type: ignore[arg-type]
            return
        error = translate(self._error, path) if isinstance(self._error, RAISED) else self._error
        self.future.set_exception(error)
        self.future.exception()  # else asyncio logs it, if whoever asked went away


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(self, path: Path, clock: Clock, *, on_fatal: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._clock = clock
        self._on_fatal = on_fatal or _exit_at_once
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._opened: Future[None] = Future()
        self._closed = False
        self._dead: Exception | None = None
        self.commits = 0
        """Commits so far; what a benchmark counts."""

    def start(self) -> None:
        """Start the thread; return when it has the file open. Raises what SQLite said."""
        self._thread.start()
        self._opened.result()

    async def write(self, function: Callable[[Tx], T]) -> T:
        """Run the function in a transaction and return its result once that is durable.

        A caller that is cancelled meanwhile does not undo the write.
        """
        if self._closed:
            raise PeerdError(Reason.SHUTTING_DOWN, "the store is closed")
        write = _Write(function, asyncio.get_running_loop())
        self._queue.put(write)
        return await asyncio.shield(write.future)

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            connection = connect(self._path)
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while (batch := self._take()) is not None:
                self._commit(connection, batch)
        except BaseException as error:
            self._on_fatal(f"the writer of {self._path} has ended: {error!r}")  # or all writes would wait for ever
            raise
        finally:
            connection.close()

    def _take(self) -> list[_Write[Any]] | None:
        """Wait for one write, then take what else is there."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                break
            if write is None:
                self._queue.put(None)
                break
            batch.append(write)
        return batch

    def _commit(self, connection: sqlite3.Connection, batch: list[_Write[Any]]) -> None:
        if self._try(connection, batch) is not None:
            for write in batch:
                error = self._try(connection, [write])
                if error is not None:
                    write.fail(error)
        failpoint("store.after_commit")
        by_loop: dict[asyncio.AbstractEventLoop, list[_Write[Any]]] = {}
        for write in batch:
            by_loop.setdefault(write.loop, []).append(write)
        for loop, writes in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve_all, writes, self._path)
            except RuntimeError:  # the loop has closed: nobody is left to be told
                continue

    def _try(self, connection: sqlite3.Connection, batch: list[_Write[Any]]) -> Exception | None:
        """Why nothing of it is stored; None if all is."""
        if self._dead is not None:
            return self._dead
        try:
            self._attempt(connection, batch)
        except sqlite3.Error as error:
            no_room = out_of_room(error, self._path)
            refusal = no_room or translate(error, self._path)
            if is_fatal(error) and no_room is None:
                self._dead = refusal
                self._on_fatal(f"cannot write {self._path}: {error}")
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return refusal
        return None

    def _attempt(self, connection: sqlite3.Connection, batch: list[_Write[Any]]) -> None:
        now, steady, began = self._clock.now(), self._clock.steady(), self._clock.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        for write in batch:
            write.run(connection, now, steady)
        failpoint("store.before_commit")
        connection.execute("COMMIT")
        self.commits += 1
        metrics.commit_duration.observe(self._clock.monotonic() - began)


def connect(path: Path) -> sqlite3.Connection:
    """A connection for writing, with every safety that costs little."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # NORMAL may lose acknowledged commits at power loss
            "foreign_keys=ON",
            "busy_timeout=5000",
            "trusted_schema=OFF",
            "cell_size_check=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _check_writable(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_writable(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite opens what it may not write to for reading, and says so at the first write: too late."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    try:
        connection.execute(f"PRAGMA user_version = {version:d}")
    except sqlite3.OperationalError as error:
        if code_of(error) & 0xFF != sqlite3.SQLITE_READONLY:
            raise
        raise PeerdError(Reason.DISK_FAILED, f"cannot write {path}: it can only be read") from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _resolve_all(writes: Sequence[_Write[Any]], path: Path) -> None:
    for write in writes:
        write.resolve(path)


def _exit_at_once(message: str) -> None:
    print(f"peerd: {message}; stopping", file=sys.stderr, flush=True)
    os._exit(74)  # EX_IOERR
