"""``Lease``: that one poller at a time works for a consumer, wherever the others run.

Guarantees: of all that share a state, one at most has the lease of a target and
consumer. It is free as soon as its holder ends, even if it is killed: nothing is
stored, so nothing has to expire.

Does not guarantee correctness; that hangs on something else. A holder that has
lost its lease unknowingly (its connection broke) works on, beside the next one.
Then the generation number turns away the slower look, and what was acknowledged
is acknowledged: work is done twice at worst, and no event is lost.
"""

from __future__ import annotations

import threading
import time

from .errors import LeaseHeld, PollerClosed
from .options import seconds
from .state.leases import LeaseLock

__all__ = ["Lease", "take_lease"]

#: Seconds between two tries, from the first on; then longer and longer.
_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


class Lease:
    """What :meth:`poller_core.ListingPoller.lease` gives."""

    def __init__(self, lock: LeaseLock) -> None:
        self._lock = lock

    def held(self) -> bool:
        """Whether it still is this one's; asks the kernel or the server, and never raises.

        False after the end of the block, in a forked child, and when the connection to
        PostgreSQL was lost, or can't be used now.
        """
        return self._lock.held()

    def release(self) -> None:
        """Let it go before the end of the block; again does nothing."""
        self._lock.release()


def take_lease(lock: LeaseLock, wait: object, ended: threading.Event, what: str) -> Lease:
    """Take a lease, and wait for it if need be.

    :param wait: for so many seconds, or a ``timedelta``; ``math.inf``: for ever.
    :param ended: set when nobody wants it any more.
    :param what: who does what, for the error.
    :raises LeaseHeld: if another one still has it then.
    :raises PollerClosed: if ``ended`` was set.
    """
    patience = seconds("wait", wait, endless=True)
    end = time.monotonic() + patience
    pause = _PAUSE
    try:
        while not lock.take():
            left = end - time.monotonic()
            if left <= 0:
                holder = lock.holder()
                raise LeaseHeld(
                    f"{what} already has a poller{f' ({holder})' if holder else ''}. One is enough, so this "
                    "one can simply end; or give wait=, to take over when that one ends"
                )
            if ended.wait(min(pause, left)):
                raise PollerClosed(f"{what}: the poller was closed while it waited for the lease")
            pause = min(2 * pause, _LONGEST_PAUSE)
    except BaseException:
        lock.release()
        raise
    return Lease(lock)
