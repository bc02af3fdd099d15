"""Our sensor and our asset, each with inotify and scanning."""

from __future__ import annotations

from airflow.sdk import DAG

from benchmarks.airflow_noted import downstream, inbox
from benchmarks.airflow_ours import OurBatch, OurSensor, our_asset

for how, scheme in {"inotify": "file", "scan": "scan"}.items():
    sensor, asset = f"sensor_{how}", f"asset_{how}"
    with DAG(sensor, schedule=None, catchup=False, is_paused_upon_creation=False):
        wait = OurSensor(task_id="wait", url=f"{scheme}://{inbox(sensor)}", deferrable=True, poke_interval=5)
        wait >> downstream(sensor)

    watched = our_asset(asset, f"{scheme}://{inbox(asset)}", poke_interval=5)
    with DAG(asset, schedule=[watched], catchup=False):
        OurBatch(task_id="files", asset=watched) >> downstream(asset)
