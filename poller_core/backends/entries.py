"""What of a directory is an entry, and what its fingerprint is.

Guarantees: a name that could not be looked at is never taken for absent, unless
the system says that it is (ENOENT, ENOTDIR); and nothing that is not a regular
file, a symbolic link or a directory is an entry.

Does not guarantee: that an entry is still what it was when its row was read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

from ..listing import Chunk, Gap, Row, key_span
from .filesystem import ABSENT, Chain, FileSystem, is_name, target_error, why

__all__ = [
    "FIELDS",
    "FINGERPRINT",
    "Pending",
    "Unsearchable",
    "WalkOptions",
    "blanked",
    "directory_row",
    "entered",
    "is_subject",
    "look",
    "one",
    "resolve",
    "unsearchable",
]

#: What the row of a file or link holds, in this order.
FIELDS = ("mode", "ino", "nlink", "uid", "gid", "size", "mtime_ns", "ctime_ns")

#: The parts of a fingerprint that can be left out, and where they are in a row.
FINGERPRINT = {"inode": 1, "size": 5, "mtime": 6, "ctime": 7}

#: Something to come back to at its place in the order: a directory (key within the one
#: above, ending in ``/``; its row), or what could not be looked at (key; None; the reason).
Pending: TypeAlias = tuple[bytes, Row | None, str]

_ROW: Callable[[os.stat_result], Row] = attrgetter(*(f"st_{field}" for field in FIELDS))
_MODE: Callable[[Row], Any] = itemgetter(0)
_KEY: Callable[[Pending], Any] = itemgetter(0)

_KIND = 0o170000
_DIR, _LINK = 0o040000, 0o120000
#: The modes of regular files and links, and of nothing else, lie from the one to before the other.
_FIRST, _BEYOND = 0o100000, 0o130000


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """What a walk lists, and how.

    :param recurse: go into directories.
    :param follow_symlinks: see links as what they point at. Dangling ones are entries all the same.
    :param directories: directories are entries, too; their keys end in ``/``.
    :param fingerprint: which parts of :data:`FINGERPRINT` a row tells; the others are 0 in it.
    :param enter: asked with ``prefix/``; a directory for which it says False is neither entered nor an entry.
    :param label: what messages call the root.
    :param sized: the ``st_size`` of a directory grows with the number of its names. If not,
        every directory is read in the more careful way that is made for large ones.
    :param most_gaps: past so many gaps in one walk, a further one takes in what follows it in its
        directory, later also in the directories above, so that their number stays bounded.
    """

    recurse: bool = True
    follow_symlinks: bool = False
    directories: bool = False
    fingerprint: frozenset[str] = frozenset(FINGERPRINT)
    enter: Callable[[bytes], bool] | None = None
    label: bytes = b""
    sized: bool = True
    most_gaps: int = 1000


class Unsearchable(PermissionError):
    """No name in this directory can be looked up."""


def is_subject(row: Row, directory: bool) -> bool:
    """Whether the row is that of a directory, or of a file or link."""
    return bool(row[0] & _KIND == _DIR if directory else _FIRST <= row[0] < _BEYOND)


def resolve(fs: FileSystem, fd: int, name: bytes, follow: bool) -> Row:
    """The row of one name; with ``follow``, of what it points at, unless that is not there.

    :raises OSError: when the entry, or what it points at, can't be looked at.
    """
    row = _ROW(fs.lstat(name, dir_fd=fd))
    return _through(fs, fd, name, row) if follow and row[0] & _KIND == _LINK else row


def blanked(rows: list[Row], wanted: frozenset[str]) -> list[Row]:
    """The rows with 0 in place of what the fingerprint leaves out."""
    keep = [True] * len(FIELDS)
    for name, index in FINGERPRINT.items():
        keep[index] = name in wanted
    return [tuple(value if kept else 0 for value, kept in zip(row, keep, strict=True)) for row in rows]


def directory_row(row: Row) -> Row:
    """The row of a directory as an entry."""
    # Its links, size and times change with its children, and that is no change of its own.
    mode, ino, _, uid, gid, *_ = row
    return (mode, ino, 0, uid, gid, 0, 0, 0)


def unsearchable(fs: FileSystem, fd: int) -> bool:
    """Whether names in the directory can't be looked up at all (no ``x`` permission)."""
    try:
        fs.lstat(b".", dir_fd=fd)
    except OSError as error:
        return error.errno == errno.EACCES
    return False


def one(fs: FileSystem, root_fd: int, key: bytes, options: WalkOptions) -> Iterator[Chunk | Gap]:
    """What there is under one key. The directories above it are opened, none is listed.

    :raises TargetError: if the names in the root can't be looked up.
    """
    *parts, name = key.removesuffix(b"/").split(b"/")
    wants_directory = key.endswith(b"/")
    if not is_name(name) or (parts and not options.recurse) or (wants_directory and not options.directories):
        return
    if not entered([*parts, name] if wants_directory else parts, options):
        return
    chain = Chain(fs, root_fd, options.follow_symlinks)
    fd = root_fd
    try:
        fd = chain.open(parts)
        row = resolve(fs, fd, name, options.follow_symlinks)
    except OSError as error:
        if error.errno not in ABSENT:
            if error.errno == errno.EACCES and fd == root_fd and unsearchable(fs, root_fd):
                raise target_error(error, options.label) from None
            yield Gap(key_span(key), why(error, options.label, key))
        return
    finally:
        chain.close()
    if is_subject(row, wants_directory):
        cut = key.rfind(b"/", 0, -1) + 1
        rows = [directory_row(row) if wants_directory else row]
        yield Chunk(key[:cut], [key[cut:]], blanked(rows, options.fingerprint))


def entered(parts: list[bytes], options: WalkOptions) -> bool:
    """Whether none of these nested directories is left out."""
    if options.enter is None:
        return True
    prefix = b""
    for part in parts:
        prefix += part + b"/"
        if not options.enter(prefix):
            return False
    return True


def look(
    fs: FileSystem, fd: int, prefix: bytes, names: list[bytes], options: WalkOptions
) -> tuple[list[bytes], list[Row], list[Pending]]:
    """Look at names in an open directory.

    :returns: the files among them, their rows, and what else there is to do, last one first.
    :raises Unsearchable: if none of the names can be looked up.
    """
    lstat = fs.lstat
    pending: list[Pending] = []
    try:
        rows = [_ROW(lstat(name, dir_fd=fd)) for name in names]
    except OSError:
        names, rows = _look_at_each(fs, fd, prefix, names, options, pending)
    odd = _LINK if options.follow_symlinks else _BEYOND
    for mode in set(map(_MODE, rows)):
        if not _FIRST <= mode < odd:
            names, rows = _sort_out(fs, fd, prefix, names, rows, options, pending)
            break
    if len(pending) > 1:
        pending.sort(key=_KEY, reverse=True)
    return names, rows, pending


def _look_at_each(
    fs: FileSystem,
    fd: int,
    prefix: bytes,
    names: list[bytes],
    options: WalkOptions,
    pending: list[Pending],
) -> tuple[list[bytes], list[Row]]:
    """The slow way, when one of the names made trouble."""
    kept: list[bytes] = []
    rows: list[Row] = []
    for name in names:
        try:
            rows.append(_ROW(fs.lstat(name, dir_fd=fd)))
        except OSError as error:
            if error.errno in ABSENT:
                continue
            if error.errno == errno.EACCES and unsearchable(fs, fd):
                raise Unsearchable(error.errno, error.strerror) from None
            _unknown(name, error, prefix, options, pending)
        else:
            kept.append(name)
    return kept, rows


def _sort_out(
    fs: FileSystem,
    fd: int,
    prefix: bytes,
    names: list[bytes],
    rows: list[Row],
    options: WalkOptions,
    pending: list[Pending],
) -> tuple[list[bytes], list[Row]]:
    """Part files from directories and from what is never an entry; follow links if that is wanted."""
    enters = options.recurse or options.directories
    files: list[bytes] = []
    kept: list[Row] = []
    for name, found in zip(names, rows, strict=True):
        row = found
        if options.follow_symlinks and row[0] & _KIND == _LINK:
            try:
                row = _through(fs, fd, name, row)
            except OSError as error:
                _unknown(name, error, prefix, options, pending)
                continue
        mode = row[0]
        if mode & _KIND == _DIR:
            if enters:
                pending.append((name + b"/", row, ""))
        elif _FIRST <= mode < _BEYOND:
            files.append(name)
            kept.append(row)
    return files, kept


def _through(fs: FileSystem, fd: int, name: bytes, row: Row) -> Row:
    try:
        return _ROW(fs.stat(name, dir_fd=fd))
    except OSError as error:
        if error.errno in ABSENT or error.errno == errno.ELOOP:
            return row  # a dangling link is an entry by itself
        raise


def _unknown(
    name: bytes, error: OSError, prefix: bytes, options: WalkOptions, pending: list[Pending]
) -> None:
    # It may be a file, or a directory with anything in it: neither place may count as empty.
    reason = why(error, options.label, prefix + name)
    pending.append((name, None, reason))
    if options.recurse or options.directories:
        pending.append((name + b"/", None, reason))
