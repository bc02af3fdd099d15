"""The demo: a Python program works on the files that land in ``./inbox``; no scheduler, no server.

The program is a dozen lines, and is shown. It is a process of its own, on ``./inbox`` in this checkout, with
its state in a temporary directory, which is removed at the end. Ends at Ctrl-C, with all that it started.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from demo.common import Stopped, console, go_on, land, line, main, row, say, watched

PROGRAM = """\
import asyncio, sys
from poller_core import make_poller

def work(event):  # on one file
    print(event.id, event.event, event.subject.path, f"{event.size} bytes", flush=True)

async def main(inbox, state):
    with make_poller(inbox, recurse=True, events=["created"], state=state, consumer="demo") as poller:
        async for batch in poller.batches(interval=30):  # at once when a file lands
            for event in batch:
                await asyncio.to_thread(work, event)
            await batch.ack()  # killed before this, it has the same events again, with the same ids

asyncio.run(main(*sys.argv[1:]))
"""


class Program:
    """The program, as a process.

    :param home: for its text, its state and its log.
    """

    def __init__(self, home: Path, inbox: Path) -> None:
        self.home = self.logs = home
        self.inbox = inbox
        self.state = home / "poller" / "state.db"
        self.log = home / "program.log"

    def __enter__(self) -> Self:
        self.state.parent.mkdir()
        path = self.home / "program.py"
        path.write_text(PROGRAM)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(path), str(self.inbox), str(self.state)], stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def lines(self) -> list[str]:
        """What it has printed.

        :raises Stopped: if it has ended.
        """
        if self.process.poll() is not None:
            raise Stopped(f"the program ended with {self.process.returncode}:\n{self.log.read_text()}")
        return [one for one in self.log.read_text().splitlines(keepends=True) if one.endswith("\n")]

    def until(self, what: str, condition: Callable[[], Any], timeout: float) -> Any:
        """Wait for something to be so; what the condition gave."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if found := condition():
                return found
            self.lines()
            time.sleep(0.02)
        raise Stopped(f"waited {timeout:.0f} s for {what}")


def ended(host: Program, known: list[str]) -> list[str]:
    """The lines that were not shown yet."""
    new = host.lines()[len(known) :]
    known.extend(new)
    return new


def show(text: str) -> None:
    """What the program has printed."""
    row("done", text.rstrip())


def demo(host: Program, inbox: Path, once: bool) -> None:
    known: list[str] = []
    new = partial(ended, host, known)
    for text in PROGRAM.splitlines():
        line(f"  {text}")
    say("2. The inbox is watched")
    host.until("the inbox to be watched", lambda: watched(host.state), 60)
    console.print(f"    {inbox}")
    more = land(host, inbox, "The program works on it", new, show)
    if once:
        return
    say("5. Now you")
    console.print(f"    The program:    {host.home}/program.py")
    go_on(host, inbox, more, new, show)


def make(home: Path, inbox: Path, port: int, told: Callable[[str], None]) -> Program:
    return Program(home, inbox)


if __name__ == "__main__":
    sys.exit(main(__doc__, "1. A Python program starts", None, make, demo))
