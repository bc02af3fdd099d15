"""Claims, takes, giving back and dead letters, on both databases."""

from __future__ import annotations

import pytest

from poller_core.errors import (
    EventTaken,
    InvalidOption,
    UnknownClaim,
    UnknownEvent,
)
from poller_core.state import Consumers, Store, Target, event_id
from tests.state.helpers import add, beginning, id_of, left, offset, records, seqs, some

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
