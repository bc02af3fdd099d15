"""Everything is killed in the middle of bursts, and started again: each file has one run that succeeded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prefect.burst import FOLLOWS, POLLS, ROOT, Burst
from tests.services.prefect_host import PrefectHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def host(work: Path) -> Iterator[PrefectHost]:
    """A server of our own, to be killed."""
    folder = work / "killed"
    environ = {"PYTHONPATH": str(ROOT), "POLLER_STATE": f"sqlite:///{folder}/state.db"}
    with PrefectHost(folder / "home", environ=environ) as host:
        yield host


@pytest.fixture
def names(request: pytest.FixtureRequest) -> list[str]:
    return [f"file-{number:03}" for number in range(request.param)]


@pytest.mark.parametrize(
    ("way", "poller", "names", "victims"),
    [
        ("direct", FOLLOWS, 300, ["poller", "server", "runner", "poller", "server", "runner"]),
        ("polled", POLLS, 60, ["poller", "server", "poller"]),
    ],
    ids=["follows", "polls"],
    indirect=["names"],
)
def test_run_per_file(
    host: PrefectHost, inbox: Path, way: str, poller: str, names: list[str], victims: list[str]
) -> None:
    burst = Burst(host, way, inbox, poller, host.env["POLLER_STATE"])
    burst.kill_in_the_middle(names, victims)
    completed = burst.done(len(names))
    # None was made twice, whatever was killed: not only none has run twice.
    assert len(burst.runs()) == len(names)
    burst.check_that_each_was_done_once(names, completed)
    burst.end()


@pytest.mark.parametrize("names", [48], indirect=True)
def test_triggered_run_per_file(host: PrefectHost, inbox: Path, names: list[str]) -> None:
    burst = Burst(host, "triggered", inbox, FOLLOWS, host.env["POLLER_STATE"])
    # The runner makes its deployment anew when it starts, and with it the automation, under another id.
    burst.kill_in_the_middle(names, ["server", "poller", "runner", "server"])
    completed = burst.done(len(names))
    burst.check_that_each_was_done_once(names, completed)
    burst.end()
