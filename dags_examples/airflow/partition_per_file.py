"""One run per file, as partitions of an asset. Needs Airflow 3.2 or newer.

Use it instead of a dispatcher where other DAGs are to be scheduled by the same files: ``file_partitions``
takes a batch and adds a partition to the asset ``file`` for each; Airflow makes a run of each DAG
that listens, with the file's name as ``dag_run.partition_key``. Partitions are added when the task has
succeeded, as one. Clearing that task adds them again, and so makes runs again; a dispatcher does not.

A partition's key has at most 250 characters; a longer name fails the task, which says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, Asset, PartitionedAssetTimetable, task
from poller_airflow import PollerBatchOperator, poller_asset

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)

arrivals = poller_asset("inbox_to_partition", INBOX, recurse=True, events=["created"])
FILE = Asset("file")

with DAG("file_partitions", schedule=[arrivals], catchup=False, tags=["poller"], doc_md=__doc__):

    @task(outlets=[FILE])
    def partition(events: list[dict], *, outlet_events: dict) -> None:
        """Adds a partition for each file."""
        outlet_events[FILE].add_partitions([event["key"] for event in events])

    partition(PollerBatchOperator(task_id="files", asset=arrivals).output)

with DAG(
    "file_of_partition",
    schedule=PartitionedAssetTimetable(assets=FILE),
    catchup=False,
    tags=["poller"],
    doc_md=__doc__,
):

    @task
    def work(**context: dict) -> str:
        """The work on one file."""
        key = context["dag_run"].partition_key  # type: ignore[attr-defined]
        print(f"working on {INBOX / key}")
        return key

    work()
