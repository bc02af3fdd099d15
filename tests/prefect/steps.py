"""What tests of everyday use do: files land, targets are polled, and runs that were made are run.

Polls are made by calling the flow, and runs are run in the process of the tests, by Prefect's own engine and
with the real server: a second each, where a runner's process takes several. What a runner or a worker adds
is in ``test_prefect_deployed.py`` and ``test_prefect_yaml.py``.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from poller_prefect import Polled, poll_flow
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.flow_engine import run_flow, run_flow_async

from poller_core import Event, Url, open_journal
from tests.services.prefect_host import PrefectHost

__all__ = [
    "apply",
    "artifacts",
    "fed",
    "feed",
    "journal_event",
    "key_of",
    "made",
    "polled",
    "put",
    "run_here",
    "run_of",
    "said",
    "state_file",
]

#: The namespace of the ids in Prefect; written out, as it must never change.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "poller-core")


def put(path: Path | bytes, size: int = 1) -> Path | bytes:
    """A file lands."""
    with open(path, "wb") as file:
        file.write(b"x" * size)
    return path


def polled(url: Any, **given: Any) -> State[Polled]:
    """Poll once; the state that the run ended in."""
    state = poll_flow(str(url), return_state=True, **given)
    assert isinstance(state, State)
    return state


def said(state: State[Any]) -> tuple[str, str | None]:
    """What a state tells: its name and message."""
    return str(state.name), state.message


def run_of(host: PrefectHost, state: State[Any]) -> dict[str, Any]:
    """The flow run that ended in a state."""
    assert state.state_details.flow_run_id is not None
    return host.run(state.state_details.flow_run_id)


def feed(host: PrefectHost, folder: Path) -> list[dict[str, Any]]:
    """All events of a target that Prefect has, in our order."""
    found = host.events(prefix="poller.subject.", related=f"poller.target.{Url(folder)}")
    return sorted(found, key=lambda event: event["payload"]["seq"])


def fed(host: PrefectHost, folder: Path, count: int) -> list[dict[str, Any]]:
    """The same, when there are so many: besides a run that it makes, a poll does not wait for an event."""
    return list(host.until(f"{count} event(s)", lambda: len(now := feed(host, folder)) >= count and now))


def artifacts(host: PrefectHost, state: State[Any]) -> list[dict[str, Any]]:
    """The artifacts of the run that ended in a state."""
    run = run_of(host, state)["id"]
    return [one for one in host.artifacts() if one["flow_run_id"] == run]


def state_file(host: PrefectHost) -> str:
    """Where the state is if nothing is said."""
    return f"sqlite:///{host.home}/poller/state.db"


def journal_event(host: PrefectHost, event_id: str) -> Event:
    """An event as the journal has it."""
    with open_journal(state_file(host)) as journal:
        return journal.event(event_id)


def key_of(event_id: str) -> str:
    """The id that Prefect is to know an event of ours by."""
    return str(uuid.uuid5(_NAMESPACE, event_id))


def apply(flow: Flow[Any, Any], name: str | None = None, **options: Any) -> str:
    """Make a deployment of a flow, by default called as the flow is; its name."""
    flow.to_deployment(name or flow.name, **options).apply()  # type: ignore[union-attr]
    return f"{flow.name}/{name or flow.name}"


def made(host: PrefectHost, deployment: str) -> list[dict[str, Any]]:
    """The runs of a deployment, oldest first."""
    return host.flow_runs(deployment=deployment)


def run_here(flow: Flow[Any, Any], run: dict[str, Any]) -> State[Any]:
    """Run a flow run that was made, as a runner would, but here; the state it ends in."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(uuid.UUID(run["id"]))
        try:
            state: Any
            if flow.isasync:
                state = asyncio.run(run_flow_async(flow, flow_run=flow_run, return_type="state"))
            else:
                state = run_flow(flow, flow_run=flow_run, return_type="state")
        except Abort:
            # As the process of a runner ends then: the run has a state already.
            state = client.read_flow_run(flow_run.id).state
    assert isinstance(state, State)
    return state
