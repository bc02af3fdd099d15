"""What the tests of races share: a consumer that keeps books, and places that only root can make.

:class:`Books` is the judge. It is told every event and fails at the first one
that can't be: created what is known, changed or deleted what is not, a sequence
number that went back, an id with two contents. :meth:`Books.agree` then compares
what a consumer believes with what is on the disk. What it does not judge is
*how many* ``modified`` there are: a test that cares says so itself.
"""

from __future__ import annotations

import ctypes
import encodings.ascii  # for the child below, which can't import what is this user's alone
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poller_core import Event, FilePoller
from poller_core.backends.mounts import delivers_inotify, mount_of

#: Seconds after which something that has to happen soon counts as never happening.
PATIENCE = 30.0
NOBODY = 65534


def on_disk(root: str | bytes | os.PathLike) -> dict[bytes, int]:
    """The files and links below a directory and their sizes; follows no link, and takes any depth."""
    found: dict[bytes, int] = {}
    todo = [(b"", os.open(os.fsencode(root), os.O_RDONLY | os.O_DIRECTORY))]
    while todo:
        prefix, fd = todo.pop()
        try:
            for text in os.listdir(fd):
                name = os.fsencode(text)
                about = os.lstat(name, dir_fd=fd)
                if stat.S_ISDIR(about.st_mode):
                    todo.append((prefix + name + b"/", os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)))
                elif stat.S_ISREG(about.st_mode) or stat.S_ISLNK(about.st_mode):
                    found[prefix + name] = about.st_size
        finally:
            os.close(fd)
    return found


class Books:
    """What a consumer knows from the events that it was given.

    :param root: the directory that is watched.
    :param known: what it knows beforehand; None: what is on the disk now.
    """

    def __init__(self, root: str | os.PathLike, known: dict[bytes, int] | None = None) -> None:
        self.root = root
        self.known = on_disk(root) if known is None else dict(known)
        self.told: list[tuple[bytes, str]] = []
        self._ids: dict[str, tuple] = {}
        self._seq = 0

    def enter(self, events: Iterable[Event]) -> list[tuple[bytes, str]]:
        """Enter events; those of this call as (key, event)."""
        told = []
        for event in events:
            subject, name = event
            content = (event.seq, event.key, event.event, event.size, event.mtime_ns)
            assert self._ids.setdefault(event.id, content) == content, f"{event.id} means two things"
            assert event.seq > self._seq, f"{event} came after {self._seq}"
            self._seq = event.seq
            assert os.fsencode(subject.path).endswith(event.key)
            if name == "created":
                assert event.key not in self.known, f"{event.key!r} was created twice"
            else:
                assert event.key in self.known, f"{event.key!r} was {name}, and nobody had heard of it"
            if name == "deleted":
                del self.known[event.key]
            else:
                self.known[event.key] = event.size or 0
            told.append((event.key, name))
        self.told += told
        return told

    def settle(self, poller: FilePoller) -> list[tuple[bytes, str]]:
        """Ask until there is nothing more to be told; all that was told."""
        told: list[tuple[bytes, str]] = []
        end = time.monotonic() + PATIENCE
        while True:
            new = self.enter(poller.get_new_events())
            told += new
            if not new and not poller.status().held:
                return told
            assert time.monotonic() < end, f"no end of it: {new[:5]}"
            if not new:
                poller.wait(0.02)

    def wait_for(self, poller: FilePoller, count: int) -> list[tuple[bytes, str]]:
        """Ask until so many events were told; fail if it takes for ever."""
        told: list[tuple[bytes, str]] = []
        end = time.monotonic() + PATIENCE
        while len(told) < count:
            assert time.monotonic() < end, f"only {told} of {count} events"
            told += self.enter(poller.get_new_events())
            if len(told) < count:
                poller.wait(0.05)
        return told

    def agree(self, leave_out: Iterable[bytes] = ()) -> None:
        """Fail unless what was told is what is there."""
        there = on_disk(self.root)
        for key in leave_out:
            there.pop(key, None)
        assert self.known == there

    def times(self, name: str) -> int:
        """How often an event of that name was told."""
        return sum(1 for _, event in self.told if event == name)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it is so; fail if it never is."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


def put(path: Path, text: str | bytes = b"x") -> Path:
    """Write a file, in place, its directories too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def land(path: Path, text: str | bytes = b"x") -> Path:
    """Have a file come whole, at once: for who counts events while somebody looks.

    Between being made and being written, a file of :func:`put` can be seen empty, and is ``modified`` then.
    """
    put(path.with_name(f".{path.name}.part"), text).rename(path)
    return path


@contextmanager
def watchable(path: Path) -> Iterator[Path]:
    """This directory if inotify is to be trusted there; else one in memory, while the block lasts."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        good = delivers_inotify(mount_of(fd).fstype)
    finally:
        os.close(fd)
    if good:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="poller-test-", dir="/dev/shm") as name:
        yield Path(name)


# -- as another user ---------------------------------------------------------


def unprivileged(function: Callable[[], Any]) -> Any:
    """What a function returns when a user without privileges runs it.

    Root may read everything, so for root this is a forked child that becomes ``nobody``.
    It is forked and not started anew since that user may not be able to read the
    interpreter's files. An exception comes back as it is.
    """
    if os.geteuid() != 0:
        return function()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            assert encodings.ascii.getregentry()
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            # Who changed its user may not look at its own /proc/self/fd, unlike any program of that user.
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
            try:
                answer = pickle.dumps((True, function()))
            except BaseException as error:
                answer = pickle.dumps((False, error))
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    assert answer, "the child ended without an answer"
    good, value = pickle.loads(answer)
    if not good:
        raise value
    return value


@contextmanager
def open_place() -> Iterator[Path]:
    """A directory that every user can reach and write to; the usual one for tests is its owner's alone."""
    place = Path(tempfile.mkdtemp(prefix="poller-test-"))
    place.chmod(0o777)
    try:
        yield place
    finally:
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o777)
        shutil.rmtree(place)


# -- mounts ------------------------------------------------------------------


@contextmanager
def tmpfs(at: Path, options: str = "size=4m") -> Iterator[None]:
    """A file system of its own at that place; the test is skipped where that is not allowed."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True, capture_output=True)


# -- others who write --------------------------------------------------------


@contextmanager
def other_process(code: str, *arguments: str | os.PathLike) -> Iterator[subprocess.Popen]:
    """A Python program beside this one; it has ended when the block ends, and must have ended well."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
