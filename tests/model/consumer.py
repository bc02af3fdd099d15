"""A consumer as somebody might write it, to be killed.

``python -m tests.model.consumer MODE KIND ROOT STATE NAME LOG STOP PACE`` gives out what it is given into the
log, a line for each batch and *before* it acknowledges it, until the file STOP is there and nothing new is.
MODE is ``get``, ``batches`` or ``claim``; KIND is ``scan`` or ``watch``; PACE is how long the work on a batch
takes, in seconds, before it is in the log. It prints a line when it is ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from poller_core import Event, FilePoller, INotifyPoller, WriteConflict

KINDS = {"scan": FilePoller, "watch": INotifyPoller}


class Log:
    """Lines that are in the file, whole, when :meth:`write` returns."""

    def __init__(self, path: Path, pace: float) -> None:
        self.path = path
        self.pace = pace
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, events: Iterable[Event], token: str = "") -> None:
        rows = [(e.id, e.seq, e.event, os.fsdecode(e.key), e.size, e.mtime_ns) for e in events]
        os.write(self._fd, json.dumps({"token": token, "events": rows}).encode() + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def get(poller: FilePoller, log: Log, stop: Path) -> None:
    while True:
        ending = stop.exists()
        try:
            events = poller.get_new_events()
        except WriteConflict:
            continue  # the other process looks all the time, and was faster twenty times in a row
        if events:
            time.sleep(log.pace)
            log.write(events)
        elif ending and not poller.status().held:
            return
        else:
            poller.wait(0.02)


async def batches(poller: FilePoller, log: Log, stop: Path) -> None:
    async def work() -> None:
        async for batch in poller.batches(interval=0.1, limit=50):
            await asyncio.sleep(log.pace)
            log.write(batch)
            await batch.ack()

    def wait() -> None:
        while not stop.exists():
            time.sleep(0.02)

    worker = asyncio.create_task(work())
    await asyncio.to_thread(wait)
    worker.cancel()
    await asyncio.wait([worker])
    await asyncio.to_thread(get, poller, log, stop)


def claim(poller: FilePoller, log: Log, stop: Path) -> None:
    """One claim after the other; one that was begun before the process was killed is begun again."""
    begun = [line["token"] for line in log.lines() if line["token"]]
    number = int(begun[-1]) if begun else 1
    while True:
        ending = stop.exists()
        log.write([], str(number))
        events = poller.claim(str(number), limit=7)
        if events:
            time.sleep(log.pace)
            log.write(events, str(number))
            number += 1
        elif ending and not poller.status().held:
            return
        else:
            poller.wait(0.02)


def main() -> None:
    """Consume."""
    mode, kind, root, state, name, path, end, pace = sys.argv[1:]
    log, stop = Log(Path(path), float(pace)), Path(end)
    with KINDS[kind](root, recurse=True, state=state, consumer=name, existing="report") as poller:
        print("ready", flush=True)
        if mode == "batches":
            asyncio.run(batches(poller, log, stop))
        else:
            {"get": get, "claim": claim}[mode](poller, log, stop)


if __name__ == "__main__":
    main()
