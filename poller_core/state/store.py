"""The state of all targets: snapshot pages, journal, and what consumers have read.

Guarantees: every method is one transaction, stored whole or not at all; a
snapshot and the events that describe its change are stored together; a second
writer that began from an older snapshot is turned away
(:class:`~poller_core.errors.WriteConflict`); what can't be read is an error.
A :class:`Store` may be shared by threads, and used on in a forked child.

Does not guarantee: anything about what is in a page; its bytes are the caller's.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ..crashpoints import crash_point
from ..errors import InvalidOption, OffsetTooOld, StateDamaged, UnknownEvent, WriteConflict
from . import journal
from .consumers import Consumers
from .database import Database
from .files import make_state_file
from .handlers import Handlers
from .observed import Observations
from .records import Numbered, Record
from .retention import prune
from .schema import SMALL_TABLES, TABLES, prepare
from .sqlite import SqliteDatabase
from .targets import Target, gone, load_target, load_targets, lock_target, mark_target
from .urls import StateUrl, parse_state_url

__all__ = ["Committed", "Head", "PageRow", "SnapshotChange", "Store", "open_store"]

#: How many page heads are fetched at a time: few at first, as one hint needs no more than two.
_WINDOW, _FIRST_WINDOW = 1000, 4


class Head(NamedTuple):
    """A page without its content."""

    first_key: bytes
    digest: bytes
    entries: int


class PageRow(NamedTuple):
    """A page: the entries from ``first_key`` up to the next page's."""

    first_key: bytes
    digest: bytes  #: of the content before it was packed
    entries: int
    blob: bytes


class Committed(NamedTuple):
    """What a commit made."""

    generation: int
    first_seq: int  #: of the first event; greater than ``last_seq`` if there was none
    last_seq: int


@dataclass
class SnapshotChange:
    """What one look changes, stored as one."""

    detected_at_us: int  #: microseconds since 1970-01-01 UTC
    drop: list[bytes] = field(default_factory=list)  #: first keys of pages that go, before any are put
    put: list[PageRow] = field(default_factory=list)  #: pages that come, or replace those of their first key
    records: list[Record] = field(default_factory=list)  #: the events, in order
    entries: int = 0  #: how many more entries the snapshot has
    identity: str | None = None  #: stored as given, like the next two
    resume_key: bytes | None = None
    complete: bool = True


def open_store(
    url: str | os.PathLike[str] | Store | None,
    *,
    timeout: float = 30.0,
    create: bool = True,
    verify: bool = True,
) -> Store:
    """Open a state, and make it if there is none.

    :param url: ``sqlite:////absolute/path.db``, ``sqlite:///relative.db``, a plain path,
        ``postgresql+psycopg://user:password@host/database``, or None for a private one that ends
        with the process. A state that is open already is given back as it is.
    :param timeout: how long to wait for another process's lock, in seconds.
    :param create: False: a state that is not there is an error, and is not made.
    :param verify: False: go without the look at the small tables of an SQLite file and their indexes,
        which no digest covers; for who is about to check all of it.
    :raises InvalidOption: if the URL is not understood.
    :raises StateError: if the state is there but can't be used; its subclasses say why.
    """
    if not timeout > 0:
        raise InvalidOption(f"timeout: {timeout!r} was given; expected a number of seconds above 0")
    if isinstance(url, Store):
        return url
    place = parse_state_url(url)
    database: Database
    if place.parameters:
        from .postgresql import PostgresDatabase

        database = PostgresDatabase(place.text, place.parameters, timeout)
    else:
        if place.path is not None and create:
            make_state_file(place.path, timeout)
        database = SqliteDatabase(place.path, timeout)
    try:
        prepare(database, create=place.path is None and (create or place.private))
        if verify:
            database.verify_tables(SMALL_TABLES)
    except BaseException:
        database.close()
        raise
    return Store(place, database)


class Store:
    """An open state. Made by :func:`open_store`."""

    def __init__(self, place: StateUrl, database: Database) -> None:
        self.url = place.text  #: without a password
        self.private = place.private  #: whether it is temporary and this process's alone
        self.path: Path | None = place.path  #: the SQLite file, absolute
        self.database = database
        self.consumers = Consumers(database)
        self.handlers = Handlers(database)
        self.observations = Observations(database)

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database. A private state is gone with this."""
        self.database.close()

    # -- targets ----------------------------------------------------------------------

    def target(self, digest: str, url: str, options: str) -> Target:
        """The target of this digest; made if it is not there.

        :param digest: of the URL and of the options that decide what is listed.
        :param url: for people to read; without credentials.
        :param options: JSON, for people to read.
        """
        found = load_target(self.database, "digest", digest)
        if found is not None:
            return found
        with self.database.transaction():
            self.database.run(
                "INSERT INTO poller_targets (id, digest, url, options, epoch, generation, next_seq, "
                "floor_seq, entries, complete, health) VALUES (?, ?, ?, ?, ?, 0, 1, 0, 0, 0, '') "
                "ON CONFLICT (digest) DO NOTHING",
                (1 + secrets.randbits(48), digest, url, options, secrets.token_hex(8)),
            )
            found = load_target(self.database, "digest", digest)
            crash_point("store.target.before")
        crash_point("store.target.after")
        if found is None:
            raise gone(self.database)
        return found

    def targets(self) -> list[Target]:
        """All targets, by URL."""
        return load_targets(self.database)

    def reload(self, target_id: int) -> Target:
        """The target as it is now.

        :raises StateDamaged: if it is there no more.
        """
        found = load_target(self.database, "id", target_id)
        if found is None:
            raise gone(self.database)
        return found

    def forget(self, target_id: int) -> None:
        """Delete a target with its snapshot, journal and consumers. Fine if it is gone already."""
        with self.database.transaction():
            if load_target(self.database, "id", target_id) is not None:
                lock_target(self.database, target_id)
            for table in TABLES:
                self.database.run(f"DELETE FROM poller_{table} WHERE target_id = ?", (target_id,))
            self.database.run("DELETE FROM poller_targets WHERE id = ?", (target_id,))
            crash_point("store.forget.before")
        crash_point("store.forget.after")

    def accept_root(self, target_id: int) -> None:
        """Let the next look take whatever file system it finds at the target's root for the right one."""
        with self.database.transaction():
            lock_target(self.database, target_id)
            # A look that is under way has compared with the old root, and must not be stored.
            self.database.run(
                "UPDATE poller_targets SET identity = NULL, generation = generation + 1 WHERE id = ?",
                (target_id,),
            )
            crash_point("store.accept.before")
        crash_point("store.accept.after")

    def generation(self, target_id: int) -> int:
        """How many times the snapshot was changed; cheap, to see whether somebody else did."""
        return mark_target(self.database, target_id).generation

    # -- the snapshot -------------------------------------------------------------------

    def verify_entries(self, target_id: int) -> None:
        """See whether the pages that are there hold as many entries as the target says.

        A page whose row got lost would else be taken for a place where nothing is known.

        :raises StateDamaged: if they do not.
        """
        with self.database.transaction(write=False):
            target = self.reload(target_id)
            found = self.database.row(
                "SELECT SUM(entries) FROM poller_pages WHERE target_id = ?", (target_id,)
            )
        entries = 0 if found is None or found[0] is None else int(found[0])
        if entries != target.entries:
            raise StateDamaged(
                f"the snapshot of {target.url} has {entries} entries in its pages, and should have "
                f"{target.entries}: it is damaged. Run 'poller check', then 'poller repair'"
            )

    def heads(self, target_id: int, start: bytes = b"", stop: bytes | None = None) -> Iterator[Head]:
        """The pages that cover ``start <= key < stop``, in order.

        Begins with the page that holds ``start``. Pages are fetched a window at
        a time and nothing is locked in between: what another process does
        meanwhile shows when the change is committed.
        """
        # From the page that holds ``start``, if there is one; then from behind the last one that was fetched.
        # (MAX() of bytes is known to PostgreSQL from 18 on only.)
        condition = (
            ">= COALESCE((SELECT first_key FROM poller_pages WHERE target_id = ? AND first_key <= ? "
            "ORDER BY first_key DESC LIMIT 1), ?)"
        )
        values: tuple[int | bytes, ...] = (target_id, start, start)
        ending, parameters = ("", ()) if stop is None else (" AND first_key < ?", (stop,))
        window = _FIRST_WINDOW
        while True:
            rows = self.database.rows(
                "SELECT first_key, digest, entries FROM poller_pages "
                f"WHERE target_id = ? AND first_key {condition}{ending} "
                f"ORDER BY first_key LIMIT {window}",
                (target_id, *values, *parameters),
            )
            yield from map(Head._make, rows)
            if len(rows) < window:
                return
            condition, values = "> ?", (rows[-1][0],)
            window = min(window * 16, _WINDOW)

    def blob(self, target_id: int, first_key: bytes, digest: bytes) -> bytes:
        """The content of a page, packed.

        :raises WriteConflict: if another process has replaced or dropped the page.
        :raises StateDamaged: if the target is gone.
        """
        row = self.database.row(
            "SELECT digest, blob FROM poller_pages WHERE target_id = ? AND first_key = ?",
            (target_id, first_key),
        )
        if row is not None and row[0] == digest:
            blob: bytes = row[1]
            return blob
        self.generation(target_id)
        raise WriteConflict("another process changed the snapshot while it was read; looking again is safe")

    def commit(self, target_id: int, generation: int, change: SnapshotChange) -> Committed:
        """Store a changed snapshot and its events, as one.

        :param generation: of the snapshot that the change was made from.
        :raises WriteConflict: if the snapshot is of another generation by now. Nothing is stored.
        """
        database = self.database
        with database.transaction():
            target = lock_target(database, target_id)
            if target.generation != generation:
                raise WriteConflict(
                    f"another process changed the snapshot (generation {target.generation}, this look began "
                    f"from {generation}); the look was dropped, looking again is safe"
                )
            if change.drop:
                database.run_many(
                    "DELETE FROM poller_pages WHERE target_id = ? AND first_key = ?",
                    [(target_id, first_key) for first_key in change.drop],
                )
            if change.put:
                database.run_many(
                    "INSERT INTO poller_pages (target_id, first_key, digest, entries, blob) "
                    "VALUES (?, ?, ?, ?, ?) ON CONFLICT (target_id, first_key) DO UPDATE SET "
                    "digest = excluded.digest, entries = excluded.entries, blob = excluded.blob",
                    [(target_id, *page) for page in change.put],
                )
            next_seq = journal.write(
                database, target_id, target.next_seq, change.detected_at_us, journal.EVERYBODY, change.records
            )
            database.run(
                "UPDATE poller_targets SET generation = ?, next_seq = ?, entries = entries + ?, "
                "identity = ?, resume_key = ?, complete = ? WHERE id = ?",
                (
                    generation + 1,
                    next_seq,
                    change.entries,
                    change.identity,
                    change.resume_key,
                    int(change.complete),
                    target_id,
                ),
            )
            crash_point("store.commit.before")
        crash_point("store.commit.after")
        return Committed(generation + 1, target.next_seq, next_seq - 1)

    def look_done(self, target_id: int, looked_at: float | None, look_seconds: float, health: str) -> None:
        """Note that a look ended, whether or not it changed anything.

        :param looked_at: seconds since 1970-01-01 UTC; None for a look that failed: when the last good
            one was, and how long it took, stays as it is.
        :param health: JSON: gaps and errors, without secrets.
        """
        with self.database.transaction():
            lock_target(self.database, target_id)
            if looked_at is None:
                self.database.run("UPDATE poller_targets SET health = ? WHERE id = ?", (health, target_id))
            else:
                self.database.run(
                    "UPDATE poller_targets SET looked_at = ?, look_seconds = ?, health = ? WHERE id = ?",
                    (looked_at, look_seconds, health, target_id),
                )
            crash_point("store.look.before")
        crash_point("store.look.after")

    # -- the journal ----------------------------------------------------------------------

    def read(
        self,
        target_id: int,
        consumer: str,
        after: int,
        limit: int | None = None,
        select: Callable[[Record], bool] | None = None,
    ) -> tuple[list[Numbered], int]:
        """Read the journal as it is, whatever was acknowledged or taken.

        :param consumer: whose private events to include; ``""`` for none.
        :param after: the sequence number behind which to begin.
        :returns: the events, and the sequence number up to which was read.
        :raises OffsetTooOld: if events behind ``after`` were pruned; the target's ``floor_seq`` is
            the earliest place to begin.
        """
        journal.check_limit(limit)
        with self.database.transaction(write=False):
            target = mark_target(self.database, target_id)
            if after < target.floor_seq:
                raise OffsetTooOld(
                    f"events up to {target.floor_seq} were pruned from the journal; reading behind {after} "
                    f"is not possible, behind {target.floor_seq} it is"
                )
            found = journal.scan(self.database, target_id, consumer, after, target.last_seq, limit, select)
        return found.events, found.upto

    def event(self, target_id: int, consumer: str, seq: int) -> Numbered:
        """One event.

        :raises UnknownEvent: if it was pruned, never was, or is another consumer's.
        """
        with self.database.transaction(write=False):
            row = journal.covering(self.database, target_id, seq)
            if row is None or not row.is_for(consumer):
                raise UnknownEvent(f"the journal has no event {seq} (any more) for this consumer")
            return Numbered(seq, row.detected_at_us, row.records()[seq - row.first_seq])

    def last_seq(self, target_id: int) -> int:
        """The sequence number of the newest event, 0 if there was none yet."""
        return mark_target(self.database, target_id).last_seq

    def seq_at(self, target_id: int, time: float) -> int:
        """The first event detected at that time or later; the next one to come if there is none.

        :param time: seconds since 1970-01-01 UTC.
        """
        with self.database.transaction(write=False):
            target = mark_target(self.database, target_id)
            found = self.database.row(
                "SELECT MIN(first_seq) FROM poller_journal WHERE target_id = ? AND detected_at_us >= ?",
                (target_id, round(time * 1_000_000)),
            )
        return target.next_seq if found is None or found[0] is None else int(found[0])

    def prune(self, target_id: int, now: float, retention: float, retention_unread: float) -> int:
        """Delete what is old and read by all, or very old; the number of events that went.

        Cheap when there is nothing to delete. A consumer that had not read what went is told so
        by :class:`~poller_core.errors.OffsetTooOld` when it reads next.

        :param now: seconds since 1970-01-01 UTC.
        :param retention: how long to keep what every consumer has read, in seconds.
        :param retention_unread: how long to keep what some consumer has not, in seconds.
        """
        return prune(self.database, target_id, now, retention, retention_unread)
