"""One task per file, or one DAG run per file.

``files_mapped`` takes a batch and maps a task over it: one run, and in it a task for each
file, in parallel, each retried by itself. Use it where a file is a minute's work.

``file_dispatcher`` makes a run of ``file_handler`` for each file. Use it where each file is a
pipeline of its own, with its own state, retries and place in the grid. The run's id is made of
the event's id, so that whatever is retried or cleared, there is one run per event;
``conf["event"]`` has the event.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, task
from poller_airflow import PollerBatchOperator, PollerDispatchOperator, poller_asset

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)

# Two assets, and so two consumers: each of the two DAGs gets every file.
to_map = poller_asset("inbox_to_map", INBOX, recurse=True, events=["created"])
to_dispatch = poller_asset("inbox_to_dispatch", INBOX, recurse=True, events=["created"])


with DAG("files_mapped", schedule=[to_map], catchup=False, tags=["poller"], doc_md=__doc__):

    @task(map_index_template="{{ task.op_kwargs['event']['key'] }}", retries=2)
    def work(event: dict) -> int:
        """The work on one file."""
        return len(Path(event["path"]).read_bytes())

    # Airflow maps over at most 1024 ([core] max_map_length): the default limit is below.
    work.expand(event=PollerBatchOperator(task_id="files", asset=to_map).output)


with DAG("file_dispatcher", schedule=[to_dispatch], catchup=False, tags=["poller"], doc_md=__doc__):
    PollerDispatchOperator(task_id="dispatch", asset=to_dispatch, trigger_dag_id="file_handler")


with DAG("file_handler", schedule=None, max_active_runs=4, tags=["poller"], doc_md=__doc__):

    @task
    def handle(**context: dict) -> str:
        """The work on one file."""
        event = context["dag_run"].conf["event"]  # type: ignore[attr-defined]
        print(f"{event['event']}: {event['path']}")
        return event["key"]

    handle()
