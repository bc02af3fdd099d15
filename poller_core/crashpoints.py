"""Named places at which a test can end the process, as ``kill -9`` would.

Every write of the engine is framed by :func:`crash_point` calls. They do
nothing unless the environment variable ``POLLER_CRASH_AT`` names one of them,
as ``name`` or ``name:n`` for the n-th time that it is passed; the process then
ends at once with exit code 137, without any clean-up. The names stand in the
text of the code only; ``grep -rn crash_point poller_core`` lists them.
"""

from __future__ import annotations

import os

__all__ = ["crash_point"]

_name, _, _times = os.environ.get("POLLER_CRASH_AT", "").partition(":")
_left = int(_times or 1) if _name else 0


def crash_point(name: str) -> None:
    """End the process here, if the environment asked for it by this name."""
    global _left
    if _left and name == _name:
        _left -= 1
        if not _left:
            os._exit(137)
