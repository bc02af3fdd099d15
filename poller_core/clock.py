"""The clocks that the engine reads, handed in so that a test can step them.

The wall clock says *when* something happened, for people and for comparison
with timestamps of files; it may jump. The monotonic clock says *how long*
something took; it never jumps, and means nothing to another process.
"""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """The clocks of this machine."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; may jump either way."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)
