"""The standard provider's sensor and trigger for files, as they are, with notes of when they did what.

Runs inside Airflow. ``FileDeleteTrigger`` is what that provider has for an asset's
watcher: it deletes the file that it finds, and ends; Airflow starts it again.
"""

from __future__ import annotations

from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.triggers.file import FileDeleteTrigger, FileTrigger

from .airflow_noted import NotedTask, NotedTrigger

__all__ = ["PeerEventTrigger", "PeerSensor", "PeerTrigger"]


class PeerTrigger(NotedTrigger, FileTrigger):
    pass


class PeerEventTrigger(NotedTrigger, FileDeleteTrigger):
    pass


class PeerSensor(NotedTask, FileSensor):  # type: ignore[misc]
    trigger_class = PeerTrigger
