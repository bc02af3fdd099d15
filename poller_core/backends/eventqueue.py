"""The kernel's queue of inotify events, with what is needed to wait for it.

Guarantees: :meth:`EventQueue.fileno` stays the same and stays right when the
inotify instance behind it is exchanged; :meth:`EventQueue.wake` never blocks; no
descriptor is closed while a thread waits on it. After a ``fork`` the child leaves
the queue, the watches and the epoll set alone, which it shares with its parent.

Does not guarantee: anything about what events mean.
"""

from __future__ import annotations

import errno
import math
import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import PollerClosed, PollerRefused

try:
    import fcntl
    import termios

    import inotify_simple
except ImportError:  # another system, or not installed: the constructor refuses
    inotify_simple = None

__all__ = ["EventQueue", "limit", "no_instance", "no_watch"]

_CHUNK = 65536  # bytes read at once: some two thousand events
_LONG = 2_000_000  # seconds; poll() takes its milliseconds as a C int


class EventQueue:
    """One inotify instance at a time, and the descriptors around it.

    :meth:`wait`, :meth:`wake`, :meth:`fileno` and :meth:`close` may be called from
    any thread, the rest from one at a time.

    :raises PollerRefused: if the library or the kernel's inotify is missing, or there is no instance left.
    """

    def __init__(self) -> None:
        if inotify_simple is None:
            raise PollerRefused(
                "inotify_simple can't be imported, so inotify can't be used: "
                "on Linux, install it with 'pip install inotify_simple'"
            )
        self._forks = 0
        self._closed = threading.Event()
        self._inotify: Any = None
        self._open: list[int] = []
        try:
            self._make()
            self.restart()
        except (OSError, AttributeError) as error:  # AttributeError: a C library without inotify
            self._let_go()
            raise PollerRefused(no_instance(error), mendable=_too_many(error)) from error

    def _make(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # held for an instant only
        self._waiting = 0
        for _ in range(2):
            self._open.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._woken, self._flag = self._open
        # One descriptor around the instance and the flag, so that an event loop needs to know no other.
        self._epoll = select.epoll()
        self._epoll.register(self._flag, select.EPOLLIN)

    def _let_go(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if len(self._open) == 2 and hasattr(self, "_epoll"):
            self._epoll.close()
        while self._open:
            os.close(self._open.pop())

    def check(self) -> int:
        """How many forks lie behind: if the number grew, there is no instance and no watch any more.

        :raises PollerClosed: after :meth:`close`.
        """
        if self._closed.is_set():
            raise PollerClosed("the watch is closed; make a new poller to go on")
        if self._pid != os.getpid():
            # Closing our copies of the descriptors changes nothing for the parent; anything else would.
            self._let_go()
            self._make()
            self._forks += 1
            self.flag()
        return self._forks

    @property
    def started(self) -> bool:
        """Whether there is an instance."""
        return self._inotify is not None

    def restart(self) -> None:
        """Exchange the instance for a new one, which has no events and no watches.

        :raises OSError: if there is none to be had; there is none at all then.
        """
        # Closed before the next is asked for, since their number is limited.
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._inotify = inotify_simple.INotify(nonblocking=True)
        self._epoll.register(self._inotify.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Let go of all descriptors, once nobody waits on them any more. Harmless when repeated."""
        if self._closed.is_set():
            return
        self.check()
        with self._lock:
            self._closed.set()
            if self._waiting:
                os.eventfd_write(self._woken, 1)  # the last one to wake up lets go
            else:
                self._let_go()

    # -- waiting ---------------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable while there are events, or the flag is up."""
        self.check()
        return self._epoll.fileno()

    def flag(self) -> None:
        """Make :meth:`fileno` readable, events or not."""
        os.eventfd_write(self._flag, 1)

    def unflag(self) -> None:
        """Take that back."""
        _read_flag(self._flag)

    def wake(self) -> None:
        """End one wait, of now or later."""
        if not self._closed.is_set():
            self.check()
            with self._lock:
                if not self._closed.is_set():
                    os.eventfd_write(self._woken, 1)

    def wait(self, timeout: float | None) -> bool:
        """Block until there are events, the flag is up or :meth:`wake` is called; False otherwise."""
        self.check()
        poll = select.poll()
        with self._lock:
            if self._closed.is_set():
                return False
            self._waiting += 1
            poll.register(self._epoll.fileno(), select.POLLIN)
            poll.register(self._woken, select.POLLIN)
        ready: dict[int, int] = {}
        try:
            # Rounded up: a loop with a short timeout must not turn into a busy one.
            limit_ms = None if timeout is None else math.ceil(min(max(timeout, 0), _LONG) * 1000)
            ready.update(poll.poll(limit_ms))
        finally:
            with self._lock:
                self._waiting -= 1
                closed = self._closed.is_set()
                if closed and not self._waiting:
                    self._let_go()
                elif not closed and self._woken in ready:
                    _read_flag(self._woken)
        return bool(ready) and not closed

    # -- events ----------------------------------------------------------------------------------

    def add_watch(self, path: str, mask: int) -> int:
        """Watch a path, or change the mask of its watch.

        :raises OSError: as the kernel says; ENOSPC: the limit of watches is reached.
        """
        return int(self._inotify.add_watch(path, mask))

    def rm_watch(self, wd: int) -> None:
        """Remove a watch.

        :raises OSError: EINVAL, if the kernel did so already.
        """
        self._inotify.rm_watch(wd)

    def read(self) -> Iterator[list[tuple[int, int, int, str]]]:
        """The events that are queued now, as (watch, mask, cookie, name), some thousand at a time.

        No more than that: a stream of events without end does not keep the caller here.

        :raises OSError: as the kernel says.
        """
        fd = self._inotify.fileno()
        left = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        while left > 0:
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                return  # somebody else read it
            left -= len(data)
            yield inotify_simple.parse_events(data)


def _read_flag(flag: int) -> None:
    try:
        os.eventfd_read(flag)
    except BlockingIOError:
        return


def limit(name: str) -> str:
    """One of the kernel's limits, such as ``max_user_watches``, as text; ``unknown`` if it can't be read."""
    try:
        with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def no_instance(error: Exception) -> str:
    """Why there is no inotify instance to be had, and what to do about it."""
    text = error.strerror if isinstance(error, OSError) else "this system has no inotify"
    advice = ""
    if _too_many(error):
        advice = (
            f": too many are in use, and everything is listed at each look instead; "
            f"raise fs.inotify.max_user_instances (now {limit('max_user_instances')}) "
            f"with 'sysctl fs.inotify.max_user_instances=1024', "
            f"or this process's limit of open files ('ulimit -n')"
        )
    return f"inotify can't be started ({text}){advice}"


def _too_many(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def no_watch(error: OSError) -> str:
    """Why a directory can't be watched, and what to do about it."""
    if error.errno != errno.ENOSPC:
        return f"a directory can't be watched ({error.strerror}); it is scanned instead"
    now = limit("max_user_watches")
    more = str(2 * int(now)) if now.isdecimal() else "1000000"
    return (
        f"inotify's limit of watches is reached: what can't be watched is scanned instead. To watch it: "
        f"sysctl fs.inotify.max_user_watches={more} (now {now}, for all programs of this user)"
    )
