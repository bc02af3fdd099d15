"""Airflow and Prefect in one environment: neither adapter gets in the other's way.

That each works there is shown by tests of theirs that "make test-both" runs besides.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

BIN = Path(sys.executable).parent


def run(*command: str, **environ: str) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        env={"PATH": "/usr/bin:/bin", **environ},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_both_are_found_by_their_hosts(tmp_path):
    assert entry_points(group="prefect.collections")["poller"].load().__name__ == "poller_prefect"
    home = str(tmp_path / "airflow")
    told = run(
        str(BIN / "airflow"), "providers", "get", "poller-core", "--full", "-o", "json", AIRFLOW_HOME=home
    )
    assert "poller_airflow" in told


def test_both_work_in_one_process(tmp_path):
    """Imports, a poller and a trigger of each, in whatever order."""
    code = f"""
import sys
first, second = sys.argv[1:]
__import__(first), __import__(second)
import poller_airflow, poller_prefect
asset = poller_airflow.poller_asset("inbox", {str(tmp_path)!r})
trigger = poller_prefect.on_created({str(tmp_path)!r})
print(asset.name, sorted(trigger.expect))
"""
    environ = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "PREFECT_HOME": str(tmp_path / "prefect")}
    for order in (("poller_airflow", "poller_prefect"), ("poller_prefect", "poller_airflow")):
        told = run(sys.executable, "-W", "error::ImportWarning", "-c", code, *order, **environ)
        assert "inbox ['poller.subject.created']" in told
