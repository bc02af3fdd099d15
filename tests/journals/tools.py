"""What is made for tests of journals, and found wrong in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poller_core import (
    Event,
    FilePoller,
    pages,
)
from poller_core.state import open_store
from poller_core.state.checks import check_store

__all__ = ["one_event_each", "problems"]


def one_event_each(inbox: Path, state_url: str, *names: str) -> list[Event]:
    """An event of each of several targets, the first one of each."""
    found = []
    for name in names:
        (inbox / name).mkdir()
        with FilePoller(inbox / name, state=state_url) as poller:
            (inbox / name / "one").write_text(name)
            found += poller.get_new_events()
    return found


def problems(state_url: str) -> list[Any]:
    with open_store(state_url) as store:
        return check_store(store, pages.unpack, pages.keys)
