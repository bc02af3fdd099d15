"""Knowing where to look: what inotify tells of a tree, boiled down to spans worth listing.

A watch reports no events. It says which spans to list (*hints*), and which files
their writers have not closed yet. Use it in this order, again and again::

    hints = watch.drain()
    ...                         # list hints.spans and watch.unwatched; the walk calls watch.on_directory()
    watch.catch_up()            # now is_open() is as new as the listing
    ...                         # judge what was found, with is_open(), pending(), doubted()
    watch.looked(spans)         # only if all that went well

Guarantees:

* **Nothing slips through.** If a watched directory changes after ``on_directory()``
  was called for it, a later :meth:`InotifyWatch.drain` hints that. What the kernel
  dropped, can't watch or does not tell of becomes a hint for the whole target, or
  is in :attr:`InotifyWatch.unwatched`.
* **Nothing that the kernel says raises.** An overflow is counted, and hinted as the whole target.
* **Open marks follow their file** through renames, of the file and of directories above it.

Not guaranteed:

* That a hint means a change, or that an open mark is right for ever. A file that is
  made without being opened for writing is never closed by a writer either: hard
  links, ``mknod``, ``O_TMPFILE`` with ``linkat``, lock files made read-only. Two
  files that swap names in one step may swap marks too. So check a mark that grows
  old against :func:`~poller_core.backends.openfiles.open_writers`, and :meth:`InotifyWatch.forget` it.
* That a write is hinted before the writer closes the file; or at all, if it went
  through a shared mapping, ``truncate`` by name, another hard link outside, a
  symbolic link to a file, or another machine. A full listing now and then finds those.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ..errors import PollerClosed
from ..listing import Hints, Span, merged
from .eventqueue import EventQueue, limit, no_instance, no_watch
from .mounts import delivers_inotify, mount_of
from .noticed import Noticed, Scope
from .unwatched import Unwatched
from .watchtree import WatchTree, join, split

__all__ = ["InotifyWatch"]

_log = logging.getLogger(__name__)

# By cookie: the watch of a directory that moves, and of a file whether it is open, and was seen to be closed.
_Moves: TypeAlias = dict[int, tuple[int | None, bool, bool]]

# The kernel's numbers, part of its stable interface. Plain ints: the library's enum is slow to test with.
_ATTRIB = 0x4
_CLOSE_WRITE = 0x8
_MOVED_FROM = 0x40
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE = 0x200
_DELETE_SELF = 0x400
_MOVE_SELF = 0x800
_UNMOUNT = 0x2000
_Q_OVERFLOW = 0x4000
_IGNORED = 0x8000
_ONLYDIR = 0x01000000
_EXCL_UNLINK = 0x04000000
_ISDIR = 0x40000000

# No MODIFY and no OPEN: one file can give thousands, and the queue overflows under load. EXCL_UNLINK: a
# writer that closes a file which was deleted meanwhile must not count for a new file of that name.
_MASK = _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR | _EXCL_UNLINK
# Its parent tells of any other directory.
_ROOT_MASK = _MASK | _DELETE_SELF | _MOVE_SELF


class InotifyWatch:
    """Watches directories, as a walk comes by them.

    Thread-safe. One thread at a time is meant to look, while another waits.
    After a ``fork`` the child starts afresh and leaves the parent's queue alone.

    :param recurse: hint the whole tree below a directory that changed; else only the directory's own key.
    :param single: the target is this one name in the root directory; nothing else is hinted.
    :param follow_symlinks: a link that comes or goes may be a directory; hint what would be below it.
    :param enter: whether a directory (its prefix, ending in ``/``) is walked at all; others are not hinted.
    :raises PollerRefused: if the library or the kernel's inotify is missing, or there is no instance left.
    """

    def __init__(
        self,
        recurse: bool,
        single: bytes | None = None,
        follow_symlinks: bool = False,
        enter: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.overflows = 0  #: how often the kernel's queue was full and dropped events
        self._follow = follow_symlinks
        self._noticed = Noticed(Scope(recurse, single, follow_symlinks, enter))
        self._said: set[str] = set()
        # Open marks in directories without a watch: prefix → names.
        self._parked: dict[bytes, set[bytes]] = {}
        self._lock = threading.RLock()
        self._forget_all()
        self._queue = EventQueue()
        self._forks = self._queue.check()

    # -- descriptors and life --------------------------------------------------------------------

    def _mine(self) -> threading.RLock:
        forks = self._queue.check()
        if forks != self._forks:
            # A child after a fork: the lock may be held by a thread that does not exist here.
            self._forks = forks
            self._lock = threading.RLock()
            self._lose()
        return self._lock

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to drain; another one only after a fork.

        :meth:`wake` does not make it readable.
        """
        return self._queue.fileno()

    def wait(self, timeout: float | None) -> bool:
        """Block until there is something to drain, or :meth:`wake` is called.

        :param timeout: in seconds; None waits for ever.
        :returns: False if the time was up, or the watch was closed meanwhile. One call of
            :meth:`wake` ends one wait, also one that begins later.
        :raises PollerClosed: if it was closed before.
        """
        return self._queue.wait(timeout)

    def wake(self) -> None:
        """End the wait of another thread, or the next one. Never blocks; does nothing once closed."""
        self._queue.wake()

    def reset(self) -> None:
        """Forget all watches and start afresh: the root is another directory, say. Open marks are kept.

        Everything has to be listed then, as the next :meth:`drain` says.
        """
        with self._mine():
            self._lose()

    def close(self) -> None:
        """Let go of all descriptors; ends a wait. Harmless when repeated."""
        try:
            lock = self._mine()
        except PollerClosed:
            return
        with lock:
            self._queue.close()

    # -- losing and starting over ----------------------------------------------------------------

    def _forget_all(self) -> None:
        self._tree = WatchTree()
        self._open_names: dict[int, set[bytes]] = {}  # files whose writer has them open: watch → names
        self._young: set[int] = set()  # watches of directories that may hold files opened before
        self._doubt_all = True
        self._root_device = -1
        self._delivers: dict[int, bool] = {}
        self._unwatched = Unwatched()
        # Cookie → watch of a directory, open mark of a file; one drain may end with half a rename.
        self._moves: _Moves = {}
        self._moves_before: _Moves = {}
        self._loose_before: set[int] = set()
        self._whole = True
        self._noticed.clear()

    def _lose(self) -> None:
        """Start over with an empty queue. Every watch that is still needed is set again by the next walk."""
        for wd, names in self._open_names.items():
            for prefix in self._tree.prefixes(wd) or ():
                self._parked.setdefault(prefix, set()).update(names)
        self._forget_all()
        self._begin()
        self._queue.flag()

    def _begin(self) -> bool:
        try:
            self._queue.restart()
        except OSError as error:
            self._unwatched.add(b"")
            self._say("instance", no_instance(error))
            return False
        return True

    def _say(self, what: str, text: str) -> None:
        """Warn, but only once of each thing."""
        if what not in self._said:
            self._said.add(what)
            _log.warning("%s", text)

    # -- reading ---------------------------------------------------------------------------------

    def drain(self) -> Hints:
        """Read what is queued, and say where to list because of it. The first time: everything.

        If that listing fails, list those spans again later: they are not hinted twice.

        :raises PollerClosed: after :meth:`close`; nothing that the kernel says raises.
        """
        with self._mine():
            self._read()
            self._queue.unflag()
            hints = Hints([Span()], True, frozenset()) if self._whole else self._noticed.hints(self._tree)
            self._noticed.clear()
            self._whole = False
            self._unwatched.begin()
            self._sweep()
            self._moves_before, self._moves = self._moves, {}
            return hints

    def catch_up(self) -> None:
        """Read what is queued, so that open marks are up to date; hints wait for the next :meth:`drain`."""
        with self._mine():
            self._read()
            if self._whole or self._noticed:
                self._queue.flag()

    def _read(self) -> None:
        if not self._queue.started:
            if self._begin():  # there is an instance to be had by now
                self._whole = True
            return
        try:
            for events in self._queue.read():
                if not self._take(events):
                    self._lose()
                    return
        except OSError as error:
            _log.warning("inotify can't be read (%s); the whole target is listed", error.strerror)
            self._lose()

    def _take(self, events: Iterable[tuple[int, int, int, str]]) -> bool:
        """Work through events; False if some were lost, or mean that nothing is as it was."""
        tree, marks, noticed = self._tree, self._open_names, self._noticed
        names, closed = noticed.names, noticed.closed
        for wd, mask, cookie, text in events:
            if wd not in tree.keys:
                if mask & _Q_OVERFLOW:
                    self.overflows += 1
                    self._say(
                        "overflow",
                        f"inotify's queue overflowed; the whole target is listed. If that is frequent: "
                        f"sysctl fs.inotify.max_queued_events=… (now {limit('max_queued_events')})",
                    )
                    return False
                continue  # a watch that is removed already: its number means nothing any more
            if mask & (_UNMOUNT | _DELETE_SELF | _MOVE_SELF) or (mask & _IGNORED and wd == tree.root):
                return False
            if mask & _IGNORED:
                self._drop(wd)
                continue
            if not text:
                # About the watched directory itself, of which its parent tells too, if it has one.
                noticed.everything = noticed.everything or wd == tree.root
                continue
            name = os.fsencode(text)
            if mask & _ISDIR:
                noticed.trees.setdefault(wd, set()).add(name)
                if mask & _MOVED_FROM:
                    self._moves[cookie] = (tree.detach(join(wd, name)), False, False)
                elif mask & _MOVED_TO:
                    moved, _, _ = self._move(cookie)
                    if moved is not None:
                        tree.attach(moved, join(wd, name))
                elif mask & _DELETE:
                    tree.detach(join(wd, name))
                continue
            names.setdefault(wd, set()).add(name)
            if mask & _CLOSE_WRITE:
                _unmark(marks, wd, name)
                closed.setdefault(wd, set()).add(name)
            elif mask & _CREATE:
                marks.setdefault(wd, set()).add(name)
                _unmark(closed, wd, name)
            elif mask & (_MOVED_FROM | _DELETE):
                held = _unmark(marks, wd, name)
                done = _unmark(closed, wd, name)
                link = tree.detach(join(wd, name)) if self._follow else None
                if mask & _MOVED_FROM:
                    self._moves[cookie] = (link, held, done)
            elif mask & _MOVED_TO:
                link, held, done = self._move(cookie)
                if link is not None:
                    tree.attach(link, join(wd, name))
                # Whatever was there before is gone, and what was known of it. What has come may still be
                # written to, unless we saw it being closed: neither mark is set then.
                _unmark(closed, wd, name)
                _unmark(marks, wd, name)
                if held or done:
                    (marks if held else closed).setdefault(wd, set()).add(name)
        return True

    def _move(self, cookie: int) -> tuple[int | None, bool, bool]:
        found = self._moves.pop(cookie, None) or self._moves_before.pop(cookie, None)
        return found or (None, False, False)

    def _drop(self, wd: int) -> None:
        self._tree.drop(wd)
        self._open_names.pop(wd, None)
        self._young.discard(wd)

    def _sweep(self) -> None:
        """Remove the watches of trees that were moved away and did not turn up again since the last drain."""
        gone = {wd for wd in self._loose_before if self._tree.keys.get(wd) == b""}
        self._loose_before, self._tree.loose = self._tree.loose, set()
        if not gone:
            return
        for wd in self._tree.below(gone):
            self._drop(wd)
            try:
                self._queue.rm_watch(wd)
            except OSError:
                continue  # the kernel was faster: the directory is deleted

    # -- what the walk and the engine tell -------------------------------------------------------

    def on_directory(self, prefix: bytes, fd: int, device: int) -> None:
        """Watch a directory; to be called before it is listed, parents before children.

        One that can't be watched is in :attr:`unwatched` from then on, with all that is below it.

        :param prefix: its path relative to the root, ending in ``/``; ``b""`` for the root.
        :param fd: the directory, open. The watch is set through it, so it can't get to a wrong one.
        :param device: its ``st_dev``.
        """
        with self._mine():
            if not self._queue.started:
                self._unwatched.add(prefix)
                return
            tree = self._tree
            parent = None
            if prefix:
                head, name = split(prefix[:-1])
                parent = tree.find(head)
                if parent is None or not self._can_watch(fd, device):
                    self._unwatched.add(prefix)
                    return
            else:
                self._root_device = device
            try:
                wd = self._queue.add_watch(f"/proc/self/fd/{fd}", _MASK if prefix else _ROOT_MASK)
            except OSError as error:
                self._say(f"watch {error.errno}", no_watch(error))
                self._unwatched.add(prefix)
                return
            if parent is not None:
                is_new = tree.attach(wd, join(parent, name))
            else:
                if tree.root not in (-1, wd):
                    # Another root than before: what is known belongs to the old one. The watch
                    # is set by the walk that the next drain() asks for.
                    self._lose()
                    return
                is_new = tree.set_root(wd)
            tree.remember(prefix, wd)
            if is_new and not self._doubt_all:
                self._young.add(wd)
            if prefix in self._parked:
                self._open_names.setdefault(wd, set()).update(self._parked.pop(prefix))

    def _can_watch(self, fd: int, device: int) -> bool:
        if device == self._root_device:
            return True
        if device not in self._delivers:
            fstype = mount_of(fd).fstype
            self._delivers[device] = delivers_inotify(fstype)
            if not self._delivers[device]:
                self._say(
                    fstype, f"{fstype!r} file systems don't tell of all changes: what is on one is scanned"
                )
        return self._delivers[device]

    def looked(self, spans: Iterable[Span]) -> None:
        """Say that the look since the last :meth:`drain` is complete: these spans were listed, and judged.

        That ends the doubts about what was open before, and takes from :attr:`unwatched` what is watched now.
        """
        with self._mine():
            if self._whole:
                return  # all was lost meanwhile: the listing is older than that, and proves nothing
            listed = merged(spans)
            if Span() in listed:
                self._doubt_all = False
            self._young.clear()
            self._unwatched.looked(listed)

    def is_open(self, key: bytes) -> bool:
        """Whether a file was created under our watch, or held, and was not closed yet when last read."""
        with self._mine():
            wd, prefix, name = self._place(key)
            return name in (self._open_names.get(wd, ()) if wd is not None else self._parked.get(prefix, ()))

    def pending(self, key: bytes) -> bool:
        """Whether the next :meth:`drain` will hint this file: what was listed of it may be old already."""
        with self._mine():
            wd, _, name = self._place(key)
            noticed = self._noticed
            return self._whole or noticed.everything or (wd is not None and name in noticed.names.get(wd, ()))

    def doubted(self, key: bytes) -> bool:
        """Whether somebody may have the file open without our knowing: :meth:`is_open` means little then.

        So for all files at first and after a loss, for those in a directory that was not
        watched before this look, and for those in one that can't be watched.
        """
        with self._mine():
            if self._doubt_all:
                return True
            wd, _, _ = self._place(key)
            return wd is None or wd in self._young

    def hold_open(self, key: bytes) -> None:
        """Mark a file as open: somebody is known to write to it. Its closing is told as for any other."""
        with self._mine():
            wd, prefix, name = self._place(key)
            if wd is None:
                self._parked.setdefault(prefix, set()).add(name)
            else:
                self._open_names.setdefault(wd, set()).add(name)

    def forget(self, key: bytes) -> None:
        """Take the open mark away: nobody writes to the file, or it is gone."""
        with self._mine():
            wd, prefix, name = self._place(key)
            if wd is not None:
                _unmark(self._open_names, wd, name)
            _unmark(self._parked, prefix, name)

    def _place(self, key: bytes) -> tuple[int | None, bytes, bytes]:
        prefix, name = split(key)
        return self._tree.find(prefix), prefix, name

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._tree.keys)

    @property
    def unwatched(self) -> list[Span]:
        """What has to be listed at every look, since no hint will come from there; sorted, merged."""
        with self._mine():
            return self._unwatched.spans()


def _unmark(marks: dict[Any, set[bytes]], place: int | bytes, name: bytes) -> bool:
    names = marks.get(place)
    if names is None or name not in names:
        return False
    names.discard(name)
    if not names:
        del marks[place]
    return True
