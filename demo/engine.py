"""The demo: an inbox, a watcher, files that land, a ``kill -9`` in the middle; events and state.

Everything happens in a new temporary directory, which is removed at the end;
everything that runs is the real thing. Takes some fifteen seconds, asks nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
POLLER = [str(Path(sys.executable).parent / "poller")]


class Watcher:
    """A ``poller watch`` in a process of its own, whose lines are shown as they come."""

    def __init__(self, inbox: Path, state: Path) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*POLLER, "watch", str(inbox), "--recurse", "--state", str(state), "--interval", "5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            console.print(f"    [green]watcher {self.process.pid}[/] │ {line.rstrip()}", markup=True)

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Wait until it has said something; the demo fails, and says so, if it does not."""
        end = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f"the watcher did not report {text!r} within {seconds:.0f} s")
            time.sleep(0.02)

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(20)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


def say(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def do(text: str) -> None:
    console.print(f"    [cyan]we[/] │ {text}")


def run(inbox: Path, state: Path) -> None:
    say("1. A watcher starts on an empty inbox")
    console.print(f"    $ poller watch {inbox} --recurse --state {state}")
    watcher = Watcher(inbox, state)
    watcher.wait_for("first look")

    say("2. A file lands, and is reported")
    do("write sales.csv")
    (inbox / "sales.csv").write_text("day,sum\n2026-11-23,42\n")
    watcher.wait_for("sales.csv")

    say("3. A file that is written slowly is reported once it is complete, not before")
    do("open slow.csv, and write the first half")
    with open(inbox / "slow.csv", "w") as file:
        file.write("first half\n")
        file.flush()
        time.sleep(1.5)
        if any("slow.csv" in line for line in watcher.lines):
            sys.exit("slow.csv was reported half-written")
        do("… 1.5 seconds later: nothing was reported; write the second half, and close it")
        file.write("second half\n")
    watcher.wait_for("slow.csv")

    say("4. A directory tree that is made and filled in one go")
    do("mkdir -p 2026/11/23, and a file in it; and upload.part, renamed to upload.bin")
    (inbox / "2026/11/23").mkdir(parents=True)
    (inbox / "2026/11/23/deep.csv").write_text("x\n")
    (inbox / "upload.part").write_text("x\n")
    (inbox / "upload.part").rename(inbox / "upload.bin")
    watcher.wait_for("deep.csv")
    watcher.wait_for("upload.bin")

    say("5. The watcher is killed, and files go on landing")
    watcher.end(signal.SIGKILL)
    do(f"kill -9 {watcher.process.pid}")
    do("write missed-1.csv to missed-3.csv, change sales.csv, delete slow.csv")
    for number in (1, 2, 3):
        (inbox / f"missed-{number}.csv").write_text("x\n")
    with open(inbox / "sales.csv", "a") as file:
        file.write("2026-11-24,43\n")
    (inbox / "slow.csv").unlink()

    say("6. Started again, it reports what it missed")
    watcher = Watcher(inbox, state)
    for text in ("missed-1.csv", "missed-2.csv", "missed-3.csv", "sales.csv", "slow.csv"):
        watcher.wait_for(text)
    time.sleep(0.5)
    watcher.end(signal.SIGINT)

    say("7. The state, and the journal")
    for command in (["status", str(inbox)], ["events", str(inbox)]):
        console.print(f"    $ poller {' '.join(command)} --recurse --state {state}")
        subprocess.run([*POLLER, *command, "--recurse", "--state", str(state)], check=True)
    subprocess.run([*POLLER, "check", "--state", str(state)], check=True)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="poller-demo-"))
    inbox = folder / "inbox"
    inbox.mkdir()
    try:
        run(inbox, folder / "state.db")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    poller = os.path.relpath(Path(sys.executable).parent / "poller")
    say("That was it. On a directory of your own:")
    console.print(f"    {poller} watch DIRECTORY --recurse           # what lands, as it lands")
    console.print(f"    {poller} watch DIRECTORY --exec 'wc -c {{path}}'   # a command per file")
    console.print(f"    {poller} doctor DIRECTORY                    # what this machine allows")
    console.print(f"    {poller} --help")


if __name__ == "__main__":
    main()
