"""A burst of files, and server, runner and poller that are killed in the middle of it and started again."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poller_core import make_poller
from tests.services.prefect_host import PrefectHost

__all__ = ["FOLLOWS", "POLLS", "ROOT", "Burst"]

#: What processes find the tests' modules below.
ROOT = Path(__file__).parents[2]

#: Runs what is scheduled, and writes down what each run had: event, run, name.
_RUNNER = """
import json, sys
from prefect import flow
from prefect.runtime import flow_run
from poller_prefect import on_created, take_event
from tests.prefect.inline import run_inline

way, inbox, ledger, state = sys.argv[1:]
# Runs that the poll makes know its state; those of automations have to be told.
given = state if state and way == "triggered" else None

@flow
async def load(event_id: str):
    async with take_event(event_id, state=given) as event:
        line = [event.id, flow_run.id, event.key.decode(errors="surrogateescape")]
        with open(ledger, "a") as file:
            file.write(json.dumps(line) + "\\n")

if __name__ == "__main__":
    triggers = [on_created(inbox)] if way == "triggered" else None
    run_inline((load, load.to_deployment(way, triggers=triggers)))
"""
#: As a service that is always there.
FOLLOWS = """
import json, sys
from poller_prefect import poll_flow

options = json.loads(sys.argv[1])
poll_flow(**options, follow=True, interval=0.5)
"""
#: As a schedule would.
POLLS = """
import json, sys, time
from poller_prefect import poll_flow

options = json.loads(sys.argv[1])
while True:
    try:
        poll_flow(**options, patience=60)
    except Exception as error:
        print("this poll failed:", repr(error))
    time.sleep(0.5)
"""


class Burst:
    """Server, runner and poller, of which any may be killed.

    :param host: of this burst alone; its processes find the tests' modules.
    :param way: ``triggered``; or else the name of the deployment whose runs are made.
    :param inbox: what is polled.
    :param poller: the script.
    :param state: the URL of the state.
    :param options: more arguments of the poll.
    """

    def __init__(
        self,
        host: PrefectHost,
        way: str,
        inbox: Path,
        poller: str,
        state: str,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.host, self.way, self.inbox = host, way, inbox
        self._state, self._poller = state, poller
        self._ledger = inbox.with_name(f"{inbox.name}.ledger")
        self._ledger.touch()
        self._options = {"existing": "report", **(options or {})}
        self._request = {
            "url": str(inbox),
            "run": None if way == "triggered" else f"load/{way}",
            "consumer": way,
            **self._options,
        }
        self.start("runner")
        host.until("the deployment to be there", lambda: host.deployment(f"load/{way}"))
        self.start("poller")

    def start(self, name: str) -> None:
        """Start one of the three."""
        if name == "server":
            self.host.start_server()
        elif name == "runner":
            args = (self.way, str(self.inbox), str(self._ledger), str(self._options.get("state", "")))
            self.host.python(_RUNNER, *args, name="runner")
        else:
            self.host.python(self._poller, json.dumps(self._request), name="poller")

    def again(self, name: str) -> None:
        """Kill one, and start it again; what else runs goes on meanwhile."""
        self.host.kill(name)
        if name == "runner":
            self._restart()
        self.start(name)

    def _restart(self) -> None:
        """Have what the runner left behind run once more, as a person would: nobody else does."""
        for run in self.runs():
            if run["state_type"] in ("PENDING", "RUNNING", "CRASHED", "FAILED"):
                state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
                self.host.ask(
                    "POST", f"flow_runs/{run['id']}/set_state", json={"state": state, "force": True}
                )

    def lines(self) -> list[list[str]]:
        """What runs wrote down: event, run, name."""
        return [json.loads(line) for line in self._ledger.read_text().splitlines()]

    def runs(self) -> list[dict[str, Any]]:
        """All runs that were made."""
        return self.host.flow_runs(deployment=f"load/{self.way}")

    def kill_in_the_middle(self, names: Sequence[str], victims: Sequence[str]) -> None:
        """Files land in as many parts as there are victims; each is killed when some of its part are done."""
        size = -(-len(names) // len(victims))
        for number, victim in enumerate(victims):
            part = names[number * size : (number + 1) * size]
            before = len(self.lines())
            self._land(part[: size // 2])
            self.host.until("some to be done", lambda: len(self.lines()) > before + size // 5)  # noqa: B023
            self._land(part[size // 2 :])
            self.again(victim)

    def _land(self, names: Sequence[str]) -> None:
        for name in names:
            path = self.inbox / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")

    def done(self, number: int, timeout: float = 400) -> list[dict[str, Any]]:
        """Wait until so many runs are completed, the others found their event taken, and none waits.

        What was on its way when the server was killed may be stuck, and then the runner is started again.
        """
        end, best, since = time.monotonic() + timeout, -1, time.monotonic()
        while True:
            runs = self.runs()
            completed = [run for run in runs if run["state_name"] == "Completed"]
            ended = len(completed) + sum(run["state_name"] == "AlreadyTaken" for run in runs)
            waiting = self.waiting()
            if len(completed) >= number and ended == len(runs) and not waiting:
                return completed
            assert time.monotonic() < end, (
                f"{len(completed)} of {number}, {len(runs) - ended} not ended, and {waiting} wait"
            )
            if ended > best:
                best, since = ended, time.monotonic()
            elif time.monotonic() - since > 25 and ended < max(number, len(runs)):
                self.again("runner")
                since = time.monotonic()
            time.sleep(1)

    def waiting(self) -> int:
        """How many events are not acknowledged."""
        options = {**self._options, "state": self._state}
        with make_poller(self.inbox, consumer=self.way, **options) as poller:
            return poller.waiting().count

    def check_that_each_was_done_once(self, names: Sequence[str], completed: list[dict[str, Any]]) -> None:
        """Each event has one run that succeeded, and nothing else has done its work."""
        of_event = Counter(run["parameters"]["event_id"] for run in completed)
        assert set(of_event.values()) == {1}
        had = defaultdict(set)
        for event_id, run_id, name in self.lines():
            had[name].add((event_id, run_id))
        # A run that was killed after it wrote its line has written it twice; but no two runs had one event.
        ids = {(run["parameters"]["event_id"], run["id"]) for run in completed}
        assert sorted(had) == sorted(names)
        assert all(len(pairs) == 1 for pairs in had.values())
        assert set.union(*had.values()) == ids

    def end(self) -> None:
        """End poller and runner, which were well."""
        self.host.check("poller", "runner")
        for name in ("poller", "runner"):
            self.host.kill(name)
