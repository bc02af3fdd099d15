"""The way of events from the journal to Prefect, once or for ever.

Guarantees: an event is acknowledged after it is surely there: its run made, or its event
stored and its automations run. Killed at any moment, the next poll gives out again what was
not acknowledged, under the same ids and keys, and what is there already stays one. Events
that can't be delivered hold up no others.

Not guaranteed: an order between events that are on their way together.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Protocol

from poller_core import Batch, Event, ListingPoller, PollerError, TargetError

__all__ = ["NotDelivered", "Poll", "Way"]

#: How many more events are read when some can't be delivered; beyond that something is wrong with all.
_MOST_FAILED = 1000
#: Events that are done with, but for others that are not: written down at the latest when there are so many.
_FINISHED = 500


class NotDelivered(PollerError):
    """Some events could not be delivered; they wait for the next poll."""


class Way(Protocol):
    """How events are delivered."""

    failed: dict[str, str]

    @property
    def in_flight(self) -> int:
        """How many are on their way."""

    @property
    def window(self) -> int:
        """How many may be."""

    @property
    def pause(self) -> float:
        """Seconds after which it is worth asking what has arrived."""

    async def launch(self, events: list[Event]) -> None:
        """Send them off."""

    async def done(self) -> list[Event]:
        """Those that have arrived since it was last asked."""


class Poll:
    """Takes events from the journal, hands them to a way, and acknowledges what has arrived.

    :param poller: whose events they are.
    :param way: where they go.
    :param delivered: is told of each that has arrived.
    :param patience: how long to wait while nothing arrives, seconds.
    """

    def __init__(
        self, poller: ListingPoller, way: Way, delivered: Callable[[Event], object], patience: float
    ) -> None:
        self._poller = poller
        self._way = way
        self._delivered = delivered
        self._patience = patience
        self._batch: Batch | None = None
        self._known: set[str] = set()  # launched, and not acknowledged
        self._all_read = False  # whether the journal had no more when it was last read
        self._finished: list[Event] = []  # arrived, and not acknowledged

    # -- once ------------------------------------------------------------------

    async def once(self) -> None:
        """Look at the target, and deliver all that there is.

        :raises TargetError: if it can't be looked at; what the journal has was delivered.
        :raises NotDelivered: if some events could not be delivered.
        """
        trouble: TargetError | None = None
        try:
            new = await self._pull(0.0)
        except TargetError as error:
            trouble = error
            new = await self._pull(math.inf)
        moved = time.monotonic()
        while True:
            if new:
                await self._way.launch(new)
            arrived = await self._settle()
            if new or arrived:
                moved = time.monotonic()
            elif not self._way.in_flight or time.monotonic() - moved > self._patience:
                break
            new = [] if self._all_read and self._way.in_flight else await self._pull(math.inf)
            if not new and self._way.in_flight:
                await asyncio.sleep(self._way.pause)
        await self._write_down()
        if trouble is not None:
            raise trouble
        if self._way.failed or self._way.in_flight:
            raise NotDelivered(self._missing())

    def _missing(self) -> str:
        failed, way = len(self._way.failed), self._way
        reasons = list(dict.fromkeys(way.failed.values()))
        parts = []
        if failed:
            more = f" (and {len(reasons) - 3} more reasons)" if len(reasons) > 3 else ""
            parts.append(f"{failed} event(s) could not be delivered: {'; '.join(reasons[:3])}{more}")
        if way.in_flight:
            parts.append(
                f"{way.in_flight} event(s) were sent, but Prefect has not confirmed them within "
                f"{self._patience:.0f} s (patience)"
            )
        return ". ".join(parts) + ". They are not acknowledged, and are delivered by the next poll"

    # -- for ever --------------------------------------------------------------

    async def follow(self, interval: float, tick: Callable[[], object]) -> None:
        """Deliver events as they come, until cancelled.

        :param interval: seconds between looks at what can't be watched, and between tries of what failed.
        :param tick: called now and then.
        """
        news = asyncio.Event()
        failure: list[BaseException] = []

        async def listen() -> None:
            try:
                async for _ in self._poller.news(interval):
                    news.set()
            except Exception as error:  # noqa: BLE001 - raised by the loop below
                failure.append(error)
                news.set()

        listener = asyncio.create_task(listen())
        told = True
        try:
            while True:
                news.clear()
                nothing = self._all_read and self._way.in_flight and not told
                new = [] if nothing else await self._pull(math.inf)
                if new:
                    await self._way.launch(new)
                await self._settle()
                tick()
                if new and not self._all_read:
                    continue
                if failure:
                    raise failure[0]
                told = await _within(news, self._way.pause if self._way.in_flight else interval)
                if not told and not self._way.in_flight:
                    self._retry()
        finally:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
            await asyncio.shield(self._write_down())

    def _retry(self) -> None:
        """Let what failed be tried again."""
        if self._way.failed:
            self._known -= set(self._way.failed)
            self._way.failed.clear()

    # -- the journal -----------------------------------------------------------

    async def _pull(self, max_age: float) -> list[Event]:
        """The next events that are not on their way yet, as far as there is room."""
        room = self._way.window - self._way.in_flight
        # The journal gives what is on its way once more each time, so not before half of it has arrived.
        if room < self._way.window / 2 or len(self._way.failed) >= _MOST_FAILED:
            return []
        limit = len(self._known) + room
        self._batch = await asyncio.to_thread(self._poller.next_batch, limit, max_age=max_age)
        new = [event for event in self._batch if event.id not in self._known]
        self._known.update(event.id for event in new)
        self._all_read = len(new) < room
        return new

    async def _settle(self) -> list[Event]:
        arrived = await self._way.done()
        for event in arrived:
            self._delivered(event)
        self._finished += arrived
        if self._finished and (len(self._finished) == len(self._known) or len(self._finished) >= _FINISHED):
            await self._write_down()
        return arrived

    async def _write_down(self) -> None:
        """Acknowledge what has arrived."""
        finished, self._finished = self._finished, []
        if not finished:
            return
        try:
            if self._batch is not None and len(finished) == len(self._known):
                # All that was given out: one step of the offset.
                await asyncio.to_thread(self._batch.ack)
            else:
                await asyncio.to_thread(self._poller.finish, finished)
        except BaseException:
            self._finished = finished + self._finished
            raise
        self._known -= {event.id for event in finished}


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        # Not wait_for(), which before Python 3.12 can lose a cancellation that comes with the event.
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
