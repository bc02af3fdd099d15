"""Holders of leases, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poller_core import LeaseHeld, ListingPoller

__all__ = ["PATIENCE", "free", "line", "process"]

ROOT = Path(__file__).parents[2]
#: Nothing that is right takes so long, in seconds.
PATIENCE = 60.0

CHILD = """
import os, sys, time
from poller_core import FilePoller, LeaseHeld

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece: two processes speak

what, place, state, consumer = sys.argv[1:]
with FilePoller(place, state=state, consumer=consumer) as poller:
    try:
        with poller.lease() as lease:
            if what == "fork":
                child = os.fork()
                if not child:
                    say("child", os.getpid(), lease.held())
                    time.sleep(600)
            say("held", os.getpid())
            sys.stdin.readline()
    except LeaseHeld as error:
        say("refused", error)
"""


@contextmanager
def process(
    inbox: Path, state_url: str, what: str = "hold", consumer: str = "me", **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lease and keeps it until a line comes in."""
    command = [sys.executable, "-c", CHILD, what, str(inbox), state_url, consumer]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    return child.stdout.readline().split()


def free(poller: ListingPoller) -> bool:
    try:
        with poller.lease() as lease:
            assert lease.held()
            return True
    except LeaseHeld:
        return False
