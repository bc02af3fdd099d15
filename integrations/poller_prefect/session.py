"""One run of ``poll_flow``: what it needs, opened in order, and closed whatever happens.

Guarantees: of two that poll one target for one consumer, the second ends at once; at most
one look at a target and one delivery go on. Everything is closed in the end, also when the
run is cancelled.

Not guaranteed: that the lease alone keeps two apart; acknowledgements and keys do.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed

from poller_core import Event, InvalidOption, LeaseHeld, ListingPoller, PollerError, TargetError
from poller_core.hosts import fitting, plain_url, report

from .api import Server
from .events import related_as, target_label
from .feed import Feed
from .polling import NotDelivered, Poll
from .running import Run
from .runs import LABELS, Batches, Runs
from .settings import refuse, state_of
from .telling import Polled, publish
from .watching import Watching

__all__ = ["Request", "Session"]

#: How often Prefect's own client tries again. With its usual five, for a minute, a smaller patience would not
#: be kept, nor be seen that the server was away. (Not never: it needs a second try if its CSRF token is old.)
_RETRIES = 1
#: How long a poll that follows waits for a server that is away, seconds.
_FOLLOWING = 7 * 86400.0


@dataclass(frozen=True)
class Request:
    """What ``poll_flow`` was asked for; see there."""

    url: str
    run: str | None
    parameters: dict[str, Any] | None
    batch: bool
    follow: bool
    interval: float
    limit: int
    batch_for: float
    consumer: str | None
    state: str | None
    credentials: str | None
    emit: bool
    patience: float
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what does not fit together, and secrets.

        :raises InvalidUrl, InvalidOption: if something can't be.
        """
        if self.batch and self.run is None:
            raise InvalidOption(
                "batch=True needs run='flow/deployment': the deployment whose run takes the batch"
            )
        if self.parameters is not None and self.run is None:
            raise InvalidOption(
                "parameters=… needs run='flow/deployment'. What a triggered deployment gets is said by its "
                "trigger: on_created(url, parameters=…)"
            )
        refuse(plain_url(self.url), self.state, dict(self.options))


class Session:
    """A poll, from its request to its state.

    :param own: the flow run that polls.
    :param log: the run's log.
    """

    def __init__(self, request: Request, own: Run, log: Any) -> None:
        request.check()
        self._request = request
        self._own = own
        self._log = log
        self._consumer = fitting(
            request.consumer or (own.whose if own.deployment else request.run) or own.flow
        )
        self._polled = Polled(target_label(request.url))
        self._runs: dict[str, FlowRun] = {}
        self._trouble: str | None = None
        self._told = 0

    async def run(self) -> State[Polled]:
        """Poll.

        :raises PollerError: if the target can't be looked at, or something could not be delivered.
        """
        request = self._request
        place = await asyncio.to_thread(state_of, request.state)
        watching = Watching(request.url, self._consumer, request.credentials, request.options)
        async with AsyncExitStack() as stack:
            poller = await asyncio.to_thread(watching.open, place, self._log)
            stack.push_async_callback(asyncio.to_thread, poller.close)
            lease = poller.lease()
            try:
                await asyncio.to_thread(lease.__enter__)
            except LeaseHeld as held:
                self._log.info("%s", held)
                return Completed(name="AlreadyPolled", message=str(held), data=self._polled)
            stack.callback(lease.__exit__, None, None, None)
            client = await stack.enter_async_context(get_client())
            server = Server(client, _FOLLOWING if request.follow else request.patience, self._log.warning)
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _RETRIES}):
                error = await self._poll(server, poller, place.name)
                await self._end(poller, error)
            if error is not None:
                raise error
        return Completed(name=self._name(), message=self._polled.summary, data=self._polled)

    # -- polling -----------------------------------------------------------------

    async def _poll(self, server: Server, poller: ListingPoller, place: str) -> PollerError | None:
        """Do what was asked for; what went wrong with it, after what could be done was done."""
        request = self._request
        if request.follow:
            self._log.info("Following %s as consumer %r, until cancelled", self._polled.url, self._consumer)
        try:
            if request.run is None:
                await self._deliver(poller, self._feed(server))
                return None
            deployment = await server.deployment(request.run)
            labels = self._labels(poller, place)
            if request.batch:
                batches = Batches(server, deployment, self._consumer, labels, request.parameters)
                await self._batch(poller, batches)
                return None
            feed = self._feed(server) if request.emit else None
            runs = Runs(
                server,
                feed,
                deployment,
                self._consumer,
                self._polled.url,
                labels,
                request.parameters,
                self._made,
            )
            await self._deliver(poller, runs)
        except PollerError as error:
            return error
        return None

    async def _deliver(self, poller: ListingPoller, way: Feed | Runs) -> None:
        poll = Poll(poller, way, self._delivered, self._request.patience)
        try:
            if self._request.follow:
                await poll.follow(self._request.interval, lambda: self._tick(poller))
            else:
                await poll.once()
        except NotDelivered:
            self._polled.failed = len(way.failed) + way.in_flight
            raise

    async def _batch(self, poller: ListingPoller, batches: Batches) -> None:
        request = self._request
        if request.follow:
            async for waiting in poller.wakeups(
                request.interval, remind=request.interval, limit=request.limit, batch_for=request.batch_for
            ):
                self._started(await batches.launch(waiting), waiting.count)
                self._tick(poller)
        trouble: TargetError | None = None
        try:
            # Only to look: the run takes its batch itself.
            await asyncio.to_thread(poller.next_batch, request.limit)
        except TargetError as error:
            trouble = error
        waiting = await asyncio.to_thread(poller.waiting, request.limit)
        collects = waiting.count < request.limit and _age(waiting.since) < request.batch_for
        if waiting and not collects:
            self._started(await batches.launch(waiting), waiting.count)
        if trouble is not None:
            raise trouble

    def _feed(self, server: Server) -> Feed:
        return Feed(server, self._polled.url, _related(self._own), self._log.warning)

    def _labels(self, poller: ListingPoller, place: str) -> dict[str, str]:
        request = self._request
        select = {name: request.options[name] for name in ("events", "include") if name in request.options}
        labels = {
            LABELS["target"]: self._polled.url,
            LABELS["digest"]: poller.digest,
            LABELS["consumer"]: self._consumer,
            LABELS["limit"]: str(request.limit),
            LABELS["select"]: json.dumps(select),
        }
        # A state that was only usual here is usual there, too; a variable is not the other process's.
        return labels if request.state is None else {**labels, LABELS["state"]: place}

    # -- telling -----------------------------------------------------------------

    def _made(self, event: Event, run: FlowRun) -> None:
        self._runs[event.id] = run

    def _delivered(self, event: Event) -> None:
        run = self._runs.pop(event.id, None)
        self._polled.add(event, run)
        self._told += 1
        if self._told <= 20 or self._request.follow:
            made = "" if run is None else f": run {run.name!r} ({run.id})"
            self._log.info("%s %s%s", event.event, event.subject, made)

    def _started(self, run: FlowRun | None, count: int) -> None:
        if run is not None:
            self._polled.runs += 1
            self._log.info("Made run %r (%s) for a batch of %d event(s)", run.name, run.id, count)
        elif not self._request.follow:
            self._log.info("%d event(s) wait, and a run for them is on its way", count)

    def _tick(self, poller: ListingPoller) -> None:
        """While it follows: tell when the target is away, and when it is back."""
        trouble = poller.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is None:
                self._log.info("%s can be looked at again", self._polled.url)
            else:
                self._log.warning("%s: %s; trying again", self._polled.url, trouble)

    async def _end(self, poller: ListingPoller, error: PollerError | None) -> None:
        status = await asyncio.to_thread(poller.status)
        self._polled.see(status, self._consumer)
        if self._told > 20:
            self._log.info("… %d events in all", self._told)
        await asyncio.to_thread(report, self._log, poller)
        if not (self._polled.new or self._polled.runs or status.gaps or error):
            return
        try:
            await publish(self._polled, status, self._consumer, [] if error is None else [str(error)])
        except (httpx.HTTPError, ValueError) as problem:
            self._log.warning("The artifact could not be made: %s", problem)

    def _name(self) -> str:
        polled = self._polled
        return f"Completed: {polled.summary}" if polled.new or polled.runs or polled.gaps else "Completed"


def _age(since: datetime | None) -> float:
    return 0.0 if since is None else time.time() - since.timestamp()


def _related(own: Run) -> list[dict[str, str]]:
    """The run that found an event, its flow, deployment and tags; as Prefect relates its own events."""
    found = [
        related_as("flow-run", f"prefect.flow-run.{own.id}", own.name),
        related_as("flow", f"prefect.flow.{own.flow_id}", own.flow),
    ]
    if own.deployment_id is not None:
        found.append(
            related_as("deployment", f"prefect.deployment.{own.deployment_id}", own.deployment or "")
        )
    return [*found, *(related_as("tag", f"prefect.tag.{tag}") for tag in sorted(own.tags))]
