"""What consumers are given: batches, claims, single events, and where they begin.

On both databases, with the poller of files: the events are real ones.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from poller_core import (
    EventTaken,
    FilePoller,
    InvalidOption,
    OffsetTooOld,
    PollerClosed,
    UnknownClaim,
    UnknownEvent,
)
from poller_core.clock import Clock
from tests.races.tools import put

DAY = 86400.0


class Steps(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def make(inbox, state_url):
    """Makes pollers of the inbox that share a state, and closes them."""
    made: list[FilePoller] = []

    def poller(**options: object) -> FilePoller:
        made.append(FilePoller(inbox, **{"recurse": True, "state": state_url, **options}))
        return made[-1]

    yield poller
    for one in made:
        one.close()


def drop(inbox, *names: str) -> None:
    for name in names:
        put(inbox / name, name)


def names(events) -> list[str]:
    return [os.fsdecode(event.key) for event in events]


# -- asking ------------------------------------------------------------------


def test_acknowledged_by_the_next_call(make, inbox):
    poller = make()
    drop(inbox, "a")
    assert names(poller.get_new_events()) == ["a"]
    assert poller.status().consumers[0].lag == 1
    assert poller.get_new_events() == []
    assert poller.status().consumers[0].lag == 0


def test_given_again_if_the_block_failed(make, inbox):
    drop(inbox, "before")
    poller = make()
    drop(inbox, "a", "b")
    first = poller.get_new_events()
    with pytest.raises(ZeroDivisionError), poller:
        raise ZeroDivisionError
    again = make().get_new_events()
    assert names(again) == ["a", "b"]
    assert again == first
    assert [event.id for event in again] == [event.id for event in first]


def test_acknowledged_by_closing(make, inbox):
    with make() as poller:
        drop(inbox, "a")
        poller.get_new_events()
    assert make().get_new_events() == []


def test_a_look_that_is_recent_enough_serves(make, inbox):
    poller = make()
    poller.get_new_events()
    drop(inbox, "a")
    assert poller.get_new_events(max_age=60) == []
    assert names(poller.get_new_events()) == ["a"]


# -- batches -----------------------------------------------------------------


def test_batches_of_a_limit(make, inbox):
    poller = make()
    drop(inbox, *"abcde")
    with poller.next_batch(limit=2) as batch:
        assert names(batch) == ["a", "b"]
        assert len(batch) == 2
        assert batch[0].event == "created"
        assert not batch.acknowledged
    assert batch.acknowledged
    assert names(poller.next_batch(limit=2)) == ["c", "d"]
    assert names(poller.next_batch(limit=None)) == ["c", "d", "e"]
    batch = poller.next_batch(limit=2)
    drop(inbox, "later")
    batch.ack()
    batch.ack()
    assert names(poller.next_batch()) == ["e", "later"]


def test_batch_that_fails_comes_again(make, inbox):
    poller = make()
    drop(inbox, "a")
    first = poller.next_batch()
    with pytest.raises(ZeroDivisionError), first:
        raise ZeroDivisionError
    assert not first.acknowledged
    again = make().next_batch()
    assert again == first
    assert [event.id for event in again] == [event.id for event in first]


def test_batches_of_two_consumers(make, inbox):
    one, two = make(consumer="one"), make(consumer="two")
    drop(inbox, "a")
    with one.next_batch() as batch:
        assert names(batch) == ["a"]
    assert names(two.next_batch()) == ["a"]
    assert names(one.next_batch()) == []
    assert one.status().last_seq == 1


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "ten"])
def test_limit_that_cant_be(make, limit):
    poller = make()
    for ask in (poller.next_batch, lambda limit: poller.claim("run", limit)):
        with pytest.raises(InvalidOption, match="expected a whole number of events, 1 or more, or None"):
            ask(limit)


# -- claims ------------------------------------------------------------------


def test_claim_is_the_same_for_ever(make, inbox):
    poller = make()
    drop(inbox, *"abc")
    first = poller.claim("run-1", limit=2)
    assert names(first) == ["a", "b"]
    assert first.token == "run-1"
    drop(inbox, "d")
    assert poller.claim("run-1") == first
    second = poller.claim("run-2")
    assert names(second) == ["c", "d"]
    poller.rewind("now")
    other = make()
    assert [event.id for event in other.claim("run-1", limit=1)] == [event.id for event in first]
    assert names(other.claim("run-2")) == ["c", "d"]
    assert poller.next_batch() == []
    rows = poller.claims()
    assert [(row.token, row.kind, row.count) for row in rows] == [
        ("run-1", "claim", 2),
        ("run-2", "claim", 2),
    ]


def test_claim_of_nothing_is_none(make, inbox):
    poller = make()
    assert poller.claim("run-1") == []
    assert poller.claims() == []
    drop(inbox, "a")
    assert names(poller.claim("run-1")) == ["a"]


def test_claims_of_two_consumers_with_one_token(make, inbox):
    one, two = make(consumer="one"), make(consumer="two")
    drop(inbox, "a")
    assert one.claim("run-1") == two.claim("run-1")
    assert len(one.claims()) == len(two.claims()) == 1


def test_released_events_come_next_and_in_order(make, inbox):
    poller = make()
    drop(inbox, *"abcd")
    first = poller.claim("run-1", limit=2)
    poller.claim("run-2", limit=1)
    assert poller.release("run-1") == 2
    batch = poller.next_batch()
    assert names(batch) == ["a", "b", "d"]
    assert [event.id for event in batch][:2] == [event.id for event in first]
    batch.ack()
    assert poller.next_batch() == []
    for token in ("run-1", "never"):
        with pytest.raises(UnknownClaim, match=token):
            poller.release(token)
    assert names(poller.claim("run-2")) == ["c"]


@pytest.mark.parametrize("token", ["", None, 7, "x" * 501])
def test_token_that_cant_be(make, token):
    with pytest.raises(InvalidOption, match="expected"):
        make().claim(token)


# -- single events -----------------------------------------------------------


def test_taken_in_any_order(make, inbox):
    poller = make()
    drop(inbox, *"abcd")
    a, b, c, d = poller.next_batch()
    assert poller.take(c.id, "run-c") == c
    assert poller.take(c.id, "run-c") == c
    with pytest.raises(EventTaken, match="run-c") as caught:
        poller.take(c.id, "run-x")
    assert caught.value.token == "run-c"
    assert names(poller.next_batch()) == ["a", "b", "d"]
    poller.take(a.id, "run-a")
    assert poller.status().consumers[0].seq == 1
    poller.take(b.id, "run-b")
    assert poller.status().consumers[0].seq == 3
    with poller.next_batch() as batch:
        assert list(batch) == [d]
    with pytest.raises(EventTaken, match="acknowledged") as caught:
        poller.take(d.id, "run-d")
    assert caught.value.token is None
    assert poller.release("run-b") == 1
    assert list(poller.next_batch()) == [b]
    assert poller.take(b.id, "run-e") == b
    assert poller.next_batch() == []


def test_event_within_a_claim_is_its_owners(make, inbox):
    poller = make()
    drop(inbox, "a", "b")
    a, b = poller.claim("run-1")
    assert poller.take(a.id, "run-1") == a
    with pytest.raises(EventTaken, match="run-1"):
        poller.take(b.id, "run-2")


@pytest.mark.parametrize("id", ["nonsense", "", "1-0123456789abcdef", "99-0123456789abcdef"])
def test_unknown_event(make, inbox, id):
    poller = make()
    drop(inbox, "a")
    poller.get_new_events()
    with pytest.raises(UnknownEvent):
        poller.take(id, "run")


# -- going back --------------------------------------------------------------


def test_rewind_to_a_seq(make, inbox):
    poller = make()
    drop(inbox, *"abc")
    events = poller.get_new_events()
    poller.acknowledge()
    poller.rewind(2)
    again = poller.get_new_events()
    assert again == events[1:]
    assert [event.id for event in again] == [event.id for event in events[1:]]
    poller.rewind(1)
    assert poller.get_new_events() == events
    with pytest.raises(InvalidOption, match="from 1 to 4"):
        poller.rewind(5)


def test_rewind_to_a_time(make, inbox):
    clock = Steps()
    poller = make(clock=clock)
    drop(inbox, "early")
    poller.get_new_events()
    clock.ahead += 3600
    drop(inbox, "late")
    (late,) = poller.get_new_events()
    poller.acknowledge()
    between = late.detected_at - timedelta(minutes=30)
    for to in (between, between.isoformat(), between.timestamp(), late.detected_at):
        poller.rewind(to)
        assert names(poller.get_new_events()) == ["late"]
    poller.rewind(between - timedelta(days=1))
    assert names(poller.get_new_events()) == ["early", "late"]
    poller.rewind(datetime.now(UTC) + timedelta(days=1))
    assert poller.get_new_events() == []
    with pytest.raises(InvalidOption, match="expected a seq, a time such as"):
        poller.rewind("yesterday")


def test_rewind_to_the_beginning_is_what_is_there_now(make, inbox):
    drop(inbox, "old", "sub/older")
    poller, other = make(), make(consumer="other")
    drop(inbox, "new")
    (inbox / "old").unlink()
    poller.get_new_events()
    poller.rewind("beginning")
    events = poller.get_new_events()
    assert [(key, event.event) for key, event in zip(names(events), events, strict=True)] == [
        ("new", "created"),
        ("sub/older", "created"),
    ]
    # It is this consumer's matter alone.
    assert [event.event for event in other.get_new_events()] == ["created", "deleted"]
    drop(inbox, "newest")
    assert names(poller.get_new_events()) == ["newest"]
    assert names(other.get_new_events()) == ["newest"]


def test_rewind_to_now_skips(make, inbox):
    poller = make()
    drop(inbox, "skipped")
    poller.rewind("now")
    drop(inbox, "new")
    assert names(poller.get_new_events()) == ["new"]


def test_rewound_past_what_tokens_took(make, inbox):
    poller = make()
    drop(inbox, *"abc")
    a, b, _ = poller.next_batch()
    poller.take(b.id, "run-b")
    poller.claim("run-1", limit=1)
    poller.rewind(1)
    assert names(poller.next_batch()) == ["a", "b", "c"]
    assert list(poller.claim("run-1")) == [a]


# -- where a consumer begins -------------------------------------------------


def test_new_consumer_begins_now(make, inbox):
    drop(inbox, "old")
    poller = make()
    drop(inbox, "a")
    poller.get_new_events()
    late = make(consumer="late")
    assert late.get_new_events() == []
    drop(inbox, "b")
    assert names(late.get_new_events()) == ["b"]


@pytest.mark.parametrize("options", [{"start": "beginning"}, {"existing": "report"}])
def test_new_consumer_begins_at_the_beginning(make, inbox, options):
    drop(inbox, "old", "sub/older")
    first = make(**options)
    assert names(first.get_new_events()) == ["old", "sub/older"]
    drop(inbox, "a")
    (inbox / "old").unlink()
    assert [event.event for event in first.get_new_events()] == ["created", "deleted"]
    late = make(consumer="late", **options)
    events = late.get_new_events()
    assert [(event.event, event.key) for event in events] == [("created", b"a"), ("created", b"sub/older")]
    assert late.get_new_events() == []
    assert first.get_new_events() == []
    drop(inbox, "b")
    assert names(late.get_new_events()) == names(first.get_new_events()) == ["b"]


def test_new_consumer_begins_at_a_seq(make, inbox):
    poller = make()
    drop(inbox, *"abc")
    events = poller.get_new_events()
    assert make(consumer="late", start=2).get_new_events() == events[1:]
    with pytest.raises(InvalidOption, match="can't begin at 9"):
        make(consumer="later", start=9)


def test_where_it_begins_counts_for_new_consumers_only(make, inbox):
    drop(inbox, "old")
    make().close()
    assert make(start="beginning").get_new_events() == []
    assert make(existing="report").get_new_events() == []


# -- filters -----------------------------------------------------------------


def test_events_and_include_choose_for_the_consumer(make, inbox):
    everything = make(consumer="everything")
    poller = make(events=["created", "deleted"], include=["*.csv", "!not.csv", "ready/"])
    drop(inbox, "a.csv", "not.csv", "b.txt", "ready/c.txt", "deep/down/d.csv")
    assert names(poller.get_new_events()) == ["a.csv", "deep/down/d.csv", "ready/c.txt"]
    put(inbox / "a.csv", "changed")
    (inbox / "b.txt").unlink()
    assert poller.get_new_events() == []
    (inbox / "a.csv").unlink()
    assert [event.event for event in poller.get_new_events()] == ["deleted"]
    assert len(everything.get_new_events()) == 8
    assert poller.status().target == everything.status().target


def test_exclude_makes_another_target(make, inbox):
    poller, plain = make(exclude=["tmp/", "*.log"]), make()
    drop(inbox, "a.csv", "b.log", "tmp/c.csv")
    assert names(poller.get_new_events()) == ["a.csv"]
    assert names(plain.get_new_events()) == ["a.csv", "b.log", "tmp/c.csv"]
    assert poller.status().target != plain.status().target


def test_what_nobody_wants_does_not_pile_up(make, inbox):
    poller = make(include=["*.csv"])
    drop(inbox, *(f"f{number}" for number in range(30)))
    assert poller.get_new_events() == []
    poller.acknowledge()
    assert poller.status().consumers[0].lag == 0


# -- looking after it --------------------------------------------------------


def test_status(make, inbox):
    drop(inbox, "old")
    poller, other = make(), make(consumer="other")
    drop(inbox, "a", "b")
    before = datetime.now(UTC)
    poller.get_new_events()
    poller.acknowledge()
    status = other.status()
    assert status.url == f"file://{inbox}"
    assert status.complete
    assert status.entries == 3
    assert status.last_look is not None
    assert abs(status.last_look - before) < timedelta(minutes=1)
    assert status.look_seconds is not None
    assert (status.last_seq, status.oldest_seq) == (2, 1)
    assert (status.error, status.gaps, status.errors, status.held) == (None, 0, [], 0)
    assert [(row.name, row.seq, row.lag) for row in status.consumers] == [("default", 2, 0), ("other", 0, 2)]
    assert status.options == {"recurse": True}
    plain = json.loads(json.dumps(status.to_dict()))
    assert plain["consumers"][1]["lag"] == 2


def test_those_that_look_once_and_end_prune_too(inbox, state_url):
    """As from a crontab: no process is ever there for long."""
    clock, seen = Steps(), []
    for name in ("a", "b", "c", "d"):
        with FilePoller(inbox, state=state_url, clock=clock, retention=DAY) as poller:
            drop(inbox, name)
            seen += names(poller.get_new_events())
            oldest = poller.status().oldest_seq
        clock.ahead += 2 * DAY
    assert seen == ["a", "b", "c", "d"]
    assert oldest == 4


def test_too_old_a_consumer_is_told(make, inbox):
    clock = Steps()
    keep = {"clock": clock, "retention": DAY, "retention_unread": 10 * DAY}
    poller, slow = make(**keep), make(consumer="slow", **keep)
    drop(inbox, "a", "b")
    poller.claim("run-1", limit=1)
    assert len(poller.get_new_events()) == 1
    poller.acknowledge()
    clock.ahead += 5 * DAY
    drop(inbox, "c")
    assert names(poller.get_new_events()) == ["c"]
    assert poller.status().oldest_seq == 1  # as long as somebody still waits for it
    clock.ahead += 6 * DAY
    poller.get_new_events()
    poller.get_new_events()
    assert poller.status().oldest_seq == 3
    for ask in (slow.get_new_events, slow.next_batch, lambda: slow.claim("run-9")):
        with pytest.raises(
            OffsetTooOld, match="'slow' has read up to event 0, but events up to 2 were pruned"
        ):
            ask()
    with pytest.raises(OffsetTooOld):
        slow.rewind(1)
    with pytest.raises(OffsetTooOld):
        make(consumer="later", start=2, **keep)
    slow.rewind("beginning")
    assert names(slow.get_new_events()) == ["a", "b", "c"]
    slow.rewind(3)
    assert names(slow.get_new_events())[0] == "c"


def test_closed_is_closed(make, inbox):
    poller = make()
    poller.close()
    poller.close()
    for ask in (poller.get_new_events, poller.next_batch, poller.status, lambda: poller.claim("run")):
        with pytest.raises(PollerClosed, match="make a new one"):
            ask()


def test_made_anew_the_state_repeats_no_id(inbox, tmp_path):
    ids = set()
    for number in range(3):
        with FilePoller(inbox, state=tmp_path / f"state{number}.db", existing="report") as poller:
            drop(inbox, "a")
            ids |= {event.id for event in poller.get_new_events()}
    assert len(ids) == 3
