"""Operators that take what waits: as a batch of their run, or as one DAG run per event.

Guarantees: as :mod:`poller_airflow.sensors` for claims. A dispatched run's id is made
of its event's id, so that dispatching an event again, by whomever, does nothing.

Not guaranteed: the order in which Airflow starts the dispatched runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException

from poller_core import Event, InvalidOption
from poller_core.hosts import JOURNAL_ONLY, plain, plain_options, plain_url, report, report_claim

from .assets import trigger_of
from .links import DispatchedRunsLink
from .rendering import RendersNoSecret
from .secrets import refuse_secrets
from .settings import claim_token, consumer_of
from .watching import Watching, as_airflow_has_it

__all__ = ["PollerBatchOperator", "PollerDispatchOperator"]


class PollerBatchOperator(RendersNoSecret):
    """Takes the batch of its run: the first task of a DAG that an asset schedules.

    Returns the events as a list of JSON objects, as :class:`~poller_airflow.PollerSensor` does, and skips
    when nothing waits: the run that was started by an earlier event took it all.

    :param asset: what :func:`~poller_airflow.poller_asset` made; or give ``url`` and ``consumer``.
    :param url: what is watched (templated).
    :param consumer: the name under which is remembered what was taken; with ``url`` the default is
        ``<dag id>.<task id>`` (templated).
    :param conn_id: a connection of the type ``poller`` (templated).
    :param state: where the state is (templated).
    :param limit: how many events a run takes at most; None: all that wait. The default is the asset's, or
        1000.
    :param max_age: if nothing waits, look at the target, unless some process did so less than this many
        seconds ago. The default is the asset's ``poke_interval``, or 30.
    :param skip_when_empty: skip when nothing waits (True), or return an empty list.
    :param options: for ``url``: the options of ``poller_core.make_poller``.
    :raises InvalidUrl, InvalidOption: if there is a secret in an argument; give ``conn_id``.
    """

    template_fields: Sequence[str] = ("url", "consumer", "conn_id", "state")
    ui_color = "#d5e8e4"

    def __init__(
        self,
        *,
        asset: Any = None,
        url: str | os.PathLike[str] | None = None,
        consumer: str | None = None,
        conn_id: str | None = None,
        state: str | None = None,
        limit: int | Literal["default"] | None = "default",
        max_age: float | None = None,
        skip_when_empty: bool = True,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_target(asset, url)
        if asset is not None:
            trigger = trigger_of(asset)
            url, consumer = trigger.url, consumer or trigger.consumer
            conn_id, state = conn_id or trigger.conn_id, state or trigger.state
            options = {**trigger.options, **(options or {})}
            limit = trigger.limit if isinstance(limit, str) else limit
            max_age = trigger.poke_interval if max_age is None else max_age
        refuse_secrets(url, state, options)
        self.url = plain_url(url)
        self.consumer = consumer
        self.conn_id = conn_id
        self.state = state
        self.limit = 1000 if isinstance(limit, str) else limit
        self.max_age = 30.0 if max_age is None else max_age
        self.skip_when_empty = skip_when_empty
        self.options = plain_options(options or {})

    def _check_target(self, asset: Any, url: Any) -> None:
        if (asset is None) == (url is None):
            raise InvalidOption("give either asset=… (what poller_asset made) or url=…, and not both")

    def claimed(self, context: Any) -> list[Event]:
        """The events of this run.

        :raises AirflowSkipException: if there are none.
        """
        consumer = self.consumer or consumer_of(context)
        token = claim_token(context)
        watching = Watching(self.url, consumer, self.conn_id, self.state, self.options)
        with as_airflow_has_it(), watching.open(self.log) as poller:
            # Whoever woke this run has looked, so its events are in the journal. A run by hand may have to.
            claim = poller.claim(token, self.limit, max_age=JOURNAL_ONLY)
            events = list(claim or poller.claim(token, self.limit, max_age=self.max_age))
            report(self.log, poller)
        if events:
            report_claim(self.log, token, events)
        elif self.skip_when_empty:
            nothing = f"Nothing waits for consumer {consumer!r}: other runs have taken it all"
            self.log.info(nothing)
            raise AirflowSkipException(nothing)
        return events

    def execute(self, context: Any) -> Any:
        """Take the batch."""
        return [plain(event) for event in self.claimed(context)]


class PollerDispatchOperator(PollerBatchOperator):
    """Makes one DAG run per event.

    The run's id is ``poller__<event id>``, and its ``conf`` holds the event, as ``conf["event"]``. An event
    whose run is there already is passed over; so whether this task is retried, cleared or run twice, each
    event has one run. Returns the ids of the runs, in the order of the events.

    :param trigger_dag_id: the DAG to run (templated).
    :param events: what a sensor or :class:`PollerBatchOperator` before it returned, as
        ``events=wait.output`` (templated). Without it, the operator claims its run's batch itself, and needs
        ``asset`` or ``url``.
    :param conf: more for the runs' ``conf`` (templated).
    :param kwargs: as :class:`PollerBatchOperator`.
    """

    template_fields: Sequence[str] = (
        *PollerBatchOperator.template_fields,
        "trigger_dag_id",
        "events",
        "conf",
    )
    operator_extra_links = (DispatchedRunsLink(),)

    def __init__(
        self, *, trigger_dag_id: str, events: Any = None, conf: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.events = events  # before the rest, which asks for it
        super().__init__(**kwargs)
        self.trigger_dag_id = trigger_dag_id
        self.conf = dict(conf or {})

    def _check_target(self, asset: Any, url: Any) -> None:
        if self.events is None:
            super()._check_target(asset, url)
        elif asset is not None or url is not None:
            raise InvalidOption("give events=… (what a sensor returned), or asset=… or url=…, and not both")

    def execute(self, context: Any) -> Any:
        """Make the runs."""
        if self.events is None:
            events = [plain(event) for event in self.claimed(context)]
        elif self.events or not self.skip_when_empty:
            events = list(self.events)
        else:
            raise AirflowSkipException("The task before this one gave no events")
        made, there = [], 0
        for event in events:
            run_id = f"poller__{event['id']}"
            there += not self._dispatch(run_id, {**self.conf, "event": event})
            made.append(run_id)
        if there:
            self.log.info("%d of %d runs of %r were there already", there, len(made), self.trigger_dag_id)
        self.log.info("Made %d run(s) of %r", len(made) - there, self.trigger_dag_id)
        return made

    def _dispatch(self, run_id: str, conf: dict[str, Any]) -> bool:
        """Make a run; False: it was there already."""
        # The one way in which a task may make more than one run. There is no public name for it.
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

        answer = task_runner.SUPERVISOR_COMMS.send(
            TriggerDagRun(dag_id=self.trigger_dag_id, run_id=run_id, conf=conf, logical_date=None)
        )
        if isinstance(answer, ErrorResponse):
            if answer.error.name == "DAGRUN_ALREADY_EXISTS":
                return False
            raise AirflowException(
                f"a run of DAG {self.trigger_dag_id!r} could not be made: "
                f"{answer.error.value} {answer.detail}"
            )
        return True
