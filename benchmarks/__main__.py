"""The command: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from . import beside, inotify, journal, scan, sharing, swift, targets
from .report import console, note
from .trees import SHAPES

PARTS = ("scan", "peers", "beside", "inotify", "sharing", "journal", "swift", "targets")
#: Those that are run where none is named; the last takes ten minutes by itself, mostly of waiting.
USUAL = PARTS[:-1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What the pollers cost, against a bare walk of the same tree and against other watchers. "
        "It tells, and never fails: numbers of one run may be compared with each other, "
        "not with those of another machine.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        metavar="PART",
        help=f"one of {', '.join(PARTS)}; repeatable (default: all but targets)",
    )
    parser.add_argument(
        "--size",
        action="append",
        choices=tuple(SHAPES),
        metavar="TREE",
        help="for scan: "
        + "; ".join(f"{name} ({shape.title})" for name, shape in SHAPES.items())
        + "; repeatable",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="trees of so many times the size (default: 1)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, of which the median is told (default: 3)"
    )
    parser.add_argument("--quick", action="store_true", help="small trees and fewer rounds: about a minute")
    parser.add_argument(
        "--dir",
        type=Path,
        help="where to put the trees, which are kept then (default: a temporary directory)",
    )
    given = parser.parse_args()
    if given.scale <= 0 or given.rounds < 1:
        parser.error("--scale needs a number above 0, --rounds one from 1 on")
    if given.quick:
        given.scale, given.rounds = min(given.scale, 0.05), min(given.rounds, 3)
    return given


def main() -> None:
    """Run what was asked for."""
    given = _arguments()
    if sys.platform != "linux":
        sys.exit("the benchmarks need Linux: they read /proc, and measure inotify")
    began = time.monotonic()
    if given.dir:
        given.dir.mkdir(parents=True, exist_ok=True)
        _run(given, given.dir.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="poller-bench-") as place:
            _run(given, Path(place))
            note("removing the trees …")
    note(f"{time.monotonic() - began:.0f} s in all")


def _run(given: argparse.Namespace, base: Path) -> None:
    parts = given.only or USUAL
    load = os.getloadavg()[0]
    console.print(
        f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} processors, "
        f"load {load:.1f}\nCPU time is user and system; MiB are the peak above a bare interpreter; "
        f"medians of {given.rounds} rounds.\n"
    )
    if "scan" in parts:
        scan.run(base, given.size or tuple(SHAPES), given.scale, given.rounds)
    if "peers" in parts:
        scan.peers(base, given.scale)
    if "beside" in parts:
        beside.run()
    if "inotify" in parts:
        inotify.run(base, given.scale, given.quick)
    if "sharing" in parts:
        sharing.run(base, given.scale)
    if "targets" in parts:
        targets.run(base, given.quick)
    if "journal" in parts:
        journal.run(base, given.quick)
    if "swift" in parts:
        swift.run(base, given.quick, given.rounds)


if __name__ == "__main__":
    main()
