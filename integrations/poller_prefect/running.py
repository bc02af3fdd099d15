"""What the flow run is that something is called in.

Guarantees: names are the same at each try of the same run.

Not guaranteed: that there is a run; outside of one there is nothing to bind a claim to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import prefect.runtime
from prefect.context import FlowRunContext, TaskRunContext

from poller_core import InvalidOption
from poller_core.hosts import fitting

__all__ = ["Run", "current"]


@dataclass(frozen=True)
class Run:
    """A flow run."""

    id: str
    name: str
    flow: str  #: the flow's name
    flow_id: str
    deployment: str | None  #: the deployment's name; None: the run has none
    deployment_id: str | None
    labels: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    in_task: bool = False  #: whether it was a task of the run that asked

    @property
    def token(self) -> str:
        """What its claims are bound to."""
        return fitting(f"{self.flow}/{self.name}/{self.id}")

    @property
    def whose(self) -> str:
        """What it is a run of: ``flow/deployment``, or the flow if it has none."""
        return fitting(self.flow if self.deployment is None else f"{self.flow}/{self.deployment}")


def current(what: str) -> Run:
    """The run that this is called in; may ask the API, and blocks.

    :param what: what needs it, for the error.
    :raises InvalidOption: if it is none.
    """
    # Also within a task, where there is no context of the flow's run.
    runtime = prefect.runtime.flow_run
    run_id = runtime.id
    if not run_id:
        raise InvalidOption(f"{what} works within a flow run only: what it takes is bound to that run")
    context = FlowRunContext.get()
    flow_run = context.flow_run if context is not None else None
    if flow_run is None or str(flow_run.id) != str(run_id):
        flow_run = _read(str(run_id))
    deployment_id = flow_run.deployment_id
    return Run(
        id=str(run_id),
        name=str(flow_run.name),
        flow=str(runtime.flow_name),
        flow_id=str(flow_run.flow_id),
        deployment=prefect.runtime.deployment.name if deployment_id else None,
        deployment_id=str(deployment_id) if deployment_id else None,
        labels=dict(flow_run.labels or {}),
        tags=tuple(flow_run.tags or ()),
        in_task=TaskRunContext.get() is not None,
    )


def _read(run_id: str) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)  # type: ignore[arg-type]
