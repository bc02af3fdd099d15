"""One state of the tree, in the model: the pollers that keep it and the consumers that read it.

:data:`HOOK` takes the place of ``crash_point`` in the package, so that a history can have a process die,
or another one get in between, at any of these points and still go on by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from poller_core import FilePoller, INotifyPoller, sharing
from poller_core.events import EVENT_NAMES
from tests.model.ledger import Ledger, Reader
from tests.model.tree import SteppedClock, Tree

KINDS = {"scan": FilePoller, "watch": INotifyPoller}


class Killed(BaseException):
    """The process ends here, as far as the package can tell."""


class Hook:
    """Takes the place of ``crash_point``: the n-th time that a name is passed, something happens."""

    def __init__(self) -> None:
        self.name = ""
        self.left = 0
        self.action: Callable[[], None] = _die

    def __call__(self, name: str) -> None:
        if self.left and name == self.name:
            self.left -= 1
            if not self.left:
                self.action()

    @contextlib.contextmanager
    def at(self, name: str, times: int, action: Callable[[], None] | None = None) -> Iterator[None]:
        self.name, self.left, self.action = name, times, action or _die
        try:
            yield
        finally:
            self.left = 0


def _die() -> None:
    raise Killed


HOOK = Hook()


class Consumer:
    """A consumer: the poller that it uses now, and the reader that says what it ought to be given."""

    def __init__(self, name: str, kind: str, kinds: tuple[str, ...], ledger: Ledger) -> None:
        self.name = name
        self.kind = kind
        self.kinds = kinds
        self.reader = Reader(ledger, kinds)
        self.poller: Any = None
        self.handed: list[int] = []  # what get_new_events() gave, and what its next call acknowledges

    def acknowledge(self) -> None:
        self.poller.acknowledge()
        self.acknowledged()

    def acknowledged(self) -> None:
        self.reader.done(self.handed)
        self.handed = []


class Side:
    """One state of the tree, with those who keep it and those who read it."""

    def __init__(
        self, kinds: tuple[str, ...], options: dict[str, Any], tree: Tree, clock: SteppedClock
    ) -> None:
        self.kinds = kinds
        self.tree = tree
        self.clock = clock
        self.options = {**options, "recurse": True, "fs": tree.fs, "clock": clock}
        self._settle = options["settle"]
        known = {} if options["existing"] == "report" else tree.listing()[0]
        self.ledger = Ledger(clock, known, options["settle"], "watch" in kinds, "scan" in kinds)
        self.auditors: list[Any] = []
        self.unread: list[str] = []
        self._turn = 0
        self.consumers = [
            Consumer("one", kinds[0], EVENT_NAMES, self.ledger),
            Consumer("two", kinds[-1], ("created", "deleted"), self.ledger),
        ]

    def open(self) -> None:
        self.clock.restart()
        self.auditors = [self.make(kind, "audit") for kind in self.kinds]
        for consumer in self.consumers:
            consumer.poller = self.make(consumer.kind, consumer.name, events=consumer.kinds)

    def make(self, kind: str, consumer: str, **options: Any) -> Any:
        return KINDS[kind](self.tree.root, consumer=consumer, **{**self.options, **options})

    @property
    def _apart(self) -> bool:
        """Whether there may be something that only one of two engines knows of."""
        return len(self.kinds) > 1 and bool(self.tree.writers or self.tree.linked or self.tree.doubtful)

    @property
    def exact(self) -> bool:
        """Whether a second look right after the first one finds nothing more."""
        return not self._settle and not self._apart

    @property
    def pollers(self) -> list[Any]:
        made = self.auditors + [consumer.poller for consumer in self.consumers]
        return [poller for poller in made if poller is not None]

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.poller.close()
            consumer.acknowledged()
        for poller in self.auditors:
            poller.close()

    def drop(self) -> None:
        """Forget the pollers as a process that is killed does: nothing is acknowledged or written."""
        for poller in self.pollers:
            shared = poller._shared
            if sharing._shared.pop(shared._key, None) is not None:
                shared.engine.watch and shared.engine.watch.close()
                shared.engine.store.close()
            poller._closed = True
        for consumer in self.consumers:
            consumer.handed = []

    def audit(self, overdue: bool = False, acknowledge: bool = True) -> None:
        """Look, and judge all that was found since the last audit."""
        self._turn += 1
        auditor = self.auditors[self._turn % len(self.auditors)]
        batch = auditor.next_batch(None)
        ids = [event.id for event in batch]
        assert ids[: len(self.unread)] == self.unread, "what was not acknowledged did not come again"
        self.ledger.recognize(batch)
        listing, unreadable = self.tree.listing()
        self.ledger.enter(
            batch.events[len(self.unread) :],
            listing,
            lambda key: self.tree.known_below(unreadable, key),
            self.tree.linked | self.tree.doubtful,
            set(self.tree.writers) - self.tree.doubtful,
            overdue,
        )
        if acknowledge:
            batch.ack()
            self.unread = []
            if not self._settle:
                other = auditor if self._apart else self.auditors[self._turn % len(self.auditors) - 1]
                assert other.next_batch(None) == [], "told without a change"
        else:
            self.unread = ids
        for consumer in self.consumers:
            consumer.reader.update()
