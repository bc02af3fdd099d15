"""Leases: one holder at a time, whoever asks from wherever, and none once the holder is gone."""

from __future__ import annotations

import math
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from poller_core import (
    FilePoller,
    InvalidOption,
    LeaseHeld,
    ListingPoller,
    PollerClosed,
    StateUnreadable,
    make_poller,
    pages,
)
from poller_core.state import leases, open_store
from poller_core.state.checks import check_store

ROOT = Path(__file__).parent.parent
#: Nothing that is right takes so long, in seconds.
PATIENCE = 60.0

CHILD = """
import os, sys, time
from poller_core import FilePoller, LeaseHeld

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece: two processes speak

what, place, state, consumer = sys.argv[1:]
with FilePoller(place, state=state, consumer=consumer) as poller:
    try:
        with poller.lease() as lease:
            if what == "fork":
                child = os.fork()
                if not child:
                    say("child", os.getpid(), lease.held())
                    time.sleep(600)
            say("held", os.getpid())
            sys.stdin.readline()
    except LeaseHeld as error:
        say("refused", error)
"""


@pytest.fixture
def poller(inbox: Path, state_url: str) -> Iterator[FilePoller]:
    with FilePoller(inbox, state=state_url, consumer="me") as opened:
        yield opened


@pytest.fixture
def other(inbox: Path, state_url: str) -> Iterator[FilePoller]:
    """Another one of the same target and consumer."""
    with FilePoller(inbox, state=state_url, consumer="me") as opened:
        yield opened


@contextmanager
def process(
    inbox: Path, state_url: str, what: str = "hold", consumer: str = "me", **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lease and keeps it until a line comes in."""
    command = [sys.executable, "-c", CHILD, what, str(inbox), state_url, consumer]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    return child.stdout.readline().split()


def free(poller: ListingPoller) -> bool:
    try:
        with poller.lease() as lease:
            assert lease.held()
            return True
    except LeaseHeld:
        return False


# -- one at a time ---------------------------------------------------------------------------


def test_one_holder_in_a_process(poller: FilePoller, other: FilePoller) -> None:
    with poller.lease() as lease:
        assert lease.held()
        assert not free(other)
        assert not free(poller)
        assert lease.held()
    assert not lease.held()
    assert free(other)


def test_others_are_not_in_the_way(poller: FilePoller, inbox: Path, state_url: str) -> None:
    (inbox / "below").mkdir()
    with (
        poller.lease() as lease,
        FilePoller(inbox, state=state_url, consumer="other") as other_consumer,
        FilePoller(inbox, state=state_url, consumer="me", recurse=True) as other_options,
        FilePoller(inbox / "below", state=state_url, consumer="me") as other_target,
    ):
        with other_consumer.lease() as second, other_options.lease(), other_target.lease():
            assert second.held()
        # What one lets go of is not another one's.
        assert lease.held()
        assert not free(poller)


def test_another_state_has_leases_of_its_own(inbox: Path, tmp_path: Path) -> None:
    with (
        FilePoller(inbox, state=tmp_path / "a.db") as first,
        FilePoller(inbox, state=tmp_path / "b.db") as second,
        first.lease(),
        second.lease(),
    ):
        pass


def test_a_state_of_its_own_always_grants(inbox: Path) -> None:
    with FilePoller(inbox) as one, FilePoller(inbox) as two, one.lease() as lease, two.lease(math.inf):
        assert lease.held()
        lease.release()
        assert not lease.held()


def test_what_it_says(poller: FilePoller, other: FilePoller, inbox: Path, state_url: str) -> None:
    with process(inbox, state_url) as child:
        _, number = line(child)
        with pytest.raises(LeaseHeld) as caught, poller.lease():
            pass
        text = str(caught.value)
        assert "consumer 'me'" in text
        assert f"file://{inbox}" in text
        assert f"process {number} " in text
        assert "simply end" in text
        assert ("this machine" if "sqlite" in state_url else socket.gethostname()) in text
    with poller.lease(), pytest.raises(LeaseHeld, match=f"process {os.getpid()}"), other.lease():
        pass


def test_another_process(poller: FilePoller, inbox: Path, state_url: str) -> None:
    with poller.lease(), process(inbox, state_url) as child:
        assert line(child)[0] == "refused"
    with process(inbox, state_url) as child:
        assert line(child)[0] == "held"
        assert not free(poller)
        # Trying for what another process has does not cost what this one has.
        with FilePoller(inbox, state=state_url, consumer="second") as second, second.lease() as lease:
            assert not free(poller)
            assert lease.held()
            with process(inbox, state_url, consumer="second") as rival:
                assert line(rival)[0] == "refused"
        child.communicate("\n", timeout=PATIENCE)
        assert free(poller)


def test_an_error_in_the_block_frees_it(poller: FilePoller, other: FilePoller) -> None:
    with pytest.raises(ZeroDivisionError), poller.lease():
        raise ZeroDivisionError
    assert free(other)


def test_let_go_early(poller: FilePoller, other: FilePoller) -> None:
    with poller.lease() as lease:
        lease.release()
        assert not lease.held()
        assert free(other)
        lease.release()


def test_the_state_is_sound(poller: FilePoller, state_url: str) -> None:
    with poller.lease(), open_store(state_url) as store:
        assert check_store(store, pages.unpack, pages.keys) == []


# -- ends --------------------------------------------------------------------------------------


def test_killed_holder(poller: FilePoller, inbox: Path, state_url: str) -> None:
    with process(inbox, state_url) as child:
        assert line(child)[0] == "held"
        assert not free(poller)
        child.kill()
        child.wait()
        began = time.monotonic()
        with poller.lease(wait=PATIENCE):
            assert time.monotonic() - began < 5


@pytest.mark.parametrize("point", ["lease.taken"])
def test_killed_as_it_is_taken(poller: FilePoller, inbox: Path, state_url: str, point: str) -> None:
    with process(inbox, state_url, env={**os.environ, "POLLER_CRASH_AT": point}) as child:
        assert child.wait(PATIENCE) == 137
        with poller.lease(wait=PATIENCE):
            pass


def test_killed_holder_whose_child_lives_on(poller: FilePoller, inbox: Path, state_url: str) -> None:
    with process(inbox, state_url, "fork") as child:
        said = {words[0]: words[1:] for words in (line(child), line(child))}
        number, held = said["child"]
        try:
            assert held == "False"
            assert not free(poller)
            child.kill()
            child.wait()
            with poller.lease(wait=PATIENCE):
                os.kill(int(number), 0)  # it is there
        finally:
            os.kill(int(number), signal.SIGKILL)


def test_fork(poller: FilePoller, other: FilePoller, inbox: Path, state_url: str) -> None:
    with poller.lease() as lease:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                assert not lease.held()
                assert not free(other)
                lease.release()
                poller.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert lease.held()
        with process(inbox, state_url) as child:
            assert line(child)[0] == "refused"
    # A child may have one of its own.
    pid = os.fork()
    if not pid:
        os._exit(0 if free(poller) else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_nothing_is_left_open(poller: FilePoller) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    assert free(poller)
    before = opened()
    for _ in range(5):
        with poller.lease():
            assert not free(poller)
    assert opened() == before
    assert leases._files == {}


# -- waiting -----------------------------------------------------------------------------------


def test_waiting_takes_over(poller: FilePoller, other: FilePoller) -> None:
    taken = threading.Event()

    def wait() -> None:
        with other.lease(math.inf):
            taken.set()

    thread = threading.Thread(target=wait)
    with poller.lease():
        thread.start()
        assert not taken.wait(0.3)
    assert taken.wait(PATIENCE)
    thread.join()


@pytest.mark.parametrize("wait", [0.3, timedelta(seconds=0.3)])
def test_waiting_ends(poller: FilePoller, other: FilePoller, wait: Any) -> None:
    with poller.lease():
        began = time.monotonic()
        with pytest.raises(LeaseHeld), other.lease(wait):
            pass
        assert 0.3 <= time.monotonic() - began < 5


def test_closing_the_poller_ends_the_wait(poller: FilePoller, other: FilePoller) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            with other.lease(math.inf):
                pass
        except PollerClosed as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    with poller.lease():
        thread.start()
        time.sleep(0.2)
        began = time.monotonic()
        other.close()
        thread.join(PATIENCE)
        assert time.monotonic() - began < 5
    assert len(errors) == 1
    with pytest.raises(PollerClosed), other.lease():
        pass


@pytest.mark.parametrize("wait", [-1, math.nan, -math.inf, "1", None, True])
def test_waits_that_cannot_be(poller: FilePoller, wait: Any) -> None:
    with pytest.raises(InvalidOption, match="wait="), poller.lease(wait):
        pass
    assert free(poller)


def test_many_want_it(inbox: Path, state_url: str) -> None:
    """Never two at once, and each has its turn."""
    inside: list[int] = []
    most: list[int] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with FilePoller(inbox, state=state_url, consumer="me") as poller:
                for _ in range(3):
                    with poller.lease(PATIENCE):
                        inside.append(number)
                        most.append(len(inside))
                        time.sleep(0.005)
                        inside.remove(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert most == [1] * 12


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
