"""An inbox that both pollers can watch, pollers that share a state, and no thread that is left."""

from __future__ import annotations

from typing import Any

import pytest

from poller_core import FilePoller, INotifyPoller
from tests.races.tools import watchable
from tests.test_async import no_thread_is_left

__all__ = ["no_thread_is_left"]  # a fixture that is used by all


@pytest.fixture
def inbox(tmp_path):
    with watchable(tmp_path) as path:
        (path / "inbox").mkdir()
        yield path / "inbox"


@pytest.fixture(params=[FilePoller, INotifyPoller], ids=["scan", "inotify"])
def kind(request):
    return request.param


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
