"""Single events by their id alone: whose they are, and which handler's run has them.

A *handler* is a name whose runs work on one event each, such as a deployment
that a scheduler starts once per event. It reads nothing by itself: it has no
offset, and holds nothing back. Its takes are rows of ``poller_takes`` under its
name with :data:`~poller_core.state.ownership.HANDLER` before it, which no
consumer can be called.

Guarantees: the first token that asks for an event under a handler's name has
it, whoever else asks; the same token gets it again for as long as the journal
has the event. Handlers and consumers of one name know nothing of each other.
A take goes with its event, when the journal is pruned.

Does not guarantee: that an event is still there when its run begins. Keep it
for longer (``retention``) than a run may wait.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..crashpoints import crash_point
from ..errors import EventTaken, StateDamaged, UnknownClaim, UnknownConsumer, UnknownEvent
from . import journal
from .consumers import check_name, check_token
from .database import Database
from .ownership import HANDLER, ClaimRow, Claims
from .records import Numbered, event_id, parse_event_id
from .targets import Target, load_targets, lock_target

__all__ = ["Handlers"]


class Handlers:
    """The handlers of all targets of a state. Comes as ``store.handlers``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims = Claims(database)

    def find(self, event: str) -> tuple[Target, Numbered]:
        """The event of that id, and the target that made it; whichever consumer it was written for.

        :raises UnknownEvent: if no journal has it; the text says whether it may have been pruned.
        :raises StateDamaged: if it may be in a journal row that can't be read.
        """
        seq = parse_event_id(event) if isinstance(event, str) else None
        if seq is None:
            raise UnknownEvent(f"{event!r} is not an event id; one looks like '12-0123456789abcdef'")
        gone: list[Target] = []
        damage: StateDamaged | None = None
        with self._database.transaction(write=False):
            for target in load_targets(self._database):
                if seq > target.last_seq:
                    continue
                row = journal.covering(self._database, target.id, seq)
                if row is None or row.lost:
                    gone.append(target)
                    continue
                try:
                    record = row.records()[seq - row.first_seq]
                except StateDamaged as error:
                    damage = error  # another target may have it all the same
                    continue
                if event_id(target.epoch, seq, record) == event:
                    return target, Numbered(seq, row.detected_at_us, record)
        if damage is not None:
            raise damage
        raise self._unknown(event, gone)

    def take(self, event: str, handler: str, token: str) -> tuple[Target, Numbered]:
        """Give an event to a token, under the handler's name; the same token gets it again.

        :param event: its id.
        :raises EventTaken: if another token has it under that name.
        :raises UnknownEvent: if no journal has it (any more).
        :raises InvalidOption: for a name or token that can't be.
        """
        check_name("handler", handler)
        check_token(token)
        target, found = self.find(event)
        with self._database.transaction():
            locked = lock_target(self._database, target.id)
            if found.seq <= locked.floor_seq:
                # Pruned since it was found. A take of it would never go.
                raise self._unknown(event, [target])
            owner = self._claims.taker(target.id, HANDLER + handler, found.seq)
            if owner is None:
                self._claims.take(target.id, HANDLER + handler, found.seq, token)
            elif owner != token:
                raise EventTaken(f"event {event} is taken by {owner!r} for handler {handler!r}", owner)
            crash_point("store.handle.before")
        crash_point("store.handle.after")
        return target, found

    def release(self, target_id: int, handler: str, token: str) -> int:
        """Let other tokens take what this one has under the handler's name; how many events it had.

        :raises UnknownClaim: if it has none.
        """
        with self._database.transaction():
            lock_target(self._database, target_id)
            count = self._database.run(
                "DELETE FROM poller_takes WHERE target_id = ? AND consumer = ? AND token = ?",
                (target_id, HANDLER + handler, token),
            )
            if not count:
                raise UnknownClaim(f"token {token!r} has no events for handler {handler!r}")
            crash_point("store.handler_release.before")
        crash_point("store.handler_release.after")
        return count

    def claims(self, target_id: int, handler: str | None = None) -> list[ClaimRow]:
        """Which tokens have which events, for one handler or for all, oldest first."""
        every = self._claims.all(target_id, None if handler is None else HANDLER + handler)
        return [row for row in every if row.kind == "handler"]

    def forget(self, target_id: int, handler: str) -> int:
        """Forget which tokens have events under the handler's name; how many events they had.

        :raises UnknownConsumer: if none has.
        """
        with self._database.transaction():
            lock_target(self._database, target_id)
            count = self._database.run(
                "DELETE FROM poller_takes WHERE target_id = ? AND consumer = ?",
                (target_id, HANDLER + handler),
            )
            if not count:
                raise UnknownConsumer(f"no handler {handler!r} has any events here; see 'poller claims'")
            crash_point("store.forget_handler.before")
        crash_point("store.forget_handler.after")
        return count

    def _unknown(self, event: str, gone: Iterable[Target]) -> UnknownEvent:
        urls = ", ".join(sorted({target.url for target in gone})[:10])
        if not urls:
            return UnknownEvent(
                f"no target of the state {self._database.shown} has made event {event}: it is of another "
                "state, or of a target that was forgotten since"
            )
        return UnknownEvent(
            f"the state {self._database.shown} has no event {event} (any more): if it is of {urls}, it was "
            "pruned from the journal, where a longer retention keeps it longer; no other target has made it"
        )
