"""Events into Prefect's feed, and what they are to cause, surely.

What Prefect's server was sent lies in its memory first: "taken" is not "stored", and
"stored" is not "triggered". Measured with Prefect 3.9.1: of 3,000 events that it had
answered with 204, none was left when it was killed; of 200 that were read back as stored,
none had started its run.

**Stored.** An event counts as done once it was read back by its id.

**Triggered.** If automations will run a deployment for it, it counts as done once each has
said so (``prefect.automation.action.executed``, which names the event).

**Sent again.** What was not confirmed is sent again under the same id: at once if the
server was away meanwhile, else when nothing has come back for a while. Prefect drops an
id that it knows; if it has forgotten it, a second run may start, and finds its event taken.
Which automations it waits for is looked up again, too: a deployment that is served anew
has new ones, of the same names. One that is gone has to be missing twice, as serving takes
the old ones away before it makes the new.

**Paced.** No more than a window of events is on its way: the queues of the server hold
10,000 and drop the rest.

Not guaranteed: that an automation works. One that fails (its deployment is gone, say) is
told, and its events stay undelivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from prefect.events.schemas.automations import Automation

from poller_core import Event

from .api import Server
from .automations import awaited
from .events import host_event
from .pace import Pace

__all__ = ["Feed"]

#: How many events one request carries.
_POST = 200
#: How many are looked for at a time. Each time costs the server as much as storing several.
_COUNTED = 500
#: How many may be on their way: to be stored, and to start runs (an SQLite server takes long for each).
_STORED_WINDOW = 2000
_TRIGGERED_WINDOW = 200
#: After so many seconds without any answer, what is on its way is sent again.
_SILENCE = 30.0
#: How long it is taken for granted that the automations are what they were, seconds.
_KNOWN_FOR = 10.0
#: A look that is not older tells nothing new, seconds.
_SURE = 0.3
#: How far apart the clocks of server and poller may be.
_CLOCKS = timedelta(minutes=10)


@dataclass
class _Flying:
    """An event that was sent, and not confirmed."""

    event: Event
    raw: dict[str, Any]
    waits_for: set[str]  #: automations that have not said that they ran; empty: only to be stored
    executed: set[str] = field(default_factory=set)


class Feed:
    """Sends events, and says which are where they should be.

    :param server: Prefect's API.
    :param target: the URL that is watched, as events' label ``target`` has it.
    :param related: what else events concern: the run that found them, its flow and deployment.
    :param tell: is told what a person should know.
    """

    def __init__(
        self, server: Server, target: str, related: Iterable[dict[str, str]], tell: Callable[[str], object]
    ) -> None:
        self._server = server
        self._target = target
        self._related = list(related)
        self._tell = tell
        self._flying: dict[str, _Flying] = {}
        self._automations: list[Automation] = []
        self._missed: set[UUID] = set()  # of these, those that were not there at the last look
        self._known_at = -_KNOWN_FOR
        self._heard = time.monotonic()
        self._outages = 0
        self._triggers = True  # until it is known that nothing is triggered
        self._pace = Pace()
        self.failed: dict[str, str] = {}  #: why the automations of an event failed, by our event's id

    @property
    def in_flight(self) -> int:
        """How many events are on their way; those that failed are not."""
        return sum(1 for one in self._flying.values() if one.event.id not in self.failed)

    @property
    def window(self) -> int:
        """How many may be."""
        return _TRIGGERED_WINDOW if self._triggers else _STORED_WINDOW

    @property
    def pause(self) -> float:
        """Seconds after which it is worth asking again."""
        return self._pace.pause

    def raw(self, event: Event, *related: dict[str, str]) -> dict[str, Any]:
        """An event as Prefect takes it."""
        return host_event(event, self._target, (*self._related, *related))

    async def launch(self, events: Iterable[Event]) -> None:
        """Send events."""
        automations = await self._awaiting()
        if not self._flying:
            self._pace = Pace()
            self._heard, self._outages = time.monotonic(), self._server.outages
        new: list[_Flying] = []

        def prepared() -> Iterator[_Flying]:
            for event in events:
                raw = self.raw(event)
                one = self._flying[raw["id"]] = _Flying(event, raw, awaited(automations, raw))
                new.append(one)
                yield one

        await self._send(prepared())
        self._triggers = any(one.waits_for for one in new)
        if new:
            self._pace.sent_off(min(len(new), _COUNTED))

    async def done(self) -> list[Event]:
        """Those that are confirmed since it was last asked."""
        if not self._flying or self._pace.sent:
            self._pace.sent = False
            return []
        self._pace.begin()
        found = await self._stored() + await self._triggered()
        self._pace.end()
        if not found and self._silent():
            found = await self._send_again()
        if found:
            self._heard = time.monotonic()
            self._pace.confirmed += len(found)
        confirmed = [self._flying.pop(key).event for key in found]
        for event in confirmed:
            self.failed.pop(event.id, None)
        return confirmed

    async def _send(self, flying: Iterable[_Flying]) -> None:
        """Send them, piece by piece: the server has the first ones while the next are prepared."""
        rest = iter(flying)
        while piece := list(islice(rest, _POST)):
            await self._server.post([one.raw for one in piece])

    def _silent(self) -> bool:
        """Whether what was sent may be lost: the server was away meanwhile, or nothing comes back."""
        return self._outages != self._server.outages or time.monotonic() - self._heard > _SILENCE

    async def _send_again(self) -> list[str]:
        """Send what did not arrive; what did arrive, one by one."""
        self._outages, self._heard = self._server.outages, time.monotonic()
        await self._look()
        for one in self._flying.values():
            one.waits_for = awaited(self._automations, one.raw)
        plain = [key for key, one in self._flying.items() if not one.waits_for]
        stored = await self._server.stored(plain, self._since(plain)) if plain else set()
        found = [key for key in plain if key in stored] + await self._triggered()
        missing = [one for key, one in self._flying.items() if key not in found]
        if missing:
            self._tell(f"{len(missing)} event(s) not confirmed: sending them again, with the same ids")
            await self._send(missing)
        return found

    async def _awaiting(self) -> list[Automation]:
        if time.monotonic() - self._known_at > _KNOWN_FOR:
            await self._look()
        return self._automations

    async def _look(self) -> None:
        """Look which automations there are; one that has gone may be about to come back, under its name."""
        there = await self._server.automations()
        ids, names = {one.id for one in there}, {one.name for one in there}
        missed = [
            one for one in self._automations if one.id not in ids | self._missed and one.name not in names
        ]
        self._automations, self._missed = there + missed, {one.id for one in missed}
        self._known_at = time.monotonic()

    def _since(self, ids: Iterable[str]) -> datetime:
        """Before the first of these occurred, by whatever clock."""
        return datetime.fromisoformat(min(self._flying[key].raw["occurred"] for key in ids)) - _CLOCKS

    async def _stored(self) -> list[str]:
        """Those that only have to be stored, and are: piece by piece, as they were sent."""
        ids = [key for key, one in self._flying.items() if not one.waits_for]
        found: list[str] = []
        if not ids:
            return found
        for start in range(0, len(ids), _COUNTED):
            part = ids[start : start + _COUNTED]
            count = await self._server.count(part, self._since(part))
            if count < len(part):
                self._pace.note(len(found) + count, len(part) - count)
                break
            found += part
        else:
            self._pace.note(len(found), 1)
        return await self._untriggered(found)

    async def _untriggered(self, found: list[str]) -> list[str]:
        """Those of which it is still true that nothing is triggered: a deployment may have come meanwhile.

        One that is being served anew has no automation for a moment, and whoever looked just then believed
        that there is nothing to wait for.
        """
        if not found or time.monotonic() - self._known_at < _SURE:
            return found
        await self._look()
        late = []
        for key in found:
            one = self._flying[key]
            one.waits_for = awaited(self._automations, one.raw)
            if one.waits_for:
                late.append(one)
        if late:
            self._triggers = True
            await self._send(late)  # as it went by, nobody waited for it
        return [key for key in found if not self._flying[key].waits_for]

    async def _triggered(self) -> list[str]:
        """Those for which every automation has run."""
        ids = [key for key, one in self._flying.items() if one.waits_for]
        confirmed: list[str] = []
        if not ids:
            return confirmed
        for action in await self._server.actions(ids, self._since(ids)):
            automation = action["resource"]["prefect.resource.id"].removeprefix("prefect.automation.")
            for related in action["related"]:
                key = related["prefect.resource.id"].removeprefix("prefect.event.")
                one = self._flying.get(key)
                if one is None or automation not in one.waits_for:
                    continue
                if action["event"].endswith(".executed"):
                    one.executed.add(automation)
                elif automation not in one.executed:
                    reason = str(action.get("payload", {}).get("reason", "no reason given"))
                    name = action["resource"].get("prefect.resource.name", automation)
                    self.failed[one.event.id] = f"automation {name!r} failed: {reason}"
                if one.executed >= one.waits_for and key not in confirmed:
                    confirmed.append(key)
        self._pace.note(len(confirmed), 1)
        return confirmed
