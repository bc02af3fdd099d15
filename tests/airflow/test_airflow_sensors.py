"""The sensor, on a real Airflow: every way to wait, retries, clearing, mapping, time-outs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.airflow.tools import put
from tests.services.airflow_host import AirflowHost

WAYS = ["deferrable", "poke", "reschedule"]


@pytest.mark.parametrize("way", WAYS)
def test_waits_for_a_file(host: AirflowHost, inbox: Path, way: str) -> None:
    dag = f"sensor_{way}"
    run = host.trigger(dag, {"inbox": str(inbox)})
    waiting = {"deferrable": "deferred", "poke": "running", "reschedule": "up_for_reschedule"}[way]
    host.state_of(dag, run, "wait", waiting)
    put(inbox / "a.csv")
    assert host.finished(dag, run) == "success"
    (event,) = host.xcom(dag, run, "wait")
    assert event["event"] == "created"
    assert event["path"] == str(inbox / "a.csv")
    assert event["subject"] == f"file://{inbox}/a.csv"
    assert event["size"] == 1
    assert host.xcom(dag, run, "names") == ["a.csv"]
    log = host.task_log(dag, run, "wait")
    assert f"Watched: file://{inbox}; entries: 1; last look: " in log
    assert f"Claimed 1 event(s) for '{dag}/{run}/wait': seq 1 to 1" in log


@pytest.mark.parametrize("way", WAYS)
def test_files_that_wait_already_are_not_waited_for(host: AirflowHost, inbox: Path, way: str) -> None:
    dag = f"sensor_{way}"
    for name in ("a", "b", "c"):
        put(inbox / name)
    run = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, run) == "success"
    assert host.xcom(dag, run, "names") == ["a", "b", "c"]
    put(inbox / "d")
    again = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, again) == "success"
    assert host.xcom(dag, again, "names") == ["d"]


def test_cleared_run_gets_the_same_files(host: AirflowHost, inbox: Path) -> None:
    dag = "sensor_deferrable"
    put(inbox / "a")
    run = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, run) == "success"
    first = host.xcom(dag, run, "wait")
    put(inbox / "b")
    host.ask("POST", f"dags/{dag}/dagRuns/{run}/clear", json={"dry_run": False})
    host.until("it to run again", lambda: host.task(dag, run, "wait")["try_number"] > 1)
    assert host.finished(dag, run) == "success"
    assert host.xcom(dag, run, "wait") == first
    later = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, later) == "success"
    assert host.xcom(dag, later, "names") == ["b"]


def test_retry_gets_the_same_files(host: AirflowHost, inbox: Path) -> None:
    dag = "sensor_fails_once"
    put(inbox / "a")
    run = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, run) == "success"
    assert host.task(dag, run, "wait")["try_number"] == 2
    assert [event["key"] for event in host.xcom(dag, run, "wait")] == ["a"]
    log = host.task_log(dag, run, "wait")
    assert "stumbled, after the claim" in log
    assert log.count("Claimed 1 event(s)") == 2


def test_only_new_files_by_default(host: AirflowHost, inbox: Path) -> None:
    dag = "sensor_usual"
    put(inbox / "old")
    run = host.trigger(dag, {"inbox": str(inbox)})
    host.state_of(dag, run, "wait", "deferred")
    put(inbox / "new")
    assert host.finished(dag, run) == "success"
    assert [event["key"] for event in host.xcom(dag, run, "wait")] == ["new"]
    # Another run, and what came while none waited.
    put(inbox / "meanwhile")
    run = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, run) == "success"
    assert [event["key"] for event in host.xcom(dag, run, "wait")] == ["meanwhile"]


def test_mapped_over_directories(host: AirflowHost, inbox: Path) -> None:
    dag = "sensor_mapped"
    folders = [inbox / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
        put(folder / f"of-{folder.name}")
    run = host.trigger(dag, {"inboxes": [str(folder) for folder in folders]})
    assert host.finished(dag, run) == "success"
    found = [host.xcom(dag, run, "wait", index) for index in range(3)]
    assert [[event["key"] for event in events] for events in found] == [["of-one"], ["of-two"], ["of-three"]]


def test_batch_for_collects(host: AirflowHost, inbox: Path) -> None:
    dag = "sensor_together"
    run = host.trigger(dag, {"inbox": str(inbox)})
    host.state_of(dag, run, "wait", "deferred")
    put(inbox / "first")
    put(inbox / "second")
    put(inbox / "third")
    assert host.finished(dag, run) == "success"
    assert sorted(event["key"] for event in host.xcom(dag, run, "wait")) == ["first", "second", "third"]


@pytest.mark.parametrize("way", WAYS)
def test_timeout_and_soft_fail(host: AirflowHost, inbox: Path, way: str) -> None:
    dag = f"timeout_{way}"
    run = host.trigger(dag, {"inbox": str(inbox)})
    assert host.finished(dag, run) == "failed"
    assert host.task(dag, run, "hard")["state"] == "failed"
    assert host.task(dag, run, "soft")["state"] == "skipped", host.task_log(dag, run, "soft")


def test_dag_test(host: AirflowHost, inbox: Path) -> None:
    """``dag.test()``, as ``airflow dags test`` does it: the trigger runs in the task's own process."""
    put(inbox / "a")
    conf = json.dumps({"inbox": str(inbox), "consumer": "dag_test"})
    done = host.command("dags", "test", "sensor_deferrable", "--conf", conf)
    said = done.stdout + done.stderr
    assert "Claimed 1 event(s)" in said
    # Nothing is there: it is deferred, and goes on when a file lands.
    waiting = host.spawn("dags", "test", "sensor_deferrable", "--conf", conf)
    time.sleep(3)
    put(inbox / "b")
    said = waiting.communicate(timeout=120)[0]
    assert waiting.returncode == 0, said
    assert "created file://" in said
    assert f"{inbox}/b" in said
