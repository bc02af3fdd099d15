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
from .reading import Reading
from .targets import lock_target

__all__ = ["finish", "revive"]


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
        if offset >= known:
            offset = max(offset, min(upto, target.last_seq))
        offset = ownership.follow(database, target_id, name, offset)
        database.run(
            "DELETE FROM poller_takes WHERE target_id = ? AND consumer = ? AND token = ? AND seq <= ?",
            (target_id, name, FINISHED, offset),
        )
        database.run(
            "UPDATE poller_consumers SET seq = ?, updated_at = ? WHERE target_id = ? AND name = ?",
            (offset, time.time(), target_id, name),
        )
        crash_point("store.finish.before")
    crash_point("store.finish.after")
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
