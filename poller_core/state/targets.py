"""A target's row: what the state knows of it besides its pages and journal.

Guarantees: :func:`lock_target` keeps every other writer of the target out until
the transaction ends, and refuses to write into a state that a newer program
has migrated in the meantime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..errors import StateDamaged
from .database import Database
from .schema import check_version

__all__ = ["LockedTarget", "Target", "load_target", "load_targets", "lock_target", "mark_target"]

_COLUMNS = (
    "id, digest, url, options, epoch, generation, next_seq, floor_seq, entries, identity, resume_key, "
    "complete, looked_at, look_seconds, health"
)


@dataclass(frozen=True)
class Target:
    """What is known of a target, as of one moment."""

    id: int
    digest: str  #: of URL and options: what makes it this target and no other
    url: str  #: without credentials
    options: str  #: JSON
    epoch: str  #: random; made with the row, so event ids of a former state never come back
    generation: int  #: counts the changes of the snapshot
    next_seq: int  #: the sequence number that the next event will get
    floor_seq: int  #: the last one that was pruned, 0 if none was
    entries: int  #: in the snapshot
    identity: str | None  #: what :meth:`~poller_core.listing.Source.begin` said at the last commit
    resume_key: bytes | None  #: where a first look that was interrupted goes on
    complete: bool  #: whether the first look was finished
    looked_at: float | None  #: when the last look that went through began, seconds since 1970-01-01 UTC
    look_seconds: float | None  #: how long it took
    health: str  #: JSON: gaps and errors of the last look

    @property
    def last_seq(self) -> int:
        """The sequence number of the newest event, 0 if there was none yet."""
        return self.next_seq - 1


class LockedTarget(NamedTuple):
    """The numbers of a target that this transaction reads or changes."""

    generation: int
    next_seq: int
    floor_seq: int
    epoch: str

    @property
    def last_seq(self) -> int:
        """The sequence number of the newest event, 0 if there was none yet."""
        return self.next_seq - 1


def load_target(database: Database, column: str, value: int | str) -> Target | None:
    """The target whose ``id`` or ``digest`` is the given one."""
    found = database.row(f"SELECT {_COLUMNS} FROM poller_targets WHERE {column} = ?", (value,))
    return _target(found) if found else None


def load_targets(database: Database) -> list[Target]:
    """All targets, by URL."""
    found = database.rows(f"SELECT {_COLUMNS} FROM poller_targets")
    return sorted(map(_target, found), key=lambda target: (target.url, target.digest))


def lock_target(database: Database, target_id: int) -> LockedTarget:
    """Keep other writers of the target out until this transaction ends.

    Every transaction that writes begins with this, which also makes a deadlock
    between two of them impossible.
    """
    found = database.row(
        "SELECT generation, next_seq, floor_seq, epoch, "
        "(SELECT value FROM poller_meta WHERE key = 'schema_version') "
        f"FROM poller_targets WHERE id = ?{database.for_update}",
        (target_id,),
    )
    if found is None:
        raise gone(database)
    check_version(found[4], database.shown)
    return LockedTarget(*found[:4])


def mark_target(database: Database, target_id: int) -> LockedTarget:
    """The same numbers for a transaction that only reads."""
    found = database.row(
        "SELECT generation, next_seq, floor_seq, epoch FROM poller_targets WHERE id = ?", (target_id,)
    )
    if found is None:
        raise gone(database)
    return LockedTarget(*found)


def gone(database: Database) -> StateDamaged:
    """The error for a target that is in the state no more."""
    return StateDamaged(
        f"the target is no longer in the state {database.shown}: it was forgotten by another process, or "
        "the state was replaced. Make the poller anew; its first look will be the new baseline"
    )


def _target(row: tuple[object, ...]) -> Target:
    values = list(row)
    values[11] = bool(values[11])
    return Target(*values)  # type: ignore[arg-type]
