"""Processes that look once and end, as from a crontab: together they see what one that stays would.

Where a file's age proves nothing (a fingerprint without ctime, a file server whose clock is its own), a
file has to be seen twice. Each look here is a poller of its own, opened and closed; its clock is that of
this machine, moved by hand, so that hours pass and machines start anew.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poller_core import FilePoller
from poller_core.backends import file
from poller_core.clock import Clock
from tests.faultfs import FaultFileSystem
from tests.races.tools import put

#: A file's age proves nothing.
BLIND = ["size", "mtime"]


class Machine(Clock):
    """A clock that is moved by hand, of a machine that can be started anew."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jumped = 0.0
        self.boot = "first"

    def wall(self) -> float:
        return super().wall() + self.passed + self.jumped

    def monotonic(self) -> float:
        return super().monotonic() + self.passed

    def origin(self) -> str:
        return self.boot


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def look(inbox: Path, tmp_path: Path, machine: Machine) -> Callable[..., list[str]]:
    """What a process that looks once and ends is given."""

    def look(**options: Any) -> list[str]:
        given: dict[str, Any] = {"fingerprint": BLIND, "settle": 60, "existing": "report"}
        where: dict[str, Any] = {"state": tmp_path / "state.db", "clock": machine}
        with FilePoller(inbox, **(given | where | options)) as poller:
            return [f"{event.event} {event.key.decode()}" for event in poller.get_new_events()]

    return look


def test_the_second_look_reports(inbox: Path, machine: Machine, look) -> None:
    put(inbox / "a", "1")
    assert look() == []
    machine.passed += 59
    assert look() == []
    machine.passed += 2
    assert look() == ["created a"]
    assert look() == []


def test_each_subject_waits_for_itself(inbox: Path, machine: Machine, look) -> None:
    put(inbox / "a", "1")
    put(inbox / "b", "1")
    assert look() == []
    machine.passed += 40
    put(inbox / "b", "123")
    put(inbox / "c", "1")
    assert look() == []
    machine.passed += 40
    assert look() == ["created a"]
    machine.passed += 40
    assert look() == ["created b", "created c"]
    put(inbox / "a", "changed")
    (inbox / "b").unlink()
    assert look() == ["deleted b"]
    machine.passed += 61
    assert look() == ["modified a"]


def test_one_that_went_and_came_begins_anew(inbox: Path, machine: Machine, look) -> None:
    put(inbox / "a", "1")
    about = (inbox / "a").stat()
    assert look() == []
    (inbox / "a").unlink()
    machine.passed += 30
    assert look() == []
    put(inbox / "a", "2")
    os.utime(inbox / "a", ns=(about.st_mtime_ns, about.st_mtime_ns))
    machine.passed += 40
    assert look() == []
    machine.passed += 61
    assert look() == ["created a"]


def test_what_can_not_be_listed_stays_held(inbox: Path, machine: Machine, look) -> None:
    (inbox / "sub").mkdir()
    put(inbox / "sub" / "a", "1")
    fs = FaultFileSystem()
    assert look(recurse=True, fs=fs) == []
    machine.passed += 40
    broken = fs.fail("open_dir", b"sub", errno.EIO)
    assert look(recurse=True, fs=fs) == []
    assert broken.hits
    fs.rules.clear()
    machine.passed += 21
    assert look(recurse=True, fs=fs) == ["created sub/a"]


def test_another_start_of_the_machine_knows_nothing_of_it(inbox: Path, machine: Machine, look) -> None:
    put(inbox / "a", "1")
    assert look() == []
    machine.boot = "second"
    machine.passed += 61
    assert look() == []
    # Two machines that look in turns each go by what they saw.
    machine.boot = "first"
    assert look() == ["created a"]


@pytest.mark.parametrize("seconds", [-3600, -2, 2, 3600])
def test_a_clock_that_jumped_proves_nothing(inbox: Path, machine: Machine, look, seconds: float) -> None:
    put(inbox / "a", "1")
    assert look() == []
    machine.jumped += seconds
    machine.passed += 61
    assert look() == []
    machine.passed += 61
    assert look() == ["created a"]


def test_a_machine_that_was_set_back_proves_nothing(inbox: Path, machine: Machine, look) -> None:
    machine.passed += 1000
    put(inbox / "a", "1")
    assert look() == []
    machine.passed -= 500  # a snapshot of a virtual machine, say, with the state elsewhere
    assert look() == []
    machine.passed += 61
    assert look() == ["created a"]


def test_a_machine_of_which_nothing_is_known(inbox: Path, machine: Machine, look, monkeypatch) -> None:
    monkeypatch.setattr(machine, "origin", lambda: None)
    put(inbox / "a", "1")
    for _ in range(3):
        assert look() == []
        machine.passed += 61


def test_the_clock_of_a_file_server(inbox: Path, machine: Machine, look, monkeypatch) -> None:
    # A fake: to mount a network file system takes rights that tests don't have everywhere.
    monkeypatch.setattr(file, "is_remote", lambda fstype: True)
    put(inbox / "a", "1")
    assert look(fingerprint=["size", "mtime", "ctime"], settle=10) == []
    machine.passed += 11
    assert look(fingerprint=["size", "mtime", "ctime"], settle=10) == ["created a"]


def test_one_that_is_killed_leaves_nothing(inbox: Path, machine: Machine, look, tmp_path: Path) -> None:
    code = (
        "import os, sys; from poller_core import FilePoller; "
        "poller = FilePoller(sys.argv[1], state=sys.argv[2], settle=60, fingerprint=['size', 'mtime'], "
        "existing='report'); assert poller.get_new_events() == []; os._exit(9)"
    )
    put(inbox / "a", "1")
    state = f"sqlite:///{tmp_path}/state.db"
    assert subprocess.run([sys.executable, "-c", code, str(inbox), state]).returncode == 9
    machine.passed += 61
    assert look() == []
    machine.passed += 61
    assert look() == ["created a"]


def test_a_look_that_fails_keeps_what_was_left(inbox: Path, machine: Machine, look) -> None:
    put(inbox / "a", "1")
    assert look() == []
    inbox.rename(inbox.with_name("away"))
    machine.passed += 30
    with pytest.raises(Exception, match="is not there"):
        look()
    inbox.with_name("away").rename(inbox)
    machine.passed += 31
    assert look() == ["created a"]


def test_real_processes(inbox: Path, tmp_path: Path) -> None:
    """Nothing is moved by hand: the command, its clock, and a second."""
    command = [sys.executable, "-m", "poller_core.cli", "poll", str(inbox), "--scan", "--settle", "1"]
    command += ["--fingerprint", "size,mtime", "--existing", "report", "--state", str(tmp_path / "state.db")]
    put(inbox / "a", "1")

    def poll() -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert poll() == ""
    time.sleep(1.1)
    assert poll() == f"created  {inbox}/a\n"
    assert poll() == ""
