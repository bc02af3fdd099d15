"""The standard provider's sensor, and its trigger in an asset's watcher."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetWatcher

from benchmarks.airflow_noted import downstream, inbox
from benchmarks.airflow_peers import PeerEventTrigger, PeerSensor

with DAG("sensor_peer", schedule=None, catchup=False, is_paused_upon_creation=False):
    name = "{{ dag_run.conf['name'] }}"
    wait = PeerSensor(
        task_id="wait", filepath=f"{inbox('sensor_peer')}/{name}", deferrable=True, poke_interval=5
    )
    wait >> downstream("sensor_peer")

deleting = PeerEventTrigger(f"{inbox('asset_peer')}/arrived", poke_interval=5, way="asset_peer")
asset = Asset("asset_peer", watchers=[AssetWatcher(name="asset_peer", trigger=deleting)])
with DAG("asset_peer", schedule=[asset], catchup=False):
    downstream("asset_peer")
