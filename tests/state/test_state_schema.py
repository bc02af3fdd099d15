"""Versions and migrations; and a state of each version, which has to open for ever."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from poller_core.errors import StateDamaged, StateNewer, WriteConflict
from poller_core.state import SnapshotChange, Store, open_store, schema
from poller_core.state.checks import check_store
from poller_core.state.database import Database
from poller_core.state.observed import Observed
from tests.state.helpers import add, finish, keys_of, seqs, some, start, target_of, unpack

FIXTURES = Path(__file__).parent / "fixtures"
CURRENT = schema.current_version()
NEXT, LATER = CURRENT + 1, CURRENT + 2


def version_of(store: Store) -> str:
    row = store.database.row("SELECT value FROM poller_meta WHERE key = 'schema_version'")
    assert row is not None
    return str(row[0])


def test_a_new_state_is_of_the_current_version(state_url: str) -> None:
    with open_store(state_url) as store:
        assert version_of(store) == "2" == str(CURRENT)


def test_a_state_of_a_later_version_is_refused(state_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(state_url) as store:
        target = target_of(store)
        monkeypatch.setitem(schema.MIGRATIONS, NEXT, ())
        open_store(state_url).close()
        monkeypatch.delitem(schema.MIGRATIONS, NEXT)
        with pytest.raises(StateNewer, match=f"version {NEXT}"):
            open_store(state_url)
        # Nor does a program write into it that had it open before.
        with pytest.raises(StateNewer):
            add(store, target, some(1))


@pytest.mark.parametrize("value", ["", "x", "-1", "²"])
def test_a_version_that_is_none(state_url: str, value: str) -> None:
    with open_store(state_url) as store, store.database.transaction():
        store.database.run("UPDATE poller_meta SET value = ?", (value,))
    with pytest.raises(StateDamaged, match="which version"):
        open_store(state_url)


def test_no_version_at_all(state_url: str) -> None:
    with open_store(state_url) as store, store.database.transaction():
        store.database.run("DELETE FROM poller_meta")
    with pytest.raises(StateDamaged, match="which version"):
        open_store(state_url)


@pytest.mark.parametrize("table", ["meta", "targets", "journal", "consumers"])
def test_a_table_that_is_gone_is_damage(state_url: str, table: str) -> None:
    with open_store(state_url) as store:
        target = target_of(store)
        add(store, target, some(1))
        with store.database.transaction():
            store.database.run(f"DROP TABLE poller_{table}")
    with pytest.raises(StateDamaged):
        _use(state_url)


def _use(url: str) -> None:
    with open_store(url) as store:
        target = target_of(store)
        store.consumers.create(target.id, "c", 1)
        store.consumers.pending(target.id, "c")


def _second(database: Database) -> None:
    database.run("UPDATE poller_consumers SET name = name || '-2'")


def test_a_migration(state_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(state_url) as store:
        target = target_of(store)
        store.consumers.create(target.id, "c")
    monkeypatch.setitem(
        schema.MIGRATIONS,
        NEXT,
        (
            "ALTER TABLE poller_targets ADD COLUMN colour {text}",
            "CREATE TABLE poller_new (size {int}, x {blob})",
        ),
    )
    monkeypatch.setitem(schema.MIGRATIONS, LATER, _second)
    for _ in range(2):
        with open_store(state_url) as store:
            assert version_of(store) == str(LATER)
            assert [row.name for row in store.consumers.all(target.id)] == ["c-2"]
            assert store.database.row("SELECT colour FROM poller_targets") == (None,)
            assert store.reload(target.id) == target


def test_a_migration_that_fails_changes_nothing(state_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(database: Database) -> None:
        _second(database)
        raise ZeroDivisionError

    with open_store(state_url) as store:
        target = target_of(store)
        store.consumers.create(target.id, "c")
    monkeypatch.setitem(schema.MIGRATIONS, NEXT, ("CREATE TABLE poller_new (size {int})",))
    monkeypatch.setitem(schema.MIGRATIONS, LATER, fails)
    with pytest.raises(ZeroDivisionError):
        open_store(state_url)
    monkeypatch.delitem(schema.MIGRATIONS, NEXT)
    monkeypatch.delitem(schema.MIGRATIONS, LATER)
    with open_store(state_url) as store:
        assert version_of(store) == str(CURRENT)
        assert not store.database.has_table("poller_new")
        assert [row.name for row in store.consumers.all(target.id)] == ["c"]


MIGRATING = (
    f"NEXT, LATER = {NEXT}, {LATER}"
    + """
import os, signal
from poller_core.state import schema
def second(database):
    if A[1] == "die":
        database.run("UPDATE poller_consumers SET name = 'lost'")
        os.kill(os.getpid(), signal.SIGKILL)
    database.run("UPDATE poller_targets SET entries = entries + 1")
schema.MIGRATIONS[NEXT] = ("CREATE TABLE poller_new (size {int})",)
schema.MIGRATIONS[LATER] = second
input()
open_store(A[0]).close()
"""
)


def test_a_migration_that_is_killed_changes_nothing(state_url: str) -> None:
    with open_store(state_url) as store:
        target = target_of(store)
        store.consumers.create(target.id, "c")
    killed = start(MIGRATING, state_url, "die")
    assert killed.stdin is not None
    killed.stdin.write("\n")
    finish(killed, -9)
    with open_store(state_url) as store:
        assert version_of(store) == str(CURRENT)
        assert not store.database.has_table("poller_new")
        assert [row.name for row in store.consumers.all(target.id)] == ["c"]


def test_processes_that_migrate_at_once_do_it_once(state_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(state_url) as store:
        target = target_of(store)
    running = [start(MIGRATING, state_url, "live") for _ in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        finish(process)
    monkeypatch.setitem(schema.MIGRATIONS, NEXT, ())
    monkeypatch.setitem(schema.MIGRATIONS, LATER, ())
    with open_store(state_url) as store:
        assert store.reload(target.id).entries == 1


# -- a state as each version wrote it -----------------------------------------------------------


def load_fixture(url: str, version: int) -> None:
    """Put the dump into a database of either kind."""
    text = (FIXTURES / f"v{version}.sql").read_text()
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.executescript(text)
        connection.close()
        return
    import psycopg

    for found, instead in [("INTEGER", "BIGINT"), ("REAL", "DOUBLE PRECISION"), ("BLOB", "BYTEA")]:
        text = re.sub(rf"\b{found}\b", instead, text)
    text = re.sub(r"X'([0-9A-F]*)'", r"'\\x\1'", text).replace("BEGIN TRANSACTION;", "BEGIN;")
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(text.encode())


@pytest.mark.parametrize("version", range(1, CURRENT + 1))
def test_a_state_of_each_version(state_url: str, version: int) -> None:
    load_fixture(state_url, version)
    with open_store(state_url) as store:
        assert version_of(store) == str(CURRENT)
        assert check_store(store, unpack, keys_of) == []
        (target,) = store.targets()
        assert (target.url, target.epoch) == ("file:///srv/inbox", "00112233445566ff")
        assert (target.generation, target.entries, target.floor_seq, target.last_seq) == (5, 4, 2, 1510)
        assert (target.identity, target.resume_key, target.complete) == ('{"device":7}', b"x\xff", True)
        assert (target.looked_at, target.look_seconds, target.health) == (1700000000.5, 0.25, '{"gaps":[]}')

        heads = list(store.heads(target.id))
        assert [head.first_key for head in heads] == [b"", b"m"]
        content = unpack(store.blob(target.id, b"m", heads[1].digest))
        assert keys_of(content) == [b"m", b"n\xfe"]

        events, upto = store.read(target.id, "late", 2)
        assert (seqs(events), upto) == (list(range(3, 1511)), 1510)
        first = events[0].record
        assert first == (2, b"three \xfe", 33, 1600000000123456789, '"e-tag \N{SNOWMAN}"')
        assert events[1].record == (3, b"four", None, None, None)
        assert events[-1].record == (1, b"m", 5, 1600000000000000000, None)

        assert [row.name for row in store.consumers.all(target.id)] == ["late", "main"]
        assert seqs(store.consumers.pending(target.id, "main").events) == [9, 10, *range(13, 1509)]
        assert seqs(store.consumers.pending(target.id, "late").events) == [1509, 1510]
        assert [(row.token, row.ranges) for row in store.consumers.claims(target.id)] == [
            ("run-1", [(3, 3), (5, 8)]),
            ("run-3", [(12, 12)]),
        ]
        assert seqs(store.consumers.claimed(target.id, "main", "run-1") or []) == [3, 5, 6, 7, 8]
        taken = store.consumers.take(target.id, "main", "12-a8fcb9ca07f08feb", "run-3")
        assert taken.record.key == b"k000008"
        (dead,) = store.consumers.dead(target.id, "main")
        assert (dead.seq, dead.attempts, dead.error, dead.event) == (11, 3, "exit code 1", '{"seq": 11}')

        offset, observed = store.observations.load(target.id, "boot")
        assert (offset, observed) == (
            (0.0, []) if version == 1 else (1.6e9, [Observed(b"new", b"mark", 2.5, 60.0)])
        )

        # And it can be written to.
        with pytest.raises(WriteConflict):
            store.commit(target.id, 4, SnapshotChange(1))
        assert add(store, target, some(1)) == 1511
