"""What the benchmarked DAGs share: triggers and tasks that write down when they did what; and the floor.

Runs inside Airflow. Imports nothing of ours and nothing of the peers', so that each
DAG file pays for its own imports alone: :data:`BEGAN` is read before them.

A way's notes are the lines of a file that is named after it, each of them a word and
moments of ``time.time()``: ``watching``, ``fired`` of a trigger; ``first`` and
``downstream`` of a task, with when its DAG file began to be read, its own first line,
and, for ``first``, its last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, task
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

__all__ = [
    "BEGAN",
    "WORK",
    "ArrivalEventTrigger",
    "ArrivalSensor",
    "NotedTask",
    "NotedTrigger",
    "downstream",
    "inbox",
    "note",
]

#: Where notes and inboxes are.
WORK = Path(os.environ["POLLER_BENCH_WORK"])
#: When this process came to the DAG file's own imports.
BEGAN = time.time()

_Mixin: Any = object


def note(way: str, what: str, *moments: float) -> None:
    """Write a line."""
    line = f"{what} {' '.join(f'{moment:.6f}' for moment in moments)}\n"
    with open(WORK / "notes" / way, "a", encoding="ascii") as file:
        file.write(line)


def inbox(way: str) -> str:
    """The directory in which a way's files arrive; there before Airflow is."""
    return str(WORK / "inboxes" / way)


@task
def downstream(way: str) -> None:
    """What the files are waited for."""
    note(way, "downstream", BEGAN, time.time())


class NotedTrigger(_Mixin):
    """In front of a trigger's class: notes when it begins and when it fires."""

    def __init__(self, *args: Any, way: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.way = way

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, kwargs = super().serialize()
        return f"{type(self).__module__}.{type(self).__qualname__}", {**kwargs, "way": self.way}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        note(self.way, "watching", time.time())
        async with contextlib.aclosing(super().run()) as events:
            async for event in events:
                note(self.way, "fired", time.time())
                yield event


class NotedTask(_Mixin):
    """In front of a sensor's class: its trigger is a noted one, and so is the task that goes on after it."""

    #: The trigger's class, noted.
    trigger_class: Any

    def defer(self, *, trigger: BaseTrigger, **kwargs: Any) -> None:
        noted = self.trigger_class(**trigger.serialize()[1], way=self.dag_id)
        # A load of sensors has a triggerer of its own, which takes what is in its queue.
        noted.supports_triggerer_queue = self.queue.startswith("load")
        super().defer(trigger=noted, **kwargs)

    def execute_complete(self, context: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.time()
        try:
            return super().execute_complete(context, *args, **kwargs)
        finally:
            note(self.dag_id, "first", BEGAN, began, time.time())


# -- the floor: what Airflow itself takes ------------------------------------------------


async def _arrivals(folder: str) -> AsyncIterator[None]:
    """Gives something when a file was renamed into the directory: bare inotify, nothing else."""
    import inotify_simple

    woken = asyncio.Event()
    loop = asyncio.get_running_loop()
    with inotify_simple.INotify() as inotify:
        inotify.add_watch(folder, inotify_simple.flags.MOVED_TO)
        loop.add_reader(inotify.fileno(), woken.set)
        try:
            while True:
                await woken.wait()
                woken.clear()
                if inotify.read(timeout=0):
                    yield
        finally:
            loop.remove_reader(inotify.fileno())


class _Arrival(BaseTrigger):
    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {"folder": self.folder}


class _ArrivalOnce(_Arrival):
    async def run(self) -> AsyncIterator[TriggerEvent]:
        async with contextlib.aclosing(_arrivals(self.folder)) as arrivals:  # type: ignore[type-var]
            async for _ in arrivals:
                yield TriggerEvent({"status": "waiting"})
                return


class _ArrivalAlways(_Arrival, BaseEventTrigger):
    async def run(self) -> AsyncIterator[TriggerEvent]:
        async with contextlib.aclosing(_arrivals(self.folder)) as arrivals:  # type: ignore[type-var]
            async for _ in arrivals:
                yield TriggerEvent({"folder": self.folder})


class ArrivalTrigger(NotedTrigger, _ArrivalOnce):
    """Fires once, for a deferred task."""


class ArrivalEventTrigger(NotedTrigger, _ArrivalAlways):
    """Fires for each file, for an asset's watcher."""


class _Waits(BaseOperator):
    def execute(self, context: Any) -> None:
        self.defer(trigger=_ArrivalOnce(inbox(self.dag_id)), method_name="execute_complete")

    def execute_complete(self, context: Any, event: Any = None) -> None:
        """Nothing: the file is there."""


class ArrivalSensor(NotedTask, _Waits):  # type: ignore[misc]
    """Waits for a file, with as little as can be done."""

    trigger_class = ArrivalTrigger
