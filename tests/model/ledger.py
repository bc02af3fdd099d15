"""The judges of the model: what may and must be reported, and what a consumer may and must be given.

:class:`Ledger` reads the journal of one state event by event and compares each look with the
listing of the tree: whatever had to be told was told, nothing else was, ids keep their content,
and the events of a subject make sense one after the other. :class:`Reader` is a consumer as it
ought to be: the set of events that are still its own to be given, and who has the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from poller_core import Event
from tests.model.tree import Row, SteppedClock, written


class Told(NamedTuple):
    """What of an event must be the same each time that it is delivered."""

    seq: int
    event: str
    key: bytes
    size: int | None
    mtime_ns: int | None


def told(event: Event) -> Told:
    return Told(event.seq, event.event, event.key, event.size, event.mtime_ns)


class Ledger:
    """The journal of one state.

    :param known: what the poller took as known at its first look.
    :param settle: how long a file must be quiet, in seconds.
    :param watched: this state is kept (also) by a poller that lists what inotify tells of.
    :param scanned: it is kept (also) by one that lists everything, and knows nothing of writers.
    """

    def __init__(
        self, clock: SteppedClock, known: dict[bytes, Row], settle: float, watched: bool, scanned: bool
    ) -> None:
        self._clock = clock
        self._settle = settle
        self._watched = watched
        self._scanned = scanned
        self.reported = dict(known)
        self._alive = set(known)
        self._ids: dict[str, Told] = {}
        self._places: dict[int, str] = {}
        self.events: list[Event] = []

    def recognize(self, events: Iterable[Event]) -> None:
        """Events delivered anywhere: an id has one content, and a number one id."""
        for event in events:
            assert event.id, f"no id: {event}"
            known = self._ids.setdefault(event.id, told(event))
            assert known == told(event), f"{event.id} was {known}, and is {told(event)}"
            place = self._places.setdefault(event.seq, event.id)
            assert place == event.id, f"event {event.seq} was {place}, and is {event.id}"

    def enter(
        self,
        new: list[Event],
        listing: dict[bytes, Row],
        unreadable: Callable[[bytes], bool],
        lax: set[int],
        busy: set[int],
        overdue: bool = False,
    ) -> None:
        """Judge what looks since the last call have found, between which nothing was changed.

        :param listing: what is there.
        :param unreadable: whether a key is in a directory that can't be read.
        :param lax: inodes with several names. Who watches a tree is told of one name only, and hears
            of a change under the others when everything is listed.
        :param busy: inodes of files that somebody is writing.
        :param overdue: everything was given time to be quiet: nothing may be held any more.
        """
        self.recognize(new)
        last = self.events[-1].seq if self.events else 0
        for event in new:
            assert event.seq > last, f"{event} came after {last}"
            last = event.seq
        found = {event.key: event for event in new}
        assert len(found) == len(new), f"one change was told twice: {new}"
        must, may = self._expected(listing, unreadable, lax, busy, overdue)
        for key, kind in must.items():
            assert key in found, f"{key!r} is {kind}, and was not reported"
        for key, event in found.items():
            expected = must.get(key) or may.get(key)
            assert expected == event.event, f"{key!r} was reported as {event.event}; expected {expected}"
            self._follow(event, listing.get(key))
        self.events += new
        for key, row in listing.items():
            if key in self.reported and key not in found and not unreadable(key):
                old = self.reported[key]
                # Mode, owner or links alone: seen, and silent. (Where looks are lax it is not known whether.)
                if old != row and not written(old, row) and not self._loose(old, row, lax):
                    self.reported[key] = row
        if overdue and not busy:
            there = {key for key in listing if not unreadable(key)}
            assert {key for key in self._alive if not unreadable(key)} == there

    def _loose(self, old: Row | None, new: Row, lax: set[int]) -> bool:
        return self._watched and (new.ino in lax or (old is not None and old.ino in lax))

    def _expected(
        self,
        listing: dict[bytes, Row],
        unreadable: Callable[[bytes], bool],
        lax: set[int],
        busy: set[int],
        overdue: bool,
    ) -> tuple[dict[bytes, str], dict[bytes, str]]:
        must: dict[bytes, str] = {}
        may: dict[bytes, str] = {}
        for key in self.reported.keys() | listing.keys():
            old, row = self.reported.get(key), listing.get(key)
            if unreadable(key) or old == row:
                continue
            if row is None:
                must[key] = "deleted"
                continue
            kind = "created" if old is None else "modified"
            loose = self._loose(old, row, lax)
            if old is not None and not written(old, row) and not loose:
                continue
            loose = loose or (self._watched and row.ino in busy)
            if row.ino in busy and not self._scanned:
                continue
            if self._settle and self._clock.since(row.ctime_ns) < self._settle - 0.1 and not overdue:
                continue
            # Of a name that is not always looked at, a new ctime alone may be due to links come and gone.
            certain = old is None or (written(old, row) and not (loose and old[:7] == row[:7]))
            due = (overdue and row.ino not in busy) or not (self._settle or loose)
            (must if certain and due else may)[key] = kind
        return must, may

    def _follow(self, event: Event, row: Row | None) -> None:
        """The events of a subject are (created modified* deleted)*, and say what is there."""
        subject, name = event
        assert bytes(subject).endswith(event.key)
        if name == "created":
            assert event.key not in self._alive
            self._alive.add(event.key)
        else:
            assert event.key in self._alive
        if row is None:
            self._alive.discard(event.key)
            del self.reported[event.key]
        else:
            assert (event.size, event.mtime_ns) == (row.size, row.mtime_ns)
            self.reported[event.key] = row


class Reader:
    """A consumer as it ought to be.

    :param ledger: what there is to read.
    :param kinds: which events it wants.
    """

    def __init__(self, ledger: Ledger, kinds: tuple[str, ...]) -> None:
        self._ledger = ledger
        self._kinds = kinds
        self._read = len(ledger.events)  # how much of the ledger has come by
        #: What it can be given, by rewinding at least.
        self.visible = {event.seq: event for event in ledger.events if event.event in kinds}
        self.pending: set[int] = set()
        self.takes: dict[int, str] = {}
        self.claims: dict[str, list[int]] = {}

    def update(self) -> None:
        """Take over what the ledger has got since."""
        for event in self._ledger.events[self._read :]:
            if event.event in self._kinds:
                self.visible[event.seq] = event
                self.pending.add(event.seq)
        self._read = len(self._ledger.events)

    def next(self, limit: int | None) -> list[int]:
        return sorted(self.pending)[:limit]

    def given(self, events: Iterable[Event], limit: int | None, exact: bool) -> list[int]:
        """Judge a batch; the numbers of its events.

        :param exact: what is in the ledger by now was there when the batch was given.
        """
        events = list(events)
        self._ledger.recognize(events)
        self.update()
        seqs = [event.seq for event in events]
        due = self.next(limit)
        assert seqs == due[: len(seqs)], f"{seqs} were given; expected {due}"
        assert len(seqs) == len(due) or not exact, f"{seqs} were given; expected {due}"
        assert [event.id for event in events] == [self.visible[seq].id for seq in seqs]
        return seqs

    def done(self, seqs: Iterable[int]) -> None:
        self.pending.difference_update(seqs)

    def claimed(self, token: str, seqs: list[int]) -> None:
        if seqs:
            self.claims[token] = seqs
            self.done(seqs)

    def owner(self, seq: int) -> str | None:
        """Who has an event; None: nobody, it is pending or was acknowledged."""
        if seq in self.takes or seq in self.pending:
            return self.takes.get(seq)
        for token, seqs in reversed(self.claims.items()):
            if seq in seqs:
                return token
        return None

    def take(self, seq: int, token: str) -> None:
        self.takes[seq] = token
        self.pending.discard(seq)

    def release(self, token: str) -> int:
        """Give back what a token has, and nobody has got since; how much that is."""
        back = {seq for seq, owner in self.takes.items() if owner == token}
        if token in self.claims:
            tokens = list(self.claims)
            later = tokens[tokens.index(token) + 1 :]
            seqs = set(self.claims.pop(token)) - self.takes.keys()
            back |= seqs.difference(*(self.claims[name] for name in later))
        for seq in [seq for seq, owner in self.takes.items() if owner == token]:
            del self.takes[seq]
        self.pending |= back
        return len(back)

    def rewind(self, to: int) -> None:
        """Begin again at an event that lies before all that are pending."""
        for seq in [seq for seq in self.takes if seq >= to]:
            del self.takes[seq]
        self.pending = {seq for seq in self.visible if seq >= to and seq not in self.takes}

    def rewind_now(self) -> None:
        self.update()
        self.pending.clear()

    def rewind_beginning(self, private: list[Event]) -> None:
        """Begin with what is there now, as created, which are events for this consumer alone."""
        self.update()
        self.takes.clear()
        self.visible.update({event.seq: event for event in private})
        self.pending = {event.seq for event in private}
