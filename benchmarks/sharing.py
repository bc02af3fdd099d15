"""Ten consumers of one URL in one process: they cost one listing."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from .measure import measure, timed
from .report import at_most, note, table
from .trees import Tree, build, change, tally

__all__ = ["consumers", "run"]

_INTERVAL = 4.0  # seconds between looks


def consumers(base: str, scale: float, state: str, count: int) -> dict[str, Any]:
    """All consumers wait for what changes within one interval; what was listed until all had it?"""
    from poller_core import FilePoller

    from .counting import CountingFileSystem

    tree, fs = build(Path(base), "wide", scale), CountingFileSystem()
    pollers = [
        FilePoller(str(tree.root), recurse=True, state=state, consumer=f"c{number}", fs=fs)
        for number in range(count)
    ]
    try:
        return asyncio.run(_consume(pollers, tree, fs))
    finally:
        for poller in pollers:
            poller.close()


async def _consume(pollers: list[Any], tree: Tree, fs: Any) -> dict[str, Any]:
    async def one(poller: Any) -> int:
        async for batch in poller.batches(interval=_INTERVAL, limit=None):
            await batch.ack()
            return len(batch)
        return 0

    tasks = [asyncio.create_task(one(poller)) for poller in pollers]
    await asyncio.sleep(_INTERVAL * 0.75)  # the look that they came with is over, the next one not yet due
    changed = change(tree, 0.001, len(pollers))
    fs.listed = fs.looked = 0
    with timed() as timer:
        told = await asyncio.gather(*tasks)
    return timer.result(looks=fs.looked / tally(tree), right=sum(1 for number in told if number == changed))


def run(base: Path, scale: float) -> None:
    """Measure and print."""
    scale = min(scale, 0.1)
    tree = build(base, "wide", scale)
    note("ten consumers …")
    found = {}
    for count in (1, 10):
        with tempfile.TemporaryDirectory(prefix="state-", dir=base) as place:
            found[count] = measure(
                "sharing:consumers", base=str(base), scale=scale, state=f"{place}/state.db", count=count
            )
    table(
        f"Consumers of one URL: {tree.title}, 0.1 % changed",
        ("consumers", "listings", "bar", "CPU s", "of one consumer's", "told of all changes"),
        [
            [
                str(count),
                # A name that changed is looked at twice, if its change is too recent to be trusted.
                *at_most(result.more["looks"], 1.01),
                f"{result.cpu:.2f}",
                f"{result.cpu / found[1].cpu:.2f}",
                f"{result.more['right']} of {count}",
            ]
            for count, result in found.items()
        ],
    )
