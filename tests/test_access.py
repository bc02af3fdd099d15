"""``check_state``: says of a state what a poller would find, changes nothing, and tells no secret."""

from __future__ import annotations

import hashlib
import os
import re
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from poller_core import (
    FilePoller,
    InvalidOption,
    StateDamaged,
    StateError,
    StateLocked,
    StateNewer,
    StateReadOnly,
    StateUnreadable,
    check_state,
)
from poller_core.state import open_store, schema
from tests.races.tools import open_place, tmpfs, unprivileged
from tests.state.helpers import add, some, target_of

SECRET = "s3cr/t pass"
QUOTED = "s3cr%2Ft%20pass"


def content(folder: Path) -> dict[str, bytes]:
    """All that is in a directory; SQLite's side files come and go as it is opened."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
    return {str(path): hashlib.sha256(path.read_bytes()).digest() for path in files if path.stat().st_size}


def shown_by(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.fixture
def admin(postgres_url: str) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


# -- what can be used --------------------------------------------------------


def test_a_state_that_is_there(state_url, tmp_path):
    with FilePoller(tmp_path, state=state_url) as poller:
        (tmp_path / "a").touch()
        said = check_state(state_url)  # also while it is in use
        assert said.startswith(f"state: {state_url.partition('://')[0]}:")
        assert said.endswith(" can be used")
        assert [event.key for event in poller.get_new_events()] == [b"a"]
    assert check_state(state_url) == said
    with open_store(state_url) as store:
        (target,) = store.targets()
        assert store.last_seq(target.id) == 1


def test_a_file_that_is_not_there_yet_is_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("state.db", tmp_path / "deep" / "down" / "state.db", "sqlite:///deep/state.db"):
        said = check_state(given)
        assert re.fullmatch(
            r"state: sqlite:///.*state\.db is not there yet, and is made .*written to\)", said
        )
        assert str(tmp_path) in said
    assert os.listdir(tmp_path) == []


@pytest.mark.postgres
def test_a_database_without_tables_is_left_so(postgres_url, admin):
    """What a poller would do there it can, so that is no error; and it is not done."""
    said = check_state(postgres_url)
    assert "postgresql://postgres@/test_" in said
    assert "made when" in said
    assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    open_store(postgres_url).close()
    assert check_state(postgres_url).endswith(" can be used")


def test_a_private_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (":memory:", "sqlite://", "sqlite:///:memory:"):
        assert check_state(given) == "state: sqlite:// can be used"
    assert os.listdir(tmp_path) == []


def test_it_is_let_go(tmp_path):
    """The file can be taken away afterwards, and no descriptor is left."""
    path = tmp_path / "state.db"
    open_store(path).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        check_state(path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == ["state.db"]


@pytest.mark.parametrize(
    "state", ["", "a\0b", "sqlite:x.db", "mysql://u:hunter2@h/x", "postgresql://u:hunter2@h:x/"]
)
def test_what_is_no_state(state):
    with pytest.raises(InvalidOption, match="state:") as caught:
        check_state(state)
    assert "hunter2" not in shown_by(caught.value)


# -- what can't --------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [b"", b"x", b"garbage " * 1000, b"SQLite format 3\0" + bytes(8000), bytes(4096)]
)
def test_a_file_that_is_no_state(tmp_path, given):
    path = tmp_path / "state.db"
    path.write_bytes(given)
    with pytest.raises(StateDamaged, match=re.escape(str(path))):
        check_state(path)
    assert path.read_bytes() == given
    assert os.listdir(tmp_path) == ["state.db"]


def test_a_database_of_something_else(tmp_path):
    import sqlite3

    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE something (else_ TEXT)")
    connection.close()
    before = content(tmp_path)
    with pytest.raises(StateDamaged, match="not a state of this program"):
        check_state(path)
    assert content(tmp_path) == before


def test_a_damaged_state(tmp_path):
    path = tmp_path / "state.db"
    with open_store(path) as store:
        add(store, target_of(store), some(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StateDamaged):
        check_state(path)


def test_a_state_of_a_later_version(state_url):
    with open_store(state_url) as store, store.database.transaction():
        store.database.run("UPDATE poller_meta SET value = '999' WHERE key = 'schema_version'")
    with pytest.raises(StateNewer, match="version 999"):
        check_state(state_url)


def test_a_state_of_an_earlier_version_is_not_migrated(state_url, monkeypatch):
    """That is for the poller to do: a newer program that looks must not lock out the older one that works."""
    with open_store(state_url) as store:
        target_of(store)
    later = schema.current_version() + 1
    with monkeypatch.context() as newer:
        newer.setitem(schema.MIGRATIONS, later, ("ALTER TABLE poller_targets ADD COLUMN colour {text}",))
        assert check_state(state_url).endswith(" can be used")
    with open_store(state_url) as store:
        assert len(store.targets()) == 1


def test_a_migration_that_fails_is_told(state_url, monkeypatch):
    with open_store(state_url) as store:
        target_of(store)
    later = schema.current_version() + 1
    monkeypatch.setitem(schema.MIGRATIONS, later, ("ALTER TABLE poller_no_such ADD COLUMN colour {text}",))
    with pytest.raises(StateError):
        check_state(state_url)


@pytest.mark.parametrize("name", ["file", "program"])
def test_below_a_file(tmp_path, name):
    (tmp_path / "file").touch(0o644)
    (tmp_path / "program").touch(0o755)
    with pytest.raises(StateError, match=f"can't be made: {tmp_path}/{name}"):
        check_state(tmp_path / name / "deep" / "state.db")


def test_a_directory(tmp_path):
    with pytest.raises(StateUnreadable):
        check_state(tmp_path)


def test_a_name_that_cant_be(tmp_path):
    with pytest.raises(StateUnreadable, match="too long"):
        check_state(tmp_path / ("x" * 300))


def test_a_state_whose_log_was_left_behind(tmp_path):
    """A poller would refuse to make a new one there, so that must not be promised."""
    (tmp_path / "state.db-wal").write_bytes(b"x" * 100)
    with pytest.raises(StateUnreadable, match=r"log state\.db-wal is still there"):
        check_state(tmp_path / "state.db")
    with pytest.raises(StateUnreadable):
        open_store(tmp_path / "state.db")


# -- rights ------------------------------------------------------------------


def test_a_directory_that_may_not_be_written_to():
    with open_place() as place:
        (place / "closed").mkdir(0o755)
        open_store(place / "closed" / "there.db").close()
        (place / "closed" / "there.db").chmod(0o666)
        os.chmod(place / "closed", 0o555)
        before = content(place)
        for name in ("new.db", "deep/new.db", "there.db"):
            with pytest.raises(StateReadOnly, match="closed"):
                unprivileged(partial(check_state, place / "closed" / name))
        assert content(place) == before


def test_a_file_that_is_anothers():
    with open_place() as place:
        open_store(place / "state.db").close()
        (place / "state.db").chmod(0o444)
        with pytest.raises(StateReadOnly, match=r"state\.db"):
            unprivileged(lambda: check_state(place / "state.db"))


def test_a_directory_that_may_not_be_entered():
    with open_place() as place:
        (place / "closed").mkdir(0o700)
        if os.geteuid() != 0:
            os.chmod(place / "closed", 0)
        with pytest.raises(StateUnreadable, match="Permission denied"):
            unprivileged(lambda: check_state(place / "closed" / "state.db"))


def test_a_disk_that_is_read_only(tmp_path):
    import subprocess

    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk"):
        open_store(tmp_path / "disk" / "there.db").close()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        for name in ("there.db", "new.db"):
            with pytest.raises(StateReadOnly):
                check_state(tmp_path / "disk" / name)


def test_locked(state_url, monkeypatch):
    """A state that another process writes to just then is waited for; for ever is an error."""
    from poller_core import access

    monkeypatch.setattr(access, "_PATIENCE", 0.3)
    with open_store(state_url) as store:
        target_of(store)
        with store.database.transaction():
            store.database.run("UPDATE poller_targets SET entries = 1")
            if state_url.startswith("sqlite"):
                with pytest.raises(StateLocked):
                    check_state(state_url)
            else:
                assert check_state(state_url).endswith(" can be used")  # it needs no row that is locked


# -- PostgreSQL --------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://bob:{QUOTED}@/nowhere?host=/no/such/directory",
        f"postgresql://bob:{QUOTED}@localhost:1/nowhere",
        f"postgresql://bob@localhost:1/nowhere?password={QUOTED}",
        f"postgresql+psycopg://bob:{QUOTED}@localhost:1/nowhere?sslmode=nonsense",
    ],
)
def test_a_server_that_is_not_there(url):
    with pytest.raises(StateUnreadable, match=r"can't be reached") as caught:
        check_state(url)
    assert "bob" in str(caught.value)
    assert "s3cr" not in shown_by(caught.value)


@pytest.mark.postgres
def test_a_database_that_is_not_there(postgres_url):
    base, _, query = postgres_url.partition("?")
    with pytest.raises(StateUnreadable, match="does not exist") as caught:
        check_state(f"{base}_not?{query}".replace("postgres:@", f"postgres:{QUOTED}@"))
    assert "s3cr" not in shown_by(caught.value)


@pytest.mark.postgres
def test_no_password_in_what_is_said(postgres_url):
    url = postgres_url.replace("postgres:@", f"postgres:{QUOTED}@")
    assert url != postgres_url
    assert "s3cr" not in check_state(url)
    open_store(url).close()
    assert "s3cr" not in check_state(url)


@pytest.mark.postgres
def test_a_user_who_may_not_make_tables(postgres_url, admin):
    admin.execute("CREATE ROLE checks_only LOGIN")
    try:
        with pytest.raises(StateReadOnly):
            check_state(postgres_url.replace("postgres:@", "checks_only@"))
    finally:
        admin.execute("DROP ROLE checks_only")


@pytest.mark.postgres
def test_a_user_who_may_only_read(postgres_url, admin):
    """A poller would fail at its first look; so this is no state that can be used."""
    open_store(postgres_url).close()
    admin.execute("CREATE ROLE reads_only LOGIN")
    try:
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reads_only")
        with pytest.raises(StateReadOnly):
            check_state(postgres_url.replace("postgres:@", "reads_only@"))
    finally:
        admin.execute("DROP OWNED BY reads_only")
        admin.execute("DROP ROLE reads_only")


@pytest.mark.postgres
def test_a_server_that_only_reads(postgres_url):
    read_only = postgres_url + "&options=-cdefault_transaction_read_only%3Don"
    with pytest.raises(StateReadOnly):
        check_state(read_only)
    open_store(postgres_url).close()
    with pytest.raises(StateReadOnly):
        check_state(read_only)
