"""The metadata database: SQLite, one writer, group commit.

Writes are functions over the connection. They are queued, and the writer thread runs whatever is waiting in one
transaction with one fsync: while the disk syncs, the next group gathers. Each function has its own savepoint, so one
that fails undoes its own work only.

A write that is not durable is committed without an fsync (`synchronous=NORMAL`: the WAL is written, in order, and the
next durable commit syncs all of it). A power cut may lose it, never tear it or reorder it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from corten.errors import DataCorrupt, SystemFault
from corten.storage.reserve import Reserve

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

# Each entry brings the schema from its index to the next version. Never change one that was released; add one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE documents (sequence INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL,"
        " body BLOB NOT NULL, UNIQUE (kind, id))",
        "CREATE TABLE snapshots (driver TEXT NOT NULL, id INTEGER NOT NULL, key TEXT NOT NULL, parent INTEGER,"
        " kind TEXT NOT NULL CHECK (kind IN ('active', 'committed', 'view')), size INTEGER NOT NULL DEFAULT 0,"
        " inodes INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (driver, id), UNIQUE (driver, key),"
        " FOREIGN KEY (driver, parent) REFERENCES snapshots (driver, id))",
        "CREATE INDEX snapshots_parent ON snapshots (driver, parent)",
    ),
)
_MAX_GROUP = 256


@dataclass(slots=True)
class _Item:
    work: Callable[[sqlite3.Connection], Any]
    durable: bool
    result: Future[Any]
    value: Any = None
    failure: BaseException | None = None


class Database:
    """One SQLite file. Opened by the constructor, which brings an older schema up to date; `close` when done.

    Raises DataCorrupt for a damaged file, SystemFault for one that a newer Corten wrote; neither is ever replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._reserve = Reserve(path.with_name(path.name + "-reserve"))
        self._reserve.release()  # opening needs room of its own
        self._writer = _open(path)
        try:
            self._reader = _connect(path)
        except BaseException:
            self._writer.close()
            raise
        self._read_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._closed = False
        self._synchronous = "FULL"
        self._index_fd = _hold_index(path)
        self._reserve.take()
        self._thread = threading.Thread(target=self._serve, name="database writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Run `work` in a transaction; its result once that is committed (and on disk, if durable).

        What `work` raises is raised here and undoes this work alone. Cancelling gives up a write that has not begun.
        """
        return await asyncio.wrap_future(self._submit(work, durable))

    def write_blocking(self, work: Work[T], *, durable: bool = True) -> T:
        """`write` for worker threads."""
        return self._submit(work, durable).result()

    def read(self, work: Work[T]) -> T:
        """Run a query on a connection that no writer blocks. Sees everything whose write has returned."""
        with self._read_lock:
            if self._closed:
                raise RuntimeError(f"{self.path} is closed")
            try:
                return work(self._reader)
            except sqlite3.DatabaseError as error:
                raise _translate(self.path, error) from error

    def check(self) -> list[str]:
        """Faults of the file and rows that refer to missing ones, in SQLite's words. Reads everything."""

        def faults(connection: sqlite3.Connection) -> list[str]:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
            rows = [
                f"row {row} of {table} refers to a row of {parent} that is missing" for table, row, parent, _ in orphans
            ]
            return [fault for fault in found if fault != "ok"] + rows

        return self.read(faults)

    def close(self) -> None:
        """Finish what is queued, flush everything to disk, and close. A second call does nothing."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        with self._read_lock:
            self._reader.close()
        if self._index_fd >= 0:
            os.close(self._index_fd)

    def _submit(self, work: Work[T], durable: bool) -> Future[T]:
        result: Future[T] = Future()
        with self._close_lock:
            if self._closed:
                raise RuntimeError(f"{self.path} is closed")
            self._queue.put(_Item(work, durable, result))
        return result

    def _serve(self) -> None:
        running = True
        while running:
            item = self._queue.get()
            group: list[_Item] = []
            while item is not None:
                if item.result.set_running_or_notify_cancel():
                    group.append(item)
                if len(group) >= _MAX_GROUP:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            running = item is not None
            if group:
                self._run_group(group)
        self._finish()

    def _run_group(self, group: list[_Item]) -> None:
        failure = self._try_group(group)
        if any(map(_is_full, (failure, *(item.failure for item in group)))) and self._reserve.release():
            for item in group:
                item.failure = None
            failure = self._try_group(group)
        elif not self._reserve.held:
            self._reserve.take()
        if failure is not None:
            self._withdraw()
        for item in group:
            raised = item.failure or failure
            if isinstance(raised, sqlite3.DatabaseError):
                raised = _translate(self.path, raised)
            if raised is not None:
                item.result.set_exception(raised)
            else:
                item.result.set_result(item.value)

    def _try_group(self, group: list[_Item]) -> BaseException | None:
        try:
            self._commit_group(group)
        except BaseException as error:  # whatever it is, the callers must hear of it and the thread must go on
            if self._writer.in_transaction:
                self._writer.rollback()
            return error
        return None

    def _withdraw(self) -> None:
        """Make sure that a transaction which has failed stays failed.

        Where all of it was written to the log and only the sync went wrong, the next start would find it there and take
        it for committed, while its callers have undone what belongs to it. Another transaction takes its place.
        """
        try:
            self._set_synchronous("FULL")
            version = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute(f"PRAGMA user_version={version}")
            self._writer.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            log.warning("%s: what has failed may be there after the next start: %s", self.path, error)
            if self._writer.in_transaction:
                self._writer.rollback()

    def _commit_group(self, group: list[_Item]) -> None:
        connection = self._writer
        # The pragma cannot change inside a transaction, so one durable write makes its group durable.
        self._set_synchronous("FULL" if any(item.durable for item in group) else "NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        for item in group:
            connection.execute("SAVEPOINT work")
            try:
                item.value = item.work(connection)
            except BaseException as error:  # a failing work is its caller's affair
                item.failure = error
                if connection.in_transaction:
                    connection.execute("ROLLBACK TO work")
                else:
                    raise  # SQLite gave up the whole transaction (disk full, I/O error)
            connection.execute("RELEASE work")
        connection.execute("COMMIT")

    def _set_synchronous(self, mode: str) -> None:
        if mode != self._synchronous:
            self._writer.execute(f"PRAGMA synchronous={mode}")
            self._synchronous = mode

    def _finish(self) -> None:
        try:
            self._set_synchronous("FULL")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError:
            pass  # the WAL stays and is replayed at the next start
        finally:
            self._writer.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives the WAL the mode of the file. Containers' environments are in it: for root's eyes only.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = _connect(path)
    except sqlite3.DatabaseError as error:
        raise _translate(path, error) from error
    except OSError as error:
        raise SystemFault(f"cannot open the metadata database {path}: {error.strerror}", step="open") from error
    try:
        _check(path, connection)
        _migrate(path, connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _translate(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _hold_index(path: Path) -> int:
    """Give SQLite's index of the log, which is a file mapped into memory, all of its blocks; it has holes where these
    are small, and writing to one on a full disk kills the process (SIGBUS). -1 where that cannot be done.

    The descriptor must stay open as long as the database is: closing it takes SQLite's locks on the file away.
    """
    try:
        fd = os.open(path.with_name(path.name + "-shm"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    with suppress(OSError):
        os.posix_fallocate(fd, 0, max(os.fstat(fd).st_size, 1))
    return fd


def _check(path: Path, connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, str(found))


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise SystemFault(
            f"the metadata database {path} has schema {version}, this Corten knows {len(MIGRATIONS)}: it was written by"
            " a newer version. Run that version, or point --data-root somewhere else; nothing was changed",
            step="open the metadata database",
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        for statement in MIGRATIONS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={number + 1}")
        connection.execute("COMMIT")


def _damaged(path: Path, reason: str) -> DataCorrupt:
    return DataCorrupt(
        f"the metadata database {path} is damaged ({reason}); nothing was changed. Restore it from a backup, or move"
        f" {path.name} and {path.name}-wal away to start with no images, containers, volumes and networks on record",
        step="open the metadata database",
    )


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF == (
        sqlite3.SQLITE_FULL
    )


def _translate(path: Path, error: sqlite3.DatabaseError) -> SystemFault | sqlite3.DatabaseError:
    """Errors of the file and the disk as ours; those of a query (a constraint) as they are, for the query's author."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return SystemFault(f"write {path}: no space left on device", step="write the metadata database", errno=28)
    if isinstance(error, sqlite3.OperationalError) and code in (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
    ):
        return SystemFault(f"the metadata database {path}: {error}", step="use the metadata database")
    return error
