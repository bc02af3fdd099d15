"""Working off a consumer's events one by one, in whatever order they are finished.

Guarantees: a finished event is never given again, however many before it are
not finished yet; a killed process leaves exactly the unfinished ones. The
offset moves over what is finished without a gap, and the marks of single events
are gone once it is past them. If somebody rewinds the consumer meanwhile, the
rewind stands.

Does not guarantee: that two processes that do this as the same consumer share
the work; both are given all of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..crashpoints import crash_point
from ..errors import EventTaken, OffsetTooOld, UnknownEvent
from . import journal, ownership
from .database import Database
from .ownership import DEAD_LETTER, FINISHED
from .reading import Reading, Select
from .records import event_id, parse_event_id
from .targets import LockedTarget, lock_target

__all__ = ["finish", "finish_events", "revive"]


def finish(database: Database, target_id: int, name: str, seqs: Iterable[int], upto: int, known: int) -> int:
    """Note that events are done with; the offset of the consumer then.

    :param seqs: the events.
    :param upto: everything up to here is finished, or was not wanted.
    :param known: the offset as the caller knows it. If it is lower by now, somebody has rewound the
        consumer, and ``upto`` does not count.
    """
    with database.transaction():
        target = lock_target(database, target_id)
        consumer = Reading(database).known(target_id, name)
        offset = consumer.seq
        _mark(database, target_id, name, seqs, offset)
        if offset >= known:
            offset = max(offset, min(upto, target.last_seq))
        offset = ownership.follow(database, target_id, name, offset)
        _move(database, target_id, name, offset)
        crash_point("store.finish.before")
    crash_point("store.finish.after")
    return offset


def finish_events(
    database: Database, target_id: int, name: str, ids: Iterable[str], select: Select | None = None
) -> int:
    """The same for who knows nothing but the events; the offset of the consumer then.

    :param ids: of the events. Those that the journal has no more are passed over.
    :param select: says of each event whether the consumer wants it; the offset goes over the others too.
    :raises UnknownEvent: if an event is not this target's, or not for this consumer; nothing is noted then.
    """
    known: dict[int, str] = {}
    for id in ids:
        seq = parse_event_id(id) if isinstance(id, str) else None
        if seq is None:
            raise UnknownEvent(f"{id!r} is not an event id; one looks like '12-0123456789abcdef'")
        if known.setdefault(seq, id) != id:
            raise UnknownEvent(f"events {known[seq]} and {id} can't both be of this target")
    with database.transaction():
        target = lock_target(database, target_id)
        consumer = Reading(database).known(target_id, name)
        seqs = _verified(database, target_id, target, name, known)
        _mark(database, target_id, name, seqs, consumer.seq)
        offset = ownership.follow(database, target_id, name, consumer.seq)
        offset = _over_unwanted(database, target_id, target, name, offset, select)
        _move(database, target_id, name, offset)
        crash_point("store.finish_events.before")
    crash_point("store.finish_events.after")
    return offset


def revive(database: Database, target_id: int, name: str, seq: int) -> None:
    """Give a dead letter back to its consumer, as one of the next events.

    :raises UnknownEvent: if there is no dead letter of that number.
    :raises OffsetTooOld: if the journal has its event no more; the dead letter itself has it still.
    :raises EventTaken: if a token has it.
    """
    with database.transaction():
        lock_target(database, target_id)
        reading = Reading(database)
        consumer = reading.known(target_id, name)
        key = (target_id, name, seq)
        where = "WHERE target_id = ? AND consumer = ? AND seq = ?"
        if database.row(f"SELECT 1 FROM poller_dead {where}", key) is None:
            raise UnknownEvent(f"consumer {name!r} has no dead letter {seq}")
        row = journal.covering(database, target_id, seq)
        if row is None or row.lost:
            raise OffsetTooOld(
                f"dead letter {seq} can't be given back: the journal has event {seq} no more. "
                "The dead letter itself holds the event: run a command on it, or take its JSON"
            )
        owner = ownership.Claims(database).taker(target_id, name, seq)
        if owner not in (None, DEAD_LETTER):
            raise EventTaken(f"event {seq} of consumer {name!r} is taken by {owner!r}", owner)
        database.run(f"DELETE FROM poller_dead {where}", key)
        database.run(f"DELETE FROM poller_takes {where}", key)
        if not reading.is_pending(target_id, consumer, seq):
            database.run(
                "INSERT INTO poller_returned (target_id, consumer, seq) VALUES (?, ?, ?) "
                "ON CONFLICT (target_id, consumer, seq) DO NOTHING",
                key,
            )
        crash_point("store.revive.before")
    crash_point("store.revive.after")


def _verified(
    database: Database, target_id: int, target: LockedTarget, name: str, known: dict[int, str]
) -> list[int]:
    """Those of the events that the journal has; each really is the one that its id says."""
    found = []
    row: journal.JournalRow | None = None
    for seq, id in sorted(known.items()):
        if seq > target.last_seq:
            raise UnknownEvent(f"event {id} is not of this target: its newest event is {target.last_seq}")
        if row is None or seq > row.last_seq:
            row = journal.covering(database, target_id, seq)
            records = [] if row is None or row.lost else row.records()
        if row is None or row.lost:
            continue
        if not row.is_for(name):
            raise UnknownEvent(f"event {id} is not for consumer {name!r}")
        if event_id(target.epoch, seq, records[seq - row.first_seq]) != id:
            raise UnknownEvent(f"event {id} is not of this target: event {seq} here is another one")
        found.append(seq)
    return found


def _mark(database: Database, target_id: int, name: str, seqs: Iterable[int], offset: int) -> None:
    """Note single events as done with; those behind the offset are, unless they were given back."""
    for seq in seqs:
        database.run(
            "DELETE FROM poller_returned WHERE target_id = ? AND consumer = ? AND seq = ?",
            (target_id, name, seq),
        )
        if seq > offset:
            database.run(
                "INSERT INTO poller_takes (target_id, consumer, seq, token, taken_at) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (target_id, consumer, seq) DO NOTHING",
                (target_id, name, seq, FINISHED, time.time()),
            )


def _over_unwanted(
    database: Database, target_id: int, target: LockedTarget, name: str, offset: int, select: Select | None
) -> int:
    """How far the offset may go over what is taken or not wanted, to before the first that is neither."""
    if offset < target.floor_seq:
        return offset  # something was pruned unread, of which the consumer is still to be told
    taken: set[int] = set()
    while True:
        try:
            found = journal.scan(database, target_id, name, offset, target.last_seq, 1, select, taken)
        except OffsetTooOld:
            return offset  # the same for what was given up
        if not found.events:
            return found.upto
        first = found.events[0].seq
        if taken or ownership.Claims(database).taker(target_id, name, first) is None:
            return first - 1
        # Only now: there may be very many, and mostly the first event is not among them.
        taken = {
            row[0]
            for row in database.rows(
                "SELECT seq FROM poller_takes WHERE target_id = ? AND consumer = ? AND seq > ?",
                (target_id, name, offset),
            )
        }


def _move(database: Database, target_id: int, name: str, offset: int) -> None:
    """Set the offset, and drop the marks that it says as well."""
    database.run(
        "DELETE FROM poller_takes WHERE target_id = ? AND consumer = ? AND token = ? AND seq <= ?",
        (target_id, name, FINISHED, offset),
    )
    database.run(
        "UPDATE poller_consumers SET seq = ?, updated_at = ? WHERE target_id = ? AND name = ?",
        (offset, time.time(), target_id, name),
    )
