"""Assets, on a real Airflow: from a file to a run, and none lost and none twice whatever is killed."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.airflow.tools import ledger, poller_command, put, watched
from tests.services.airflow_host import AirflowHost


def test_file_starts_a_run(host: AirflowHost, work: Path, state: Path) -> None:
    watched(host, "asset_simple", state, "simple")
    folder = work / "assets" / "simple"
    put(folder / "a.csv")

    def work_done() -> list[str]:
        # A busy machine is reminded before the first run has claimed: then one of two has the file.
        runs = [run["dag_run_id"] for run in host.runs("asset_simple") if run["state"] == "success"]
        return [run for run in runs if host.task("asset_simple", run, "files")["state"] == "success"]

    (run_id,) = host.until("a run with the file", work_done)
    assert host.run("asset_simple", run_id)["run_type"] == "asset_triggered"
    assert host.xcom("asset_simple", run_id, "work") == ["a.csv"]
    # One, or more if the run took longer to start than "remind".
    events = host.until("its events", lambda: host.get("assets/events")["asset_events"])
    payloads = {tuple(sorted(event["extra"]["payload"].items())) for event in events}
    assert payloads == {(("after", 0), ("consumer", "simple"), ("count", 1), ("to", 1), ("url", str(folder)))}
    (asset,) = host.get("assets", name_pattern="simple")["assets"]
    assert asset["extra"] == {"url": str(folder), "consumer": "simple"}


def test_run_by_hand_with_nothing_to_do_is_skipped(host: AirflowHost, work: Path, state: Path) -> None:
    watched(host, "asset_simple", state, "simple")
    run = host.trigger("asset_simple")
    assert host.finished("asset_simple", run) == "success"
    assert host.task("asset_simple", run, "files")["state"] == "skipped"
    assert host.task("asset_simple", run, "work")["state"] == "skipped"
    assert "Nothing waits for consumer 'simple'" in host.task_log("asset_simple", run, "files")


def test_modified_and_deleted(host: AirflowHost, work: Path, state: Path) -> None:
    folder = work / "assets" / "every"
    watched(host, "asset_all_events", state, "every")
    path = folder / "a"
    for number, (change, word) in enumerate(
        [
            (lambda: put(path), "created"),
            (lambda: path.write_text("longer"), "modified"),
            (path.unlink, "deleted"),
        ],
        1,
    ):
        change()
        host.until(
            f"the run of {word}",
            lambda: len(ledger(work, "asset_all_events")) >= number,  # noqa: B023
        )
    assert [line[2:] for line in sorted(ledger(work, "asset_all_events"), key=lambda line: line[1])] == [
        ("created", "a"),
        ("modified", "a"),
        ("deleted", "a"),
    ]


def test_message_queue_trigger(host: AirflowHost, work: Path, state: Path) -> None:
    watched(host, "asset_queue", state, "queue")
    below = work / "assets" / "queue" / "below"
    below.mkdir()
    put(below / "a")
    (run,) = host.until("a run", lambda: host.runs("asset_queue"))
    assert host.finished("asset_queue", run["dag_run_id"]) == "success"
    assert [line[3] for line in ledger(work, "asset_queue")] == ["below/a"]


def test_one_run_per_event(host: AirflowHost, work: Path, state: Path) -> None:
    watched(host, "dispatcher", state, "parcels")
    names = {f"parcel-{number}" for number in range(5)}
    for name in names:
        put(work / "assets" / "parcels" / name)
    host.until("five runs", lambda: len(host.runs("one_parcel")) == 5)
    runs = [run["dag_run_id"] for run in host.runs("one_parcel")]
    assert all(host.finished("one_parcel", run) == "success" for run in runs)
    assert {host.xcom("one_parcel", run, "open_parcel") for run in runs} == names
    # The dispatching task once more: the same events, and no run but those that there are.
    (first,) = [
        run["dag_run_id"]
        for run in host.runs("dispatcher")
        if host.task("dispatcher", run["dag_run_id"], "dispatch")["state"] == "success"
    ]
    assert sorted(host.xcom("dispatcher", first, "dispatch")) == sorted(runs)
    host.ask("POST", f"dags/dispatcher/dagRuns/{first}/clear", json={"dry_run": False})
    host.until("it to run again", lambda: host.task("dispatcher", first, "dispatch")["try_number"] > 1)
    assert host.finished("dispatcher", first) == "success"
    assert sorted(host.xcom("dispatcher", first, "dispatch")) == sorted(runs)
    assert len(host.runs("one_parcel")) == 5
    assert "5 of 5 runs of 'one_parcel' were there already" in host.task_log("dispatcher", first, "dispatch")
    links = host.get(f"dags/dispatcher/dagRuns/{first}/taskInstances/dispatch/links")["extra_links"]
    assert links["Dispatched runs"].endswith("/dags/one_parcel/runs?run_id_pattern=poller__")


def test_one_run_per_event_of_a_sensor(host: AirflowHost, work: Path) -> None:
    before = {run["dag_run_id"] for run in host.runs("one_parcel")}
    names = ["letter-1", "letter-2"]
    for name in names:
        put(work / "assets" / "letters" / name)
    run = host.trigger("dispatcher_of_sensor")
    assert host.finished("dispatcher_of_sensor", run) == "success"
    made = host.xcom("dispatcher_of_sensor", run, "dispatch")
    assert made == [f"poller__{event['id']}" for event in host.xcom("dispatcher_of_sensor", run, "wait")]
    assert before.isdisjoint(made)
    assert all(host.finished("one_parcel", one) == "success" for one in made)
    assert [host.xcom("one_parcel", one, "open_parcel") for one in made] == names


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bursts_while_triggerers_are_killed(host: AirflowHost, work: Path, state: Path) -> None:
    """300 files; the triggerer killed again and again, a second one beside it, the DAGs paused in between."""
    dags = ["burst_serial", "burst_parallel"]
    folder = work / "assets" / "bursts"
    for dag in dags:
        watched(host, dag, state, dag)
    host.start("triggerer-2", "triggerer")
    names = [f"file-{number:03}" for number in range(300)]
    try:
        for burst in range(6):
            for name in names[burst * 50 : burst * 50 + 50]:
                put(folder / name)
            time.sleep(1 + burst % 3)
            if burst in (1, 3, 4):
                which = "triggerer" if burst != 3 else "triggerer-2"
                host.kill(which)
                host.start(which, "triggerer")
            if burst == 2:
                for dag in dags:
                    host.pause(dag)
            if burst == 4:
                for dag in dags:
                    host.pause(dag, False)
            time.sleep(2)
        for dag in dags:
            host.until(f"all of {dag}", partial(_done, work, dag, 300), 300)
    finally:
        host.kill("triggerer-2")
    for dag in dags:
        runs = host.runs(dag)
        for run in runs:
            assert host.finished(dag, run["dag_run_id"]) == "success"
        done = Counter(line[3] for line in ledger(work, dag))
        assert sorted(done) == names
        assert set(done.values()) == {1}, "some file was worked on by two runs"
        most = max(len(path.read_text().splitlines()) for path in (work / "ledgers" / dag).glob("[!.]*"))
        assert most <= 40


def _done(work: Path, dag: str, count: int) -> bool:
    return len({line[3] for line in ledger(work, dag)}) >= count


def test_claim_of_a_deleted_run_is_found_and_released(host: AirflowHost, work: Path, state: Path) -> None:
    dag = "asset_simple"
    watched(host, dag, state, "simple")
    before = len(host.runs(dag))
    put(work / "assets" / "simple" / "of-a-deleted-run")
    host.until("its run", lambda: len(host.runs(dag)) > before)
    host.until("it to be worked on", lambda: "of-a-deleted-run" in [line[3] for line in ledger(work, dag)])
    (run,) = {line[0] for line in ledger(work, dag) if line[3] == "of-a-deleted-run"}
    host.finished(dag, run)
    host.ask("DELETE", f"dags/{dag}/dagRuns/{run}")
    token = f"{dag}/{run}/files"
    url = str(work / "assets" / "simple")
    options = f"--state sqlite:///{state} --consumer simple"
    found = poller_command(host, f"claims {url} {options}")
    assert token in found
    poller_command(host, f"release {token} --url {url} {options}")
    host.until(
        "another run to have it",
        lambda: [line for line in ledger(work, dag) if line[3] == "of-a-deleted-run" and line[0] != run],
    )
