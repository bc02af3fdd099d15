"""A run waits for files, works on them, and is followed by the next run, which waits for the next ones.

Use a sensor where files are one of several things that a run waits for, or where runs
are made by a clock (``schedule="@daily"``: the files since yesterday) or by somebody else.
A run that is waiting is to be seen in the UI. With ``deferrable=True`` it waits in the
triggerer and holds no worker. ``batch_for`` has files that belong together come together.

A task that is retried or cleared gets the same files again, as it gets the same
data interval again.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, task
from poller_airflow import PollerSensor

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)

with DAG(
    "files_by_sensor",
    schedule="@continuous",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["poller"],
    doc_md=__doc__,
):
    wait = PollerSensor(
        task_id="wait",
        url=INBOX,
        recurse=True,
        events=["created"],
        batch_for=timedelta(seconds=10),
        deferrable=True,
        timeout=timedelta(days=7).total_seconds(),
        # Airflow itself fails a task now and then that defers and is resumed at once.
        retries=2,
        retry_delay=timedelta(seconds=10),
    )

    @task
    def load(events: list[dict]) -> list[str]:
        """What is to be done with the files; here: tell their names."""
        for event in events:
            print(f"loading {event['path']}, {event['size']} bytes")
        return [event["key"] for event in events]

    load(wait.output)
