"""A real Airflow: from a file to a task, and what a hundred sensors cost; against the standard provider.

    python -m benchmarks.airflow --help

Started are all of Airflow's services, on loopback, with SQLite for its metadata.
What is measured is written down by the triggers and tasks themselves
(:mod:`benchmarks.airflow_noted`); how scanning is had is told in
:mod:`benchmarks.airflow_ours`.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

from tests.services.airflow_host import AirflowHost

from . import airflow_latency, airflow_load
from .hosted import hosted
from .report import console, note

__all__ = ["main"]

PARTS = ("latency", "load")
HERE = Path(__file__).parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.airflow",
        description="What our sensor and asset cost in a real Airflow, against those of Airflow's standard "
        "provider. It tells, and never fails: numbers of one run may be compared with each other, "
        "not with those of another machine.",
    )
    parser.add_argument("--only", choices=PARTS, help="one of the two parts")
    parser.add_argument(
        "--rounds", type=int, default=10, help="files for each way to wait for them (default: 10)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="how long the idle triggerers are watched (default: 60)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep Airflow's home, with its logs, and say where"
    )
    given = parser.parse_args()
    if given.rounds < 2 or given.seconds <= 0:
        parser.error("--rounds needs a number from 2 on, --seconds one above 0")
    return given


def main() -> None:
    """Run what was asked for."""
    given = _arguments()
    hosted("poller-bench-af-", "read /proc, and measure inotify", given.keep, lambda work: _run(given, work))


def _run(given: argparse.Namespace, work: Path) -> None:
    console.print(
        f"Airflow {version('apache-airflow')}, Python {platform.python_version()}, "
        f"Linux {platform.release()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n"
    )
    (work / "notes").mkdir()
    airflow_latency.prepare(work)
    airflow_load.prepare(work)
    host = AirflowHost(
        work / "home",
        HERE / "airflow_dags",
        settings={
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
            # Each load has a triggerer of its own, by a queue.
            "TRIGGERER__QUEUES_ENABLED": "True",
        },
        environ={
            "POLLER_BENCH_WORK": str(work),
            "PYTHONPATH": str(HERE.parent),
            "AIRFLOW_CONN_FS_DEFAULT": '{"conn_type": "fs"}',
        },
        say=lambda line: note(f"{line} …"),
    )
    with host:
        # The load first: the assets of the other part are not watched yet, then.
        if given.only != "latency":
            airflow_load.run(host, work, given.seconds)
        if given.only != "load":
            airflow_latency.run(host, work, given.rounds)
        note("stopping Airflow …")


if __name__ == "__main__":
    main()
