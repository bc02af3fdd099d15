"""What a hundred deferred sensors cost the triggerer while nothing happens.

Each kind of sensor has a triggerer of its own, by a queue, and all of them are
watched over the same time, beside one that has no sensor. Memory is the
proportional share of all the triggerer's processes (its supervisor, and the child
in which triggers run), CPU time is theirs as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.services.airflow_host import AirflowHost

from .report import note, table

__all__ = ["prepare", "run"]

COUNT = 100
IDLE = "load_nothing"
PEER = "load_peer"
WAYS = {
    "load_inotify_many": f"ours, inotify, {COUNT} directories",
    "load_inotify_one": "ours, inotify, one directory",
    "load_scan_many": f"ours, scanning, {COUNT} directories",
    "load_scan_one": "ours, scanning, one directory",
    PEER: f"FileSensor, {COUNT} directories",
}
#: Seconds for the triggerers to come to rest.
_REST = 15.0


def prepare(work: Path) -> None:
    """Make the directories, none of them empty."""
    for number in range(COUNT):
        folder = work / "load" / f"{number:03}"
        folder.mkdir(parents=True)
        for name in range(100):
            (folder / f"{name:03}.csv").touch()


@dataclass
class Reading:
    """What a triggerer's processes have and have had so far."""

    memory: float = 0.0  #: MiB, proportional
    resident: float = 0.0  #: MiB, as each process counts it
    cpu: float = 0.0  #: seconds
    threads: int = 0
    watches: int = 0  #: inotify instances


def reading(pid: int) -> Reading:
    """Look at a process and all below it."""
    found = Reading()
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            memory = process.memory_full_info()
            found.memory += memory.pss / 2**20
            found.resident += memory.rss / 2**20
            times = process.cpu_times()
            found.cpu += times.user + times.system
            found.threads += process.num_threads()
            for fd in os.listdir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    found.watches += os.readlink(f"/proc/{process.pid}/fd/{fd}") == "anon_inode:inotify"
    return found


@contextlib.contextmanager
def _triggerers(host: AirflowHost, queues: list[str]) -> Iterator[dict[str, int]]:
    """A triggerer for each queue; their process ids."""
    airflow = Path(sys.executable).with_name("airflow")
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for queue in queues:
            with open(host.logs / f"triggerer-{queue}.log", "ab") as log:
                running[queue] = subprocess.Popen(
                    [str(airflow), "triggerer", "--skip-serve-logs", "--queues", queue],
                    env=host.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        yield {queue: process.pid for queue, process in running.items()}
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            end = time.monotonic() + 15
            for process in running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, end - time.monotonic()))


def run(host: AirflowHost, work: Path, seconds: float) -> None:
    """Measure and print."""
    for way in WAYS:
        host.until(f"DAG {way} to be read", partial(host.get, f"dags/{way}"))
    began = time.monotonic()
    runs = {}
    for way, title in WAYS.items():
        note(f"deferring {COUNT} sensors: {title} …")
        runs[way] = host.trigger(way)
        host.until("all of them to be deferred", partial(_deferred, host, way, runs[way]), 300)
    note(f"{time.monotonic() - began:.0f} s; starting {len(WAYS) + 1} triggerers …")
    with _triggerers(host, [IDLE, *WAYS]) as pids:
        for way, title in WAYS.items():
            host.until(f"all triggers to run: {title}", partial(_watching, work, way), 180)
        time.sleep(_REST)
        note(f"watching them for {seconds:.0f} s …")
        before = {way: reading(pid) for way, pid in pids.items()}
        start = time.monotonic()
        time.sleep(seconds)
        after = {way: reading(pid) for way, pid in pids.items()}
        minutes = (time.monotonic() - start) / 60
        for way, found in after.items():
            found.cpu = (found.cpu - before[way].cpu) / minutes
    for way, run_id in runs.items():
        host.ask("PATCH", f"dags/{way}/dagRuns/{run_id}", json={"state": "failed"})
    _show(after, seconds)


def _deferred(host: AirflowHost, way: str, run_id: str) -> bool:
    found = host.get(f"dags/{way}/dagRuns/{run_id}/taskInstances", state="deferred", limit=1)
    return int(found["total_entries"]) == COUNT


def _watching(work: Path, way: str) -> bool:
    path = work / "notes" / way
    return path.exists() and path.read_text().count("watching") >= COUNT


def _show(found: dict[str, Reading], seconds: float) -> None:
    idle, peer = found[IDLE], found[PEER]
    rows = [["no sensor", f"{idle.memory:.0f}", "", "", f"{idle.cpu:.2f}", "", "", *_counts(idle)]]
    for way, title in WAYS.items():
        one = found[way]
        memory, cpu = one.memory - idle.memory, one.cpu - idle.cpu
        rows.append(
            [
                title,
                f"{one.memory:.0f}",
                f"{memory:.1f}",
                _ratio(memory, peer.memory - idle.memory),
                f"{one.cpu:.2f}",
                f"{cpu:.2f}",
                _ratio(cpu, peer.cpu - idle.cpu),
                *_counts(one),
            ]
        )
    table(
        f"A triggerer with {COUNT} deferred sensors, idle for {seconds:.0f} s",
        ("", "MiB", "above", "of peer's", "CPU s", "above", "of peer's", "threads", "inotify"),
        rows,
        "poke_interval is 5 s everywhere; each directory has 100 files. MiB are proportional shares, CPU "
        "seconds are a minute's, of all processes of a triggerer together; above: one that has no sensor. "
        "inotify: instances of it.",
    )


def _counts(one: Reading) -> list[str]:
    return [str(one.threads), str(one.watches)]


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base > 0 else ""
