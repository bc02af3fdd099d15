"""What comes twice, or is broken off: one run has an event, and nothing is lost that was on its way."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from poller_core import make_poller
from tests.prefect.burst import ROOT
from tests.prefect.steps import put
from tests.services.prefect_host import PrefectHost

pytestmark = pytest.mark.slow

#: Runs what is scheduled, in its own process: :mod:`tests.prefect.inline`.
INLINE = """
import os, sys
from pathlib import Path
from prefect import flow
from prefect.runtime import flow_run
from poller_prefect import on_created, poll_flow, take_event
from tests.prefect.inline import run_inline

boxes, ledger = sys.argv[1:]

@flow
async def take(event_id: str):
    async with take_event(event_id) as event:
        with open(ledger, "a") as file:
            file.write(f"{event.id} {flow_run.id} {event.key.decode()}\\n")

if __name__ == "__main__":
    run_inline(
        (take, take.to_deployment("direct")),
        (take, take.to_deployment("triggered", triggers=[on_created(f"{boxes}/cancelled")])),
        (poll_flow, poll_flow.to_deployment("inline")),
    )
"""
#: As users run it: a process for each run.
SERVED = """
import os, sys
from pathlib import Path
from prefect import flow, serve
from prefect.runtime import flow_run
from poller_prefect import poll_flow, take_event

ledger = Path(os.environ["LEDGER_OF_DIES"])

@flow
def dies(event_id: str):
    with take_event(event_id) as event:
        first = not ledger.exists()
        with open(ledger, "a") as file:
            file.write(f"{event.id} {flow_run.id} {event.key.decode()}\\n")
        if first:
            os._exit(3)

if __name__ == "__main__":
    serve(dies.to_deployment("served"), poll_flow.to_deployment("served"))
"""
#: Polls once, at a moment that is told on the command line.
ONCE = """
import sys, time
from poller_prefect import poll_flow

inbox, run, start = sys.argv[1:]
time.sleep(max(0.0, float(start) - time.time()))
state = poll_flow(inbox, run=run, consumer="both", return_state=True)
print("ENDED", state.name, state.message)
"""


@pytest.fixture(scope="module")
def boxes(work: Path) -> Path:
    folder = work / "again" / "boxes"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def host(work: Path, boxes: Path) -> Iterator[PrefectHost]:
    """A server of our own, to be killed, and what runs what it has scheduled."""
    folder = work / "again"
    environ = {
        "PYTHONPATH": str(ROOT),
        "POLLER_STATE": f"sqlite:///{folder}/state.db",
        "LEDGER_OF_DIES": str(folder / "dies"),
    }
    with PrefectHost(folder / "home", environ=environ) as host:
        inline(host, boxes)
        host.until("the deployments to be there", lambda: host.deployment("poll-flow/inline"))
        yield host


def inline(host: PrefectHost, boxes: Path) -> None:
    host.python(INLINE, str(boxes), str(boxes.parent / "ledger"), name="inline")


def lines(host: PrefectHost, box: str) -> list[list[str]]:
    """What runs wrote down of the files of a box, whose names begin with its."""
    ledger = host.home.parent / "ledger"
    found = [line.split(" ") for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return [line for line in found if line[2].startswith(box)]


def box_of(host: PrefectHost, boxes: Path, name: str) -> Path:
    """A directory, which its consumer, called as it, has seen already."""
    (boxes / name).mkdir()
    with make_poller(boxes / name, state=host.env["POLLER_STATE"], consumer=name) as poller:
        poller.next_batch()
    return boxes / name


def poll(host: PrefectHost, box: Path, deployment: str = "poll-flow/inline", **more: Any) -> str:
    """Have a poll run by a deployment; the id of its run."""
    return host.run_deployment(deployment, {"url": str(box), "consumer": box.name, **more})


def waiting(host: PrefectHost, box: Path) -> int:
    with make_poller(box, state=host.env["POLLER_STATE"], consumer=box.name) as poller:
        return poller.waiting().count


def test_event_that_is_sent_ten_times(host: PrefectHost, boxes: Path) -> None:
    """Runs made by hand, with our key and without, before and after the server was killed."""
    box = box_of(host, boxes, "ten")
    put(box / "ten-1")
    assert host.finished(poll(host, box, run="take/direct")) == "Completed: 1 new"
    (first,) = host.until("its run", lambda: host.flow_runs(deployment="take/direct"))
    event = first["parameters"]["event_id"]
    assert host.finished(first["id"]) == "Completed"
    again = [host.run_deployment("take/direct", {"event_id": event}) for _ in range(4)]
    assert [host.finished(run) for run in again] == ["AlreadyTaken"] * 4
    host.kill_server()
    host.start_server()
    again = [host.run_deployment("take/direct", {"event_id": event}) for _ in range(5)]
    assert [host.finished(run) for run in again] == ["AlreadyTaken"] * 5
    key = f"poller/ten/{event}"
    assert host.run_deployment("take/direct", {"event_id": event}, idempotency_key=key) == first["id"]
    assert [line[:2] for line in lines(host, "ten")] == [[event, first["id"]]]
    assert f"{first['id']}" in host.run(again[0])["state"]["message"]


def test_two_pollers_at_one_instant(host: PrefectHost, boxes: Path) -> None:
    """Processes that start together, again and again: each file has one run, and none is left over."""
    box = box_of(host, boxes, "both")
    names = []
    for number in range(3):
        new = [f"both-{number}-{index}" for index in range(5)]
        for name in new:
            put(box / name)
        names += new
        start = str(time.time() + 6)
        for which in ("one", "two"):
            host.python(ONCE, str(box), "take/direct", start, name=f"poller-{which}")
        for which in ("one", "two"):
            host.until("it to end", lambda: not host.alive(f"poller-{which}"))  # noqa: B023
        assert waiting(host, box) == 0
    host.until("all runs", lambda: len(lines(host, "both")) >= len(names))
    ends = [
        line
        for which in ("one", "two")
        for line in host.log(f"poller-{which}").splitlines()
        if line.startswith("ENDED")
    ]
    assert len(ends) == 6
    assert {line.split(" ")[1] for line in ends} <= {"Completed:", "Completed", "AlreadyPolled"}
    assert sorted(line[2] for line in lines(host, "both")) == sorted(names)
    runs = [
        run for run in host.flow_runs(deployment="take/direct") if run["name"].startswith("created both-")
    ]
    assert len(runs) == len(names)


def test_cancelled_while_it_waits(host: PrefectHost, boxes: Path) -> None:
    """The server takes events, but runs no automation; a poll that waits for that is cancelled."""
    box = box_of(host, boxes, "cancelled")
    host.kill_server()
    host.env["PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED"] = "false"
    host.start_server()
    host.python(SERVED, name="served")
    host.until("the deployment to be there", lambda: host.deployment("poll-flow/served"))
    put(box / "cancelled-1")
    run = poll(host, box, "poll-flow/served")
    sent = "poller.subject.created"
    host.until("the event to be stored", lambda: host.events(sent, resource=f"poller.subject.file://{box}/*"))
    time.sleep(2)
    assert host.state_of(run) == "Running"
    host.ask("POST", f"flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})
    assert host.finished(run) == "Cancelled"
    assert (waiting(host, box), lines(host, "cancelled")) == (1, [])

    host.kill_server()
    del host.env["PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED"]
    host.start_server()
    assert host.finished(poll(host, box), 240) == "Completed: 1 new"
    host.until("its run", lambda: lines(host, "cancelled"))
    assert waiting(host, box) == 0
    assert len(host.events(sent, resource=f"poller.subject.file://{box}/*")) == 1
    (made,) = host.flow_runs(deployment="take/triggered")
    assert [line[1:] for line in lines(host, "cancelled")] == [[made["id"], "cancelled-1"]]
    host.stop("served")


def test_flow_that_dies_has_its_event_again(host: PrefectHost, boxes: Path) -> None:
    """Once its process is gone: a retry of the run has the same event, and a new run has none."""
    box, ledger = box_of(host, boxes, "dies"), boxes.parent / "dies"
    host.python(SERVED, name="served")
    host.until("the deployment to be there", lambda: host.deployment("dies/served"))
    put(box / "dies-1")
    assert host.finished(poll(host, box, run="dies/served")) == "Completed: 1 new"
    (run,) = host.flow_runs(deployment="dies/served")
    assert host.finished(run["id"]) == "Crashed"
    other = host.run_deployment("dies/served", run["parameters"])
    assert host.finished(other) == "AlreadyTaken"
    state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    host.ask("POST", f"flow_runs/{run['id']}/set_state", json={"state": state, "force": True})
    assert host.finished(run["id"]) == "Completed"
    event = run["parameters"]["event_id"]
    assert ledger.read_text() == f"{event} {run['id']} dies-1\n" * 2
    host.stop("served")


def opened(host: PrefectHost) -> bool:
    """Whether a poll, of those that run inline, has its state open."""
    files = psutil.Process(host.pid("inline")).open_files()
    return any(Path(file.path).name.startswith("state.db") for file in files)


@pytest.fixture
def held(
    host: PrefectHost, boxes: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A box, and its state, which somebody keeps locked: a poll of it waits, before it asks the server."""
    box = box_of(host, boxes, request.node.name.replace("test_", ""))
    put(box / f"{box.name}-1")
    with closing(sqlite3.connect(host.home.parent / "state.db", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield box, lock


def test_server_that_is_away_for_long(host: PrefectHost, held: tuple[Path, sqlite3.Connection]) -> None:
    box, lock = held
    run = poll(host, box, run="take/direct", patience=1)
    host.until("the poll to begin", lambda: opened(host))
    host.kill_server()
    lock.execute("ROLLBACK")
    host.until("it to give up", lambda: "did not answer for 1 s" in host.log("inline"), 45)
    host.start_server()
    assert host.finished(run, 240) == "Failed"
    message = host.run(run)["state"]["message"]
    says = (
        r"ServerAway: (reading|creating) .*: Prefect's API did not answer for 1 s \(.*\)\. Nothing is lost; "
    )
    assert re.match(says, message)
    assert host.finished(poll(host, box, run="take/direct")) == "Completed: 1 new"
    host.until("its run", lambda: lines(host, box.name))


def test_server_that_is_away_for_some_seconds(
    host: PrefectHost, held: tuple[Path, sqlite3.Connection]
) -> None:
    box, lock = held
    run, before = poll(host, box, run="take/direct", patience=120), len(host.log("inline"))
    host.until("the poll to begin", lambda: opened(host))
    host.kill_server()
    lock.execute("ROLLBACK")
    host.until("it to be told", lambda: "Prefect's API is away (" in host.log("inline")[before:])
    time.sleep(3)
    host.start_server()
    assert host.finished(run, 240) == "Completed: 1 new"
    host.until("its run", lambda: lines(host, box.name))
    assert waiting(host, box) == 0


def test_no_server_at_all(host: PrefectHost, boxes: Path) -> None:
    """Called as a function: Prefect says itself that there is none, and what landed waits."""
    box = box_of(host, boxes, "nobody")
    put(box / "nobody-1")
    host.kill_server()
    host.python(ONCE, str(box), "take/direct", "0", name="poller-nobody")
    host.until("it to end", lambda: not host.alive("poller-nobody"))
    assert f"RuntimeError: Failed to reach API at {host.api}" in host.log("poller-nobody")
    host.start_server()
    assert host.finished(poll(host, box, run="take/direct")) == "Completed: 1 new"
    host.until("its run", lambda: lines(host, "nobody"))
