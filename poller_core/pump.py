"""The one thread per target that looks on behalf of all who wait in asyncio.

Guarantees: an event loop is never blocked by a listing or by the database; a
hint starts a look at once; however many consumers wait on a target, it is
listed once per interval. When the target or the state can't be used for the
moment, the pump says so in the log and tries again, ever less often; what can't
mend itself is raised to all who wait.

Not guaranteed: that an interval is kept to the second while looks take longer
than it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from .engine import Engine
from .errors import (
    PollerClosed,
    PollerError,
    StateFull,
    StateLocked,
    StateReadOnly,
    TargetError,
    WriteConflict,
)

if TYPE_CHECKING:
    import asyncio

    from .state import Pending

__all__ = ["Pump", "Subscription"]

log = logging.getLogger("poller_core")

#: Errors that may be gone the next time.
_PASSING = (TargetError, StateLocked, StateFull, StateReadOnly, WriteConflict)
_LONGEST_BACKOFF = 60.0
#: How long the pump gives way to consumers, in seconds.
_COURTESY = 0.002


class Subscription:
    """One consumer that waits for news of a target."""

    def __init__(
        self,
        pump: Pump,
        loop: asyncio.AbstractEventLoop,
        interval: float,
        fetch: Callable[[], Pending] | None = None,
    ) -> None:
        import asyncio  # late, as it takes 10 MiB: who awaits has paid for it already

        self._pump = pump
        self._loop = loop
        self.interval = interval
        self._fetch = fetch
        self._news = asyncio.Event()
        self.error: BaseException | None = None
        self.served = False
        self._lock = threading.Lock()
        self._waits = 0  # how often wait() was called
        self._waiting = False
        self._fetched: Pending | None = None
        self.back = threading.Event()  #: set while it waits

    async def wait(self) -> Pending | None:
        """Return when there may be something new; raise what the pump can't mend.

        :returns: what the consumer has to be given, as of now, if the pump has read it already.
        """
        with self._lock:
            self._waits += 1
            self._waiting = True
        if not self._news.is_set():
            self.back.set()
        try:
            await self._news.wait()
        finally:
            self.back.clear()
            with self._lock:
                self._waiting = False
                fetched, self._fetched = self._fetched, None
        self._news.clear()
        if self.error is not None:
            raise self.error
        return fetched

    async def pause(self, seconds: float) -> None:
        """Let time pass, whatever comes meanwhile; raise what :meth:`wait` would raise."""
        import asyncio

        end = self._loop.time() + seconds
        while (left := end - self._loop.time()) > 0:
            try:
                # Not wait_for(), which before Python 3.12 can lose a cancellation that comes with news.
                async with asyncio.timeout(left):
                    await self.wait()
            except TimeoutError:
                return

    def fetch(self) -> None:
        """Read, in the pump's thread, what the consumer will ask for: that saves it a change of threads."""
        with self._lock:
            waits = self._waits
            if self._fetch is None or not self._waiting:
                return
        try:
            fetched = self._fetch()
        except Exception:  # noqa: BLE001 - the consumer reads for itself, then, and is told
            return
        with self._lock:
            # Not if it went on meanwhile: it may have acknowledged what was read here.
            if self._waiting and waits == self._waits:
                self._fetched = fetched

    def tell(self) -> None:
        """Wake the waiter, from any thread."""
        self.served = True
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            self._pump.leave(self)  # its loop was closed without a word

    def close(self) -> None:
        """Wait no longer."""
        self._pump.leave(self)

    def end(self) -> None:
        """The consumer was closed: tell who waits for it."""
        self.error = PollerClosed("the poller was closed while batches were awaited")
        self.tell()
        self._pump.leave(self)


class Pump:
    """Looks at a target for as long as somebody is subscribed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription] = []
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._kick = threading.Event()
        self.given_back: Counter[str] = Counter()  #: how often a consumer got events other than by a look

    def join(self, interval: float, fetch: Callable[[], Pending] | None = None) -> Subscription:
        """Subscribe the running event loop; a look follows at once.

        :param fetch: reads what the consumer is to be given, and not much of it.
        """
        import asyncio

        subscription = Subscription(self, asyncio.get_running_loop(), interval, fetch)
        if self._pid != os.getpid():
            # In a forked child the thread is gone, and who waited in the parent still does so there.
            self._pid, self._lock, self._thread, self._subscriptions = os.getpid(), threading.Lock(), None, []
        with self._lock:
            self._subscriptions.append(subscription)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="poller-look", daemon=True)
                self._thread.start()
        self.kick()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """End a subscription; the last one ends the thread."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
        self.kick()

    def stop(self) -> None:
        """End all subscriptions: the target's last poller was closed."""
        with self._lock:
            ended, self._subscriptions, thread = self._subscriptions, [], self._thread
        for subscription in ended:
            subscription.end()
        self.kick()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def give_back(self, consumer: str) -> None:
        """Something else than a look gave a consumer events: let who waits read again."""
        self.given_back[consumer] += 1
        with self._lock:
            served = [subscription for subscription in self._subscriptions if subscription.served]
        for subscription in served:
            subscription.tell()

    def kick(self) -> None:
        """Look at once."""
        self._kick.set()
        self._engine.wake()

    def _give_way(self, subscriptions: list[Subscription]) -> None:
        """Let consumers work off a few events before the next look: both at once are slower than in turn."""
        end = time.monotonic() + _COURTESY
        for subscription in subscriptions:
            subscription.back.wait(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        engine, clock = self._engine, self._engine.clock
        failures, overflows, seen, next_look = 0, 0, -1, float("-inf")
        while True:
            with self._lock:
                waiting = list(self._subscriptions)
                if not waiting:
                    self._thread = None
                    return
            self._kick.clear()
            interval = min(subscription.interval for subscription in waiting)
            # Who has just come wants a look of its own; at the end of an interval any recent one will do.
            fresh = engine.watch is not None or any(not subscription.served for subscription in waiting)
            try:
                if fresh or clock.monotonic() >= next_look:
                    # From when the look began that was good enough: it may have been another process's.
                    age = engine.look(max_age=0.0 if fresh else interval * 0.9)
                    next_look = clock.monotonic() + interval - age
                else:
                    engine.look(held_only=True)
                last = engine.store.last_seq(engine.target_id)
            except _PASSING as error:
                failures += 1
                pause = min(interval, _LONGEST_BACKOFF, 0.25 * 2**failures)
                if not isinstance(error, TargetError):
                    log.warning("%s; trying again in %.1f s", error, pause)
                for subscription in waiting:
                    if not subscription.served:
                        subscription.tell()
                self._kick.wait(pause)
                continue
            except BaseException as error:
                if not isinstance(error, PollerError):
                    log.exception("the look failed")
                with self._lock:
                    failed, self._subscriptions, self._thread = self._subscriptions, [], None
                for subscription in failed:
                    subscription.error = error
                    subscription.tell()
                return
            failures = 0
            for subscription in waiting:
                if last != seen or not subscription.served:
                    subscription.fetch()
                    subscription.back.clear()
                    subscription.tell()
            if last != seen:
                self._give_way(waiting)
            seen = last
            if engine.watch is not None and engine.watch.overflows != overflows:
                # More came than could be noticed. The next listing finds it all; give it time to settle.
                overflows = engine.watch.overflows
                self._kick.wait(min(interval, 0.2))
            else:
                engine.wait(engine.due(max(0.0, next_look - clock.monotonic())))
