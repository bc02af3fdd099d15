"""inotify: how soon an event comes, whether all come, and that one change costs no listing."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from .measure import measure, timed
from .peers import available
from .report import at_least, at_most, note, table
from .trees import build
from .writer import start

__all__ = ["burst", "latency", "one_change", "run"]

_PATIENCE = 60.0


# -- inside a process of its own ---------------------------------------------


def latency(directory: str, state: str | None, count: int, rate: float, how: str) -> dict[str, Any]:
    """From the closing of each file to its event in the hands of the consumer, in ms."""
    from poller_core import INotifyPoller

    seen: dict[str, int] = {}
    with INotifyPoller(directory, state=state, default_exclude=False) as poller:
        with timed() as timer:
            writer = start(directory, count, rate)
            if how == "batches":
                asyncio.run(_by_batches(poller, seen, count))
            else:
                _by_hand(poller, seen, count)
            closed = json.loads(writer.communicate()[0])
        status = poller.status()
    late = sorted((seen[f"{number:07d}"] - at) / 1e6 for number, at in enumerate(closed) if _in(seen, number))
    cuts = quantiles(late, n=100)
    return timer.result(p50=median(late), p99=cuts[98], seen=len(seen), looks=status.overflows)


def _in(seen: dict[str, int], number: int) -> bool:
    return f"{number:07d}" in seen


async def _by_batches(poller: Any, seen: dict[str, int], count: int) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            async for batch in poller.batches(interval=30):
                now = time.monotonic_ns()
                for event in batch:
                    seen.setdefault(event.key.decode(), now)
                await batch.ack()
                if len(seen) >= count:
                    return
    except TimeoutError:
        return


def _by_hand(poller: Any, seen: dict[str, int], count: int) -> None:
    end = time.monotonic() + _PATIENCE
    while len(seen) < count and time.monotonic() < end:
        poller.wait(1)
        events = poller.get_new_events()
        now = time.monotonic_ns()
        for event in events:
            seen.setdefault(event.key.decode(), now)


def burst(directory: str, state: str | None, count: int, how: str) -> dict[str, Any]:
    """Files made as fast as they can be: how many were reported, as created and closed."""
    ways: dict[str, Callable[[str, str | None, int], dict[str, Any]]] = {
        "ours": _burst_ours,
        "watchdog": _burst_watchdog,
        "watchfiles": _burst_watchfiles,
    }
    return ways[how](directory, state, count)


def _burst_ours(directory: str, state: str | None, count: int) -> dict[str, Any]:
    from poller_core import INotifyPoller

    seen: dict[str, int] = {}
    with INotifyPoller(directory, state=state, default_exclude=False) as poller, timed() as timer:
        writer = start(directory, count, 0)
        asyncio.run(_by_batches(poller, seen, count))
        writer.communicate()
        overflows = poller.status().overflows
    return timer.result(seen=len(seen), overflows=overflows)


def _quiet(numbers: Callable[[], int], count: int) -> None:
    """Wait until all is seen, or nothing more has come for some seconds."""
    last, since = -1, time.monotonic()
    while numbers() < count and time.monotonic() - since < 5:
        if numbers() != last:
            last, since = numbers(), time.monotonic()
        time.sleep(0.05)


def _burst_watchdog(directory: str, state: str | None, count: int) -> dict[str, Any]:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    seen: set[Any] = set()

    class Handler(FileSystemEventHandler):
        def on_closed(self, event: FileSystemEvent) -> None:
            seen.add(event.src_path)

    observer = Observer()
    observer.schedule(Handler(), directory)
    observer.start()
    with timed() as timer:
        writer = start(directory, count, 0)
        writer.communicate()
        _quiet(lambda: len(seen), count)
    observer.stop()
    observer.join()
    return timer.result(seen=len(seen))


def _burst_watchfiles(directory: str, state: str | None, count: int) -> dict[str, Any]:
    import threading

    import watchfiles

    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> Iterator[None]:
        for changes in watchfiles.watch(
            directory, stop_event=stop, watch_filter=None, debounce=50, recursive=False
        ):
            seen.update(path for _, path in changes)
            yield

    reader = threading.Thread(target=lambda: list(watch()))
    reader.start()
    time.sleep(0.5)  # it does not say when it has begun
    with timed() as timer:
        writer = start(directory, count, 0)
        writer.communicate()
        _quiet(lambda: len(seen), count)
    stop.set()
    reader.join()
    return timer.result(seen=len(seen))


def one_change(root: str, state: str, times: int) -> dict[str, Any]:
    """One changed file in a tree that is watched: what each look costs, and what it lists."""
    from poller_core import INotifyPoller

    from .counting import CountingFileSystem

    fs = CountingFileSystem()
    path = next(path for path in Path(root).rglob("*") if path.is_file())
    with INotifyPoller(root, recurse=True, state=state, fs=fs) as poller:
        poller.get_new_events()
        events = 0
        spent = wall = 0.0
        fs.listed = fs.looked = 0
        for _ in range(times):
            with open(path, "ab") as file:
                file.write(b"x")
            time.sleep(0.03)  # past the granularity of timestamps, which is waited for otherwise
            with timed(collect=False) as timer:
                events += len(poller.get_new_events())
            spent += timer.cpu
            wall += timer.wall
        return {
            "cpu": spent / times,
            "wall": wall / times,
            "events": events,
            "listed": fs.listed,
            "looked": fs.looked,
        }


# -- the tables --------------------------------------------------------------


def run(base: Path, scale: float, quick: bool) -> None:
    """Measure and print."""
    _latencies(base, 2000 if quick else 10_000)
    _one_change(base, scale)
    _bursts(base, 10_000 if quick else 100_000)


def _latencies(base: Path, count: int) -> None:
    note("inotify: from close to event …")
    rows = []
    for how in ("batches", "get_new_events"):
        for kept in ("in memory", "SQLite file"):
            with tempfile.TemporaryDirectory(prefix="inbox-", dir=base) as place:
                inbox = Path(place, "inbox")
                inbox.mkdir()
                state = None if kept == "in memory" else f"{place}/state.db"
                found = measure(
                    "inotify:latency", directory=str(inbox), state=state, count=count, rate=1000, how=how
                )
            more = found.more
            rows.append(
                [
                    f"{how}, state {kept}",
                    *at_most(more["p50"], 1.0, "{:.2f} ms"),
                    *at_most(more["p99"], 20.0, "{:.1f} ms"),
                    f"{more['seen']:,} of {count:,}",
                    f"{found.cpu / count * 1e6:.0f} µs",
                ]
            )
    table(
        "inotify: from close to event at 1,000 files a second",
        ("", "p50", "bar", "p99", "bar", "reported", "CPU per file"),
        rows,
    )


def _one_change(base: Path, scale: float) -> None:
    note("inotify: one changed file in a large tree …")
    tree = build(base, "wide", scale)
    times = 50
    with tempfile.TemporaryDirectory(prefix="state-", dir=base) as place:
        found = measure("inotify:one_change", root=str(tree.root), state=f"{place}/state.db", times=times)
    more = found.more
    table(
        f"inotify: one changed file in {tree.title}",
        ("", "number", "bar"),
        [
            ["directories listed", *at_most(more["listed"], 0, "{:.0f}")],
            ["names looked at per change", f"{more['looked'] / times:.1f}", ""],
            ["events per change", *at_least(more["events"] / times, 1)],
            ["CPU per change, state in an SQLite file", *at_most(found.cpu * 1000, 0.6, "{:.2f} ms")],
            ["wall time per change, fsync included", f"{found.wall * 1000:.2f} ms", ""],
        ],
    )


def _bursts(base: Path, count: int) -> None:
    note("inotify: files made as fast as they can be …")
    rows = []
    for how in ("ours", "watchdog", "watchfiles"):
        if how != "ours" and not available(how):
            continue
        with tempfile.TemporaryDirectory(prefix="inbox-", dir=base) as place:
            inbox = Path(place, "inbox")
            inbox.mkdir()
            state = f"{place}/state.db"
            found = measure("inotify:burst", directory=str(inbox), state=state, count=count, how=how)
        seen = found.more["seen"]
        told = at_least(seen, count) if how == "ours" else (f"{seen:,}", "")
        rows.append(
            [
                how,
                *told,
                f"{found.more.get('overflows', '')}",
                f"{found.cpu:.1f}",
                f"{found.wall:.1f}",
                f"{found.peak:.0f}",
            ]
        )
    table(
        f"inotify: {count:,} files as fast as they can be made",
        ("", "reported", "bar", "overflows", "CPU s", "wall s", "MiB"),
        rows,
    )
