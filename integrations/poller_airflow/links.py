"""Buttons on a task's page in Airflow's UI."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

__all__ = ["DispatchedRunsLink"]


class DispatchedRunsLink(BaseOperatorLink):
    """The runs that a :class:`~poller_airflow.PollerDispatchOperator` made."""

    name = "Dispatched runs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the list of runs."""
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}/dags/{quote(operator.trigger_dag_id, safe='')}/runs?run_id_pattern=poller__"
