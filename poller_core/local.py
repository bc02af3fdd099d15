"""``FilePoller`` and ``INotifyPoller``: directories and files of this machine.

Both list with the same source and compare with the same merge; they differ in
how they know where to look. Guarantees: the same events for the same changes;
``INotifyPoller`` reports a file when its writer closes it, ``FilePoller`` when
it has been quiet for ``settle`` seconds; where the kernel can't tell of changes,
``INotifyPoller`` lists instead, and says so in the log.

Not guaranteed: that a writer on another machine, in another PID namespace, or
through a shared mapping is noticed while it writes; give ``settle`` for those.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any

from .backends.file import FileSource
from .backends.filesystem import FileSystem
from .backends.inotify import InotifyWatch
from .backends.mounts import delivers_inotify, mount_of
from .backends.openfiles import OpenFiles, open_writers
from .errors import InvalidOption, InvalidUrl, PollerRefused
from .filters import Exclude
from .listed import ListingPoller
from .listing import Hints, Row, Source, Span, Watch, key_span
from .options import Options
from .poller import register_poller
from .state import Store
from .state.leases import SUFFIX
from .url import Url

__all__ = ["FilePoller", "INotifyPoller"]

_MODE, _INO, _NLINK, _CTIME = 0, 1, 2, 7

#: How far a timestamp may be behind the clock, in seconds, with room to spare.
_NEAR = 1.0

#: A file that is held for its writer is looked up among the files that are open after so many seconds, and
#: again after pauses that grow up to the second figure: a writer's closing is noticed by itself, mostly.
_PAUSE = 2.0
_LONGEST_PAUSE = 60.0


class FilePoller(ListingPoller):
    """Tracks files by listing the directory at each look.

    :param url: a ``file:`` URL or a path, of a directory or of a single file.
    :param recurse: track files in subdirectories at any depth too, those that are made later included.
    :param fs: the system calls to use.
    :param options: see :class:`poller_core.Options`.
    :raises TargetNotFound, AccessDenied, TargetMoved: if the target can't be listed.
    """

    def __init__(
        self,
        url: str | bytes | os.PathLike[Any] | Url,
        recurse: bool = False,
        *,
        fs: FileSystem | None = None,
        **options: Any,
    ) -> None:
        self._fs = fs
        location = Url(url)
        if location.scheme != "file":
            raise InvalidUrl(
                f"{type(self).__name__} watches files, such as 'file:///data/inbox', "
                f"not {location.scheme!r} URLs"
            )
        super().__init__(location, recurse, **options)

    @classmethod
    def parse_options(cls, url: Url, given: Mapping[str, Any]) -> Options:
        options = super().parse_options(url, given)
        target = options.target
        for name, patterns in (("include", options.include), ("exclude", target.exclude)):
            for pattern in patterns:
                _must_be_below(url, name, pattern)
        if options.include and not target.recurse and all(map(_is_deep, options.include)):
            raise InvalidOption(
                f"include={list(options.include)!r}: names only what is in subdirectories, and these are not "
                f"looked at without recurse=True (--recurse)"
            )
        return options

    def make_source(self, exclude: Exclude) -> FileSource:
        """The directory or file."""
        target = self.options.target
        self._enter = exclude.enter
        return FileSource(
            bytes(self.url),
            recurse=target.recurse,
            follow_symlinks=target.follow_symlinks,
            directories=target.directories,
            fingerprint=target.fingerprint,
            enter=exclude.enter,
            fs=self._fs,
        )

    def own_keys(self, store: Store) -> list[bytes]:
        """The state's files, which change at each look and would else be reported for ever."""
        if store.path is None:
            return []
        root = os.path.realpath(bytes(self.url)) + b"/"
        path = os.path.realpath(os.fsencode(store.path))
        if not path.startswith(root):
            return []
        key = path[len(root) :]
        return [key, key + b"-wal", key + b"-shm", key + b"-journal", key + SUFFIX.encode()]


class INotifyPoller(FilePoller):
    """Tracks files by Linux's inotify, and lists only what it says has changed.

    What inotify loses (its queue overflows), can't watch (limits, mounts below the root)
    or does not see (writes from other machines, a root that was replaced) is found by
    listing; everything is listed about once an hour all the same (``full_every``).

    :raises PollerRefused: if ``inotify_simple`` is missing, no inotify instance is left,
        or the file system (of a network, say) does not tell of all changes;
        :class:`FilePoller` works there.
    """

    def make_watch(self, source: Source) -> Watch:
        """The watch on the tree."""
        assert isinstance(source, FileSource)
        _must_deliver(self.url)
        target = self.options.target
        return _FileWatch(source, target.recurse, target.follow_symlinks, self._enter, self.clock.monotonic)


def _must_be_below(url: Url, option: str, pattern: str) -> None:
    path = url.path.rstrip("/") + "/"
    bare = pattern.removeprefix("!")
    if len(path) > 1 and bare.startswith(path):
        rest = bare[len(path) :] or "*"
        raise InvalidOption(
            f"{option}={pattern!r}: a pattern is compared with names below {url.path}, without that path; "
            f"expected {option}=[{rest!r}]"
        )


def _is_deep(pattern: str) -> bool:
    """Whether nothing directly below the target can match."""
    bare = pattern.removeprefix("!").strip("/")
    return "/" in bare and not bare.startswith("**/") and not bare.endswith("/**")


def _must_deliver(url: Url) -> None:
    if not hasattr(os, "O_PATH"):
        return  # not Linux: who makes the watch says so
    try:
        fd = os.open(bytes(url), os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # missing or forbidden: the look says so better
    try:
        fstype = mount_of(fd).fstype
    finally:
        os.close(fd)
    if not delivers_inotify(fstype):
        raise PollerRefused(
            f"{url} is on a file system of type {fstype!r}, which does not tell inotify of every change; "
            f"FilePoller lists it instead"
        )


class _FileWatch:
    """What :class:`InotifyWatch` knows, as the engine asks for it."""

    def __init__(
        self,
        source: FileSource,
        recurse: bool,
        follow_symlinks: bool,
        enter: Callable[[bytes], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._source = source
        self._recurse = recurse
        self._follow = follow_symlinks
        self._enter = enter
        self._monotonic = monotonic
        self._single: bytes | None = None
        self._start()
        self._root: tuple[int, int] | None = None
        self._writers: OpenFiles | None = None
        self._scanned_at = 0.0  # wall clock, like the timestamps that it is compared with
        self._current = False  # whether the writers were looked up after the newest listing
        self._inodes: set[int] = set()  # of those files
        # Files that are held for their writer: when to see whether it is still there, and after what pause.
        self._waiting: dict[bytes, tuple[float, float]] = {}
        self._paused: dict[bytes, float] = {}  # those that are seen to now

    def _start(self) -> None:
        self._inotify = InotifyWatch(self._recurse, self._single, self._follow, self._enter)
        self._source.on_directory = self._inotify.on_directory

    @property
    def watches(self) -> int:
        return self._inotify.watches

    @property
    def overflows(self) -> int:
        return self._inotify.overflows

    @property
    def held(self) -> int:
        return len(self._waiting)

    def begin(self) -> None:
        self._writers = None
        single = os.path.basename(self._source.path) if self._source.is_file else None
        if single != self._single:
            # Only the source's first look tells whether the target is a directory or a file.
            self._single = single
            self._inotify.close()
            self._start()
        if self._root is not None and self._source.root_id != self._root:
            self._inotify.reset()
        self._root = self._source.root_id

    def drain(self) -> Hints:
        hints = self._inotify.drain()
        for key in hints.closed:
            self._waiting.pop(key, None)
        return Hints(hints.spans, hints.whole, hints.closed)

    def listed(self) -> None:
        self._current = False

    def looked(self, spans: list[Span]) -> None:
        self._inotify.looked(spans)

    def unwatched(self) -> list[Span]:
        now = self._monotonic()
        # Taken out, lest one that is gone by now be asked for over and over.
        self._paused = {key: pause for key, (at, pause) in self._waiting.items() if at <= now}
        for key in self._paused:
            del self._waiting[key]
        return self._inotify.unwatched + [key_span(key) for key in self._paused]

    def due(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, min(at for at, _ in self._waiting.values()) - self._monotonic())

    def busy(self, key: bytes, row: Row, closed: bool) -> bool:
        if not stat.S_ISREG(row[_MODE]):
            return False
        inotify = self._inotify
        inotify.catch_up()
        if inotify.pending(key):
            return True  # something happened to it since it was listed: the next look knows more
        if closed:
            return False
        now = self._monotonic()
        if inotify.is_open(key) and row[_NLINK] == 1 and key not in self._paused:
            at, _ = self._waiting.setdefault(key, (now + _PAUSE, _PAUSE))
            if now < at:
                return True
        if self._is_written(key, row):
            inotify.hold_open(key)
            pause = min(_LONGEST_PAUSE, 2 * self._paused.get(key, _PAUSE / 2))
            self._waiting[key] = (now + pause, pause)
            return True
        inotify.catch_up()
        if inotify.pending(key):
            return True  # closed since the look-up above began: what was listed is not what it holds now
        # Made without being opened for writing (a hard link, mknod), or closed before we watched.
        inotify.forget(key)
        self._waiting.pop(key, None)
        return False

    def _is_written(self, key: bytes, row: Row) -> bool:
        found, inode, changed = self._writers, row[_INO], row[_CTIME]
        # An answer from before the entry was listed is no use if the file is named in it (it may have been
        # closed since, unwatched, and be held for nothing), or has changed since (and may have been opened).
        if found is None or (
            not self._current
            and (
                not inode or inode in self._inodes or not changed or changed / 1e9 > self._scanned_at - _NEAR
            )
        ):
            self._scanned_at = time.time()
            found = self._writers = open_writers()
            self._inodes = {number for _, number in found.writers}
            self._current = True
        if inode and inode not in self._inodes:
            return False
        # Asked anew: the row does not tell the device (there may be mounts below the root), and has
        # no inode if the fingerprint leaves it out.
        return self._source.device_inode(key) in found.writers

    def wait(self, timeout: float | None) -> bool:
        return self._inotify.wait(timeout)

    def wake(self) -> None:
        self._inotify.wake()

    def close(self) -> None:
        self._inotify.close()


register_poller("file")(INotifyPoller)
register_poller("file")(FilePoller)
