"""``Journal``: what pollers elsewhere have found, out of the state alone.

For work that runs where the target can't be reached, or need not be: a run
that knows no more than an event's id, say. Neither the target nor its
credentials are used.

Guarantees: an event that was found is given out as its poller would, with the
same id and content, until it is pruned. Of the runs that ask for an event
under one handler's name, one has it. A handler is no reader: it is made by its
first take, has no offset and no lag, and the journal doesn't wait for it.

Does not guarantee: that something looks at the target; a poller does. Nor the
subjects of a poller of your own, see :mod:`poller_core.stored`.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from .delivery import Claim
from .errors import InvalidOption, PollerClosed, StateUnreadable, UnknownClaim
from .events import Event
from .filters import Patterns
from .listing import Kind
from .options import Options
from .state import ClaimRow, Record, Store, Target, open_store
from .state.files import is_there
from .state.urls import parse_state_url
from .stored import event_of, options_of
from .url import Url

__all__ = ["Journal", "open_journal"]


def open_journal(state: str | os.PathLike[str], *, timeout: float = 30.0) -> Journal:
    """Open the state of pollers that run elsewhere, to read what they have found. ::

        with open_journal("/var/lib/poller/state.db") as journal:
            event = journal.take(event_id, run_id, handler="load")

    :param state: as a poller's ``state``.
    :param timeout: how long to wait for another process's lock, in seconds.
    :raises InvalidOption: if it is no state that others can have written.
    :raises StateUnreadable: if it is not there, since nothing has been watched with it yet; it is not made.
    :raises StateError: if it can't be used; its subclasses say why.
    """
    if not isinstance(state, str | os.PathLike):
        raise InvalidOption(
            f"state={state!r}: expected 'sqlite:////path/to/state.db', 'postgresql+psycopg://…' or a path: "
            "a state that pollers elsewhere share"
        )
    place = parse_state_url(state)
    if place.private:
        raise InvalidOption(f"state={state!r}: that is a state of its own, so there is nothing in it")
    if place.path is not None and not is_there(place.path):
        log = place.path.with_name(place.path.name + "-wal")
        if not is_there(log):
            raise StateUnreadable(
                f"there is no state {place.path}: nothing has been watched with it yet, or it is on another "
                "machine. A state that several machines share is one in PostgreSQL"
            )
    return Journal(open_store(state, timeout=timeout, create=False))


class Journal:
    """The events of all targets of a state. Made by :func:`open_journal`.

    May be used by several threads, and on in a forked child.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._closed = False

    def __repr__(self) -> str:
        return f"<Journal {self._store.url}>"

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the state. Again does nothing."""
        self._closed = True
        self._store.close()

    # -- single events ---------------------------------------------------------

    def event(self, event_id: str) -> Event:
        """The event of that id, whichever target and consumer it is of. Changes nothing.

        :param event_id: :attr:`Event.id <poller_core.Event.id>`.
        :raises UnknownEvent: if no journal of the state has it; the text says, as far as it
            can be told, whether it was pruned or no target has made it.
        """
        return event_of(*self._opened.handlers.find(event_id))

    def take(self, event_id: str, token: str, handler: str) -> Event:
        """One event for one run of a handler: the first token to ask has it, and the same token again.

        Events may be taken in any order, those too that were found before the handler
        was first used, and whatever readers have acknowledged.

        :param event_id: :attr:`Event.id <poller_core.Event.id>`.
        :param token: what names the run, such as its id: 1 to 250 printable characters.
        :param handler: what the run is one of, such as a deployment. Each handler's runs get every event
            for themselves. A consumer of the same name is something else.
        :raises EventTaken: if another token has it; the error's ``token`` says which.
        :raises UnknownEvent: as for :meth:`event`.
        """
        return event_of(*self._opened.handlers.take(event_id, handler, token))

    # -- batches -----------------------------------------------------------------

    def claim(
        self,
        target: str | os.PathLike[Any] | Url,
        token: str,
        consumer: str = "default",
        *,
        limit: int | None = 1000,
        events: Any = None,
        include: Any = None,
    ) -> Claim:
        """A batch of a consumer that belongs to a token, for ever, from what the journal has now.

        As :meth:`poller_core.ListingPoller.claim` with ``max_age=math.inf``: the same token gets
        the same batch, and nothing is kept for a call that found no events.

        :param target: its URL or path; or its digest (:attr:`poller_core.ListingPoller.digest`,
            ``poller status``), which tells it from others of the same URL.
        :param token: what names the run that owns the batch, such as its run id.
        :param consumer: which must be there: a poller makes it.
        :param limit: at most so many events; None: all.
        :param events: which events, as the poller's option; None: all.
        :param include: patterns, as the poller's option; None: everything.
        :raises InvalidOption: if the target is not in the state, or more than one is meant.
        :raises UnknownConsumer: if there is none of that name.
        :raises OffsetTooOld: if the journal no longer has the events of this claim, or what comes next.
        """
        store = self._opened
        options = Options.parse(
            given={"consumer": consumer, **({} if events is None else {"events": events}), "include": include}
        )
        kinds = frozenset(int(Kind[name]) for name in options.events)
        wanted = Patterns(options.include, "include")

        def select(record: Record) -> bool:
            return record.kind in kinds and (not wanted or wanted.matches(record.key))

        found = self._target(target)
        numbered = store.consumers.claimed(found.id, consumer, token)
        if numbered is None:
            numbered = store.consumers.claim(found.id, consumer, token, limit, select)
            # Only a look tells whether the target is a directory or a file; it came before its events.
            found = store.reload(found.id)
        return Claim([event_of(found, one) for one in numbered], token)

    # -- who has what --------------------------------------------------------------

    def claims(
        self,
        target: str | os.PathLike[Any] | Url | None = None,
        *,
        consumer: str | None = None,
        handler: str | None = None,
    ) -> list[ClaimRow]:
        """Which tokens have which events, oldest first; of each row, ``target`` is its target's digest.

        :param target: only of this one, as for :meth:`claim`.
        :param consumer: only of this consumer.
        :param handler: only for this handler. With neither, those of all.
        """
        _either(consumer, handler)
        found = [
            (one.digest, row) for one in self._targets(target) for row in self._rows(one, consumer, handler)
        ]
        rows = [_with_target(row, digest) for digest, row in found]
        return sorted(rows, key=lambda row: (row.claimed_at, row.consumer, row.token, row.target))

    def release(
        self,
        token: str,
        target: str | os.PathLike[Any] | Url | None = None,
        *,
        consumer: str | None = None,
        handler: str | None = None,
    ) -> int:
        """Give back what a token has, so that another one can have it; how many events that were.

        A consumer's events are its next ones then; a running :meth:`~poller_core.ListingPoller.wakeups`
        of it tells after ``remind`` at the latest. A handler's can be taken by whoever asks next.
        What a token has of several targets is given back one target after the other.

        :param token: whose events, as it was given to :meth:`claim` or :meth:`take`.
        :param target: only of this one, as for :meth:`claim`.
        :param consumer: whose events they are: give this one or the next.
        :param handler: for which they were taken.
        :raises UnknownClaim: if the token has none.
        :raises OffsetTooOld: if some of a consumer's were pruned, so that they can't be delivered again.
        """
        if not (_either(consumer, handler)):
            raise InvalidOption("release: expected consumer= or handler=, to say whose events are meant")
        store, count = self._opened, 0
        for one in self._targets(target):
            if all(row.token != token for row in self._rows(one, consumer, handler)):
                continue
            if handler is not None:
                count += store.handlers.release(one.id, handler, token)
            elif consumer is not None:
                count += store.consumers.release(one.id, consumer, token)
        if not count:
            whose = f"for handler {handler!r}" if consumer is None else f"of consumer {consumer!r}"
            raise UnknownClaim(f"token {token!r} has no events {whose} here")
        return count

    # -- inside ----------------------------------------------------------------------

    @property
    def _opened(self) -> Store:
        if self._closed:
            raise PollerClosed(f"{self!r} is closed; open it anew")
        return self._store

    def _rows(self, target: Target, consumer: str | None, handler: str | None) -> list[ClaimRow]:
        if handler is not None:
            return self._opened.handlers.claims(target.id, handler)
        return self._opened.consumers.claims(target.id, consumer)

    def _targets(self, target: str | os.PathLike[Any] | Url | None) -> list[Target]:
        return self._opened.targets() if target is None else [self._target(target)]

    def _target(self, named: str | os.PathLike[Any] | Url) -> Target:
        targets = self._opened.targets()
        for target in targets:
            if target.digest == named:
                return target
        url = str(Url(named).without_credentials())
        same = [target for target in targets if target.url == url]
        if len(same) == 1:
            return same[0]
        if not same:
            there = ", ".join(sorted({target.url for target in targets})[:10]) or "no target at all"
            raise InvalidOption(f"{url} is not in the state {self._store.url}; there is: {there}")
        choices = "; ".join(f"{target.digest} ({_shown(target)})" for target in same)
        raise InvalidOption(
            f"{url} is in the state {self._store.url} with several sets of options; give the digest of the "
            f"one that is meant instead of the URL: {choices}"
        )


def _shown(target: Target) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options_of(target).items()) or "default options"


def _either(consumer: str | None, handler: str | None) -> bool:
    """Whether one of the two was given.

    :raises InvalidOption: if both were.
    """
    if consumer is not None and handler is not None:
        raise InvalidOption(f"consumer={consumer!r}, handler={handler!r}: expected one of them, not both")
    return consumer is not None or handler is not None


def _with_target(row: ClaimRow, digest: str) -> ClaimRow:
    return ClaimRow(row.consumer, row.token, row.kind, row.ranges, row.count, row.claimed_at, digest)
