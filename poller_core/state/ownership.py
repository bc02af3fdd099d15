"""Which token has which events: claims (a batch) and takes (one event).

Guarantees: a claim lists exactly the events that it was given, as ranges of
sequence numbers. After a rewind an event may be in several claims; the latest
one is its owner.

Does not guarantee: that an event in a claim is still in the journal; claims
only hold numbers, and are deleted when all their events were pruned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from ..errors import OffsetTooOld, StateDamaged, UnknownClaim
from .database import Database
from .journal import covering, to_ranges

__all__ = ["DEAD_LETTER", "FINISHED", "HANDLER", "RESERVED", "ClaimRow", "Claims", "decode_ranges", "follow"]

#: The token that has what was put aside as a dead letter.
DEAD_LETTER = "dead-letter"
#: The token that has what was finished out of order, one by one.
FINISHED = "finished"
#: Tokens that are no caller's, and not shown among the claims.
RESERVED = (DEAD_LETTER, FINISHED)
#: What a handler's name has before it in place of a consumer's. No consumer's name can begin so.
HANDLER = "\n"

Ranges = list[tuple[int, int]]

_ranges = msgspec.json.Decoder(Ranges)


@dataclass(frozen=True)
class ClaimRow:
    """What one token has of one consumer, or for one handler."""

    consumer: str  #: or the handler's name, if ``kind`` says so
    token: str
    kind: Literal["claim", "take", "handler"]
    ranges: list[tuple[int, int]]  #: first and last sequence number, both included
    count: int  #: events
    claimed_at: float  #: seconds since 1970-01-01 UTC; of several takes the first
    target: str = ""  #: the target's digest, where rows of several are told


def decode_ranges(text: str) -> Ranges:
    """Read a claim's ranges.

    :raises StateDamaged: if they are none, or not in order.
    """
    try:
        ranges = _ranges.decode(text)
    except msgspec.MsgspecError as error:
        raise StateDamaged(f"a claim can't be read: {error}") from error
    last_seen = 0
    for first, last in ranges:
        if not last_seen < first <= last:
            raise StateDamaged("the events of a claim are not in order")
        last_seen = last
    if not ranges:
        raise StateDamaged("a claim has no events")
    return ranges


def follow(database: Database, target_id: int, consumer: str, offset: int) -> int:
    """How far the offset may go over events that were taken, or are another consumer's."""
    while True:
        before = offset
        for (seq,) in database.rows(
            "SELECT seq FROM poller_takes WHERE target_id = ? AND consumer = ? AND seq > ? "
            "ORDER BY seq LIMIT 100",
            (target_id, consumer, offset),
        ):
            if seq != offset + 1:
                break
            offset = seq
        row = covering(database, target_id, offset + 1)
        if row is not None and not row.is_for(consumer):
            offset = row.last_seq
        if offset == before:
            return offset


class Claims:
    """The claims and takes of all consumers. Its methods run in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ranges(self, target_id: int, consumer: str, token: str) -> Ranges | None:
        """The events of a claim, or None if the token has no claim."""
        row = self._database.row(
            "SELECT ranges FROM poller_claims WHERE target_id = ? AND consumer = ? AND token = ?",
            (target_id, consumer, token),
        )
        return decode_ranges(row[0]) if row else None

    def add(self, target_id: int, consumer: str, token: str, seqs: Sequence[int]) -> None:
        """Bind events to a token, which has no claim yet."""
        ranges = to_ranges(sorted(seqs))
        row = self._database.row(
            "SELECT MAX(number) FROM poller_claims WHERE target_id = ? AND consumer = ?",
            (target_id, consumer),
        )
        number = 1 + (row[0] or 0 if row else 0)
        self._database.run(
            "INSERT INTO poller_claims (target_id, consumer, token, number, first_seq, last_seq, claimed_at, "
            "ranges) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                target_id,
                consumer,
                token,
                number,
                ranges[0][0],
                ranges[-1][1],
                time.time(),
                msgspec.json.encode(ranges).decode(),
            ),
        )

    def take(self, target_id: int, consumer: str, seq: int, token: str) -> None:
        """Bind one event, which nobody has taken, to a token."""
        self._database.run(
            "INSERT INTO poller_takes (target_id, consumer, seq, token, taken_at) VALUES (?, ?, ?, ?, ?)",
            (target_id, consumer, seq, token, time.time()),
        )

    def taker(self, target_id: int, consumer: str, seq: int) -> str | None:
        """The token that took this one event."""
        row = self._database.row(
            "SELECT token FROM poller_takes WHERE target_id = ? AND consumer = ? AND seq = ?",
            (target_id, consumer, seq),
        )
        return str(row[0]) if row else None

    def claimers(self, target_id: int, consumer: str, seq: int) -> list[str]:
        """The tokens whose claims hold the event, the latest first."""
        rows = self._database.rows(
            "SELECT token, ranges FROM poller_claims WHERE target_id = ? AND consumer = ? "
            "AND first_seq <= ? AND last_seq >= ? ORDER BY number DESC",
            (target_id, consumer, seq, seq),
        )
        return [token for token, ranges in rows if _holds(decode_ranges(ranges), seq)]

    def remove(self, target_id: int, consumer: str, token: str, floor_seq: int) -> list[int]:
        """Take everything from a token; the events that are nobody's now.

        :raises UnknownClaim: if the token has nothing.
        :raises OffsetTooOld: if some of its events were pruned.
        """
        key = (target_id, consumer, token)
        claim = self._database.row(
            "SELECT number, ranges FROM poller_claims WHERE target_id = ? AND consumer = ? AND token = ?", key
        )
        takes = self._database.rows(
            "SELECT seq FROM poller_takes WHERE target_id = ? AND consumer = ? AND token = ?", key
        )
        if claim is None and not takes:
            raise UnknownClaim(f"token {token!r} has no events of consumer {consumer!r}")
        seqs = {row[0] for row in takes}
        if claim is not None:
            ranges = decode_ranges(claim[1])
            if ranges[0][0] <= floor_seq:
                raise OffsetTooOld(
                    f"token {token!r} can't give its events back: those up to {floor_seq} were pruned "
                    f"from the journal. Rewind consumer {consumer!r} to {floor_seq + 1} for the rest"
                )
            seqs |= self._owned(target_id, consumer, claim[0], ranges)
        for table in ("claims", "takes"):
            self._database.run(
                f"DELETE FROM poller_{table} WHERE target_id = ? AND consumer = ? AND token = ?", key
            )
        return sorted(seqs)

    def _owned(self, target_id: int, consumer: str, number: int, ranges: Ranges) -> set[int]:
        """The events of a claim that no later claim and no take has got since."""
        first, last = ranges[0][0], ranges[-1][1]
        seqs = _spread(ranges)
        for (later,) in self._database.rows(
            "SELECT ranges FROM poller_claims WHERE target_id = ? AND consumer = ? AND number > ? "
            "AND first_seq <= ? AND last_seq >= ?",
            (target_id, consumer, number, last, first),
        ):
            seqs -= _spread(decode_ranges(later))
        for (seq,) in self._database.rows(
            "SELECT seq FROM poller_takes WHERE target_id = ? AND consumer = ? AND seq >= ? AND seq <= ?",
            (target_id, consumer, first, last),
        ):
            seqs.discard(seq)
        return seqs

    def all(self, target_id: int, consumer: str | None) -> list[ClaimRow]:
        """All claims and takes, of one consumer or of all of them and all handlers, oldest first."""
        where, parameters = ("", ()) if consumer is None else (" AND consumer = ?", (consumer,))
        with self._database.transaction(write=False):
            claims = self._database.rows(
                f"SELECT consumer, token, ranges, claimed_at FROM poller_claims WHERE target_id = ?{where}",
                (target_id, *parameters),
            )
            takes = self._database.rows(
                "SELECT consumer, token, seq, taken_at FROM poller_takes "
                f"WHERE target_id = ? AND token NOT IN (?, ?){where} ORDER BY seq",
                (target_id, *RESERVED, *parameters),
            )
        found = []
        for name, token, text, claimed_at in claims:
            ranges = decode_ranges(text)
            found.append(ClaimRow(name, token, "claim", ranges, _count(ranges), claimed_at))
        taken: dict[tuple[str, str], tuple[list[int], float]] = {}
        for name, token, seq, taken_at in takes:
            seqs, since = taken.get((name, token), ([], taken_at))
            seqs.append(seq)
            taken[name, token] = (seqs, min(since, taken_at))
        for (name, token), (seqs, since) in taken.items():
            handler = name.startswith(HANDLER)
            found.append(
                ClaimRow(
                    name.removeprefix(HANDLER),
                    token,
                    "handler" if handler else "take",
                    to_ranges(seqs),
                    len(seqs),
                    since,
                )
            )
        return sorted(found, key=lambda row: (row.claimed_at, row.consumer, row.token))


def _spread(ranges: Ranges) -> set[int]:
    return {seq for first, last in ranges for seq in range(first, last + 1)}


def _count(ranges: Ranges) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _holds(ranges: Ranges, seq: int) -> bool:
    return any(first <= seq <= last for first, last in ranges)
