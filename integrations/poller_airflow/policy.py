"""A policy for Airflow's DAG processor: no secret in a mapped task.

``PollerSensor.partial(…).expand(url=[…])`` makes no sensor while the DAG is read, so the
sensor can't look at its own arguments; Airflow asks a policy for each task instead.

Guarantees: a DAG with a secret in such arguments is an import error, and not stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.policies import hookimpl

__all__ = ["task_policy"]


@hookimpl
def task_policy(task: Any) -> None:
    """Refuse a mapped task of ours that holds a secret.

    :raises AirflowClusterPolicyViolation: with what to do instead.
    """
    operator = getattr(task, "operator_class", None)
    if not isinstance(operator, type):
        return
    if not any(base.__module__.startswith("poller_airflow.") for base in operator.__mro__):
        return
    # Late: policies are loaded at each start of Airflow, and most need nothing more.
    from airflow.exceptions import AirflowClusterPolicyViolation

    from poller_core import PollerError

    from .secrets import refuse_secrets_of_mapped

    mapped = getattr(task.expand_input, "value", None)
    rows = mapped if isinstance(mapped, list | tuple) else [mapped]  # of expand_kwargs, or of expand
    try:
        for arguments in (task.partial_kwargs, *rows):
            if isinstance(arguments, Mapping):
                refuse_secrets_of_mapped(arguments)
    except PollerError as error:
        raise AirflowClusterPolicyViolation(f"task {task.task_id!r}: {error}") from None
