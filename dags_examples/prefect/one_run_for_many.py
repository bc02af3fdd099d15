"""One run for all files that have come, rather than one for each.

Use it where files come in bursts, or are a second's work each: a run costs a second or more by itself. The
poll has a run made if something waits and no run is on its way; the run takes its events with
``take_batch``, and has the same ones again when it is retried. Each file is in exactly one run. ``batch_for``
has files that belong together come together.

Try it: ``prefect server start``, then ``python one_run_for_many.py``, and once the first poll has completed,
drop some files into ``POLLER_INBOX`` (default: ``~/inbox``).
"""

from __future__ import annotations

import os
from pathlib import Path

from poller_prefect import poll_flow, take_batch
from prefect import flow, serve, task

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)


@task(task_run_name="{key}", retries=2)
def load(key: str, path: str | os.PathLike[str]) -> int:
    """What is to be done with a file; here: count its bytes."""
    return os.stat(path).st_size


@flow(log_prints=True, retries=1)
def load_many() -> dict[str, int]:
    """Works on all files of this run."""
    sizes = {}
    for event in take_batch():
        key = event.key.decode(errors="replace")
        sizes[key] = load(key, event.subject)
    print(f"loaded {len(sizes)} file(s): {sizes}")
    return sizes


if __name__ == "__main__":
    serve(
        load_many.to_deployment("inbox"),
        poll_flow.to_deployment(
            "one-run-for-many",
            interval=30,
            parameters={
                "url": str(INBOX),
                "run": "load-many/inbox",
                "batch": True,
                "batch_for": 10,
                "limit": 500,
                "recurse": True,
                "events": ["created"],
            },
        ),
    )
