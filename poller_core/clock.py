"""The clocks that the engine reads, handed in so that a test can step them.

The wall clock says *when* something happened, for people and for comparison
with timestamps of files; it may jump. The monotonic clock says *how long*
something took; it never jumps, and means something only to processes that have
its origin in common.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

__all__ = ["Clock"]


class Clock:
    """The clocks of this machine."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; may jump either way."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def origin(self) -> str | None:
        """What :meth:`monotonic` counts from: equal for processes whose readings can be compared.

        On Linux that is one start of one machine (``boot_id``), and one time namespace (see
        ``time_namespaces(7)``). None: it is not known, and no reading means anything to another process.
        """
        return _origin()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)


@functools.cache
def _origin() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    try:
        namespace = os.readlink("/proc/self/ns/time")
    except FileNotFoundError:
        namespace = ""  # a kernel before 5.6 has none
    except OSError:
        return None
    return f"{boot} {namespace}"
