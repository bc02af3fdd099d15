"""Making a new SQLite state file.

Guarantees: a file that has the state's name is whole. It is made under another
name in the same directory and linked into place, so whoever is killed in the
middle leaves no half of a state behind, and of two processes that make one at
once both use the same. Only its owner can read it (mode 0600; directories that
have to be made: 0700).

Does not guarantee: that nothing is left under the other name after a kill; the
next one who makes a state in that directory an hour later clears it away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import time
from pathlib import Path

from ..crashpoints import crash_point
from ..errors import StateError, StateFull, StateReadOnly, StateUnreadable
from .schema import prepare
from .sqlite import SHORTER, SqliteDatabase, unreachable

__all__ = ["build", "discard", "is_there", "make_state_file", "sync_directory"]

#: The age, in seconds, at which a file that was never put in place is nobody's any more.
_ABANDONED = 3600.0
#: What :func:`os.link` fails with where the file system has no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def is_there(path: Path) -> bool:
    """Whether there is something of that name.

    :raises StateUnreadable: if that can't be told: what can't be reached is not taken for absent.
    """
    # Not Path.exists(), which raises some errors and takes others for an answer, not the same in each Python.
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreachable(path, error) from error
    return True


def make_state_file(path: Path, timeout: float) -> None:
    """Make a new, empty state, unless one is there already.

    :raises StateError: if it can't be made, or can't be reached.
    """
    if is_there(path):
        return
    log = path.with_name(path.name + "-wal")
    if is_there(log) and not is_there(path):
        # SQLite would replay the old file's log into the new one.
        raise StateUnreadable(
            f"the state file {path} is gone, but its log {log.name} is still there. Put the state file back, "
            "or, if a new beginning is meant, delete the log as well"
        )
    try:
        _make_directories(path.parent)
        _clear_abandoned(path)
        building = build(path, timeout)
        try:
            crash_point("state.create.before")
            _put_in_place(building, path)
            crash_point("state.create.after")
        finally:
            discard(building)
        sync_directory(path.parent)
    except OSError as error:
        raise _translated(path, error) from error


def build(path: Path, timeout: float) -> Path:
    """Make an empty state beside ``path``; its name."""
    building = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    # SQLite gives its side files the mode of the main one, which therefore is right from the start.
    os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        database = _NewDatabase(building, timeout)
        database.shown = str(path)  # errors are about the state that is to be
        try:
            prepare(database, create=True)
        finally:
            database.close()
    except BaseException:
        discard(building)
        raise
    return building


def discard(building: Path) -> None:
    """Delete a file that was built, under the name that it was built with."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{building}{suffix}").unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _NewDatabase(SqliteDatabase):
    """A file that is still empty, which everywhere else is damage."""

    def _is_state(self, connection: sqlite3.Connection) -> bool:
        return True

    def _identity(self, path: Path) -> tuple[int, int]:
        found = path.stat()
        return found.st_dev, found.st_ino


def _make_directories(directory: Path) -> None:
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for name in reversed(missing):
        name.mkdir(0o700, exist_ok=True)


def _clear_abandoned(path: Path) -> None:
    old = time.time() - _ABANDONED
    for name in os.listdir(path.parent):
        if name.startswith(f".{path.name}.") and name.removesuffix("-wal").removesuffix("-shm").endswith(
            ".new"
        ):
            left = path.parent / name
            try:
                if left.stat().st_mtime < old:
                    left.unlink()
            except FileNotFoundError:
                continue  # another process clears up as well


def _put_in_place(building: Path, path: Path) -> None:
    try:
        os.link(building, path)
    except FileExistsError:
        pass  # somebody else was first, and theirs is as good
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_into_place(building, path)


def _rename_into_place(building: Path, path: Path) -> None:
    """Where there are no hard links: a rename, which must not replace another process's file."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not path.exists():
            building.rename(path)
    finally:
        os.close(descriptor)


def _translated(path: Path, error: OSError) -> StateError:
    reason = f"the state file {path} can't be made: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StateFull(f"{reason}. Free some space and try again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StateReadOnly(f"{reason}. Change the permissions, or give another place as state=")
    if error.errno == errno.ENAMETOOLONG:
        return StateUnreadable(f"{reason}. {SHORTER}")
    return StateUnreadable(f"{reason}. Give another place as state=")
