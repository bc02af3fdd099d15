"""Everything is killed in the middle of bursts, and started again: each file has one run that succeeded."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poller_core import make_poller
from tests.prefect.steps import put
from tests.services.prefect_host import PrefectHost

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

#: Runs what is scheduled, and writes down what each run had: event, run, name.
RUNNER = """
import sys
from pathlib import Path
from prefect import flow
from prefect.runtime import flow_run
from poller_prefect import on_created, take_event
from tests.prefect.inline import run_inline

way, inbox, ledger = sys.argv[1:]

@flow
async def load(event_id: str, path: str):
    async with take_event(event_id) as event:
        with open(ledger, "a") as file:
            file.write(f"{event.id} {flow_run.id} {Path(path).name}\\n")

if __name__ == "__main__":
    triggers = [on_created(inbox)] if way == "triggered" else None
    run_inline((load, load.to_deployment(way, triggers=triggers)))
"""
#: As a service that is always there.
FOLLOWS = """
import sys
from poller_prefect import poll_flow

way, inbox = sys.argv[1:]
run = None if way == "triggered" else f"load/{way}"
poll_flow(inbox, run=run, follow=True, interval=0.5, consumer=way, existing="report")
"""
#: As a schedule would.
POLLS = """
import sys, time
from poller_prefect import poll_flow

way, inbox = sys.argv[1:]
while True:
    try:
        poll_flow(inbox, run=f"load/{way}", consumer=way, existing="report", patience=60)
    except Exception as error:
        print("this poll failed:", repr(error))
    time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def host(work: Path) -> Iterator[PrefectHost]:
    """A server of our own, to be killed."""
    folder = work / "killed"
    environ = {"PYTHONPATH": str(ROOT), "POLLER_STATE": f"sqlite:///{folder}/state.db"}
    with PrefectHost(folder / "home", environ=environ) as host:
        yield host


class Life:
    """Server, runner and poller, of which any may be killed."""

    def __init__(self, host: PrefectHost, way: str, inbox: Path, poller: str) -> None:
        self.host, self.way, self.inbox = host, way, inbox
        self.ledger = inbox.parent / f"{inbox.name}.ledger"
        self.ledger.touch()
        self.poller = poller
        self.start("runner")
        host.until("the deployment to be there", lambda: host.deployment(f"load/{way}"))
        self.start("poller")

    def start(self, name: str) -> None:
        if name == "server":
            self.host.start_server()
        elif name == "runner":
            self.host.python(RUNNER, self.way, str(self.inbox), str(self.ledger), name="runner")
        else:
            self.host.python(self.poller, self.way, str(self.inbox), name="poller")

    def again(self, name: str) -> None:
        """Kill one, and start it again; what else runs goes on meanwhile."""
        self.host.kill(name)
        if name == "runner":
            self.restart()
        self.start(name)

    def restart(self) -> None:
        """Have what the runner left behind run once more, as a person would: nobody else does."""
        for run in self.runs():
            if run["state_type"] in ("PENDING", "RUNNING", "CRASHED", "FAILED"):
                state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
                self.host.ask(
                    "POST", f"flow_runs/{run['id']}/set_state", json={"state": state, "force": True}
                )

    def lines(self) -> list[list[str]]:
        """What runs wrote down."""
        return [line.split(" ") for line in self.ledger.read_text().splitlines()]

    def runs(self) -> list[dict[str, Any]]:
        return self.host.flow_runs(deployment=f"load/{self.way}")

    def land(self, names: Iterable[str]) -> None:
        for name in names:
            put(self.inbox / name)

    def kill_in_a_burst(self, names: list[str], victims: list[str]) -> None:
        """Files land in as many parts as there are victims; each is killed when some of its part are done."""
        size = len(names) // len(victims)
        for number, victim in enumerate(victims):
            part = names[number * size : (number + 1) * size]
            before = len(self.lines())
            self.land(part[: size // 2])
            self.host.until("some to be done", lambda: len(self.lines()) > before + size // 5)  # noqa: B023
            self.land(part[size // 2 :])
            self.again(victim)

    def done(self, number: int, timeout: float = 400) -> list[dict[str, Any]]:
        """Wait until so many runs are completed; they.

        What was on its way when the server was killed may be stuck, and then the runner is started again.
        """
        end, best, since = time.monotonic() + timeout, -1, time.monotonic()
        while True:
            completed = [run for run in self.runs() if run["state_name"] == "Completed"]
            waiting = self._waiting()
            if len(completed) >= number and not waiting:
                return completed
            assert time.monotonic() < end, f"{len(completed)} of {number}, and {waiting} wait"
            if len(completed) > best:
                best, since = len(completed), time.monotonic()
            elif time.monotonic() - since > 25 and len(completed) < number:
                self.again("runner")
                since = time.monotonic()
            time.sleep(1)

    def _waiting(self) -> int:
        """How many events are not acknowledged."""
        url = self.host.env["POLLER_STATE"]
        with make_poller(self.inbox, state=url, consumer=self.way) as poller:
            return poller.waiting().count

    def end(self) -> None:
        for name in ("poller", "runner"):
            self.host.kill(name)

    def check_that_each_was_done_once(self, names: list[str], completed: list[dict[str, Any]]) -> None:
        assert sorted(Path(run["parameters"]["path"]).name for run in completed) == names
        assert set(Counter(run["parameters"]["event_id"] for run in completed).values()) == {1}
        had = defaultdict(set)
        for event_id, run_id, name in self.lines():
            had[name].add((event_id, run_id))
        # A run that was killed after it wrote its line has written it twice; but no two runs had one event.
        ids = {(run["parameters"]["event_id"], run["id"]) for run in completed}
        assert sorted(had) == names
        assert all(len(pairs) == 1 and pairs <= ids for pairs in had.values())


@pytest.fixture
def names(request: pytest.FixtureRequest) -> list[str]:
    return [f"file-{number:03}" for number in range(request.param)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("way", "poller", "names", "victims"),
    [
        ("direct", FOLLOWS, 300, ["poller", "server", "runner", "poller", "server", "runner"]),
        ("polled", POLLS, 60, ["poller", "server", "poller"]),
    ],
    ids=["follows", "polls"],
    indirect=["names"],
)
def test_run_per_file(
    host: PrefectHost, inbox: Path, way: str, poller: str, names: list[str], victims: list[str]
) -> None:
    life = Life(host, way, inbox, poller)
    pid = host.pid("poller")
    life.kill_in_a_burst(names, victims)
    completed = life.done(len(names))
    host.check("poller", "runner")
    assert host.pid("poller") != pid
    # None was made twice, whatever was killed: not only none has run twice.
    assert len(life.runs()) == len(names)
    life.check_that_each_was_done_once(names, completed)
    life.end()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", [48], indirect=True)
def test_triggered_run_per_file(host: PrefectHost, inbox: Path, names: list[str]) -> None:
    life = Life(host, "triggered", inbox, FOLLOWS)
    # The runner makes its deployment anew when it starts, and with it the automation, under another id.
    life.kill_in_a_burst(names, ["server", "poller", "runner", "server"])
    completed = life.done(len(names))
    host.check("poller", "runner")
    others = [run for run in life.runs() if run["state_name"] != "Completed"]
    host.until(
        "the others to end",
        lambda: {run["state_name"] for run in life.runs()} <= {"Completed", "AlreadyTaken"},
    )
    print(len(others), "more runs were started, and found their event taken")
    life.check_that_each_was_done_once(names, completed)
    life.end()
