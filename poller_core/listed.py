"""``ListingPoller``: a poller made of a source, with snapshot, journal and consumers.

Whoever can list names in order gets the rest here: :class:`FilePoller` and
:class:`INotifyPoller` are such classes, and one of your own gives
:meth:`ListingPoller.make_source`.

Guarantees: those of :mod:`poller_core.engine` for looking and of
:mod:`poller_core.consuming` for what is given out. Pollers of one process that
share a state and a target share one engine, so ten consumers cost one listing.

Not guaranteed: what :mod:`poller_core.consuming` doesn't.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from . import pages
from .clock import Clock
from .consuming import Consuming
from .engine import Engine, Progress
from .errors import PollerClosed
from .filters import Exclude, Patterns
from .listing import Kind, Source, Watch
from .options import Options, Seconds, seconds
from .poller import registered
from .pump import Pump, Subscription
from .sharing import Shared, share
from .state import Pending, Record, Store, open_store
from .status import Status
from .stored import status_of
from .url import Url

__all__ = ["ListingPoller", "options_for"]

log = logging.getLogger("poller_core")

#: So many events of what is there already are written at a time.
_BACKLOG = 1000


class ListingPoller(Consuming):
    """A poller on top of something that can be listed in order.

    :param url: what to watch: a URL or a path.
    :param recurse: watch what is below it at any depth, too.
    :param progress: called now and then during a first look with the number of entries listed so far.
    :param clock: the clocks to go by.
    :param options: see :class:`poller_core.Options`.
    :raises PollerError: if an option can't be, the target can't be looked at, or the state can't be used.
    """

    def __init__(
        self,
        url: str | bytes | os.PathLike[Any] | Url,
        recurse: bool = False,
        *,
        progress: Progress | None = None,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, recurse=recurse)
        self.options = self.parse_options(self.url, {"recurse": recurse, **options})
        self.consumer = self.options.consumer
        self.recurse = self.options.target.recurse
        self.clock = clock or Clock()
        self._closed = False
        self._handed: Pending | None = None
        self._subscriptions: list[Subscription] = []
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._wanted = Patterns(self.options.include, "include")
        self._kinds = frozenset(int(Kind[name]) for name in self.options.events)
        self._digest = self.options.target.digest(self.url, self.place())
        self._shared: Shared = share((type(self), self.options.state, self._digest), self._open_shared)
        try:
            self._open_consumer(progress)
        except BaseException:
            self._shared.release()
            raise

    # -- what a class of your own gives --------------------------------------

    @abstractmethod
    def make_source(self, exclude: Exclude) -> Source:
        """Make what is listed.

        :param exclude: ask ``exclude.enter(prefix)`` before going into a directory.
        :raises PollerRefused: if this class can't serve the URL.
        """

    def make_watch(self, source: Source) -> Watch | None:
        """Make what notices changes in the source; None: there is nothing, list it on every look."""
        return None

    @classmethod
    def parse_options(cls, url: Url, given: Mapping[str, Any]) -> Options:
        """Check the options for a URL, without looking at it.

        :param given: without ``recurse`` that is as usual for what is watched.
        :raises InvalidOption: for an unknown name, or a value that can't be.
        """
        return Options.parse(given=given)

    def place(self) -> str:
        """What the URL does not say of where the target is, such as the account; empty: it says all.

        Targets with equal URLs and options are one and the same only if this is equal too.
        """
        return ""

    def own_keys(self, store: Store) -> list[bytes]:
        """The keys of the state's own files, should they lie in the target."""
        return []

    # -- opening -------------------------------------------------------------

    def _open_shared(self) -> tuple[Engine, Pump]:
        store = open_store(self.options.state)
        source: Source | None = None
        try:
            excluded = self.options.target
            exclude = Exclude(excluded.exclude, excluded.default_exclude, self.own_keys(store))
            source = self.make_source(exclude)
            url = str(self.url.without_credentials())
            target = store.target(self._digest, url, excluded.text())
            if not (target.complete or target.entries) and any(
                one.url == url and one.id != target.id for one in store.targets()
            ):
                log.warning(
                    "%s was watched with other options before; that is another target, with a journal of its "
                    "own ('poller status' lists both)",
                    url,
                )
            store.verify_entries(target.id)
            watch = self.make_watch(source)
        except BaseException:
            if source is not None:
                source.end()
            store.close()
            raise
        engine = Engine(store, target, source, self.options, exclude, self.clock, watch)
        return engine, Pump(engine)

    def _open_consumer(self, progress: Progress | None) -> None:
        engine, options = self._engine, self.options
        consumers, target_id = engine.store.consumers, engine.target_id
        target = engine.store.reload(target_id)
        known = consumers.get(target_id, self.consumer)
        everything = options.start == "beginning" or (options.start is None and options.existing == "report")
        if known is not None and target.complete:
            engine.check()
            return
        if not target.complete and everything:
            engine.check()
            if known is None and not target.entries:
                # The first look, when events are first asked for, reports what it finds to this consumer too.
                consumers.create(target_id, self.consumer, "now", None)
                return
        else:
            engine.look(progress=progress)
        if known is None:
            start: Literal["now", "beginning"] | int = "beginning" if everything else options.start or "now"
            backlog = self._backlog() if everything else None
            consumers.create(target_id, self.consumer, start, backlog)

    def _backlog(self) -> Iterator[list[Record]]:
        """What the snapshot holds now, as created."""
        engine = self._engine
        part: list[Record] = []
        for head in engine.store.heads(engine.target_id, b"", None):
            raw = pages.unpack(engine.store.blob(engine.target_id, head.first_key, head.digest))
            for prefix, names, rows in pages.decode(pages.verified(raw, head.digest)):
                for name, row in zip(names, rows, strict=True):
                    key = prefix + name
                    if not engine.exclude.drops(key):
                        part.append(Record(int(Kind.created), key, *engine.source.facts(row)))
            if len(part) >= _BACKLOG:
                yield part
                part = []
        if part:
            yield part

    @property
    def _engine(self) -> Engine:
        if self._closed:
            raise PollerClosed(f"{self!r} is closed; make a new one")
        return self._shared.engine

    # -- telling -------------------------------------------------------------

    @property
    def digest(self) -> str:
        """What tells the target from others in the state, those of the same URL too: hexadecimal digits."""
        return self._digest

    @property
    def trouble(self) -> str | None:
        """Why the target, or parts of it, could not be looked at the last time; None: all could. No I/O."""
        health = self._engine.health
        if health.error is not None:
            return health.error
        reasons = health.reasons  # once: another thread may be writing down its look
        if not reasons:
            return None
        gaps = max(health.gaps, len(reasons))
        return f"{gaps} part(s) can't be listed, the first one because of: {reasons[0]}"

    def status(self) -> Status:
        """How the target and its consumers are."""
        engine = self._engine
        return status_of(engine.store, engine.target_id, engine.health)

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Block until there is something to look at, or for so many seconds; whether there is.

        A poller without a watch only knows of subjects that are held: it waits for those,
        or for the time to pass.

        :param timeout: at most so many seconds, or a ``timedelta``; None: for as long as it takes.
        :raises PollerClosed: if the poller is closed.
        """
        engine = self._engine
        most = math.inf if timeout is None else seconds("timeout", timeout, endless=True)
        due = engine.due(most)
        return engine.wait(None if due == math.inf else due) or due < most

    def close(self) -> None:
        """Acknowledge what :meth:`get_new_events` gave out, and let go of everything."""
        with self._lock:
            if not self._closed:
                try:
                    self.acknowledge()
                finally:
                    self._closed = True
                    self._ended.set()
                    for subscription in list(self._subscriptions):
                        subscription.end()  # others may go on with the engine, so it need not end with us
                    self._shared.release()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self._handed = None  # not worked off: given again
        self.close()

    def _select(self, record: Record) -> bool:
        return record.kind in self._kinds and (not self._wanted or self._wanted.matches(record.key))


def options_for(url: Url, given: Mapping[str, Any]) -> Options:
    """Check options as the poller does that is registered for the URL, without making one.

    :raises InvalidOption: for an unknown name, or a value that can't be.
    """
    for maker in registered().get(url.scheme, ()):
        if isinstance(maker, type) and issubclass(maker, ListingPoller):
            return maker.parse_options(url, given)
    return Options.parse(given=given)
