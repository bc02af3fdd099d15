"""What everything is measured against: a walk in plain Python that lists and stats, and keeps nothing."""

from __future__ import annotations

import os
import stat
from typing import Any

from .measure import timed

__all__ = ["walk"]


def walk(root: str) -> dict[str, Any]:
    """``os.listdir`` of each directory's descriptor, and a stat relative to it of each name."""
    with timed() as timer:
        names = _walk(root)
    return timer.result(names=names)


def _walk(root: str) -> int:
    count = 0
    waiting = [root]
    while waiting:
        path = waiting.pop()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(fd):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                count += 1
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(f"{path}/{name}")
        finally:
            os.close(fd)
    return count
