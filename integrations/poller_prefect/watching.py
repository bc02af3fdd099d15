"""What a poll watches, and the poller made of it.

Guarantees: what blocks say goes to the poller and nowhere else; a path that means another
directory in another process is refused.

Not guaranteed: that the target is there; opening it tells. Secrets were refused before, with
the rest of what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poller_core import ListingPoller, Url
from poller_core.hosts import Log, Progress, open_listing, refuse_relative

from .settings import State, credentials_options

__all__ = ["Watching"]


@dataclass(frozen=True)
class Watching:
    """A target, and for which consumer."""

    url: str
    consumer: str
    credentials: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, state: State, log: Log) -> ListingPoller:
        """Make the poller; blocks, and may ask the API.

        :param log: told of a first look that takes long.
        :raises PollerError: for whatever stands in the way.
        """
        refuse_relative(self.url, "workers")
        return open_listing(
            Url(self.url),
            "events could be delivered again",
            credentials_options(self.credentials),
            self.options,
            consumer=self.consumer,
            state=state.url,
            retention=state.retention,
            retention_unread=state.retention_unread,
            progress=Progress(log, self.url),
        )
