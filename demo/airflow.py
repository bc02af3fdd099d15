"""The demo: a real Airflow starts, a file lands in ``./inbox``, and a run works on it.

API server, scheduler, DAG processor and triggerer on loopback, with a fresh home and an SQLite database
in a temporary directory, which is removed at the end. What is watched is ``./inbox`` in this checkout, by
the example DAG ``dags_examples/airflow/files_by_asset.py``. Ends at Ctrl-C, with all that it started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.services.airflow_host import AirflowHost, HostError, free_port

console = Console(highlight=False, soft_wrap=True)
ROOT = Path(__file__).parent.parent
DAG = "files_by_asset"


def say(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def watched(state: Path) -> bool:
    """Whether the triggerer has had its first look at the inbox: what lands from then on is new."""
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{state}?mode=ro", uri=True)
        try:
            return bool(connection.execute("SELECT 1 FROM poller_consumers").fetchall())
        finally:
            connection.close()
    return False


def show(host: AirflowHost, run: dict[str, Any]) -> None:
    """What a run did."""
    run_id = run["dag_run_id"]
    state = host.task(DAG, run_id, "files")["state"]
    console.print(f"    [green]run[/]   │ {run_id}: {run['state']}")
    if state == "skipped":
        console.print("    [green]files[/] │ none: an earlier run had taken them all")
        return
    for event in host.xcom(DAG, run_id, "files"):
        console.print(f"    [green]files[/] │ {event['event']} {event['path']}, {event['size']} bytes")
    for line in host.task_log(DAG, run_id, "files").splitlines():
        if line.startswith(("Watched:", "Claimed")):
            console.print(f"    [green]log[/]   │ {line}")
    console.print(f"    [green]page[/]  │ {host.url}/dags/{DAG}/runs/{run_id}")


def ended(host: AirflowHost, known: set[str]) -> list[dict[str, Any]]:
    """The runs that have ended and were not shown yet, oldest first."""
    runs = [run for run in host.runs(DAG) if run["state"] in ("success", "failed")]
    new = [run for run in runs if run["dag_run_id"] not in known]
    known.update(run["dag_run_id"] for run in new)
    return sorted(new, key=lambda run: str(run["start_date"]))


def demo(host: AirflowHost, inbox: Path, once: bool) -> None:
    known: set[str] = set()
    say(f"2. The DAG {DAG} is unpaused, and its directory is watched")
    host.pause(DAG, False)
    host.until("the inbox to be watched", lambda: watched(host.home / "poller" / "state.db"), 180)
    console.print(f"    {inbox}")

    say("3. A file lands")
    path = inbox / f"sales-{time.strftime('%H%M%S')}.csv"
    path.write_text("day,sum\n2026-11-23,42\n")
    began = time.monotonic()
    console.print(f"    [cyan]we[/]    │ wrote {path.name}")

    say("4. A run has started with it")
    (run, *more) = host.until("a run to end", lambda: ended(host, known), 180)
    show(host, run)
    console.print(f"    …      │ {time.monotonic() - began:.1f} s from the file to the end of the run")
    if once:
        return

    say("5. Now you")
    console.print(f"    Airflow's UI:   {host.url}   (no login; DAG [bold]{DAG}[/], or Assets → inbox)")
    console.print(f"    Drop more:      cp SOMETHING {inbox}/")
    poller = os.path.relpath(Path(sys.executable).with_name("poller"))
    console.print(f"    What it knows:  {poller} status --state {host.home}/poller/state.db")
    console.print("    Ctrl-C ends it all. Runs are shown here as they end.\n")
    while True:
        for run in [*more, *ended(host, known)]:
            show(host, run)
        more = []
        time.sleep(1)


def port() -> int:
    """Airflow's usual port, or any that is free."""
    import socket

    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", 8080))
            return 8080
    return free_port()


def _leave(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the first run, instead of at Ctrl-C")
    parser.add_argument("--port", type=int, help="of the UI (default: 8080, or any if that is taken)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)

    inbox = Path.cwd() / "inbox"
    there = inbox.exists()
    inbox.mkdir(exist_ok=True)
    before = set(inbox.iterdir())
    home = Path(tempfile.mkdtemp(prefix="poller-demo-"))
    say("1. Airflow starts: API server, scheduler, DAG processor, triggerer (half a minute or so)")
    host = AirflowHost(
        home,
        ROOT / "dags_examples" / "airflow",
        environ={"POLLER_INBOX": str(inbox)},
        port=options.port or port(),
        say=lambda line: console.print(f"    {line}"),
    )
    status = 0
    try:
        with host:
            demo(host, inbox, options.once)
    except KeyboardInterrupt:
        console.print("\nAll services have been stopped.")
    except HostError as error:
        console.print(f"[red]error:[/] {error}", markup=True)
        console.print(f"The services' logs stay in {host.logs}")
        status = 1
    if not status:
        shutil.rmtree(home, ignore_errors=True)
    # What the demo made itself; what somebody else put there stays.
    for path in set(inbox.iterdir()) - before:
        if path.name.startswith("sales-"):
            path.unlink()
    if not there:
        with contextlib.suppress(OSError):
            inbox.rmdir()
    return status


if __name__ == "__main__":
    sys.exit(main())
