"""What Airflow itself takes from an event to a task: DAGs whose triggers are bare inotify."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetWatcher

from benchmarks.airflow_noted import ArrivalEventTrigger, ArrivalSensor, downstream, inbox

with DAG("sensor_floor", schedule=None, catchup=False, is_paused_upon_creation=False):
    ArrivalSensor(task_id="wait") >> downstream("sensor_floor")

arrival = ArrivalEventTrigger(inbox("asset_floor"), way="asset_floor")
asset = Asset("asset_floor", watchers=[AssetWatcher(name="asset_floor", trigger=arrival)])
with DAG("asset_floor", schedule=[asset], catchup=False):
    downstream("asset_floor")
