"""What the tests of the Airflow adapter share."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.services.airflow_host import AirflowHost

__all__ = ["consumers", "found_in", "ledger", "poller_command", "put", "watched"]


def put(path: Path, text: str = "x") -> None:
    """Have a file land: whole, at once."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.rename(path)


def consumers(state: Path) -> dict[str, int]:
    """The consumers in an SQLite state, and how far each has got, read from the database itself."""
    if not state.exists():
        return {}
    connection = sqlite3.connect(f"file:{state}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT name, seq FROM poller_consumers").fetchall())
    except sqlite3.OperationalError:
        return {}  # it is being made
    finally:
        connection.close()


def watched(host: AirflowHost, dag: str, state: Path, consumer: str) -> None:
    """Have the DAG's asset watched, and its consumer made: what comes from now on is new."""
    host.pause(dag, False)
    host.until(f"consumer {consumer} to be there", lambda: consumer in consumers(state))


def ledger(work: Path, dag: str) -> list[tuple[str, str, str, str]]:
    """What the runs of a DAG did, by the task ``work`` of the tests' DAGs: run, event id, event, key."""
    found: list[Any] = []
    for path in (work / "ledgers" / dag).glob("[!.]*"):
        found += [tuple(line.split(" ")) for line in path.read_text().splitlines()]
    return found


def poller_command(host: AirflowHost, command: str) -> str:
    """The shell command ``poller``, in Airflow's environment."""
    done = subprocess.run(
        [sys.executable, "-m", "poller_core.cli", *command.split(" ")],
        env={**host.env, "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def found_in(folder: Path, words: list[str]) -> list[str]:
    """Which files below a directory hold one of the words, as it is or encoded, and which."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [f"{path}: {word}" for word in words if word.encode() in content]
    return found
