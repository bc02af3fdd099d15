"""Waiting for news and for the end, by who may be cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from poller_core import Event, FilePoller
from poller_core.cli.command import Command
from poller_core.cli.feed import Feed, Stop, patiently
from poller_core.cli.runner import Worker
from poller_core.errors import StateLocked
from tests.cli.tools import PATIENCE
from tests.test_async import FAR, soon
from tests.wakeups.tools import cancel_amid


async def _cancelled_with(happens: Callable[[], None], steps: int, waiting: Awaitable[object]) -> None:
    """Cancel who waits so many turns of the loop after what it waits for: once has to do."""
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0.1)
    await cancel_amid(task, happens, steps)


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_just_when_there_is_news(inbox: Path, steps: int) -> None:
    with FilePoller(inbox) as poller:
        feed = Feed(poller, FAR)

        async def listen() -> None:
            while True:
                await feed.news()

        await soon(lambda: feed._subscription.served, "the first look is over")
        await _cancelled_with(feed._subscription._news.set, steps, listen())
        feed.close()


async def test_no_news_for_as_long_as_the_interval(inbox: Path) -> None:
    """Then there may be some nonetheless: what was given back elsewhere."""
    with FilePoller(inbox) as poller:
        feed = Feed(poller, 0.05)
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                await feed.news()
        feed.close()


@pytest.mark.parametrize("steps", range(2))
async def test_cancelled_just_when_the_end_is_asked_for(steps: int) -> None:
    """While it waits for a state that can't be used."""

    def call() -> None:
        raise StateLocked("made up: kept locked by another process")

    stop = Stop()
    await _cancelled_with(stop.asked.set, steps, patiently(stop, call))


async def test_cancelled_between_two_attempts_just_when_the_end_is_asked_for(inbox: Path) -> None:
    class Failing(Worker):
        async def _attempt(self, event: Event, attempt: int) -> str:
            return "made up: it failed"

    with FilePoller(inbox) as poller:
        (inbox / "a").write_text("1")
        (event,) = poller.get_new_events()
    stop = Stop()
    worker = Failing(Command("true"), stop, retries=1, pause=FAR)
    await _cancelled_with(stop.asked.set, 0, worker.work(event))
