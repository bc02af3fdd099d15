"""The demo without a scheduler does what it says, and what the demos share leaves everything as it was."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo.common import Stopped, _port
from tests.cli.tools import eventually
from tests.pageshell import ROOT


def start(folder: Path, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), "COLUMNS": "200"}
    (folder / "tmp").mkdir(exist_ok=True)
    with open(log, "w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "demo.python", *arguments],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=output,
        )


def test_once(tmp_path):
    log = tmp_path / "log"
    with start(tmp_path, "--once", log=log) as process:
        assert process.wait(60) == 0, log.read_text()
    assert "created" in log.read_text().split("4. ")[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "tmp"]
    assert not list((tmp_path / "tmp").iterdir())


def test_two_at_a_time(tmp_path):
    """Each has the file that is dropped by hand, which stays; so does the inbox, until the last one ends."""
    logs = [tmp_path / "one", tmp_path / "two"]
    inbox = tmp_path / "inbox"
    with start(tmp_path, log=logs[0]) as one:
        try:
            eventually(lambda: "5. Now you" in logs[0].read_text(), "the first one")
            with start(tmp_path, log=logs[1]) as two:
                try:
                    eventually(lambda: "5. Now you" in logs[1].read_text(), "the second one")
                    assert "Another demo is running" in logs[1].read_text()
                    (inbox / "mine.csv").write_text("a\n")
                    for log in logs:
                        eventually(lambda log=log: "mine.csv" in log.read_text(), "my file")  # type: ignore[misc]
                    one.send_signal(signal.SIGTERM)
                    assert one.wait(60) == 0
                    # What the second one has put there is still there, and that is what it watches.
                    names = {path.name for path in inbox.iterdir()}
                    assert "mine.csv" in names
                    assert len(names) == 2
                    (inbox / "more.csv").write_text("a\n")
                    eventually(lambda: "more.csv" in logs[1].read_text(), "more")
                    two.send_signal(signal.SIGTERM)
                    assert two.wait(60) == 0
                finally:
                    two.kill()
        finally:
            one.kill()
    assert {path.name for path in inbox.iterdir()} == {"mine.csv", "more.csv"}


def test_what_is_in_the_way_is_told(tmp_path):
    (tmp_path / "inbox").touch()
    with start(tmp_path, "--once", log=tmp_path / "log") as process:
        assert process.wait(60) == 1
    assert "no directory" in (tmp_path / "log").read_text()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_port_that_is_taken(capsys):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = sock.getsockname()[1]
        with pytest.raises(Stopped, match=f"port {taken} is taken"):
            _port(1, taken)
        assert _port(taken, None) != taken
        assert f"Port {taken} is taken" in capsys.readouterr().out
