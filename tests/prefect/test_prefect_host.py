"""The server itself: what the tests of the adapter rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import flow, get_client, task
from prefect.events import emit_event
from prefect.runtime import flow_run

from tests.prefect.tools import sent, using
from tests.services.prefect_host import Ended, HostError, PrefectHost

SERVES = """
from prefect import flow, task

@task
def add(a, b):
    return a + b

@flow(log_prints=True)
def sums(a: int = 0, b: int = 0):
    print("the sum is", add(a, b))
    if b < 0:
        raise ValueError("negative")

if __name__ == "__main__":
    sums.serve("served")
"""


@task
def double(number: int) -> int:
    return 2 * number


@flow
def doubles(number: int) -> tuple[int, str]:
    return double(number), str(flow_run.get_id())


@flow
async def runs_itself() -> int:
    async with get_client() as client:
        return len(await client.read_flow_runs())


@pytest.fixture(scope="module")
def serving(prefect_host: PrefectHost) -> Any:
    prefect_host.python(SERVES, name="serving")
    prefect_host.until("the deployment to be there", lambda: prefect_host.deployment("sums/served"))
    yield "sums/served"
    assert prefect_host.stop("serving") == 0


def posted(host: PrefectHost, name: str, number: int, when: datetime | None = None) -> list[str]:
    """Store so many events; their ids."""
    # What occurred a week ago and more is removed at the next start.
    when = when or datetime.now(UTC) - timedelta(minutes=1)
    events = [
        {
            "id": str(uuid.uuid4()),
            "event": name,
            "occurred": (when + timedelta(milliseconds=index)).isoformat(),
            "resource": {"prefect.resource.id": f"{name}.{index:03}"},
            "payload": {"index": index},
        }
        for index in range(number)
    ]
    host.ask("POST", "events", json=events)
    host.until("the events to be stored", lambda: len(host.events(name)) == number)
    return [str(event["id"]) for event in events]


def test_nothing_of_the_caller_is_seen(prefect_host: PrefectHost, tmp_path: Path) -> None:
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    try:
        other = PrefectHost(tmp_path)
    finally:
        del os.environ["PREFECT_LOGGING_LEVEL"]
    assert "PREFECT_LOGGING_LEVEL" not in other.env
    config = prefect_host.command("config", "view", "--show-sources").stdout
    settings = [line for line in config.splitlines() if line.startswith("PREFECT_")]
    assert f"PREFECT_API_URL='{prefect_host.api}' (from env)" in settings
    assert not [line for line in settings if "(from env)" not in line and "PREFECT_PROFILE" not in line]


def test_served_flow(prefect_host: PrefectHost, serving: str) -> None:
    run = prefect_host.run_deployment(serving, {"a": 1, "b": 2}, idempotency_key="once")
    assert prefect_host.run_deployment("served", {"a": 1, "b": 2}, idempotency_key="once") == run
    assert prefect_host.finished(run) == prefect_host.state_of(run) == "Completed"
    prefect_host.until("its logs to be there", lambda: "the sum is 3" in prefect_host.logs_of(run))
    prefect_host.until("its task to be there", lambda: prefect_host.task_runs(run))
    assert [one["state_name"] for one in prefect_host.task_runs(run)] == ["Completed"]
    assert [one["id"] for one in prefect_host.flow_runs("sums", serving)] == [run]
    failing = prefect_host.run_deployment(serving, {"b": -1})
    assert prefect_host.finished(failing) == "Failed"
    assert [one["id"] for one in prefect_host.flow_runs("sums", states=["Failed"])] == [failing]
    assert "served" in [one["name"] for one in prefect_host.deployments()]
    with pytest.raises(HostError, match="404"):
        prefect_host.deployment("sums/nothing")


def test_pages(prefect_host: PrefectHost) -> None:
    ids = posted(prefect_host, "host.test.page", 120)
    assert [event["id"] for event in prefect_host.events("host.test.page")] == ids
    assert [event["id"] for event in prefect_host.events(prefix="host.test.p")] == ids
    assert [event["id"] for event in prefect_host.events(resource="host.test.page.007")] == [ids[7]]
    assert [event["id"] for event in prefect_host.events(resource="host.test.page.1*")] == ids[100:]
    half = datetime.fromisoformat(prefect_host.events("host.test.page")[60]["occurred"])
    assert [event["id"] for event in prefect_host.events("host.test.page", since=half)] == ids[60:]
    assert prefect_host.events("host.test") == []

    flow_id = prefect_host.ask("POST", "flows/", json={"name": "many"})["id"]
    made = [
        prefect_host.ask("POST", "flow_runs/", json={"flow_id": flow_id, "name": str(number)})["id"]
        for number in range(205)
    ]
    assert [one["id"] for one in prefect_host.flow_runs("many")] == made


def test_flows_are_called_here(api: PrefectHost) -> None:
    number, run = doubles(21)
    assert number == 42
    assert api.state_of(run) == "Completed"
    event = emit_event("host.test.here", {"prefect.resource.id": "host.test.here.1"})
    assert event is not None
    sent()
    api.until("the event to be there", lambda: [one["id"] for one in api.events("host.test.here")])


async def test_coroutines_are_called_here(api: PrefectHost) -> None:
    assert await runs_itself() > 0
    async with get_client() as client:
        assert str(client.api_url).startswith(api.api)
        assert (await client.hello()).status_code == 200


@pytest.mark.slow
def test_server_is_killed_and_starts_again(tmp_path: Path) -> None:
    with PrefectHost(tmp_path / "home") as host:
        host.python(SERVES, name="serving")
        host.until("the deployment to be there", host.deployments)
        before = host.run_deployment("served", {"a": 1})
        assert host.finished(before) == "Completed"
        ids = posted(host, "host.test.kept", 60)
        port, pid = host.port, host.pid("server")
        host.kill_server()
        assert not host.server_alive
        assert not psutil.pid_exists(pid)
        waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # not ours
        host.start_server()
        assert host.server_alive
        assert (host.port, host.pid("server") == pid) == (port, False)
        assert [event["id"] for event in host.events("host.test.kept")] == ids
        assert host.state_of(before) == "Completed"
        # The same runner goes on.
        assert host.finished(host.run_deployment("served", {"a": 2})) == "Completed"
        with using(host):
            assert doubles(1)[0] == 2
        host.until("the flow to be there", lambda: host.flow_runs("doubles"))
    assert waiting.poll() is None
    waiting.kill()
    waiting.wait()


@pytest.mark.slow
def test_worker_and_what_it_leaves(prefect_host: PrefectHost, tmp_path: Path) -> None:
    code = tmp_path / "sleeps.py"
    code.write_text(
        "import os, pathlib, time\nfrom prefect import flow\n\n@flow\ndef sleeps(seconds: int):\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n    time.sleep(seconds)\n"
    )
    noted = tmp_path / "pid"
    host = PrefectHost(tmp_path / "home", port=prefect_host.port)  # only for what is beside the server
    try:
        host.worker("pool", "worker")
        host.command("deploy", f"{code}:sleeps", "--name", "slept", "--pool", "pool", cwd=tmp_path)
        assert host.finished(host.run_deployment("sleeps/slept", {"seconds": 0})) == "Completed"
        noted.unlink()
        run = host.run_deployment("sleeps/slept", {"seconds": 300})
        host.until("the flow to run", lambda: noted.exists() and noted.read_text())
        assert host.state_of(run) == "Running"
        host.kill("worker")
    finally:
        host.down()
    # Whether it ended with the worker depends on the release; with the host it does.
    child = int(noted.read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_end_is_told(tmp_path: Path, prefect_host: PrefectHost) -> None:
    with pytest.raises(HostError, match="is taken"):
        PrefectHost(tmp_path / "a", port=prefect_host.port).up()
    with pytest.raises(Ended, match=r"the server ended with \d+:(\n.*)*unable to open database file"):
        PrefectHost(tmp_path / "b", database=f"sqlite+aiosqlite:///{tmp_path}/none/prefect.db").up()
