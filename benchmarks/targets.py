"""Many targets in one process: what each of them takes while nothing happens."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from .measure import measure, timed
from .report import note, table

__all__ = ["run", "waiting"]

_INTERVAL = 10.0  # seconds between looks
_FILES = 100  # in each directory


def waiting(base: str, state: str, count: int, watch: bool, seconds: float) -> dict[str, Any]:
    """So many directories, each with a consumer that waits; what that takes in so many seconds."""
    from poller_core import FilePoller, INotifyPoller

    kind = INotifyPoller if watch else FilePoller
    began = time.perf_counter()
    pollers = [
        kind(f"{base}/{number:05}", state=state, consumer="bench", existing="ignore")
        for number in range(count)
    ]
    opened = time.perf_counter() - began
    try:
        return {**asyncio.run(_wait(pollers, seconds)), "opened": opened}
    finally:
        for poller in pollers:
            poller.close()


async def _wait(pollers: list[Any], seconds: float) -> dict[str, Any]:
    async def one(poller: Any) -> None:
        async for batch in poller.batches(interval=_INTERVAL):
            await batch.ack()

    tasks = [asyncio.create_task(one(poller)) for poller in pollers]
    await asyncio.sleep(_INTERVAL)  # all have looked
    with timed() as timer:
        await asyncio.sleep(seconds)
    told = timer.result(
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        memory=_resident(),
        right=sum(not task.done() for task in tasks),
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return told


def _resident() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def run(base: Path, quick: bool) -> None:
    """Measure and print."""
    note("many targets …")
    counts = (1, 10, 100) if quick else (1, 10, 100, 500)
    seconds = 10.0 if quick else 60.0
    rows = []
    with tempfile.TemporaryDirectory(prefix="targets-", dir=base) as place:
        for number in range(max(counts)):
            folder = Path(place, f"{number:05}")
            folder.mkdir()
            for name in range(_FILES):
                (folder / f"{name:03}.csv").touch()
        # A user has 128 inotify instances unless told otherwise, and others use some of them.
        for watch, count in [(True, one) for one in counts if one <= 100] + [(False, one) for one in counts]:
            state = f"{place}/{count}-{watch}.db"
            result = measure(
                "targets:waiting", base=place, state=state, count=count, watch=watch, seconds=seconds
            )
            more = result.more
            rows.append(
                [
                    f"{count}, {'watched' if watch else 'scanned'}",
                    f"{more['opened']:.2f}",
                    f"{result.cpu / seconds * 100:.2f}",
                    f"{more['memory']:.0f}",
                    str(more["threads"]),
                    str(more["descriptors"]),
                    f"{Path(state).stat().st_size / 1024:,.0f}",
                    f"{more['right']} of {count}",
                ]
            )
    table(
        f"Targets in one process, {_FILES} files each, looked at every {_INTERVAL:.0f} s; {seconds:.0f} s in "
        "which nothing happens",
        (
            "targets",
            "opened in s",
            "% of a processor",
            "MiB resident",
            "threads",
            "descriptors",
            "state KiB",
            "well",
        ),
        rows,
    )
