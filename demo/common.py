"""What the demos share: an inbox, a home that is removed, what is told, and an end at Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

__all__ = ["EXAMPLES", "Stopped", "console", "go_on", "land", "line", "main", "row", "say", "watched"]

console = Console(highlight=False, soft_wrap=True)
EXAMPLES = Path(__file__).parent.parent / "dags_examples"
#: What the demo itself has put into the inbox.
_ours: list[Path] = []


class Stopped(Exception):
    """The demo can't go on, and says why."""


def say(text: str) -> None:
    """A heading."""
    console.print(f"\n[bold]{text}[/]")


def line(text: str) -> None:
    """A line as it is."""
    console.print(f"    {escape(text)}")


def row(what: str, text: str, colour: str = "green") -> None:
    """A line of what somebody did or said."""
    console.print(f"    [{colour}]{what:6}[/]│ {escape(text)}")


def watched(state: Path) -> bool:
    """Whether the inbox was looked at for the first time: what lands from then on is new."""
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{state}?mode=ro", uri=True)
        try:
            return bool(connection.execute("SELECT 1 FROM poller_consumers").fetchall())
        finally:
            connection.close()
    return False


def drop(inbox: Path, name: str) -> Path:
    """A file lands."""
    path = inbox / name
    _ours.append(path)
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
    drop(inbox, f"sales-{time.strftime('%H%M%S')}-{os.getpid()}.csv")  # its own, if two demos run
    began = time.monotonic()
    say(f"4. {made}")
    run, *more = host.until("a run to end", ended, 180)
    took = time.monotonic() - began
    show(run)
    console.print(f"    …     │ {took:.1f} s from the file to the end of it")
    return more


def go_on(
    host: Any, inbox: Path, more: list[Any], ended: Callable[[], list[Any]], show: Callable[[Any], None]
) -> NoReturn:
    """Say what to try, and show what is done as it ends."""
    console.print(f"    Drop more:      cp SOMETHING {inbox}/")
    console.print(f"    What it knows:  {poller()} status --state {host.home}/poller/state.db")
    console.print("    Ctrl-C ends it all. What is done is shown here as it ends.\n")
    while True:
        for run in [*more, *ended()]:
            show(run)
        more = []
        time.sleep(1)


def main(
    doc: str | None,
    start: str,
    usual: int | None,
    make: Callable[[Path, Path, int, Callable[[str], None]], Any],
    demo: Callable[[Any, Path, bool], None],
    trouble: type[Exception] = Stopped,
) -> int:
    """Run a demo; the exit status.

    :param doc: what it is.
    :param start: what is told before the services start.
    :param usual: the port of the scheduler's UI; None, if there is none.
    :param make: makes the services, of a home, an inbox, a port, and who is told what was done.
    :param demo: shows them, in the inbox; for ever, or once.
    :param trouble: what is raised if a service does not do what it should.
    """
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=doc)
    parser.add_argument("--once", action="store_true", help="end after the first run, instead of at Ctrl-C")
    if usual is not None:
        parser.add_argument("--port", type=int, help=f"of the UI (default: {usual}, or any if that is taken)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    home = Path(tempfile.mkdtemp(prefix="poller-demo-"))
    host = None
    try:
        with _inbox() as inbox:
            say(start)
            port = 0 if usual is None else _port(usual, options.port)
            host = make(home, inbox, port, line)
            with host:
                demo(host, inbox, options.once)
    except KeyboardInterrupt:
        console.print("\nAll services have been stopped.")
    except (Stopped, trouble) as error:
        console.print(f"[red]error:[/] {escape(str(error))}")
        if host is not None:
            console.print(f"The services' logs stay in {host.logs}")
            return 1
        shutil.rmtree(home, ignore_errors=True)
        return 1
    shutil.rmtree(home, ignore_errors=True)
    return 0


@contextlib.contextmanager
def _inbox() -> Iterator[Path]:
    """``./inbox``; what the demo put there is removed in the end, what somebody else did stays."""
    inbox = Path.cwd() / "inbox"
    there = inbox.exists()
    try:
        inbox.mkdir(exist_ok=True)
    except FileExistsError:
        raise Stopped(f"{inbox} is to be watched, and is no directory") from None
    # Shared by the demos that use it: the last one may remove it.
    lock = os.open(inbox, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            line(f"Another demo is running on {inbox}: each of the two has all files that land there.")
        fcntl.flock(lock, fcntl.LOCK_SH)
        if present := len(list(inbox.iterdir())):
            line(f"{inbox} has {present} file(s) already, which count as known, and stay.")
        yield inbox
    finally:
        for path in _ours:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not there:
                inbox.rmdir()
        os.close(lock)


def _port(usual: int, asked: int | None) -> int:
    """The port that is asked for; or the usual one, or any that is free.

    :raises Stopped: if the one that is asked for is not.
    """
    if asked:
        if not _free(asked):
            raise Stopped(f"port {asked} is taken; give another one, or none for any that is free")
        return asked
    if _free(usual):
        return usual
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    line(f"Port {usual} is taken, by another one perhaps: this one's is {port}.")
    return port


def _free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return True
    return False


def _leave(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def poller() -> str:
    """The command, as it is called from here."""
    return os.path.relpath(Path(sys.executable).with_name("poller"))
