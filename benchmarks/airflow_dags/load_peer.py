"""A hundred of the standard provider's sensors, each on a directory of its own."""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from benchmarks.airflow_noted import WORK
from benchmarks.airflow_peers import PeerSensor

COUNT = 100
needed = get_parsing_context()

with DAG("load_peer", schedule=None, catchup=False, is_paused_upon_creation=False, max_active_tasks=128):
    for number in range(COUNT):
        if needed.task_id in (None, f"wait_{number:03}"):
            PeerSensor(
                task_id=f"wait_{number:03}",
                filepath=f"{WORK}/load/{number:03}/awaited",
                deferrable=True,
                poke_interval=5,
                queue="load_peer",
            )
