"""A real Prefect: from a file to a run, and events and runs per second; beside Prefect's own calls.

    python -m benchmarks.prefect --help

Started is a server on loopback, with SQLite, as it comes but for its user interface, telemetry and the loops
that have nothing to do here; it writes events at the latest after 5 s, which is its default. What is measured
and how is told in :mod:`benchmarks.prefect_latency`, :mod:`benchmarks.prefect_events` and
:mod:`benchmarks.prefect_runs`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path

from tests.services.prefect_host import PrefectHost

from . import prefect_events, prefect_latency, prefect_runs
from .hosted import hosted
from .prefect_child import ROOT
from .report import console, note

__all__ = ["main"]

PARTS = ("latency", "events", "runs")
#: How often each is measured; --quick: how often then.
ROUNDS = {"latency": (10, 2), "events": (3, 1), "runs": (3, 1)}
#: Prefect's default, seconds.
FLUSH = 5.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prefect",
        description="What our flow does in a real Prefect, against Prefect's own calls without it. It tells, "
        "and never fails: numbers of one run may be compared with each other, not with those of another "
        "machine.",
    )
    parser.add_argument("--only", choices=PARTS, help="one of the three parts")
    defaults = ", ".join(f"{part} {often}" for part, (often, _) in ROUNDS.items())
    parser.add_argument("--rounds", type=int, help=f"how often each is measured (default: {defaults})")
    parser.add_argument("--quick", action="store_true", help="less of all, to see that it works")
    parser.add_argument(
        "--keep", action="store_true", help="keep Prefect's home, with its logs, and say where"
    )
    given = parser.parse_args()
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds needs a number from 1 on")
    return given


def main() -> None:
    """Run what was asked for."""
    given = _arguments()
    hosted("poller-bench-pf-", "measure inotify", given.keep, lambda work: _run(given, work))


def _run(given: argparse.Namespace, work: Path) -> None:
    console.print(
        f"Prefect {version('prefect')}, SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}, "
        f"Linux {platform.release()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n"
    )
    host = PrefectHost(
        work / "home",
        # The processes that runners start find their flows by module.
        environ={"PYTHONPATH": str(ROOT)},
        flush=FLUSH,
        say=lambda line: note(f"{line} …"),
    )
    wanted = [given.only] if given.only else PARTS
    with host:
        for part in wanted:
            rounds = given.rounds or ROUNDS[part][given.quick]
            if part == "latency":
                # Two numbers are the fewest of which there are quantiles.
                prefect_latency.measured(host, work, max(rounds, 2))
            elif part == "events":
                prefect_events.measured(host, work, rounds, given.quick)
            else:
                prefect_runs.measured(host, work, rounds, given.quick)
        note("stopping Prefect …")


if __name__ == "__main__":
    main()
