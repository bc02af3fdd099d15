"""Waiting for news of a target, and for the signals that end the waiting.

Guarantees: the event loop is never blocked by the state or by a listing; what
may be gone the next time (a state that is locked, a disk that is full) is tried
again; a signal that was ignored when the program was started stays ignored.

Does not guarantee: that a second signal waits for anything.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..errors import StateFull, StateLocked, StateReadOnly, WriteConflict
from ..listed import ListingPoller

__all__ = ["Feed", "Stop", "first", "patiently"]

log = logging.getLogger("poller_core")

_PASSING = (StateLocked, StateFull, StateReadOnly, WriteConflict)
_LONGEST_PAUSE = 30.0
_Result = TypeVar("_Result")


class Stop:
    """The wish to end, by a signal. Use it as a context manager within the running loop."""

    def __init__(self) -> None:
        self.number: int | None = None  #: the signal that came first
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()  #: a second one came
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                try:
                    loop.add_signal_handler(number, self._came, number)
                except (ValueError, RuntimeError):
                    return self  # not in the main thread: signals are not ours to handle
                self._before[number] = handler
        return self

    def __exit__(self, *error: object) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def _came(self, number: int) -> None:
        if self.number is None:
            self.number = number
            self.asked.set()
        else:
            self.insisted.set()


class Feed:
    """Has a poller looked at, in the background, and tells when there may be something new."""

    def __init__(self, poller: ListingPoller, interval: float) -> None:
        self._interval = interval
        self._subscription = poller._shared.pump.join(interval)

    async def news(self) -> None:
        """Return when there may be something new.

        Not later than after the interval: a rewind, or what another program gives back, is no news.

        :raises PollerError: for what does not mend itself.
        """
        try:
            # Not wait_for(), which before Python 3.12 can lose a cancellation that comes with news.
            async with asyncio.timeout(self._interval):
                await self._subscription.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Wait no longer."""
        self._subscription.close()


async def first(
    *events: asyncio.Event, tasks: Iterable[asyncio.Task[Any]] = (), within: float | None = None
) -> None:
    """Return when one of the events is set, one of the tasks is done, or the time is over; tasks go on."""
    waiters = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait({*waiters, *tasks}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()


async def patiently(stop: Stop, call: Callable[..., _Result], *arguments: Any) -> _Result | None:
    """Call in a thread, again and again while the state can't be used; None if the end came before."""
    pause = 0.25
    while True:
        try:
            return await asyncio.to_thread(call, *arguments)
        except _PASSING as error:
            if stop.asked.is_set():
                log.error("%s", error)
                return None
            log.warning("%s; trying again in %g s", error, pause)
        try:
            async with asyncio.timeout(pause):
                await stop.asked.wait()
        except TimeoutError:
            pause = min(2 * pause, _LONGEST_PAUSE)
