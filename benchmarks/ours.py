"""The pollers, measured: one function per measurement, each run in a process of its own."""

from __future__ import annotations

from typing import Any

from .measure import timed

# Imported here, so that no measurement but that of the start counts the import.
from poller_core import FilePoller, INotifyPoller  # isort: skip

__all__ = ["first_look", "poll", "report_all", "restart"]


def first_look(root: str, state: str) -> dict[str, Any]:
    """From nothing to a baseline."""
    with timed() as timer:
        poller = FilePoller(root, recurse=True, state=state)
    entries = poller.status().entries
    poller.close()
    return timer.result(entries=entries)


def poll(root: str, state: str) -> dict[str, Any]:
    """One more look by a poller that is open."""
    with FilePoller(root, recurse=True, state=state) as poller:
        with timed() as timer:
            events = poller.get_new_events()
        return timer.result(events=len(events))


def restart(root: str, state: str, watch: bool = False) -> dict[str, Any]:
    """From opening the state to the first answer."""
    kind = INotifyPoller if watch else FilePoller
    with timed() as timer:
        poller = kind(root, recurse=True, state=state)
        events = poller.get_new_events()
    poller.close()
    return timer.result(events=len(events))


def report_all(root: str, state: str) -> dict[str, Any]:
    """A first look that reports everything, taken in batches."""
    count = 0
    with FilePoller(root, recurse=True, state=state, existing="report") as poller, timed() as timer:
        while True:
            with poller.next_batch(1000, max_age=1e9) as batch:
                if not batch:
                    break
                count += len(batch)
    return timer.result(events=count)
