"""The walk of a directory tree in the order of its keys.

A key is the path relative to the root, as bytes; a directory sorts as
``name/``. So ``a-b`` comes before everything in ``a/``, and ``a0`` after it.

Guarantees:

* Chunks and gaps come in key order and lie in the span that was asked for.
* What could not be read is a :class:`~poller_core.listing.Gap`, never left out.
  Only what the system proves absent (ENOENT, ENOTDIR) is passed over.
* Pipes, sockets and devices are never entries and never opened.
* Neither depth nor width is limited by the system's longest path, by the number
  of open files (64 are enough) or by Python's recursion limit.

Does not guarantee: a picture of one moment; and the exact outline of what could
not be read, once there are more than :attr:`WalkOptions.most_gaps` such places.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, TypeAlias

from ..listing import Chunk, Gap, Row, Span, tree_span
from .entries import (
    FINGERPRINT,
    Pending,
    Unsearchable,
    WalkOptions,
    blanked,
    directory_row,
    entered,
    look,
    one,
    unsearchable,
)
from .filesystem import ABSENT, Chain, FileSystem, shown, target_error, why
from .names import sorted_names

__all__ = ["OnDirectory", "WalkOptions", "walk"]

#: Called with (prefix, descriptor, device) before a directory is listed.
OnDirectory: TypeAlias = Callable[[bytes, int, int], None]

_KEY: Callable[[Pending], Any] = itemgetter(0)

_WINDOW = 512  # names whose rows are in memory at a time, for one directory
_HELD = 8192  # rows that wait in the directories above
_OPEN = 48  # directories above that are kept open
_REOPENED = 16  # directories that are opened again at once on the way up
_STEP = 100  # so many gaps too many, and one more level is given up


def walk(
    fs: FileSystem,
    root_fd: int,
    span: Span,
    options: WalkOptions,
    on_directory: OnDirectory | None = None,
) -> Iterator[Chunk | Gap]:
    """List what lies in the span below an open directory, in key order.

    :param root_fd: stays open; it must stay so until the iterator is exhausted or closed.
    :param on_directory: called before each directory is listed (not for those only passed through).
    :raises TargetError: when the root itself can't be listed.
    """
    if span.stop == span.start + b"\0":
        return one(fs, root_fd, span.start, options)
    return _Walk(fs, root_fd, span, options, on_directory).run()


class _Frame:
    """A directory that is being listed."""

    __slots__ = (
        "at",
        "fd",
        "files",
        "floor",
        "held",
        "identity",
        "length",
        "limit",
        "more",
        "names",
        "pending",
        "rows",
    )

    def __init__(self, fd: int, length: int, names: list[bytes], more: Iterator[list[bytes]] | None) -> None:
        self.fd = fd  # -1: closed for now
        self.identity = (0, 0)  # (device, inode), once it was closed
        self.length = length  # of the prefix
        self.names = names  # sorted; from ``at`` on not looked at yet
        self.at = 0
        self.limit: bytes | None = None  # the name there; None if there is none
        self.more = more  # what follows in a very large directory
        self.floor = b""  # files below this name are outside the span
        self.files: list[bytes] = []  # looked at, not handed out yet
        self.rows: list[Row] = []
        self.held = 0  # how many of them are counted in the walk's ``held``
        self.pending: list[Pending] = []
        self.advance(0)

    def advance(self, by: int) -> None:
        """Go on to the next name that was not looked at yet."""
        self.at += by
        if self.at < len(self.names):
            self.limit = self.names[self.at]
            return
        self.limit = None
        self.names, self.at = [], 0
        if self.more is not None:
            for names in self.more:
                if names:
                    self.names, self.limit = names, names[0]
                    return
            self.more = None


class _Walk:
    """The state of one walk. Only the generator :meth:`run` uses it."""

    def __init__(
        self,
        fs: FileSystem,
        root_fd: int,
        span: Span,
        options: WalkOptions,
        on_directory: OnDirectory | None,
    ) -> None:
        self.fs = fs
        self.root_fd = root_fd
        self.start, self.stop = span
        self.options = options
        self.on_directory = on_directory
        self.bounded = span != Span()
        self.whole = options.fingerprint >= FINGERPRINT.keys()
        self.identify = on_directory is not None or options.follow_symlinks
        self.prefix = b""  # of the directory on top of the stack
        self.stack: list[_Frame] = []
        self.shut = 0  # stack[1 : shut + 1] are closed, all others are open
        self.held = 0
        self.gaps: list[Gap] = []  # not handed out yet
        self.gap_count = 0
        self.above: list[tuple[int, tuple[int, int]]] = []  # when following: (length of prefix, identity)

    def run(self) -> Iterator[Chunk | Gap]:
        gaps, stack = self.gaps, self.stack
        try:
            for chunk in self._chunks():
                if gaps:
                    yield from gaps
                    gaps.clear()
                yield chunk
            yield from gaps
        finally:
            for frame in stack:
                self._close(frame.fd)

    def _chunks(self) -> Iterator[Chunk]:
        options, stack, open_dir = self.options, self.stack, self.fs.open_dir
        recurse, follow, enter = options.recurse, options.follow_symlinks, options.enter
        directories, bounded, whole = options.directories, self.bounded, self.whole
        yield from self._begin()
        while stack:
            frame = stack[-1]
            pending = frame.pending
            limit = frame.limit
            if not pending or (limit is not None and limit < pending[-1][0]):
                # No directory is due before the next name that is still to be looked at.
                if frame.files:
                    files, rows = frame.files, frame.rows
                    frame.files, frame.rows = [], []
                    yield self._chunk(self.prefix, files, rows)
                elif limit is None:
                    self._pop()
                elif frame.fd >= 0 or self._reopen(self.prefix + limit):
                    self._fill(frame)
                continue

            key, row, reason = pending[-1]
            if frame.files and frame.files[0] < key:
                cut = bisect_left(frame.files, key)
                files, rows = frame.files[:cut], frame.rows[:cut]
                del frame.files[:cut], frame.rows[:cut]
                yield self._chunk(self.prefix, files, rows)
            pending.pop()
            prefix = self.prefix + key
            if row is None:
                self._fail(prefix, prefix[:-1] + b"0" if key[-1:] == b"/" else prefix + b"\0", reason)
                continue
            if bounded and not self._meets(prefix):
                continue
            if enter is not None and not enter(prefix):
                continue
            own = directories and prefix >= self.start
            if not recurse:
                if own:
                    yield self._chunk(self.prefix, [key], [directory_row(row)])
                continue
            if frame.fd < 0 and not self._reopen(prefix):
                continue
            if own:
                above = self.prefix
            failure = ""
            files = []
            try:
                files, rows = self._go_in(open_dir(key[:-1], frame.fd, follow), prefix, row[5])
            except OSError as error:
                if error.errno in ABSENT or (follow and error.errno == errno.ELOOP):
                    continue
                self._check_root(error, frame.fd)
                failure = why(error, options.label, prefix)
            if own:
                yield self._chunk(above, [key], [directory_row(row)])
            if failure:
                self._fail(prefix + b"\0" if own else prefix, prefix[:-1] + b"0", failure)
            elif files:
                yield Chunk(prefix, files, rows) if whole else self._chunk(prefix, files, rows)

    # -- going down ----------------------------------------------------------

    def _begin(self) -> Iterator[Chunk]:
        """Open the deepest directory that holds all of the span, and list it."""
        base = self._base()
        *parts, _ = base.split(b"/")
        options, fs = self.options, self.fs
        if not entered(parts, options):
            return
        if parts and options.directories and self.start == base:
            for found in one(fs, self.root_fd, base, options):
                if isinstance(found, Gap):
                    self.gaps.append(Gap(Span(self.start, self.stop), found.reason))
                    return
                yield found
        if parts and not options.recurse:
            return
        chain = Chain(fs, self.root_fd, options.follow_symlinks)
        try:
            fd = chain.open(parts)
            above = [(-1, identity) for identity in chain.ids[:-1]]
            if parts:
                chain.take()
        except OSError as error:
            if not parts:
                raise target_error(error, options.label) from None
            if error.errno not in ABSENT:
                if len(parts) == 1:
                    self._check_root(error, self.root_fd)
                self._fail(self.start, self.stop, why(error, options.label, base))
            return
        finally:
            chain.close()
        self.above = above
        try:
            files, rows = self._go_in(fd, base, None)
        except OSError as error:
            if not parts:
                raise target_error(error, options.label) from None
            if error.errno not in ABSENT:
                self._fail(self.start, self.stop, why(error, options.label, base))
            return
        if files:
            yield self._chunk(base, files, rows)

    def _base(self) -> bytes:
        if self.stop is None:
            return b""
        end = self.start.rfind(b"/") + 1
        while end:
            # All of the span lies in start[:end] if it stops before what follows that directory.
            if self.stop <= self.start[: end - 1] + b"0":
                return self.start[:end]
            end = self.start.rfind(b"/", 0, end - 1) + 1
        return b""

    def _go_in(self, fd: int, prefix: bytes, size: int | None) -> tuple[list[bytes], list[Row]]:
        """List an open directory. One without anything to enter is done with at once, and closed.

        :returns: the files, if that was all; else they are on the stack now.
        """
        keep = False
        try:
            if self.identify and self._known(fd, prefix):
                return [], []
            names, more = sorted_names(self.fs, fd, size if self.options.sized else None)
            floor = b""
            if self.bounded:
                names, more, floor = self._cut(prefix, names, more)
            pending: list[Pending] = []
            files: list[bytes] = []
            rows: list[Row] = []
            if more is None and len(names) <= _WINDOW and not floor:
                files, rows, pending = look(self.fs, fd, prefix, names, self.options)
                if not pending:
                    return files, rows
                names = []
            keep = True
        finally:
            if not keep and fd != self.root_fd:
                self.fs.close(fd)
        if self.stack:
            self._leave()
        frame = _Frame(fd, len(prefix), names, more)
        frame.floor, frame.files, frame.rows, frame.pending = floor, files, rows, pending
        self.prefix = prefix
        self.stack.append(frame)
        if len(self.stack) - self.shut > _OPEN:
            self._shutone()
        return [], []

    def _known(self, fd: int, prefix: bytes) -> bool:
        """Tell who listens, before the listing; say whether following links led back to where we are."""
        found = self.fs.fstat(fd)
        if self.options.follow_symlinks:
            identity = (found.st_dev, found.st_ino)
            above, parent = self.above, prefix.rfind(b"/", 0, -1) + 1
            while above and above[-1][0] > parent:
                above.pop()
            if any(identity == other for _, other in above):
                return True
            above.append((len(prefix), identity))
        if self.on_directory is not None:
            self.on_directory(prefix, fd, found.st_dev)
        return False

    def _leave(self) -> None:
        """Prepare the directory on top for that one below it is entered."""
        frame = self.stack[-1]
        if not frame.pending and not frame.files and frame.limit is None:
            self._pop()
            return
        frame.held = len(frame.files)
        self.held += frame.held
        if self.held > _HELD:
            for above in self.stack:
                if above.held:
                    # Looked at anew on the way back: rows of a deep and wide tree don't all fit.
                    above.names = above.files + above.names[above.at :]
                    above.at, above.files, above.rows = 0, [], []
                    above.advance(0)
                    self.held -= above.held
                    above.held = 0

    def _shutone(self) -> None:
        frame = self.stack[self.shut + 1]
        try:
            found = self.fs.fstat(frame.fd)
        except OSError:
            frame.identity = (-1, -1)  # never the same again: the rest of it becomes a gap
        else:
            frame.identity = (found.st_dev, found.st_ino)
        self._close(frame.fd)
        frame.fd = -1
        self.shut += 1

    # -- going up ------------------------------------------------------------

    def _pop(self) -> None:
        frame = self.stack.pop()
        self.held -= frame.held
        self._close(frame.fd)
        if self.stack:
            above = self.stack[-1]
            self.prefix = self.prefix[: above.length]
            self.held -= above.held
            above.held = 0
            self.shut = min(self.shut, len(self.stack) - 1)

    def _reopen(self, position: bytes) -> bool:
        """Open the directory on top again, and some of those above it, step by step from the lowest.

        If one of them is another directory now, or can't be opened, the rest of it becomes a gap.

        :param position: the key from which on nothing was listed yet.
        """
        fs, stack, path = self.fs, self.stack, self.prefix
        at = {frame.length: index for index, frame in enumerate(stack)}
        keep_from = max(1, len(stack) - _REOPENED)
        length, fd = stack[0].length, stack[0].fd
        passing = False  # whether ``fd`` belongs to no directory of the stack
        reason = ""
        for part in path[length:-1].split(b"/"):
            length += len(part) + 1
            index = at.get(length)
            above = fd
            try:
                fd = fs.open_dir(part, above, self.options.follow_symlinks)
                if passing:
                    self._close(above)
                passing = True
                if index is None:
                    continue
                found = fs.fstat(fd)
            except OSError as error:
                reason = why(error, self.options.label, path[:length])
                break
            if (found.st_dev, found.st_ino) != stack[index].identity:
                reason = (
                    f"replaced while it was listed: {shown(os.path.join(self.options.label, path[:length]))}"
                )
                break
            if index >= keep_from:
                stack[index].fd, passing = fd, False
        if passing:
            self._close(fd)
        if reason:
            while stack and stack[-1].length >= length:
                self._pop()
        self.shut = min(keep_from, len(stack)) - 1
        if reason:
            self._fail(position, path[: length - 1] + b"0", reason)
        return not reason

    def _close(self, fd: int) -> None:
        if fd >= 0 and fd != self.root_fd:
            self.fs.close(fd)

    # -- looking at entries --------------------------------------------------

    def _fill(self, frame: _Frame) -> None:
        """Look at the next names of the directory on top."""
        names = frame.names[frame.at : frame.at + _WINDOW]
        try:
            files, rows, pending = look(self.fs, frame.fd, self.prefix, names, self.options)
        except Unsearchable as error:
            if frame.fd == self.root_fd:
                raise target_error(error, self.options.label) from None
            start, prefix = self.prefix + names[0], self.prefix
            self._pop()
            self._fail(start, prefix[:-1] + b"0", why(error, self.options.label, prefix))
            return
        frame.advance(len(names))
        if frame.floor:
            cut = bisect_left(files, frame.floor)
            files, rows = files[cut:], rows[cut:]
        frame.files, frame.rows = files, rows
        if pending:
            frame.pending = sorted(frame.pending + pending, key=_KEY, reverse=True)

    def _chunk(self, prefix: bytes, names: list[bytes], rows: list[Row]) -> Chunk:
        return Chunk(prefix, names, rows if self.whole else blanked(rows, self.options.fingerprint))

    # -- spans ---------------------------------------------------------------

    def _meets(self, prefix: bytes) -> bool:
        return prefix[:-1] + b"0" > self.start and (self.stop is None or prefix < self.stop)

    def _cut(
        self, prefix: bytes, names: list[bytes], more: Iterator[list[bytes]] | None
    ) -> tuple[list[bytes], Iterator[list[bytes]] | None, bytes]:
        """Drop names that have nothing in the span; files below the last result are still to be dropped."""
        low = self.start[len(prefix) :] if self.start.startswith(prefix) else b""
        high = self.stop[len(prefix) :] if self.stop is not None and self.stop.startswith(prefix) else None

        def clipped(names: list[bytes]) -> list[bytes]:
            if high is not None:
                names = names[: bisect_left(names, high)]
            cut = bisect_left(names, low)
            if cut:
                # A directory whose name is a beginning of ``low`` may reach into the span.
                names = [name for name in names[:cut] if low.startswith(name)] + names[cut:]
            return names

        if low or high is not None:
            return clipped(names), None if more is None else map(clipped, more), low
        return names, more, b""

    # -- failures ------------------------------------------------------------

    def _check_root(self, error: OSError, fd: int) -> None:
        if error.errno == errno.EACCES and fd == self.root_fd and unsearchable(self.fs, fd):
            raise target_error(error, self.options.label) from None

    def _fail(self, start: bytes, stop: bytes | None, reason: str) -> None:
        """Note that nothing is known of these keys."""
        start = max(start, self.start)
        last = self.gaps[-1] if self.gaps else None
        many = 0
        if last is None or last.span.stop != start:
            self.gap_count += 1
            many = self.gap_count - self.options.most_gaps
            if many > 0:
                for _ in range(1 + many // _STEP):
                    if self.stack:
                        stop = tree_span(self.prefix).stop
                        self._pop()
        if self.stop is not None and (stop is None or stop > self.stop):
            stop = self.stop
        if stop is not None and stop <= start:
            return
        if last is not None and (many > 0 or last.span.stop == start):
            self.gaps[-1] = Gap(Span(last.span.start, stop), last.reason)
        else:
            self.gaps.append(Gap(Span(start, stop), reason))
