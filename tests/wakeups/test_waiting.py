"""``waiting()``, ``claim(batch_for=, max_age=)``: what there is, and who gets it, without a look or later."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from poller_core import INotifyPoller, InvalidOption, OffsetTooOld, PollerClosed, TargetNotFound, Waiting
from tests.faultfs import FaultFileSystem
from tests.test_async import FAR
from tests.test_delivery import DAY, Steps, names
from tests.wakeups.tools import Elsewhere, drop

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
