"""A hundred of our sensors, on a hundred directories or on one; of each, what the process at hand needs."""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from benchmarks.airflow_noted import WORK
from benchmarks.airflow_ours import OurSensor

COUNT = 100
needed = get_parsing_context()

for how, scheme in {"inotify": "file", "scan": "scan"}.items():
    for many in (True, False):
        way = f"load_{how}_{'many' if many else 'one'}"
        if needed.dag_id not in (None, way):
            continue
        with DAG(way, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_tasks=128):
            for number in range(COUNT):
                if needed.task_id in (None, f"wait_{number:03}"):
                    OurSensor(
                        task_id=f"wait_{number:03}",
                        url=f"{scheme}://{WORK}/load/{number if many else 0:03}",
                        deferrable=True,
                        poke_interval=5,
                        queue=way,
                    )
