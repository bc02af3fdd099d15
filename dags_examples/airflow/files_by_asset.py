"""New files start a run at once: the DAG is scheduled by the directory itself.

Use this unless you have a reason not to. The asset is watched by the triggerer, with
inotify where that works, and holds no worker while nothing happens. A burst of files makes
a few runs, each with all the files that had come by then, up to ``limit``; every file
is in exactly one run.

Try it: unpause the DAG, drop a file into ``POLLER_INBOX`` (default: ``~/inbox``).
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, task
from poller_airflow import PollerBatchOperator, poller_asset

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)

inbox = poller_asset("inbox", INBOX, recurse=True, events=["created"])

with DAG("files_by_asset", schedule=[inbox], catchup=False, tags=["poller"], doc_md=__doc__):
    files = PollerBatchOperator(task_id="files", asset=inbox)

    @task
    def load(events: list[dict]) -> dict[str, int]:
        """What is to be done with the files; here: count their bytes."""
        sizes = {}
        for event in events:
            print(f"loading {event['path']}")
            sizes[event["key"]] = Path(event["path"]).stat().st_size
        return sizes

    load(files.output)
