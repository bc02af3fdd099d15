"""Our sensor, watcher and operator, as they are, with notes of when they did what. Runs inside Airflow.

Scanning: there is no option that says so, as ``make_poller`` takes the first class
that is registered for a URL's scheme and can serve it, and ``INotifyPoller`` can
serve whatever a benchmark can make. So a scheme is registered here, by the public
``register_poller``, with which the same ``FilePoller`` is made that serves a
file system without events: ``scan:///data/inbox``.
"""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from poller_airflow import PollerBatchOperator, PollerEventTrigger, PollerSensor, PollerTrigger, poller_asset

from poller_core import FilePoller, Url, register_poller

from .airflow_noted import BEGAN, NotedTask, NotedTrigger, note

__all__ = ["OurBatch", "OurEventTrigger", "OurSensor", "OurTrigger", "our_asset"]


@register_poller("scan")
def scanning(url: Url, **options: Any) -> FilePoller:
    """A poller that looks only when its interval is over."""
    return FilePoller(url.path, **options)


class OurTrigger(NotedTrigger, PollerTrigger):  # type: ignore[misc]
    pass


class OurEventTrigger(NotedTrigger, PollerEventTrigger):  # type: ignore[misc]
    pass


class OurSensor(NotedTask, PollerSensor):  # type: ignore[misc]
    trigger_class = OurTrigger


class OurBatch(PollerBatchOperator):
    def execute(self, context: Any) -> Any:
        began = time.time()
        try:
            return super().execute(context)
        finally:
            note(self.dag_id, "first", BEGAN, began, time.time())


def our_asset(way: str, url: str, **options: Any) -> Asset:
    """As ``poller_asset`` makes it, but that its trigger is a noted one."""
    (watcher,) = poller_asset(way, url, **options).watchers
    trigger = OurEventTrigger(**watcher.trigger.serialize()[1], way=way)
    return Asset(way, watchers=[AssetWatcher(name=way, trigger=trigger)])
