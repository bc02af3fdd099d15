"""Running the ``poller`` command: within the test, or as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner, Result

from poller_core.cli import app

ROOT = Path(__file__).parents[2]
#: Nothing that is right takes so long; nothing that is wrong ends sooner.
PATIENCE = 60.0


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.02)


class Cli:
    """The command with one state.

    :param state: its URL.
    :param cwd: where processes are started.
    """

    def __init__(self, state: str, cwd: Path) -> None:
        self.state = state
        self.cwd = cwd

    def __call__(self, *args: object, code: int | None = 0, input: str | None = None) -> Result:
        """Run it in this process."""
        result = CliRunner().invoke(
            app, [str(arg) for arg in args], env={"POLLER_STATE": self.state, "NO_COLOR": "1"}, input=input
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code is None or result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        return result

    def json(self, *args: object, code: int = 0):
        """Run it with ``--json`` and read the document."""
        return json.loads(self(*args, "--json", code=code).stdout)

    def lines(self, *args: object, code: int = 0) -> list[dict]:
        """Run it with ``--json`` and read a document per line."""
        return [json.loads(line) for line in self(*args, "--json", code=code).stdout.splitlines()]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "POLLER_STATE": self.state, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **more}

    @contextmanager
    def process(self, *args: object, **more) -> Iterator[subprocess.Popen]:
        """Run it in a process of its own, which is gone in the end."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
        with subprocess.Popen(
            [sys.executable, "-m", "poller_core.cli", *map(str, args)],
            cwd=self.cwd,
            env=self.environment(),
            **options,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        stream.close()

    def watching(self) -> bool:
        """Whether the one target of the state is watched by somebody who has looked."""
        return any(target["complete"] for target in self.json("status", code=0)["targets"])

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Of each consumer, how far it has read and how much it is behind."""
        (target,) = self.json("status")["targets"]
        return {one["name"]: (one["seq"], one["lag"]) for one in target["consumers"]}


def ends(process: subprocess.Popen, number: signal.Signals | None = None) -> int:
    """Send it a signal, if one is given; how it ends."""
    if number is not None:
        process.send_signal(number)
    return process.wait(PATIENCE)
