"""The state in an SQLite file, or in a private temporary one.

Guarantees: a commit is on the disk when it returns (write-ahead log, fully
synchronous); a file that is empty, torn or not a database is an error and
never an empty state; so is a file that was removed or replaced while in use.

Does not guarantee: that several machines may share the file over a network
file system. Use PostgreSQL for that.

A hazard to know: POSIX drops all locks that a process has on a file as soon as
the process closes *any* descriptor of it. So nothing in this package ever
opens a state file other than through SQLite; ``stat`` has to do.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from ..errors import StateDamaged, StateError, StateFull, StateLocked, StateReadOnly, StateUnreadable
from .database import Database, SqlRow
from .leases import FileLease, FreeLease, LeaseLock

__all__ = ["SHORTER", "SqliteDatabase", "unreachable"]

_Result = TypeVar("_Result")

#: Connections of a parent process. Closing one in the child would end the parent's transactions.
_inherited: list[sqlite3.Connection] = []
#: The files of those among them that can't be opened again in this process.
_spoilt: set[tuple[int, int]] = set()

_FULL = {sqlite3.SQLITE_FULL}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

#: The smallest size of an SQLite database, in bytes.
_SMALLEST = 512
#: What is left of the write-ahead log once it was written back, in bytes.
_LOG_KEPT = 16 * 1024 * 1024

#: What is expected of a name. SQLite's side files and a file in the making have a few bytes more.
SHORTER = "Give a shorter path as state=, with a file name of at most 200 bytes"


def unreachable(path: Path, error: OSError) -> StateUnreadable:
    """The error for a file of which nobody can tell whether it is there, with what to do about it."""
    reason = f"the state file {path} can't be reached: {error.strerror}"
    if error.errno == errno.ENAMETOOLONG:
        return StateUnreadable(f"{reason}. {SHORTER}")
    if error.errno in (errno.EACCES, errno.EPERM):
        closed = next(
            (str(one) for one in reversed(path.parents) if not os.access(one, os.X_OK)), "a directory"
        )
        return StateUnreadable(
            f"{reason}. {closed} may not be entered by this user: change its permissions, "
            "or give another place as state="
        )
    return StateUnreadable(f"{reason}. Give another place as state=")


class SqliteDatabase(Database):
    """A connection to an SQLite file.

    :param path: the file, which exists; None for a private temporary database
        that spills to the disk.
    """

    types: ClassVar[dict[str, str]] = {"int": "INTEGER", "real": "REAL", "text": "TEXT", "blob": "BLOB"}
    for_update = ""

    def __init__(self, path: Path | None, timeout: float) -> None:
        super().__init__(str(path) if path else "(temporary)", timeout)
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    # -- the connection --------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open_file(self.path) if self.path else self._open_private()
        return self._connection

    def _open_private(self) -> sqlite3.Connection:
        # An empty name, not ":memory:": SQLite then spills what exceeds its cache into an unlinked file.
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def _open_file(self, path: Path) -> sqlite3.Connection:
        for _ in range(3):
            before = self._identity(path)
            if not os.access(path, os.W_OK):
                # SQLite would go on with a connection for reading only, which stays so, and with side
                # files that stay read-only when the file itself no longer is.
                raise self._unwritable()
            connection: sqlite3.Connection | None = None
            try:
                # mode=rw: should the file vanish just now, no empty one must take its place.
                connection = sqlite3.connect(
                    f"file:{quote(os.fsencode(path))}?mode=rw",
                    uri=True,
                    timeout=self.timeout,
                    isolation_level=None,
                    check_same_thread=False,
                )
                # The first statement reads the header, and waits for whoever is mending the file.
                mode = connection.execute("PRAGMA journal_mode").fetchone()
                if mode != ("wal",) and self._is_state(connection):
                    connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")
                after = self._identity(path)
            except BaseException as error:
                if connection is not None:
                    connection.close()
                if isinstance(error, sqlite3.Error):
                    raise self._translated(error) from error
                if isinstance(error, UnicodeDecodeError):
                    raise self._damaged(error) from error
                raise
            if after == before:
                self._file = after
                return connection
            # A mended file was put in place meanwhile, and this is the old one. The mender has taken
            # the write-ahead log away, so closing can't touch the new file's.
            connection.close()
        raise StateUnreadable(f"the state file {path} is being replaced again and again")

    def _is_state(self, connection: sqlite3.Connection) -> bool:
        # Another program's database is refused later, and must not have been changed by then.
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'poller_meta'").fetchone())

    def _identity(self, path: Path) -> tuple[int, int]:
        try:
            found = path.stat()
        except FileNotFoundError:
            raise StateUnreadable(
                f"there is no state file {path}. Nothing was written. If it was there before, put it back; "
                "if a new beginning is meant, start the program again"
            ) from None
        except OSError as error:
            raise unreachable(path, error) from error
        if stat.S_ISDIR(found.st_mode):
            raise StateUnreadable(
                f"the state file {path} is a directory; expected a file, such as {path / 'state.db'}"
            )
        if stat.S_ISREG(found.st_mode) and found.st_size < _SMALLEST:
            # SQLite itself would take it for a new, empty database, and write to it.
            raise StateDamaged(
                f"the state file {path} has {found.st_size} bytes, which no state ever has; it was cut off. "
                "Restore it from a backup, or, if a new beginning is meant, delete it"
            )
        if (found.st_dev, found.st_ino) in _spoilt:
            raise StateUnreadable(
                f"the state file {path} can't be opened in this process: it was forked in the middle of "
                "a transaction of its parent. Start the worker by 'spawn', or open the state in a new process"
            )
        return found.st_dev, found.st_ino

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _before_fork(self) -> None:
        # SQLite keeps, per process, a list of files that it has locked. A child would inherit that list
        # but not the locks, so even a connection of its own would be unprotected: the parent, closing
        # as the supposedly last one, deletes the log that the child writes to. So none is open in a fork.
        if self.path is not None:
            self._disconnect()

    def _in_child(self, busy: bool) -> None:
        if self.path is None:
            self._refusal = (
                "a poller without state= can't be used in a child process, as its snapshot is in the "
                "parent's; give it state=, or make it after the fork"
            )
        elif busy and self._file is not None:
            _spoilt.add(self._file)
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None

    # -- statements --------------------------------------------------------------------

    def _do(self, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except UnicodeDecodeError as error:
            # SQLite's text about damage quotes the damaged bytes, and Python can't decode them.
            raise self._damaged(error) from error

    def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[SqlRow]:
        connection = self._connected()
        return self._do(lambda: connection.execute(sql, parameters).fetchall())

    def _run(self, sql: str, parameters: Sequence[Any]) -> int:
        connection = self._connected()
        return self._do(lambda: connection.execute(sql, parameters).rowcount)

    def _run_many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        connection = self._connected()
        self._do(lambda: connection.executemany(sql, parameters))

    def _begin(self, write: bool) -> None:
        connection = self._connected()
        self._do(lambda: connection.execute("BEGIN IMMEDIATE" if write else "BEGIN"))
        if write and self.path is not None:
            try:
                if self._identity(self.path) != self._file:
                    raise StateUnreadable(
                        f"the state file {self.path} was replaced while it was in use. Nothing was written. "
                        "Stop all pollers that use it before a restore, and start this one again"
                    )
            except StateError:
                self._roll_back()
                raise

    def _commit(self) -> None:
        connection = self._connected()
        self._do(lambda: connection.execute("COMMIT"))

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # It can't be left in an unknown condition: the next statement opens a new connection,
                # and SQLite rolls back what this one had not committed.
                self._disconnect()

    def verify_tables(self, tables: Sequence[str]) -> None:
        # A row that its index does not know of reads as one that never was: a consumer would begin anew.
        if self.path is None:
            return
        for table in tables:
            found = self.rows(f"PRAGMA integrity_check(poller_{table})")
            if found != [("ok",)]:
                what = found[0][0] if found else "unreadable"
                raise StateDamaged(
                    f"{self.shown} is damaged ({what}, in table poller_{table}). "
                    f"Run 'poller check', then 'poller repair', or restore a copy"
                )

    def has_table(self, name: str) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def lease(self, key: int) -> LeaseLock:
        return FreeLease() if self.path is None else FileLease(self.path, key)

    def lock_schema(self) -> None:
        self._must_write()  # BEGIN IMMEDIATE has locked all there is

    # -- errors ---------------------------------------------------------------------------

    def _translated(self, error: sqlite3.Error) -> StateError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        name = f"the state {self.shown}"
        if code in _LOCKED:
            return StateLocked(
                f"{name} was kept locked by another process for longer than {self.timeout:g} s; "
                "nothing was written, trying again is safe"
            )
        if code in _FULL or (code == sqlite3.SQLITE_IOERR and self._no_room()):
            return StateFull(
                f"there is no room to write {name}; nothing was half-written. Free some space and try again"
            )
        if code in _READ_ONLY or (code == sqlite3.SQLITE_CANTOPEN and self._no_writing()):
            return self._unwritable()
        if code in _DAMAGED or "no such table" in str(error) or "no such column" in str(error):
            return self._damaged(error)
        return StateUnreadable(f"{name} can't be used: {error}")

    def _damaged(self, error: Exception) -> StateDamaged:
        return StateDamaged(
            f"the state {self.shown} is damaged or not a state of this program ({error}). It is not taken "
            "for empty: restore it from a backup, try 'poller repair', or delete it if a new start is meant"
        )

    def _unwritable(self) -> StateReadOnly:
        return StateReadOnly(
            f"the state {self.shown} can't be written to: the file, its directory or its disk is read-only "
            "for this user. Change the permissions, or give another place as state="
        )

    def _no_room(self) -> bool:
        try:
            return self.path is not None and os.statvfs(self.path.parent).f_bavail == 0
        except OSError:
            return False

    def _no_writing(self) -> bool:
        return (
            self.path is not None and os.path.exists(self.path) and not os.access(self.path.parent, os.W_OK)
        )
