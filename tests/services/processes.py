"""Processes of a service that tests start, kill, start again and end: what the hosts of schedulers share.

Each is the leader of a session and a process group of its own, and is ended with the whole group, by
its id. What left its group (Prefect's worker, for one, puts flow runs into sessions of their own) is
known by a variable that all of them inherit, and :meth:`Processes.down` ends that too. Not found is
only what has left its group and thrown its environment away.

Should this process end without having called it, killed or not, a guard does the same: a process that
does nothing but wait for that. It is this module, run as a script.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

__all__ = ["Ended", "HostError", "Processes", "free_port"]

_MARK = "POLLER_TEST_PROCESSES"

#: What nohup, or the background of a script, has ignored is ignored in every process below.
_USUAL = ["env", "--default-signal=INT,HUP"]


class HostError(RuntimeError):
    """A service did not do what it should."""


class Ended(HostError):
    """A process that should be running is not: there is nothing to wait for any more."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Processes:
    """Processes by name, each with a log.

    :param logs: the directory of the logs, which is made.
    :param env: the variables of all of them; may be filled in later.
    :param say: called with a line whenever something was done.
    """

    #: What :meth:`until` takes for "not yet".
    passing: ClassVar[tuple[type[Exception], ...]] = (HostError, KeyError, IndexError)

    def __init__(self, logs: Path, env: Mapping[str, str], say: Callable[[str], None] | None = None) -> None:
        self.logs = logs
        self.logs.mkdir(parents=True, exist_ok=True)
        self._mark = secrets.token_hex(8)
        # Behind those of hosts in which this process may be running itself.
        self.env = {**env, _MARK: f"{env.get(_MARK, '')} {self._mark}"}
        self._say = say or (lambda line: None)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def launch(
        self, name: str, argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        """Start a process; its id. What it writes is added to the log of that name.

        :param env: more variables, for it alone.
        :raises HostError: if one of that name is running.
        """
        if self.alive(name):
            raise HostError(f"there is a {name} already")
        if self._guard is None:
            # Its input ends when this process does, whatever the reason.
            self._guard = subprocess.Popen(
                [sys.executable, "-I", __file__, self._mark],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        with open(self.logs / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [*_USUAL, *argv],
                cwd=cwd,
                env={**self.env, **(env or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._running[name] = process
        self._tell(str(process.pid))
        return process.pid

    def _tell(self, line: str) -> None:
        """Tell the guard of a group that is there, or, with a minus, that is no more."""
        assert self._guard is not None
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()

    def alive(self, name: str) -> bool:
        """Whether a process of that name was started and has not ended."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def check(self, *names: str) -> None:
        """See that these (or all) are running.

        :raises Ended: with the end of its log, if one is not.
        """
        for name in names or tuple(self._running):
            process = self._running.get(name)
            if process is None:
                raise Ended(f"there is no {name}")
            if process.poll() is not None:
                raise Ended(f"the {name} ended with {process.returncode}:\n{self.log(name)[-3000:]}")

    def kill(self, name: str) -> None:
        """End a process and its group at once, as a crash would: no goodbye to anybody."""
        process = self._running.pop(name)
        _signal(process, signal.SIGKILL)
        process.wait(10)
        self._tell(f"-{process.pid}")

    def stop(self, name: str, timeout: float = 30) -> int:
        """Ask a process and its group to end, and wait for it; its status.

        :raises HostError: if it does not end in time; it is killed then.
        """
        process = self._running.pop(name)
        try:
            _signal(process, signal.SIGTERM)
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise HostError(f"the {name} was asked to end and did not in {timeout:.0f} s") from None
        finally:
            _signal(process, signal.SIGKILL)
            process.wait(10)
            self._tell(f"-{process.pid}")

    def pid(self, name: str) -> int:
        """The process id."""
        return self._running[name].pid

    def log(self, name: str) -> str:
        """What a process wrote so far, all of that name together."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def down(self) -> None:
        """End everything that was started, and what that has left behind."""
        running, self._running = dict(self._running), {}
        self._end(running.values())
        if self._guard is not None:
            guard, self._guard = self._guard, None
            guard.communicate(b"now\n")

    @staticmethod
    def _end(processes: Any, timeout: float = 15) -> None:
        """Ask some to end, all at once, and kill what does not."""
        processes = list(processes)
        for process in processes:
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + timeout
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            # Also what it left behind: the group is its own.
            _signal(process, signal.SIGKILL)
            process.wait(10)

    def until(self, what: str, condition: Callable[[], Any], timeout: float = 120) -> Any:
        """Wait for something to be so; what the condition gave.

        :raises HostError: if it is not so in time.
        :raises Ended: at once, if the condition does.
        """
        end, last = time.monotonic() + timeout, None
        while time.monotonic() < end:
            try:
                found = condition()
                if found:
                    return found
            except Ended:
                raise
            except self.passing as error:
                last = error
            time.sleep(0.3)
        raise HostError(f"waited {timeout:.0f} s for {what} ({last!r}); see {self.logs}")


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _sweep(mark: str, groups: set[int], patience: float) -> None:
    """End whatever has this mark or is in these groups; kill what does not end in so many seconds."""

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                # One that calls itself something else, as Airflow's API server, has no environment.
                if os.getpgid(process.pid) in groups or mark in process.environ().get(_MARK, "").split():
                    found.append(process)
        return found

    for end in (psutil.Process.terminate, psutil.Process.kill):
        processes = left()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                end(process)
        psutil.wait_procs(processes, timeout=patience)


def _watch() -> tuple[set[int], bool]:
    """Hear of groups until there is nobody to tell of them; which there are then, and whether it was said."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line == "now\n":
            return groups, True
        number = int(line)
        if number > 0:
            groups.add(number)
        else:
            groups.discard(-number)
    return groups, False


if __name__ == "__main__":
    # A forked process may hold the other end too: then there is no end of it, but a line from "down", when
    # whatever listens has been asked already.
    _groups, _said = _watch()
    _sweep(sys.argv[1], _groups, patience=2 if _said else 10)
