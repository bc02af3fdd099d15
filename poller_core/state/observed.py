"""What a process saw of subjects that are not quiet yet, for the next process to go on from.

A process that looks once and ends can't see by itself that a subject stays as it
is. So it leaves what it held, with the time at which it saw it: a reading of the
monotonic clock, which means something to processes of the same start of the same
machine (:meth:`poller_core.clock.Clock.origin`). There is one row for each of them,
as several machines may look in turns.

Guarantees: what is loaded was saved under the same origin, byte for byte. Saved is
all or nothing.

Does not guarantee: that anything is there. Killed before it was saved, or if two
processes of one machine end at once: subjects are held for longer, no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..crashpoints import crash_point
from ..errors import StateDamaged
from .database import Database
from .targets import lock_target

__all__ = ["Observations", "Observed", "decode_observed"]

#: How long the row of a start of a machine is kept that has not looked since, in seconds.
_KEPT = 86400.0


class Observed(NamedTuple):
    """A subject that was seen, and not reported."""

    key: bytes
    mark: bytes  #: of its fingerprint
    at: float  #: when it was first seen so, seconds on the monotonic clock
    wait: float  #: how long it must stay so, seconds


class _Content(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    offset: float  #: by how much the wall clock was ahead of the monotonic one, seconds
    observed: list[Observed]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Content)


def decode_observed(digest: bytes, blob: bytes) -> tuple[float, list[Observed]]:
    """What :meth:`Observations.save` has put into a row.

    :raises StateDamaged: if digest and blob don't fit, or the blob is none.
    """
    try:
        if _digest(blob) != digest:
            raise ValueError("it does not match its digest")
        content = _decoder.decode(blob)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateDamaged(
            f"what was seen of subjects that were not quiet can't be read ({error}); run 'poller repair'"
        ) from error
    return content.offset, content.observed


class Observations:
    """What was seen of all targets of a state. Comes as ``store.observations``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, target_id: int, origin: str) -> tuple[float, list[Observed]]:
        """What was last saved under this origin.

        :param origin: what the monotonic clock counts from.
        :returns: by how much the wall clock was ahead of the monotonic one, and the subjects.
        :raises StateDamaged: if it can't be read.
        """
        row = self._database.row(
            "SELECT digest, blob FROM poller_observed WHERE target_id = ? AND origin = ?", (target_id, origin)
        )
        return (0.0, []) if row is None else decode_observed(*row)

    def save(
        self, target_id: int, origin: str, offset: float, observed: Sequence[Observed], now: float
    ) -> None:
        """Put these in place of what was saved before.

        :param offset: by how much the wall clock is ahead of the monotonic one, seconds.
        :param now: seconds since 1970-01-01 UTC.
        :raises StateDamaged: if the target is there no more.
        """
        with self._database.transaction():
            lock_target(self._database, target_id)
            self._database.run(
                "DELETE FROM poller_observed WHERE target_id = ? AND (origin = ? OR saved_at < ?)",
                (target_id, origin, now - _KEPT),
            )
            if observed:
                blob = _encoder.encode(_Content(offset, list(observed)))
                self._database.run(
                    "INSERT INTO poller_observed (target_id, origin, saved_at, digest, blob) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (target_id, origin, now, _digest(blob), blob),
                )
            crash_point("store.observed.before")
        crash_point("store.observed.after")


def _digest(blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=16).digest()
