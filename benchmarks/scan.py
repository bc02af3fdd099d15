"""Listing: ours against the bare walk of the same tree, and the peers.

CPU time as a multiple of the bare walk's in the same round. "First look" takes
the tree as the baseline; "restart" opens a known state and looks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .measure import Job, Result, interleaved, measure
from .peers import available
from .report import at_most, note, table
from .trees import Tree, build, change, tally

__all__ = ["peers", "run"]

#: Unchanged, 0.1 % changed, first look.
BARS = {"wide": (1.20, 1.5, 1.3), "flat": (1.25, 1.4, 1.4), "deep": (1.6, 1.8, 2.0)}
#: MiB above the interpreter, and bytes of state per entry.
MEMORY, DISK = 40.0, 100.0

_COLUMNS = ("", "CPU s", "of the bare walk", "bar", "MiB", "bar", "events")


def run(base: Path, shapes: Sequence[str], scale: float, rounds: int) -> None:
    """Measure the shapes, one after the other."""
    for name in shapes:
        note(f"building {name} …")
        tree = build(base, name, scale)
        with tempfile.TemporaryDirectory(prefix="state-", dir=base) as place:
            _measure(tree, Path(place), rounds)


def _measure(tree: Tree, place: Path, rounds: int) -> None:
    root, known, new = str(tree.root), place / "known.db", place / "new.db"
    seeds = iter(range(1, 1000))

    def spread() -> None:
        change(tree, 0.001, next(seeds))
        time.sleep(0.1)  # old enough to be told at once

    def afresh() -> None:
        for left in place.glob(f"{new.name}*"):
            left.unlink()

    note(f"measuring {tree.title} …")
    measure("ours:first_look", root=root, state=str(known))
    size = sum(file.stat().st_size for file in place.glob(f"{known.name}*"))
    found = interleaved(
        rounds,
        {
            "bare walk": Job("bare:walk", {"root": root}),
            "unchanged": Job("ours:poll", {"root": root, "state": str(known)}),
            "restart": Job("ours:restart", {"root": root, "state": str(known)}),
            "0.1 % changed": Job("ours:poll", {"root": root, "state": str(known)}, spread),
            "first look": Job("ours:first_look", {"root": root, "state": str(new)}, afresh),
            "restart, inotify": Job("ours:restart", {"root": root, "state": str(known), "watch": True}),
        },
    )
    afresh()
    found["first look, all reported"] = _against(
        found["bare walk"], measure("ours:report_all", root=root, state=str(new))
    )
    _show(tree, found, size)


def _against(base: Result, result: Result) -> Result:
    return Result(result.cpu, result.wall, result.peak, result.cpu / base.cpu, result.more)


def _show(tree: Tree, found: Mapping[str, Result], size: int) -> None:
    bars = dict(zip(("unchanged", "0.1 % changed", "first look"), BARS[tree.name], strict=True))
    # No slower than a poll; what noise of the machine remains in a median is let pass.
    bars["restart"] = found["unchanged"].ratio * 1.05
    rows = []
    for name, result in found.items():
        ratio = at_most(result.ratio, bars[name]) if name in bars else (f"{result.ratio:.2f}", "")
        ours = name != "bare walk" and "inotify" not in name
        memory = at_most(result.peak, MEMORY, "{:.0f}") if ours else (f"{result.peak:.0f}", "")
        rows.append([name, f"{result.cpu:.2f}", *ratio, *memory, str(result.more.get("events", ""))])
    per_entry, bar = at_most(size / tree.shape.entries, DISK, "{:.1f}")
    table(
        tree.title,
        _COLUMNS,
        rows,
        f"State on disk: {per_entry} bytes per entry ({bar}). {tally(tree):,} names are listed.",
    )


def peers(base: Path, scale: float) -> None:
    """One poll of an unchanged tree by the peers."""
    tree = build(base, "wide", scale)
    root = str(tree.root)
    with tempfile.TemporaryDirectory(prefix="state-", dir=base) as place:
        state = f"{place}/state.db"
        measure("ours:first_look", root=root, state=state)
        jobs = {
            "bare walk": Job("bare:walk", {"root": root}),
            "FilePoller": Job("ours:poll", {"root": root, "state": state}),
            "glob, no state": Job("peers:glob_once", {"root": root}),
        }
        if available("watchdog"):
            jobs["watchdog, snapshot and difference"] = Job("peers:watchdog_poll", {"root": root})
        if available("watchfiles"):
            jobs["watchfiles, polling: its start"] = Job("peers:watchfiles_start", {"root": root})
        if available("watchman"):
            jobs["Watchman, since (after its crawl)"] = Job("peers:watchman_since", {"root": root})
        note("measuring the peers …")
        found = interleaved(1, jobs)
    rows = [
        [
            name,
            f"{result.cpu:.2f}",
            f"{result.ratio:.2f}",
            f"{result.wall:.3f}",
            f"{result.more.get('daemon', result.peak):.0f}",
            f"{result.more['crawl']:.1f}" if "crawl" in result.more else "",
        ]
        for name, result in found.items()
    ]
    table(
        f"Peers: {tree.title}, nothing changed (one run of each)",
        ("", "CPU s", "of the bare walk", "wall s", "MiB", "crawl, CPU s"),
        rows,
    )
