"""``waiting()``, ``wakeups()``, ``claim(batch_for=)``, ``trouble``: events are told of, and not given out.

Bounds on time are generous, as in ``test_async.py``. That something is *not* told is seen from how often
the journal was read since: whoever reads again has decided on what was read before.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from poller_core import (
    Event,
    FilePoller,
    INotifyPoller,
    InvalidOption,
    ListingPoller,
    OffsetTooOld,
    PollerClosed,
    TargetNotFound,
    Waiting,
    listed,
)
from tests.faultfs import FaultFileSystem
from tests.races.tools import put, watchable
from tests.test_async import FAR, SOON, no_thread_is_left, soon
from tests.test_delivery import DAY, Steps, names

__all__ = ["no_thread_is_left"]  # a fixture that is used by all

SECONDS = 0.05


class Elsewhere(FilePoller):
    """Of another class, and so with an engine and a connection of its own, as in another process."""


@pytest.fixture
def inbox(tmp_path):
    with watchable(tmp_path) as path:
        (path / "inbox").mkdir()
        yield path / "inbox"


@pytest.fixture(params=[FilePoller, INotifyPoller], ids=["scan", "inotify"])
def kind(request):
    return request.param


@pytest.fixture
def make(inbox, state_url):
    """Makes pollers of the inbox that share a state, and closes them."""
    made: list[FilePoller] = []

    def poller(kind: type[FilePoller] = FilePoller, **options: Any) -> FilePoller:
        made.append(kind(inbox, **{"recurse": True, "state": state_url, **options}))
        return made[-1]

    yield poller
    for one in made:
        one.close()


def drop(inbox, *names: str) -> None:
    """Files that are whole when they come: one look finds one event of each."""
    for name in names:
        made = put(inbox.with_name("made"), name)
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        made.rename(inbox / name)


class Listener:
    """Somebody who is woken, and what was told."""

    def __init__(self, poller: FilePoller, options: dict[str, Any]) -> None:
        self.poller = poller
        self.told: list[Waiting] = []
        self.reads = 0
        self.seen = -1  # how many events there were when it last read
        self.wakeups = poller.wakeups(**options)
        self.task = asyncio.ensure_future(self._listen())

    @property
    def firsts(self) -> list[int | None]:
        return [waiting.first for waiting in self.told]

    async def _listen(self) -> None:
        async for waiting in self.wakeups:
            self.told.append(waiting)

    async def count(self, number: int) -> None:
        await self.until(lambda: len(self.told) >= number, f"{number} were told")
        assert len(self.told) == number

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await soon(lambda: condition() or self.task.done(), what)
        if self.task.done():
            self.task.result()  # raises what ended it
        assert condition()

    async def has_read(self, times: int = 3) -> None:
        """Wait until it has decided on what is there now: it has read so often since."""
        before = self.reads
        await self.until(lambda: self.reads >= before + times, "the journal is read")


async def listens(poller: ListingPoller) -> None:
    """Wait until the first look on behalf of who waits is over."""
    await soon(lambda: poller._subscriptions and poller._subscriptions[0].served, "it listens")


@contextlib.asynccontextmanager
async def listening(poller: FilePoller, **options: Any) -> AsyncIterator[Listener]:
    """Have somebody woken while the block lasts."""
    listener = Listener(poller, options)
    real = poller._pending

    def pending(limit: int | None) -> Any:
        found = real(limit)
        if threading.current_thread().name != "poller-look":
            listener.reads += 1
            listener.seen = len(found.events)
        return found

    poller._pending = pending  # type: ignore[method-assign]
    try:
        yield listener
    finally:
        del poller._pending
        listener.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, PollerClosed):
            await asyncio.wait_for(listener.task, SOON)
        await listener.wakeups.aclose()


OTHER = """
import sys
from poller_core import FilePoller
inbox, state, action, argument = sys.argv[1:]
with FilePoller(inbox, recurse=True, state=state) as poller:
    if action == "claim":
        assert poller.claim(argument, max_age=float("inf"))
    else:
        getattr(poller, action)(int(argument) if argument.isdigit() else argument)
"""


async def another_process(inbox, state: str, action: str, argument: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", OTHER, inbox, state, action, argument], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


# -- waiting -----------------------------------------------------------------


def test_nothing_waits(make):
    waiting = make().waiting()
    assert waiting == Waiting() == Waiting(0, None, None, None)
    assert not waiting


def test_what_waits(make, inbox):
    poller, other = make(), make(consumer="other")
    drop(inbox, *"abcde")
    assert not poller.waiting(), "it looked, and was to look into the journal only"
    before = datetime.now(UTC)
    events = list(other.next_batch())
    waiting = poller.waiting()
    assert waiting
    assert (waiting.count, waiting.first, waiting.last) == (5, events[0].seq, events[-1].seq)
    assert waiting.since == events[0].detected_at
    assert waiting.since is not None
    assert waiting.since.tzinfo is UTC
    assert abs(waiting.since - before) < timedelta(minutes=1)
    assert poller.waiting() == waiting, "it gave something out"
    assert names(poller.next_batch()) == list("abcde")
    poller.next_batch(limit=2).ack()
    assert (poller.waiting().count, poller.waiting().first) == (3, events[2].seq)
    assert other.waiting().count == 5


def test_it_is_counted_no_further_than_asked_for(make, inbox):
    poller = make()
    drop(inbox, *(f"{number:02}" for number in range(12)))
    poller.next_batch()
    assert (poller.waiting(limit=5).count, poller.waiting(limit=5).last) == (5, 5)
    assert poller.waiting(limit=None).count == poller.waiting(limit=12).count == 12
    for limit in (0, -1, True, "ten"):
        with pytest.raises(InvalidOption, match="limit="):
            poller.waiting(limit)


def test_what_was_given_back_waits_from_when_it_was_found(make, inbox):
    clock = Steps()
    poller = make(clock=clock)
    drop(inbox, "a")
    poller.claim("run-1")
    assert not poller.waiting()
    clock.ahead += 3600
    drop(inbox, "b")
    assert names(poller.next_batch()) == ["b"]
    late = poller.waiting()
    poller.release("run-1")
    waiting = poller.waiting()
    assert (waiting.count, waiting.first, waiting.last) == (2, 1, 2)
    assert late.since is not None
    assert waiting.since is not None
    assert late.since - waiting.since >= timedelta(hours=1)


def test_what_is_not_wanted_does_not_wait(make, inbox):
    poller, plain = make(include=["*.csv"], events=["created"]), make(consumer="plain")
    drop(inbox, "a.txt", "b.csv", "c.txt")
    plain.get_new_events()
    assert (poller.waiting().count, poller.waiting().first) == (1, 2)
    (inbox / "b.csv").unlink()
    plain.get_new_events()
    assert poller.waiting().count == 1


def test_the_target_need_not_be_there(make, inbox):
    poller = make()
    drop(inbox, "a")
    poller.next_batch()
    inbox.rename(inbox.parent / "away")
    assert poller.waiting().count == 1
    inbox.with_name("away").rename(inbox)


def test_too_old_to_tell(make, inbox):
    clock = Steps()
    poller = make(clock=clock, retention=DAY, retention_unread=DAY)
    other = make(clock=clock, retention=DAY, retention_unread=DAY, consumer="other")
    drop(inbox, "a")
    other.get_new_events()
    clock.ahead += 3 * DAY
    other.get_new_events()
    other.get_new_events()
    with pytest.raises(OffsetTooOld):
        poller.waiting()


def test_closed_is_closed(make):
    poller = make()
    poller.close()
    for ask in (poller.waiting, lambda: poller.trouble):
        with pytest.raises(PollerClosed):
            ask()


# -- claims: how old a look may be -------------------------------------------


def test_claim_without_a_look(make, inbox):
    fs = FaultFileSystem()
    poller = make(fs=fs)
    drop(inbox, "a")
    poller.next_batch()
    drop(inbox, "b")
    inbox.rename(inbox.parent / "away")
    asked = Counter(fs.calls)
    assert names(poller.claim("run-1", max_age=math.inf)) == ["a"]
    assert poller.claim("run-2", max_age=math.inf) == []
    assert fs.calls == asked, "it looked"
    assert poller.trouble is None
    with pytest.raises(TargetNotFound):
        poller.claim("run-2")
    assert names(poller.claim("run-1")) == ["a"]
    inbox.with_name("away").rename(inbox)
    assert names(poller.claim("run-2")) == ["b"]


def test_another_process_look_serves_who_never_looked(make, inbox, kind):
    clock = Steps()
    make().close()
    one, two = make(Elsewhere, clock=clock), make(kind, clock=clock)
    assert one._engine is not two._engine
    drop(inbox, "a")
    one.next_batch()
    drop(inbox, "b")
    assert names(two.claim("run-1", max_age=60)) == ["a"]
    clock.ahead += 61  # now that look is too old
    assert names(two.claim("run-2", max_age=60)) == ["b"]


def test_another_process_look_serves_who_scans(make, inbox):
    clock = Steps()
    one, two = make(Elsewhere, clock=clock), make(clock=clock)
    two.get_new_events()
    clock.ahead += 100
    drop(inbox, "a")
    one.next_batch()
    drop(inbox, "b")
    assert names(two.claim("run-1", max_age=60)) == ["a"]


def test_who_watches_relies_on_the_watch(make, inbox):
    """What the watch has noticed would be waited for, else, until the other's look is too old."""
    clock = Steps()
    one, two = make(Elsewhere, clock=clock), make(INotifyPoller, clock=clock)
    two.get_new_events()
    clock.ahead += 100
    drop(inbox, "a")
    one.next_batch()
    drop(inbox, "b")
    assert names(two.claim("run-1", max_age=60)) == ["a", "b"]


# -- claims: collecting ------------------------------------------------------


def test_claim_collects_until_the_limit_is_reached(make, inbox):
    poller = make()
    drop(inbox, "a", "b")
    assert poller.claim("run-1", limit=3, batch_for=FAR) == []
    assert poller.claims() == []
    assert poller.waiting().count == 2
    drop(inbox, "c", "d")
    first = poller.claim("run-1", limit=3, batch_for=FAR)
    assert names(first) == ["a", "b", "c"]
    # "d" is collected anew, and the claim that is made stays what it is.
    assert poller.claim("run-2", limit=3, batch_for=FAR) == []
    again = poller.claim("run-1", limit=3, batch_for=FAR)
    assert again == first
    assert [event.id for event in again] == [event.id for event in first]
    assert names(poller.claim("run-2", limit=3)) == ["d"]


@pytest.mark.parametrize("limit", [1000, None])
def test_claim_collects_until_the_time_is_over(make, inbox, limit):
    clock = Steps()
    poller = make(clock=clock)
    drop(inbox, "a")
    assert poller.claim("run-1", limit, batch_for=timedelta(hours=1)) == []
    clock.ahead += 1800
    drop(inbox, "b")
    assert poller.claim("run-1", limit, batch_for=3600) == []
    clock.ahead += 1801
    drop(inbox, "c")
    # It goes by the first one; those that came meanwhile go with it.
    claim = poller.claim("run-1", limit, batch_for=3600)
    assert names(claim) == ["a", "b", "c"]
    drop(inbox, "d")
    assert poller.claim("run-2", limit, batch_for=3600) == []
    assert poller.claim("run-1", limit, batch_for=3600) == claim


def test_a_retry_is_not_made_to_wait(make, inbox, state_url):
    """Whoever has claimed gets the same again, though by then too few wait for a batch; in any process."""
    poller = make()
    drop(inbox, "a", "b")
    claim = poller.claim("run-1", limit=2, batch_for=FAR)
    assert names(claim) == ["a", "b"]
    for again in (poller, make(Elsewhere)):
        assert again.claim("run-1", limit=1000, batch_for=FAR) == claim


def test_what_is_not_wanted_makes_no_batch(make, inbox):
    clock = Steps()
    poller = make(clock=clock, include=["*.csv"])
    drop(inbox, "1.txt", "2.txt")
    assert poller.claim("run-1", limit=2, batch_for=60) == []
    clock.ahead += 50
    drop(inbox, "a.csv")
    assert poller.claim("run-1", limit=2, batch_for=60) == []
    clock.ahead += 50  # for longer than that only the others have waited
    assert poller.claim("run-1", limit=2, batch_for=60) == []
    clock.ahead += 20
    assert names(poller.claim("run-1", limit=2, batch_for=60)) == ["a.csv"]


def test_what_was_given_back_has_waited_already(make, inbox):
    clock = Steps()
    poller = make(clock=clock)
    drop(inbox, "a")
    poller.claim("run-1")
    clock.ahead += 100
    poller.release("run-1")
    assert names(poller.claim("run-2", batch_for=60)) == ["a"]


def test_a_clock_that_was_set_back_holds_no_batch_for_ever(make, inbox):
    clock = Steps()
    poller = make(clock=clock)
    drop(inbox, "a")
    poller.next_batch()
    clock.ahead -= 30  # two machines' clocks differ a little: that is no reason to give it early
    assert poller.claim("run-1", batch_for=60, max_age=math.inf) == []
    clock.ahead -= DAY
    assert names(poller.claim("run-1", batch_for=60, max_age=math.inf)) == ["a"]


@pytest.mark.parametrize("batch_for", [-1, "soon", math.inf, math.nan, None, True])
def test_batch_for_that_cant_be(make, batch_for):
    poller = make()
    with pytest.raises(InvalidOption, match="batch_for="):
        poller.claim("run-1", batch_for=batch_for)


# -- wakeups: when -----------------------------------------------------------


async def test_told_at_once_and_given_nothing(make, inbox, kind):
    poller = make(kind)
    interval = FAR if kind is INotifyPoller else SECONDS
    async with listening(poller, interval=interval, remind=FAR) as listener:
        await listens(poller)
        for number in range(1, 4):
            await asyncio.to_thread(drop, inbox, f"file{number}")
            await listener.count(number)
            assert listener.told[-1].first == number
            assert listener.told[-1].count == 1
            assert listener.told[-1] == poller.waiting()
            claim = await asyncio.to_thread(poller.claim, f"run-{number}", max_age=math.inf)
            assert names(claim) == [f"file{number}"]


async def test_told_of_what_waited_before(make, inbox, kind):
    poller = make(kind)
    drop(inbox, "a", "b")
    make(Elsewhere, consumer="other").next_batch()
    async with listening(poller, interval=FAR, remind=FAR) as listener:
        await listener.count(1)
        assert listener.told[0].count == 2


async def test_told_again_while_nobody_takes_it(make, inbox, kind):
    poller = make(kind)
    drop(inbox, "a")
    start = time.monotonic()
    async with listening(poller, interval=FAR, remind=0.2) as listener:
        await listener.until(lambda: len(listener.told) >= 4, "it is told again")
        assert time.monotonic() - start >= 0.6 - 0.1, "it was told more often than asked for"
        assert set(listener.firsts) == {1}


async def test_not_told_one_by_one(make, inbox, kind):
    """Events that come while others wait are the worker's to find, until it is time to remind."""
    poller = make(kind)
    drop(inbox, "a")
    async with listening(poller, interval=SECONDS, remind=FAR) as listener:
        await listener.count(1)
        drop(inbox, "b", "c")
        await listener.until(lambda: poller.waiting().count == 3, "they are found")
        await listener.has_read()
        await listener.count(1)


async def test_not_told_again_once_taken(make, inbox, kind):
    poller = make(kind)
    drop(inbox, "a")
    async with listening(poller, interval=SECONDS, remind=0.2) as listener:
        await listener.until(lambda: listener.told, "it is told")
        await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf)
        await listener.has_read(2)
        told = len(listener.told)
        await listener.has_read(4)
        await listener.count(told)


async def test_told_at_once_of_the_next_ones(make, inbox, kind):
    """Also if nobody noticed, between the two, that the first ones were taken."""
    poller = make(kind)
    drop(inbox, "a")
    async with listening(poller, interval=FAR, remind=FAR) as listener:
        await listener.count(1)
        await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf)
        drop(inbox, "b")
        await asyncio.to_thread(poller._engine.look)
        poller._shared.pump.kick()
        await listener.count(2)
        assert listener.firsts == [1, 2]


async def test_told_again_when_the_consumer_has_moved_and_there_is_more(make, inbox, kind):
    poller, worker = make(kind), make(Elsewhere)
    drop(inbox, *"abcde")
    async with listening(poller, interval=SECONDS, remind=FAR) as listener:
        for number, first in enumerate((1, 3, 5), 1):
            await listener.count(number)
            assert listener.told[-1].first == first
            assert listener.told[-1].count == 6 - first
            await asyncio.to_thread(worker.claim, f"run-{number}", 2, max_age=math.inf)


async def test_counted_no_further_than_asked_for(make, inbox):
    poller = make()
    drop(inbox, *(f"{number:02}" for number in range(12)))
    async with listening(poller, interval=FAR, remind=FAR, limit=5) as listener:
        await listener.count(1)
        assert (listener.told[0].count, listener.told[0].last) == (5, 5)


async def test_more_than_the_pump_reads(make, inbox, monkeypatch):
    """It reads ahead for consumers that want little; who wants all reads for itself."""
    poller = make()
    drop(inbox, *(f"{number:02}" for number in range(12)))
    async with listening(poller, interval=FAR, remind=FAR, limit=None) as listener:
        await listener.count(1)
        assert listener.told[0].count == 12


async def test_events_given_back_here_are_told_at_once(make, inbox, kind):
    poller, worker = make(kind), make(kind)
    drop(inbox, "a", "b")
    async with listening(poller, interval=FAR, remind=FAR) as listener:
        await listener.count(1)
        await asyncio.to_thread(worker.claim, "run-1", max_age=math.inf)
        await asyncio.to_thread(worker.release, "run-1")
        await listener.count(2)
        await asyncio.to_thread(worker.claim, "run-2", max_age=math.inf)
        await asyncio.to_thread(worker.rewind, 1)
        await listener.count(3)
        assert listener.firsts == [1, 1, 1]


async def test_anothers_release_is_not_ours(make, inbox, kind):
    poller, other = make(kind), make(kind, consumer="other")
    drop(inbox, "a", "b")
    async with listening(poller, interval=SECONDS, remind=FAR) as listener:
        await listener.count(1)
        await asyncio.to_thread(other.claim, "run-1", max_age=math.inf)
        await asyncio.to_thread(other.release, "run-1")
        await listener.has_read()
        await listener.count(1)


async def test_another_process_claims(make, inbox, state_url, kind):
    poller = make(kind)
    drop(inbox, "a", "b")
    async with listening(poller, interval=FAR, remind=0.2) as listener:
        await listener.until(lambda: listener.told, "it is told")
        await another_process(inbox, state_url, "claim", "run-1")
        await listener.has_read(2)
        told = len(listener.told)
        await listener.has_read(3)
        await listener.count(told)


@pytest.mark.parametrize(
    ("action", "argument"), [("release", "run-1"), ("rewind", "1"), ("rewind", "beginning")]
)
async def test_another_process_gives_back(make, inbox, state_url, action, argument):
    poller = make()
    drop(inbox, "a", "b")
    assert len(poller.claim("run-1")) == 2
    async with listening(poller, interval=FAR, remind=0.2) as listener:
        await listener.has_read()
        assert not listener.told
        await another_process(inbox, state_url, action, argument)
        await listener.until(lambda: listener.told, "it is told of what was given back")
        assert listener.told[0].count == 2
    assert names(poller.claim("run-2", max_age=math.inf)) == ["a", "b"]


async def test_another_process_claims_and_gives_back_what_was_told(make, inbox, state_url):
    poller = make()
    drop(inbox, "a")
    async with listening(poller, interval=FAR, remind=1.0) as listener:
        await listener.until(lambda: listener.told, "it is told")
        await another_process(inbox, state_url, "claim", "run-1")
        await another_process(inbox, state_url, "release", "run-1")
        told = len(listener.told)
        await listener.until(lambda: len(listener.told) > told, "it is told of what was given back")


async def test_what_was_taken_and_given_back_is_new(make, inbox):
    """Whoever saw that the events were taken tells of them at once when it sees them again."""
    poller, worker = make(include=["*.csv"]), make(Elsewhere, include=["*.csv"])
    drop(inbox, "a.csv")
    async with listening(poller, interval=SECONDS, remind=FAR) as listener:
        await listener.count(1)
        await asyncio.to_thread(worker.claim, "run-1", max_age=math.inf)
        await listener.until(lambda: listener.seen == 0, "it sees that they are taken")
        await asyncio.to_thread(worker.release, "run-1")
        drop(inbox, "b.txt")  # gives it reason to read
        await listener.count(2)
        assert listener.firsts == [1, 1]


async def test_another_process_looks(make, inbox):
    """What another one found is told, though our own look finds nothing new then."""
    poller, other = make(), make(Elsewhere, consumer="other")
    async with listening(poller, interval=SECONDS, remind=FAR) as listener:
        await listens(poller)
        drop(inbox, "a")
        await asyncio.to_thread(other.next_batch)
        await listener.count(1)


async def test_what_is_not_wanted_wakes_nobody(make, inbox, kind):
    poller = make(kind, include=["*.csv"], events=["created", "modified"])
    plain = make(kind, consumer="plain")
    async with listening(poller, interval=SECONDS, remind=SECONDS) as listener:
        drop(inbox, "a.txt", "deep/b.txt")
        await listener.until(lambda: plain.waiting().count == 2, "they are found")
        await listener.has_read()
        assert not listener.told
        drop(inbox, "c.csv")
        await listener.until(lambda: listener.told, "it is told")
        assert (listener.told[0].count, listener.told[0].first) == (1, 3)
        await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf)
        await listener.has_read(2)
        told = len(listener.told)
        (inbox / "c.csv").unlink()
        await listener.until(lambda: plain.waiting().count == 4, "it is found")
        await listener.has_read()
        await listener.count(told)


async def test_what_is_not_wanted_does_not_hold_up_the_journal(make, inbox, monkeypatch):
    monkeypatch.setattr(listed, "_BACKLOG", 5)
    poller = make(include=["*.csv"])
    async with listening(poller, interval=SECONDS, remind=SECONDS, limit=3) as listener:
        drop(inbox, *(f"{number}.txt" for number in range(8)))
        await listener.until(lambda: poller.status().consumers[0].seq >= 8, "they are passed over")
        assert not listener.told


# -- wakeups: collecting -----------------------------------------------------


async def test_wakes_when_the_batch_is_full(make, inbox, kind):
    poller = make(kind)
    async with listening(poller, interval=SECONDS, remind=SECONDS, limit=3, batch_for=FAR) as listener:
        drop(inbox, "a", "b")
        await listener.until(lambda: poller.waiting().count == 2, "they are found")
        await listener.has_read()
        assert not listener.told
        drop(inbox, "c", "d")
        await listener.until(lambda: listener.told, "it is told")
        assert (listener.told[0].count, listener.told[0].first) == (3, 1)
        assert len(await asyncio.to_thread(poller.claim, "run-1", 3, max_age=math.inf, batch_for=FAR)) == 3
        await listener.has_read(2)
        told = len(listener.told)
        assert poller.waiting().count == 1
        await listener.has_read()
        await listener.count(told)


async def test_wakes_when_the_time_is_over(make, inbox, kind):
    clock = Steps()
    poller = make(kind, clock=clock)
    drop(inbox, "a")
    async with listening(poller, interval=SECONDS, remind=FAR, batch_for=timedelta(hours=1)) as listener:
        await listener.until(lambda: poller.waiting().count == 1, "it is found")
        clock.ahead += 1800
        drop(inbox, "b")
        await listener.until(lambda: poller.waiting().count == 2, "it is found")
        await listener.has_read()
        assert not listener.told
        clock.ahead += 1801
        await listener.count(1)
        assert listener.told[0].count == 2
        # Who was woken then gets them, too.
        assert len(await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf, batch_for=3600)) == 2


async def test_wakes_when_the_time_is_over_though_nothing_happens(make, inbox, kind):
    poller = make(kind)
    drop(inbox, "a")
    async with listening(poller, interval=FAR, remind=FAR, batch_for=0.5) as listener:
        await listener.count(1)
        since = listener.told[0].since
        assert since is not None
        assert time.time() >= since.timestamp() + 0.5
        assert len(await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf, batch_for=0.5)) == 1


async def test_a_worker_that_is_woken_gets_all_and_nothing_twice(make, inbox, kind):
    """The whole of it: batches of a few, a worker with its own connection, and events that go on coming."""
    poller, worker = make(kind), make(Elsewhere)
    wanted = [f"{number:03}" for number in range(60)]
    got: list[Event] = []

    async def write() -> None:
        for name in wanted:
            await asyncio.to_thread(drop, inbox, name)

    async def work() -> None:
        options = {"limit": 7, "batch_for": 0.1}
        wakeups = poller.wakeups(interval=SECONDS, remind=0.5, **options)
        async with contextlib.aclosing(wakeups):
            async for waiting in wakeups:
                token = f"run-{waiting.first}"
                claim = await asyncio.to_thread(worker.claim, token, max_age=math.inf, **options)
                assert 1 <= len(claim) <= 7
                got.extend(claim)
                if len(got) >= len(wanted):
                    return

    writing = asyncio.ensure_future(write())
    await asyncio.wait_for(work(), 5 * SOON)
    await writing
    assert names(got) == names(sorted(got, key=lambda event: event.seq))
    assert sorted(names(got)) == wanted


# -- the loop ----------------------------------------------------------------


async def test_nothing_of_it_runs_on_the_loop(make, inbox, kind, monkeypatch):
    monkeypatch.setattr(listed, "_BACKLOG", 5)
    poller = make(kind, include=["*.csv"])
    threads: set[int] = set()
    database = poller._engine.store.database
    real = database.transaction

    def transaction(*args: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return real(*args, **options)

    monkeypatch.setattr(database, "transaction", transaction)
    for limit in (3, None):
        threads.clear()
        async with listening(poller, interval=SECONDS, remind=SECONDS, limit=limit) as listener:
            drop(inbox, *(f"{limit}-{number}.txt" for number in range(8)))
            await listener.has_read(5)
            drop(inbox, f"{limit}.csv")
            await listener.until(lambda: len(listener.told) >= 2, "it is told, and again")
        assert threads
        assert threading.get_ident() not in threads
        poller.claim(f"run-{limit}")


async def test_stalled_disk_does_not_stop_the_loop(inbox, kind):
    fs = FaultFileSystem()
    poller = await asyncio.to_thread(kind, inbox, fs=fs)
    stall = fs.stall("*", None)
    async with listening(poller, interval=FAR, remind=FAR) as listener:
        await listener.until(stall.reached.is_set, "the look begins")
        before = time.perf_counter()
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert time.perf_counter() - before < SOON
        assert not listener.told
        put(inbox / "one")
        stall.go_on.set()
        if kind is FilePoller:
            poller._shared.pump.kick()
        await listener.count(1)
    await asyncio.to_thread(poller.close)


async def test_ten_consumers_cost_one_listing(inbox, tmp_path):
    fs = FaultFileSystem()
    pollers = [FilePoller(inbox, fs=fs, state=tmp_path / "state.db", consumer=f"c{n}") for n in range(10)]

    def listings() -> int:
        return fs.calls["listdir"] + fs.calls["scandir"]

    async with contextlib.AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(listening(poller, interval=0.5, remind=FAR)) for poller in pollers
        ]
        for poller in pollers:
            await listens(poller)
        before = listings()
        await asyncio.to_thread(pollers[0]._engine.look)
        one_look = listings() - before
        before, start = listings(), time.monotonic()
        put(inbox / "new")
        for listener in listeners:
            await listener.count(1)
        count, intervals = listings() - before, (time.monotonic() - start) / 0.5
        # A file that was just written may be looked at a second time within the look.
        assert one_look <= count <= one_look * (1.2 * intervals + 3)
    for poller in pollers:
        await asyncio.to_thread(poller.close)


# -- ending ------------------------------------------------------------------


def left_over(poller: ListingPoller) -> list[object]:
    return [*poller._subscriptions, *poller._shared.pump._subscriptions]


async def test_cancelled_it_leaves_nothing_behind(make, inbox, kind):
    poller = make(kind)
    for _ in range(5):
        task = asyncio.ensure_future(anext(poller.wakeups(interval=FAR, remind=FAR)))
        await listens(poller)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, SOON)
        assert left_over(poller) == []
    drop(inbox, "a")
    async with listening(poller, interval=FAR, remind=FAR) as listener:
        await listener.count(1)
    assert left_over(poller) == []


async def test_left_in_the_middle_it_leaves_nothing_behind(make, inbox):
    poller = make()
    drop(inbox, "a")
    async with contextlib.aclosing(poller.wakeups(interval=FAR)) as wakeups:
        async for waiting in wakeups:
            assert waiting.first == 1
            break
    assert left_over(poller) == []


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("way", ["wakeups", "batches"])
async def test_cancelled_just_when_there_is_news(inbox, steps, way):
    """Who cancels a task must not have to do it twice, whatever happens at that moment."""
    with FilePoller(inbox) as poller:
        if way == "wakeups":
            task: Any = asyncio.ensure_future(anext(poller.wakeups(interval=FAR, remind=FAR)))
        else:
            put(inbox / "one")
            batches = poller.batches(interval=FAR)
            await asyncio.wait_for(anext(batches), SOON)
            task = asyncio.ensure_future(anext(batches))  # pauses, as that one was not acknowledged
        await listens(poller)
        await soon(poller._subscriptions[0].back.is_set, "it waits")
        poller._subscriptions[0]._news.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=SOON / 4)
        if not done:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done, "it went on as if nothing had been said"


async def test_closing_the_poller_ends_who_waits(make, kind):
    poller = make(kind)
    tasks = [asyncio.ensure_future(anext(poller.wakeups(interval=FAR))) for _ in range(3)]
    await soon(lambda: len(poller._subscriptions) == 3 and poller._subscriptions[2].served, "they listen")
    await asyncio.to_thread(poller.close)
    for task in tasks:
        with pytest.raises(PollerClosed):
            await asyncio.wait_for(task, SOON)
    with pytest.raises(PollerClosed):
        await anext(poller.wakeups())


async def test_closing_on_the_loop_itself_does_not_hang(make, kind):
    poller = make(kind)
    task = asyncio.ensure_future(anext(poller.wakeups(interval=FAR)))
    await listens(poller)
    poller.close()
    with pytest.raises(PollerClosed):
        await asyncio.wait_for(task, SOON)


async def test_closing_ends_who_was_told_and_asks_again(make, inbox, kind):
    poller = make(kind)
    drop(inbox, "a")
    wakeups = poller.wakeups(interval=FAR, remind=FAR)
    assert (await asyncio.wait_for(anext(wakeups), SOON)).count == 1
    await asyncio.to_thread(poller.close)
    with pytest.raises(PollerClosed):
        await asyncio.wait_for(anext(wakeups), SOON)


@pytest.mark.parametrize("moment", range(5))
async def test_closing_while_the_journal_is_read(inbox, kind, state_url, moment):
    """Whatever it does just then, it ends with what says why."""
    poller = kind(inbox, state=state_url)
    put(inbox / "one")
    wakeups = poller.wakeups(interval=0.001, remind=0.001)

    async def listen() -> None:
        async for _ in wakeups:
            pass

    task = asyncio.ensure_future(listen())
    await listens(poller)
    await asyncio.sleep(0.01 * moment)
    await asyncio.to_thread(poller.close)
    with pytest.raises(PollerClosed):
        await asyncio.wait_for(task, SOON)


async def test_closing_one_of_two_that_share(make, inbox, kind):
    one, two = make(kind, consumer="one"), make(kind, consumer="two")
    first = asyncio.ensure_future(anext(one.wakeups(interval=0.1)))
    async with listening(two, interval=0.1, remind=FAR) as listener:
        for poller in (one, two):
            await listens(poller)
        await asyncio.to_thread(one.close)
        with pytest.raises(PollerClosed):
            await asyncio.wait_for(first, SOON)
        drop(inbox, "a")
        await listener.count(1)


# -- trouble -----------------------------------------------------------------


async def test_target_that_vanishes_and_comes_back(make, inbox, kind):
    put(inbox / "one")
    poller = make(kind)
    assert poller.trouble is None
    async with listening(poller, interval=0.1, remind=FAR) as listener:
        await listens(poller)
        inbox.rename(inbox.parent / "away")
        await listener.until(lambda: poller.trouble, "the target is missed")
        assert str(inbox) in (poller.trouble or "")
        assert poller.trouble == poller.status().error
        assert not listener.told, "what was not seen is not gone"
        inbox.with_name("away").rename(inbox)
        await listener.until(lambda: poller.trouble is None, "the target is there again")
        put(inbox / "two")
        await listener.count(1)
    assert [(event.key, event.event) for event in poller.claim("run-1")] == [(b"two", "created")]


async def test_told_of_what_waits_though_the_target_is_away(make, inbox, kind):
    poller = make(kind)
    drop(inbox, "a")
    poller.next_batch()
    inbox.rename(inbox.parent / "away")
    async with listening(poller, interval=FAR, remind=FAR) as listener:
        await listener.count(1)
        await listener.until(lambda: poller.trouble, "the target is missed")
        assert names(await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf)) == ["a"]
    inbox.with_name("away").rename(inbox)


def test_parts_that_cant_be_listed(make, inbox):
    fs = FaultFileSystem()
    drop(inbox, "a", "b/1", "c/1", "d")
    poller = make(fs=fs)
    assert poller.trouble is None
    for part in (b"b", b"c"):
        fs.fail("*", part, errno.EIO)
    drop(inbox, "e")
    assert names(poller.get_new_events()) == ["e"]
    trouble = poller.trouble
    assert trouble is not None
    assert "Input/output error" in trouble
    assert trouble.startswith(f"{poller.status().gaps} part(s) can't be listed")
    fs.rules.clear()
    assert poller.get_new_events() == []
    assert poller.trouble is None


def test_trouble_while_it_changes(make):
    """Another thread looks, and writes one figure after the other."""
    poller = make()
    health = poller._engine.health
    health.gaps, health.reasons = 1, []
    assert poller.trouble is None or "1 part(s)" in poller.trouble
    health.gaps, health.reasons = 0, ["Input/output error: ROOT/b/"]
    assert poller.trouble is None or "1 part(s)" in poller.trouble


def test_trouble_costs_no_look(make, inbox):
    fs = FaultFileSystem()
    poller = make(fs=fs)
    asked = Counter(fs.calls)
    inbox.rename(inbox.parent / "away")
    assert poller.trouble is None
    assert fs.calls == asked
    inbox.with_name("away").rename(inbox)


# -- errors ------------------------------------------------------------------


async def test_too_old_is_raised_to_this_consumer_alone(make, inbox):
    options = {"retention": 0, "retention_unread": 0}
    old, new = make(consumer="old", **options), make(consumer="new", **options)
    drop(inbox, "a")
    new.get_new_events()
    new.acknowledge()
    engine = new._engine
    engine.store.prune(engine.target_id, time.time() + 10, 0, 0)
    with pytest.raises(OffsetTooOld):
        await asyncio.wait_for(anext(old.wakeups(interval=SECONDS)), SOON)
    async with listening(new, interval=SECONDS, remind=FAR) as listener:
        drop(inbox, "b")
        await listener.count(1)
    assert left_over(old) == []


@pytest.mark.parametrize("value", [-1, "soon", math.nan, math.inf, None, True])
@pytest.mark.parametrize("name", ["interval", "remind", "batch_for"])
async def test_times_that_cant_be(make, name, value):
    poller = make()
    with pytest.raises(InvalidOption, match=f"{name}="):
        await anext(poller.wakeups(**{name: value}))
    assert left_over(poller) == []


async def test_limit_that_cant_be(make):
    poller = make()
    with pytest.raises(InvalidOption, match="limit=0"):
        await anext(poller.wakeups(limit=0))
    assert left_over(poller) == []


async def test_no_time_at_all_is_not_no_pause_at_all(make, inbox):
    """It may tell as often as it can; others have to get on, too."""
    poller = make()
    drop(inbox, "a")
    async with listening(poller, interval=0, remind=0) as listener:
        await listener.until(lambda: len(listener.told) >= 5, "it is told again and again")
        await asyncio.to_thread(poller.claim, "run-1", max_age=math.inf)
        await listener.has_read(2)
        told = len(listener.told)
        await listener.has_read(3)
        await listener.count(told)
