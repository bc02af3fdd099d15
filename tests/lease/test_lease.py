"""Leases: one holder at a time, whoever asks from wherever, and none once the holder is gone."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from poller_core import FilePoller, InvalidOption, LeaseHeld, PollerClosed, pages
from poller_core.state import leases, open_store
from poller_core.state.checks import check_store
from tests.lease.tools import PATIENCE, free, line, process

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
