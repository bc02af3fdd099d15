"""``batches()``: wakes, never blocks the loop, gives again what was not acknowledged, ends when told to.

Bounds on time are generous: they tell "at once" from "at the next interval",
which is set to be far away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poller_core import (
    FilePoller,
    INotifyPoller,
    InvalidOption,
    OffsetTooOld,
    PollerClosed,
    StateDamaged,
    StateLocked,
)
from tests.faultfs import FaultFileSystem
from tests.races.tools import land, put, watchable

#: Longer than any test takes: what happens before then was not waited for.
FAR = 300.0
#: What "at once" may take on a machine that does other things as well.
SOON = 20.0


@pytest.fixture
def inbox(tmp_path):
    with watchable(tmp_path) as path:
        (path / "inbox").mkdir()
        yield path / "inbox"


@pytest.fixture(params=[FilePoller, INotifyPoller], ids=["scan", "inotify"])
def kind(request):
    return request.param


async def soon(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        await asyncio.sleep(0.01)


def keys(events) -> list[bytes]:
    return [event.key for event in events]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    end = time.monotonic() + SOON
    while any(thread.name == "poller-look" for thread in threading.enumerate()):
        assert time.monotonic() < end, "a thread still looks at a target that nobody waits for"
        time.sleep(0.01)


# -- waking ------------------------------------------------------------------


async def test_wakes_on_a_hint(inbox):
    with INotifyPoller(inbox, recurse=True) as poller:
        batches = poller.batches(interval=FAR)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.3)
        for number in range(5):
            await asyncio.to_thread(put, inbox / "new" / str(number) / "file")
            batch = await asyncio.wait_for(waiting, SOON)
            assert keys(batch) == [b"new/%d/file" % number]
            await batch.ack()
            waiting = asyncio.ensure_future(anext(batches))
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await batches.aclose()


async def test_first_batch_is_not_waited_for(inbox, kind, tmp_path):
    with kind(inbox, state=tmp_path / "state.db") as poller:
        put(inbox / "one")
        batches = poller.batches(interval=FAR)
        batch = await asyncio.wait_for(anext(batches), SOON)
        assert keys(batch) == [b"one"]
        await batch.ack()
        await batches.aclose()


async def test_held_subjects_are_looked_at_when_they_are_due(inbox, kind):
    """A long interval does not keep a file that has become quiet."""
    with kind(inbox, settle=0.5) as poller:
        batches = poller.batches(interval=FAR)
        put(inbox / "one")
        batch = await asyncio.wait_for(anext(batches), SOON)
        assert keys(batch) == [b"one"]
        await batch.ack()
        await batches.aclose()


async def test_looks_at_every_interval(inbox):
    with FilePoller(inbox) as poller:
        batches = poller.batches(interval=0.05)
        told = []
        for number in range(3):
            land(inbox / str(number))
            batch = await asyncio.wait_for(anext(batches), SOON)
            told += keys(batch)
            await batch.ack()
        await batches.aclose()
        assert told == [b"0", b"1", b"2"]


async def test_limit(inbox, kind):
    for number in range(25):
        put(inbox / f"{number:02}")
    with kind(inbox, existing="report") as poller:
        sizes: list[int] = []
        batches = poller.batches(interval=FAR, limit=10)
        while sum(sizes) < 25:
            async with await asyncio.wait_for(anext(batches), SOON) as batch:
                sizes.append(len(batch))
        await batches.aclose()
        assert sizes == [10, 10, 5]


# -- not blocking ------------------------------------------------------------


@contextlib.contextmanager
def outside() -> Iterator[set[str]]:
    """What this thread asks of the kernel's file systems and of SQLite, by name."""
    asked: set[str] = set()

    def note(frame: object, event: str, called: Any) -> None:
        if event == "c_call":
            owner = getattr(called, "__self__", None)
            module = called.__module__ or getattr(owner, "__name__", None) or type(owner).__module__
            if module in ("posix", "sqlite3", "_sqlite3"):
                asked.add(f"{module}.{called.__name__}")

    sys.setprofile(note)
    try:
        yield asked
    finally:
        sys.setprofile(None)


async def test_nothing_is_listed_or_written_on_the_loop(inbox, kind, tmp_path):
    def fill() -> None:
        for folder in range(10):
            (inbox / str(folder)).mkdir()
            for number in range(500):
                (inbox / str(folder) / str(number)).touch()

    await asyncio.to_thread(fill)
    poller = await asyncio.to_thread(
        kind, inbox, recurse=True, state=tmp_path / "state.db", existing="report"
    )
    count = 0
    with outside() as asked:
        batches = poller.batches(interval=FAR, limit=200)
        async with asyncio.timeout(240):
            async for batch in batches:
                count += len(batch)
                await batch.ack()
                if count == 5000:
                    break
        await batches.aclose()
    assert asked <= {"posix.getpid", "posix.fspath", "posix.eventfd_write"}
    with outside() as asked:  # and it would be seen
        poller.get_new_events()
        poller.close()
    assert {name.partition(".")[0] for name in asked} >= {"posix", "sqlite3"}


async def test_stalled_disk_does_not_stop_the_loop(inbox, kind):
    fs = FaultFileSystem()
    poller = await asyncio.to_thread(kind, inbox, fs=fs)
    stall = fs.stall("*", None)
    batches = poller.batches(interval=FAR)
    waiting = asyncio.ensure_future(anext(batches))
    await soon(stall.reached.is_set, "the look begins")
    before = time.perf_counter()
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not waiting.done()
    assert time.perf_counter() - before < SOON
    put(inbox / "one")
    stall.go_on.set()
    batch = await asyncio.wait_for(waiting, SOON) if kind is INotifyPoller else None
    if batch is None:
        poller._shared.pump.kick()
        batch = await asyncio.wait_for(waiting, SOON)
    assert keys(batch) == [b"one"]
    await batches.aclose()
    await asyncio.to_thread(poller.close)


# -- again -------------------------------------------------------------------


async def test_what_was_not_acknowledged_comes_again(inbox, kind):
    with kind(inbox) as poller:
        put(inbox / "one")
        batches = poller.batches(interval=0.05)
        first = await asyncio.wait_for(anext(batches), SOON)
        land(inbox / "two")
        second = await asyncio.wait_for(anext(batches), SOON)
        assert [event.id for event in second][: len(first)] == [event.id for event in first]
        with contextlib.suppress(ZeroDivisionError):
            async with second:
                raise ZeroDivisionError
        assert not second.acknowledged
        seen: set[bytes] = set()
        while len(seen) < 2:
            async with await asyncio.wait_for(anext(batches), SOON) as batch:
                seen |= set(keys(batch))
        assert batch.acknowledged
        await batch.ack()
        land(inbox / "three")
        batch = await asyncio.wait_for(anext(batches), SOON)
        assert keys(batch) == [b"three"]
        await batches.aclose()


async def test_left_in_the_middle_nothing_is_lost(inbox, kind, tmp_path):
    state = tmp_path / "state.db"
    with kind(inbox, state=state) as poller:
        put(inbox / "one")
        async for batch in poller.batches(interval=FAR):
            first = batch
            break
    with kind(inbox, state=state) as poller:
        assert [event.id for event in poller.get_new_events()] == [event.id for event in first]


# -- ending ------------------------------------------------------------------


async def test_cancelled_while_waiting(inbox, kind):
    with kind(inbox) as poller:

        async def consume() -> None:
            async for batch in poller.batches(interval=FAR):
                await batch.ack()

        for _ in range(5):
            task = asyncio.ensure_future(consume())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, SOON)
        # It can be used on as if nothing had happened.
        put(inbox / "one")
        batches = poller.batches(interval=FAR)
        assert keys(await asyncio.wait_for(anext(batches), SOON)) == [b"one"]
        await batches.aclose()
        assert keys(poller.get_new_events()) == [b"one"]


async def test_closing_the_poller_ends_who_waits(inbox, kind):
    poller = kind(inbox)
    tasks = [asyncio.ensure_future(anext(poller.batches(interval=FAR))) for _ in range(3)]
    await asyncio.sleep(0.2)
    await asyncio.to_thread(poller.close)
    for task in tasks:
        with pytest.raises(PollerClosed):
            await asyncio.wait_for(task, SOON)
    with pytest.raises(PollerClosed):
        await anext(poller.batches())


async def test_closing_ends_who_waits_to_give_a_batch_again(inbox, kind):
    poller = kind(inbox)
    put(inbox / "one")
    batches = poller.batches(interval=FAR)
    assert keys(await asyncio.wait_for(anext(batches), SOON)) == [b"one"]
    again = asyncio.ensure_future(anext(batches))  # it was not acknowledged
    await asyncio.sleep(0.2)
    put(inbox / "two")
    await asyncio.sleep(0.2)
    assert not again.done(), "what was not acknowledged came again before its time"
    await asyncio.to_thread(poller.close)
    with pytest.raises(PollerClosed):
        await asyncio.wait_for(again, SOON)


async def test_closing_on_the_loop_itself_does_not_hang(inbox, kind):
    poller = kind(inbox)
    task = asyncio.ensure_future(anext(poller.batches(interval=FAR)))
    await asyncio.sleep(0.2)
    poller.close()
    with pytest.raises(PollerClosed):
        await asyncio.wait_for(task, SOON)


async def test_closing_one_of_two_that_share(inbox, kind, tmp_path):
    """They have one engine; closing the one must end its own waiters, and leave the other's alone."""
    state = tmp_path / "state.db"
    one, two = kind(inbox, state=state, consumer="one"), kind(inbox, state=state, consumer="two")
    first = asyncio.ensure_future(anext(one.batches(interval=0.1)))
    batches = two.batches(interval=0.1)
    second = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(one.close)
    with pytest.raises(PollerClosed):
        await asyncio.wait_for(first, SOON)
    land(inbox / "one")
    batch = await asyncio.wait_for(second, SOON)
    assert keys(batch) == [b"one"]
    await batch.ack()
    await batches.aclose()
    await asyncio.to_thread(two.close)


def test_loop_that_ends_without_a_word(inbox, kind):
    with kind(inbox) as poller:
        loop = asyncio.new_event_loop()
        try:
            batches = poller.batches(interval=0.05)
            put(inbox / "one")
            batch = loop.run_until_complete(asyncio.wait_for(anext(batches), SOON))
            assert keys(batch) == [b"one"]
            loop.run_until_complete(batches.aclose())
        finally:
            loop.close()
        for number in range(3):

            async def once(number: int = number) -> list[bytes]:
                batches = poller.batches(interval=FAR)
                batch = await asyncio.wait_for(anext(batches), SOON)
                await batch.ack()
                land(inbox / f"more{number}")
                await batches.aclose()
                return keys(batch)

            assert len(asyncio.run(once())) == 1


# -- sharing -----------------------------------------------------------------


async def test_ten_consumers_cost_one_listing_an_interval(inbox, tmp_path):
    fs = FaultFileSystem()
    state = tmp_path / "state.db"
    for number in range(20):
        put(inbox / f"f{number}")
    pollers = [FilePoller(inbox, fs=fs, state=state, consumer=f"c{number}") for number in range(10)]
    told: dict[str, list[bytes]] = {poller.consumer: [] for poller in pollers}

    async def consume(poller: FilePoller) -> None:
        async for batch in poller.batches(interval=0.5):
            told[poller.consumer] += keys(batch)
            await batch.ack()

    tasks = [asyncio.ensure_future(consume(poller)) for poller in pollers]
    await asyncio.sleep(1.5)

    def listings() -> int:
        return fs.calls["listdir"] + fs.calls["scandir"]

    before, start = listings(), time.monotonic()
    await asyncio.sleep(3)
    count, intervals = listings() - before, (time.monotonic() - start) / 0.5
    assert count >= 1
    assert count <= 1.2 * intervals + 2
    land(inbox / "new")
    await soon(lambda: all(mine == [b"new"] for mine in told.values()), "all consumers are told")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for poller in pollers:
        await asyncio.to_thread(poller.close)


async def test_two_consumers_at_their_own_pace(inbox, kind, tmp_path):
    state = tmp_path / "state.db"
    with (
        kind(inbox, state=state, consumer="quick") as quick,
        kind(inbox, state=state, consumer="slow", include=["*5"]) as slow,
    ):
        told: dict[str, list[bytes]] = {"quick": [], "slow": []}

        async def consume(poller: FilePoller, interval: float) -> None:
            async for batch in poller.batches(interval=interval, limit=3):
                told[poller.consumer] += keys(batch)
                await batch.ack()

        tasks = [asyncio.ensure_future(consume(quick, 0.05)), asyncio.ensure_future(consume(slow, 0.2))]
        for number in range(20):
            put(inbox / f"f{number:02}")
        await soon(lambda: len(set(told["quick"])) == 20 and len(set(told["slow"])) == 2, "all is told")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert set(told["slow"]) == {b"f05", b"f15"}


# -- errors ------------------------------------------------------------------


async def test_target_that_vanishes_and_comes_back(inbox, kind, caplog):
    put(inbox / "one")
    with kind(inbox) as poller:
        batches = poller.batches(interval=0.1)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.2)
        inbox.rename(inbox.parent / "away")
        await soon(lambda: poller.status().error, "the target is missed")
        assert not waiting.done()
        land(inbox / "two")
        told: dict[bytes, str] = {}
        while len(told) < 2:
            batch = await asyncio.wait_for(waiting, SOON)
            told |= {event.key: event.event for event in batch}
            await batch.ack()
            waiting = asyncio.ensure_future(anext(batches))
        assert told == {b"one": "deleted", b"two": "created"}
        assert poller.status().error is None
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await batches.aclose()
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2, "it is said once that the target is missed, and once that it is back"
    assert warnings[1].endswith("can be looked at again")


async def test_what_cant_mend_itself_is_raised(inbox, kind, tmp_path):
    state = tmp_path / "state.db"
    kind(inbox, state=state).close()
    poller = kind(inbox, state=state)
    tasks = [asyncio.ensure_future(anext(poller.batches(interval=0.05))) for _ in range(2)]
    await asyncio.sleep(0.2)
    engine = poller._engine
    with engine.store.database.transaction():
        engine.store.database.run("DELETE FROM poller_targets")
    for task in tasks:
        with pytest.raises(StateDamaged):
            await asyncio.wait_for(task, SOON)
    with contextlib.suppress(StateDamaged):
        await asyncio.to_thread(poller.close)


async def test_locked_state_is_waited_for(inbox, kind, tmp_path, monkeypatch):
    put(inbox / "old")
    poller = kind(inbox, state=tmp_path / "state.db")
    real, left = poller._engine.store.commit, [3]

    def commit(*args):
        if left[0]:
            left[0] -= 1
            raise StateLocked("made up: kept locked by another process")
        return real(*args)

    monkeypatch.setattr(poller._engine.store, "commit", commit)
    put(inbox / "new")
    batches = poller.batches(interval=0.05)
    batch = await asyncio.wait_for(anext(batches), SOON)
    assert keys(batch) == [b"new"]
    assert not left[0]
    await batch.ack()
    await batches.aclose()
    await asyncio.to_thread(poller.close)


async def test_too_old_is_raised_to_this_consumer_alone(inbox, kind, tmp_path):
    state = tmp_path / "state.db"
    options = {"state": state, "retention": 0, "retention_unread": 0}
    with kind(inbox, consumer="old", **options) as old, kind(inbox, consumer="new", **options) as new:
        put(inbox / "one")
        new.get_new_events()
        new.acknowledge()
        engine = new._engine
        engine.store.prune(engine.target_id, time.time() + 10, 0, 0)
        with pytest.raises(OffsetTooOld):
            await asyncio.wait_for(anext(old.batches(interval=0.05)), SOON)
        batches = new.batches(interval=0.05)
        put(inbox / "two")
        assert keys(await asyncio.wait_for(anext(batches), SOON)) == [b"two"]
        await batches.aclose()


@pytest.mark.parametrize("interval", [-1, "soon", float("nan"), None, True])
async def test_interval_that_cant_be(inbox, kind, interval):
    with kind(inbox) as poller:
        with pytest.raises(InvalidOption, match="interval="):
            await anext(poller.batches(interval=interval))
        with pytest.raises(InvalidOption, match="limit=0"):
            await anext(poller.batches(limit=0))
