"""What the demos with a scheduler share: an inbox, a home that is removed, and an end at Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from tests.services.processes import HostError, free_port

__all__ = ["EXAMPLES", "console", "go_on", "land", "main", "row", "say"]

console = Console(highlight=False, soft_wrap=True)
EXAMPLES = Path(__file__).parent.parent / "dags_examples"


def say(text: str) -> None:
    """A heading."""
    console.print(f"\n[bold]{text}[/]")


def line(text: str) -> None:
    """A line as it is."""
    console.print(f"    {escape(text)}")


def row(what: str, text: str, colour: str = "green") -> None:
    """A line of what somebody did or said."""
    console.print(f"    [{colour}]{what:6}[/]│ {escape(text)}")


def drop(inbox: Path, name: str) -> Path:
    """A file lands."""
    path = inbox / name
    path.write_text("day,sum\n2026-11-23,42\n")
    row("we", f"wrote {path.name}", "cyan")
    return path


def land(
    host: Any, inbox: Path, made: str, ended: Callable[[], list[Any]], show: Callable[[Any], None]
) -> list[Any]:
    """A file lands, and the run that it starts is shown; the runs that have ended besides.

    :param made: the heading of the run.
    :param ended: the runs that have ended and were not shown yet, oldest first.
    """
    say("3. A file lands")
    drop(inbox, f"sales-{time.strftime('%H%M%S')}.csv")
    began = time.monotonic()
    say(f"4. {made}")
    run, *more = host.until("a run to end", ended, 180)
    took = time.monotonic() - began
    show(run)
    console.print(f"    …     │ {took:.1f} s from the file to the end of the run")
    return more


def go_on(
    host: Any, inbox: Path, more: list[Any], ended: Callable[[], list[Any]], show: Callable[[Any], None]
) -> NoReturn:
    """Say what to try, and show runs as they end."""
    console.print(f"    Drop more:      cp SOMETHING {inbox}/")
    console.print(f"    What it knows:  {poller()} status --state {host.home}/poller/state.db")
    console.print("    Ctrl-C ends it all. Runs are shown here as they end.\n")
    while True:
        for run in [*more, *ended()]:
            show(run)
        more = []
        time.sleep(1)


def main(
    doc: str | None,
    start: str,
    usual: int,
    make: Callable[[Path, Path, int, Callable[[str], None]], Any],
    demo: Callable[[Any, Path, bool], None],
) -> int:
    """Run a demo; the exit status.

    :param doc: what it is.
    :param start: what is told before the services start.
    :param usual: the port of the scheduler's UI.
    :param make: makes the services, of a home, an inbox, a port, and who is told what was done.
    :param demo: shows them, in the inbox; for ever, or once.
    """
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=doc)
    parser.add_argument("--once", action="store_true", help="end after the first run, instead of at Ctrl-C")
    parser.add_argument("--port", type=int, help=f"of the UI (default: {usual}, or any if that is taken)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    home = Path(tempfile.mkdtemp(prefix="poller-demo-"))
    with _inbox() as inbox:
        say(start)
        host = make(home, inbox, options.port or _port(usual), line)
        try:
            with host:
                demo(host, inbox, options.once)
        except KeyboardInterrupt:
            console.print("\nAll services have been stopped.")
        except HostError as error:
            console.print(f"[red]error:[/] {escape(str(error))}")
            console.print(f"The services' logs stay in {host.logs}")
            return 1
    shutil.rmtree(home, ignore_errors=True)
    return 0


@contextlib.contextmanager
def _inbox() -> Iterator[Path]:
    """``./inbox``; what the demo put there is removed in the end, what somebody else did stays."""
    inbox = Path.cwd() / "inbox"
    there = inbox.exists()
    inbox.mkdir(exist_ok=True)
    before = set(inbox.iterdir())
    try:
        yield inbox
    finally:
        for path in set(inbox.iterdir()) - before:
            if path.name.startswith("sales-"):
                path.unlink()
        if not there:
            with contextlib.suppress(OSError):
                inbox.rmdir()


def _port(usual: int) -> int:
    """The usual port, or any that is free."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", usual))
            return usual
    return free_port()


def _leave(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def poller() -> str:
    """The command, as it is called from here."""
    return os.path.relpath(Path(sys.executable).with_name("poller"))
