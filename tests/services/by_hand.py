"""Services by hand: ``python -m tests.services.NAME`` until Ctrl-C, or ``… -- COMMAND`` as long as that runs.

What to export is printed, and what to try, as lines that a shell can read. However it ends, short of a
``kill -9``, the service ends first, with what it started and what it wrote.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeVar

__all__ = ["EXAMPLES", "Told", "arguments", "by_hand", "chosen", "needs", "tell"]

EXAMPLES = Path(__file__).parent.parent.parent / "dags_examples"

S = TypeVar("S")


class Told(NamedTuple):
    """What is told of a service that has started."""

    exports: Mapping[str, str]  #: variables for those who use it
    hints: Sequence[str]  #: commands to try, and where to look
    check: Callable[[], object]  #: raises a RuntimeError when the service has ended


def arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The service's own arguments, and the command behind ``--``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Ends at Ctrl-C, with all that it started; with -- COMMAND … when that ends, with its status."
    )
    at = list(argv).index("--") if "--" in argv else len(argv)
    return parser.parse_args(argv[:at]), list(argv[at + 1 :])


def needs(module: str, environment: str) -> None:
    """Leave with a message unless this interpreter has a module."""
    if importlib.util.find_spec(module) is None:
        raise SystemExit(f"error: {sys.executable} has no {module}; use {environment}/bin/python")


def chosen(env: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """The variables whose names begin so."""
    return {name: value for name, value in env.items() if name.startswith(prefixes)}


def tell(line: str) -> None:
    """Say what is being done, where nobody takes it for something to run."""
    print(f"# {line}", file=sys.stderr, flush=True)


def by_hand(service: AbstractContextManager[S], told: Callable[[S], Told], command: Sequence[str]) -> int:
    """Start a service, say how it is used, and end it; the exit status.

    :param command: what it is started for; empty: it runs until Ctrl-C.
    """

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    began = time.monotonic()
    # What the command prints is its own: it may be read by another one.
    out = sys.stderr if command else sys.stdout
    with contextlib.suppress(KeyboardInterrupt), service as running:
        exports, hints, check = told(running)
        programs = str(Path(sys.executable).parent)
        print(f'export PATH={shlex.quote(programs)}:"$PATH"', file=out)
        for name, value in exports.items():
            print(f"export {name}={shlex.quote(value)}", file=out)
        print(f"# ready after {time.monotonic() - began:.1f} s", file=out)
        for hint in hints:
            print(f"# {hint}", file=out)
        out.flush()
        if command:
            path = f"{programs}:{os.environ.get('PATH', os.defpath)}"
            return subprocess.call(command, env={**os.environ, **exports, "PATH": path})
        while True:
            try:
                check()
            except RuntimeError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            time.sleep(0.2)
    return 130 if command else 0
