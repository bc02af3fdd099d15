"""A process that makes files, at a pace or as fast as it can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

__all__ = ["start"]


def start(directory: str, count: int, rate: float) -> subprocess.Popen[str]:
    """Begin to make files; once it ends, its output is the moment of each one's closing, in ns.

    :param rate: files a second; 0: as fast as can be.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.writer", directory, str(count), str(rate)],
        stdout=subprocess.PIPE,
        text=True,
    )


def _write(directory: str, count: int, rate: float) -> list[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    closed = []
    began = time.monotonic()
    for number in range(count):
        if rate:
            pause = began + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
        file = os.open(f"{number:07d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
        os.write(file, b"x" * 64)
        closed.append(time.monotonic_ns())  # before the closing: that is part of the way, too
        os.close(file)
    return closed


if __name__ == "__main__":
    print(json.dumps(_write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
