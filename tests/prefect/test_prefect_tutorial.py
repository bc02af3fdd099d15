"""The tutorial is done as it stands, with a server of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pageshell import follow
from tests.services.processes import free_port
from tests.test_tutorials import TUTORIALS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tutorial(tmp_path: Path) -> None:
    environ = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    page = TUTORIALS / "prefect.md"
    follow(page, tmp_path / "work", replace={"4200": str(free_port())}, environ=environ, patience=180)
