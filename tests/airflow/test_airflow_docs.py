"""The examples for Airflow in README, docs and docstrings are DAGs that a real Airflow reads."""

from __future__ import annotations

from tests.airflow.conftest import PAGES
from tests.services.airflow_host import AirflowHost

#: What they define.
DAGS = {
    "README": {"sales"},
    "airflow": {"load", "nightly", "dispatch"},
    "alarms": {"poller_alarm"},
    "from-filesensor": {"load_before", "load_after", "load_by_sensor"},
    "one-run-per-file": {"each_file_dispatched", "one_file", "each_file_mapped"},
}


def test_examples_are_dags(host: AirflowHost) -> None:
    assert {page.stem for page in PAGES} == set(DAGS)
    wanted = {dag for dags in DAGS.values() for dag in dags} | {"load_letters"}  # of a docstring

    def read() -> bool:
        return wanted <= {dag["dag_id"] for dag in host.get("dags", limit=100)["dags"]}

    host.until("the pages' DAGs to be read", read)
    errors = host.get("importErrors", limit=100)["import_errors"]
    assert not [error for error in errors if error["filename"].startswith("page_")]


def test_first_example_is_watched_as_it_says(host: AirflowHost) -> None:
    (asset,) = host.until("its asset", lambda: host.get("assets", dag_ids=["sales"])["assets"])
    assert asset["extra"] == {"url": "/data/inbox", "consumer": "sales_inbox"}
    tasks = {task["task_id"] for task in host.get("dags/sales/tasks")["tasks"]}
    assert tasks == {"files", "load"}
