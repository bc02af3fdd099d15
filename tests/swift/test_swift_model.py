"""A model of the promises, and random histories of a container that are held against it.

The container is real, and so are listings that come late: updates of the listing are
refused, and done later by Swift's own updater. In between there are looks, restarts,
crashes at named points, pages and HEADs that fail, a container that seems to be gone,
and two consumers. After every look the :class:`ObjectLedger` judges what was told, and
the ``Reader`` of each consumer what it was given (both of :mod:`tests.model.ledger`).

An ordinary run tries the same histories each time; ``MODEL_EXAMPLES=200`` tries so many new ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from poller_core import Event, SwiftPoller, TargetError, sharing
from tests.model.ledger import Ledger, Reader
from tests.model.running import make_small, run
from tests.model.sides import HOOK, Killed
from tests.services.containers import Box
from tests.swift.tools import FastClock

NAMES = [
    "a",
    "a!",
    "a/b",
    "a/c",
    "a0",
    "a b",
    "b",
    "b/",
    "c#?",
    "\N{SNOWMAN}",
    "\N{PILE OF POO}",
    "x",
    "y",
    "z",
]
names = st.sampled_from(NAMES)
contents = st.sampled_from([b"", b"1", b"2", b"22"])
yes_or_no = st.booleans()
which = st.integers(0, 1)
limits = st.sampled_from([1, 3, None])
tokens = st.sampled_from(["t1", "t2"])

#: What tells a change of content: ETag and size.
Rows = dict[bytes, tuple[str, int]]


class ObjectLedger(Ledger):
    """The journal of a container."""

    def __init__(self, known: Rows) -> None:
        self.told = dict(known)  # what whoever replays the events knows
        self._ids: dict[str, Any] = {}
        self._places: dict[int, str] = {}
        self.events: list[Event] = []

    def judge(self, new: list[Event], listing: Rows, gone: set[bytes]) -> bool:
        """Judge a look, since which nothing has changed.

        :param listing: what is listed.
        :param gone: what is told of, not listed, and not there.
        :returns: whether a further look has to be silent.
        """
        self.recognize(new)
        last = self.events[-1].seq if self.events else 0
        found: dict[bytes, str] = {}
        for event in new:
            assert event.seq > last
            last = event.seq
            assert event.key not in found, f"{event.key!r} was told twice in one look"
            found[event.key] = event.event
        missing = self.told.keys() - listing.keys()
        expected = {
            key: "modified" if key in self.told else "created"
            for key, row in listing.items()
            if self.told.get(key) != row
        }
        certain = missing <= gone
        for key, kind in found.items():
            if kind == "deleted":
                assert key in missing, f"{key!r} was told to be deleted, and is listed"
            else:
                assert expected.get(key) == kind, f"{key!r} was told as {kind}; expected {expected.get(key)}"
        for key, kind in expected.items():
            assert found.get(key) == kind, f"{key!r} is {kind}, and was not told"
        if certain:
            assert {key for key, kind in found.items() if kind == "deleted"} == missing
        for event in new:
            if event.event == "deleted":
                del self.told[event.key]
            else:
                row = listing[event.key]
                assert (event.etag, event.size) == row
                self.told[event.key] = row
        self.events += new
        return certain


class Consumer:
    def __init__(self, name: str, kinds: tuple[str, ...], ledger: ObjectLedger) -> None:
        self.name = name
        self.kinds = kinds
        self.reader = Reader(ledger, kinds)
        self.poller: Any = None
        self.handed: list[int] = []

    def acknowledge(self) -> None:
        self.poller.acknowledge()
        self.reader.done(self.handed)
        self.handed = []


class History(RuleBasedStateMachine):
    """One history. ``base``, ``url`` and ``aio`` are set by the test that runs it."""

    base: ClassVar[Path]
    url: ClassVar[str | None]
    aio: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.box = Box(self.aio).create()
        self.late: Any = None
        self.pending = False  # whether there are updates for the updater
        self.state = self.url or f"sqlite:///{self.base / (self.box.name + '.db')}"
        self.auditor: Any = None
        self.consumers: list[Consumer] = []

    # -- the container -------------------------------------------------------

    @initialize(before=st.lists(names, max_size=8), existing=st.sampled_from(["ignore", "report"]))
    def begin(self, before: list[str], existing: str) -> None:
        for name in before:
            self.box.put(name, b"before")
        self.existing = existing
        self.ledger = ObjectLedger({} if existing == "report" else self.listing())
        self.consumers = [
            Consumer("one", ("created", "modified", "deleted"), self.ledger),
            Consumer("two", ("created", "deleted"), self.ledger),
        ]
        self.open()

    def listing(self) -> Rows:
        return {
            row["name"].encode(): (row["hash"], row["bytes"])
            for row in self.box.listing()
            if row["bytes"] or not row["name"].endswith("/")
        }

    @rule(name=names, content=contents)
    def put(self, name: str, content: bytes) -> None:
        self.box.put(name, content)
        self.pending = self.pending or self.late is not None

    @rule(some=st.lists(names, min_size=4, max_size=10, unique=True))
    def put_many(self, some: list[str]) -> None:
        for name in some:
            self.put(name, b"many")

    @rule(name=names)
    def delete(self, name: str) -> None:
        self.box.delete(name)
        self.pending = self.pending or self.late is not None

    @rule(some=st.lists(names, min_size=4, max_size=10, unique=True))
    def delete_many(self, some: list[str]) -> None:
        for name in some:
            self.delete(name)

    @rule(name=names)
    def post(self, name: str) -> None:
        self.box.ask("POST", name, headers={"X-Object-Meta-Colour": "red"}, ok=(404,))
        self.pending = self.pending or self.late is not None

    @rule()
    def begin_late(self) -> None:
        """From now on listings are not brought up to date."""
        if self.late is None:
            self.late = self.aio.late_listings()
            self.late.__enter__()

    @rule()
    def catch_up(self) -> None:
        if self.late is not None:
            self.late.__exit__(None, None, None)
            self.late = None
        if self.pending:
            self.aio.once("object-updater")
            self.pending = False

    # -- looking -------------------------------------------------------------

    def make(self, consumer: str, **options: Any) -> Any:
        return SwiftPoller(
            self.box.url(),
            state=self.state,
            consumer=consumer,
            existing=self.existing,
            retries=0,
            clock=FastClock(),
            **options,
        )

    def open(self) -> None:
        self.auditor = self.make("audit")
        for consumer in self.consumers:
            consumer.poller = self.make(consumer.name, events=consumer.kinds)

    def drop(self) -> None:
        """Forget the pollers as a process that is killed does."""
        for poller in [self.auditor, *(consumer.poller for consumer in self.consumers)]:
            shared = poller._shared
            if sharing._shared.pop(shared._key, None) is not None:
                shared.engine.store.close()
                shared.engine.source.end()
            poller._session.close()
            poller._closed = True
        for consumer in self.consumers:
            consumer.handed = []

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.poller.close()
            consumer.reader.done(consumer.handed)
            consumer.handed = []
        self.auditor.close()

    def audit(self) -> bool:
        with self.auditor.next_batch(None) as batch:
            return self._judge(list(batch))

    @rule()
    def look(self) -> None:
        if self.audit():
            assert self.auditor.next_batch(None) == [], "told without a change"

    @rule(later=yes_or_no, status=st.sampled_from([503, 403, 200]))
    def page_fails(self, later: bool, status: int) -> None:
        """The first page can't be had, which is an error; or a later one, which is a gap."""
        where = r"GET [^?]*\?.*marker=" if later else r"GET [^?]*\?(?!.*marker=)"
        with self.aio.fault("proxy", where, status=status, body="rubbish"):
            try:
                events = list(self.auditor.next_batch(None))
            except TargetError:
                assert not later
                events = []
        self._enter(events)

    def _enter(self, events: list[Event]) -> None:
        """Judge what a look with a fault told, together with a further look: nothing was acknowledged yet."""
        batch = self.auditor.next_batch(None)
        assert [event.id for event in batch][: len(events)] == [event.id for event in events]
        self._judge(list(batch))
        batch.ack()

    def _judge(self, events: list[Event]) -> bool:
        listing = self.listing()
        lost = self.ledger.told.keys() - listing.keys()
        gone = {key for key in lost if self.box.head(key.decode()).status_code == 404}
        silent = self.ledger.judge(events, listing, gone)
        for consumer in self.consumers:
            consumer.reader.update()
        return silent

    @rule()
    def heads_fail(self) -> None:
        with self.aio.fault("proxy", "HEAD ", status=503):
            events = list(self.auditor.next_batch(None))
        assert all(event.event != "deleted" for event in events), "there was no proof"
        self._enter(events)

    @rule()
    def container_is_missing(self) -> None:
        before = self.auditor.status().entries
        with self.aio.fault("proxy", f"/{self.box.name}", status=404), pytest.raises(TargetError):
            self.auditor.next_batch(None)
        assert self.auditor.status().entries == before

    # -- consumers -----------------------------------------------------------

    @rule(index=which)
    def get_new_events(self, index: int) -> None:
        consumer = self.consumers[index]
        events = consumer.poller.get_new_events()
        consumer.reader.done(consumer.handed)
        self.audit()
        consumer.handed = consumer.reader.given(events, None, False)

    @rule(index=which, limit=limits, done=yes_or_no)
    def next_batch(self, index: int, limit: int | None, done: bool) -> None:
        consumer = self.consumers[index]
        consumer.acknowledge()
        batch = consumer.poller.next_batch(limit)
        self.audit()
        seqs = consumer.reader.given(batch, limit, False)
        if done:
            batch.ack()
            consumer.reader.done(seqs)

    @rule(index=which, token=tokens, limit=limits)
    def claim(self, index: int, token: str, limit: int | None) -> None:
        consumer = self.consumers[index]
        consumer.acknowledge()
        known = consumer.reader.claims.get(token)
        claim = consumer.poller.claim(token, limit)
        self.audit()
        if known is not None:
            assert [event.seq for event in claim] == known
        else:
            consumer.reader.claimed(token, consumer.reader.given(claim, limit, False))

    # -- starting, stopping, dying -------------------------------------------

    @rule(gently=yes_or_no)
    def restart(self, gently: bool) -> None:
        if gently:
            self.close()
        else:
            self.drop()
        self.open()

    @rule(point=st.sampled_from(["look.commit", "store.commit", "store.look"]), after=yes_or_no)
    def die_looking(self, point: str, after: bool) -> None:
        try:
            with HOOK.at(f"{point}.{'after' if after else 'before'}", 1):
                self.auditor.next_batch(None)
        except Killed:
            self.drop()
            self.open()
        self.audit()

    def teardown(self) -> None:
        try:
            if self.consumers and sys.exc_info()[0] is None:
                self._conclude()
        finally:
            if self.late is not None:
                self.late.__exit__(None, None, None)
            if self.auditor is not None:
                self.drop()
            self.box.remove()
            self.box.close()

    def _conclude(self) -> None:
        """Given time, what was told is what is there, and has been given to all."""
        self.catch_up()
        for _ in range(3):
            self.audit()
        assert self.ledger.told == self.listing()
        for consumer in self.consumers:
            consumer.acknowledge()
            with consumer.poller.next_batch(None) as batch:
                consumer.reader.done(consumer.reader.given(batch, None, True))
            assert consumer.poller.get_new_events() == []


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages, windows and steps of a few entries, so that small containers have many; and the hook."""
    make_small(
        monkeypatch,
        {
            "poller_core.backends.swift.source._PAGE": 4,
            "poller_core.backends.swift.source._CHUNK": 3,
            "poller_core.backends.swift.source._FEW": 2,
            "poller_core.backends.swift.source._SAMPLES": 2,
        },
    )


@pytest.mark.slow
def test_histories(tmp_path, small_aio):
    run(History, 12, 30, base=tmp_path, url=None, aio=small_aio)


@pytest.mark.postgres
def test_histories_on_postgresql(tmp_path, postgres_url, small_aio):
    run(History, 4, 30, base=tmp_path, url=postgres_url, aio=small_aio)
