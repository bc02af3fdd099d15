"""A file system that can be told to fail, stall and coarsen timestamps, and that counts what is asked of it.

It is a real :class:`FileSystem`: whatever no rule is about goes to the system.
Rules name a call (``open_dir``, ``listdir``, ``scandir``, ``lstat``, ``stat``,
``fstat``, ``close``, or ``*``) and a path: absolute, or relative to the first directory that
was opened by an absolute path (the root); None is any path.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from poller_core.backends.filesystem import FileSystem

NOBODY = 65534


@dataclass
class Rule:
    """What happens at some calls."""

    call: str
    path: bytes | None
    action: Callable[[bytes], None]
    left: int | None = None  #: how many times more; None: always
    after: int = 0  #: for scandir: only when so many names were given
    hits: int = 0


@dataclass
class Stall:
    """A call that stands still until it is let go."""

    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class FaultFileSystem(FileSystem):
    """See the module."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[str, bytes]] = []
        self.paths: dict[int, bytes] = {}
        self.most_open = 0
        self.granularity_ns = 1
        self.rules: list[Rule] = []
        self._root: bytes | None = None

    # -- telling it what to do -----------------------------------------------

    def fail(
        self, call: str, path: bytes | None, number: int, times: int | None = None, after: int = 0
    ) -> Rule:
        """Let a call fail with an errno; ``after`` so many names, if the call is ``scandir``."""

        def action(where: bytes) -> None:
            raise OSError(number, os.strerror(number))

        return self._add(Rule(call, path, action, times, after))

    def before(
        self, call: str, path: bytes | None, action: Callable[[bytes], None], times: int | None = 1
    ) -> Rule:
        """Do something just before a call is made."""
        return self._add(Rule(call, path, action, times))

    def stall(self, call: str, path: bytes | None) -> Stall:
        """Let the next such call wait until ``go_on`` is set (for a minute at most)."""
        stall = Stall()

        def action(where: bytes) -> None:
            stall.reached.set()
            if not stall.go_on.wait(60):
                raise TimeoutError("nobody let the stalled call go on")

        self._add(Rule(call, path, action, 1))
        return stall

    def adopt(self, fd: int, path: bytes = b"") -> int:
        """Say what a descriptor leads to that was not opened here."""
        self.paths[fd] = path
        return fd

    def _add(self, rule: Rule) -> Rule:
        self.rules.append(rule)
        return rule

    # -- the calls -----------------------------------------------------------

    def open_dir(self, name: bytes, dir_fd: int | None, follow: bool) -> int:
        path = self._path(name, dir_fd)
        if self._root is None and dir_fd is None:
            self._root, path = path, b""
        self._asked("open_dir", path)
        fd = super().open_dir(name, dir_fd, follow)
        self.paths[fd] = path
        self.most_open = max(self.most_open, len(self.paths))
        return fd

    def listdir(self, fd: int) -> list[str]:
        self._asked("listdir", self.paths.get(fd, b""))
        return os.listdir(fd)

    @contextmanager
    def scandir(self, fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        path = self.paths.get(fd, b"")
        self._asked("scandir", path)
        with os.scandir(fd) as entries:
            yield self._one_by_one(entries, path)

    def _one_by_one(self, entries: Iterator[os.DirEntry[str]], path: bytes) -> Iterator[os.DirEntry[str]]:
        for number, entry in enumerate(entries):
            if number:
                self._apply("scandir", path, number)
            yield entry

    def lstat(self, name: bytes, *, dir_fd: int | None = None) -> os.stat_result:
        self._asked("lstat", self._path(name, dir_fd))
        return self._coarse(os.lstat(name, dir_fd=dir_fd))

    def stat(self, name: bytes, *, dir_fd: int | None = None) -> os.stat_result:
        self._asked("stat", self._path(name, dir_fd))
        return self._coarse(os.stat(name, dir_fd=dir_fd))

    def fstat(self, fd: int) -> os.stat_result:
        self._asked("fstat", self.paths.get(fd, b""))
        return self._coarse(os.fstat(fd))

    def close(self, fd: int) -> None:
        self._asked("close", self.paths.pop(fd, b""))
        os.close(fd)

    # -- inside --------------------------------------------------------------

    def _path(self, name: bytes, dir_fd: int | None) -> bytes:
        if dir_fd is None:
            return self._below(name)
        return os.path.join(self.paths.get(dir_fd, b""), name)

    def _below(self, path: bytes) -> bytes:
        if self._root is not None and (path == self._root or path.startswith(self._root + b"/")):
            return path[len(self._root) + 1 :]
        return path

    def _asked(self, call: str, path: bytes) -> None:
        self.calls[call] += 1
        self.log.append((call, path))
        self._apply(call, path, 0)

    def _apply(self, call: str, path: bytes, given: int) -> None:
        for rule in self.rules:
            if rule.call not in ("*", call) or rule.path not in (None, path) or rule.after != given:
                continue
            if rule.left == 0:
                continue
            if rule.left is not None:
                rule.left -= 1
            rule.hits += 1
            rule.action(path)

    def _coarse(self, found: os.stat_result) -> os.stat_result:
        unit = self.granularity_ns
        if unit == 1:
            return found
        stamps: dict[str, float] = {}
        for name in ("st_atime", "st_mtime", "st_ctime"):
            value = getattr(found, f"{name}_ns") // unit * unit
            stamps |= {name: value / 1e9, f"{name}_ns": value}
        return os.stat_result(tuple(found), stamps)


def as_nobody(function: Callable[[], Any]) -> Any:
    """What the function returns when it runs without privileges, in a process of its own."""
    if os.getuid() != 0:
        return function()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                answer = (True, function())
            except BaseException as error:
                answer = (False, f"{type(error).__name__}: {error}")
            with open(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    worked, answer = pickle.loads(data)
    if not worked:
        raise AssertionError(f"without privileges: {answer}")
    return answer
