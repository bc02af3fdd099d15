"""Prefect: a flow run for each new file or object, none lost, none twice.

:func:`poll_flow` polls a target and has runs of a deployment made, one per file; ::

    from poller_prefect import poll_flow

    if __name__ == "__main__":
        inbox = {"url": "/data/inbox", "run": "load/load"}  # a deployment of yours
        poll_flow.serve("inbox", interval=30, parameters=inbox)

or emits events, on which deployments run that have a trigger from :func:`on_created`. A run
takes its event by :func:`take_event`, or a batch of many by :func:`take_batch`.

Guarantees: see :mod:`poller_prefect.runs`, :mod:`poller_prefect.feed` and
:mod:`poller_prefect.taking`. Nothing here imports Airflow.
"""

from __future__ import annotations

try:
    from .blocks import PollerState, SwiftCredentials
    from .flow import poll_flow
    from .taking import take_batch, take_event
    from .telling import Polled
    from .triggers import PollerEventTrigger, on_created, on_event
except ImportError as _error:
    from poller_core.hosts import not_installed

    raise not_installed(_error, "prefect", "prefect", "3.6.24") from _error

__all__ = [
    "Polled",
    "PollerEventTrigger",
    "PollerState",
    "SwiftCredentials",
    "on_created",
    "on_event",
    "poll_flow",
    "take_batch",
    "take_event",
]
