"""Runs made through the API, with an idempotency key: the direct way from an event to a run.

Guarantees: one run per event and consumer, whoever makes it and how often: Prefect has at
most one run per flow and key, and the key is made of the consumer's name and the event's
id. A batch's run is made anew only if the one before has ended without taking anything.
Measured, with the server killed twice in between: 400 runs for 400 events, none twice.

Not guaranteed: the order in which Prefect starts them; and that a run that was deleted
in Prefect is not made again, should its event still be unacknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from poller_core import Event, InvalidOption
from poller_core.delivery import Waiting

from .api import Refused, Server
from .events import facts, related_as
from .feed import Feed
from .parameters import Parameters

__all__ = ["BATCH", "LABELS", "Batches", "Runs"]

_WINDOW = 200
#: Names of a run's labels, by which take_event() and take_batch() know what the run is for.
LABELS = {
    name: f"poller.{name}" for name in ("event", "target", "digest", "consumer", "state", "select", "limit")
}
#: The label of a run that is to take a batch.
BATCH = "poller.batch"
#: How many earlier tries of a batch are looked up at a time.
_TRIES = 100
_LONGEST_NAME = 200


class Runs:
    """One run per event.

    :param server: Prefect's API.
    :param feed: where events are told besides; None: nowhere.
    :param deployment: whose runs they are.
    :param consumer: of the poll; part of the keys.
    :param target: the URL that is watched.
    :param labels: what runs are labelled with.
    :param parameters: see :class:`~poller_prefect.parameters.Parameters`.
    :param made: is told of each event and its run.
    """

    def __init__(
        self,
        server: Server,
        feed: Feed | None,
        deployment: DeploymentResponse,
        consumer: str,
        target: str,
        labels: Mapping[str, str],
        parameters: Mapping[str, Any] | None,
        made: Callable[[Event, FlowRun], object],
    ) -> None:
        self._server = server
        self._feed = feed
        self._deployment = deployment
        self._consumer = consumer
        self._target = target
        self._labels = dict(labels)
        self._made = made
        self._parameters = Parameters(
            parameters, deployment.parameter_openapi_schema, deployment.parameters or {}
        )
        self._done: list[Event] = []
        self.failed: dict[str, str] = {}  #: why there is no run for an event, by its id

    in_flight = 0  #: none: launching waits for the answers
    window = _WINDOW
    pause = 0.0

    async def launch(self, events: Iterable[Event]) -> None:
        """Make the runs of these events, one after the other.

        Not several at a time: with SQLite Prefect's server then spends its time on waiting for its own locks.
        """
        told: list[dict[str, Any]] = []
        for event in events:
            try:
                run = await self._create(event)
            except Refused as error:
                self.failed[event.id] = f"{event.subject}: {error}"
                continue
            self.failed.pop(event.id, None)
            self._made(event, run)
            self._done.append(event)
            if self._feed is not None:
                made = related_as("started-flow-run", f"prefect.flow-run.{run.id}", run.name)
                told.append(self._feed.raw(event, made))
        if told:
            await self._server.post(told)

    async def done(self) -> list[Event]:
        """Those that have a run, since it was last asked."""
        done, self._done = self._done, []
        return done

    async def _create(self, event: Event) -> FlowRun:
        name = "".join(char if char.isprintable() else "?" for char in f"{event.event} {_short(event)}")
        try:
            return await self._server.create_run(
                self._deployment.id,
                f"poller/{self._consumer}/{event.id}",
                parameters=self._parameters(facts(event, self._target)),
                name=name[:_LONGEST_NAME],
                tags=["poller"],
                labels={**self._labels, LABELS["event"]: event.id},
            )
        except ObjectNotFound:
            raise _gone(self._deployment) from None


class Batches:
    """One run for all that waits; it takes its events itself, with :func:`poller_prefect.take_batch`."""

    def __init__(
        self,
        server: Server,
        deployment: DeploymentResponse,
        consumer: str,
        labels: Mapping[str, str],
        parameters: Mapping[str, Any] | None,
    ) -> None:
        self._server = server
        self._deployment = deployment
        self._consumer = consumer
        self._labels = {**labels, BATCH: "true"}
        self._parameters = dict(parameters or {})
        self._tries: tuple[int | None, int] = (None, 0)

    async def launch(self, waiting: Waiting) -> FlowRun | None:
        """Have a run that takes what waits.

        :returns: the run that was made; None if one is on its way already.
        """
        first, known = self._tries
        start = known if first == waiting.first else 0
        while True:
            keys = [
                f"poller/{self._consumer}/batch/{waiting.first}/{n}" for n in range(start, start + _TRIES)
            ]
            there = await self._server.runs(self._deployment.flow_id, keys)
            tries = [there.get(key) for key in keys]
            missing = next((n for n, run in enumerate(tries) if run is None), None)
            if missing is None:
                start += _TRIES
                continue
            self._tries = (waiting.first, start + max(0, missing - 1))
            last = tries[missing - 1] if missing else None
            if last is not None and not (last.state and last.state.is_final()):
                return None
            try:
                return await self._server.create_run(
                    self._deployment.id,
                    keys[missing],
                    parameters=self._parameters,
                    tags=["poller"],
                    labels=self._labels,
                )
            except ObjectNotFound:
                raise _gone(self._deployment) from None


def _gone(deployment: DeploymentResponse) -> InvalidOption:
    return InvalidOption(f"the deployment {deployment.name!r}, whose runs are to be made, was deleted")


def _short(event: Event) -> str:
    name = event.name if event.name is not None else event.key.decode(errors="replace")
    return name if len(name) <= 120 else "…" + name[-119:]
