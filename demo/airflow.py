"""The demo: a real Airflow starts, a file lands in ``./inbox``, and a run works on it.

API server, scheduler, DAG processor and triggerer on loopback, with a fresh home and an SQLite database
in a temporary directory, which is removed at the end. What is watched is ``./inbox`` in this checkout, by
the example DAG ``dags_examples/airflow/files_by_asset.py``. Ends at Ctrl-C, with all that it started.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from demo.common import EXAMPLES, console, go_on, land, main, row, say, watched
from tests.services.airflow_host import AirflowHost, HostError

DAG = "files_by_asset"


def show(host: AirflowHost, run: dict[str, Any]) -> None:
    """What a run did."""
    run_id = run["dag_run_id"]
    state = host.task(DAG, run_id, "files")["state"]
    row("run", f"{run_id}: {run['state']}")
    if state == "skipped":
        row("files", "none: an earlier run had taken them all")
        return
    for event in host.xcom(DAG, run_id, "files"):
        row("files", f"{event['event']} {event['path']}, {event['size']} bytes")
    for text in host.task_log(DAG, run_id, "files").splitlines():
        if text.startswith(("Watched:", "Claimed")):
            row("log", text)
    row("page", f"{host.url}/dags/{DAG}/runs/{run_id}")


def ended(host: AirflowHost, known: set[str]) -> list[dict[str, Any]]:
    """The runs that have ended and were not shown yet, oldest first."""
    runs = [run for run in host.runs(DAG) if run["state"] in ("success", "failed")]
    new = [run for run in runs if run["dag_run_id"] not in known]
    known.update(run["dag_run_id"] for run in new)
    return sorted(new, key=lambda run: str(run["start_date"]))


def demo(host: AirflowHost, inbox: Path, once: bool) -> None:
    known: set[str] = set()
    new, told = partial(ended, host, known), partial(show, host)
    say(f"2. The DAG {DAG} is unpaused, and its directory is watched")
    host.pause(DAG, False)
    host.until("the inbox to be watched", lambda: watched(host.home / "poller" / "state.db"), 180)
    console.print(f"    {inbox}")

    more = land(host, inbox, "A run has started with it", new, told)
    if once:
        return

    say("5. Now you")
    console.print(f"    Airflow's UI:   {host.url}   (no login; DAG [bold]{DAG}[/], or Assets → inbox)")
    go_on(host, inbox, more, new, told)


def make(home: Path, inbox: Path, port: int, told: Callable[[str], None]) -> AirflowHost:
    return AirflowHost(home, EXAMPLES / "airflow", environ={"POLLER_INBOX": str(inbox)}, port=port, say=told)


if __name__ == "__main__":
    start = "1. Airflow starts: API server, scheduler, DAG processor, triggerer (half a minute or so)"
    sys.exit(main(__doc__, start, 8080, make, demo, HostError))
