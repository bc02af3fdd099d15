"""Packages as a user gets them: made here, installed where there is nothing else of this checkout."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).with_name("probe.py")
#: What would change what is installed, or what the installed program does.
_OTHERS = ("PYTHON", "VIRTUAL_ENV", "POLLER_", "OS_", "ST_", "AIRFLOW", "PREFECT_")
_PATIENCE = 600.0


def make(out: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Make wheel and source distribution of a source tree; their paths."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=_PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def pins(lock: Path) -> str:
    """What a lock pins, as constraints for packages that have no hash there."""
    found = re.findall(
        r"^([\w.-]+)(?:\[[^\]]*\])?(==[^\s;]+(?: ; [^\\\n]*)?)", lock.read_text(), re.MULTILINE
    )
    return "".join(f"{name}{version}\n" for name, version in found)


class Failed(AssertionError):
    """A command did not end as it should."""


class Clean:
    """A virtual environment of its own, and a directory to work in.

    :param where: a directory for both, which is made.
    :param python: the interpreter that it is made of.
    """

    def __init__(self, where: Path, python: str = sys.executable) -> None:
        self.work = where / "work"
        self.work.mkdir(parents=True)
        self.bin = where / "env" / "bin"
        self.run(python, "-m", "venv", where / "env")

    def run(
        self,
        *command: object,
        cwd: Path | None = None,
        status: int | None = 0,
        environ: Mapping[str, str] = {},
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        :param command: the first word is looked for in the environment.
        :param status: how it has to end; None: anyhow.
        """
        words = [str(word) for word in command]
        if (beside := self.bin / words[0]).exists():
            words[0] = str(beside)
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
        env |= {"NO_COLOR": "1", "COLUMNS": "200", **environ}
        done = subprocess.run(
            words, cwd=cwd or self.work, env=env, capture_output=True, text=True, timeout=_PATIENCE
        )
        if status is not None and done.returncode != status:
            shown = done.stdout[-4000:] + done.stderr[-4000:]
            raise Failed(f"{' '.join(words)} ended with {done.returncode}:\n{shown}")
        return done

    def pip(self, *args: object) -> str:
        """Run pip."""
        return self.run("python", "-m", "pip", "--disable-pip-version-check", *args).stdout

    def probe(
        self, name: str, *args: object, status: int | None = 0, environ: Mapping[str, str] = {}
    ) -> list[Any]:
        """Run one of the functions of ``probe.py`` there; what it printed, as JSON lines."""
        # Isolated, so that nothing beside the script can be imported.
        done = self.run("python", "-I", PROBE, name, *args, status=status, environ=environ)
        return [json.loads(line) for line in done.stdout.splitlines()]


def tell_and_tell_again(
    env: Clean, target: str, state: str, land: Callable[[str, bytes], Any], environ: Mapping[str, str] = {}
) -> None:
    """What was there is not told; what lands then is told again to who was killed, and to no other."""
    land("there.csv", b"before")
    assert env.probe("look", target, state, environ=environ) == []
    land("new.csv", b"a,b\n1,2\n")
    killed = env.probe("look", target, state, "killed", status=-signal.SIGKILL, environ=environ)
    assert [(event["event"], event["key"], event["content"]) for event in killed] == [
        ("created", "new.csv", "a,b\n1,2\n")
    ]
    assert env.probe("look", target, state, environ=environ) == killed
    assert env.probe("look", target, state, environ=environ) == []
