"""Handlers: names whose runs work on one event each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poller_core import (
    Event,
    EventTaken,
    FilePoller,
    InvalidOption,
    Journal,
    UnknownClaim,
    UnknownConsumer,
    UnknownEvent,
    open_journal,
    pages,
)
from poller_core.state import open_store
from poller_core.state.checks import check_store
from poller_core.state.repair import repair_store
from tests.journals.tools import one_event_each, problems

# -- handlers --------------------------------------------------------------------------------


def test_the_first_token_has_the_event(journal: Journal, events: list[Event]) -> None:
    one = events[3]
    assert journal.take(one.id, "run-1", "load") == one
    assert journal.take(one.id, "run-1", "load") == one
    with pytest.raises(EventTaken, match=r"'run-1' for handler 'load'") as caught:
        journal.take(one.id, "run-2", "load")
    assert caught.value.token == "run-1"
    # In any order; each event and each handler by itself.
    assert journal.take(events[1].id, "run-2", "load") == events[1]
    assert journal.take(one.id, "run-3", "audit") == one
    rows = journal.claims()
    assert [(row.kind, row.consumer, row.token, row.ranges, row.count) for row in rows] == [
        ("handler", "load", "run-1", [(4, 4)], 1),
        ("handler", "load", "run-2", [(2, 2)], 1),
        ("handler", "audit", "run-3", [(4, 4)], 1),
    ]
    assert journal.claims(handler="audit") == rows[2:]
    assert journal.claims(handler="nobody") == []


def test_a_handler_is_no_reader(journal: Journal, events: list[Event], state_url: str, inbox: Path) -> None:
    journal.take(events[0].id, "run", "load")
    with FilePoller(inbox, state=state_url, consumer="reader") as poller:
        assert [one.name for one in poller.status().consumers] == ["reader"]
        assert poller.claims() == []
    with open_store(state_url) as store:
        (target,) = store.targets()
        # What the one reader has read goes when it is old, whatever the handler took or did not.
        assert store.prune(target.id, 1e12, 0, 1e12) == 6
    assert problems(state_url) == []


def test_the_check_finds_nothing_wrong_and_the_repair_takes_nothing(
    journal: Journal, events: list[Event], state_url: str
) -> None:
    journal.take(events[0].id, "run", "load")
    assert problems(state_url) == []
    with open_store(state_url) as store:
        assert repair_store(store, pages.unpack, pages.keys) == []
        with store.database.transaction():
            store.database.run("UPDATE poller_takes SET seq = 99")
        (finding,) = check_store(store, pages.unpack, pages.keys)
        assert "handler 'load'" in finding.where
        assert len(repair_store(store, pages.unpack, pages.keys)) == 1
    assert problems(state_url) == []


def test_a_consumer_of_the_same_name_is_something_else(
    journal: Journal, events: list[Event], state_url: str, inbox: Path
) -> None:
    with FilePoller(inbox, state=state_url, consumer="reader") as poller:
        poller.rewind(1)
        assert poller.take(events[0].id, "a") == events[0]
        assert journal.take(events[0].id, "b", "reader") == events[0]
        assert journal.take(events[1].id, "a", "reader") == events[1]
        assert [(row.kind, row.token) for row in journal.claims()] == [
            ("take", "a"),
            ("handler", "b"),
            ("handler", "a"),
        ]
        assert [event.seq for event in poller.next_batch()] == [2, 3, 4, 5, 6]
        assert journal.release("a", handler="reader") == 1
        assert [row.kind for row in journal.claims()] == ["take", "handler"]
        poller.rewind(1)
        assert [row.kind for row in journal.claims()] == ["handler"]
        poller.rewind("beginning")
        with open_store(state_url) as store:
            (target,) = store.targets()
            store.consumers.forget(target.id, "reader")
            assert [row.kind for row in store.consumers.claims(target.id)] == ["handler"]
            store.consumers.create(target.id, "reader", "now")
            assert store.handlers.forget(target.id, "reader") == 1
            assert store.consumers.get(target.id, "reader") is not None


def test_released_events_can_be_taken_by_another(journal: Journal, events: list[Event]) -> None:
    journal.take(events[0].id, "run-1", "load")
    journal.take(events[1].id, "run-1", "load")
    journal.take(events[0].id, "run-1", "audit")
    with pytest.raises(UnknownClaim, match="run-2"):
        journal.release("run-2", handler="load")
    assert journal.release("run-1", handler="load") == 2
    with pytest.raises(UnknownClaim, match=r"'run-1' has no events for handler 'load'"):
        journal.release("run-1", handler="load")
    assert journal.take(events[0].id, "run-2", "load") == events[0]
    with pytest.raises(EventTaken):
        journal.take(events[0].id, "run-2", "audit")


def test_released_in_all_targets_or_in_one(inbox: Path, state_url: str) -> None:
    found = one_event_each(inbox, state_url, "a", "b")
    with open_journal(state_url) as journal:
        for event in found:
            journal.take(event.id, "run", "load")
        assert journal.release("run", inbox / "a", handler="load") == 1
        journal.take(found[0].id, "run", "load")
        assert journal.release("run", handler="load") == 2


def test_a_handler_can_be_forgotten(journal: Journal, events: list[Event], state_url: str) -> None:
    journal.take(events[0].id, "run", "load")
    with open_store(state_url) as store:
        (target,) = store.targets()
        assert store.handlers.forget(target.id, "load") == 1
        with pytest.raises(UnknownConsumer, match="load"):
            store.handlers.forget(target.id, "load")
    assert journal.take(events[0].id, "other", "load") == events[0]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 251, None, 7])
def test_names_and_tokens_that_cannot_be(journal: Journal, events: list[Event], name: Any) -> None:
    with pytest.raises(InvalidOption, match="handler"):
        journal.take(events[0].id, "run", name)
    with pytest.raises(InvalidOption, match="token"):
        journal.take(events[0].id, name, "load")
    with pytest.raises(InvalidOption, match="token"):
        journal.take(events[0].id, "finished", "load")


def test_a_target_that_is_forgotten_takes_the_takes_along(
    journal: Journal, events: list[Event], state_url: str
) -> None:
    journal.take(events[0].id, "run", "load")
    with open_store(state_url) as store:
        (target,) = store.targets()
        store.forget(target.id)
        assert store.database.rows("SELECT * FROM poller_takes") == []
    with pytest.raises(UnknownEvent, match="forgotten"):
        journal.take(events[0].id, "run", "load")
