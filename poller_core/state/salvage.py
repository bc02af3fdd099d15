"""Saving what can be read of an SQLite file that is broken inside.

Guarantees: at every moment a file with the state's name is there, the broken
one or the mended one; the broken one is kept beside it as ``….damaged-1`` (or
the next free number). No other process is using the file meanwhile, nor goes
on with the broken one.

Does not guarantee: that what was saved fits together.
:mod:`~poller_core.state.repair` sees to that afterwards.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..crashpoints import crash_point
from ..errors import StateDamaged, StateError, StateFull, StateLocked, StateUnreadable
from .database import SqlRow
from .files import build, discard, sync_directory
from .schema import TABLES, check_version, current_version

__all__ = ["Repaired", "salvage"]

#: How many pieces of a table are tried before the rest of it is given up.
_MOST_TRIES = 50_000
_INSERT_AT_ONCE = 200
#: What the declared types are in Python; whether NULL is allowed is for the new table to say.
_PYTHON: dict[str, tuple[type, ...]] = {
    "INTEGER": (int, type(None)),
    "REAL": (float, type(None)),
    "TEXT": (str, type(None)),
    "BLOB": (bytes, type(None)),
}


@dataclass(frozen=True)
class Repaired:
    """Something that was mended."""

    what: str
    cost: str  #: what it lost


def salvage(path: Path, timeout: float) -> list[Repaired]:
    """Put a new file with all that can be read in the place of a broken one.

    :raises StateLocked: if another process has the file open.
    :raises StateDamaged: if nothing can be read.
    """
    try:
        with closing(_open(path, timeout)) as source:
            _lock(source, path)
            columns = _columns(source, path)
            building = build(path, timeout)
            try:
                done = _copy(source, path, building, columns)
                kept = _keep(path)
                crash_point("state.salvage.before")
                building.rename(path)
                sync_directory(path.parent)
                crash_point("state.salvage.after")
            finally:
                discard(building)
    except sqlite3.Error as error:
        raise _translated(path, error) from error
    except OSError as error:
        raise StateUnreadable(f"the state file {path} can't be mended: {error.strerror}") from error
    note = Repaired(
        f"{path} was broken inside; what could be read is in a new file", f"the old one is {kept}"
    )
    return [note, *done]


def _open(path: Path, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw", uri=True, timeout=timeout, isolation_level=None
    )


def _lock(source: sqlite3.Connection, path: Path) -> None:
    """Write the log back, and keep everybody else out until the connection closes.

    Leaving the write-ahead mode works only while nobody else has the file open, and takes the log
    away: it would be replayed into the new file.
    """
    source.execute("PRAGMA locking_mode = EXCLUSIVE")
    mode = source.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    source.execute("BEGIN EXCLUSIVE")
    if mode != "delete" or path.with_name(path.name + "-wal").exists():
        raise StateLocked(f"the state file {path} is in use; stop the pollers that use it, and try again")


def _columns(source: sqlite3.Connection, path: Path) -> dict[str, dict[str, str]]:
    """The columns of each table with their types; refuses what this program's tables don't fit."""
    try:
        row = source.execute("SELECT value FROM poller_meta WHERE key = 'schema_version'").fetchone()
        version = check_version(row[0] if row else None, str(path))
    except (sqlite3.DatabaseError, StateDamaged) as error:
        if "no such table" in str(error):
            raise StateDamaged(f"{path} is not a state of this program; nothing was changed") from error
        version = current_version()
    if version != current_version():
        raise StateDamaged(
            f"the state file {path} is broken, and of version {version}. Mend it with the release of "
            "poller-core that wrote it, then upgrade"
        )
    return {
        table: {row[1]: row[2] for row in source.execute(f"PRAGMA table_info(poller_{table})")}
        for table in ("targets", *TABLES)
    }


def _copy(
    source: sqlite3.Connection, path: Path, building: Path, columns: dict[str, dict[str, str]]
) -> list[Repaired]:
    done = []
    with closing(sqlite3.connect(building, isolation_level=None)) as target:
        target.execute("BEGIN")
        for table, types in columns.items():
            saved, failures = _copy_table(source, target, table, types)
            if table == "targets" and failures and not saved:
                raise StateDamaged(
                    f"no target can be read from the state file {path}; nothing was changed. "
                    "Restore it from a backup, or delete it if a new beginning is meant"
                )
            if failures:
                done.append(
                    Repaired(f"table {table}: {saved} rows were saved, some could not be read", _COSTS[table])
                )
        target.execute("COMMIT")
    return done


def _copy_table(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, types: dict[str, str]
) -> tuple[int, int]:
    """How many rows were saved, and how many places could not be read."""
    if not types:
        return 0, 1
    reader = _Reader(source, f"poller_{table}", types)
    before = target.total_changes
    marks = ", ".join("?" * len(types))
    batch: list[SqlRow] = []
    for row in reader.rows():
        batch.append(row)
        if len(batch) >= _INSERT_AT_ONCE:
            _insert(target, table, marks, batch)
    _insert(target, table, marks, batch)
    return target.total_changes - before, reader.failures


def _insert(target: sqlite3.Connection, table: str, marks: str, batch: list[SqlRow]) -> None:
    # OR IGNORE: a broken index may show a row twice, or one without its key.
    target.executemany(f"INSERT OR IGNORE INTO poller_{table} VALUES ({marks})", batch)
    batch.clear()


class _Reader:
    """Reads a table around the places that can't be read."""

    def __init__(self, source: sqlite3.Connection, table: str, columns: dict[str, str]) -> None:
        self._source = source
        self._types = [_PYTHON[name] for name in columns.values()]
        self._sql = (
            f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
        )
        self.failures = 0

    def rows(self) -> Iterator[SqlRow]:
        pieces = [(-(2**62), 2**62)]
        while pieces and self.failures < _MOST_TRIES:
            first, last = pieces.pop()
            try:
                for row in self._source.execute(self._sql, (first, last)):
                    first = row[0] + 1
                    # SQLite takes a broken cell's word for what type it is.
                    if all(map(isinstance, row[1:], self._types)):
                        yield row[1:]
                    else:
                        self.failures += 1
            except sqlite3.DatabaseError:
                # Somewhere behind the last row that was read: halve the rest until only that is left out.
                self.failures += 1
                if first < last:
                    middle = (first + last) // 2
                    pieces += [(middle + 1, last), (first, middle)]


def _keep(path: Path) -> Path:
    """Give the broken file a second name, so that a rename can replace the first one."""
    number = 1
    while True:
        kept = path.with_name(f"{path.name}.damaged-{number}")
        try:
            os.link(path, kept)
        except FileExistsError:
            number += 1
            continue
        return kept


def _translated(path: Path, error: sqlite3.Error) -> StateError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateLocked(f"the state file {path} is in use; stop the pollers that use it, and try again")
    if code == sqlite3.SQLITE_FULL:
        return StateFull(f"there is no room for a mended copy of {path}; nothing was changed")
    return StateDamaged(
        f"nothing can be read from the state file {path} ({error}); nothing was changed. Restore it from a "
        "backup, or delete it if a new beginning is meant"
    )


_COSTS = {
    "targets": "a target that is missing begins anew: its first look is the new baseline",
    "pages": "what is there of the missing entries is reported as created again",
    "journal": "missing events are given up; a consumer that has not read them is told so",
    "consumers": "a consumer that is missing has to be made again; see 'poller consumers'",
    "claims": "a token whose claim is missing gets other events; the missing ones count as read",
    "takes": "an event whose taker is missing is delivered again, counts as read, or can be taken again",
    "returned": "an event that was given back and is missing is not delivered again",
    "dead": "dead letters that are missing can't be tried again",
    "observed": "nothing: subjects that are not quiet yet are held until they were seen once more",
}
