"""A poll that goes on for ever, and notices a file at once, instead of at the next look.

Use it where half a minute is too long. The directory is watched with inotify where that works, and the run
of a file is made within a fraction of a second; ``query_seconds`` is how soon this process notices it.
``poll_flow`` holds one process while it follows. Its schedule starts it, and is its watchdog: should the poll
be killed, the next run of it takes over. While it lives, that run finds the target taken, and ends at once,
as ``AlreadyPolled``.

Try it: ``prefect server start``, then ``python follow.py``, and once the poll's log says that it
follows (after a minute at most), drop a file into ``POLLER_INBOX`` (default: ``~/inbox``).
"""

from __future__ import annotations

import os
from pathlib import Path

from poller_prefect import poll_flow
from prefect import flow, serve

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)


@flow(log_prints=True)
def load_at_once(path: str, size: int) -> int:
    """What is to be done with a file; here: tell its size."""
    print(f"loading {path}, {size} bytes")
    return size


if __name__ == "__main__":
    serve(
        load_at_once.to_deployment("inbox"),
        poll_flow.to_deployment(
            "follow",
            interval=60,
            parameters={
                "url": str(INBOX),
                "run": "load-at-once/inbox",
                "follow": True,
                "recurse": True,
                "events": ["created"],
            },
        ),
        query_seconds=1,
    )
