"""Whether Prefect, as it is installed, makes runs by a schedule: in the example a poll is due every 30 s.

Run by ``matrix.py`` in the environment that is tried, in a directory with copies of what it needs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.services.prefect_host import PrefectHost

EXAMPLE = Path.cwd() / "dags_examples" / "prefect" / "run_per_file.py"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="poller-test-pf-") as folder:
        inbox = Path(folder) / "inbox"
        inbox.mkdir()
        with PrefectHost(Path(folder) / "home", environ={"POLLER_INBOX": str(inbox)}) as host:

            def completed(deployment: str) -> bool:
                host.check()
                runs = host.flow_runs(deployment=deployment)
                return any(run["state_type"] == "COMPLETED" for run in runs)

            host.python(EXAMPLE, name="example")
            host.until("the first poll by the schedule", lambda: completed("poll-flow/run-per-file"), 120)
            (inbox / "new.csv").write_text("a,b\n")
            host.until("the run for the file", lambda: completed("load-file/inbox"), 120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
