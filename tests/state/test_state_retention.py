"""Pruning, on both databases."""

from __future__ import annotations

import time

import pytest

from poller_core.errors import OffsetTooOld
from poller_core.state import Store, Target, event_id
from tests.state.helpers import add, beginning, seqs, some, target_of

HOUR = 3600.0


@pytest.fixture
def target(store: Store) -> Target:
    """Ten rows of ten events, one row per hour, from hour 1 on."""
    made = target_of(store)
    for hour in range(1, 11):
        add(store, made, some(10), at=hour * HOUR)
    return made


def floor(store: Store, target: Target) -> int:
    return store.reload(target.id).floor_seq


def left(store: Store, target: Target, name: str) -> list[int]:
    return seqs(store.consumers.pending(target.id, name).events)


def test_what_nobody_wants_goes_after_the_retention(store: Store, target: Target) -> None:
    assert store.prune(target.id, 10 * HOUR, 5 * HOUR, 100 * HOUR) == 40
    assert floor(store, target) == 40
    assert store.prune(target.id, 10 * HOUR, 5 * HOUR, 100 * HOUR) == 0
    assert store.prune(target.id, 10 * HOUR, 100 * HOUR, 100 * HOUR) == 0
    assert store.prune(target.id, 1000 * HOUR, 5 * HOUR, 100 * HOUR) == 60
    assert (floor(store, target), store.last_seq(target.id)) == (100, 100)


def test_the_slowest_consumer_counts(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "slow", 36)
    store.consumers.create(target.id, "fast", "now")
    # The fourth row holds events 31 to 40, of which some are wanted: rows go as a whole.
    assert store.prune(target.id, 10 * HOUR, 0, 100 * HOUR) == 30
    assert left(store, target, "slow") == list(range(36, 101))
    store.consumers.ack(target.id, "slow", 40)
    assert store.prune(target.id, 10 * HOUR, 0, 100 * HOUR) == 10


def test_what_was_returned_is_wanted(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "c", 1)
    store.consumers.claim(target.id, "c", "t", 25)
    store.consumers.ack(target.id, "c", 100)
    store.consumers.release(target.id, "c", "t")
    store.consumers.ack(target.id, "c", 0, range(1, 15))
    assert store.prune(target.id, 10 * HOUR, 0, 100 * HOUR) == 10
    assert left(store, target, "c") == list(range(15, 26))


def test_very_old_goes_whoever_wants_it(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "slow", 6)
    assert store.prune(target.id, 10 * HOUR, 0, 8 * HOUR) == 10
    with pytest.raises(OffsetTooOld):
        left(store, target, "slow")


def test_retention_of_unread_is_never_the_shorter_one(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "slow", 1)
    assert store.prune(target.id, 10 * HOUR, 8 * HOUR, 0) == 10


def test_private_events(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "c", 96)
    store.consumers.create(target.id, "late", "beginning", beginning(some(10)))
    now = 10**10
    store.consumers.ack(target.id, "late", 110)
    # "c" has not read up to them, but has nothing to read there: it is not too old afterwards.
    store.consumers.ack(target.id, "c", 100)
    add(store, target, some(1), at=now)
    assert store.prune(target.id, now, HOUR, 10 * now) == 110
    assert left(store, target, "c") == [111]
    assert left(store, target, "late") == [111]


def test_private_events_that_are_wanted_stay(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "c", "now")
    store.consumers.create(target.id, "late", "beginning", beginning(some(10)))
    assert store.prune(target.id, 10**10, 0, 10**11) == 100
    assert left(store, target, "late") == list(range(101, 111))
    store.consumers.forget(target.id, "late")
    assert store.prune(target.id, 10**10, 0, 10**11) == 10


def test_a_consumer_that_misses_something_is_not_passed_over(store: Store, target: Target) -> None:
    store.consumers.create(target.id, "c", 96)
    store.consumers.create(target.id, "late", "beginning", beginning(some(10)))
    store.consumers.ack(target.id, "late", 110)
    add(store, target, some(1), at=10**10)
    assert store.prune(target.id, 10**10, 0, 100) == 110
    with pytest.raises(OffsetTooOld):
        left(store, target, "c")


def test_what_goes_with_the_events(store: Store, target: Target) -> None:
    consumers = store.consumers
    consumers.create(target.id, "c", 1)
    consumers.claim(target.id, "c", "old", 20)
    consumers.claim(target.id, "c", "both", 20)
    for seq in (45, 60):
        event = store.event(target.id, "c", seq)
        consumers.take(target.id, "c", event_id(target.epoch, seq, event.record), f"take-{seq}")
    consumers.ack(target.id, "c", 100)
    consumers.bury(target.id, "c", 1, 1, "bad", '{"seq": 1}')
    assert store.prune(target.id, 10 * HOUR, 5.5 * HOUR, 100 * HOUR) == 40
    assert {row.token for row in consumers.claims(target.id)} == {"old", "both", "take-45", "take-60"}
    for token in ("old", "both"):
        # Its events are gone, and it must not be given others in their place.
        with pytest.raises(OffsetTooOld):
            consumers.claim(target.id, "c", token)
    consumers.claim(target.id, "c", "none")
    assert store.prune(target.id, 10 * HOUR, 4.5 * HOUR, 100 * HOUR) == 10
    assert {row.token for row in consumers.claims(target.id)} == {"old", "both", "take-60"}
    store.prune(target.id, time.time() + 370 * 86400, 10**10, 10**10)
    assert {row.token for row in consumers.claims(target.id)} == {"take-60"}
    assert [letter.event for letter in consumers.dead(target.id, "c")] == ['{"seq": 1}']


def test_a_clock_that_was_ahead_keeps_nothing_for_ever(store: Store) -> None:
    target = target_of(store)
    for at in (1 * HOUR, 10**9, 2 * HOUR, 3 * HOUR):
        add(store, target, some(10), at=at)
    # The second row can't be older than the third says, and goes with it.
    assert store.prune(target.id, 2.5 * HOUR, HOUR, HOUR) == 10
    assert store.prune(target.id, 3.5 * HOUR, HOUR, HOUR) == 20


def test_a_clock_that_was_ahead_loses_nothing(store: Store) -> None:
    target = target_of(store)
    for at in (1 * HOUR, 10**9, 2 * HOUR):
        add(store, target, some(10), at=at)
    store.consumers.create(target.id, "c", 11)
    store.consumers.ack(target.id, "c", 10)
    # Read rows may go, but the row of unknown age is wanted, and what is known of its age is not enough.
    assert store.prune(target.id, 4 * HOUR, HOUR, 10 * HOUR) == 10
    assert left(store, target, "c") == list(range(11, 31))


def test_many_rows(store: Store) -> None:
    target = target_of(store)
    with store.database.transaction():
        for number in range(1200):
            add(store, target, some(2), at=number)
    assert store.prune(target.id, 1150, 0, 0) == 2300
    assert floor(store, target) == 2300
