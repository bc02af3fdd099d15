"""One real Prefect server for all tests here, started at the first test that asks for it.

``prefect_host`` is the server, with SQLite: tests start what serves or works for it. ``api`` has the
test's own process use it too: flows are called as functions, and clients are made, as a user would.
Without ``api`` Prefect finds no server at all, and says so; nothing of the user's own Prefect is seen.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prefect.tools import using
from tests.services.prefect_host import PrefectHost

_WORK = Path(tempfile.mkdtemp(prefix="poller-test-pf-"))

# Prefect reads them when it is imported, which the tests' modules do.
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ["PREFECT_HOME"] = str(_WORK / "nobody")
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"


def pytest_configure(config: pytest.Config) -> None:
    """Pass over what Prefect leaves open: each run of an async flow asks for the server's storage, and does
    not close that connection."""
    for kind in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        config.addinivalue_line("filterwarnings", rf"ignore:.*socket\.socket.* raddr=\('127\.0\.0\.1':{kind}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: they are run side by side, and the last one is waited for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_unconfigure() -> None:
    """Remove what was made here, also if no test was run."""
    if not os.environ.get("POLLER_TEST_KEEP"):
        shutil.rmtree(_WORK, ignore_errors=True)


@pytest.fixture(scope="session")
def work() -> Path:
    """Where inboxes and Prefect's home are."""
    # Not below pytest's directories: paths of sockets and logs would grow too long.
    return _WORK


@pytest.fixture(scope="session")
def prefect_host(work: Path) -> Iterator[PrefectHost]:
    """A server with SQLite, and nothing else."""
    with PrefectHost(work / "home", environ={"POLLER_TEST_WORK": str(work)}) as host:
        yield host


@pytest.fixture(scope="session")
def api(prefect_host: PrefectHost) -> Iterator[PrefectHost]:
    """The same, used by the process of the tests too, from now to the end of the session."""
    with using(prefect_host):
        yield prefect_host


@pytest.fixture
def inbox(work: Path, request: pytest.FixtureRequest) -> Path:
    """A new directory for files to land in."""
    name = "".join(char if char.isalnum() else "_" for char in request.node.name)
    folder = work / "inboxes" / name
    folder.mkdir(parents=True)
    return folder
