"""DAGs with sensors, one for each way to wait; where to look stands in the run's conf."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from poller_airflow import PollerSensor

WAYS: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True},
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
}


@task
def names(events: Any) -> list[str]:
    return [event["key"] for event in events]


for way, options in WAYS.items():
    with DAG(f"sensor_{way}", schedule=None, catchup=False, is_paused_upon_creation=False):
        wait = PollerSensor(
            task_id="wait",
            url="{{ dag_run.conf['inbox'] }}",
            consumer="{{ dag_run.conf.get('consumer', 'tests') }}",
            existing="report",
            poke_interval=1,
            timeout=60,
            retries=5,
            retry_delay=timedelta(seconds=1),
            **{"deferrable": False, **options},
        )
        names(wait.output)

    with DAG(f"timeout_{way}", schedule=None, catchup=False, is_paused_upon_creation=False):
        for soft in (False, True):
            PollerSensor(
                task_id="soft" if soft else "hard",
                url="{{ dag_run.conf['inbox'] }}",
                soft_fail=soft,
                poke_interval=1,
                timeout=3,
                # Airflow itself fails a task now and then that is resumed at once; a time-out is not retried.
                retries=5,
                retry_delay=timedelta(seconds=1),
                **{"deferrable": False, **options},
            )

with DAG("sensor_usual", schedule=None, catchup=False, is_paused_upon_creation=False):
    # Nothing but what has to be said: the consumer is called after DAG and task, and only new files count.
    PollerSensor(
        task_id="wait", url="{{ dag_run.conf['inbox'] }}", deferrable=True, poke_interval=1, retries=5
    )

with DAG("sensor_mapped", schedule=None, catchup=False, is_paused_upon_creation=False):

    @task
    def inboxes(**context: Any) -> list[str]:
        found: list[str] = context["dag_run"].conf["inboxes"]
        return found

    PollerSensor.partial(
        task_id="wait", existing="report", consumer="mapped", deferrable=True, poke_interval=1, retries=5
    ).expand(url=inboxes())

with DAG("sensor_together", schedule=None, catchup=False, is_paused_upon_creation=False):
    PollerSensor(
        task_id="wait",
        url="{{ dag_run.conf['inbox'] }}",
        deferrable=True,
        consumer="together",
        batch_for=8,
        poke_interval=1,
        retries=5,
        retry_delay=timedelta(seconds=1),
    )

with DAG("sensor_fails_once", schedule=None, catchup=False, is_paused_upon_creation=False):
    # The sensor has its files, and then what comes after it in the same task fails.
    class Stumbling(PollerSensor):
        def execute(self, context: Any) -> Any:
            found = super().execute(context)
            if context["ti"].try_number == 1:
                raise RuntimeError("stumbled, after the claim")
            return found

    Stumbling(
        task_id="wait",
        url="{{ dag_run.conf['inbox'] }}",
        consumer="stumbling",
        existing="report",
        deferrable=False,
        retries=5,
        retry_delay=timedelta(seconds=1),
        poke_interval=1,
    )

with DAG("sensor_conn", schedule=None, catchup=False, is_paused_upon_creation=False):
    PollerSensor(
        task_id="wait",
        url="{{ dag_run.conf['inbox'] }}",
        conn_id="{{ dag_run.conf['conn_id'] }}",
        consumer="conn",
        existing="report",
        deferrable=True,
        poke_interval=1,
        timeout=60,
        retries=5,
        retry_delay=timedelta(seconds=1),
    )

with DAG("template_with_secret", schedule=None, catchup=False, is_paused_upon_creation=False):
    # What a template becomes is not known before the task runs.
    address = "{{ 'swift:/' ~ '/demo+demo:' ~ conn.cloud.password ~ '@127.0.0.1/v3?box' }}"
    PollerSensor(task_id="wait", url=address, deferrable=True)
