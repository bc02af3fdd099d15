"""Pruning the journal.

What goes is always the oldest part of it, up to some event, so that "everything
behind the target's ``floor_seq`` is there" stays true.

Guarantees: an event that a consumer still wants goes only when it is older than
the retention for unread events, and then the consumer is told
(:class:`~poller_core.errors.OffsetTooOld`) and not moved on. An event is not
taken for old because a clock was once ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..crashpoints import crash_point
from .database import Database
from .journal import EVERYBODY
from .targets import lock_target

__all__ = ["prune"]

_WINDOW = 500

#: How long a claim is remembered whose events are gone, in seconds.
_CLAIMS_KEPT = 366 * 86400.0


@dataclass
class _Reader:
    """A consumer, as far as pruning goes."""

    seq: int  #: its offset
    wants: int  #: it has no use for events up to here
    moved: bool = False


def prune(database: Database, target_id: int, now: float, retention: float, retention_unread: float) -> int:
    """Delete what is old and read, or very old; the number of events that went.

    :param now: seconds since 1970-01-01 UTC.
    :param retention: how long to keep what every consumer has read, in seconds.
    :param retention_unread: how long to keep what some consumer has not, in seconds.
    """
    with database.transaction():
        target = lock_target(database, target_id)
        # A claim outlives its events for long: its token must be told that they are gone, not given others.
        database.run(
            "DELETE FROM poller_claims WHERE target_id = ? AND last_seq <= ? AND claimed_at < ?",
            (target_id, target.floor_seq, now - _CLAIMS_KEPT),
        )
        readers = _readers(database, target_id)
        read_before = round((now - retention) * 1_000_000)
        unread_before = min(round((now - retention_unread) * 1_000_000), read_before)
        floor, events = _delete_old(
            database, target_id, target.floor_seq, readers, read_before, unread_before, round(now * 1_000_000)
        )
        if floor == target.floor_seq:
            return 0
        for name, reader in readers.items():
            if reader.moved:
                database.run(
                    "UPDATE poller_consumers SET seq = ? WHERE target_id = ? AND name = ?",
                    (reader.seq, target_id, name),
                )
        database.run("UPDATE poller_targets SET floor_seq = ? WHERE id = ?", (floor, target_id))
        database.run("DELETE FROM poller_takes WHERE target_id = ? AND seq <= ?", (target_id, floor))
        # Rows of poller_returned stay, even if their events are gone: by them the consumer is told.
        crash_point("store.prune.before")
    crash_point("store.prune.after")
    return events


def _readers(database: Database, target_id: int) -> dict[str, _Reader]:
    readers = {
        name: _Reader(seq, seq)
        for name, seq in database.rows(
            "SELECT name, seq FROM poller_consumers WHERE target_id = ?", (target_id,)
        )
    }
    for name, first in database.rows(
        "SELECT consumer, MIN(seq) FROM poller_returned WHERE target_id = ? GROUP BY consumer", (target_id,)
    ):
        if name in readers:
            readers[name].wants = min(readers[name].wants, first - 1)
    return readers


def _delete_old(
    database: Database,
    target_id: int,
    floor: int,
    readers: dict[str, _Reader],
    read_before: int,
    unread_before: int,
    now_us: int,
) -> tuple[int, int]:
    """Delete from the oldest on; the new floor, and how many events went.

    A row that seems to come from the future was written while the clock was ahead. It is at least
    as old as any row behind it, so it goes when one of those does.
    """
    new_floor, events, undecided = floor, 0, 0
    private: list[tuple[int, int, str]] = []
    need = read_before
    start, finished = 0, False
    while not finished:
        rows = database.rows(
            "SELECT first_seq, last_seq, detected_at_us, consumer FROM poller_journal "
            f"WHERE target_id = ? AND first_seq >= ? ORDER BY first_seq LIMIT {_WINDOW}",
            (target_id, start),
        )
        finished = len(rows) < _WINDOW
        for first, last, detected, consumer in rows:
            need = min(need, unread_before if _wanted(readers, last, consumer) else read_before)
            undecided += last - first + 1
            if consumer != EVERYBODY:
                private.append((first, last, consumer))
            if detected < need:
                new_floor, events, undecided = last, events + undecided, 0
                need = read_before
            elif detected <= now_us:
                finished = True
                break
        start = rows[-1][0] + 1 if rows else start
    for first, last, consumer in private:
        if last <= new_floor:
            _pass_over(readers, first, last, consumer)
    if new_floor > floor:
        database.run(
            "DELETE FROM poller_journal WHERE target_id = ? AND last_seq <= ?", (target_id, new_floor)
        )
    return new_floor, events


def _wanted(readers: dict[str, _Reader], last: int, consumer: str) -> bool:
    if consumer == EVERYBODY:
        return any(reader.wants < last for reader in readers.values())
    return consumer in readers and readers[consumer].wants < last


def _pass_over(readers: dict[str, _Reader], first: int, last: int, consumer: str) -> None:
    """Events of another consumer go: who stands right before them has not missed anything."""
    for name, reader in readers.items():
        if name != consumer and first - 1 <= reader.seq < last:
            reader.seq, reader.moved = last, True
