"""One flow run for each new object in a container of OpenStack Swift.

The credentials are in a block, made once, in the UI (after ``prefect block register -m poller_prefect``) or
so::

    from poller_prefect import SwiftCredentials

    SwiftCredentials(
        auth_url="https://keystone.example.org:5000/v3", username="alice", password="…", project_name="demo"
    ).save("poller-swift")

Only the block's name is in a parameter. ``POLLER_CONTAINER`` names the container (default: ``inbox``). A
container can't tell of changes, so it is listed at each poll, which costs a request per 10,000 objects.

Try it: ``prefect server start``, then ``python swift_container.py``, and once the first poll has completed,
upload an object.
"""

from __future__ import annotations

import os
from typing import Any

from poller_prefect import SwiftCredentials, poll_flow, take_event
from prefect import flow, serve

from poller_core import make_poller

CREDENTIALS = "poller-swift"
URL = f"swift://?{os.environ.get('POLLER_CONTAINER') or 'inbox'}"  # which Keystone says the block


@flow(log_prints=True)
def load_object(event_id: str) -> int:
    """Fetches the object, with the credentials of the block."""
    block: Any = SwiftCredentials.load(CREDENTIALS)
    with take_event(event_id) as event, make_poller(URL, **block.options()) as poller:
        with poller.open(event) as file:
            size = len(file.read())
        print(f"loading {event.name}, {size} bytes")
        return size


if __name__ == "__main__":
    serve(
        load_object.to_deployment("container"),
        poll_flow.to_deployment(
            "swift-container",
            interval=60,
            parameters={
                "url": URL,
                "credentials": CREDENTIALS,
                "run": "load-object/container",
                "events": ["created"],
            },
        ),
    )
