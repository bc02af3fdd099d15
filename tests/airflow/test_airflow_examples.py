"""The examples, as they stand, on a real Airflow: files land, and what each promises happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import airflow
import pytest
from packaging.version import Version

from tests.airflow.tools import consumers, put
from tests.services.airflow_host import AirflowHost

#: The DAGs that are scheduled by an asset, and its name.
ASSETS = {
    "files_by_asset": "inbox",
    "files_mapped": "inbox_to_map",
    "file_dispatcher": "inbox_to_dispatch",
    "mirror": "inbox_to_mirror",
}
PARTITIONS = Version(airflow.__version__) >= Version("3.2")
NAMES = ["one.csv", "three.csv", "two.csv"]


@pytest.fixture(scope="module")
def examples(host: AirflowHost, work: Path, state: Path) -> Path:
    """All examples for directories, at work on one inbox; three files have landed."""
    inbox = work / "examples"
    watched = dict(ASSETS)
    if PARTITIONS:
        watched["file_partitions"] = "inbox_to_partition"
        host.pause("file_of_partition", False)
    put(inbox / "old.csv", "there before")
    for dag in [*watched, "file_handler", "files_by_sensor"]:
        host.pause(dag, False)
    wanted = {*watched.values(), "files_by_sensor.wait"}
    host.until("all to be watched", lambda: wanted <= set(consumers(state)))
    for name in NAMES:
        put(inbox / name, "abc")
    return inbox


@pytest.fixture(scope="module", autouse=True)
def end(host: AirflowHost, examples: Path) -> object:
    yield
    for dag in [*ASSETS, "file_handler", "files_by_sensor"]:
        host.pause(dag)


def results(host: AirflowHost, dag: str, task: str) -> list[Any]:
    """What the task returned, of all runs of the DAG that have succeeded."""
    runs = [run["dag_run_id"] for run in host.runs(dag) if run["state"] == "success"]
    states = {run: host.task(dag, run, task)["state"] for run in runs}
    return [host.xcom(dag, run, task) for run in runs if states[run] == "success"]


def test_by_asset(host: AirflowHost, examples: Path) -> None:
    def sizes() -> dict[str, int]:
        return {key: size for one in results(host, "files_by_asset", "load") for key, size in one.items()}

    assert host.until("all sizes", lambda: len(sizes()) >= 3 and sizes()) == dict.fromkeys(NAMES, 3)


def test_by_sensor(host: AirflowHost, examples: Path) -> None:
    found = host.until("a run", lambda: results(host, "files_by_sensor", "load"))
    assert sorted(key for one in found for key in one) == NAMES


def test_mapped(host: AirflowHost, examples: Path) -> None:
    def names() -> list[str]:
        found = []
        for run in host.runs("files_mapped"):
            path = f"dags/files_mapped/dagRuns/{run['dag_run_id']}/taskInstances/work/listMapped"
            rows = host.get(path)["task_instances"]
            found += [row["rendered_map_index"] for row in rows if row["state"] == "success"]
        return sorted(found)

    host.until("three mapped tasks", lambda: names() == NAMES)


def test_dispatched(host: AirflowHost, examples: Path) -> None:
    host.until("three runs", lambda: sorted(results(host, "file_handler", "handle")) == NAMES)


def test_mirrored(host: AirflowHost, examples: Path) -> None:
    def last() -> dict[str, str]:
        runs = sorted(host.runs("mirror"), key=lambda run: run["run_after"])
        states: dict[str, str] = {}
        for run in runs:
            run_id = run["dag_run_id"]
            if host.task("mirror", run_id, "follow")["state"] == "success":
                states |= host.xcom("mirror", run_id, "follow")
        return states

    host.until("all files", lambda: last() == dict.fromkeys(["old.csv", *NAMES], "created"))
    (examples / "old.csv").unlink()
    (examples / "one.csv").write_text("longer than before")
    host.until(
        "what has changed",
        lambda: (
            last()
            == {"old.csv": "deleted", "one.csv": "modified", "three.csv": "created", "two.csv": "created"}
        ),
    )


@pytest.mark.skipif(not PARTITIONS, reason="Airflow has partitions from 3.2 on")
def test_partitions(host: AirflowHost, examples: Path) -> None:
    host.until("three runs", lambda: sorted(results(host, "file_of_partition", "work")) == NAMES)
    runs = host.runs("file_of_partition")
    assert sorted(run["partition_key"] for run in runs) == NAMES
