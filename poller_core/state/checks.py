"""Looking for damage: every digest, every reference, every number that must fit another.

:func:`examine` finds problems, each with the statements that mend it, so that
``poller check`` and ``poller repair`` can't be of two opinions.

Guarantees: a state in which nothing is found can be read from end to end, and
gives each consumer everything that it has not read.

Does not guarantee: that the snapshot is what was listed. What was damaged
before its digest was made can't be seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from ..errors import OffsetTooOld, StateDamaged, StateError
from .database import Database
from .journal import EVERYBODY, NOBODY, JournalRow
from .observed import decode_observed
from .ownership import HANDLER, decode_ranges
from .schema import TABLES
from .sqlite import SqliteDatabase
from .store import Store
from .targets import Target, load_targets

__all__ = ["Finding", "Keys", "Problem", "Unpack", "check_store", "examine"]

#: From a page's blob to its content, whose SHA-256 is the digest.
Unpack: TypeAlias = Callable[[bytes], bytes]
#: From a page's content to its keys, in order.
Keys: TypeAlias = Callable[[bytes], list[bytes]]

Severity: TypeAlias = Literal["error", "warning"]

_WINDOW = 64
_GIVEN_UP = "the events are given up; a consumer that has not read them is told so, and how to go on"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, for people."""

    severity: Severity  #: a warning needs no repair, but somebody should know
    where: str
    what: str
    mend: str  #: what to do about it


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and how to mend it."""

    severity: Severity
    where: str
    what: str
    mend: str = "poller repair"
    cost: str = ""  #: what the mending loses
    statements: tuple[tuple[str, tuple[Any, ...]], ...] = ()  #: empty: it can't be mended by statements


def check_store(store: Store, unpack: Unpack, keys: Keys) -> list[Finding]:
    """Read everything and say what is wrong with it. Changes nothing.

    :param unpack: gives a page's content; raises whatever it likes if it can't.
    :param keys: gives a content's keys; the same.
    :returns: nothing if all is well.
    """
    database = store.database
    findings = [
        Finding("error", "database", line, "poller repair") for line in integrity_of(database) if line != "ok"
    ]
    try:
        with database.transaction(write=False):
            for problem in examine(database, unpack, keys):
                findings.append(Finding(problem.severity, problem.where, problem.what, problem.mend))
    except StateError as error:
        findings.append(Finding("error", "database", str(error), "poller repair"))
    return findings


def integrity_of(database: Database) -> list[str]:
    """What SQLite says of its own structures; ``["ok"]`` if all is well."""
    if not isinstance(database, SqliteDatabase):
        return ["ok"]
    try:
        return [str(row[0]) for row in database.rows("PRAGMA integrity_check(20)")]
    except StateDamaged as error:
        return [str(error)]


def examine(database: Database, unpack: Unpack, keys: Keys) -> Iterator[Problem]:
    """Find all problems, within the caller's transaction."""
    targets = load_targets(database)
    for target in targets:
        yield from _pages(database, target, unpack, keys)
        yield from _journal(database, target)
        yield from _consumers(database, target)
        yield from _claims(database, target)
        yield from _observed(database, target)
    yield from _orphans(database)


# -- pages -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    first_key: bytes
    digest: bytes
    entries: int
    blob: bytes


def _read_pages(database: Database, target_id: int) -> Iterator[_Page]:
    after, comparison = b"", ">="
    while True:
        rows = database.rows(
            "SELECT first_key, digest, entries, blob FROM poller_pages "
            f"WHERE target_id = ? AND first_key {comparison} ? ORDER BY first_key LIMIT {_WINDOW}",
            (target_id, after),
        )
        for row in rows:
            yield _Page(*row)
        if len(rows) < _WINDOW:
            return
        after, comparison = rows[-1][0], ">"


def _pages(database: Database, target: Target, unpack: Unpack, keys: Keys) -> Iterator[Problem]:
    entries = 0
    first: bytes | None = None
    first_dropped = False
    for page, following in _with_next(_read_pages(database, target.id)):
        found = _keys_of(page, following.first_key if following else None, unpack, keys)
        where = f"{target.url}: page {os.fsdecode(page.first_key)!r}"
        if isinstance(found, str):
            if first is None:
                first_dropped, first = True, page.first_key
            yield Problem(
                "error",
                where,
                found,
                cost=f"the page is dropped: what is there of its entries (at most {page.entries}) is "
                "reported as created again, and what was deleted of them since is not reported",
                statements=_drop_page(target.id, page),
            )
            continue
        entries += found
        if found != page.entries:
            yield Problem(
                "error",
                where,
                f"it holds {found} entries, but {page.entries} are noted",
                cost="nothing: the number is corrected",
                statements=(
                    (
                        "UPDATE poller_pages SET entries = ? WHERE target_id = ? AND first_key = ?",
                        (found, target.id, page.first_key),
                    ),
                ),
            )
        if first_dropped and first is not None:
            # The snapshot begins with the same key as before, so that no key lies ahead of all pages.
            yield Problem(
                "error",
                where,
                "the page before it is dropped",
                cost="nothing: it takes over the dropped page's place",
                statements=(
                    (
                        "UPDATE poller_pages SET first_key = ? WHERE target_id = ? AND first_key = ?",
                        (first, target.id, page.first_key),
                    ),
                ),
            )
        first, first_dropped = page.first_key, False
    if entries != target.entries:
        yield Problem(
            "error",
            target.url,
            f"the sound pages hold {entries} entries, but {target.entries} are noted",
            cost="nothing: the number is corrected",
            statements=(("UPDATE poller_targets SET entries = ? WHERE id = ?", (entries, target.id)),),
        )


def _with_next(pages: Iterator[_Page]) -> Iterator[tuple[_Page, _Page | None]]:
    previous: _Page | None = None
    for page in pages:
        if previous is not None:
            yield previous, page
        previous = page
    if previous is not None:
        yield previous, None


def _keys_of(page: _Page, stop: bytes | None, unpack: Unpack, keys: Keys) -> int | str:
    """How many keys a page has, or what is wrong with it."""
    try:
        content = unpack(page.blob)
        if hashlib.sha256(content).digest() != page.digest:
            return "its content does not match its digest"
        found = keys(content)
    except Exception as error:  # noqa: BLE001 - the decoder is the caller's, and this is about broken input
        return f"it can't be decoded ({type(error).__name__})"
    if any(left >= right for left, right in pairwise(found)):
        return "its keys are not in order"
    if found and (found[0] < page.first_key or (stop is not None and found[-1] >= stop)):
        return "it has keys that belong to another page"
    return len(found)


def _drop_page(target_id: int, page: _Page) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    return (
        (
            "DELETE FROM poller_pages WHERE target_id = ? AND first_key = ?",
            (target_id, page.first_key),
        ),
        # A look that is under way elsewhere must not build on what it read of this page.
        ("UPDATE poller_targets SET generation = generation + 1 WHERE id = ?", (target_id,)),
    )


# -- the journal ---------------------------------------------------------------------------


def _read_journal(database: Database, target_id: int) -> Iterator[JournalRow]:
    start = -(2**62)
    while True:
        rows = database.rows(
            "SELECT first_seq, last_seq, detected_at_us, consumer, digest, blob FROM poller_journal "
            f"WHERE target_id = ? AND first_seq >= ? ORDER BY first_seq LIMIT {_WINDOW}",
            (target_id, start),
        )
        for row in rows:
            yield JournalRow(*row)
        if len(rows) < _WINDOW:
            return
        start = rows[-1][0] + 1


def _journal(database: Database, target: Target) -> Iterator[Problem]:
    expected = target.floor_seq + 1
    for row in _read_journal(database, target.id):
        where = f"{target.url}: journal, events {row.first_seq} to {row.last_seq}"
        if row.first_seq < expected or row.last_seq < row.first_seq:
            yield Problem(
                "error",
                where,
                "the row is not where it can be",
                cost="the row is dropped; what it covers and no other row does is given up",
                statements=(
                    (
                        "DELETE FROM poller_journal WHERE target_id = ? AND first_seq = ?",
                        (target.id, row.first_seq),
                    ),
                ),
            )
            continue
        if row.first_seq > expected:
            yield _hole(target, expected, row.first_seq - 1, row.detected_at_us)
        expected = row.last_seq + 1
        problem = _sound(row)
        if row.lost:
            yield Problem(
                "warning", where, "they were given up by an earlier repair", "nothing is left to do"
            )
        elif problem is not None:
            yield Problem(
                "error",
                where,
                problem,
                cost=_GIVEN_UP,
                statements=(
                    (
                        "UPDATE poller_journal SET blob = ?, digest = ? "
                        "WHERE target_id = ? AND first_seq = ?",
                        (b"", b"", target.id, row.first_seq),
                    ),
                ),
            )
    if expected < target.next_seq:
        yield _hole(target, expected, target.next_seq - 1, 0)
    elif expected > target.next_seq:
        yield Problem(
            "error",
            target.url,
            f"the journal goes up to event {expected - 1}, but {target.next_seq - 1} is noted as the newest",
            cost="nothing: the number is corrected",
            statements=(("UPDATE poller_targets SET next_seq = ? WHERE id = ?", (expected, target.id)),),
        )


def _sound(row: JournalRow) -> str | None:
    """What is wrong with a row, if anything is."""
    try:
        if row.consumer != NOBODY:
            row.records()
    except OffsetTooOld:
        return "its events were given up"
    except StateDamaged as error:
        return str(error)
    return None


def _hole(target: Target, first: int, last: int, detected_at_us: int) -> Problem:
    return Problem(
        "error",
        f"{target.url}: journal",
        f"events {first} to {last} are missing",
        cost=_GIVEN_UP,
        statements=(
            (
                "INSERT INTO poller_journal (target_id, first_seq, last_seq, detected_at_us, consumer, "
                "digest, blob) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (target.id, first, last, detected_at_us, EVERYBODY, b"", b""),
            ),
        ),
    )


# -- consumers and claims ---------------------------------------------------------------------


def _consumers(database: Database, target: Target) -> Iterator[Problem]:
    rows = database.rows("SELECT name, seq FROM poller_consumers WHERE target_id = ?", (target.id,))
    for name, seq in sorted(rows):
        where = f"{target.url}: consumer {name!r}"
        if not 0 <= seq <= target.last_seq:
            yield Problem(
                "error",
                where,
                f"it has read up to event {seq}, but the newest is {target.last_seq}",
                cost=f"it goes on behind event {target.last_seq}",
                statements=(
                    (
                        "UPDATE poller_consumers SET seq = ? WHERE target_id = ? AND name = ?",
                        (target.last_seq, target.id, name),
                    ),
                ),
            )
        elif seq < target.floor_seq:
            yield Problem(
                "warning",
                where,
                f"it has read up to event {seq}; those up to {target.floor_seq} were pruned",
                f"poller rewind: to {target.floor_seq + 1}, beginning or now",
            )


def _claims(database: Database, target: Target) -> Iterator[Problem]:
    for consumer, token, text, first, last in database.rows(
        "SELECT consumer, token, ranges, first_seq, last_seq FROM poller_claims WHERE target_id = ?",
        (target.id,),
    ):
        try:
            ranges = decode_ranges(text)
            sound = (ranges[0][0], ranges[-1][1]) == (first, last) and last <= target.last_seq
        except StateDamaged:
            sound = False
        if not sound:
            yield Problem(
                "error",
                f"{target.url}: claim {token!r} of consumer {consumer!r}",
                "it does not say which events it has",
                cost="the claim is dropped: its events count as read, and the token gets others",
                statements=(
                    (
                        "DELETE FROM poller_claims WHERE target_id = ? AND consumer = ? AND token = ?",
                        (target.id, consumer, token),
                    ),
                ),
            )
    for table in ("takes", "returned"):
        for consumer, count in database.rows(
            f"SELECT consumer, COUNT(*) FROM poller_{table} WHERE target_id = ? AND (seq > ? OR seq < 1) "
            "GROUP BY consumer",
            (target.id, target.last_seq),
        ):
            yield Problem(
                "error",
                f"{target.url}: {_called(consumer)}",
                f"{count} rows of {table} are of events that never were",
                cost="nothing: the rows are dropped",
                statements=(
                    (
                        f"DELETE FROM poller_{table} "
                        "WHERE target_id = ? AND consumer = ? AND (seq > ? OR seq < 1)",
                        (target.id, consumer, target.last_seq),
                    ),
                ),
            )


def _called(consumer: str) -> str:
    name = consumer.removeprefix(HANDLER)
    return f"consumer {name!r}" if name == consumer else f"handler {name!r}"


def _observed(database: Database, target: Target) -> Iterator[Problem]:
    for origin, digest, blob in database.rows(
        "SELECT origin, digest, blob FROM poller_observed WHERE target_id = ?", (target.id,)
    ):
        try:
            decode_observed(digest, blob)
        except StateDamaged as error:
            yield Problem(
                "error",
                target.url,
                str(error),
                cost="nothing: they are held until they were seen once more",
                statements=(
                    (
                        "DELETE FROM poller_observed WHERE target_id = ? AND origin = ?",
                        (target.id, origin),
                    ),
                ),
            )


# -- what belongs to nothing ------------------------------------------------------------------


def _orphans(database: Database) -> Iterator[Problem]:
    no_target = "target_id NOT IN (SELECT id FROM poller_targets)"
    for table in TABLES:
        row = database.row(f"SELECT COUNT(*) FROM poller_{table} WHERE {no_target}")
        if row is not None and row[0]:
            yield Problem(
                "error",
                f"table {table}",
                f"{row[0]} rows belong to a target that is not there",
                cost="the rows are dropped; the target begins anew with its next look",
                statements=((f"DELETE FROM poller_{table} WHERE {no_target}", ()),),
            )
    for table in ("claims", "takes", "returned", "dead", "journal"):
        name = f"poller_{table}"
        strangers = (
            f"{name}.consumer NOT IN (?, ?) AND NOT EXISTS (SELECT 1 FROM poller_consumers AS known "
            f"WHERE known.target_id = {name}.target_id AND known.name = {name}.consumer)"
        )
        for consumer, count in database.rows(
            f"SELECT consumer, COUNT(*) FROM {name} WHERE {strangers} GROUP BY consumer", (EVERYBODY, NOBODY)
        ):
            if table == "takes" and consumer.startswith(HANDLER):
                continue  # a handler needs no row of its own: its takes are all there is of it
            # The journal has no holes, so there a row changes hands and stays.
            action = f"UPDATE {name} SET consumer = ?" if table == "journal" else f"DELETE FROM {name}"
            first = (NOBODY,) if table == "journal" else ()
            yield Problem(
                "error",
                f"table {table}",
                f"{count} rows belong to consumer {consumer!r}, which is not there",
                cost=f"the rows are given up; if consumer {consumer!r} is made again, it begins anew",
                statements=(
                    (f"{action} WHERE consumer = ? AND {strangers}", (*first, consumer, EVERYBODY, NOBODY)),
                ),
            )
