"""``poller.finish``: single events acknowledged in whatever order, while others stay pending."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller_core import Event, FilePoller, OffsetTooOld, UnknownConsumer, UnknownEvent, pages
from poller_core.state import open_store
from poller_core.state.checks import check_store

ROOT = Path(__file__).parent.parent


@pytest.fixture
def poller(inbox: Path, state_url: str) -> Iterator[FilePoller]:
    with FilePoller(inbox, state=state_url, consumer="me", retention=0) as opened:
        for number in range(6):
            (inbox / f"f{number}").write_text("1")
        yield opened


@pytest.fixture
def events(poller: FilePoller) -> list[Event]:
    return poller.next_batch().events


def waiting(poller: FilePoller) -> list[int]:
    return [event.seq for event in poller.next_batch()]


def offset(poller: FilePoller) -> int:
    return next(one.seq for one in poller.status().consumers if one.name == "me")


def marks(poller: FilePoller) -> int:
    (row,) = poller._engine.store.database.rows("SELECT COUNT(*) FROM poller_takes")
    return int(row[0])


def test_out_of_order(poller: FilePoller, events: list[Event]) -> None:
    poller.finish([events[1], events[4].id])
    assert (waiting(poller), offset(poller)) == ([1, 3, 4, 6], 0)
    poller.finish(events[:1])
    assert (waiting(poller), offset(poller), marks(poller)) == ([3, 4, 6], 2, 1)
    poller.finish(event.id for event in events[2:4])
    assert (waiting(poller), offset(poller), marks(poller)) == ([6], 5, 0)
    poller.finish(events)
    assert (waiting(poller), offset(poller), marks(poller)) == ([], 6, 0)


def test_again_does_nothing(poller: FilePoller, events: list[Event]) -> None:
    for _ in range(3):
        poller.finish(events[2])
        assert (waiting(poller), offset(poller)) == ([1, 2, 4, 5, 6], 0)
    poller.finish([])
    poller.finish([events[0], events[0]])
    poller.finish(events[1].id)
    poller.finish(events[:3])
    assert (waiting(poller), offset(poller)) == ([4, 5, 6], 3)


def test_with_an_acknowledged_batch(poller: FilePoller) -> None:
    batch = poller.next_batch()
    poller.finish(batch[3:5])
    batch.ack()
    assert (waiting(poller), offset(poller)) == ([], 6)
    poller.finish(batch)
    poller.rewind(2)
    assert waiting(poller) == [2, 3, 4, 5, 6]


def test_what_is_not_wanted_is_passed(inbox: Path, state_url: str) -> None:
    with FilePoller(inbox, state=state_url, consumer="me", include="*.csv") as poller:
        for number in range(50):
            (inbox / f"{number:02}.{'csv' if number in (10, 20, 30) else 'txt'}").write_text("1")
        batch = poller.next_batch()
        assert [event.seq for event in batch] == [11, 21, 31]
        poller.finish(batch[1])
        assert offset(poller) == 10
        poller.finish(batch[0])
        assert offset(poller) == 30
        assert waiting(poller) == [31]
        poller.finish(batch[2])
        assert (offset(poller), marks(poller)) == (50, 0)


def test_taken_events_are_passed_and_stay_theirs(poller: FilePoller, events: list[Event]) -> None:
    poller.take(events[1].id, "run")
    poller.finish([events[0], events[1]])
    assert (waiting(poller), offset(poller)) == ([3, 4, 5, 6], 2)
    assert poller.release("run") == 1
    assert waiting(poller) == [2, 3, 4, 5, 6]


def test_events_that_were_given_back(poller: FilePoller, events: list[Event]) -> None:
    assert len(poller.claim("run", 4)) == 4
    assert poller.release("run") == 4
    poller.finish([events[1], events[5]])
    assert waiting(poller) == [1, 3, 4, 5]
    assert offset(poller) == 4
    poller.finish(events)
    assert (waiting(poller), offset(poller)) == ([], 6)


def test_events_of_others_are_refused_and_nothing_is_noted(
    poller: FilePoller, events: list[Event], inbox: Path, state_url: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with FilePoller(tmp_path / "other", state=state_url) as other:
        (tmp_path / "other" / "x").write_text("1")
        (foreign,) = other.next_batch()
        assert foreign.seq == 1
    for bad in (
        foreign,
        "x",
        "",
        "99-0123456789abcdef",
        "2-0123456789abcdef",
        Event(subject=1, event="created"),
    ):
        with pytest.raises(UnknownEvent):
            poller.finish([events[0], bad])
    with pytest.raises(UnknownEvent, match="can't both be"):
        poller.finish([events[0], "1-0123456789abcdef"])
    assert (waiting(poller), offset(poller), marks(poller)) == ([1, 2, 3, 4, 5, 6], 0, 0)
    with FilePoller(inbox, state=state_url, consumer="late", existing="report") as late:
        private = late.next_batch()[0]
        with pytest.raises(UnknownEvent, match="not for consumer 'me'"):
            poller.finish(private)


def test_private_events_of_others_are_passed(
    poller: FilePoller, events: list[Event], inbox: Path, state_url: str
) -> None:
    with FilePoller(inbox, state=state_url, consumer="late", existing="report"):
        pass
    (inbox / "more").write_text("1")
    batch = poller.next_batch()
    assert [event.seq for event in batch] == [1, 2, 3, 4, 5, 6, 13]
    poller.finish(batch[:6])
    assert offset(poller) == 12
    poller.finish(batch)
    assert offset(poller) == 13


def test_pruned_events_are_passed_over(poller: FilePoller, events: list[Event]) -> None:
    engine = poller._engine
    poller.finish(events[:6])
    engine.store.prune(engine.target_id, 1e12, 0, 0)
    poller.finish(events)
    assert waiting(poller) == []


def test_who_was_away_for_too_long_is_still_told(
    poller: FilePoller, events: list[Event], inbox: Path
) -> None:
    engine = poller._engine
    engine.store.prune(engine.target_id, 1e12, 0, 0)
    (inbox / "more").write_text("1")
    engine.look()
    numbered = engine.store.event(engine.target_id, "me", 7)
    poller.finish(poller._event(numbered))
    with pytest.raises(OffsetTooOld):
        poller.next_batch()


def test_lost_events_are_still_told(poller: FilePoller, events: list[Event], inbox: Path) -> None:
    (inbox / "more").write_text("1")
    more = poller.next_batch()[6]
    database = poller._engine.store.database
    with database.transaction():
        database.run("UPDATE poller_journal SET blob = ?, digest = ? WHERE first_seq = 1", (b"", b""))
    poller.finish([*events, more])
    assert offset(poller) == 0
    with pytest.raises(OffsetTooOld):
        poller.next_batch()


def test_a_forgotten_consumer(poller: FilePoller, events: list[Event]) -> None:
    engine = poller._engine
    engine.store.consumers.forget(engine.target_id, "me")
    with pytest.raises(UnknownConsumer):
        poller.finish(events)


def test_many_at_once(inbox: Path, state_url: str) -> None:
    with FilePoller(inbox, state=state_url, consumer="me") as poller:
        for number in range(2500):
            (inbox / f"{number:04}").touch()
        batch = poller.next_batch(None)
        poller.finish(batch[::2])
        assert [event.seq for event in poller.next_batch(None)] == list(range(2, 2501, 2))
        poller.finish(batch[1:])
        assert (offset(poller), marks(poller)) == (2500, 0)


FINISH = """
import sys
from poller_core import FilePoller
place, state, *ids = sys.argv[1:]
with FilePoller(place, state=state, consumer="me") as poller:
    poller.finish(ids)
"""


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_while_finishing(
    poller: FilePoller, events: list[Event], inbox: Path, state_url: str, point: str
) -> None:
    """All of them or none."""
    environment = {**os.environ, "POLLER_CRASH_AT": f"store.finish_events.{point}"}
    ids = [events[number].id for number in (0, 1, 4)]
    command = [sys.executable, "-c", FINISH, str(inbox), state_url, *ids]
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 137
    after = [1, 2, 3, 4, 5, 6] if point == "before" else [3, 4, 6]
    assert waiting(poller) == after
    with open_store(state_url) as store:
        assert check_store(store, pages.unpack, pages.keys) == []
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert (waiting(poller), offset(poller)) == ([3, 4, 6], 2)
