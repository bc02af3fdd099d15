"""One real Airflow for all tests here, started at the first test and stopped after the last."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.airflow_host import AirflowHost

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """Where inboxes and Airflow's home are."""
    # Not below pytest's directories: paths of sockets and logs would grow too long.
    folder = Path(tempfile.mkdtemp(prefix="poller-test-af-"))
    yield folder
    if not os.environ.get("POLLER_TEST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def host(work: Path) -> Iterator[AirflowHost]:
    """Airflow with SQLite, with the DAGs of ``tests/airflow/dags``."""
    (work / "inboxes").mkdir()
    host = AirflowHost(
        work / "home",
        HERE / "dags",
        settings={"TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10"},
        environ={"POLLER_TEST_WORK": str(work)},
    )
    with host:
        yield host


@pytest.fixture
def inbox(work: Path, request: pytest.FixtureRequest) -> Path:
    """A new directory for files to land in."""
    name = "".join(char if char.isalnum() else "_" for char in request.node.name)
    folder = work / "inboxes" / name
    folder.mkdir()
    return folder


@pytest.fixture
def state(work: Path) -> Path:
    """Where the provider keeps its state unless told otherwise."""
    return work / "home" / "poller" / "state.db"
