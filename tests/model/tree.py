"""The world of the model: a real directory tree that is pulled about, and clocks that a test can step.

:class:`Tree` does the operations and says, without any code of the package, what a
complete and true listing is. :class:`SteppedClock` and :class:`SteppedFileSystem`
belong together: the files are stamped by the real clock of the kernel, so the file
system that the poller is given shifts those stamps by what the clock had been
stepped when each was made. That is the one thing here that is not real; besides it
can refuse to open a directory, which a test that runs as root can't have otherwise.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from poller_core.backends.filesystem import FileSystem
from poller_core.clock import Clock

#: The parts of paths. The bytes around "/" make trees and their neighbours sort in different ways.
NAMES = [b"a", b"a-", b"a.", b"a0", b"a b", b"b", b"\xff\xfe", b"\xc3\xa9", b"c.part"]

#: A kernel stamps with the time of its last tick, which is up to so many seconds ago.
_TICK = 0.011


class Row(NamedTuple):
    """What is known of a file."""

    mode: int
    ino: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int


_ROW: Callable[[os.stat_result], tuple[Any, ...]] = attrgetter(*(f"st_{name}" for name in Row._fields))
_STAT = ["st_dev", *(f"st_{name}" for name in Row._fields)]
_VALUES: Callable[[os.stat_result], tuple[Any, ...]] = attrgetter(*_STAT)


def written(old: Row, new: Row) -> bool:
    """Whether the difference is one of content: what is reported, and not only mode, owner or links."""
    if (old.size, old.mtime_ns, old.ino) != (new.size, new.mtime_ns, new.ino):
        return True
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return True
    return old.ctime_ns != new.ctime_ns and old[:5] == new[:5]


class SteppedClock(Clock):
    """The clocks of this machine, plus what the test has stepped them."""

    def __init__(self) -> None:
        self._borders = [0.0]
        self._steps = [(0.0, 0.0)]
        self._started = (0.0, 0.0)

    def wall(self) -> float:
        return time.time() + self._steps[-1][0]

    def monotonic(self) -> float:
        return time.monotonic() + self._steps[-1][1]

    def step(self, monotonic: float, wall: float, idle: bool = False) -> None:
        """Let time pass, or (with two different numbers) the wall clock jump.

        :param idle: no file was touched since the last step.
        """
        if not idle:
            time.sleep(2 * _TICK)  # so that it is certain for each stamp on which side of the step it is
        before = self._steps[-1]
        self._borders.append(time.time() - _TICK)
        self._steps.append((before[0] + wall, before[1] + monotonic))

    def stamp(self, ns: int) -> int:
        """What a stamp of the kernel would be if its clock had been stepped like this one."""
        return ns + int(self._at(ns)[0] * 1e9)

    def restart(self) -> None:
        """A process starts now: it can't know of jumps before."""
        self._started = self._steps[-1]

    def since(self, ns: int) -> float:
        """How many seconds may seem to have passed since something was stamped.

        That is so many as did, on the monotonic clock; or more, if the wall clock jumped before the
        process began.
        """
        wall, monotonic = self._at(ns)
        jumped = (self._started[0] - self._started[1]) - (wall - monotonic)
        return time.time() - ns / 1e9 + self._steps[-1][1] - monotonic + max(0.0, jumped)

    def _at(self, ns: int) -> tuple[float, float]:
        return self._steps[bisect_right(self._borders, ns / 1e9) - 1]


class SteppedFileSystem(FileSystem):
    """The real file system, on the stepped clock, with directories that can't be opened."""

    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self.closed: set[tuple[int, int]] = set()  #: (device, inode) of directories that are refused
        self.missed = ""  #: a name that listings leave out, as they may while names are moved
        self.listdir = lambda fd: [name for name in os.listdir(fd) if name != self.missed]
        self.lstat = lambda *a, **k: self._shifted(os.lstat(*a, **k))
        self.stat = lambda *a, **k: self._shifted(os.stat(*a, **k))

    def _shifted(self, found: os.stat_result) -> Any:
        values = dict(zip(_STAT, _VALUES(found), strict=True))
        values["st_ctime_ns"] = self._clock.stamp(found.st_ctime_ns)
        return SimpleNamespace(**values)

    def open_dir(self, name: bytes, dir_fd: int | None, follow: bool) -> int:
        fd = super().open_dir(name, dir_fd, follow)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) in self.closed:
            os.close(fd)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return fd


class Tree:
    """A watched directory, and one beside it to move things in and out.

    The operations take keys (paths below the root; with ``out``, below the other
    directory). One that can't be done, since something else is there, does nothing.
    """

    def __init__(self, base: Path, fs: SteppedFileSystem) -> None:
        self.base = os.fsencode(base)
        self.root = os.path.join(self.base, b"root")
        self.out = os.path.join(self.base, b"out")
        os.mkdir(self.root)
        os.mkdir(self.out)
        self.fs = fs
        self.linked: set[int] = set()  #: inodes that had several names at some time
        self.writers: dict[int, Any] = {}  #: files that are open for writing: inode → file
        #: Inodes of files that a watch takes for complete though they are open: they were renamed while it
        #: did not know that; or it learns of a closing, and not that the file was opened again since.
        self.doubtful: set[int] = set()
        self.closed: set[int] = set()  #: inodes of files that were closed since everybody looked
        self._filling = 0

    def path(self, key: bytes, out: bool = False) -> bytes:
        return os.path.join(self.out if out else self.root, key)

    # -- what is there -------------------------------------------------------------------------

    def listing(self) -> tuple[dict[bytes, Row], list[bytes]]:
        """What is there to be reported, and the directories (``a/b/``) that can't be read."""
        found: dict[bytes, Row] = {}
        unreadable: list[bytes] = []
        todo = [b""]
        while todo:
            prefix = todo.pop()
            about = os.stat(self.path(prefix))
            if (about.st_dev, about.st_ino) in self.fs.closed:
                unreadable.append(prefix)
                continue
            for name in os.listdir(self.path(prefix)):
                key = prefix + name
                row = Row(*_ROW(os.lstat(self.path(key))))
                if stat.S_ISDIR(row.mode):
                    todo.append(key + b"/")
                elif not name.endswith(b".part"):
                    found[key] = row
        return found, unreadable

    def known_below(self, unreadable: list[bytes], key: bytes) -> bool:
        """Whether the key lies in one of the directories that can't be read."""
        return any(key.startswith(prefix) for prefix in unreadable)

    def some(self, index: int, out: bool = False, directories: bool = False) -> bytes:
        """One of the things that are there, by a number; what isn't there if nothing is."""
        top = os.path.join(self.path(b"", out), b"")
        found: list[bytes] = []
        for place, folders, files in os.walk(top):
            prefix = os.path.join(place, b"")[len(top) :]
            found += [prefix + name for name in (folders if directories else folders + files)]
        return sorted(found)[index % len(found)] if found else b"nothing"

    # -- files ---------------------------------------------------------------------------------

    def _content(self, size: int) -> bytes:
        self._filling += 1
        return b"%c" % (97 + self._filling % 26) * size

    def _is_open(self, path: bytes) -> bool:
        # A second writer that closes first would count as the one who ends the file.
        return os.path.exists(path) and os.stat(path).st_ino in self.writers

    def write(self, key: bytes, size: int, out: bool = False) -> None:
        """Make a file, or write it anew; of the size that it has this is a change of content alone."""
        if self._is_open(self.path(key, out)):
            return
        with open(self.path(key, out), "wb") as file:
            file.write(self._content(size))
            self.closed.add(os.fstat(file.fileno()).st_ino)

    def append(self, key: bytes) -> None:
        if self._is_open(self.path(key)):
            return
        fd = os.open(self.path(key), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            os.write(fd, self._content(3))
            self.closed.add(os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    def sneak(self, key: bytes) -> None:
        """Write to a file, and set its size and mtime back."""
        before = os.lstat(self.path(key))
        if stat.S_ISREG(before.st_mode) and not self._is_open(self.path(key)):
            fd = os.open(self.path(key), os.O_WRONLY)
            try:
                os.write(fd, self._content(before.st_size))
                self.closed.add(before.st_ino)
            finally:
                os.close(fd)
            os.utime(self.path(key), ns=(before.st_atime_ns, before.st_mtime_ns))

    def touch(self, key: bytes, ns: int) -> None:
        os.utime(self.path(key), ns=(ns, ns), follow_symlinks=False)

    def chmod(self, key: bytes, mode: int) -> None:
        if stat.S_ISREG(os.lstat(self.path(key)).st_mode):
            os.chmod(self.path(key), mode)

    def open(self, key: bytes) -> None:
        """Begin to write a file, and don't close it."""
        if self._is_open(self.path(key)):
            return
        file = open(self.path(key), "ab", buffering=0)  # noqa: SIM115
        ino = os.fstat(file.fileno()).st_ino
        self.writers[ino] = file
        if ino in self.closed:
            self.doubtful.add(ino)
        file.write(self._content(2))

    def close(self, index: int) -> None:
        """Write the rest to one of the files that are open, and close it."""
        if self.writers:
            ino = sorted(self.writers)[index % len(self.writers)]
            with self.writers.pop(ino) as file:
                file.write(self._content(1))
            self.closed.add(ino)

    # -- names ---------------------------------------------------------------------------------

    def mkdir(self, key: bytes, out: bool = False) -> None:
        os.makedirs(self.path(key, out), exist_ok=True)

    def move(
        self, source: bytes, target: bytes, from_out: bool = False, to_out: bool = False, known: bool = False
    ) -> None:
        """Rename a file or directory: within the tree, into it, out of it, over another file.

        :param known: pollers have looked since the file was opened, so that a watch knows its writer.
        """
        old, new = self.path(source, from_out), self.path(target, to_out)
        ino = os.lstat(old).st_ino
        if ino in self.writers and not known:
            self.doubtful.add(ino)
        os.rename(old, new)

    def link(self, source: bytes, target: bytes, from_out: bool) -> None:
        os.link(self.path(source, from_out), self.path(target), follow_symlinks=False)
        self.linked.add(os.lstat(self.path(target)).st_ino)

    def symlink(self, text: bytes, key: bytes) -> None:
        os.symlink(text, self.path(key))

    def remove(self, key: bytes) -> None:
        """Delete a file, or a directory with all that is in it."""
        path = self.path(key)
        if stat.S_ISDIR(os.lstat(path).st_mode):
            self._permit(path)
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def to_file(self, key: bytes) -> None:
        """Put a file in the place of a directory."""
        if stat.S_ISDIR(os.lstat(self.path(key)).st_mode):
            self.remove(key)
            self.write(key, 4)

    def to_directory(self, key: bytes) -> None:
        """Put a directory with a file in the place of a file."""
        if not stat.S_ISDIR(os.lstat(self.path(key)).st_mode):
            os.unlink(self.path(key))
            self.mkdir(key)
            self.write(key + b"/a", 5)

    # -- permissions ---------------------------------------------------------------------------

    def forbid(self, key: bytes) -> None:
        """Make a directory unreadable."""
        found = os.lstat(self.path(key))
        if stat.S_ISDIR(found.st_mode):
            self.fs.closed.add((found.st_dev, found.st_ino))
            if os.geteuid() != 0:
                os.chmod(self.path(key), 0)

    def allow(self) -> None:
        """Make every directory readable again."""
        self.fs.closed.clear()
        self._permit(self.root)

    def _permit(self, path: bytes) -> None:
        # An inode number that is free may be given to a new directory: forget what is deleted.
        for place in _directories(path):
            found = os.lstat(place)
            self.fs.closed.discard((found.st_dev, found.st_ino))
            if os.geteuid() != 0:
                os.chmod(place, 0o755)

    def end(self) -> None:
        """Close the files, and leave nothing behind."""
        for file in self.writers.values():
            file.close()
        self.writers.clear()
        self._permit(self.base)
        shutil.rmtree(self.base)


def _directories(path: bytes) -> Iterator[bytes]:
    """A directory and all below it; permitted by the caller before its children are asked for."""
    yield path
    for name in os.listdir(path):
        below = os.path.join(path, name)
        if stat.S_ISDIR(os.lstat(below).st_mode):
            yield from _directories(below)
