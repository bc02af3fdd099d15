"""Whether a subject has been quiet for long enough to be reported.

A subject that is still being written must not start a run. A scan can't see
writers, so it waits until the fingerprint has not changed for ``settle``
seconds. The same wait, of at least the *slack* of the file system's timestamps,
makes fingerprints trustworthy: after it, any further write gets another
timestamp, so no change hides behind an equal one (git calls such entries racy).

Quiet is proven in one of two ways:

* **By age**: the store's timestamp lies far enough back by *both* the wall clock
  now and the wall clock carried forward from our start by the monotonic clock.
  A wall clock that jumps either way fools one of the two, never both.
* **By observation**: two looks, far enough apart on the monotonic clock, saw the
  same fingerprint. This needs no agreement with any other clock. The first look
  may be an earlier process's of the same start of the same machine: what was
  held when it ended comes with :meth:`Settling.recall`.

Guarantees: a subject is never called quiet on the strength of a clock that
jumped while we ran, or of a server's clock that differs by less than ``skew``.

Does not guarantee: that a writer that pauses for longer than ``settle`` is
noticed; nor anything about a jump of the clock while no process of ours ran.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from .clock import Clock
from .listing import Row, Span
from .state.observed import Observed

__all__ = ["Settling"]

#: How long a subject must be quiet whose timestamp has no fraction of a second, whatever is known of its file
#: system: an ext4 that was made with small inodes keeps whole seconds, say, and does not tell.
_WHOLE_SECONDS = 1.1

#: Subjects whose observation is remembered; more of them wait for their age to prove them quiet.
_MOST_OBSERVED = 50_000

#: How many of them an ending process leaves to the next one.
_MOST_KEPT = 10_000

#: Two processes' clocks that differ by more than this, seconds: one of them jumped, or they are not the same.
_SAME_CLOCK = 1.0

_encoder = msgspec.msgpack.Encoder()


class Settling:
    """The subjects that are held until they are quiet.

    :param clock: the clocks to go by.
    :param settle: how long a subject must be quiet, in seconds.
    :param slack: how close two changes may be and still share a timestamp, in seconds.
    :param skew: by how much the clock that stamps the subjects may be behind ours, in seconds.
    """

    def __init__(self, clock: Clock, settle: float, slack: float, skew: float = 0.0) -> None:
        self._clock = clock
        self._settle = settle
        self.adjust(slack, skew)
        self._wall_offset = clock.wall() - clock.monotonic()
        # By key: a mark of the fingerprint, when it was first seen so, and how long it must stay so.
        self._seen: dict[bytes, tuple[bytes, float, float]] = {}
        self._asked: set[bytes] = set()  # of these, those that this look found held
        self._looked = clock.monotonic()
        self._now = self._wall_now()

    def _wall_now(self) -> float:
        # The earlier of the two readings makes everything look younger: a jump only ever makes us wait.
        return min(self._clock.wall(), self._wall_offset + self._clock.monotonic())

    def adjust(self, slack: float, skew: float) -> None:
        """Take over what the source now knows of the clock that stamps its entries."""
        self.wait = max(self._settle, slack)
        self._skew = skew

    def begin(self, again: bool = False) -> list[bytes]:
        """A look begins: what it sees was so at this moment or later.

        :param again: it is the same look, which has waited for something.
        :returns: the subjects that will be quiet in this look, if they are as they were.
        """
        self._looked = self._clock.monotonic()
        self._now = self._wall_now()
        if not again:
            self._asked.clear()
        return [key for key, (_, at, wait) in self._seen.items() if self._looked - at >= wait]

    def settled(self, changed_ns: int | None) -> bool:
        """Whether what was changed then, or before, is proven quiet by its age."""
        return changed_ns is not None and self._old(changed_ns, max(self.wait, _WHOLE_SECONDS))

    def _old(self, changed_ns: int, wait: float) -> bool:
        return self._now - changed_ns / 1e9 >= wait + self._skew

    def quiet(self, key: bytes, row: Row, changed_ns: int | None) -> bool:
        """Whether the subject may be reported as it is; if not, it is held from now on."""
        wait = self.wait
        if changed_ns is not None and not changed_ns % 1_000_000_000:
            wait = max(wait, _WHOLE_SECONDS)
        if wait <= 0:
            return True
        if changed_ns is not None and self._old(changed_ns, wait):
            self._seen.pop(key, None)
            return True
        before = self._seen.get(key)
        if before is None and len(self._seen) >= _MOST_OBSERVED:
            return False
        mark = hashlib.blake2b(_encoder.encode(row), digest_size=8).digest()
        if before is None or before[0] != mark:
            # This moment, not the begin of the look: the subject was seen so before now.
            self._seen[key] = (mark, self._clock.monotonic(), wait)
        elif self._looked - before[1] >= wait:
            del self._seen[key]
            return True
        self._asked.add(key)
        return False

    def forget(self, due: list[bytes], whole: bool, unread: Sequence[Span] = ()) -> None:
        """The look is over: let go of subjects that it did not ask about.

        They are gone, or are again as they were before they changed, or are being written.

        :param due: those that :meth:`begin` gave.
        :param whole: everything was looked at, so that this is true of all others, too.
        :param unread: what could not be listed: of what is in there nothing is known, and it stays held.
        """
        for key in [*self._seen] if whole else due:
            if key not in self._asked and not any(span.holds(key) for span in unread):
                self._seen.pop(key, None)

    def recall(self, offset: float, observed: list[Observed]) -> None:
        """Go on from what an earlier process saw, whose monotonic clock had the same origin.

        :param offset: by how much its wall clock was ahead of its monotonic one. If ours is not, a clock
            jumped, the machine slept, or the origins only look the same: nothing is taken over.
        """
        if abs(offset - self.offset) > _SAME_CLOCK:
            return
        now = self._clock.monotonic()
        for key, mark, at, wait in observed:
            if at <= now:
                self._seen.setdefault(key, (mark, at, wait))

    def observed(self) -> list[Observed]:
        """What is held now; of very many, those that are held the longest."""
        held = [Observed(key, *seen) for key, seen in self._seen.items()]
        return sorted(held, key=lambda one: one.at)[:_MOST_KEPT]

    @property
    def offset(self) -> float:
        """By how much the wall clock is ahead of the monotonic one now, seconds."""
        return self._clock.wall() - self._clock.monotonic()

    def due(self) -> float | None:
        """In how many seconds the first held subject can be quiet; None if none is held."""
        if not self._seen:
            return None
        first = min(at + wait for _, at, wait in self._seen.values())
        return max(0.0, first - self._clock.monotonic())

    def keys(self, within: float = 0.0) -> list[bytes]:
        """The held subjects that can be quiet within so many seconds, in order."""
        limit = self._clock.monotonic() + within
        return sorted(key for key, (_, at, wait) in self._seen.items() if at + wait <= limit)

    def __len__(self) -> int:
        return len(self._seen)
