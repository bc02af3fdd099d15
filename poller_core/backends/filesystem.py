"""The system calls that the directory backend makes, and paths that are opened one step at a time.

Guarantees: everything that the backend does to a file system goes through one
:class:`FileSystem` that it is handed, so that a test can make any call fail,
stall or lie. No path longer than one name is ever given to the system, hence a
tree may be deeper than the longest path that the system takes.

Does not guarantee: anything about what lies behind a symbolic link that the
caller asked to be followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from ..errors import AccessDenied, TargetError, TargetNotFound

__all__ = ["ABSENT", "Chain", "FileSystem", "is_name", "shown", "target_error", "why"]

#: What the system says when a name is proven not to be there (or not to be a directory).
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOFOLLOW = _DIRECTORY | os.O_NOFOLLOW

#: So many levels of a :class:`Chain` stay open for its next path.
_KEPT = 24


class FileSystem:
    """The calls of the directory backend. Override any of them in a test.

    Where nothing needs to be added the attributes are the functions of
    :mod:`os` themselves: a listing makes one ``lstat`` per entry, and a wrapper
    would cost as much as the rest of the walk.
    """

    #: ``listdir(fd)``: the names in a directory, in any order.
    listdir: Callable[..., list[str]] = staticmethod(os.listdir)
    #: ``scandir(fd)``: the same, one at a time, for directories too large for a list.
    scandir: Callable[..., AbstractContextManager[Iterator[os.DirEntry[str]]]] = staticmethod(os.scandir)
    #: ``lstat(name, dir_fd=fd)``: the entry itself, not what a link points at.
    lstat: Callable[..., os.stat_result] = staticmethod(os.lstat)
    #: ``stat(path, dir_fd=None)``: what a link points at.
    stat: Callable[..., os.stat_result] = staticmethod(os.stat)
    fstat: Callable[[int], os.stat_result] = staticmethod(os.fstat)
    fstatvfs: Callable[[int], os.statvfs_result] = staticmethod(os.fstatvfs)
    close: Callable[[int], None] = staticmethod(os.close)

    def open_dir(self, name: bytes, dir_fd: int | None, follow: bool) -> int:
        """Open a directory to list it; with ``follow=False`` a symbolic link is refused (ENOTDIR)."""
        return os.open(name, _DIRECTORY if follow else _NOFOLLOW, dir_fd=dir_fd)


def is_name(part: bytes) -> bool:
    """Whether a directory could have an entry of that name (``.`` and ``..`` are no entries)."""
    return part not in (b"", b".", b"..") and b"\0" not in part and b"/" not in part


class Chain:
    """Directories below a root, each opened relative to the one above.

    Paths that are asked for one after the other share the directories that they
    have in common; of one path about two dozen descriptors stay open at most.

    :param follow: go through symbolic links; a directory that is one of its own
        ancestors (a loop) counts as absent then, as it does in a walk.
    """

    def __init__(self, fs: FileSystem, root_fd: int, follow: bool) -> None:
        self._fs = fs
        self._root = root_fd
        self._follow = follow
        self._parts: list[bytes] = []
        self._fds: list[int] = []
        self._deep = -1
        self.ids: list[tuple[int, int]] = []  #: (device, inode) from the root on; only with ``follow``

    def open(self, parts: Sequence[bytes]) -> int:
        """The descriptor of the directory at the end of the names; good until the next call.

        :raises OSError: from the step that failed; ENOENT or ENOTDIR prove that there
            is no such directory.
        """
        fs = self._fs
        self._drop_deep()
        common = 0
        for ours, theirs in zip(self._parts, parts, strict=False):
            if ours != theirs:
                break
            common += 1
        while len(self._fds) > common:
            fs.close(self._fds.pop())
        del self._parts[common:]
        fd = self._fds[-1] if self._fds else self._root
        if self._follow:
            if not self.ids:
                self.ids.append(self._identity(fd))
            del self.ids[common + 1 :]
        for depth in range(common, len(parts)):
            name = parts[depth]
            if not is_name(name):
                raise FileNotFoundError(errno.ENOENT, "not a name that an entry could have")
            fd = fs.open_dir(name, fd, self._follow)
            if depth < _KEPT:
                self._fds.append(fd)
                self._parts.append(name)
            else:
                self._drop_deep()
                self._deep = fd
            if self._follow:
                identity = self._identity(fd)
                if identity in self.ids:
                    self._forget_last()
                    raise NotADirectoryError(errno.ENOTDIR, "a loop of symbolic links")
                self.ids.append(identity)
        return fd

    def take(self) -> int:
        """Hand the descriptor that :meth:`open` gave last over to the caller, who closes it."""
        if self._deep >= 0:
            fd, self._deep = self._deep, -1
            return fd
        self._parts.pop()
        return self._fds.pop()

    def _forget_last(self) -> None:
        # Closed at once: its identity is not recorded, so that no later path may start from it.
        self._fs.close(self.take())

    def close(self) -> None:
        """Close everything but the root, which belongs to the caller."""
        self._drop_deep()
        while self._fds:
            self._fs.close(self._fds.pop())
        self._parts.clear()
        self.ids.clear()

    def _identity(self, fd: int) -> tuple[int, int]:
        found = self._fs.fstat(fd)
        return found.st_dev, found.st_ino

    def _drop_deep(self) -> None:
        if self._deep >= 0:
            fd, self._deep = self._deep, -1
            self._fs.close(fd)


def shown(path: bytes | str) -> str:
    """A path as text for a message: on one line, printable, and not longer than a few lines."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if len(text) <= 400 else f"{text[:200]}…{text[-160:]}"


def why(error: OSError, root: bytes, key: bytes) -> str:
    """The system's own words for an error, and where below the root it happened."""
    words: str = error.strerror or type(error).__name__
    return f"{words}: {shown(os.path.join(root, key))}"


def target_error(error: OSError, root: bytes) -> TargetError:
    """The error to raise when the target as a whole can't be looked at."""
    text = why(error, root, b"")
    if error.errno in ABSENT:
        return TargetNotFound(f"{text} (expected an existing directory or file)")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(
            f"{text} (the directory needs read and search permission, r and x, for this user)"
        )
    return TargetError(text)
