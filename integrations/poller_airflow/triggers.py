"""Triggers: they tell Airflow that there is something to do, and take nothing.

Guarantees:

* **Level-triggered.** A trigger fires for as long as its consumer has events
  that no run has taken: at its start, when more come, and again after ``remind``
  seconds. It acknowledges nothing, so it does not matter whether Airflow
  loses, repeats or merges what it was told.
* **Harmless.** ``__init__`` only stores its arguments; whatever goes wrong later is
  logged and tried again, ever less often, so that a triggerer never dies of it and
  never restarts it in a tight loop. What a retry can't mend fails the waiting task.
* **One listing.** All triggers of a triggerer on one target share one watcher, and
  the event loop is never blocked: listing and database have threads of their own.
* **No secrets.** Arguments, and so Airflow's tables, hold a connection's id.

Not guaranteed: that each firing makes a run. Airflow merges the events of an asset.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from poller_core import InvalidOption, PollerError, Waiting
from poller_core.hosts import FINAL, plain_options, plain_url

from .secrets import refuse_secrets
from .watching import Watching

__all__ = ["PollerEventTrigger", "PollerTrigger"]

#: The longest pause before something that failed is tried again, seconds.
_LONGEST_PAUSE = 300.0
#: How often a change in what troubles a target is told in the log, seconds.
_TELL_EVERY = 5.0

# Opening a poller may list a whole tree, or wait for a cloud that does not answer, and who wants another
# target is not to wait for that. The loop's own threads are for everybody, and few; so these are ours.
_openers = ThreadPoolExecutor(max_workers=64, thread_name_prefix="poller-open")


class _Trigger(BaseTrigger):
    """What both triggers share: the arguments, and wake-ups that outlive every failure."""

    def __init__(
        self,
        url: str,
        consumer: str = "",
        *,
        conn_id: str | None = None,
        state: str | None = None,
        poke_interval: float = 30.0,
        remind: float = 60.0,
        limit: int | None = 1000,
        batch_for: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.url = url
        self.consumer = consumer
        self.conn_id = conn_id
        self.state = state
        self.poke_interval = poke_interval
        self.remind = remind
        self.limit = limit
        self.batch_for = batch_for
        self.options = options

    def arguments(self) -> dict[str, Any]:
        """The arguments, as plain JSON, without those that were left out."""
        plain = plain_options(
            {
                "url": plain_url(self.url),
                "consumer": self.consumer,
                "conn_id": self.conn_id,
                "state": self.state,
                "poke_interval": self.poke_interval,
                "remind": self.remind,
                "batch_for": self.batch_for,
                **self.options,
            }
        )
        return {**plain, "limit": self.limit}  # None has a meaning here

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the class is, and its arguments.

        :raises InvalidUrl, InvalidOption: if there is a secret in them, or an option is not known: before
            Airflow stores any of it.
        """
        refuse_secrets(self.url, self.state, self.options)
        if not self.consumer:
            raise InvalidOption(
                f"{type(self).__name__} needs consumer='…', the name under which is remembered what was "
                f"taken; give the same one to the operator that takes it"
            )
        return (f"{type(self).__module__}.{type(self).__qualname__}", self.arguments())

    async def _wakeups(self) -> AsyncGenerator[Waiting | PollerError, None]:
        """Wake-ups for ever. An error that trying again can't mend is given, and tried again all the same."""
        watching = Watching(self.url, self.consumer, self.conn_id, self.state, self.options)
        failures = 0
        while True:
            try:
                connection = await watching.connection()
                loop = asyncio.get_running_loop()
                opening = loop.run_in_executor(_openers, watching.open_with, connection, self.log)
                try:
                    poller = await asyncio.shield(opening)
                except asyncio.CancelledError:
                    # The thread can't be stopped. What it opens must not stay open.
                    opening.add_done_callback(_close_late)
                    raise
                told = asyncio.create_task(self._tell(poller))
                try:
                    self.log.info("Watching %s for consumer %r", poller.url, self.consumer)
                    async with contextlib.aclosing(
                        poller.wakeups(
                            self.poke_interval,
                            remind=self.remind,
                            limit=self.limit,
                            batch_for=self.batch_for,
                        )
                    ) as wakeups:
                        async for waiting in wakeups:
                            failures = 0
                            yield waiting
                finally:
                    told.cancel()
                    _openers.submit(poller.close)
            except PollerError as error:
                failures += 1
                # A mount that is back is noticed as soon as a file would be; what can't mend itself can wait.
                final = isinstance(error, FINAL)
                pause = _pause(failures, _LONGEST_PAUSE if final else max(1.0, self.poke_interval))
                self.log.warning("%s; trying again in %.0f s", error, pause)
                if final:
                    yield error
            except AirflowException as error:
                failures += 1
                pause = _pause(failures, _LONGEST_PAUSE)
                self.log.warning("%s; trying again in %.0f s", error, pause)  # such as a missing connection
            except Exception:
                failures += 1
                pause = _pause(failures, _LONGEST_PAUSE)
                self.log.exception("Watching failed; trying again in %.0f s", pause)
            await asyncio.sleep(pause)

    async def _tell(self, poller: Any) -> None:
        """Log what troubles the target, whenever that changes."""
        before = None
        while True:
            with contextlib.suppress(PollerError):
                trouble = poller.trouble
                if trouble != before:
                    if trouble:
                        self.log.warning("%s; it is looked at again and again", trouble)
                    else:
                        self.log.info("%s can be looked at again", poller.url)
                before = trouble
            await asyncio.sleep(_TELL_EVERY)


class PollerTrigger(_Trigger):
    """Waits until there is something for a consumer, for a deferred task.

    Fires once, with ``{"status": "waiting", "count": …, "after": …, "to": …}``, or with
    ``{"status": "error", "error": …}`` for what a retry can't mend. The task then takes its events from the
    journal, and may find that another one was faster.

    :param url: what to watch.
    :param consumer: for whom.
    :param conn_id: a connection of the type ``poller``.
    :param state: where the state is; None: as the connection or ``[poller] state`` says.
    :param poke_interval: seconds between looks at what can't be watched (30).
    :param remind: seconds until it is told again that something waits (60).
    :param limit: count no further than this; None: all (1000).
    :param batch_for: seconds to go on collecting after the first event (0).
    :param hold: seconds before which it does not fire, so that Airflow is done with having deferred the
        task (0; the sensor gives what Airflow needs).
    :param options: the options of ``poller_core.make_poller``.
    """

    def __init__(self, url: str, consumer: str = "", *, hold: float = 0.0, **arguments: Any) -> None:
        super().__init__(url, consumer, **arguments)
        self.hold = hold

    def arguments(self) -> dict[str, Any]:
        """The arguments, as plain JSON, without those that were left out."""
        return {**super().arguments(), "hold": self.hold}

    async def run(self) -> AsyncGenerator[TriggerEvent, None]:
        """Wait, and fire once."""
        loop = asyncio.get_running_loop()
        ready = loop.time() + self.hold
        async with contextlib.aclosing(self._wakeups()) as wakeups:
            async for waiting in wakeups:
                await asyncio.sleep(max(0.0, ready - loop.time()))
                if isinstance(waiting, PollerError):
                    yield TriggerEvent({"status": "error", "error": f"{type(waiting).__name__}: {waiting}"})
                else:
                    yield TriggerEvent({"status": "waiting", **_payload(waiting)})
                return


class PollerEventTrigger(_Trigger, BaseEventTrigger):
    """Fires while there is something for a consumer, for an ``AssetWatcher``.

    The payload is ``{"url": …, "consumer": …, "count": …, "after": …, "to": …}``: a wake-up. The run that it
    starts takes its events with :class:`~poller_airflow.PollerBatchOperator`. The parameters are those of
    :class:`PollerTrigger`; ``consumer`` has to be given.
    """

    async def run(self) -> AsyncGenerator[TriggerEvent, None]:
        """Fire whenever there is something to do, for ever."""
        async with contextlib.aclosing(self._wakeups()) as wakeups:
            async for waiting in wakeups:
                if isinstance(waiting, PollerError):
                    continue  # logged; Airflow would start it again at once
                self.log.info(
                    "%d event(s) wait for consumer %r: seq %s to %s",
                    waiting.count,
                    self.consumer,
                    waiting.first,
                    waiting.last,
                )
                yield TriggerEvent({"url": self.url, "consumer": self.consumer, **_payload(waiting)})


def _payload(waiting: Waiting) -> dict[str, Any]:
    return {"count": waiting.count, "after": (waiting.first or 1) - 1, "to": waiting.last}


def _pause(failures: int, longest: float) -> float:
    """Seconds until the next try; not in step with others who failed at the same time."""
    return min(_LONGEST_PAUSE, longest, 2.0 ** min(failures, 20)) * (0.75 + random.random() / 2)


def _close_late(opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _openers.submit(opening.result().close)
