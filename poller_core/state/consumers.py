"""Named readers of the journal: offsets, claims, single takes, dead letters.

Guarantees: each method is one transaction. Two processes that claim at once get
no event twice; the same token gets the same events whoever asks. A consumer
that asks for events that are gone is told
(:class:`~poller_core.errors.OffsetTooOld`), and never moved past them.

Does not guarantee: that two processes which read *without* a token as the same
consumer get different events.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from ..crashpoints import crash_point
from ..errors import EventTaken, InvalidOption, OffsetTooOld, UnknownEvent
from . import journal, ownership
from .database import Database
from .ownership import DEAD_LETTER, RESERVED, ClaimRow, Claims
from .reading import ConsumerRow, Reading, Select
from .records import Numbered, Record, event_id, parse_event_id
from .targets import LockedTarget, lock_target, mark_target

__all__ = ["Consumers", "DeadLetter"]

_LONGEST_NAME = 250


class DeadLetter(NamedTuple):
    """An event that could not be worked off."""

    seq: int
    attempts: int
    error: str  #: without secrets
    died_at: float  #: seconds since 1970-01-01 UTC
    event: str  #: the event as JSON, complete: it outlives the journal


class Consumers(Reading):
    """The consumers of all targets of a state. Comes as ``store.consumers``."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._claims = Claims(database)

    # -- being one ------------------------------------------------------------------------

    def create(
        self,
        target_id: int,
        name: str,
        start: str | int = "now",
        beginning: Iterator[list[Record]] | None = None,
    ) -> ConsumerRow:
        """The consumer of that name; made if it is not there, else as it is.

        :param start: where a new one begins: "now" (what comes next), "beginning" (what is there
            now), or the number of an event.
        :param beginning: what is there now; read within the transaction, and only if needed.
        :raises OffsetTooOld: if the events from that number on were pruned.
        :raises InvalidOption: for a name or start that can't be.
        """
        check_name("consumer", name)
        found = self.get(target_id, name)
        if found is not None:
            return found
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            # Once more: another process may have made it before the lock was ours.
            found = self.get(target_id, name)
            if found is None:
                if start == "now":
                    offset = target.last_seq
                elif start == "beginning":
                    offset = self._write_beginning(target_id, target, name, beginning)
                else:
                    offset = self._place(name, target, start) - 1
                now = time.time()
                self._database.run(
                    "INSERT INTO poller_consumers (target_id, name, seq, created_at, updated_at) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (target_id, name, offset, now, now),
                )
                found = ConsumerRow(name, offset, now, now)
            crash_point("store.create.before")
        crash_point("store.create.after")
        return found

    def forget(self, target_id: int, name: str) -> None:
        """Delete the consumer with its claims and dead letters.

        :raises UnknownConsumer: if there is none of that name.
        """
        with self._database.transaction():
            lock_target(self._database, target_id)
            self.known(target_id, name)
            for table in ("claims", "takes", "returned", "dead"):
                self._database.run(
                    f"DELETE FROM poller_{table} WHERE target_id = ? AND consumer = ?", (target_id, name)
                )
            # What was written for it alone must not come to a later consumer of the same name.
            self._database.run(
                "UPDATE poller_journal SET consumer = ? WHERE target_id = ? AND consumer = ?",
                (journal.NOBODY, target_id, name),
            )
            self._database.run(
                "DELETE FROM poller_consumers WHERE target_id = ? AND name = ?", (target_id, name)
            )
            crash_point("store.forget_consumer.before")
        crash_point("store.forget_consumer.after")

    # -- reading -----------------------------------------------------------------------------

    def ack(self, target_id: int, name: str, upto: int, returned: Iterable[int] = ()) -> None:
        """Note that what :meth:`pending` gave is done with. Doing it twice does no harm."""
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            self.known(target_id, name)
            self._ack(target_id, target, name, upto, returned)
            crash_point("store.ack.before")
        crash_point("store.ack.after")

    # -- by a token ----------------------------------------------------------------------------

    def claim(
        self,
        target_id: int,
        name: str,
        token: str,
        limit: int | None = None,
        select: Select | None = None,
    ) -> list[Numbered]:
        """The events of this token; if it has none yet, what is pending becomes them.

        If nothing is pending no claim is made, so a later call with the same token may get events.

        :raises OffsetTooOld: if its events, or what comes next, were pruned.
        """
        check_token(token)
        journal.check_limit(limit)
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            consumer = self.known(target_id, name)
            ranges = self._claims.ranges(target_id, name, token)
            if ranges is not None:
                return journal.events_of(self._database, target_id, ranges, target.floor_seq)
            found = self.next_of(target_id, target, consumer, limit, select)
            if found.events:
                self._claims.add(target_id, name, token, [event.seq for event in found.events])
            if found.events or found.upto > consumer.seq or found.returned:
                self._ack(target_id, target, name, found.upto, found.returned)
            crash_point("store.claim.before")
        crash_point("store.claim.after")
        return found.events

    def claimed(self, target_id: int, name: str, token: str) -> list[Numbered] | None:
        """The events of this token, or None if it has no claim.

        :raises OffsetTooOld: if they were pruned.
        """
        with self._database.transaction(write=False):
            target = mark_target(self._database, target_id)
            ranges = self._claims.ranges(target_id, name, token)
            if ranges is None:
                return None
            return journal.events_of(self._database, target_id, ranges, target.floor_seq)

    def take(self, target_id: int, name: str, event: str, token: str) -> Numbered:
        """Give one event to a token: the first one that asks has it for good.

        :param event: its id.
        :raises EventTaken: if another token has it, or it was acknowledged without one.
        :raises UnknownEvent: if there is no such event (any more) for this consumer.
        """
        check_token(token)
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            consumer = self.known(target_id, name)
            found = self._by_id(target_id, target, name, event)
            owner = self._claims.taker(target_id, name, found.seq)
            if owner is None and not self.is_pending(target_id, consumer, found.seq):
                owners = self._claims.claimers(target_id, name, found.seq)
                if token in owners:
                    return found
                if not owners:
                    raise EventTaken(f"event {event} was acknowledged by consumer {name!r} already")
                owner = owners[0]
            if owner is not None and owner != token:
                raise EventTaken(f"event {event} of consumer {name!r} is taken by {owner!r}", owner)
            if owner is None:
                self._take(target_id, consumer, found.seq, token)
            crash_point("store.take.before")
        crash_point("store.take.after")
        return found

    def release(self, target_id: int, name: str, token: str) -> int:
        """Give the events of a token back to the consumer, as the next ones; how many they are.

        :raises UnknownClaim: if the token has none.
        :raises OffsetTooOld: if some of them were pruned, so that they can't be delivered again.
        """
        check_token(token)
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            consumer = self.known(target_id, name)
            seqs = self._claims.remove(target_id, name, token, target.floor_seq)
            self._database.run_many(
                "INSERT INTO poller_returned (target_id, consumer, seq) VALUES (?, ?, ?) "
                "ON CONFLICT (target_id, consumer, seq) DO NOTHING",
                [(target_id, name, seq) for seq in seqs if seq <= consumer.seq],
            )
            crash_point("store.release.before")
        crash_point("store.release.after")
        return len(seqs)

    def claims(self, target_id: int, name: str | None = None) -> list[ClaimRow]:
        """Who has what, oldest first: claims and takes of one consumer; or of all, and of handlers too."""
        return self._claims.all(target_id, name)

    def owner(self, target_id: int, name: str, seq: int) -> str | None:
        """The token that has the event, if one has."""
        with self._database.transaction(write=False):
            consumer = self.known(target_id, name)
            taker = self._claims.taker(target_id, name, seq)
            if taker is not None or self.is_pending(target_id, consumer, seq):
                return taker
            return next(iter(self._claims.claimers(target_id, name, seq)), None)

    # -- going back ------------------------------------------------------------------------------

    def rewind(self, target_id: int, name: str, to: int) -> None:
        """Make event ``to`` the next one, and what follows it the rest. Claims stay as they are.

        :raises OffsetTooOld: if it was pruned.
        :raises InvalidOption: if it is beyond the next event to come.
        """
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            self.known(target_id, name)
            offset = self._place(name, target, to) - 1
            for table in ("takes", "returned"):
                self._database.run(
                    f"DELETE FROM poller_{table} WHERE target_id = ? AND consumer = ? AND seq >= ?",
                    (target_id, name, to),
                )
            self._drop_gone(target_id, name)
            self._set_offset(target_id, name, offset)
            crash_point("store.rewind.before")
        crash_point("store.rewind.after")

    def rewind_beginning(self, target_id: int, name: str, beginning: Iterator[list[Record]]) -> None:
        """Make what is there now the next events. What was taken or returned is so no more."""
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            self.known(target_id, name)
            offset = self._write_beginning(target_id, target, name, beginning)
            for table in ("takes", "returned"):
                self._database.run(
                    f"DELETE FROM poller_{table} WHERE target_id = ? AND consumer = ?", (target_id, name)
                )
            self._set_offset(target_id, name, offset)
            crash_point("store.rewind.before")
        crash_point("store.rewind.after")

    def rewind_now(self, target_id: int, name: str) -> None:
        """Go on with what comes next; whatever is pending is given up."""
        with self._database.transaction():
            target = lock_target(self._database, target_id)
            self.known(target_id, name)
            self._database.run(
                "DELETE FROM poller_returned WHERE target_id = ? AND consumer = ?", (target_id, name)
            )
            self._set_offset(target_id, name, target.last_seq)
            crash_point("store.rewind.before")
        crash_point("store.rewind.after")

    # -- dead letters ------------------------------------------------------------------------------

    def bury(self, target_id: int, name: str, seq: int, attempts: int, error: str, event: str) -> None:
        """Put an event that could not be worked off aside; it counts as read.

        :param attempts: how often it was tried.
        :param error: what went wrong, without secrets.
        :param event: the event as JSON; kept for as long as the dead letter is.
        """
        with self._database.transaction():
            lock_target(self._database, target_id)
            consumer = self.known(target_id, name)
            self._database.run(
                "INSERT INTO poller_dead (target_id, consumer, seq, attempts, error, died_at, event) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (target_id, consumer, seq) DO UPDATE SET "
                "attempts = excluded.attempts, error = excluded.error, died_at = excluded.died_at",
                (target_id, name, seq, attempts, error.replace("\0", ""), time.time(), event),
            )
            if self.is_pending(target_id, consumer, seq) and not self._claims.taker(target_id, name, seq):
                self._take(target_id, consumer, seq, DEAD_LETTER)
            crash_point("store.bury.before")
        crash_point("store.bury.after")

    def dead(self, target_id: int, name: str) -> list[DeadLetter]:
        """The dead letters of the consumer, in order."""
        rows = self._database.rows(
            "SELECT seq, attempts, error, died_at, event FROM poller_dead "
            "WHERE target_id = ? AND consumer = ? ORDER BY seq",
            (target_id, name),
        )
        return [DeadLetter(*row) for row in rows]

    def dig(self, target_id: int, name: str, seq: int) -> str:
        """Remove a dead letter; the event as JSON.

        :raises UnknownEvent: if there is none of that number.
        """
        with self._database.transaction():
            lock_target(self._database, target_id)
            row = self._database.row(
                "SELECT event FROM poller_dead WHERE target_id = ? AND consumer = ? AND seq = ?",
                (target_id, name, seq),
            )
            if row is None:
                raise UnknownEvent(f"consumer {name!r} has no dead letter {seq}")
            self._database.run(
                "DELETE FROM poller_dead WHERE target_id = ? AND consumer = ? AND seq = ?",
                (target_id, name, seq),
            )
            crash_point("store.dig.before")
        crash_point("store.dig.after")
        return str(row[0])

    # -- inside ----------------------------------------------------------------------------------------

    def _place(self, name: str, target: LockedTarget, seq: object) -> int:
        """Check a number that a consumer is to begin with."""
        if not isinstance(seq, int) or isinstance(seq, bool) or not 1 <= seq <= target.next_seq:
            raise InvalidOption(
                f"consumer {name!r} can't begin at {seq!r}; expected 'now', 'beginning', or the number of an "
                f"event, from {target.floor_seq + 1} to {target.next_seq} (the next one to come)"
            )
        if seq <= target.floor_seq:
            raise OffsetTooOld(
                f"consumer {name!r} can't begin at event {seq}: it was pruned. The oldest that is kept is "
                f"{target.floor_seq + 1}; 'beginning' gives all that is there now, as created"
            )
        return seq

    def _write_beginning(
        self, target_id: int, target: LockedTarget, name: str, beginning: Iterator[list[Record]] | None
    ) -> int:
        """Write what is there now for this consumer alone; the offset before it."""
        if beginning is None:
            raise InvalidOption(f"consumer {name!r} can't begin at 'beginning' here; give 'now' or a number")
        next_seq = journal.write(
            self._database,
            target_id,
            target.next_seq,
            time.time_ns() // 1000,
            name,
            chain.from_iterable(beginning),
        )
        self._database.run(
            "UPDATE poller_targets SET next_seq = ?, generation = generation + 1 WHERE id = ?",
            (next_seq, target_id),
        )
        return target.last_seq

    def _ack(
        self, target_id: int, target: LockedTarget, name: str, upto: int, returned: Iterable[int]
    ) -> None:
        if upto > target.last_seq:
            raise InvalidOption(f"can't acknowledge up to event {upto}: the newest one is {target.last_seq}")
        self._database.run_many(
            "DELETE FROM poller_returned WHERE target_id = ? AND consumer = ? AND seq = ?",
            [(target_id, name, seq) for seq in returned],
        )
        self._database.run(
            "UPDATE poller_consumers SET seq = CASE WHEN seq < ? THEN ? ELSE seq END, updated_at = ? "
            "WHERE target_id = ? AND name = ?",
            (upto, upto, time.time(), target_id, name),
        )

    def _drop_gone(self, target_id: int, name: str) -> None:
        """Give up returned events that can't be delivered: who rewinds has been told of them."""
        for (seq,) in self._database.rows(
            "SELECT seq FROM poller_returned WHERE target_id = ? AND consumer = ?", (target_id, name)
        ):
            row = journal.covering(self._database, target_id, seq)
            if row is None or row.lost:
                self._database.run(
                    "DELETE FROM poller_returned WHERE target_id = ? AND consumer = ? AND seq = ?",
                    (target_id, name, seq),
                )

    def _set_offset(self, target_id: int, name: str, offset: int) -> None:
        self._database.run(
            "UPDATE poller_consumers SET seq = ?, updated_at = ? WHERE target_id = ? AND name = ?",
            (offset, time.time(), target_id, name),
        )

    def _by_id(self, target_id: int, target: LockedTarget, name: str, id: str) -> Numbered:
        seq = parse_event_id(id) if isinstance(id, str) else None
        if seq is None:
            raise UnknownEvent(f"{id!r} is not an event id; one looks like '12-0123456789abcdef'")
        row = journal.covering(self._database, target_id, seq)
        if row is None or not row.is_for(name):
            raise UnknownEvent(f"the journal has no event {id} (any more) for consumer {name!r}")
        record = row.records()[seq - row.first_seq]
        if event_id(target.epoch, seq, record) != id:
            raise UnknownEvent(f"event {id} is not of this state: event {seq} here is another one")
        return Numbered(seq, row.detected_at_us, record)

    def _take(self, target_id: int, consumer: ConsumerRow, seq: int, token: str) -> None:
        """Give a pending event to a token, and let the offset follow."""
        self._database.run(
            "DELETE FROM poller_returned WHERE target_id = ? AND consumer = ? AND seq = ?",
            (target_id, consumer.name, seq),
        )
        self._claims.take(target_id, consumer.name, seq, token)
        offset = ownership.follow(self._database, target_id, consumer.name, consumer.seq)
        if offset > consumer.seq:
            self._set_offset(target_id, consumer.name, offset)


def _short(name: object) -> str:
    shown = repr(name)
    return shown if len(shown) <= 100 else f"{shown[:100]}…"


def check_name(what: str, name: object) -> None:
    """Refuse a name that would not survive in every database and on every terminal."""
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidOption(
            f"{what}: {_short(name)} was given; expected 1 to {_LONGEST_NAME} printable characters, "
            "such as 'nightly'"
        )


def check_token(token: str) -> None:
    """Refuse a token that could be mistaken for something else."""
    check_name("token", token)
    if token in RESERVED:
        raise InvalidOption(f"token: {token!r} has a meaning of its own here; give another one")
