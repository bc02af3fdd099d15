"""Runs the flow runs that are scheduled for some deployments, all in one process.

What Prefect's runner does, but for the process it starts for each run, which costs two seconds of a
processor: bursts of hundreds of runs would last for many minutes. A run is proposed to the server, and
run by Prefect's own engine, as it is there. Killed, this leaves behind what a runner does that is killed
with its processes: runs that are Pending or Running for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.flow_engine import run_flow
from prefect.states import Pending
from prefect.utilities.engine import propose_state

__all__ = ["run_inline"]

_AT_ONCE = 8


def run_inline(*served: tuple[Flow[Any, Any], Any]) -> None:
    """Make deployments, and run for ever what is scheduled for them.

    :param served: async flows, each with what its ``to_deployment()`` gave.
    """
    asyncio.run(_run({_made(deployment): flow for flow, deployment in served}))


def _made(deployment: Any) -> UUID:
    while True:
        try:
            return UUID(str(deployment.apply()))
        except httpx.HTTPError as error:
            print("the deployment can't be made:", repr(error))
            time.sleep(0.5)


async def _run(flows: Mapping[UUID, Flow[Any, Any]]) -> None:
    busy: dict[UUID, asyncio.Task[None]] = {}
    async with get_client() as client:
        while True:
            try:
                found = await client.get_scheduled_flow_runs_for_deployments(
                    list(flows), scheduled_before=datetime.now(UTC), limit=4 * _AT_ONCE
                )
            except httpx.HTTPError as error:
                print("nothing can be read:", repr(error))
                found = []
            for run in found:
                if run.id not in busy and len(busy) < _AT_ONCE:
                    assert run.deployment_id is not None
                    busy[run.id] = asyncio.create_task(_one(client, flows[run.deployment_id], run))
            if busy:
                await asyncio.wait(busy.values(), timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0.2)
            busy = {key: task for key, task in busy.items() if not task.done()}


async def _one(client: PrefectClient, flow: Flow[Any, Any], run: Any) -> None:
    try:
        state = await propose_state(client, Pending(), flow_run_id=run.id)
        if state.is_pending():
            run = await client.read_flow_run(run.id)
            await run_flow(flow, flow_run=run, parameters=run.parameters, return_type="state")  # type: ignore[misc]
    except BaseException as error:
        # What a run fails with is in its state; this is what Prefect itself can't do, for want of a server.
        print("run", run.name, "ended:", repr(error))
        if not isinstance(error, Exception):
            raise
