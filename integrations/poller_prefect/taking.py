"""What a flow run takes from the journal: its event, or its batch.

Guarantees: what a run took is its own: a retry of the run has the same again, and no
other run of the same deployment has it. Only the state is needed, neither the target
nor its credentials.

Not guaranteed: that a subject is still there, or as it was, when the run comes to it.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NoReturn

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.states import Completed

from poller_core import Claim, Event, EventTaken, InvalidOption, Url, open_journal
from poller_core.hosts import plain_url

from .running import Run, current
from .runs import LABELS
from .settings import in_thread, refuse, state_of

__all__ = ["TakenEvent", "take_batch", "take_event"]

#: The name of the state in which a run ends whose event another one has.
ALREADY_TAKEN = "AlreadyTaken"


def take_event(
    event_id: str | None = None, *, handler: str | None = None, state: str | None = None
) -> TakenEvent:
    """The event of this flow run: ``with take_event(event_id) as event:``, or ``async with``.

    The first run that asks for an event has it, and has it again when it is retried. Another run, which
    Prefect may start for the same event, ends as completed, in a state called ``AlreadyTaken``. (One that has
    no deployment, and a task, get :class:`poller_core.EventTaken` instead.)

    :param event_id: as the run was given it; None: of a run that ``poll_flow(run=…)`` made, the one that it
        was made for.
    :param handler: under which name events are taken: each handler gets every event for itself. By default
        the deployment of the run, or its flow if it has none.
    :param state: where the state is, as of ``poll_flow``.
    :raises UnknownEvent: if the journal has no such event (any more).
    :raises InvalidOption: outside of a flow run, or if it is not known which event.
    :raises StateError: if the state can't be used.
    """
    return TakenEvent(event_id, handler, state)


class TakenEvent:
    """What :func:`take_event` gives: a context manager, for ``with`` and ``async with``."""

    def __init__(self, event_id: str | None, handler: str | None, state: str | None) -> None:
        self._event_id, self._handler, self._state = event_id, handler, state

    def __enter__(self) -> Event:
        try:
            return in_thread(self._take)
        except _AlreadyTaken as taken:
            _end(taken)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is given back: a run that fails keeps its event, and has it again when it is retried."""

    async def __aenter__(self) -> Event:
        import asyncio

        try:
            return await asyncio.to_thread(self._take)
        except _AlreadyTaken as taken:
            _end(taken)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As of ``with``."""

    def _take(self) -> Event:
        run = current("take_event()")
        event_id = self._event_id or run.labels.get(LABELS["event"])
        if not event_id:
            raise InvalidOption(
                "take_event(): which event? Give the event_id that the run was started with (a parameter of "
                "the flow, which poll_flow(run=…) and on_created() fill in)"
            )
        place = state_of(self._state or run.labels.get(LABELS["state"]))
        with open_journal(place.url) as journal:
            try:
                return journal.take(_ours(str(event_id)), run.token, self._handler or run.whose)
            except EventTaken as taken:
                if run.deployment_id is None or run.in_task:
                    raise
                raise _AlreadyTaken(run, taken) from taken


class _AlreadyTaken(Exception):
    """Carries from one thread to the other what ends the run."""

    def __init__(self, run: Run, taken: EventTaken) -> None:
        super().__init__(str(taken))
        self.run, self.taken = run, taken


def _end(already: _AlreadyTaken) -> NoReturn:
    """End this run as completed: what it was to do is another one's."""
    state: State[Any] = Completed(name=ALREADY_TAKEN, message=str(already.taken))
    in_thread(lambda: _set_state(already.run.id, state))
    # Prefect's own way of saying that the state of the run has been set, and that there is no more to do.
    abort = Abort(str(already.taken))
    abort.state = state  # type: ignore[attr-defined]
    raise abort from already.taken


def _set_state(run_id: str, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(uuid.UUID(run_id), state, force=True)


def take_batch(
    limit: int | None = None,
    *,
    url: Any = None,
    consumer: str | None = None,
    events: str | Iterable[str] | None = None,
    include: str | Iterable[str] | None = None,
    state: str | None = None,
) -> Claim:
    """The events of this flow run: a claim, which a retry of the run gets again.

    In a run that ``poll_flow(run=…, batch=True)`` made, nothing has to be given. May be called from sync and
    async flows, and from tasks.

    :param limit: how many events at most; the default is that of the poll, or 1000.
    :param url: what is watched; or the target's digest.
    :param consumer: the name under which is remembered what was taken.
    :param events: which of the events, as the poll has it.
    :param include: patterns, as the poll has them.
    :param state: where the state is, as of ``poll_flow``.
    :returns: events, in order; none if an earlier run has taken all that there was.
    :raises InvalidOption: outside of a flow run, or if it is not known which target and consumer.
    :raises OffsetTooOld: if the journal no longer has the events of this run.
    :raises StateError: if the state can't be used.
    """
    if url is not None:
        refuse(plain_url(url))

    def take() -> Claim:
        run = current("take_batch()")
        target = url if url is not None else run.labels.get(LABELS["digest"])
        name = consumer or run.labels.get(LABELS["consumer"])
        if not target or not name:
            raise InvalidOption(
                "take_batch(): this run was not made by poll_flow(run=…, batch=True), so give url=… and "
                "consumer=… of the poll"
            )
        chosen = json.loads(str(run.labels.get(LABELS["select"]) or "{}")) if url is None else {}
        most = limit if limit is not None else int(run.labels.get(LABELS["limit"]) or 1000)
        place = state_of(state or run.labels.get(LABELS["state"]))
        with open_journal(place.url) as journal:
            return journal.claim(
                target if isinstance(target, Url) else str(target),
                run.token,
                name,
                limit=most,
                events=events if events is not None else chosen.get("events"),
                include=include if include is not None else chosen.get("include"),
            )

    return in_thread(take)


def _ours(event_id: str) -> str:
    """Our id of an event; that of Prefect's, which is a UUID, is looked up in its feed."""
    try:
        host_id = uuid.UUID(event_id)
    except ValueError:
        return event_id
    raw = {"filter": {"id": {"id": [str(host_id)]}}, "limit": 1}
    with contextlib.suppress(httpx.HTTPStatusError), get_client(sync_client=True) as client:
        found = client.request("POST", "/events/filter", json=raw).json()["events"]
        if found and "id" in found[0]["payload"]:
            return str(found[0]["payload"]["id"])
    return event_id
