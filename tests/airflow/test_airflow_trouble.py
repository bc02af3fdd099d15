"""What goes wrong, on a real Airflow: the task says what, and the triggerer lives on."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import psutil
import pytest

from tests.airflow.tools import consumers, put
from tests.services.airflow_host import AirflowHost

EXPECTED = {
    "no_poller": "UnknownScheme: there is no poller for 'gopher' URLs",
    "malformed": "InvalidUrl: 'swift://127.0.0.1/v3' names no container",
    "missing": "TargetNotFound: ",
    "no_connection": "not_made",
    "wrong_type": "InvalidOption: connection 'trouble_fs' is of the type 'fs'; expected 'poller'",
    "unreachable": "TargetError: ",
    "state_unreadable": "StateDamaged: ",
}


def test_bad_input_fails_the_task_with_what_is_wrong(host: AirflowHost, work: Path) -> None:
    (work / "garbage.db").write_bytes(b"this is no database\n" * 1000)
    host.command("connections", "add", "trouble_fs", "--conn-type", "fs")
    host.command(
        *("connections", "add", "trouble_cloud", "--conn-type", "poller"),
        *("--conn-login", "alice", "--conn-password", "wonderland-17"),
        *("--conn-extra", '{"project_name": "demo", "retries": 0}'),
    )
    run = host.trigger("trouble")
    assert host.finished("trouble", run, 240) == "failed"
    for name, message in EXPECTED.items():
        for how in ("poked", "deferred"):
            task = f"{name}_{how}"
            assert host.task("trouble", run, task)["state"] == "failed"
            log = host.task_log("trouble", run, task)
            assert message in log, task
            assert "wonderland-17" not in log
    assert (work / "garbage.db").read_bytes().startswith(b"this is no database"), "the state was overwritten"
    host.until("all services to be well", host.healthy, 60)


def test_asset_of_a_directory_that_comes_later(host: AirflowHost, work: Path, state: Path) -> None:
    folder = work / "assets" / "comes-later"
    host.pause("asset_comes_later", False)
    host.until("the trigger to say so", lambda: f"{folder} is not there" in host.log("triggerer"))
    # It is tried again, and not in a tight loop.
    time.sleep(5)
    assert host.log("triggerer").count(f"{folder} is not there") < 20
    folder.mkdir()
    host.until("it to be watched", lambda: "later" in consumers(state))
    put(folder / "a")
    (run,) = host.until("a run", lambda: host.runs("asset_comes_later"))
    assert host.finished("asset_comes_later", run["dag_run_id"]) == "success"


def test_directory_that_goes_away_while_a_sensor_waits(host: AirflowHost, inbox: Path) -> None:
    folder = inbox / "mount"
    folder.mkdir()
    put(folder / "old")
    dag = "sensor_usual"
    run = host.trigger(dag, {"inbox": str(folder)})
    host.state_of(dag, run, "wait", "deferred")
    host.until("the trigger to watch", lambda: "Watching file:" in host.task_log(dag, run, "wait"))
    folder.rename(inbox / "elsewhere")
    host.until(
        "the task's log to say so",
        lambda: "it is looked at again and again" in host.task_log(dag, run, "wait"),
    )
    (inbox / "elsewhere").rename(folder)
    put(folder / "new")
    assert host.finished(dag, run) == "success"
    assert [(event["event"], event["key"]) for event in host.xcom(dag, run, "wait")] == [("created", "new")]


def test_hook(host: AirflowHost, inbox: Path) -> None:
    put(inbox / "a")
    run = host.trigger("hook", {"inbox": str(inbox)})
    assert host.finished("hook", run) == "success"
    assert host.xcom("hook", run, "with_hook") == ["a"]


def prefer(pid: int) -> None:
    """Let the processor be given to a process and its children first.

    A loop that others take the processor from looks blocked, and a hundred workers on two processors do that.
    What is asked here is whether our triggers block it. Only root may do this; others have to be patient.
    """
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.AccessDenied):
            one.nice(-15)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hundred_sensors_cost_one_listing(host: AirflowHost, inbox: Path) -> None:
    """A hundred deferred sensors on one directory tree of 200,000 files."""
    for folder in range(100):
        (inbox / f"{folder:02}").mkdir()
        for number in range(2000):
            (inbox / f"{folder:02}" / f"{number:04}").touch()
    prefer(host.pid("triggerer"))
    began = len(host.log("triggerer"))
    run = host.trigger("hundred", {"inbox": str(inbox)})

    def states() -> list[str]:
        path = f"dags/hundred/dagRuns/{run}/taskInstances"
        return [one["state"] for one in host.get(path, limit=200)["task_instances"]]

    host.until("all of them to wait", lambda: states().count("deferred") == 100, 600)
    put(inbox / "00" / "new")
    assert host.finished("hundred", run, 300) == "success"
    found = [host.xcom("hundred", run, f"sensor_{number:03}") for number in range(100)]
    assert {tuple(event["key"] for event in events) for events in found} == {("00/new",)}
    log = host.log("triggerer")[began:]
    blocked = re.findall(r".*was blocked.*", log)
    assert not blocked
