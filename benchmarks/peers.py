"""Other ways to know what is in a tree, measured: each function runs in a process of its own.

A peer that is not installed is left out of the table. What is measured is the
nearest that each has to "look again at a tree that you know".
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from .measure import timed

__all__ = ["available", "glob_once", "watchdog_poll", "watchfiles_start", "watchman_since"]


def available(name: str) -> bool:
    """Whether a peer is there: a module, or a program."""
    return importlib.util.find_spec(name) is not None or shutil.which(name) is not None


def glob_once(root: str) -> dict[str, Any]:
    """A recursive glob and the time of each file: no state, no answer to "what is new"."""
    with timed() as timer:
        names = sum(1 for path in glob.iglob(f"{root}/**", recursive=True) if os.path.getmtime(path) > 0)
    return timer.result(names=names)


def watchdog_poll(root: str) -> dict[str, Any]:
    """What watchdog's polling observer does at each interval: a snapshot, and its difference to the last."""
    from watchdog.utils.dirsnapshot import DirectorySnapshot, DirectorySnapshotDiff

    before = DirectorySnapshot(root)
    with timed() as timer:
        after = DirectorySnapshot(root)
        found = DirectorySnapshotDiff(before, after)
    return timer.result(events=len(found.files_created) + len(found.files_modified))


def watchfiles_start(root: str) -> dict[str, Any]:
    """What watchfiles needs to know the tree, when it polls; what it does then is done in its own thread."""
    import watchfiles._rust_notify as rust

    with timed() as timer, rust.RustNotify([root], False, True, 3_600_000, True, True) as watcher:
        watcher.watch(50, 50, 100, None)
    return timer.result()


def watchman_since(root: str) -> dict[str, Any]:
    """One question to Watchman after its crawl. The time is the daemon's; its memory is told apart."""
    with tempfile.TemporaryDirectory(prefix="watchman-") as place:
        command = [
            "watchman",
            *(f"--{what}={place}/{what}" for what in ("sockname", "statefile", "logfile", "pidfile")),
        ]

        def ask(*query: object) -> dict[str, Any]:
            done = subprocess.run(
                [*command, "-j", "--no-pretty"],
                input=json.dumps(query),
                capture_output=True,
                text=True,
                check=True,
                timeout=900,
            )
            return json.loads(done.stdout)

        try:
            ask("watch", root)
            clock = ask("clock", root, {"sync_timeout": 600_000})["clock"]
            pid = ask("get-pid")["pid"]
            crawl = _cpu_of(pid)
            started = time.perf_counter()
            found = ask("query", root, {"since": clock, "fields": ["name"]})
            wall = time.perf_counter() - started
            cpu, memory = _cpu_of(pid) - crawl, _memory_of(pid)
            return {"cpu": cpu, "wall": wall, "crawl": crawl, "daemon": memory, "events": len(found["files"])}
        finally:
            subprocess.run(
                [*command, "--no-spawn", "shutdown-server"], capture_output=True, check=False, timeout=60
            )


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_of(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
