"""New objects in a container of OpenStack Swift start a run.

The credentials are in a connection, made once, in the UI or so::

    airflow connections add poller_swift --conn-type poller \\
        --conn-host https://keystone.example.org:5000/v3 --conn-login alice --conn-password … \\
        --conn-extra '{"project_name": "demo"}'

``POLLER_CONTAINER`` names the container (default: ``inbox``). A container can't tell of changes, so it is
listed every ``poke_interval`` seconds, which costs a request per 10,000 objects.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, task
from poller_airflow import PollerBatchOperator, PollerHook, poller_asset

from poller_core import Event

CONNECTION = "poller_swift"
URL = f"swift://?{os.environ.get('POLLER_CONTAINER') or 'inbox'}"  # which Keystone says the connection

objects = poller_asset("swift_inbox", URL, conn_id=CONNECTION, events=["created"], poke_interval=60)

with DAG("swift_container", schedule=[objects], catchup=False, tags=["poller"], doc_md=__doc__):

    @task
    def load(events: list[dict]) -> dict[str, int]:
        """Fetches each object, with the credentials of the connection."""
        sizes = {}
        with PollerHook(CONNECTION).get_poller(URL, consumer=objects.name) as poller:
            for event in events:
                with poller.open(Event.from_dict(event)) as file:
                    sizes[event["name"]] = len(file.read())
        return sizes

    load(PollerBatchOperator(task_id="objects", asset=objects).output)
