"""One real Airflow for all tests here, started at the first test and stopped after the last."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import airflow
import pytest
from packaging.version import Version

from tests import test_docs, test_docstrings
from tests.services.airflow_host import AirflowHost
from tests.test_docs import examples

HERE = Path(__file__).parent
PAGES = [page for page in test_docs.PAGES if examples(page, "airflow")]
#: The examples in docstrings that stand in a DAG's file, behind what one imports there.
DOCSTRINGS = [
    "from airflow.sdk import DAG",
    "from poller_airflow import *",
    *(one.code for one in test_docstrings.examples("poller_airflow") if "Hook" not in one.place),
]
EXAMPLES = HERE.parent.parent / "dags_examples" / "airflow"


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
    """Airflow with SQLite, with the DAGs of ``tests/airflow/dags`` and the examples."""
    (work / "inboxes").mkdir()
    dags = work / "dags"
    dags.mkdir()
    for path in [*(HERE / "dags").glob("*.py"), *EXAMPLES.glob("*.py")]:
        if path.name != "partition_per_file.py" or Version(airflow.__version__) >= Version("3.2"):
            shutil.copy(path, dags)
    for page in PAGES:
        code = [text for _, text in examples(page, "airflow")]
        (dags / f"page_{page.stem}.py").write_text("\n".join(code))
    (dags / "page_docstrings.py").write_text("\n".join(DOCSTRINGS))
    host = AirflowHost(
        work / "home",
        dags,
        settings={
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",  # how often new files are looked for
        },
        environ={
            "POLLER_TEST_WORK": str(work),
            "POLLER_INBOX": str(work / "examples"),
            "POLLER_CONTAINER": "example",
        },
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


@pytest.fixture(scope="session")
def state(work: Path) -> Path:
    """Where the provider keeps its state unless told otherwise."""
    return work / "home" / "poller" / "state.db"
