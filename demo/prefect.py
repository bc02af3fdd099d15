"""The demo: a real Prefect starts, a file lands in ``./inbox``, and a flow run works on it.

A server with its UI on loopback, with a fresh home and an SQLite database in a temporary directory,
which is removed at the end. What is watched is ``./inbox`` in this checkout, by the example
``dags_examples/prefect/follow.py``: a poll that follows, and a deployment that it has runs made of. Ends
at Ctrl-C, with all that it started.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from demo.common import EXAMPLES, console, go_on, land, main, row, say
from tests.services.prefect_host import HostError, PrefectHost

EXAMPLE = EXAMPLES / "prefect" / "follow.py"
POLL = "poll-flow/follow"
WORK = "load-at-once/inbox"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def show(host: PrefectHost, run: dict[str, Any]) -> None:
    """What a run did, and the event that it was made for."""
    row("run", f"{run['name']}: {run['state']['name']}")
    row("with", ", ".join(f"{name}={value!r}" for name, value in run["parameters"].items()))

    def printed() -> list[str]:
        return [text for text in host.logs_of(run["id"]).splitlines() if text.startswith("loading")]

    for text in host.until("the run's log", printed, 30) if run["state_type"] == "COMPLETED" else []:
        row("log", text)
    row("page", f"{host.url}/runs/flow-run/{run['id']}")
    made_for = "prefect.flow-run." + run["id"]
    for event in host.until("its event", lambda: host.events(prefix="poller.", related=made_for), 30):
        row("event", f"{event['event']} {event['resource']['url']}")
        row("page", f"{host.url}/events/event/{event['occurred'][:10]}/{event['id']}")


def ended(host: PrefectHost, known: set[str]) -> list[dict[str, Any]]:
    """The runs that have ended and were not shown yet, oldest first."""
    host.check()
    new = [run for run in host.flow_runs(deployment=WORK) if run["state_type"] in FINAL]
    new = [run for run in new if run["id"] not in known]
    known.update(run["id"] for run in new)
    return new


def demo(host: PrefectHost, inbox: Path, once: bool) -> None:
    known: set[str] = set()
    new, told = partial(ended, host, known), partial(show, host)
    say("2. Two deployments are served, and the inbox is watched")
    host.python(EXAMPLE, name="follow")
    host.until("the deployments", lambda: host.deployment(WORK) and host.deployment(POLL), 180)
    # Its schedule would start it within a minute.
    poll = host.run_deployment(POLL)
    host.until("the inbox to be watched", lambda: "Following" in host.logs_of(poll), 180)
    console.print(f"    {inbox}")

    more = land(host, inbox, "A run was made for it", new, told)
    if once:
        return

    say("5. Now you")
    console.print(f"    Prefect's UI:   {host.url}")
    console.print(f"    The feed:       {host.url}/events?events=poller.subject.created")
    console.print(f"    The poll:       {host.url}/runs/flow-run/{poll}")
    go_on(host, inbox, more, new, told)


def make(home: Path, inbox: Path, port: int, told: Callable[[str], None]) -> PrefectHost:
    return PrefectHost(home, port=port, environ={"POLLER_INBOX": str(inbox)}, ui=True, say=told)


if __name__ == "__main__":
    start = "1. Prefect's server starts, with its UI (a quarter of a minute or so)"
    sys.exit(main(__doc__, start, 4200, make, demo, HostError))
