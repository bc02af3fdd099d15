"""``wakeups()``: who is told, when, of what, and at what cost; nothing is given out."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from poller_core import Event, FilePoller, INotifyPoller, consuming
from tests.faultfs import FaultFileSystem
from tests.test_async import FAR, SOON
from tests.test_delivery import Steps, names
from tests.wakeups.tools import SECONDS, Elsewhere, another_process, drop, listening, listens

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
    monkeypatch.setattr(consuming, "_BACKLOG", 5)
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
    monkeypatch.setattr(consuming, "_BACKLOG", 5)
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
        drop(inbox, "one")
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
        drop(inbox, "new")
        for listener in listeners:
            await listener.count(1)
        count, intervals = listings() - before, (time.monotonic() - start) / 0.5
        # A file that was just written may be looked at a second time within the look.
        assert one_look <= count <= one_look * (1.2 * intervals + 3)
    for poller in pollers:
        await asyncio.to_thread(poller.close)
