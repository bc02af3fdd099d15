"""A journal with six events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poller_core import (
    Event,
    FilePoller,
    Journal,
    open_journal,
)


@pytest.fixture
def events(inbox: Path, state_url: str) -> list[Event]:
    """Six events, which the consumer "reader" has read already."""
    with FilePoller(inbox, state=state_url, consumer="reader") as poller:
        for number in range(6):
            (inbox / f"f{number}").write_text("x" * number)
        with poller.next_batch() as batch:
            assert len(batch) == 6
        return batch.events


@pytest.fixture
def journal(state_url: str, events: list[Event]) -> Iterator[Journal]:
    with open_journal(state_url) as opened:
        yield opened
