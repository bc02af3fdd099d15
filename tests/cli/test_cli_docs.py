"""The guide to the command does what it says."""

from __future__ import annotations

from pathlib import Path

from tests.pageshell import follow
from tests.test_docs import ROOT


def test_the_guide(tmp_path: Path) -> None:
    places = {"/data": f"{tmp_path}/data", "/var/lib/poller": f"{tmp_path}/lib"}
    # One command is there to show its options: there is no program "load".
    leave = ["poller watch "]
    follow(ROOT / "docs" / "command-line.md", tmp_path / "page", replace=places, leave=leave)
