"""``poll_flow`` and what it starts, deployed by ``prefect deploy`` from ``prefect.yaml``, run by a worker."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import prefect
import pytest
from poller_prefect import on_created

from tests.prefect.steps import feed, made, put
from tests.services.prefect_host import PrefectHost

FLOWS = """
from prefect import flow
from poller_prefect import take_event

@flow(log_prints=True)
def yaml_load(path: str, size: int):
    with take_event() as event:
        print("loaded", path, size)

@flow(log_prints=True)
def yaml_react(url: str, event_id: str, size: int = 0):
    with take_event(event_id) as event:
        print("reacted", url, size)
"""

YAML = """
name: everyday

definitions:
  pool: &pool
    name: yaml-pool

deployments:
  - name: load
    entrypoint: flows.py:yaml_load
    work_pool: *pool
  - name: react
    entrypoint: flows.py:yaml_react
    work_pool: *pool
    triggers:
{triggers}
  - name: inbox
    entrypoint: poller_prefect.flow.poll_flow
    pull: &nothing
      - prefect.deployments.steps.set_working_directory: {{directory: .}}
    work_pool: *pool
    parameters:
      url: {inbox}
      run: yaml-load/load
      include: ["*.csv"]
  - name: events
    entrypoint: poller_prefect.poll_flow
    pull: *nothing
    work_pool: *pool
    parameters:
      url: {inbox}
"""


def test_deployed_from_yaml(api: PrefectHost, inbox: Path, tmp_path: Path) -> None:
    """Parameters of runs are filled by name there: Prefect removes templates from prefect.yaml itself."""
    if prefect.__version__.startswith("3.6."):
        pytest.importorskip("importlib_metadata", reason="Prefect's worker needs it, and does not ask for it")
    triggers = on_created(inbox, parameters=["url", "event_id", "size"], match={"suffix": ".csv"}).as_yaml()
    (tmp_path / "flows.py").write_text(FLOWS)
    text = YAML.format(inbox=inbox, triggers=textwrap.indent(triggers, " " * 6))
    (tmp_path / "prefect.yaml").write_text(text)
    api.worker("yaml-pool", "yaml-worker")
    api.command("deploy", "--all", cwd=tmp_path)
    assert api.deployment("poll-flow/inbox")["entrypoint"] == "poller_prefect.flow.poll_flow"

    def polls() -> list[str]:
        ids = [api.run_deployment(f"poll-flow/{name}") for name in ("inbox", "events")]
        return [api.finished(one, 180) for one in ids]

    assert polls() == ["Completed", "Completed"]
    put(inbox / "a.csv", 9)
    put(inbox / "b.txt", 8)
    assert polls() == ["Completed: 1 new", "Completed: 2 new"]
    runs: list[dict[str, Any]] = [*made(api, "yaml-load/load"), *made(api, "yaml-react/react")]
    assert [run["parameters"] for run in runs] == [
        {"path": f"{inbox}/a.csv", "size": 9},
        {"url": f"file://{inbox}/a.csv", "event_id": feed(api, inbox)[0]["payload"]["id"], "size": 9},
    ]
    for run, line in zip(runs, (f"loaded {inbox}/a.csv 9", f"reacted file://{inbox}/a.csv 9"), strict=True):
        assert api.finished(run["id"], 180) == "Completed"
        api.until("the log to be there", lambda: line in api.logs_of(run["id"]).splitlines())  # noqa: B023
    api.stop("yaml-worker")
