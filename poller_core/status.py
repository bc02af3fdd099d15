"""What :meth:`poller_core.ListingPoller.status` and ``poller status`` tell.

Guarantees: plain data, read from the state in one go; :meth:`Status.to_dict`
holds nothing but JSON types, and no secrets. Does not guarantee that the target
has not changed since; :attr:`Status.last_look` says how old the knowledge is.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = ["ConsumerStatus", "Status"]


class ConsumerStatus(msgspec.Struct, kw_only=True, frozen=True):
    """One consumer of a target."""

    name: str
    seq: int  #: acknowledged up to this event
    lag: int  #: events behind the journal's end, at most: some may not be for it
    updated_at: datetime  #: when it last acknowledged something


class Status(msgspec.Struct, kw_only=True, frozen=True):
    """How a target is."""

    url: str
    target: str  #: what tells the target from others with the same URL
    options: dict[str, Any]  #: the options that decide what is listed, where they are not the default
    complete: bool  #: whether the first look is done
    entries: int  #: names in the snapshot; those of excluded files count
    last_look: datetime | None  #: when the last look that went through began
    look_seconds: float | None  #: how long it took
    last_seq: int  #: the newest event in the journal
    oldest_seq: int  #: the oldest event that the journal can still have
    error: str | None  #: why the target can't be looked at now
    gaps: int  #: how many spans of names could not be listed at the last look
    errors: list[str]  #: why, the first hundred
    held: int  #: subjects that are not reported yet: they are not quiet, or their writer is not done
    watching: bool  #: whether changes are noticed as they happen
    watches: int  #: how many directories are watched
    overflows: int  #: how often notifications were lost, and everything was listed again
    consumers: list[ConsumerStatus]

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types; times as ISO 8601."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]
