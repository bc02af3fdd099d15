"""What a consumer would be given next.

For every consumer the state keeps an offset (everything up to it was read), the
events that were *taken* one by one beyond it, and those that were *returned*
behind it. What is pending is the returned ones, then what lies beyond the
offset and was not taken.

Guarantees: nothing in here changes the state. Events that are gone are an error
(:class:`~poller_core.errors.OffsetTooOld`) and never passed over; those before
them are given first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from ..errors import OffsetTooOld, StateDamaged, UnknownConsumer
from . import journal
from .database import Database
from .records import Numbered, Record
from .targets import LockedTarget, mark_target

__all__ = ["ConsumerRow", "Pending", "Reading", "Select"]

#: Says of a change whether a consumer wants it.
Select: TypeAlias = Callable[[Record], bool]


class ConsumerRow(NamedTuple):
    """A consumer, as of one moment."""

    name: str
    seq: int  #: its offset: everything up to here was read
    created_at: float  #: seconds since 1970-01-01 UTC
    updated_at: float  #: when it last read something


class Pending(NamedTuple):
    """What a consumer would be given now, and what acknowledging it means."""

    events: list[Numbered]
    upto: int  #: where the offset goes
    returned: list[int]  #: which of the returned events are done with then


class Reading:
    """The part of :class:`~poller_core.state.consumers.Consumers` that changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, target_id: int, name: str) -> ConsumerRow | None:
        """The consumer, or None if there is none of that name."""
        row = self._database.row(
            "SELECT name, seq, created_at, updated_at FROM poller_consumers WHERE target_id = ? AND name = ?",
            (target_id, name),
        )
        return ConsumerRow(*row) if row else None

    def all(self, target_id: int) -> list[ConsumerRow]:
        """All consumers of the target, by name."""
        rows = self._database.rows(
            "SELECT name, seq, created_at, updated_at FROM poller_consumers WHERE target_id = ?", (target_id,)
        )
        return sorted(ConsumerRow(*row) for row in rows)

    def pending(
        self, target_id: int, name: str, limit: int | None = None, select: Select | None = None
    ) -> Pending:
        """What comes next, at most ``limit`` events. Changes nothing.

        :param select: says of each event whether it is wanted; the others count as read.
        :raises OffsetTooOld: if what comes next is gone.
        :raises UnknownConsumer: if there is none of that name.
        """
        journal.check_limit(limit)
        with self._database.transaction(write=False):
            target = mark_target(self._database, target_id)
            return self.next_of(target_id, target, self.known(target_id, name), limit, select)

    def lag(self, target_id: int, name: str) -> int:
        """How many events are waiting, at most; filters and takes are not counted in."""
        with self._database.transaction(write=False):
            target = mark_target(self._database, target_id)
            waiting = target.last_seq - self.known(target_id, name).seq
            row = self._database.row(
                "SELECT COUNT(*) FROM poller_returned WHERE target_id = ? AND consumer = ?", (target_id, name)
            )
        return max(0, waiting) + (int(row[0]) if row else 0)

    def known(self, target_id: int, name: str) -> ConsumerRow:
        """The consumer.

        :raises UnknownConsumer: if there is none of that name.
        """
        found = self.get(target_id, name)
        if found is None:
            names = ", ".join(repr(row.name) for row in self.all(target_id)[:10]) or "none"
            raise UnknownConsumer(f"there is no consumer {name!r} here; there are: {names}")
        return found

    def next_of(
        self,
        target_id: int,
        target: LockedTarget,
        consumer: ConsumerRow,
        limit: int | None,
        select: Select | None,
    ) -> Pending:
        """What :meth:`pending` gives, within the caller's transaction."""
        database, name = self._database, consumer.name
        if consumer.seq > target.last_seq:
            raise StateDamaged(
                f"consumer {name!r} has read up to event {consumer.seq}, but the newest one is "
                f"{target.last_seq}; see 'poller check' and 'poller repair'"
            )
        returned: list[int] = []
        events: list[Numbered] = []
        for seq, event in self._returned(target_id, target, name, limit):
            if limit is not None and len(events) >= limit:
                return Pending(events, consumer.seq, returned)
            returned.append(seq)
            if select is None or select(event.record):
                events.append(event)
        left = None if limit is None else limit - len(events)
        if left == 0:
            return Pending(events, consumer.seq, returned)
        if consumer.seq < target.floor_seq:
            if events:
                return Pending(events, consumer.seq, returned)
            raise self._too_old(name, consumer.seq, target.floor_seq)
        taken = {
            row[0]
            for row in database.rows(
                "SELECT seq FROM poller_takes WHERE target_id = ? AND consumer = ? AND seq > ?",
                (target_id, name, consumer.seq),
            )
        }
        try:
            found = journal.scan(
                database, target_id, name, consumer.seq, target.last_seq, left, select, taken
            )
        except OffsetTooOld:
            if not events:
                raise
            return Pending(events, consumer.seq, returned)
        return Pending(events + found.events, found.upto, returned)

    def _returned(
        self, target_id: int, target: LockedTarget, name: str, limit: int | None
    ) -> Iterator[tuple[int, Numbered]]:
        window = min(limit or journal.MAX_BATCH, journal.MAX_BATCH)
        after = 0
        while True:
            rows = self._database.rows(
                "SELECT seq FROM poller_returned WHERE target_id = ? AND consumer = ? AND seq > ? "
                f"ORDER BY seq LIMIT {window}",
                (target_id, name, after),
            )
            seqs = [row[0] for row in rows]
            if seqs and seqs[0] <= target.floor_seq:
                raise self._too_old(name, seqs[0] - 1, target.floor_seq)
            events = journal.events_of(self._database, target_id, journal.to_ranges(seqs), target.floor_seq)
            yield from zip(seqs, events, strict=True)
            if len(rows) < window:
                return
            after = seqs[-1]

    def _too_old(self, name: str, offset: int, floor: int) -> OffsetTooOld:
        return OffsetTooOld(
            f"consumer {name!r} has read up to event {offset}, but events up to {floor} were pruned from the "
            f"journal: it was away for longer than the retention. Ways out: rewind it to {floor + 1}, the "
            "oldest event that is kept; to 'beginning', for all that is there now; or to 'now'"
        )

    def is_pending(self, target_id: int, consumer: ConsumerRow, seq: int) -> bool:
        """Whether it is still to be read, as far as the offset and the returned ones tell."""
        return seq > consumer.seq or bool(
            self._database.row(
                "SELECT 1 FROM poller_returned WHERE target_id = ? AND consumer = ? AND seq = ?",
                (target_id, consumer.name, seq),
            )
        )
