"""What a run's log is told of a poller, for who reads it.

Guarantees: no secret is in a line; telling raises none of this package's errors.

Not guaranteed: that each event has its line; of many, the first are told, and how many more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from ..errors import PollerError
from ..events import Event
from ..listed import ListingPoller

__all__ = ["Log", "Progress", "report", "report_claim"]

_SHOWN = 20
#: How long a first look takes before it is told of, and then between two tellings, seconds.
_TELL_AFTER = 10.0


class Log(Protocol):
    """A logger: one of :mod:`logging`, or of what hosts have instead."""

    def info(self, msg: str, /, *args: object) -> object:
        """Log what goes as it should."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Log what somebody may have to mend."""


class Progress:
    """Tells of a first look that takes long: as ``progress`` of :func:`poller_core.make_poller`.

    :param log: the run's.
    :param url: what is looked at.
    """

    def __init__(self, log: Log, url: str) -> None:
        self._log, self._url = log, url
        self._next = time.monotonic() + _TELL_AFTER

    def __call__(self, count: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_AFTER
            self._log.info("%s: first look, %s entries so far", self._url, f"{count:,}")


def report(log: Log, poller: ListingPoller) -> None:
    """Tell how the target is."""
    try:
        status = poller.status()
    except PollerError as error:
        log.warning("its state can't be told: %s", error)
        return
    took = "" if status.look_seconds is None else f", which took {status.look_seconds:.3f} s"
    looked = "never" if status.last_look is None else f"{status.last_look:%Y-%m-%d %H:%M:%S} UTC{took}"
    log.info("Watched: %s; entries: %s; last look: %s", status.url, f"{status.entries:,}", looked)
    if status.complete and status.entries and not status.last_seq:
        log.info(
            "Nothing happened there yet: what was there at the first look counts as known. existing='report' "
            "gives it to a new consumer, 'poller rewind %s --to beginning' to one that is there",
            status.url,
        )
    if status.error:
        log.warning("%s can't be looked at: %s", status.url, status.error)
    if status.gaps:
        log.warning(
            "%s: %d part(s) can't be listed: %s", status.url, status.gaps, "; ".join(status.errors[:3])
        )


def report_claim(log: Log, token: str, events: Sequence[Event]) -> None:
    """Tell which events a run has claimed, of which there is at least one."""
    log.info("Claimed %d event(s) for %r: seq %d to %d", len(events), token, events[0].seq, events[-1].seq)
    for event in events[:_SHOWN]:
        log.info("  %s %s", event.event, event.subject)
    if len(events) > _SHOWN:
        log.info("  … and %d more", len(events) - _SHOWN)
