"""Apache Airflow runs that start from new files and objects, and lose none.

In one sentence: Airflow's event is only a wake-up; the run takes its files from
the poller's journal, by a claim that is bound to the run. ::

    from poller_airflow import PollerSensor, PollerBatchOperator, poller_asset

What is here: a sensor, two triggers, an asset with its watcher, operators that
claim a batch or dispatch a run per event, a hook with a connection type, and the
provider's description. Needs Airflow 3.1 or newer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assets import poller_asset
    from .hooks import PollerHook
    from .operators import PollerBatchOperator, PollerDispatchOperator
    from .sensors import PollerSensor
    from .triggers import PollerEventTrigger, PollerTrigger

__all__ = [
    "PollerBatchOperator",
    "PollerDispatchOperator",
    "PollerEventTrigger",
    "PollerHook",
    "PollerSensor",
    "PollerTrigger",
    "poller_asset",
]

_MODULES = {
    "PollerBatchOperator": "operators",
    "PollerDispatchOperator": "operators",
    "PollerEventTrigger": "triggers",
    "PollerHook": "hooks",
    "PollerSensor": "sensors",
    "PollerTrigger": "triggers",
    "poller_asset": "assets",
}


def __getattr__(name: str) -> Any:
    # Late: Airflow reads the provider's description at every start, and needs none of this for it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    except ImportError as error:
        from poller_core.hosts import not_installed

        raise not_installed(error, "airflow", "apache-airflow-core", "3.1") from error
