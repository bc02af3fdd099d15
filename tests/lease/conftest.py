"""Two pollers that want one lease."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poller_core import FilePoller


@pytest.fixture
def poller(inbox: Path, state_url: str) -> Iterator[FilePoller]:
    with FilePoller(inbox, state=state_url, consumer="me") as opened:
        yield opened


@pytest.fixture
def other(inbox: Path, state_url: str) -> Iterator[FilePoller]:
    """Another one of the same target and consumer."""
    with FilePoller(inbox, state=state_url, consumer="me") as opened:
        yield opened
