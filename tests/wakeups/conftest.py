"""An inbox that both pollers can watch, pollers that share a state, and no thread that is left."""

from __future__ import annotations

from typing import Any

import pytest

from poller_core import FilePoller
from tests.test_async import inbox, kind, no_thread_is_left

__all__ = ["inbox", "kind", "no_thread_is_left"]  # fixtures


@pytest.fixture
def make(inbox, state_url):
    """Makes pollers of the inbox that share a state, and closes them."""
    made: list[FilePoller] = []

    def poller(kind: type[FilePoller] = FilePoller, **options: Any) -> FilePoller:
        made.append(kind(inbox, **{"recurse": True, "state": state_url, **options}))
        return made[-1]

    yield poller
    for one in made:
        one.close()
