"""What a backend hands the engine: sorted chunks of entries, and gaps.

A *source* answers one question: what is there now, in a half-open range of
keys (a :class:`Span`), in byte order of the keys. It says so in
:class:`Chunk` s (neighbouring entries under one prefix) and :class:`Gap` s
(spans that could not be listed). Everything else is the engine's.

What a source has to keep, for the engine's promises to hold:

* **Order.** The spans of chunks and gaps never step back. A directory sorts as
  ``name/``, as in git's index, so that a tree comes out in key order.
* **Unread is not empty.** What could not be read is a :class:`Gap`, never left
  out. If the target as a whole can't be looked at, :meth:`Source.begin` raises.
* **Same entry, same prefix.** A key is always split into prefix and name in the
  same way. A source that breaks this stays correct, but its pages are compared
  entry by entry on every look.

Not guaranteed: that a listing is a snapshot of one moment. Names that move
while it runs may be seen twice or not at all; the next look puts that right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

from .errors import PollerError
from .url import Url

__all__ = [
    "Change",
    "Chunk",
    "Entry",
    "Facts",
    "Gap",
    "Hints",
    "Kind",
    "Row",
    "Source",
    "Span",
    "Watch",
    "chunks_of",
    "key_span",
    "merged",
    "tree_span",
]

#: A fingerprint: a flat tuple of ints, strings and None. Two rows that are equal
#: mean "unchanged"; what an inequality means is :meth:`Source.differs`'s to say.
Row: TypeAlias = tuple[Any, ...]


class Span(NamedTuple):
    """A half-open range of keys: ``start <= key < stop``; ``stop=None`` has no end."""

    start: bytes = b""  #: the first key that may be in it
    stop: bytes | None = None  #: the first key behind it; None: there is none

    def holds(self, key: bytes) -> bool:
        """Whether the key lies in the span."""
        return key >= self.start and (self.stop is None or key < self.stop)

    def within(self, outer: Span) -> bool:
        """Whether all of this span lies in the other."""
        return self.start >= outer.start and (
            outer.stop is None or (self.stop is not None and self.stop <= outer.stop)
        )


def key_span(key: bytes) -> Span:
    """The span that holds this one key and no other."""
    return Span(key, key + b"\0")


def tree_span(prefix: bytes) -> Span:
    """The span of all keys that begin with the prefix, which ends in ``/`` (``b""``: all)."""
    return Span(prefix, prefix[:-1] + b"0") if prefix else Span()


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same keys in as few spans as can be: sorted, disjoint, none touching another."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start):
        last = found[-1] if found else None
        if last is None or (last.stop is not None and span.start > last.stop):
            found.append(span)
        elif last.stop is not None and (span.stop is None or span.stop > last.stop):
            found[-1] = Span(last.start, span.stop)
    return found


class Entry(NamedTuple):
    """One thing that is there now."""

    key: bytes  #: its name below the target, ``/``-separated
    row: Row  #: its fingerprint


class Chunk(NamedTuple):
    """Neighbouring entries: ``prefix + names[i]`` has fingerprint ``rows[i]``.

    ``names`` is sorted, without repeats, and as long as ``rows``; neither is empty.
    """

    prefix: bytes  #: what all keys of it begin with; may be empty
    names: list[bytes]  #: the rest of each key
    rows: list[Row]  #: the fingerprint of each


class Gap(NamedTuple):
    """A span that could not be listed, and why (a text without secrets)."""

    span: Span  #: the keys that nothing is known of
    reason: str  #: why, for people

    def clipped(self, span: Span) -> Gap:
        """The part of the gap that lies in the span, which it overlaps."""
        stop = self.span.stop
        if span.stop is not None and (stop is None or stop > span.stop):
            stop = span.stop
        return Gap(Span(max(self.span.start, span.start), stop), self.reason)


class Kind(IntEnum):
    """What happened to a subject. The numbers are stored: never change one."""

    created = 1
    modified = 2
    deleted = 3


class Change(IntEnum):
    """How two different rows of one key differ."""

    content = 1  #: somebody wrote to it
    metadata = 2  #: mode, owner or links only; silent unless asked for


class Facts(NamedTuple):
    """What an event says of its subject, read from a fingerprint."""

    size: int | None = None  #: bytes
    mtime_ns: int | None = None  #: last modification, nanoseconds since 1970-01-01 UTC
    etag: str | None = None  #: the store's own version mark


class Source(ABC):
    """A backend: one target that can be listed in key order.

    The engine calls it from one thread at a time. A look is
    ``begin() … scan()/absent() … verify() … close()``; every one but the last of them may raise a
    :class:`~poller_core.errors.TargetError`, and then nothing is concluded
    from that look.
    """

    #: How far apart two changes must be to get different timestamps, seconds; known after :meth:`begin`.
    slack: float = 0.0
    #: More spans than this in one look are listed as one, which has them all; None: any number will do.
    most_spans: int | None = None
    #: By how much the clock that stamps the entries may be behind ours, seconds; known after :meth:`begin`.
    skew: float = 0.0

    @abstractmethod
    def begin(self, known: str | None) -> str:
        """Make ready for a look; check that the target is there and is the same.

        :param known: what this method returned at the last look, or None at the first one ever.
        :returns: what tells this target from another one in its place (JSON, no
            secrets); it is kept with the snapshot.
        :raises TargetNotFound, TargetMoved, AccessDenied, AuthenticationFailed:
            when the target as a whole can't be looked at.
        """

    @abstractmethod
    def scan(self, span: Span) -> Iterator[Chunk | Gap]:
        """List what is there now in the span, in key order.

        :param span: nothing outside of it may be given.
        :returns: chunks, and gaps where something could not be read; see :func:`chunks_of`.
        """

    @abstractmethod
    def absent(self, keys: list[bytes]) -> set[bytes]:
        """Look a second time: which of these keys are *proven* to be gone.

        A key whose absence can't be proven (no permission, no answer) or that
        is there after all is not in the result.

        :param keys: those that are known and were not listed, in order.
        """

    def outdated(self, changed: list[tuple[bytes, Row, Row]]) -> set[bytes]:
        """Of changes that were listed, which are known to be older than what was known before.

        A store of several copies may list an older state than it did before. These keys stay as they
        were known, and are compared again at the next look.

        :param changed: keys with the row that is known and the one that is listed.
        """
        return set()

    def verify(self) -> None:
        """Raise a :class:`~poller_core.errors.TargetError` if the target was replaced since :meth:`begin`.

        Called before anything is concluded from what was listed.
        """

    def close(self) -> None:
        """Let go of what :meth:`begin` opened; called at the end of each look."""

    def end(self) -> None:
        """Let go of everything; there will be no further look."""

    @abstractmethod
    def differs(self, old: Row, new: Row) -> Change:
        """Say what the difference between two unequal rows of one key means.

        :param old: the row that is known.
        :param new: the one that was listed.
        :returns: ``Change.content`` for what is told as ``modified``.
        """

    @abstractmethod
    def facts(self, row: Row) -> Facts:
        """Read from a fingerprint what events carry.

        :param row: as :meth:`scan` gave it; of a deleted subject the last one that is known.
        """

    @abstractmethod
    def subject(self, key: bytes) -> Url:
        """The URL of a key, without credentials.

        :param key: any that :meth:`scan` gave, also one that is gone since.
        """

    def changed_ns(self, row: Row) -> int | None:
        """When the store says it last touched the entry (ctime, ns since 1970), if it can."""
        return None

    def newest_ns(self, rows: list[Row]) -> int | None:
        """The newest :meth:`changed_ns` of rows, which are not empty; None if one of them has none."""
        times = [changed for row in rows if (changed := self.changed_ns(row)) is not None]
        return max(times) if len(times) == len(rows) else None


class Hints(NamedTuple):
    """What a watch says is worth listing now."""

    spans: list[Span]  #: in any order, may overlap
    whole: bool  #: list everything: events were lost, or the root changed
    closed: frozenset[bytes]  #: keys whose writer was seen to close them


class Watch(Protocol):
    """Something that notices changes as they happen and tells where to look."""

    @property
    def watches(self) -> int:
        """How many directories (or the like) are watched."""

    @property
    def overflows(self) -> int:
        """How often notifications were lost since the start."""

    @property
    def held(self) -> int:
        """How many entries wait for their writer to be done."""

    def begin(self) -> None:
        """A look begins, just after :meth:`Source.begin`; forget watches that lead to another root."""

    def drain(self) -> Hints:
        """All that was noticed since the last call. Never raises for what it is told."""

    def listed(self) -> None:
        """More was listed: whoever is writing to it must be asked for anew."""

    def looked(self, spans: list[Span]) -> None:
        """These spans were listed, and what was found is stored."""

    def unwatched(self) -> list[Span]:
        """What can't be watched and must be listed on every look."""

    def due(self) -> float | None:
        """In how many seconds :meth:`unwatched` will name a subject that is held; None: nothing is held."""

    def busy(self, key: bytes, row: Row, closed: bool) -> bool:
        """Whether somebody is known to be writing to this entry now.

        :param closed: whether its key was in :attr:`Hints.closed` since it was last reported.
        """

    def wait(self, timeout: float | None) -> bool:
        """Block until something is noticed, :meth:`wake` is called or the time (seconds) is over."""

    def wake(self) -> None:
        """End a :meth:`wait` in another thread."""

    def close(self) -> None:
        """Stop watching."""


def chunks_of(entries: Iterable[Entry | Gap], size: int = 512) -> Iterator[Chunk | Gap]:
    """Gather single entries, in key order, into chunks without a prefix."""
    names: list[bytes] = []
    rows: list[Row] = []
    for entry in entries:
        if isinstance(entry, Gap):
            if names:
                yield Chunk(b"", names, rows)
                names, rows = [], []
            yield entry
            continue
        if names and entry.key <= names[-1]:
            raise PollerError(f"the listing is not sorted: {entry.key!r} came after {names[-1]!r}")
        names.append(entry.key)
        rows.append(entry.row)
        if len(names) >= size:
            yield Chunk(b"", names, rows)
            names, rows = [], []
    if names:
        yield Chunk(b"", names, rows)
