"""One measurement, one process: so that none pays for, or profits from, what ran before it.

Guarantees: CPU time is that of the whole process, all its threads included (user
and system); the peak of memory is that of this process alone, above that of a
bare interpreter. Runs that are compared with each other are interleaved, and the
median is told, so that a slow minute of the machine hits all of them alike.

Run as a program (``python -m benchmarks.measure module:function``, arguments as
JSON on standard input) this module is the inside of such a process.
"""

from __future__ import annotations

import gc
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

__all__ = ["Job", "Result", "Timer", "interleaved", "measure", "timed"]

_LONGEST = 1800


@dataclass
class Timer:
    """What a part of the program took, in seconds."""

    cpu: float = 0.0
    wall: float = 0.0

    def result(self, **more: Any) -> dict[str, Any]:
        """What a measured function returns."""
        return {"cpu": self.cpu, "wall": self.wall, **more}


@contextmanager
def timed(collect: bool = True) -> Iterator[Timer]:
    """Measure the block.

    :param collect: collect garbage before; not for what takes but a moment, as that empties the caches.
    """
    timer = Timer()
    if collect:
        gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield timer
    finally:
        timer.cpu = time.process_time() - cpu
        timer.wall = time.perf_counter() - wall


@dataclass(frozen=True)
class Result:
    """What a process told."""

    cpu: float  #: seconds, user and system
    wall: float  #: seconds
    peak: float  #: MiB above a bare interpreter
    ratio: float = 1.0  #: CPU time against that of the first job of the same round
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A function to be measured: ``module:name`` below this package, and its arguments."""

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[], object] | None = None  #: called in the parent before each run


def measure(function: str, **arguments: Any) -> Result:
    """Run the function in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", function],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr.strip()}")
    told = json.loads(done.stdout.splitlines()[-1])
    cpu, wall, peak = told.pop("cpu", 0.0), told.pop("wall", 0.0), told.pop("peak")
    return Result(cpu, wall, peak - _bare_interpreter(), more=told)


def interleaved(rounds: int, jobs: Mapping[str, Job]) -> dict[str, Result]:
    """Run all jobs in turn, so many times over; the median of each of their numbers.

    Ratios are taken within a round, against the first job, and then their median.
    """
    found: dict[str, list[Result]] = {name: [] for name in jobs}
    for _ in range(rounds):
        base = 0.0
        for name, job in jobs.items():
            if job.before is not None:
                job.before()
            result = measure(job.function, **job.arguments)
            base = base or result.cpu
            found[name].append(replace(result, ratio=result.cpu / base))
    return {name: _median(results) for name, results in found.items()}


def _median(results: list[Result]) -> Result:
    numbers = ("cpu", "wall", "peak", "ratio")
    middle = {name: statistics.median(getattr(one, name) for one in results) for name in numbers}
    return replace(results[-1], **middle)


# The kernel's own high-water mark. What getrusage() gives would also count the parent, until its exec.
_PEAK = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"


@cache
def _bare_interpreter() -> float:
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def _peak() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def _main() -> None:
    module, _, name = sys.argv[1].partition(":")
    arguments = json.load(sys.stdin)
    told = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)
    print(json.dumps({**told, "peak": _peak()}))


if __name__ == "__main__":
    _main()
