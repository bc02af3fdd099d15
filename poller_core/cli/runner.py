"""Running a command for each event, and acknowledging it when it succeeds.

Guarantees:

* **At least once.** An event counts as done when its command has ended well, and
  that is stored; whatever ends this program before, the event comes again.
* **In any order, but for a subject's own.** With several jobs a slow command holds
  up no other, and a restart runs the unfinished ones only. The events of one
  subject run one after the other, in order.
* **Not for ever.** A command that fails is run again after a pause that doubles;
  after the last attempt the event becomes a dead letter, and work goes on.

Does not guarantee: that a command runs only once for an event; make it safe to
repeat, by ``{id}`` if by nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..events import Event
from ..listed import ListingPoller
from ..state import Pending
from ..state.single import finish
from .command import Command, Started
from .feed import Feed, Stop, first, patiently
from .show import printable, subject_text

__all__ = ["Outcome", "Runner", "Worker", "describe"]

log = logging.getLogger("poller_core")

#: How many events are fetched at a time.
_WINDOW = 200
#: So far beyond the oldest unfinished event others are begun: each has to be kept in mind until then.
_AHEAD = 10_000
_LONGEST_PAUSE = 300.0
#: How long a command has between SIGTERM and SIGKILL, in seconds.
_LAST_WORDS = 5.0


@dataclass(frozen=True)
class Outcome:
    """How it went with an event."""

    event: Event
    done: bool
    attempts: int
    error: str = ""  #: why it is not done
    final: bool = True  #: False: it was given back, since the program ends


class Worker:
    """Runs the command for single events, with its retries.

    :param retries: how often a command that fails is run again.
    :param pause: before the first time, in seconds; doubled each time.
    """

    def __init__(self, command: Command, stop: Stop, retries: int, pause: float) -> None:
        self._command = command
        self._stop = stop
        self._retries = retries
        self._pause = pause
        self._started: set[Started] = set()
        self._killed = False

    async def work(self, event: Event) -> Outcome:
        """Run the command for an event, until it succeeds or no attempt is left."""
        pause = self._pause
        for attempt in range(1, self._retries + 2):
            error = await self._attempt(event, attempt)
            if not error:
                return Outcome(event, True, attempt)
            if self._killed:
                break
            if attempt > self._retries:
                return Outcome(event, False, attempt, error)
            if self._stop.asked.is_set():
                break
            log.warning(
                "%s (%s %s), attempt %d of %d; again in %g s",
                error,
                event.event,
                subject_text(event.subject),
                attempt,
                self._retries + 1,
                pause,
            )
            try:
                # Not wait_for(), which before Python 3.12 can lose a cancellation that comes with the end.
                async with asyncio.timeout(pause):
                    await self._stop.asked.wait()
                break
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)
        return Outcome(event, False, attempt, error, final=False)

    async def _attempt(self, event: Event, attempt: int) -> str:
        """What went wrong; empty if nothing did."""
        try:
            started = await self._command.start(event, attempt)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return f"the command can't be started: {reason}"
        self._started.add(started)
        try:
            code = await started.wait()
        finally:
            self._started.discard(started)
        if code < 0:
            return f"the command was ended by {_signal_name(-code)}"
        return f"the command ended with exit code {code}" if code else ""

    async def wind_down(self, tasks: set[asyncio.Task[Outcome]], grace: float) -> None:
        """Let what runs come to an end, for so many seconds or until a second signal; then end it."""
        if not tasks:
            return
        log.info("waiting for %d commands, at most %g s", len(tasks), grace)
        await self._wait(tasks, grace)
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = {task for task in tasks if not task.done()}
            if not left:
                return
            self._killed = True
            for started in list(self._started):
                started.send(number)
            await asyncio.wait(left, timeout=_LAST_WORDS)
        await asyncio.wait(tasks)

    async def _wait(self, tasks: set[asyncio.Task[Outcome]], grace: float) -> None:
        end = time.monotonic() + grace
        while left := {task for task in tasks if not task.done()}:
            remaining = end - time.monotonic()
            if remaining <= 0 or self._stop.insisted.is_set():
                return
            await first(self._stop.insisted, tasks=left, within=remaining)


class Runner:
    """Takes events from a poller's consumer as they come, and has a worker work on them.

    :param jobs: how many commands run at a time.
    :param grace: how long the end waits for commands that run, in seconds.
    :param interval: seconds between looks; None: only what is there already, then end.
    :param tell: called with each final outcome, after it was stored.
    """

    def __init__(
        self,
        poller: ListingPoller,
        worker: Worker,
        stop: Stop,
        *,
        jobs: int,
        grace: float,
        interval: float | None,
        tell: Callable[[Outcome], None],
    ) -> None:
        self._poller = poller
        self._worker = worker
        self._stop = stop
        self._jobs = jobs
        self._grace = grace
        self._interval = interval
        self._tell = tell
        self._store = poller._shared.engine.store
        self._target_id = poller._shared.engine.target_id
        self.dead = 0  #: how many events became dead letters
        self._queue: list[Event] = []  # known, in order, and not begun
        self._running: dict[asyncio.Task[Outcome], Event] = {}
        self._unfinished: set[int] = set()  # fetched, and not stored as done with
        self._returned: set[int] = set()  # those that lie behind the offset
        self._more = True  # whether the journal may have more than what is known
        self._upto = self._offset = 0

    async def run(self) -> None:
        """Work until the end is asked for; or, without an interval, until nothing is left."""
        feed = None if self._interval is None else Feed(self._poller, self._interval)
        news = asyncio.Event()
        listening = asyncio.create_task(self._listen(feed, news)) if feed else None
        try:
            while not self._stop.asked.is_set():
                await self._record()
                await self._refill()
                self._begin()
                if not self._running and not self._queue and not self._more and feed is None:
                    break
                tasks = {*self._running, *([listening] if listening else [])}
                await first(self._stop.asked, news, tasks=tasks)
                if listening is not None and listening.done():
                    listening.result()  # raises
                if news.is_set():
                    news.clear()
                    self._more = True
        finally:
            if listening is not None:
                listening.cancel()
            if feed is not None:
                feed.close()
            # Whatever the reason is: no command is begun any more, and none waits to be run again.
            self._stop.asked.set()
            await self._worker.wind_down(set(self._running), self._grace)
            await self._record()

    async def _listen(self, feed: Feed, news: asyncio.Event) -> None:
        while True:
            await feed.news()
            news.set()

    async def _refill(self) -> None:
        """Fetch what comes next, if it may be that there is more and it is wanted."""
        if not self._more or len(self._queue) >= self._jobs:
            return
        limit = len(self._running) + _WINDOW
        fetched = await patiently(self._stop, self._fetch, limit)
        if fetched is None:
            return
        pending, self._offset = fetched
        busy = {event.seq for event in self._running.values()}
        self._queue = [event for event in self._poller._events(pending.events) if event.seq not in busy]
        self._unfinished = busy | {event.seq for event in self._queue}
        self._returned = set(pending.returned)
        self._upto = pending.upto
        self._more = len(pending.events) == limit
        unwanted = self._returned - self._unfinished
        if unwanted or (not self._unfinished and pending.upto > self._offset):
            await self._finish(unwanted)  # lest it be read again each time

    def _fetch(self, limit: int) -> tuple[Pending, int]:
        consumers = self._store.consumers
        offset = consumers.known(self._target_id, self._poller.consumer).seq
        return self._poller._pending(limit), offset

    def _begin(self) -> None:
        """Start commands for what is next, of each subject one at a time."""
        busy = {event.key for event in self._running.values()}
        unfinished = [event.seq for event in self._running.values() if event.seq not in self._returned]
        oldest = min(unfinished, default=None)
        left: list[Event] = []
        for event in self._queue:
            free = len(self._running) < self._jobs and event.key not in busy
            if free and (oldest is None or event.seq - oldest < _AHEAD):
                self._running[asyncio.create_task(self._worker.work(event))] = event
                if event.seq not in self._returned:
                    oldest = event.seq if oldest is None else min(oldest, event.seq)
            else:
                left.append(event)
            busy.add(event.key)
        self._queue = left

    async def _record(self) -> None:
        """Store what has ended; together, since each writing to the disk takes its time."""
        outcomes = []
        for task in [task for task in self._running if task.done()]:
            del self._running[task]
            outcomes.append(task.result())
        outcomes = [outcome for outcome in outcomes if outcome.final]
        stored = []
        for outcome in outcomes:
            if outcome.done or await patiently(self._stop, self._bury, outcome):
                stored.append(outcome)
                self._unfinished.discard(outcome.event.seq)
                self.dead += not outcome.done
        if stored and await self._finish({outcome.event.seq for outcome in stored if outcome.done}):
            for outcome in stored:
                self._tell(outcome)

    async def _finish(self, done: set[int]) -> bool:
        """Store that these are done with, and how far everything is; whether that could be stored."""
        upto = min([seq - 1 for seq in self._unfinished - self._returned], default=self._upto)
        offset = await patiently(
            self._stop,
            finish,
            self._store.database,
            self._target_id,
            self._poller.consumer,
            sorted(done),
            min(upto, self._upto),
            self._offset,
        )
        if offset is None:
            return False
        if offset < self._offset:
            log.info("consumer %r was rewound", self._poller.consumer)
            self._upto, self._more = offset, True
        self._offset = offset
        return True

    def _bury(self, outcome: Outcome) -> bool:
        event = outcome.event
        self._store.consumers.bury(
            self._target_id,
            self._poller.consumer,
            event.seq,
            outcome.attempts,
            outcome.error,
            event.to_json(),
        )
        return True


def describe(outcome: Outcome) -> str:
    """What became of an event, for people."""
    about = f"{outcome.event.event} {subject_text(outcome.event.subject)}"
    if outcome.done:
        return f"done: {about}"
    times = f"{outcome.attempts} attempt{'s' if outcome.attempts > 1 else ''}"
    return printable(
        f"gave up on {about} after {times}: {outcome.error}. It is dead letter {outcome.event.seq}; "
        f"see 'poller dead'"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
