"""``Consuming``: what a poller gives out, in the name of its consumer, and what is known of it after.

The half of :class:`~poller_core.listed.ListingPoller` that reads the journal; the other half says how
what is listed gets there.

Guarantees: those of :mod:`poller_core.delivery`. Reading and waiting block no event loop where the
method is asynchronous.

Not guaranteed: that :meth:`~Consuming.get_new_events` alone makes work happen exactly once. It
acknowledges what it gave out when it is called again, or when the poller is closed; what a crash
leaves unacknowledged comes again.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn

from .clock import Clock
from .delivery import AsyncBatch, Batch, Claim, Waiting
from .engine import Engine, Progress
from .errors import InvalidOption
from .events import Event
from .lease import Lease, take_lease
from .options import Seconds, seconds
from .poller import Poller
from .pump import Subscription
from .sharing import Shared
from .state import ClaimRow, Numbered, Pending, Record
from .state.consumers import check_token
from .state.leases import lease_key
from .state.single import finish_events
from .stored import to_event

__all__ = ["Consuming"]

#: So many events are read where the look was made, and what a consumer doesn't want is noted.
_BACKLOG = 1000
#: Before and after every time that the journal can hold, seconds; in microseconds it fits the database.
_FAR = 1e12


class Consuming(Poller):
    """Events of a target, out of the journal. Whoever derives from it opens the engine and the consumer."""

    consumer: str
    clock: Clock
    _shared: Shared
    _lock: threading.RLock
    _ended: threading.Event
    _handed: Pending | None
    _subscriptions: list[Subscription]

    @property
    @abstractmethod
    def _engine(self) -> Engine:
        """What looks.

        :raises PollerClosed: if the poller is closed.
        """

    @abstractmethod
    def _select(self, record: Record) -> bool:
        """Whether the consumer wants an event."""

    @abstractmethod
    def _backlog(self) -> Iterator[list[Record]]:
        """What the snapshot holds now, as created."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be copied or handed to another process: hand over its URL, options and state, "
            "and make a poller of them there. Events can be handed over"
        )

    # -- delivery ------------------------------------------------------------

    def get_new_events(self, *, max_age: Seconds = 0.0, progress: Progress | None = None) -> list[Event]:
        """What happened since the last call.

        Acknowledges what the last call gave out, looks at the target, and gives out
        what the consumer has not had.

        :param max_age: a look that began so many seconds ago is good enough (of another consumer, say); a
            number, or a ``timedelta``.
        :param progress: called now and then with the number of entries listed so far.
        :returns: events, in order; each unpacks as ``(subject, event)``.
        :raises TargetError: if the target can't be looked at; nothing is concluded from that.
        :raises OffsetTooOld: if the journal no longer has what this consumer would be given next.
        """
        max_age = seconds("max_age", max_age, endless=True)
        with self._lock:
            self.acknowledge()
            self._engine.look(max_age, progress)
            self._handed = self._pending(None)
            return self._events(self._handed.events)

    def acknowledge(self) -> None:
        """Acknowledge what :meth:`get_new_events` gave out last."""
        with self._lock:
            if self._handed is not None:
                self._ack(self._handed)
                self._handed = None

    def next_batch(self, limit: int | None = 1000, *, max_age: Seconds = 0.0) -> Batch:
        """The next events of the consumer, to be acknowledged as one.

        Looks at the target, unless ``limit`` events are waiting already.

        :param limit: at most so many events; None: all.
        :param max_age: as in :meth:`get_new_events`.
        :returns: a batch, of no events if there are none. What is not acknowledged comes again.
        :raises TargetError: if the target had to be looked at, and can't be.
        :raises OffsetTooOld: if the journal no longer has what comes next.
        """
        max_age = seconds("max_age", max_age, endless=True)
        with self._lock:
            pending = self._pending(limit)
            if limit is None or len(pending.events) < limit:
                self._engine.look(max_age)
                pending = self._pending(limit)
            return self._batch(pending)

    def finish(self, events: Iterable[Event | str] | Event | str) -> None:
        """Acknowledge single events, in whatever order, while others stay pending; all of them or none.

        They are not given out again; the consumer's offset follows as far as everything
        before it is done with. Again does nothing.

        :param events: events, or their ids. Those that the journal has no more are passed over.
        :raises UnknownEvent: if one is not of this target, or not for this consumer.
        """
        # An event can be iterated over as well, so it must not be taken for several.
        several = [events] if isinstance(events, Event | str) else events
        ids = [one.id if isinstance(one, Event) else one for one in several]
        engine = self._engine
        finish_events(engine.store.database, engine.target_id, self.consumer, ids, self._select)

    async def batches(
        self, interval: Seconds = 30.0, limit: int | None = 1000
    ) -> AsyncGenerator[AsyncBatch, None]:
        """Batches as they come, for ever.

        Wakes at once when the target is watched and something happens in it; otherwise
        looks every ``interval`` seconds. The loop is never blocked. A batch that was not
        acknowledged is given again after ``interval``. A target that can't be looked at
        for the moment is logged, shown by :meth:`status`, and tried again.

        :param interval: seconds between looks, or a ``timedelta``.
        :param limit: at most so many events in a batch; None: all.
        """
        import asyncio  # late, as it takes 10 MiB: who awaits has paid for it already

        interval = max(0.001, seconds("interval", interval))
        _ = self._engine
        subscription = self._subscribe(interval, limit)
        try:
            fetched = await subscription.wait()
            while True:
                pending = await asyncio.to_thread(self._pending, limit) if fetched is None else fetched
                fetched = None
                if not pending.events:
                    if pending.upto:
                        await asyncio.to_thread(self._pass_over, pending)
                    fetched = await subscription.wait()
                    continue
                batch = AsyncBatch(self._batch(pending))
                yield batch
                if not batch.acknowledged:
                    await subscription.pause(interval)
                elif limit is None or len(pending.events) < limit:
                    # That was all: the pump tells of what comes now, also of what came meanwhile.
                    fetched = await subscription.wait()
        finally:
            self._subscriptions.remove(subscription)
            subscription.close()

    async def news(self, interval: Seconds = 30.0) -> AsyncGenerator[None, None]:
        """Tells when a look has found something, for ever; whoever is told reads it with :meth:`next_batch`.

        At once when the target is watched and something happens in it, whether or not the
        consumer has acknowledged what it was given before; and once at the beginning. A target
        that can't be looked at for the moment is tried again, as by :meth:`batches`.

        :param interval: seconds between looks at what can't be watched, or a ``timedelta``.
        """
        interval = max(0.001, seconds("interval", interval))
        _ = self._engine
        subscription = self._subscribe(interval, None)
        try:
            while True:
                await subscription.wait()
                yield
        finally:
            self._subscriptions.remove(subscription)
            subscription.close()

    def waiting(self, limit: int | None = 1000) -> Waiting:
        """What waits for the consumer; looks only into the journal, and gives nothing out.

        :param limit: count no further than this; None: all.
        """
        return _waiting(self._pending(limit))

    async def wakeups(
        self,
        interval: Seconds = 30.0,
        *,
        remind: Seconds = 60.0,
        limit: int | None = 1000,
        batch_for: Seconds = 0.0,
    ) -> AsyncGenerator[Waiting, None]:
        """Tells when there is something for the consumer, for ever; gives nothing out.

        For whoever starts a worker that then takes what there is with :meth:`claim` or
        :meth:`next_batch`, in whatever process. Tells at once when events come to a
        consumer that had none; then again when the consumer has moved and there is more,
        and every ``remind`` seconds for as long as it has not moved, since a worker that
        was told may never have started. Events that come meanwhile are not told one by
        one: the worker finds them. The loop is never blocked.

        :param interval: seconds between looks, or a ``timedelta``; a target that is watched is looked at
            when something happens, and the consumer's progress every ``interval``.
        :param remind: seconds between two tellings of the same events, or a ``timedelta``; also how long it
            takes at most until it is noticed that another process gave events back (``release``, ``rewind``).
        :param limit: count no further than this; None: all.
        :param batch_for: as in :meth:`claim`.
        """
        import asyncio

        interval = max(0.001, seconds("interval", interval))
        remind = max(0.001, seconds("remind", remind))
        batch_for = seconds("batch_for", batch_for)
        _ = self._engine
        loop = asyncio.get_running_loop()
        subscription = self._subscribe(interval, limit)
        told, again, given = None, 0.0, self._given_back
        try:
            fetched = await subscription.wait()
            while True:
                pending = await asyncio.to_thread(self._pending, limit) if fetched is None else fetched
                now = _waiting(pending)
                if given != self._given_back:
                    told, given = None, self._given_back
                if not now and pending.upto:
                    await asyncio.to_thread(self._pass_over, pending)
                left = self._gathers(now, limit, batch_for)
                if now and not left and (now.first != told or loop.time() >= again):
                    yield now
                    told, again = now.first, loop.time() + remind
                elif not now:
                    told = None
                # Nothing tells of what another process gave back, or how far it has got: so ask now and then.
                timeout = min(interval, left or max(0.0, again - loop.time())) if now else remind
                try:
                    # Not wait_for(), which before Python 3.12 can lose a cancellation that comes with news.
                    async with asyncio.timeout(timeout):
                        fetched = await subscription.wait()
                except TimeoutError:
                    fetched = None
        finally:
            self._subscriptions.remove(subscription)
            subscription.close()

    def claim(
        self, token: str, limit: int | None = 1000, *, max_age: Seconds = 0.0, batch_for: Seconds = 0.0
    ) -> Claim:
        """A batch that belongs to a token, for ever.

        The first call with a token takes the next events and moves the consumer past
        them; every later one with that token, from any process, gives the same events
        again, for as long as the journal keeps them. Nothing is kept for a call that
        found no events.

        :param token: what names the run that owns the batch: 1 to 250 printable characters.
        :param limit: at most so many events; None: all.
        :param max_age: a look that began so many seconds ago, in whatever process, is good enough;
            ``math.inf``: don't look, take what the journal has.
        :param batch_for: go on collecting until ``limit`` events wait, or the first of them was found so many
            seconds ago; none are given before.
        :raises OffsetTooOld: if the journal no longer has the events of this claim.
        """
        check_token(token)
        self._check_limit(limit)
        max_age = seconds("max_age", max_age, endless=True)
        batch_for = seconds("batch_for", batch_for)
        with self._lock:
            engine = self._engine
            consumers = engine.store.consumers
            claimed = consumers.claimed(engine.target_id, self.consumer, token)
            if claimed is None:
                engine.look(max_age)
                if batch_for and self._gathers(self.waiting(limit), limit, batch_for):
                    return Claim([], token)
                claimed = consumers.claim(engine.target_id, self.consumer, token, limit, self._select)
            return Claim(self._events(claimed), token)

    def take(self, event_id: str, token: str) -> Event:
        """One event, in any order: the first token to ask has it, and the same token again.

        The target is not looked at, and the consumer's offset follows as far as all before it is taken.

        :param event_id: :attr:`Event.id <poller_core.Event.id>`.
        :param token: what names the run, such as its id: 1 to 250 printable characters.
        :raises EventTaken: if another token has it; the error's ``token`` says which.
        :raises UnknownEvent: if the journal has no event of that id.
        """
        check_token(token)
        engine = self._engine
        return self._event(engine.store.consumers.take(engine.target_id, self.consumer, event_id, token))

    def release(self, token: str) -> int:
        """Give back the events that a token has; they are the consumer's next ones.

        :param token: as it was given to :meth:`claim` or :meth:`take`.
        :returns: how many.
        :raises UnknownClaim: if the token has none.
        """
        engine = self._engine
        count = engine.store.consumers.release(engine.target_id, self.consumer, token)
        self._shared.pump.give_back(self.consumer)
        return count

    @contextmanager
    def lease(self, wait: Seconds = 0.0) -> Iterator[Lease]:
        """Be the only one that polls this target as this consumer, for the length of a block.

        For programs of which several run although one would do: the others end, or wait
        to take over. Whoever shares the state is kept out, on any machine, if they ask for
        the lease as well. It is free as soon as the holder ends, even if it is killed. A
        state that is this process's own (``state=None``) always grants it.

        It saves double work, and no more: that nothing is lost or written twice hangs on
        generations and acknowledgements, not on this. A holder whose connection to
        PostgreSQL broke has lost it, and may ask with :meth:`Lease.held`.

        :param wait: for how long to wait while another one has it, in seconds, or a ``timedelta``;
            ``math.inf``: for ever. Closing the poller ends the wait.
        :raises LeaseHeld: if another one still has it then.
        :raises PollerClosed: if this poller is closed meanwhile.
        :raises StateError: if that can't be found out.
        """
        engine = self._engine
        lock = engine.store.database.lease(lease_key(engine.epoch, self.consumer))
        what = f"consumer {self.consumer!r} of {self.url.without_credentials()} in {engine.store.url}"
        lease = take_lease(lock, wait, self._ended, what)
        try:
            yield lease
        finally:
            lease.release()

    def claims(self) -> list[ClaimRow]:
        """What tokens have of this consumer's events."""
        engine = self._engine
        return engine.store.consumers.claims(engine.target_id, self.consumer)

    def rewind(self, to: int | str | float | datetime) -> None:
        """Have events delivered again (or skip some).

        :param to: the seq of the next event to deliver; or a time (``datetime``, or its
            ISO 8601 text), for the events found since; or ``"beginning"``, for all that
            is there now, as created; or ``"now"``, for nothing but what is still to come.
        :raises OffsetTooOld: if the journal no longer goes back so far.
        """
        with self._lock:
            self._handed = None
            engine = self._engine
            consumers, target_id = engine.store.consumers, engine.target_id
            if to == "beginning":
                engine.look()
                consumers.rewind_beginning(target_id, self.consumer, self._backlog())
            elif to == "now":
                engine.look()
                consumers.rewind_now(target_id, self.consumer)
            elif isinstance(to, int) and not isinstance(to, bool):
                consumers.rewind(target_id, self.consumer, to)
            else:
                consumers.rewind(target_id, self.consumer, engine.store.seq_at(target_id, _time(to)))
            self._shared.pump.give_back(self.consumer)

    # -- helpers -------------------------------------------------------------

    def _subscribe(self, interval: float, limit: int | None) -> Subscription:
        """Have the pump look, and read what there is for the consumer, if that is not much."""
        self._check_limit(limit)
        few = limit is not None and limit <= _BACKLOG
        subscription = self._shared.pump.join(interval, (lambda: self._pending(limit)) if few else None)
        self._subscriptions.append(subscription)
        return subscription

    def _gathers(self, waiting: Waiting, limit: int | None, batch_for: float) -> float:
        """For how many seconds a batch is still collected; 0: it is ready."""
        if waiting.since is None or (limit is not None and waiting.count >= limit):
            return 0.0
        left = waiting.since.timestamp() + batch_for - self.clock.wall()
        # Found in a future that clocks of several machines don't explain: ours was set back meanwhile.
        return min(batch_for, max(0.0, left)) if left <= 2 * batch_for else 0.0

    @property
    def _given_back(self) -> int:
        return self._shared.pump.given_back[self.consumer]

    def _pending(self, limit: int | None) -> Pending:
        self._check_limit(limit)
        engine = self._engine
        return engine.store.consumers.pending(engine.target_id, self.consumer, limit, self._select)

    def _ack(self, pending: Pending) -> None:
        engine = self._engine
        engine.store.consumers.ack(engine.target_id, self.consumer, pending.upto, pending.returned)

    def _pass_over(self, pending: Pending) -> None:
        """Move past events that the consumer does not want, lest it hold up the journal."""
        engine = self._engine
        row = engine.store.consumers.get(engine.target_id, self.consumer)
        if row is not None and pending.upto - row.seq >= _BACKLOG:
            self._ack(pending)

    def _batch(self, pending: Pending) -> Batch:
        return Batch(self._events(pending.events), lambda: self._ack(pending))

    def _events(self, numbered: list[Numbered]) -> list[Event]:
        return [self._event(one) for one in numbered]

    def _event(self, numbered: Numbered) -> Event:
        engine = self._engine
        return to_event(engine.source.subject, engine.epoch, numbered)

    @staticmethod
    def _check_limit(limit: int | None) -> None:
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise InvalidOption(
                f"limit={limit!r}: expected a whole number of events, 1 or more, or None for all"
            )


def _waiting(pending: Pending) -> Waiting:
    events = pending.events
    if not events:
        return Waiting()
    since = datetime.fromtimestamp(events[0].detected_at_us / 1e6, UTC)
    return Waiting(len(events), events[0].seq, events[-1].seq, since)


def _time(to: object) -> float:
    try:
        if isinstance(to, float) and math.isfinite(to):
            return min(max(to, -_FAR), _FAR)
        return (to if isinstance(to, datetime) else datetime.fromisoformat(str(to))).timestamp()
    except (ValueError, OverflowError):
        raise InvalidOption(
            f"to={to!r}: expected a seq, a time such as '2026-11-23T06:00:00+00:00', 'beginning' or 'now'"
        ) from None
