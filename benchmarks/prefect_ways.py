"""What is measured, inside of processes of their own: ours, and Prefect's own calls without us.

Moments are those of ``time.time()``, told to who started the process; what is compared with
them are moments of the same machine. What has to be there first (journal, events ready to be sent,
deployment) is made before the clock starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
from poller_prefect import on_created, poll_flow
from poller_prefect.events import host_event, target_label
from poller_prefect.polling import Poll
from prefect import flow, serve
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError
from prefect.types.entrypoint import EntrypointType

from poller_core import Event, make_poller

__all__ = [
    "by_interval",
    "emit_bare",
    "emit_ours",
    "floor",
    "follow",
    "post_bare",
    "runs_bare",
    "runs_ours",
    "serve_worked",
    "worked",
]

_CONSUMER = "bench"


@flow(name="worked")
async def worked(url: str) -> None:
    """What runs are made of: nothing."""


def _deployment(name: str, triggered_by: str | None) -> RunnerDeployment:
    return worked.to_deployment(  # type: ignore[return-value]  # no coroutine: nothing here is in a loop
        name,
        triggers=[on_created(triggered_by)] if triggered_by else [],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


# -- the journal ----------------------------------------------------------------------------


def _journal(inbox: str, state: str, count: int) -> list[Event]:
    """Have the events of all files in the journal, given to nobody yet."""
    with make_poller(inbox, consumer=_CONSUMER, state=state, existing="report") as poller:
        events = list(poller.next_batch(count + 1))
    assert len(events) == count
    return events


def _poll(inbox: str, state: str, **given: Any) -> dict[str, Any]:
    """Poll once; when delivery began and ended, from the poll's look at the directory to the last ack."""
    told: dict[str, Any] = {}
    original = Poll.once

    async def once(self: Poll) -> None:
        told["began"] = time.time()
        try:
            await original(self)
        finally:
            told["ended"] = time.time()

    Poll.once = once  # type: ignore[method-assign]
    ended = poll_flow(inbox, consumer=_CONSUMER, state=state, existing="report", return_state=True, **given)
    return {**told, "state": ended.name}


# -- events ---------------------------------------------------------------------------------


def emit_ours(inbox: str, state: str, count: int) -> dict[str, Any]:
    """``poll_flow``, which emits events and nothing else."""
    _journal(inbox, state, count)
    return _poll(inbox, state)


def _raw(inbox: str, state: str, count: int) -> list[dict[str, Any]]:
    """The same events as ours sends, ready to be sent."""
    target = target_label(inbox)
    run = {
        "prefect.resource.id": f"prefect.flow-run.{uuid.uuid4()}",
        "prefect.resource.role": "flow-run",
        "prefect.resource.name": "bare",
    }
    return [host_event(event, target, [run]) for event in _journal(inbox, state, count)]


def emit_bare(inbox: str, state: str, count: int, abrupt: bool) -> dict[str, Any]:
    """``emit_event`` in a flow, once for each.

    :param abrupt: end the process right after the last call, as a crash would.
    """
    # Prefect relates the run itself.
    events = [{**raw, "related": raw["related"][:1]} for raw in _raw(inbox, state, count)]
    told: dict[str, Any] = {}

    @flow(name="emits")
    def emits() -> None:
        told["began"] = time.time()
        for raw in events:
            emit_event(
                event=raw["event"],
                resource=raw["resource"],
                occurred=datetime.fromisoformat(raw["occurred"]),
                related=raw["related"],
                payload=raw["payload"],
                id=uuid.UUID(raw["id"]),
            )
        told["ended"] = time.time()
        if abrupt:
            os.write(1, f"\n{json.dumps(told)}\n".encode())
            os._exit(0)

    emits()
    return told


def post_bare(inbox: str, state: str, count: int, by: int) -> dict[str, Any]:
    """``POST /events``, so many at a time, one request after the other."""
    events = _raw(inbox, state, count)
    with httpx.Client(base_url=os.environ["PREFECT_API_URL"], trust_env=False, timeout=60) as client:
        client.get("/health").raise_for_status()
        began = time.time()
        for start in range(0, count, by):
            client.post("/events", json=events[start : start + by]).raise_for_status()
        return {"began": began, "ended": time.time()}


# -- runs -----------------------------------------------------------------------------------


def runs_ours(inbox: str, state: str, count: int, name: str, triggered: bool) -> dict[str, Any]:
    """``poll_flow`` that makes a run for each event, or emits events by which an automation does."""
    _deployment(name, inbox if triggered else None).apply()
    _journal(inbox, state, count)
    return _poll(inbox, state, run=None if triggered else f"worked/{name}")


def runs_bare(count: int, name: str, at_once: int) -> dict[str, Any]:
    """``POST /deployments/…/create_flow_run`` by Prefect's own client, so many at a time.

    It tries again by itself, and gives up in the end: a run that it gave up is one that is lost.
    """
    deployment = uuid.UUID(str(_deployment(name, None).apply()))
    told: dict[str, Any] = {}

    async def some(client: PrefectClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            with contextlib.suppress(PrefectHTTPStatusError):
                await client.create_flow_run_from_deployment(
                    deployment,
                    parameters={"url": f"file:///{number}"},
                    idempotency_key=f"{name}/{number}",
                )

    async def all_of_them() -> None:
        async with get_client() as client:
            await client.hello()
            left = iter(range(count))
            told["began"] = time.time()
            await asyncio.gather(*(some(client, left) for _ in range(at_once)))
            told["ended"] = time.time()

    asyncio.run(all_of_them())
    return told


# -- from a file to a run; these go on until they are ended ------------------------------------


def serve_worked(ways: dict[str, str | None]) -> None:
    """Make a deployment for each way, and run what is made of them.

    :param ways: their names, each with the directory whose events trigger it.
    """
    serve(*(_deployment(name, folder) for name, folder in ways.items()))


def follow(inbox: str, state: str, run: str | None) -> None:
    """A poll that follows."""
    poll_flow(inbox, run=run, follow=True, consumer=_CONSUMER, state=state, existing="report")


def by_interval(inbox: str, state: str, run: str | None, name: str, interval: float) -> None:
    """A poll that is scheduled; while one goes on, another that is due is left out."""
    parameters = {"url": inbox, "run": run, "consumer": _CONSUMER, "state": state, "existing": "report"}
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    serve(
        poll_flow.to_deployment(
            name, interval=interval, parameters=parameters, concurrency_limit=one_at_a_time
        )
    )


def floor(inbox: str, deployment_id: str) -> None:
    """For each file that is renamed into the directory one request: bare inotify, nothing else."""
    import inotify_simple

    with inotify_simple.INotify() as inotify, get_client(sync_client=True) as client:
        inotify.add_watch(inbox, inotify_simple.flags.MOVED_TO)
        client.hello()
        print("watching", flush=True)
        while True:
            for event in inotify.read():
                url = f"file://{inbox}/{event.name}"
                client.create_flow_run_from_deployment(uuid.UUID(deployment_id), parameters={"url": url})
