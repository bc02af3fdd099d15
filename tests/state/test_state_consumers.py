"""Offsets, claims, takes, going back, dead letters, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poller_core.errors import (
    EventTaken,
    InvalidOption,
    OffsetTooOld,
    UnknownClaim,
    UnknownConsumer,
    UnknownEvent,
)
from poller_core.state import ClaimRow, Consumers, Pending, Record, Store, Target, event_id, open_store
from tests.state.helpers import add, beginning, records, seqs, some, target_of


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    with open_store(state_url) as opened:
        yield opened


@pytest.fixture
def target(store: Store) -> Target:
    """A target with the events 1 to 10, and a consumer "c" that has read none of them."""
    made = target_of(store)
    add(store, made, some(4))
    add(store, made, some(6, "g"))
    store.consumers.create(made.id, "c", 1)
    return made


@pytest.fixture
def consumers(store: Store) -> Consumers:
    return store.consumers


def id_of(store: Store, target: Target, seq: int, consumer: str = "c") -> str:
    return event_id(target.epoch, seq, store.event(target.id, consumer, seq).record)


def left(consumers: Consumers, target: Target, name: str = "c") -> list[int]:
    return seqs(consumers.pending(target.id, name).events)


def offset(consumers: Consumers, target: Target, name: str = "c") -> int:
    found = consumers.get(target.id, name)
    assert found is not None
    return found.seq


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


# -- claims --------------------------------------------------------------------------------------


def test_a_token_keeps_its_events(consumers: Consumers, target: Target) -> None:
    first = consumers.claim(target.id, "c", "run-1", 4)
    assert seqs(first) == [1, 2, 3, 4]
    assert offset(consumers, target) == 4
    second = consumers.claim(target.id, "c", "run-2")
    assert seqs(second) == [5, 6, 7, 8, 9, 10]
    assert left(consumers, target) == []
    for limit in (1, None, 100):
        assert consumers.claim(target.id, "c", "run-1", limit, lambda record: False) == first
    assert consumers.claimed(target.id, "c", "run-2") == second
    assert consumers.claimed(target.id, "c", "run-3") is None
    consumers.rewind(target.id, "c", 1)
    assert consumers.claim(target.id, "c", "run-1") == first
    assert consumers.owner(target.id, "c", 3) is None
    assert seqs(consumers.claim(target.id, "c", "run-4", 2)) == [1, 2]
    assert consumers.owner(target.id, "c", 2) == "run-4"


def test_an_empty_claim_is_none(store: Store, consumers: Consumers, target: Target) -> None:
    assert consumers.claim(target.id, "c", "t", 5, lambda record: False) == []
    assert consumers.claims(target.id) == []
    # What was not wanted counts as read, as always.
    assert offset(consumers, target) == 10
    add(store, target, records("z"))
    assert seqs(consumers.claim(target.id, "c", "t")) == [11]


def test_a_claim_lists_what_was_wanted_only(consumers: Consumers, target: Target) -> None:
    wanted = consumers.claim(target.id, "c", "t", 3, lambda record: int(record.key[1:]) % 2 == 0)
    assert seqs(wanted) == [1, 3, 5]
    assert consumers.claim(target.id, "c", "t") == wanted
    (claim,) = consumers.claims(target.id, "c")
    assert (claim.consumer, claim.token, claim.kind) == ("c", "t", "claim")
    assert (claim.ranges, claim.count) == ([(1, 1), (3, 3), (5, 5)], 3)
    assert consumers.owner(target.id, "c", 2) is None
    assert consumers.owner(target.id, "c", 3) == "t"


def test_claims_of_two_consumers_are_apart(consumers: Consumers, target: Target) -> None:
    consumers.create(target.id, "d", 1)
    assert consumers.claim(target.id, "c", "t", 3) == consumers.claim(target.id, "d", "t", 3)
    assert len(consumers.claims(target.id)) == 2
    assert len(consumers.claims(target.id, "d")) == 1


def test_a_large_claim(store: Store, consumers: Consumers, target: Target) -> None:
    add(store, target, some(5000, "h"))
    taken = consumers.claim(target.id, "c", "t", None, lambda record: int(record.key[1:]) % 3 != 0)
    assert len(taken) > 3000
    assert consumers.claim(target.id, "c", "t") == taken


# -- takes ---------------------------------------------------------------------------------------


def test_take(store: Store, consumers: Consumers, target: Target) -> None:
    event = store.event(target.id, "c", 3)
    id = id_of(store, target, 3)
    for _ in range(2):
        assert consumers.take(target.id, "c", id, "run-1") == event
    with pytest.raises(EventTaken, match="run-1") as caught:
        consumers.take(target.id, "c", id, "run-2")
    assert caught.value.token == "run-1"
    assert consumers.owner(target.id, "c", 3) == "run-1"
    assert left(consumers, target) == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert offset(consumers, target) == 0


def test_the_offset_follows_what_was_taken(store: Store, consumers: Consumers, target: Target) -> None:
    for seq, expected in [(2, 0), (3, 0), (1, 3), (5, 3), (4, 5)]:
        consumers.take(target.id, "c", id_of(store, target, seq), f"run-{seq}")
        assert offset(consumers, target) == expected
    assert consumers.take(target.id, "c", id_of(store, target, 1), "run-1").seq == 1


def test_the_offset_follows_over_what_is_anothers(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.create(target.id, "late", "beginning", beginning(some(3)))
    add(store, target, records("z"))
    for seq in (14, *range(1, 11)):
        consumers.take(target.id, "c", id_of(store, target, seq), "run")
    assert offset(consumers, target) == 14


def test_many_takes_out_of_order(store: Store, consumers: Consumers, target: Target) -> None:
    add(store, target, some(300, "h"))
    for seq in range(310, 0, -1):
        consumers.take(target.id, "c", id_of(store, target, seq), "run")
    assert offset(consumers, target) == 310
    (row,) = consumers.claims(target.id)
    assert (row.kind, row.ranges, row.count) == ("take", [(1, 310)], 310)


def test_a_claim_passes_over_what_was_taken(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.take(target.id, "c", id_of(store, target, 2), "one")
    assert seqs(consumers.claim(target.id, "c", "batch", 3)) == [1, 3, 4]
    with pytest.raises(EventTaken) as caught:
        consumers.take(target.id, "c", id_of(store, target, 3), "one")
    assert caught.value.token == "batch"
    # The claim's own token has it, and event 2 is still the first token's.
    assert consumers.take(target.id, "c", id_of(store, target, 3), "batch").seq == 3
    assert consumers.take(target.id, "c", id_of(store, target, 2), "one").seq == 2


def test_what_was_acknowledged_can_not_be_taken(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.ack(target.id, "c", 5)
    with pytest.raises(EventTaken, match="acknowledged") as caught:
        consumers.take(target.id, "c", id_of(store, target, 5), "run")
    assert caught.value.token is None
    assert consumers.owner(target.id, "c", 5) is None


def test_ids_of_no_event(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.create(target.id, "late", "beginning", beginning(some(3)))
    good = id_of(store, target, 3)
    for id in (
        "nonsense",
        "3-0000000000000000",
        good.replace("3-", "4-", 1),
        "99" + good[1:],
        event_id("0" * 16, 3, store.event(target.id, "c", 3).record),
        id_of(store, target, 11, "late"),
    ):
        with pytest.raises(UnknownEvent):
            consumers.take(target.id, "c", id, "run")
    assert consumers.claims(target.id) == []


@pytest.mark.parametrize("token", ["dead-letter", "finished"])
def test_tokens_that_are_nobodys(store: Store, consumers: Consumers, target: Target, token: str) -> None:
    for attempt in (
        lambda: consumers.claim(target.id, "c", token),
        lambda: consumers.take(target.id, "c", id_of(store, target, 1), token),
        lambda: consumers.release(target.id, "c", token),
    ):
        with pytest.raises(InvalidOption):
            attempt()


# -- giving back -------------------------------------------------------------------------------------


def test_release_of_a_claim(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 3)
    consumers.claim(target.id, "c", "b", 3)
    assert consumers.release(target.id, "c", "a") == 3
    assert consumers.lag(target.id, "c") == 4 + 3
    # They come first again, in order, and the others after them.
    found = consumers.pending(target.id, "c", 2)
    assert (seqs(found.events), found.upto, found.returned) == ([1, 2], 6, [1, 2])
    found = consumers.pending(target.id, "c", 5)
    assert (seqs(found.events), found.upto, found.returned) == ([1, 2, 3, 7, 8], 8, [1, 2, 3])
    for _ in range(2):
        consumers.ack(target.id, "c", found.upto, found.returned)
        assert left(consumers, target) == [9, 10]
    with pytest.raises(UnknownClaim, match="'a'"):
        consumers.release(target.id, "c", "a")
    assert consumers.owner(target.id, "c", 5) == "b"


def test_returned_events_may_be_unwanted(consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a")
    consumers.release(target.id, "c", "a")
    found = consumers.pending(target.id, "c", 1, lambda record: record.key >= b"g")
    assert (seqs(found.events), found.upto, found.returned) == ([5], 10, [1, 2, 3, 4, 5])


def test_returned_events_can_be_claimed_and_taken(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.release(target.id, "c", "a")
    assert consumers.take(target.id, "c", id_of(store, target, 2), "one").seq == 2
    assert seqs(consumers.claim(target.id, "c", "b", 4)) == [1, 3, 4, 5]
    assert left(consumers, target) == [6, 7, 8, 9, 10]


def test_release_of_takes(store: Store, consumers: Consumers, target: Target) -> None:
    for seq in (1, 2, 5):
        consumers.take(target.id, "c", id_of(store, target, seq), "run")
    assert offset(consumers, target) == 2
    assert consumers.release(target.id, "c", "run") == 3
    assert left(consumers, target) == list(range(1, 11))
    assert consumers.claims(target.id) == []


def test_release_gives_back_only_what_is_still_its_own(
    store: Store, consumers: Consumers, target: Target
) -> None:
    consumers.claim(target.id, "c", "old", 6)
    consumers.rewind(target.id, "c", 3)
    consumers.claim(target.id, "c", "new", 2)
    consumers.take(target.id, "c", id_of(store, target, 5), "one")
    assert seqs(consumers.claim(target.id, "c", "old")) == [1, 2, 3, 4, 5, 6]
    # 3 and 4 are the new claim's by now, 5 is taken, 6 is pending anyway.
    assert consumers.release(target.id, "c", "old") == 3
    assert left(consumers, target) == [1, 2, 6, 7, 8, 9, 10]
    # What the later claim gives back is back, whoever had it earlier.
    assert consumers.release(target.id, "c", "new") == 2
    assert left(consumers, target) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_the_latest_claim_gives_back_though_an_older_one_had_it(consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "old", 3)
    consumers.rewind(target.id, "c", 1)
    consumers.claim(target.id, "c", "new", 3)
    assert consumers.release(target.id, "c", "new") == 3
    assert left(consumers, target) == list(range(1, 11))


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


# -- dead letters ----------------------------------------------------------------------------------------


def test_dead_letters(store: Store, consumers: Consumers, target: Target) -> None:
    consumers.bury(target.id, "c", 2, 3, "exit code 1\0", '{"id": "2"}')
    assert left(consumers, target) == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    consumers.bury(target.id, "c", 1, 3, "exit code 2", '{"id": "1"}')
    assert offset(consumers, target) == 2
    first, second = consumers.dead(target.id, "c")
    assert (first.seq, first.attempts, first.error, first.event) == (1, 3, "exit code 2", '{"id": "1"}')
    assert second.error == "exit code 1"
    consumers.bury(target.id, "c", 1, 6, "again", '{"id": "1"}')
    assert consumers.dead(target.id, "c")[0].attempts == 6
    with pytest.raises(EventTaken):
        consumers.take(target.id, "c", id_of(store, target, 1), "run")
    assert consumers.claims(target.id) == []
    assert consumers.dig(target.id, "c", 1) == '{"id": "1"}'
    assert [letter.seq for letter in consumers.dead(target.id, "c")] == [2]
    with pytest.raises(UnknownEvent):
        consumers.dig(target.id, "c", 1)
    # A dead letter that was dug out is not delivered by itself: who digs it out works it off.
    assert left(consumers, target) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_burying_what_a_claim_has(consumers: Consumers, target: Target) -> None:
    consumers.claim(target.id, "c", "a", 4)
    consumers.bury(target.id, "c", 3, 1, "bad", "{}")
    assert consumers.owner(target.id, "c", 3) == "a"
    consumers.release(target.id, "c", "a")
    consumers.bury(target.id, "c", 2, 1, "bad", "{}")
    assert left(consumers, target) == [1, 3, 4, 5, 6, 7, 8, 9, 10]


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
