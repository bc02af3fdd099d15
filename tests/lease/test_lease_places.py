"""What leases are: a lock on a file beside the state, or a session of PostgreSQL."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poller_core import FilePoller, LeaseHeld, StateUnreadable, make_poller
from poller_core.state import leases
from tests.lease.tools import PATIENCE, free, line, process

# -- the lock file -------------------------------------------------------------------------------


def test_one_private_file_beside_the_state(inbox: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with (
            FilePoller(inbox, state=tmp_path / "state.db") as poller,
            FilePoller(inbox, state=tmp_path / "state.db", consumer="other") as other,
            poller.lease(),
            other.lease(),
        ):
            pass
    finally:
        os.umask(before)
    names = sorted(os.listdir(tmp_path))
    assert names == ["inbox", "state.db", "state.db-lease"]
    found = (tmp_path / "state.db-lease").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o600, 0)


@pytest.mark.parametrize("kind", ["scan", "watch"])
def test_the_file_is_not_reported(inbox: Path, kind: str) -> None:
    make = FilePoller if kind == "scan" else make_poller
    with make(inbox, state=inbox / "state.db") as poller:
        with poller.lease():
            assert (inbox / "state.db-lease").exists()
            (inbox / "one").write_text("1")
            assert [event.key for event in poller.get_new_events()] == [b"one"]
        assert poller.get_new_events() == []


def test_a_file_that_was_deleted(inbox: Path, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    with FilePoller(inbox, state=state, consumer="me") as poller, poller.lease() as lease:
        (tmp_path / "state.db-lease").unlink()
        assert not lease.held()
        with process(inbox, state) as child:
            assert line(child)[0] == "held"
            assert not lease.held()
            assert not free(poller)


def test_a_file_that_was_deleted_does_not_cost_the_new_one(inbox: Path, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    with FilePoller(inbox, state=state, consumer="me") as poller, poller.lease() as old:
        (tmp_path / "state.db-lease").unlink()
        with FilePoller(inbox, state=state, consumer="me") as other, other.lease() as new:
            assert (old.held(), new.held()) == (False, True)
            old.release()
            assert new.held()
            with process(inbox, state) as child:
                assert line(child)[0] == "refused"
    assert leases._files == {}


def test_a_file_that_was_put_back(inbox: Path, tmp_path: Path) -> None:
    """Two descriptors of one file: closing one would drop the locks of the other."""
    state = f"sqlite:///{tmp_path}/state.db"
    path, away = tmp_path / "state.db-lease", tmp_path / "away"
    with FilePoller(inbox, state=state, consumer="me") as poller, poller.lease() as lease:
        path.rename(away)
        assert not lease.held()
        away.rename(path)
        assert lease.held()
        with FilePoller(inbox, state=state, consumer="other") as other:
            assert free(other)
        with process(inbox, state) as child:
            assert line(child)[0] == "refused"


@pytest.mark.parametrize("what", ["directory", "link", "pipe"])
def test_something_else_of_that_name(inbox: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.db-lease"
    if what == "directory":
        path.mkdir()
    elif what == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    with (
        FilePoller(inbox, state=tmp_path / "state.db") as poller,
        pytest.raises(StateUnreadable, match="lock file"),
        poller.lease(),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()
    assert leases._files == {}


def test_keys_of_any_consumer_are_offsets() -> None:
    keys = {leases.lease_key("e", "x" * number + "é\udcff") for number in range(1000)}
    assert len(keys) == 1000
    assert all(0 <= key < 2**62 for key in keys)
    assert leases.lease_key("a", "b") != leases.lease_key("b", "b")


# -- PostgreSQL ------------------------------------------------------------------------------------


@pytest.fixture
def admin(postgres_url: str) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


HOLDERS = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name LIKE 'poller lease%'"


@pytest.mark.postgres
def test_a_lost_connection_is_noticed(inbox: Path, postgres_url: str, admin: Any) -> None:
    with FilePoller(inbox, state=postgres_url, consumer="me") as poller:
        with poller.lease() as lease:
            ((pid, name),) = admin.execute(HOLDERS).fetchall()
            assert name == f"poller lease {os.getpid()}@{socket.gethostname()}"
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            assert not lease.held()
            with (
                FilePoller(inbox, state=postgres_url, consumer="me") as other,
                other.lease(PATIENCE) as second,
            ):
                assert second.held()
                assert not lease.held()
        assert free(poller)


@pytest.mark.postgres
def test_no_connection_is_left(inbox: Path, postgres_url: str, admin: Any) -> None:
    def left(count: int) -> None:
        """The server takes a moment to notice that a client is gone."""
        end = time.monotonic() + PATIENCE
        while len(admin.execute(HOLDERS).fetchall()) != count:
            assert time.monotonic() < end
            time.sleep(0.02)

    with FilePoller(inbox, state=postgres_url, consumer="me") as poller:
        with poller.lease():
            assert not free(poller)
            left(1)
        left(0)


@pytest.mark.postgres
def test_names_of_others_are_not_believed(inbox: Path, postgres_url: str) -> None:
    named = f"{postgres_url}&application_name=%1b%5b31mlook"
    with (
        FilePoller(inbox, state=named, consumer="me") as poller,
        FilePoller(inbox, state=postgres_url, consumer="me") as other,
        poller.lease(),
    ):
        with pytest.raises(LeaseHeld) as caught, other.lease():
            pass
        assert "process" not in str(caught.value)
        assert "look" not in str(caught.value)


@pytest.mark.postgres
def test_a_server_that_cannot_be_reached(
    inbox: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FilePoller(inbox, state=postgres_url, consumer="me") as poller:
        database = poller._engine.store.database
        monkeypatch.setitem(database._parameters, "dbname", "nowhere")  # type: ignore[attr-defined]
        monkeypatch.setitem(database._parameters, "password", "geheim")  # type: ignore[attr-defined]
        with pytest.raises(StateUnreadable, match="nowhere") as caught, poller.lease():
            pass
        assert "geheim" not in str(caught.value)


@pytest.mark.postgres
def test_the_target_of_another_schema(inbox: Path, postgres_url: str, admin: Any) -> None:
    """Two states in one database: the same target and consumer, and different leases."""
    admin.execute("CREATE SCHEMA second")
    second = f"{postgres_url}&options=-csearch_path%3Dsecond"
    with (
        FilePoller(inbox, state=postgres_url, consumer="me") as one,
        FilePoller(inbox, state=second, consumer="me") as two,
        one.lease(),
        two.lease(),
    ):
        pass
