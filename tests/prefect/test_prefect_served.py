"""``poll_flow.serve(…)``: the flow travels to its process as an object, not by its module."""

from __future__ import annotations

from pathlib import Path

from tests.services.prefect_host import PrefectHost

SERVED = """
from poller_prefect import poll_flow

if __name__ == "__main__":
    poll_flow.serve({name!r}, interval=2, parameters={{"url": {inbox!r}, "existing": "report"}})
"""


def test_served_in_one_line(prefect_host: PrefectHost, inbox: Path, tmp_path: Path):
    (inbox / "a.csv").write_text("abc")
    script = tmp_path / "served.py"
    script.write_text(SERVED.format(name="served-in-one-line", inbox=str(inbox)))
    prefect_host.python(script, name="served-in-one-line")
    try:

        def found() -> list[str]:
            runs = prefect_host.flow_runs(deployment="poll-flow/served-in-one-line")
            failed = [run["state"]["message"] for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
            assert not failed
            return [run["state_name"] for run in runs if run["state_name"] == "Completed: 1 new"]

        assert prefect_host.until("a poll that finds the file", found, 120)
    finally:
        prefect_host.stop("served-in-one-line")
