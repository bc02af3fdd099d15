"""Where the state is, and what consumers and claims of Airflow are called.

Guarantees: names and tokens are the same for the same task and run, on whatever
machine and at whatever try; they fit the state's limits whatever Airflow allows.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from airflow.providers.common.compat.sdk import conf

from poller_core.hosts import fitting

from .provider import RETENTION, RETENTION_UNREAD

__all__ = ["STATE", "Settings", "claim_token", "consumer_of", "handover", "settings"]

#: The section of Airflow's configuration.
SECTION = "poller"
#: What errors call the place of its state.
STATE = "[poller] state of Airflow's configuration"


class Settings(NamedTuple):
    """The section ``[poller]`` of Airflow's configuration."""

    state: str  #: where snapshot, journal and consumers are kept; may hold a password
    retention: float  #: how long delivered events are kept, seconds
    retention_unread: float  #: how long events are kept that a consumer has not taken, seconds


def settings() -> Settings:
    """What Airflow's configuration says, or its defaults."""
    return Settings(
        state=conf.get(SECTION, "state", fallback="") or _usual_state(),
        retention=conf.getfloat(SECTION, "retention", fallback=RETENTION),
        retention_unread=conf.getfloat(SECTION, "retention_unread", fallback=RETENTION_UNREAD),
    )


def _usual_state() -> str:
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow")
    return f"sqlite:///{home}/poller/state.db"


def handover() -> float:
    """How long Airflow may take to notice that a task has deferred itself, seconds.

    A task that is resumed before that can fail with "Executor reported that the task instance finished with
    state success" (apache/airflow issue 72716): its worker's supervisor looks for the end of its process
    every ``[workers] min_heartbeat_interval`` seconds, and the scheduler hears of it a moment later.
    """
    return float(conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)) + 1.0


def consumer_of(context: Any) -> str:
    """The consumer of a task that names none: its DAG's id and its own."""
    ti = context["ti"]
    return fitting(f"{ti.dag_id}.{ti.task_id}")


def claim_token(context: Any) -> str:
    """What a run's claim is bound to: ``<dag id>/<run id>/<task id>``, and ``[<map index>]`` if mapped."""
    ti = context["ti"]
    index = getattr(ti, "map_index", -1)
    return fitting(f"{ti.dag_id}/{ti.run_id}/{ti.task_id}" + (f"[{index}]" if index >= 0 else ""))
