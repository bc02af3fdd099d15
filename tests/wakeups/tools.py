"""What the tests of waiting and of wake-ups share: files that land whole, and somebody who is woken.

Bounds on time are generous, as in ``test_async.py``. That something is *not* told is seen from how often
the journal was read since: whoever reads again has decided on what was read before.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from poller_core import FilePoller, ListingPoller, PollerClosed, Waiting
from tests.races.tools import land
from tests.test_async import SOON, soon

#: An interval that is over at once.
SECONDS = 0.05


class Elsewhere(FilePoller):
    """Of another class, and so with an engine and a connection of its own, as in another process."""


def drop(inbox, *names: str) -> None:
    """Files that are whole when they come: one look finds one event of each."""
    for name in names:
        land(inbox / name, name)


async def cancel_amid(task: asyncio.Future[Any], happens: Callable[[], object], steps: int) -> None:
    """Cancel who waits so many turns of the loop after what it waits for: once has to do."""
    happens()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=SOON / 4)
    if not done:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done, "it went on as if nothing had been said"


class Listener:
    """Somebody who is woken, and what was told."""

    def __init__(self, poller: FilePoller, options: dict[str, Any]) -> None:
        self.poller = poller
        self.told: list[Waiting] = []
        self.reads = 0
        self.seen = -1  # how many events there were when it last read
        self.wakeups = poller.wakeups(**options)
        self.task = asyncio.ensure_future(self._listen())

    @property
    def firsts(self) -> list[int | None]:
        return [waiting.first for waiting in self.told]

    async def _listen(self) -> None:
        async for waiting in self.wakeups:
            self.told.append(waiting)

    async def count(self, number: int) -> None:
        await self.until(lambda: len(self.told) >= number, f"{number} were told")
        assert len(self.told) == number

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await soon(lambda: condition() or self.task.done(), what)
        if self.task.done():
            self.task.result()  # raises what ended it
        assert condition()

    async def has_read(self, times: int = 3) -> None:
        """Wait until it has decided on what is there now: it has read so often since."""
        before = self.reads
        await self.until(lambda: self.reads >= before + times, "the journal is read")


async def listens(poller: ListingPoller) -> None:
    """Wait until the first look on behalf of who waits is over."""
    await soon(lambda: poller._subscriptions and poller._subscriptions[0].served, "it listens")


@contextlib.asynccontextmanager
async def listening(poller: FilePoller, **options: Any) -> AsyncIterator[Listener]:
    """Have somebody woken while the block lasts."""
    listener = Listener(poller, options)
    real = poller._pending

    def pending(limit: int | None) -> Any:
        found = real(limit)
        if threading.current_thread().name != "poller-look":
            listener.reads += 1
            listener.seen = len(found.events)
        return found

    poller._pending = pending  # type: ignore[method-assign]
    try:
        yield listener
    finally:
        del poller._pending
        listener.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, PollerClosed):
            await asyncio.wait_for(listener.task, SOON)
        await listener.wakeups.aclose()


OTHER = """
import sys
from poller_core import FilePoller
inbox, state, action, argument = sys.argv[1:]
with FilePoller(inbox, recurse=True, state=state) as poller:
    if action == "claim":
        assert poller.claim(argument, max_age=float("inf"))
    else:
        getattr(poller, action)(int(argument) if argument.isdigit() else argument)
"""


async def another_process(inbox, state: str, action: str, argument: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", OTHER, inbox, state, action, argument], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def left_over(poller: ListingPoller) -> list[object]:
    """Who is still waited for."""
    return [*poller._subscriptions, *poller._shared.pump._subscriptions]
