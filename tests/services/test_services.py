"""The services themselves: what the tests of containers rely on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.services.containers import Box
from tests.services.processes import Ended, HostError, Processes
from tests.services.swift_aio import SwiftAIO


@pytest.mark.parametrize("which", ["box", "ks_box"])
def test_objects(which: str, request: pytest.FixtureRequest) -> None:
    box: Box = request.getfixturevalue(which)
    box.put("a b/\N{SNOWMAN}", b"12345")
    assert box.get("a b/\N{SNOWMAN}").content == b"12345"
    assert [(row["name"], row["bytes"]) for row in box.listing()] == [("a b/\N{SNOWMAN}", 5)]
    box.delete("a b/\N{SNOWMAN}")
    assert box.listing() == []


def test_faults(box: Box) -> None:
    box.put("a", b"x" * 1000)
    with box.aio.fault("proxy", "GET .*/a", status=503, times=1, headers={"Retry-After": "7"}):
        answer = box.ask("GET", "a", ok=(503,))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
        assert box.get("a").status_code == 200
    with box.aio.fault("proxy", "format=json", status=200, body="<html>"):
        assert box.ask("GET", params={"format": "json"}).text == "<html>"
    with (
        box.aio.fault("proxy", "GET .*/a", part=0.5),
        pytest.raises(requests.exceptions.ChunkedEncodingError),
    ):
        box.get("a")
    with (
        box.aio.fault("proxy", "GET .*/a", part=0.5, stall=30),
        pytest.raises(requests.exceptions.ConnectionError, match="timed out"),
    ):
        box.ask("GET", "a", timeout=0.5)
    assert box.get("a").content == b"x" * 1000


def test_requests_are_recorded(box: Box) -> None:
    with box.aio.recorded("proxy") as seen:
        box.ask("GET", params={"format": "json", "marker": "m"})
        assert seen() == [f"GET /v1/AUTH_test/{box.name}?format=json&marker=m"]


def test_late_listings(box: Box) -> None:
    with box.aio.late_listings():
        box.put("late", b"1")
    assert box.head("late").status_code == 200
    assert box.listing() == []
    box.aio.once("object-updater")
    assert [row["name"] for row in box.listing()] == ["late"]


def test_rows_without_objects(box: Box) -> None:
    box.fill([(f"{number:05}", number, "0" * 32, None) for number in range(12_000)])
    assert [row["bytes"] for row in box.listing()] == list(range(12_000))
    box.ask("DELETE", ok=(409,))
    box.name = "another"  # what has no objects need not be deleted one by one


def test_nothing_is_left() -> None:
    with SwiftAIO(keystone=False) as aio:
        folder = Path(aio.env["AIO_RUN"])
        assert folder.is_dir()
        pids = [process.pid for process in aio.procs.values()]
    assert not folder.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# One that starts another, in a session of its own, and is deaf to SIGTERM if told so.
_PARENT = """
import signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def _family(processes: Processes, *args: str) -> list[int]:
    pid = processes.launch("parent", [sys.executable, "-c", _PARENT, *args])
    processes.until("the child to be there", lambda: processes.log("parent"))
    return [pid, int(processes.log("parent"))]


def _gone(pids: list[int], patience: float = 0) -> bool:
    end = time.monotonic() + patience
    while True:
        left = [pid for pid in pids if psutil.pid_exists(pid)]
        left = [pid for pid in left if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not left or time.monotonic() > end:
            return not left
        time.sleep(0.1)


def test_processes(tmp_path: Path) -> None:
    processes = Processes(tmp_path, os.environ)
    pids = _family(processes)
    assert processes.alive("parent")
    with pytest.raises(HostError, match="there is a parent already"):
        processes.launch("parent", ["true"])
    processes.kill("parent")
    assert not processes.alive("parent")
    assert _gone(pids[:1])
    assert not _gone(pids)  # as when it crashes
    processes.down()
    assert _gone(pids)

    processes.launch("brief", ["sh", "-c", "echo so it is; exit 3"])
    with pytest.raises(Ended, match="the brief ended with 3:\nso it is"):
        processes.until("it to end", processes.check)
    processes.launch("brief", ["sleep", "600"])  # the name is free again
    assert processes.stop("brief") == -signal.SIGTERM
    processes.down()


def test_deaf_process(tmp_path: Path) -> None:
    processes = Processes(tmp_path, os.environ)
    pids = _family(processes, "deaf")
    with pytest.raises(HostError, match="did not in 1 s"):
        processes.stop("parent", timeout=1)
    assert _gone(pids[:1])
    processes.down()
    assert _gone(pids)


def test_nothing_is_left_by_one_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from tests.services.processes import Processes
from tests.services.test_services import _family
pids = _family(Processes(pathlib.Path({str(tmp_path)!r}), os.environ))
print(*pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert _gone(pids, patience=10)


_BY_HAND = {
    "postgres": ("poller watch --help >&2 && echo $POLLER_STATE", "postgresql+psycopg://", "PGHOST"),
    "swift_aio": ("swift post inbox >&2 && swift list", "inbox\n", "AIO_RUN"),
}


@pytest.mark.parametrize("name", _BY_HAND)
def test_by_hand(name: str) -> None:
    command, printed, place = _BY_HAND[name]
    # Keystone takes seconds to start, and there are three starts; it is in most tests of containers.
    more = ["--no-keystone"] if name == "swift_aio" else []
    start = [sys.executable, "-m", f"tests.services.{name}", *more]
    for script, status in [(command, 0), ("exit 3", 3)]:
        done = subprocess.run([*start, "--", "sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert done.stdout.startswith(printed) if status == 0 else done.stdout == ""

    # In the background of a script SIGINT is ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        exported = {}
        for line in process.stdout:
            if line.startswith("# ready"):
                break
            variable, _, value = line.removeprefix("export ").strip().partition("=")
            exported[variable] = value.strip("'")
        folder = Path(exported[place])
        assert folder.exists()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        assert process.wait(60) == 0
    assert not folder.exists()
    end = time.monotonic() + 30
    while any(str(folder) in " ".join(_arguments(one)) for one in psutil.process_iter()):
        assert time.monotonic() < end
        time.sleep(0.1)


def _arguments(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []
