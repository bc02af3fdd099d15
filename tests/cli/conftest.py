from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tools import Cli


@pytest.fixture
def cli(tmp_path: Path, inbox: Path) -> Cli:
    """The command, with an SQLite state that is not there yet."""
    return Cli(str(tmp_path / "state" / "state.db"), tmp_path)
