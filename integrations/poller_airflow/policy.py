"""Policies for Airflow's DAG processor: no secret in a mapped task, or in an asset's name.

``PollerSensor.partial(…).expand(url=[…])`` makes no sensor while the DAG is read, so the
sensor can't look at its own arguments; and Airflow keeps the password of
``Asset("swift://user:password@host/…")`` in the asset's name. Airflow asks policies
for each task and DAG.

Guarantees: a DAG with such a secret is an import error, and not stored.

Not guaranteed: anything for tasks and assets that have nothing to do with pollers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.policies import hookimpl

# Airflow loads policies in each of its services, of which tasks, readers of DAG files and triggers are forks.
# What is imported here is there for all of them: else each task of each DAG with a poller would take a tenth
# of a second of CPU to import the engine, and the triggerer's event loop would stand still for that long.
import poller_core

from .secrets import refuse_secrets, refuse_secrets_of_mapped

__all__ = ["dag_policy", "task_policy"]


@hookimpl
def task_policy(task: Any) -> None:
    """Refuse a mapped task of ours that holds a secret.

    :raises AirflowClusterPolicyViolation: with what to do instead.
    """
    _refuse_assets([*(getattr(task, "outlets", None) or ()), *(getattr(task, "inlets", None) or ())])
    operator, mapped = getattr(task, "operator_class", None), getattr(task, "expand_input", None)
    if mapped is None or not isinstance(operator, type):
        return  # not mapped: it has looked at its arguments itself
    if not any(base.__module__.startswith("poller_airflow.") for base in operator.__mro__):
        return
    value = getattr(mapped, "value", None)
    rows = value if isinstance(value, list | tuple) else [value]  # of expand_kwargs, or of expand
    try:
        for arguments in (task.partial_kwargs, *rows):
            if isinstance(arguments, Mapping):
                refuse_secrets_of_mapped(arguments)
    except poller_core.PollerError as error:
        _refuse(f"task {task.task_id!r}: {error}")


@hookimpl
def dag_policy(dag: Any) -> None:
    """Refuse a DAG that is scheduled by an asset with a secret in its name.

    :raises AirflowClusterPolicyViolation: with what to do instead.
    """
    _refuse_assets(_within(getattr(getattr(dag, "timetable", None), "asset_condition", None)))


def _within(condition: Any) -> Iterable[Any]:
    """The assets of a condition such as ``(a & b) | c``."""
    parts = getattr(condition, "objects", None)
    if parts is None:
        return (condition,)
    return (asset for part in parts for asset in _within(part))


def _refuse_assets(assets: Iterable[Any]) -> None:
    for asset in assets:
        name = getattr(asset, "name", None)
        if isinstance(name, str) and name.startswith(("swift", "swt", "file:")) and "@" in name:
            try:
                refuse_secrets(name)
            except poller_core.PollerError as error:
                _refuse(f"an asset's name: {error}; and give the asset a name")


def _refuse(why: str) -> None:
    from airflow.exceptions import AirflowClusterPolicyViolation

    raise AirflowClusterPolicyViolation(why)
