"""A mirror: what is created or modified is loaded again, what is deleted is removed.

Use it where a directory is a state to be followed, rather than an inbox. Events of one file
come in their order, and in one batch; where it matters that a later run does not overtake an
earlier one, keep ``max_active_runs=1``. With ``existing="report"`` the first run gets what is there already.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, task
from poller_airflow import PollerBatchOperator, poller_asset

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)

mirrored = poller_asset("inbox_to_mirror", INBOX, recurse=True, existing="report", settle=2)

with DAG("mirror", schedule=[mirrored], catchup=False, max_active_runs=1, tags=["poller"], doc_md=__doc__):

    @task
    def follow(events: list[dict]) -> dict[str, str]:
        """What is the last that happened to each file, and so what has to be done."""
        last = {event["key"]: event["event"] for event in events}
        for key, event in last.items():
            print(f"remove {key}" if event == "deleted" else f"load {key}")
        return last

    follow(PollerBatchOperator(task_id="changes", asset=mirrored).output)
