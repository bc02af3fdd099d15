"""``poll_flow.serve(…)``: the flow travels to its process as an object, not by its module."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from tests import test_docstrings
from tests.prefect.steps import apply, made
from tests.services.prefect_host import PrefectHost


@flow
def served_load(path: str) -> None:
    """Is given a run, which nobody works on."""


def test_served_in_one_line(api: PrefectHost, inbox: Path, tmp_path: Path):
    """As the package's docstring has it, but for the name, the directory and the time that it takes."""
    (example,) = test_docstrings.examples("poller_prefect")
    deployment = apply(served_load)
    code = (
        example.code.replace('"inbox", interval=30', '"served-in-one-line", interval=2')
        .replace('"/data/inbox"', f'{str(inbox)!r}, "existing": "report"')
        .replace('"load/load"', repr(deployment))
    )
    (inbox / "a.csv").write_text("abc")
    script = tmp_path / "served.py"
    script.write_text(code)
    api.python(script, name="served-in-one-line")
    try:

        def found() -> list[str]:
            runs = api.flow_runs(deployment="poll-flow/served-in-one-line")
            failed = [run["state"]["message"] for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
            assert not failed
            return [run["state_name"] for run in runs if run["state_name"] == "Completed: 1 new"]

        assert api.until("a poll that finds the file", found, 120)
    finally:
        api.stop("served-in-one-line")
    (run,) = made(api, deployment)
    assert run["parameters"] == {"path": f"{inbox}/a.csv"}
