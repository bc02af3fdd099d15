"""The tables, and how an older state becomes a newer one.

Guarantees: a state is of one version at any moment, as the version is written
in the same transaction as the tables; two processes that open an old state at
once migrate it once; a state of a later version than this program knows is
refused (:class:`~poller_core.errors.StateNewer`).

Does not guarantee: that a migrated state can still be used by the older program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..errors import StateDamaged, StateNewer
from .database import Database

__all__ = ["MIGRATIONS", "TABLES", "check_version", "current_version", "prepare"]

#: What brings a state from one version to the next: statements, or a function that runs them.
Migration: TypeAlias = Sequence[str] | Callable[[Database], None]

#: The tables of the newest version that belong to a target.
TABLES = ("pages", "journal", "consumers", "claims", "takes", "returned", "dead", "observed")

#: Those with few rows, which have no digests: all but the pages and the journal.
SMALL_TABLES = ("meta", "targets", "consumers", "claims", "takes", "returned", "dead", "observed")

#: Version -> what makes it out of the version before. Never change one that was released.
#: Types are written as {int}, {real}, {text} and {blob}.
MIGRATIONS: dict[int, Migration] = {
    1: (
        "CREATE TABLE poller_meta (key {text} NOT NULL PRIMARY KEY, value {text} NOT NULL)",
        # The id is random, not counted: a process that still knows a forgotten target must never
        # find another one under its number.
        """CREATE TABLE poller_targets (
            id {int} NOT NULL PRIMARY KEY, digest {text} NOT NULL UNIQUE, url {text} NOT NULL,
            options {text} NOT NULL, epoch {text} NOT NULL, generation {int} NOT NULL,
            next_seq {int} NOT NULL, floor_seq {int} NOT NULL, entries {int} NOT NULL,
            identity {text}, resume_key {blob}, complete {int} NOT NULL,
            looked_at {real}, look_seconds {real}, health {text} NOT NULL)""",
        # The blob stays last in its row, so that reading the rest does not touch it.
        """CREATE TABLE poller_pages (
            target_id {int} NOT NULL, first_key {blob} NOT NULL, digest {blob} NOT NULL,
            entries {int} NOT NULL, blob {blob} NOT NULL, PRIMARY KEY (target_id, first_key))""",
        """CREATE TABLE poller_journal (
            target_id {int} NOT NULL, first_seq {int} NOT NULL, last_seq {int} NOT NULL,
            detected_at_us {int} NOT NULL, consumer {text} NOT NULL, digest {blob} NOT NULL,
            blob {blob} NOT NULL, PRIMARY KEY (target_id, first_seq))""",
        """CREATE TABLE poller_consumers (
            target_id {int} NOT NULL, name {text} NOT NULL, seq {int} NOT NULL,
            created_at {real} NOT NULL, updated_at {real} NOT NULL, PRIMARY KEY (target_id, name))""",
        """CREATE TABLE poller_claims (
            target_id {int} NOT NULL, consumer {text} NOT NULL, token {text} NOT NULL,
            number {int} NOT NULL, first_seq {int} NOT NULL, last_seq {int} NOT NULL,
            claimed_at {real} NOT NULL, ranges {text} NOT NULL, PRIMARY KEY (target_id, consumer, token))""",
        """CREATE TABLE poller_takes (
            target_id {int} NOT NULL, consumer {text} NOT NULL, seq {int} NOT NULL,
            token {text} NOT NULL, taken_at {real} NOT NULL, PRIMARY KEY (target_id, consumer, seq))""",
        """CREATE TABLE poller_returned (
            target_id {int} NOT NULL, consumer {text} NOT NULL, seq {int} NOT NULL,
            PRIMARY KEY (target_id, consumer, seq))""",
        """CREATE TABLE poller_dead (
            target_id {int} NOT NULL, consumer {text} NOT NULL, seq {int} NOT NULL,
            attempts {int} NOT NULL, error {text} NOT NULL, died_at {real} NOT NULL,
            event {text} NOT NULL, PRIMARY KEY (target_id, consumer, seq))""",
    ),
    2: (
        """CREATE TABLE poller_observed (
            target_id {int} NOT NULL, origin {text} NOT NULL, saved_at {real} NOT NULL,
            digest {blob} NOT NULL, blob {blob} NOT NULL, PRIMARY KEY (target_id, origin))""",
    ),
}


def current_version() -> int:
    """The version that this program writes."""
    return max(MIGRATIONS)


def prepare(database: Database, create: bool) -> None:
    """Bring the state to the current version.

    :param create: make the tables if there are none. Without it, their absence is damage.
    :raises StateNewer: if the state is of a later version.
    :raises StateDamaged: if it is no state, or its version can't be read.
    """
    if database.has_table("poller_meta") and _version(database) == current_version():
        return
    with database.transaction():
        database.lock_schema()
        # Once more, now that nobody else can be at it.
        if database.has_table("poller_meta"):
            version = _version(database)
        elif create:
            version = 0
        else:
            raise StateDamaged(
                f"{database.shown} is a database, but not a state of this program: it has no table "
                "poller_meta. Give another place as state=, or restore it from a backup"
            )
        for number in sorted(MIGRATIONS):
            if number > version:
                _apply(database, MIGRATIONS[number])
                database.run(
                    "INSERT INTO poller_meta (key, value) VALUES ('schema_version', ?) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (str(number),),
                )


def check_version(found: str | None, shown: str) -> int:
    """Read the version as it is stored.

    :raises StateNewer: if it is later than what this program knows.
    :raises StateDamaged: if it is no number.
    """
    if found is None or not (found.isascii() and found.isdigit()):
        raise StateDamaged(f"the state {shown} does not say which version it is; restore it from a backup")
    if int(found) > current_version():
        raise StateNewer(
            f"the state {shown} is of version {found}, and this program knows versions up to "
            f"{current_version()}. Nothing was changed; upgrade poller-core"
        )
    return int(found)


def _version(database: Database) -> int:
    row = database.row("SELECT value FROM poller_meta WHERE key = 'schema_version'")
    return check_version(row[0] if row else None, database.shown)


def _apply(database: Database, migration: Migration) -> None:
    if callable(migration):
        migration(database)
    else:
        for statement in migration:
            database.run(statement.format_map(database.types))
