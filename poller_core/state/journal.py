"""Reading and writing journal rows.

Sequence numbers are handed out without a hole, per target. A row belongs to
everybody, or to the one consumer for which it was written. From the target's
``floor_seq`` (pruned up to there) to its ``next_seq`` the rows follow each
other without hole or overlap.

Guarantees: nothing is read that does not match its digest; a row that
:mod:`~poller_core.state.repair` had to give up (its blob is empty) is never
passed over in silence.

Does not guarantee anything about consumers; see
:mod:`~poller_core.state.consumers`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ..errors import InvalidOption, OffsetTooOld, StateDamaged
from .database import Database
from .records import Numbered, Record, decode_batch, encode_batch, row_digest

__all__ = ["EVERYBODY", "MAX_BATCH", "NOBODY", "JournalRow", "Scan", "covering", "events_of", "scan", "write"]

#: How many events a row holds at most.
MAX_BATCH = 1000
#: Whose a row is that every consumer reads.
EVERYBODY = ""
#: Whose a row is that was for a consumer which was forgotten since. No consumer can have this name.
NOBODY = "\n"

#: How many rows are fetched at a time: what bounds the memory of a reader.
_WINDOW = 16
_COLUMNS = "first_seq, last_seq, detected_at_us, consumer, digest, blob"


class JournalRow(NamedTuple):
    """One row as it is stored."""

    first_seq: int
    last_seq: int
    detected_at_us: int
    consumer: str
    digest: bytes
    blob: bytes

    @property
    def lost(self) -> bool:
        """Whether its events were damaged and given up."""
        return not self.blob

    def is_for(self, consumer: str) -> bool:
        """Whether that consumer reads it."""
        return self.consumer in (EVERYBODY, consumer)

    def records(self) -> list[Record]:
        """Its events.

        :raises OffsetTooOld: if they were given up.
        :raises StateDamaged: if it does not match its digest.
        """
        where = f"events {self.first_seq} to {self.last_seq}"
        if self.lost:
            raise OffsetTooOld(
                f"{where} were lost when the state was damaged. To go on behind them, rewind the consumer "
                f"to {self.last_seq + 1}; or to 'beginning', for all that is there now; or to 'now'"
            )
        try:
            intact = row_digest(self.first_seq, self.last_seq, self.detected_at_us, self.blob) == self.digest
        except (struct.error, TypeError):  # a number that is none any more
            intact = False
        if not intact:
            raise StateDamaged(
                f"the journal row of {where} is damaged; see 'poller check' and 'poller repair'"
            )
        records = decode_batch(self.blob)
        if len(records) != self.last_seq - self.first_seq + 1:
            raise StateDamaged(f"the journal row of {where} holds {len(records)}; see 'poller check'")
        return records


class Scan(NamedTuple):
    """What was found from some place in the journal onwards."""

    events: list[Numbered]
    upto: int  #: everything up to here was looked at


def write(
    database: Database,
    target_id: int,
    first_seq: int,
    detected_at_us: int,
    consumer: str,
    records: Iterable[Record],
) -> int:
    """Write events, in rows of at most :data:`MAX_BATCH`; the sequence number after the last one."""
    seq = first_seq
    pending = iter(records)
    while batch := list(islice(pending, MAX_BATCH)):
        blob = encode_batch(batch)
        last = seq + len(batch) - 1
        digest = row_digest(seq, last, detected_at_us, blob)
        database.run(
            f"INSERT INTO poller_journal (target_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (target_id, seq, last, detected_at_us, consumer, digest, blob),
        )
        seq = last + 1
    return seq


def covering(database: Database, target_id: int, seq: int) -> JournalRow | None:
    """The row that holds the event, if the journal has it."""
    found = database.row(
        f"SELECT {_COLUMNS} FROM poller_journal WHERE target_id = ? AND first_seq <= ? "
        "ORDER BY first_seq DESC LIMIT 1",
        (target_id, seq),
    )
    row = JournalRow(*found) if found else None
    return row if row and row.last_seq >= seq else None


def rows_after(
    database: Database, target_id: int, after: int, last_seq: int, consumer: str
) -> Iterator[JournalRow]:
    """The rows with events beyond ``after`` that the consumer reads, in order.

    :raises StateDamaged: if one is missing on the way to ``last_seq``, whoever's it was.
    """
    expected = after + 1
    found = database.row(
        "SELECT MAX(first_seq) FROM poller_journal WHERE target_id = ? AND first_seq <= ?",
        (target_id, after + 1),
    )
    start = found[0] if found and found[0] is not None else after + 1
    while True:
        rows = database.rows(
            "SELECT first_seq, last_seq, detected_at_us, consumer, digest, "
            "CASE WHEN consumer IN (?, ?) THEN blob END FROM poller_journal "
            f"WHERE target_id = ? AND first_seq >= ? ORDER BY first_seq LIMIT {_WINDOW}",
            (EVERYBODY, consumer, target_id, start),
        )
        for values in rows:
            row = JournalRow(*values)
            if row.last_seq <= after:
                continue
            if row.first_seq > expected:
                raise _hole(expected, row.first_seq - 1)
            expected = row.last_seq + 1
            if row.is_for(consumer):
                yield row
        if len(rows) < _WINDOW:
            if expected <= last_seq:
                raise _hole(expected, last_seq)
            return
        start = rows[-1][0] + 1


def scan(
    database: Database,
    target_id: int,
    consumer: str,
    after: int,
    last_seq: int,
    limit: int | None,
    select: Callable[[Record], bool] | None,
    without: frozenset[int] | set[int] = frozenset(),
) -> Scan:
    """Read on from ``after``.

    :param last_seq: the newest event, as of this transaction.
    :param limit: how many to return at most; None: all.
    :param select: says of each event whether it is wanted; the others count as read.
    :param without: events to leave out.
    """
    events: list[Numbered] = []
    if limit is not None and limit <= 0:
        return Scan(events, after)
    for row in rows_after(database, target_id, after, last_seq, consumer):
        if row.lost and events:
            # First what is before the loss; the next reader meets it.
            return Scan(events, row.first_seq - 1)
        for seq, record in enumerate(row.records(), row.first_seq):
            if seq <= after or seq in without or (select is not None and not select(record)):
                continue
            events.append(Numbered(seq, row.detected_at_us, record))
            if len(events) == limit:
                return Scan(events, seq)
    return Scan(events, max(after, last_seq))


def events_of(
    database: Database, target_id: int, ranges: Sequence[tuple[int, int]], floor_seq: int
) -> list[Numbered]:
    """Exactly these events, given as ranges in order.

    :raises OffsetTooOld: if one of them was pruned.
    """
    events: list[Numbered] = []
    row: JournalRow | None = None
    records: list[Record] = []
    for first, last in ranges:
        seq = first
        while seq <= last:
            if row is None or not row.first_seq <= seq <= row.last_seq:
                row = covering(database, target_id, seq)
                if row is None:
                    raise _missing(seq, floor_seq)
                records = row.records()
            stop = min(last, row.last_seq)
            start = row.first_seq
            events.extend(
                Numbered(number, row.detected_at_us, records[number - start])
                for number in range(seq, stop + 1)
            )
            seq = stop + 1
    return events


def to_ranges(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers, as ranges of neighbours."""
    ranges: list[tuple[int, int]] = []
    for seq in seqs:
        if ranges and seq == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges


def check_limit(limit: int | None) -> None:
    """Refuse a limit that no caller can mean."""
    if limit is not None and (isinstance(limit, bool) or limit < 1):
        raise InvalidOption(f"limit: {limit!r} was given; expected a whole number from 1, or None for all")


def _hole(first: int, last: int) -> StateDamaged:
    return StateDamaged(
        f"events {first} to {last} are missing from the journal; see 'poller check' and 'poller repair'"
    )


def _missing(seq: int, floor_seq: int) -> OffsetTooOld | StateDamaged:
    if seq <= floor_seq:
        return OffsetTooOld(
            f"event {seq} was pruned from the journal, which keeps events from {floor_seq + 1} on; "
            "a longer retention keeps them longer"
        )
    return StateDamaged(f"event {seq} is not in the journal, and was not pruned; see 'poller check'")
