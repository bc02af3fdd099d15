"""How often Prefect's server is asked what has arrived.

Each question costs the server as much as storing several events. So it is asked when
something should be there, by how fast things came so far; and less and less often while
nothing comes.

Guarantees: a pause is never shorter than 0.1 seconds, nor longer than 1. Pure: the clock
is handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

#: Seconds between two looks at what has arrived: as long as it should take, but in these bounds.
_SHORTEST, _LONGEST = 0.1, 1.0
#: The first one at least, as long as nothing is known of how long it takes.
_FIRST = 0.3
#: What a server with SQLite stores in a second, about.
_USUAL_RATE = 500


class Pace:
    """When it is worth looking again. One is for what is on its way from when nothing was until nothing is.

    :param now: the monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._seen = 0
        self._arrived, self._missing = 0, 0
        self.sent = False  #: whether something was sent just now, of which nothing can be there yet
        self.confirmed = 0  #: how many events are confirmed, since there was nothing on its way
        self.pause = _FIRST  #: seconds after which it is worth looking again

    def sent_off(self, count: int) -> None:
        """Note that something was sent.

        :param count: how many of it have to arrive for something to be confirmed.
        """
        self.sent = True
        if not self._seen:
            self.pause = min(_LONGEST, max(_FIRST, count / _USUAL_RATE))

    def begin(self) -> None:
        """A look begins, which may be several requests."""
        self._arrived, self._missing = 0, 0

    def note(self, arrived: int, missing: int) -> None:
        """Note what one request has found.

        :param arrived: how many have arrived besides those that are confirmed.
        :param missing: how many more have to, for something to be confirmed; at least 1.
        """
        self._arrived += arrived
        self._missing = min(missing, self._missing) if self._missing else missing

    def end(self) -> None:
        """The look is over."""
        before, self._seen = self._seen, self.confirmed + self._arrived
        if self._seen > before:
            rate = self._seen / max(0.001, self._now() - self._began)
            self.pause = min(_LONGEST, max(_SHORTEST, self._missing / rate))
        else:  # the server waits for something, or is away
            self.pause = min(_LONGEST, 1.5 * self.pause)
