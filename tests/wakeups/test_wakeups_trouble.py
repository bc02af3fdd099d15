"""``wakeups()`` that end; a target that can't be looked at, of which ``trouble`` tells; errors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import time
from collections import Counter
from typing import Any

import pytest

from poller_core import FilePoller, InvalidOption, OffsetTooOld, PollerClosed
from tests.faultfs import FaultFileSystem
from tests.races.tools import put
from tests.test_async import FAR, SOON, soon
from tests.test_delivery import names
from tests.wakeups.tools import SECONDS, cancel_amid, drop, left_over, listening, listens

# -- ending ------------------------------------------------------------------


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
        await cancel_amid(task, poller._subscriptions[0]._news.set, steps)


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
        drop(inbox, "two")
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
