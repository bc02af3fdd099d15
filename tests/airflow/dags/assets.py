"""DAGs that an asset schedules. What a run does with a file is a line in a ledger."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import DAG, Asset, AssetWatcher, task
from poller_airflow import PollerBatchOperator, PollerDispatchOperator, PollerSensor, poller_asset

WORK = Path(os.environ["POLLER_TEST_WORK"])


def inbox(name: str) -> str:
    """A directory that is there when Airflow starts to watch it."""
    folder = WORK / "assets" / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@task
def work(events: Any, **context: Any) -> list[str]:
    """Writes down who did what; takes a moment for it, as work does."""
    run = context["dag_run"]
    ledger = WORK / "ledgers" / run.dag_id
    ledger.mkdir(parents=True, exist_ok=True)
    time.sleep(0.5)
    lines = [f"{run.run_id} {event['id']} {event['event']} {event['key']}\n" for event in events]
    # One line of a file of its own, put there whole: a run that is repeated replaces its own.
    part = ledger / f".{run.run_id}.part"
    part.write_text("".join(lines))
    part.rename(ledger / run.run_id)
    return [event["key"] for event in events]


with DAG(
    "asset_simple",
    schedule=[simple := poller_asset("simple", inbox("simple"), poke_interval=1, remind=5)],
    catchup=False,
):
    work(PollerBatchOperator(task_id="files", asset=simple).output)

for dag_id, most in {"burst_serial": 1, "burst_parallel": 16}.items():
    # Each has a consumer of its own on the same directory, and so all of its files.
    asset = poller_asset(dag_id, inbox("bursts"), poke_interval=2, remind=5, limit=40)
    with DAG(dag_id, schedule=[asset], catchup=False, max_active_runs=most):
        work(PollerBatchOperator(task_id="files", asset=asset, retries=3, retry_delay=1).output)

with DAG(
    "asset_all_events",
    schedule=[every := poller_asset("every", inbox("every"), poke_interval=1)],
    catchup=False,
):
    work(PollerBatchOperator(task_id="files", asset=every).output)

with DAG(
    "dispatcher",
    schedule=[parcels := poller_asset("parcels", inbox("parcels"), poke_interval=1, batch_for=2)],
    catchup=False,
):
    PollerDispatchOperator(
        task_id="dispatch", asset=parcels, trigger_dag_id="one_parcel", conf={"from": "test"}
    )

with DAG("dispatcher_of_sensor", schedule=None, catchup=False, is_paused_upon_creation=False):
    wait = PollerSensor(task_id="wait", url=inbox("letters"), existing="report", deferrable=False)
    PollerDispatchOperator(
        task_id="dispatch", events=wait.output, trigger_dag_id="one_parcel", conf={"from": "test"}
    )

with DAG("one_parcel", schedule=None, catchup=False, is_paused_upon_creation=False):

    @task
    def open_parcel(**context: Any) -> str:
        conf = context["dag_run"].conf
        assert conf["from"] == "test"
        return str(conf["event"]["key"])

    open_parcel()

queue = Asset(
    "queue",
    watchers=[
        AssetWatcher(
            name="queue",
            trigger=MessageQueueTrigger(
                scheme="poller", url=inbox("queue"), consumer="queue", poke_interval=1.0, recurse=True
            ),
        )
    ],
)
with DAG("asset_queue", schedule=[queue], catchup=False):
    work(PollerBatchOperator(task_id="files", asset=queue).output)
