"""Offsets, reading and going back, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poller_core.errors import EventTaken, InvalidOption, OffsetTooOld, UnknownConsumer, UnknownEvent
from poller_core.state import ClaimRow, Consumers, Pending, Record, Store, Target
from tests.state.helpers import add, beginning, id_of, left, offset, records, seqs, some, target_of

# -- beginning ---------------------------------------------------------------------------


def test_where_a_consumer_begins(store: Store, consumers: Consumers, target: Target) -> None:
    assert consumers.create(target.id, "now", "now").seq == 10
    assert left(consumers, target, "now") == []
    assert consumers.create(target.id, "six", 6).seq == 5
    assert left(consumers, target, "six") == [6, 7, 8, 9, 10]
    assert consumers.create(target.id, "next", 11).seq == 10
    generation = store.generation(target.id)
    made = consumers.create(target.id, "late", "beginning", beginning(records("x", "y")))
    assert made.seq == 10
    assert store.generation(target.id) == generation + 1
    found = consumers.pending(target.id, "late")
    assert [event.record for event in found.events] == records("x", "y")
    assert seqs(found.events) == [11, 12]
    # They are this consumer's alone.
    assert left(consumers, target, "now") == []
    add(store, target, records("z"))
    assert left(consumers, target, "late") == [11, 12, 13]
    assert left(consumers, target, "now") == [13]
    assert left(consumers, target, "six") == [6, 7, 8, 9, 10, 13]
    assert [row.name for row in consumers.all(target.id)] == ["c", "late", "next", "now", "six"]


def test_a_consumer_is_made_once(consumers: Consumers, target: Target) -> None:
    def not_needed() -> Iterator[list[Record]]:
        raise AssertionError("read although the consumer is there")
        yield []

    first = consumers.create(target.id, "again", 4)
    assert consumers.create(target.id, "again", "now") == first
    assert consumers.create(target.id, "again", "beginning", not_needed()) == first


def test_an_empty_beginning(consumers: Consumers, target: Target) -> None:
    consumers.create(target.id, "late", "beginning", iter([[], []]))
    assert left(consumers, target, "late") == []
    assert offset(consumers, target, "late") == 10


def test_the_beginning_may_read_the_state(store: Store, consumers: Consumers, target: Target) -> None:
    def from_journal() -> Iterator[list[Record]]:
        yield [event.record for event in store.read(target.id, "", 0)[0]]

    consumers.create(target.id, "late", "beginning", from_journal())
    assert [event.record for event in consumers.pending(target.id, "late").events] == some(4) + some(6, "g")


def test_a_beginning_that_fails_leaves_nothing(store: Store, consumers: Consumers, target: Target) -> None:
    def fails() -> Iterator[list[Record]]:
        yield some(2000)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consumers.create(target.id, "late", "beginning", fails())
    assert consumers.get(target.id, "late") is None
    assert store.last_seq(target.id) == 10


@pytest.mark.parametrize("start", [0, -1, 12, True, "begin", 1.0, None, "beginning"])
def test_where_no_consumer_can_begin(consumers: Consumers, target: Target, start: object) -> None:
    with pytest.raises(InvalidOption, match="'new'"):
        consumers.create(target.id, "new", start)  # type: ignore[arg-type]
    assert consumers.get(target.id, "new") is None


@pytest.mark.parametrize("name", ["", "a\nb", "a\0", "x" * 251, "\ud800", 5])
def test_names_that_can_not_be(consumers: Consumers, target: Target, name: str) -> None:
    with pytest.raises(InvalidOption):
        consumers.create(target.id, name)
    with pytest.raises(InvalidOption):
        consumers.claim(target.id, "c", name)
    with pytest.raises(InvalidOption):
        consumers.take(target.id, "c", "1-0123456789abcdef", name)


def test_unknown_consumer(consumers: Consumers, target: Target) -> None:
    for attempt in (
        lambda: consumers.pending(target.id, "x"),
        lambda: consumers.lag(target.id, "x"),
        lambda: consumers.ack(target.id, "x", 1),
        lambda: consumers.claim(target.id, "x", "t"),
        lambda: consumers.take(target.id, "x", "1-0123456789abcdef", "t"),
        lambda: consumers.release(target.id, "x", "t"),
        lambda: consumers.rewind(target.id, "x", 1),
        lambda: consumers.rewind_now(target.id, "x"),
        lambda: consumers.rewind_beginning(target.id, "x", iter([])),
        lambda: consumers.bury(target.id, "x", 1, 1, "", ""),
        lambda: consumers.owner(target.id, "x", 1),
        lambda: consumers.forget(target.id, "x"),
    ):
        with pytest.raises(UnknownConsumer, match="'c'"):
            attempt()


# -- reading -----------------------------------------------------------------------------------


def test_pending_and_ack(consumers: Consumers, target: Target) -> None:
    assert consumers.lag(target.id, "c") == 10
    found = consumers.pending(target.id, "c", 3)
    assert (seqs(found.events), found.upto, found.returned) == ([1, 2, 3], 3, [])
    assert consumers.pending(target.id, "c", 3) == found
    for _ in range(2):
        consumers.ack(target.id, "c", found.upto, found.returned)
        assert offset(consumers, target) == 3
    consumers.ack(target.id, "c", 2)
    assert offset(consumers, target) == 3
    found = consumers.pending(target.id, "c")
    assert (seqs(found.events), found.upto) == ([4, 5, 6, 7, 8, 9, 10], 10)
    consumers.ack(target.id, "c", 10)
    assert consumers.pending(target.id, "c") == Pending([], 10, [])
    assert consumers.lag(target.id, "c") == 0
    with pytest.raises(InvalidOption):
        consumers.ack(target.id, "c", 11)


def test_what_is_not_wanted_counts_as_read(consumers: Consumers, target: Target) -> None:
    found = consumers.pending(target.id, "c", 2, lambda record: record.key >= b"g")
    assert (seqs(found.events), found.upto) == ([5, 6], 6)
    found = consumers.pending(target.id, "c", None, lambda record: record.key == b"g000001")
    assert (seqs(found.events), found.upto) == ([6], 10)
    found = consumers.pending(target.id, "c", 5, lambda record: False)
    assert (found.events, found.upto) == ([], 10)


def test_the_offset_passes_over_what_is_anothers(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.create(target.id, "late", "beginning", beginning(some(3)))
    consumers.ack(target.id, "c", 10)
    assert consumers.pending(target.id, "c") == Pending([], 13, [])
    add(store, target, records("z"))
    assert left(consumers, target) == [14]


def test_a_consumer_of_another_target_is_another(store: Store, consumers: Consumers, target: Target) -> None:
    other = target_of(store, "two")
    add(store, other, some(2))
    consumers.create(other.id, "c", 1)
    consumers.ack(target.id, "c", 10)
    assert left(consumers, other) == [1, 2]


def test_forget(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.create(target.id, "late", "beginning", beginning(some(3)))
    consumers.claim(target.id, "late", "t", 1)
    consumers.forget(target.id, "late")
    assert consumers.get(target.id, "late") is None
    assert consumers.claims(target.id) == []
    # A later one of the same name has nothing of the former's.
    consumers.create(target.id, "late", 9)
    assert left(consumers, target, "late") == [9, 10]
    assert left(consumers, target) == list(range(1, 11))
    with pytest.raises(UnknownEvent):
        store.event(target.id, "late", 11)


# -- going back -----------------------------------------------------------------------------------------


def test_rewind(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.claim(target.id, "c", "b", 4)
    for seq in (9, 10):
        consumers.take(target.id, "c", id_of(store, target, seq), "one")
    consumers.release(target.id, "c", "a")
    consumers.rewind(target.id, "c", 3)
    # 1 and 2 were given back and stay so; 3 and 4 were too, and come once.
    assert left(consumers, target) == list(range(1, 11))
    consumers.rewind(target.id, "c", 11)
    assert left(consumers, target) == [1, 2]
    for to in (0, 12, -5):
        with pytest.raises(InvalidOption):
            consumers.rewind(target.id, "c", to)


def test_after_a_rewind_an_event_can_be_taken(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.take(target.id, "c", id_of(store, target, 5), "one")
    consumers.rewind(target.id, "c", 2)
    assert consumers.take(target.id, "c", id_of(store, target, 5), "two").seq == 5
    assert consumers.take(target.id, "c", id_of(store, target, 3), "two").seq == 3
    with pytest.raises(EventTaken) as caught:
        consumers.take(target.id, "c", id_of(store, target, 1), "two")
    assert caught.value.token == "a"


def test_rewind_to_now(consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.release(target.id, "c", "a")
    consumers.rewind_now(target.id, "c")
    assert left(consumers, target) == []
    assert consumers.lag(target.id, "c") == 0


def test_rewind_to_the_beginning(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.release(target.id, "c", "a")
    consumers.take(target.id, "c", id_of(store, target, 7), "one")
    consumers.rewind_beginning(target.id, "c", beginning(records("x", "y")))
    found = consumers.pending(target.id, "c")
    assert [event.record.key for event in found.events] == [b"x", b"y"]
    assert found.returned == []
    consumers.create(target.id, "d", 1)
    assert left(consumers, target, "d") == list(range(1, 11))


# -- what is gone -----------------------------------------------------------------------------------------


def test_who_is_too_old_is_told(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 2)
    store.prune(target.id, 1e7, 0, 0)
    add(store, target, records("z"))
    for attempt in (
        lambda: consumers.pending(target.id, "c"),
        lambda: consumers.claim(target.id, "c", "b"),
    ):
        with pytest.raises(OffsetTooOld) as caught:
            attempt()
        for word in ("'c'", "event 2", "10", "rewind it to 11", "beginning", "now"):
            assert word in str(caught.value)
    assert offset(consumers, target) == 2
    with pytest.raises(OffsetTooOld):
        consumers.rewind(target.id, "c", 10)
    with pytest.raises(OffsetTooOld):
        consumers.create(target.id, "new", 10)
    consumers.rewind(target.id, "c", 11)
    assert left(consumers, target) == [11]


def test_pruned_returned_events_are_told(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.ack(target.id, "c", 10)
    consumers.release(target.id, "c", "a")
    store.prune(target.id, 1e7, 0, 0)
    add(store, target, records("z"))
    with pytest.raises(OffsetTooOld):
        consumers.pending(target.id, "c")
    consumers.rewind(target.id, "c", 11)
    assert left(consumers, target) == [11]


def test_a_claim_whose_events_went(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 6)
    add(store, target, some(2), at=5000)
    assert store.prune(target.id, 5000, 1000, 4000) == 4
    with pytest.raises(OffsetTooOld, match="event 1 was pruned"):
        consumers.claim(target.id, "c", "a")
    with pytest.raises(OffsetTooOld, match="Rewind consumer 'c' to 5"):
        consumers.release(target.id, "c", "a")
    assert [row.token for row in consumers.claims(target.id)] == ["a"]


def test_oldest_claims_come_first(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "z", 2)
    consumers.take(target.id, "c", id_of(store, target, 5), "m")
    consumers.claim(target.id, "c", "a", 2)
    found = consumers.claims(target.id)
    assert [row.token for row in found] == ["z", "m", "a"]
    assert isinstance(found[0], ClaimRow)
