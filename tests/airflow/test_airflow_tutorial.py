"""The tutorial is done as it stands, with an Airflow of its own: ``airflow standalone``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pageshell import follow
from tests.services.processes import free_port
from tests.test_tutorials import TUTORIALS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tutorial(tmp_path: Path) -> None:
    port = str(free_port())
    environ = {
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        # Of the servers for logs, which nobody asks here.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    page = TUTORIALS / "airflow.md"
    follow(page, tmp_path / "work", replace={"8080": port}, environ=environ, patience=180)
