"""DAGs that can't work, each in its own way, and a hundred sensors on one directory."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, task
from poller_airflow import PollerBatchOperator, PollerHook, PollerSensor, poller_asset

WORK = Path(os.environ["POLLER_TEST_WORK"])

with DAG("trouble", schedule=None, catchup=False, is_paused_upon_creation=False):
    for name, url, conn_id, state in [
        ("no_poller", "gopher://example.org/files", None, None),
        ("malformed", "swift://127.0.0.1/v3", "trouble_cloud", None),
        ("missing", str(WORK / "not-there"), None, None),
        ("no_connection", "swift://127.0.0.1/v3?box", "not_made", None),
        ("wrong_type", str(WORK), "trouble_fs", None),
        ("unreachable", "swift://127.0.0.1:1/v3?box", "trouble_cloud", None),
        ("state_unreadable", str(WORK), None, f"sqlite:///{WORK}/garbage.db"),
    ]:
        for deferrable in (False, True):
            PollerSensor(
                task_id=f"{name}_{'deferred' if deferrable else 'poked'}",
                url=url,
                conn_id=conn_id,
                state=state,
                deferrable=deferrable,
                poke_interval=1,
                timeout=20,
            )

lost = WORK / "assets" / "comes-later"
with DAG(
    "asset_comes_later", schedule=[asset := poller_asset("later", lost, poke_interval=1)], catchup=False
):
    PollerBatchOperator(task_id="files", asset=asset)

with DAG("hundred", schedule=None, catchup=False, is_paused_upon_creation=False, max_active_tasks=4):
    for number in range(100):
        PollerSensor(
            task_id=f"sensor_{number:03}",
            url="{{ dag_run.conf['inbox'] }}",
            recurse=True,
            deferrable=True,
            poke_interval=5,
            retries=3,
            retry_delay=1,
        )

with DAG("hook", schedule=None, catchup=False, is_paused_upon_creation=False):

    @task
    def with_hook(**context) -> list[str]:
        conf = context["dag_run"].conf
        hook = PollerHook(conf.get("conn_id"))
        with hook.get_poller(conf["inbox"], consumer="hook", existing="report") as poller:
            keys = [event.key.decode() for event in poller.claim(context["run_id"])]
        assert hook.claims(conf["inbox"], consumer="hook", existing="report") == [
            (context["run_id"], len(keys))
        ]
        assert hook.release(conf["inbox"], context["run_id"], consumer="hook", existing="report") == len(keys)
        return keys

    with_hook()
