"""What a poll tells: its state's name, its log, its artifact.

Guarantees: no secret is in it, as subjects have none; of many events the first are shown,
and how many there are. What can't be told (the server is away) never fails a poll.

Not guaranteed: an artifact for a poll that found nothing; there is one if there is
something to see.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.settings import get_current_settings

from poller_core import Event, Status

from .events import host_id

__all__ = ["Polled", "publish"]

_SHOWN = 100


@dataclass
class Polled:
    """What a poll did. Returned by :func:`poller_prefect.poll_flow`."""

    url: str  #: what is watched
    created: int = 0
    modified: int = 0
    deleted: int = 0
    runs: int = 0  #: flow runs that were made
    failed: int = 0  #: events that could not be delivered, and wait for the next poll
    gaps: int = 0  #: parts of the target that could not be listed
    lag: int = 0  #: events that still wait, at most
    entries: int = 0  #: what there is in the target
    events: list[dict[str, Any]] = field(default_factory=list)  #: the first hundred

    @property
    def new(self) -> int:
        """How many events were delivered."""
        return self.created + self.modified + self.deleted

    @property
    def summary(self) -> str:
        """In a few words: ``3 new, 1 gap``."""
        parts = [f"{self.created} new"] if self.created else []
        parts += [f"{n} {name}" for name, n in (("modified", self.modified), ("deleted", self.deleted)) if n]
        if self.runs and not self.new:
            parts.append(_number(self.runs, "run"))
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [_number(self.gaps, "gap")] if self.gaps else []
        return ", ".join(parts) or "nothing new"

    def add(self, event: Event, run: FlowRun | None = None) -> None:
        """Note an event that was delivered."""
        setattr(self, event.event, getattr(self, event.event) + 1)
        self.runs += run is not None
        if len(self.events) < _SHOWN:
            row: dict[str, Any] = {
                "event": event.event,
                "subject": str(event.subject),
                "size": event.size,
                "found": None if event.detected_at is None else f"{event.detected_at:%Y-%m-%d %H:%M:%S}",
                "id": event.id,
                "feed_id": str(host_id(event)),
            }
            if run is not None:
                row["run"] = str(run.id)
            self.events.append(row)

    def see(self, status: Status, consumer: str) -> None:
        """Note how the target is."""
        self.gaps = status.gaps
        self.entries = status.entries
        self.lag = next((one.lag for one in status.consumers if one.name == consumer), 0)


def _number(count: int, what: str, many: str | None = None) -> str:
    return f"{count:,} {what if count == 1 else many or what + 's'}"


async def publish(polled: Polled, status: Status, consumer: str, reasons: list[str]) -> None:
    """Make the table artifact of a poll.

    :param reasons: what went wrong.
    """
    pages = get_current_settings().ui_url
    table = []
    for row in polled.events:
        shown = {name: value for name, value in row.items() if name not in ("feed_id", "id")}
        if pages:
            day = row["found"][:10] if row["found"] else ""
            feed = f"{pages}/events/event/{day}/{row['feed_id']}"
            shown["event"] = f"[{row['event']}]({feed})"
            if "run" in row:
                shown["run"] = f"[run]({pages}/runs/flow-run/{row['run']})"
        table.append(shown)
    looked = "never" if status.last_look is None else f"{status.last_look:%Y-%m-%d %H:%M:%S} UTC"
    more = f"; the first {_SHOWN} are below" if polled.new > _SHOWN else ""
    lines = [
        f"**{polled.summary}**{more}",
        "",
        f"* target: `{polled.url}`, {_number(status.entries, 'entry', 'entries')}, last look {looked}",
        f"* consumer: `{consumer}`, lag {polled.lag:,}",
        f"* gaps: {status.gaps}" + "".join(f"\n    * {reason}" for reason in status.errors[:5]),
        *(f"* **failed**: {reason}" for reason in reasons[:5]),
    ]
    await acreate_table_artifact(table=table, key=_key(polled.url, consumer), description="\n".join(lines))


def _key(url: str, consumer: str) -> str:
    """Small letters, digits and dashes are all that Prefect allows."""
    name = re.sub(r"[^a-z0-9]+", "-", url.rpartition("://")[2].lower()).strip("-")[:60]
    digest = hashlib.sha256(f"{url}\0{consumer}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"poller-{name}-{digest}" if name else f"poller-{digest}"
