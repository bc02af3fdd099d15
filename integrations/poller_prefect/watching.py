"""What a poll watches, and the poller made of it.

Guarantees: what blocks say goes to the poller and nowhere else; a path that means another
directory in another process is refused.

Not guaranteed: that the target is there; opening it tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poller_core import ListingPoller, NoPoller, Url, make_poller
from poller_core.hosts import Log, Progress, refuse_relative

from .settings import State, credentials_options, refuse

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
        refuse(self.url, None, dict(self.options))
        refuse_relative(self.url, "workers")
        url = Url(self.url)
        options = credentials_options(self.credentials)
        if url.scheme == "file":
            options = {}
        poller = make_poller(
            url,
            consumer=self.consumer,
            state=state.url,
            retention=state.retention,
            retention_unread=state.retention_unread,
            progress=Progress(log, self.url),
            **{**options, **self.options},
        )
        if isinstance(poller, ListingPoller):
            return poller
        poller.close()
        raise NoPoller(
            f"{type(poller).__name__}, which is registered for {url.scheme!r} URLs, has no journal from "
            f"which events could be delivered again; expected one derived from poller_core.ListingPoller"
        )
