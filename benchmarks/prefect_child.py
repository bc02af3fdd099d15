"""One way, one process: with the server's variables, and beside it who sees what comes of it.

Run as a program (``python -m benchmarks.prefect_child function '{"its": "arguments"}'``) this
module is the inside of such a process, and calls a function of :mod:`benchmarks.prefect_ways`.
"""

from __future__ import annotations

import importlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.services.prefect_host import HostError, PrefectHost

__all__ = ["ROOT", "Seen", "argv", "run"]

ROOT = Path(__file__).parent.parent
_LONGEST = 1800


def argv(function: str, **arguments: Any) -> list[str]:
    """The command that calls it."""
    return [sys.executable, "-m", "benchmarks.prefect_child", function, json.dumps(arguments)]


def run(host: PrefectHost, function: str, **arguments: Any) -> dict[str, Any]:
    """Call it in a process of its own, to the end; what it told in the last line it wrote.

    :raises HostError: with what it wrote, if it failed.
    """
    done = subprocess.run(
        argv(function, **arguments),
        cwd=ROOT,
        env=host.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    if done.returncode:
        raise HostError(f"{function} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Seen:
    """Counts, while it is entered, what is stored: many times a second, in the server's database itself.

    So what is measured is when something was there, whoever asks for it, and the server is not kept
    busy with being asked. Its SQLite lets others read while it writes.

    :param query: gives one number.
    """

    _EVERY = 0.05

    def __init__(self, host: PrefectHost, query: str, *arguments: str) -> None:
        self._database = f"file:{host.home}/prefect.db?mode=ro"
        self._query, self._arguments = query, arguments
        self._steps: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @classmethod
    def events(cls, host: PrefectHost, inbox: Path) -> Seen:
        """Of events: those of the files of a directory."""
        first = f"poller.subject.file://{inbox}/"
        return cls(
            host,
            "SELECT count(*) FROM events WHERE event = 'poller.subject.created' "
            "AND resource_id >= ? AND resource_id < ?",
            first,
            first[:-1] + "0",  # what comes after the slash
        )

    @classmethod
    def runs(cls, host: PrefectHost, deployment: str) -> Seen:
        """Of flow runs: those of a deployment."""
        return cls(
            host,
            "SELECT count(*) FROM flow_run AS run JOIN deployment ON deployment.id = run.deployment_id "
            "WHERE deployment.name = ?",
            deployment,
        )

    def __enter__(self) -> Seen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def count(self) -> int:
        """How many there are by now."""
        return self._steps[-1][1] if self._steps else 0

    def reached(self, count: int) -> float | None:
        """When there were so many, as ``time.time()``; None: never."""
        return next((moment for moment, there in self._steps if there >= count), None)

    def settle(self, count: int, silence: float) -> int:
        """Wait until there are so many, or nothing more comes for so many seconds; how many came."""
        since = time.time()
        while self.count < count:
            last = self._steps[-1][0] if self._steps else 0.0
            if time.time() - max(since, last) > silence:
                break
            time.sleep(self._EVERY)
        return self.count

    def _look(self) -> None:
        connection = sqlite3.connect(self._database, uri=True, timeout=30)
        try:
            while not self._ended.wait(self._EVERY):
                (count,) = connection.execute(self._query, self._arguments).fetchone()
                if count > self.count:
                    self._steps.append((time.time(), count))
        finally:
            connection.close()


def _main() -> None:
    ways = importlib.import_module("benchmarks.prefect_ways")
    told = getattr(ways, sys.argv[1])(**json.loads(sys.argv[2]))
    print("\n" + json.dumps(told), flush=True)


if __name__ == "__main__":
    _main()
