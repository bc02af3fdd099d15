from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tools import Cli


@pytest.fixture(autouse=True)
def signals_are_as_usual() -> Iterator[None]:
    """What nohup, or the background of a script, has ignored is so in every process below: not in these."""
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGHUP, hangup)


@pytest.fixture
def cli(tmp_path: Path, inbox: Path) -> Cli:
    """The command, with an SQLite state that is not there yet."""
    return Cli(str(tmp_path / "state" / "state.db"), tmp_path)
