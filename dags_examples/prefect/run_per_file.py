"""One flow run for each new file, made by the poller itself; the one to begin with.

Use this unless you have a reason not to. ``poll_flow`` looks every 30 seconds, and has one run of
``load-file/inbox`` made for each file: exactly one, whatever is killed when. A run gets what it has
parameters for: ``path``, ``size``, ``event_id`` and others. It may be retried, seen and cancelled by itself.

Try it: ``prefect server start``, then ``python run_per_file.py``, and once the first poll has completed, drop
a file into ``POLLER_INBOX`` (default: ``~/inbox``). What was there before counts as known, unless you add
``"existing": "report"``.
"""

from __future__ import annotations

import os
from pathlib import Path

from poller_prefect import poll_flow
from prefect import flow, serve

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)


@flow(log_prints=True, retries=2, retry_delay_seconds=10)
def load_file(path: str) -> int:
    """What is to be done with a file; here: count its bytes."""
    size = Path(path).stat().st_size
    print(f"loading {path}, {size} bytes")
    return size


if __name__ == "__main__":
    serve(
        load_file.to_deployment("inbox"),
        poll_flow.to_deployment(
            "run-per-file",
            interval=30,
            parameters={
                "url": str(INBOX),
                "run": "load-file/inbox",
                "recurse": True,
                "events": ["created"],
            },
        ),
    )
