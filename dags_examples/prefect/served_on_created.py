"""A deployment that runs on new files by a trigger of its own; the poller knows nothing of it.

Use it where who polls and who works on files are not the same people, or where several deployments run on
the same files: each has a trigger, and each runs for every file. ``poll_flow`` emits an event per file, an
automation of Prefect's starts the run, and the poll waits until it has. Prefect may start a run twice;
``take_event`` sees to it that one of the two has the file, and the other ends as ``AlreadyTaken``.

Try it: ``prefect server start``, then ``python served_on_created.py``, and once the first poll has completed,
drop a file into ``POLLER_INBOX`` (default: ``~/inbox``).
"""

from __future__ import annotations

import os
from pathlib import Path

from poller_prefect import on_created, poll_flow, take_event
from prefect import flow, serve

INBOX = Path(os.environ.get("POLLER_INBOX") or Path.home() / "inbox")
INBOX.mkdir(parents=True, exist_ok=True)


@flow(log_prints=True)
def load_created(event_id: str) -> int:
    """What is to be done with a file; here: count its bytes."""
    with take_event(event_id) as event:
        size = os.stat(event.subject).st_size
        print(f"loading {event.subject}, {size} bytes")
        return size


if __name__ == "__main__":
    serve(
        load_created.to_deployment("inbox", triggers=[on_created(INBOX, name="inbox: load what is new")]),
        poll_flow.to_deployment(
            "served-on-created",
            interval=30,
            parameters={
                "url": str(INBOX),
                "recurse": True,
                "events": ["created"],
            },
        ),
    )
