"""``PollerSensor``: waits for events, and gives them to its run.

Guarantees: what the sensor returns is a claim of its run. The same run gets the
same events again, whether the task is retried, cleared or run elsewhere; the next
run gets the next ones. Killed at any moment, either the claim is there and the next
try finds it, or the events still wait for the consumer.

Not guaranteed: that a subject is still there, or as it was, when the run comes to it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from poller_core.hosts import (
    JOURNAL_ONLY,
    plain,
    plain_options,
    plain_seconds,
    plain_url,
    report,
    report_claim,
)

from .rendering import RendersNoSecret
from .secrets import refuse_secrets
from .settings import claim_token, consumer_of, handover
from .triggers import PollerTrigger
from .watching import Watching, as_airflow_has_it

__all__ = ["PollerSensor"]


class PollerSensor(RendersNoSecret, BaseSensorOperator):
    """Waits for events at a URL and returns them, as a list of JSON objects ready for ``.expand()``.

    Each has ``subject``, ``event`` (``"created"``, ``"modified"``, ``"deleted"``), ``id``, ``seq``, ``key``,
    ``size``, ``mtime``, ``etag``, ``detected_at``, and ``path`` of a file, ``container`` and ``name`` of an
    object. ``poller_core.Event.from_dict`` makes an event of it again.

    :param url: what to watch: a URL or a path, without user and password (templated).
    :param conn_id: a connection of the type ``poller``, for credentials or the state (templated).
    :param consumer: the name under which is remembered what was taken; the default is
        ``<dag id>.<task id>`` (templated).
    :param limit: how many events a run takes at most; None: all that wait. The default, 1000, is below
        Airflow's limit for mapped tasks.
    :param batch_for: seconds to go on collecting after the first event, unless ``limit`` is reached before.
    :param deferrable: wait in the triggerer, which notices files at once and holds no worker slot; the
        default is Airflow's ``[operators] default_deferrable``.
    :param state: where the state is; the default is the connection's, then ``[poller] state`` (templated).
    :param options: more options, for a poller that somebody else has registered; plain JSON.
    :raises InvalidUrl, InvalidOption: if there is a secret in an argument; give ``conn_id``.

    Besides it takes options of ``poller_core.make_poller``: ``recurse``, ``events``, ``include`` and
    ``exclude`` (both templated), ``default_exclude``, ``settle``, ``follow_symlinks``, ``directories``,
    ``metadata``, ``fingerprint``, ``existing``, ``start``, ``full_every``, ``cloud``, ``region``,
    ``interface``, ``cacert``, ``insecure``. By default a new consumer is given what comes from now on;
    ``existing="report"`` gives it what is there already, too.

    Of the sensor's usual parameters, ``poke_interval`` says how often a target is looked at that can't be
    watched; a look that another process had within that time counts.
    """

    template_fields: Sequence[str] = ("url", "conn_id", "consumer", "state", "include", "exclude")
    ui_color = "#d5e8e4"

    def __init__(
        self,
        *,
        url: str | os.PathLike[str],
        conn_id: str | None = None,
        consumer: str | None = None,
        limit: int | None = 1000,
        batch_for: float | timedelta = 0.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        state: str | None = None,
        recurse: bool | None = None,
        events: str | Iterable[str] | None = None,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        default_exclude: bool | None = None,
        settle: float | timedelta | None = None,
        follow_symlinks: bool | None = None,
        directories: bool | None = None,
        metadata: bool | None = None,
        fingerprint: Iterable[str] | None = None,
        existing: str | None = None,
        start: str | int | None = None,
        full_every: float | timedelta | None = None,
        cloud: str | None = None,
        region: str | None = None,
        interface: str | None = None,
        cacert: str | os.PathLike[str] | None = None,
        insecure: bool | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_secrets(url, state, options)
        self.url = plain_url(url)
        self.conn_id = conn_id
        self.consumer = consumer
        self.limit = limit
        self.batch_for = plain_seconds(batch_for)
        self.deferrable = deferrable
        self.state = state
        self.include = _listed(include)
        self.exclude = _listed(exclude)
        self.options = plain_options(
            {
                "recurse": recurse,
                "events": events,
                "default_exclude": default_exclude,
                "settle": settle,
                "follow_symlinks": follow_symlinks,
                "directories": directories,
                "metadata": metadata,
                "fingerprint": fingerprint,
                "existing": existing,
                "start": start,
                "full_every": full_every,
                "cloud": cloud,
                "region": region,
                "interface": interface,
                "cacert": cacert,
                "insecure": insecure,
                **(options or {}),
            }
        )
        self._poller: Any = None

    # -- what is watched -----------------------------------------------------

    def _options(self) -> dict[str, Any]:
        return plain_options({**self.options, "include": self.include, "exclude": self.exclude})

    def _watching(self, context: Any) -> Watching:
        return Watching(
            self.url, self.consumer or consumer_of(context), self.conn_id, self.state, self._options()
        )

    def _claim(self, context: Any, max_age: float) -> list[dict[str, Any]]:
        """The events of this run. The poller stays open: who pokes again needs it again."""
        token = claim_token(context)
        with as_airflow_has_it():
            if self._poller is None:
                self._poller = self._watching(context).open(self.log)
            poller = self._poller
            events = list(poller.claim(token, self.limit, max_age=max_age, batch_for=self.batch_for))
            report(self.log, poller)
            if events:
                report_claim(self.log, token, events)
            else:
                self.log.info("Nothing waits for consumer %r", poller.consumer)
            return [plain(event) for event in events]

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            poller, self._poller = self._poller, None
            if poller is not None:
                poller.close()

    # -- the sensor ----------------------------------------------------------

    def poke(self, context: Any) -> PokeReturnValue:
        """Look, and claim what there is for this run."""
        # Half: what this task has looked at itself, a poke before, is to be looked at again.
        events = self._claim(context, max_age=self.poke_interval / 2)
        return PokeReturnValue(bool(events), events)

    def execute(self, context: Any) -> Any:
        """Wait for events, and return them."""
        with self._closing():
            if not self.deferrable:
                return super().execute(context)
            events = self._first_claim(context)
        if events:
            return events
        return self._defer(context, time.time() + self.timeout)

    def _first_claim(self, context: Any) -> list[dict[str, Any]]:
        """As a sensor that pokes treats its errors."""
        try:
            return self._claim(context, max_age=max(self.poke_interval, 1.0))
        except AirflowFailException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipping, as soft_fail or never_fail is set: {error}") from error
            raise
        except Exception as error:
            if self.silent_fail:
                self.log.exception("Looking failed; waiting all the same, as silent_fail is set")
                return []
            if self.never_fail:
                raise AirflowSkipException(f"Skipping, as never_fail is set: {error}") from error
            raise

    def execute_complete(self, context: Any, event: Any = None, deadline: float | None = None) -> Any:
        """What the trigger calls: take the events, or wait on if another one was faster."""
        event = event or {}
        if event.get("status") == "error":
            raise AirflowFailException(event.get("error"))
        with self._closing():
            events = self._claim(context, JOURNAL_ONLY)
        if events:
            return events
        deadline = time.time() + self.timeout if deadline is None else deadline
        if deadline <= time.time():
            raise AirflowSensorTimeout(f"Nothing came for this run within {self.timeout:g} seconds")
        return self._defer(context, deadline)

    def _defer(self, context: Any, deadline: float) -> None:
        watching = self._watching(context)
        trigger = PollerTrigger(
            watching.url,
            watching.consumer,
            conn_id=watching.conn_id,
            state=watching.state,
            poke_interval=self.poke_interval,
            limit=self.limit,
            batch_for=self.batch_for,
            **watching.options,
        )
        left = max(0.0, deadline - time.time())
        trigger.hold = min(handover(), left / 2)
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=timedelta(seconds=left),
        )


def _listed(patterns: Any) -> Any:
    """Patterns as a list; what stands for one, such as another task's output, as it is."""
    if isinstance(patterns, str):
        return [patterns]
    return list(patterns) if isinstance(patterns, list | tuple | set | frozenset) else patterns
