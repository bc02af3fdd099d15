"""What is tried in an environment that has the package and nothing else of this checkout.

Run by its own path, with ``-I``; prints JSON, a line each.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import poller_core
from poller_core import PollerError, make_poller


def where() -> None:
    """The package that is imported, and what knows its types."""
    folder = os.path.dirname(poller_core.__file__)
    print(json.dumps([poller_core.__version__, folder, sys.prefix]))


def look(target: str, state: str, then: str = "") -> None:
    """What is new, with its content; ``killed`` before it is acknowledged, if so."""
    with make_poller(target, state=state, consumer="probe") as poller, poller.next_batch() as batch:
        for event in batch:
            with poller.open(event) if event.container else open(event.subject.path, "rb") as file:
                content = file.read().decode()
            row = {"id": event.id, "event": event.event, "key": event.key.decode(), "content": content}
            print(json.dumps(row), flush=True)
        if then == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def refused(target: str, state: str) -> None:
    """What is said where something is not installed."""
    try:
        make_poller(target, state=state).close()
    except PollerError as error:
        print(json.dumps(str(error)))
    else:
        sys.exit(f"{target} was let in")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
