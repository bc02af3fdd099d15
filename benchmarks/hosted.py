"""The frame of a benchmark that starts a scheduler: a directory, and an end of all that it started."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .report import note

__all__ = ["hosted"]


def hosted(prefix: str, needs: str, keep: bool, run: Callable[[Path], None]) -> None:
    """Run it in a new directory, which is removed in the end, and say how long it took.

    :param prefix: of the directory's name, which is short: paths of sockets and logs would grow too long.
    :param needs: what it needs Linux for, for the error.
    :param keep: keep the directory, and say where it is.
    """
    if sys.platform != "linux":
        sys.exit(f"the benchmarks need Linux: they {needs}")
    signal.signal(signal.SIGTERM, _ended)
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        run(work)
    finally:
        if keep:
            note(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    note(f"{time.monotonic() - began:.0f} s in all")


def _ended(number: int, frame: object) -> NoReturn:
    # As an exception, so that every process is ended on the way out; asked once more, that goes on.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)
