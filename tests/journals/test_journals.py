"""Journals: events by their id, runs that take them, and consumers' claims, out of the state alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import poller_core
from poller_core import (
    Event,
    EventTaken,
    FilePoller,
    InvalidOption,
    Journal,
    OffsetTooOld,
    PollerClosed,
    StateDamaged,
    StateUnreadable,
    UnknownClaim,
    UnknownConsumer,
    UnknownEvent,
    open_journal,
    pages,
)
from poller_core.state import open_store
from poller_core.state.repair import repair_store
from tests.journals.tools import one_event_each, problems

ROOT = Path(__file__).parents[2]


# -- opening ---------------------------------------------------------------------------


def test_a_state_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StateUnreadable, match="nothing has been watched with it yet"):
        open_journal(tmp_path / "no" / "state.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.postgres
def test_a_database_without_a_state(postgres_url: str) -> None:
    with pytest.raises(StateDamaged, match="not a state of this program"):
        open_journal(postgres_url)


@pytest.mark.parametrize("state", [None, ":memory:", "sqlite://", 7, "redis://x"])
def test_states_that_nobody_else_can_have_written(state: Any) -> None:
    with pytest.raises(InvalidOption, match="state"):
        open_journal(state)


def test_a_closed_journal(journal: Journal, events: list[Event]) -> None:
    journal.close()
    journal.close()
    for attempt in (
        lambda: journal.event(events[0].id),
        lambda: journal.take(events[0].id, "run", "load"),
        lambda: journal.claim("x", "run"),
        journal.claims,
    ):
        with pytest.raises(PollerClosed):
            attempt()


# -- single events -----------------------------------------------------------------------


def test_events_by_their_id(journal: Journal, events: list[Event], inbox: Path) -> None:
    shutil.rmtree(inbox)  # the target is not needed
    for event in events:
        assert journal.event(event.id) == event


def test_the_target_is_found_among_many(inbox: Path, state_url: str) -> None:
    found = one_event_each(inbox, state_url, "a", "b", "c")
    single = inbox / "single.csv"
    single.write_text("1")
    with FilePoller(single, state=state_url) as poller:
        single.write_text("22")
        found += poller.get_new_events()
    with open_journal(state_url) as journal:
        assert [journal.event(event.id) for event in found] == found
        assert {event.seq for event in found} == {1}
        for event in found:
            assert journal.take(event.id, f"run of {event.subject}", "load") == event
        assert len(journal.claims(handler="load")) == 4
        assert len({row.target for row in journal.claims()}) == 4
        assert [row.token for row in journal.claims(single)] == [f"run of file://{single}"]


def test_events_that_a_consumer_was_given_alone(inbox: Path, state_url: str) -> None:
    (inbox / "old").write_text("1")
    with FilePoller(inbox, state=state_url, existing="report"):
        pass
    with FilePoller(inbox, state=state_url, consumer="late", existing="report") as late:
        (event,) = late.get_new_events()
        with open_journal(state_url) as journal:
            assert journal.take(event.id, "run", "load") == event
            # Also when its consumer is gone: the run was made for the event, not for the consumer.
            with open_store(state_url) as store:
                (target,) = store.targets()
                store.consumers.forget(target.id, "late")
            assert journal.event(event.id) == event
        late._handed = None


@pytest.mark.parametrize("text", ["", "x", "12", "0-0123456789abcdef", None, 7, "1-0123456789ABCDEF"])
def test_what_is_no_id(journal: Journal, text: Any) -> None:
    with pytest.raises(UnknownEvent, match="not an event id"):
        journal.event(text)
    with pytest.raises(UnknownEvent, match="not an event id"):
        journal.take(text, "run", "load")


def test_ids_of_other_states(journal: Journal) -> None:
    for text in ("3-0123456789abcdef", "7-0123456789abcdef", f"{2**63 - 1}-0123456789abcdef"):
        with pytest.raises(UnknownEvent, match=r"no target of the state .* has made event"):
            journal.event(text)
        with pytest.raises(UnknownEvent):
            journal.take(text, "run", "load")
    assert journal.claims() == []


def test_pruned_events_are_told_from_those_that_never_were(
    journal: Journal, events: list[Event], state_url: str, inbox: Path
) -> None:
    journal.take(events[2].id, "run", "load")
    with open_store(state_url) as store:
        (target,) = store.targets()
        assert store.prune(target.id, 1e12, 0, 0) == 6
    for ask in (journal.event, lambda id: journal.take(id, "run", "load")):
        with pytest.raises(UnknownEvent, match="pruned") as caught:
            ask(events[2].id)
        assert f"file://{inbox}" in str(caught.value)
    # The take went with its event.
    assert journal.claims() == []
    with open_store(state_url) as store:
        assert store.database.rows("SELECT * FROM poller_takes") == []


def test_pruned_between_finding_and_taking(
    journal: Journal, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = journal._store
    find = store.handlers.find

    def slowly(event: str) -> Any:
        found = find(event)
        store.prune(found[0].id, 1e12, 0, 0)
        return found

    monkeypatch.setattr(store.handlers, "find", slowly)
    with pytest.raises(UnknownEvent, match="pruned"):
        journal.take(events[0].id, "run", "load")
    assert journal.claims() == []


def test_damage_is_told(journal: Journal, events: list[Event], state_url: str) -> None:
    with open_store(state_url) as store:
        with store.database.transaction():
            store.database.run("UPDATE poller_journal SET digest = ?", (b"x",))
        with pytest.raises(StateDamaged):
            journal.event(events[0].id)
        repair_store(store, pages.unpack, pages.keys)
    with pytest.raises(UnknownEvent):
        journal.take(events[0].id, "run", "load")


def test_damage_of_one_target_does_not_hide_another_ones_event(inbox: Path, state_url: str) -> None:
    _, second = one_event_each(inbox, state_url, "a", "b")
    with open_store(state_url) as store, store.database.transaction():
        first = store.targets()[0]
        store.database.run("UPDATE poller_journal SET digest = ? WHERE target_id = ?", (b"x", first.id))
    with open_journal(state_url) as journal:
        assert journal.event(second.id) == second


# -- many at once --------------------------------------------------------------------------------


def test_threads_that_ask_for_one_event(journal: Journal, events: list[Event]) -> None:
    won: list[str] = []
    refused: list[str | None] = []
    barrier = threading.Barrier(8)

    def run(number: int) -> None:
        barrier.wait()
        try:
            journal.take(events[0].id, f"run-{number}", "load")
            won.append(f"run-{number}")
        except EventTaken as error:
            refused.append(error.token)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert refused == won * 7


RUNS = """
import sys
from poller_core import EventTaken, open_journal
state, token, *ids = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with open_journal(state) as journal:
    for id in ids:
        try:
            journal.take(id, token, "load")
        except EventTaken:
            continue
        print(id, flush=True)
"""


def runs(state: str, token: str, events: list[Event], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUNS, state, token, *(event.id for event in events)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


def test_processes_that_ask_for_the_same_events(state_url: str, events: list[Event]) -> None:
    processes = [runs(state_url, f"run-{number}", events) for number in range(4)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [line for process in processes for line in process.communicate(timeout=120)[0].split()]
    assert sorted(taken) == sorted(event.id for event in events)
    assert problems(state_url) == []


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_while_taking(state_url: str, events: list[Event], point: str) -> None:
    """The next run of the same token has it, before and after; another one only if nothing was stored."""
    environment = {**os.environ, "POLLER_CRASH_AT": f"store.handle.{point}:2"}
    process = runs(state_url, "run-1", events, env=environment)
    process.communicate("go\n", timeout=120)
    assert process.returncode == 137
    assert problems(state_url) == []
    with open_journal(state_url) as journal:
        assert sum(row.count for row in journal.claims()) == (1 if point == "before" else 2)
        assert [journal.take(event.id, "run-1", "load") for event in events[:2]] == events[:2]
        with pytest.raises(EventTaken):
            journal.take(events[1].id, "run-2", "load")


# -- consumers -----------------------------------------------------------------------------------


def test_claims_without_the_target(
    journal: Journal, events: list[Event], state_url: str, inbox: Path
) -> None:
    with FilePoller(inbox, state=state_url, consumer="reader") as poller:
        digest = poller.digest
        poller.rewind(1)
        assert poller.claim("run-0", 1) == events[:1]
    shutil.rmtree(inbox)
    assert journal.claim(inbox, "run-0", "reader") == events[:1]
    first = journal.claim(str(inbox), "run-1", "reader", limit=2)
    assert (first.events, first.token) == (events[1:3], "run-1")
    assert journal.claim(digest, "run-1", "reader") == first
    assert journal.claim(f"file://{inbox}", "run-2", "reader", limit=None) == events[3:]
    assert journal.claim(digest, "run-3", "reader") == []
    assert [(row.kind, row.token, row.target) for row in journal.claims(digest, consumer="reader")] == [
        ("claim", f"run-{number}", digest) for number in range(3)
    ]
    assert journal.release("run-1", consumer="reader") == 2
    with pytest.raises(UnknownClaim):
        journal.release("run-1", consumer="reader")
    assert journal.claim(digest, "run-4", "reader") == events[1:3]
    with pytest.raises(UnknownConsumer, match="reader"):
        journal.claim(digest, "run-5", "nobody")


def test_a_claim_of_what_is_wanted(
    journal: Journal, events: list[Event], inbox: Path, state_url: str
) -> None:
    with FilePoller(inbox, state=state_url, consumer="some") as poller:
        (inbox / "one.csv").write_text("1")
        (inbox / "two.txt").write_text("1")
        (inbox / "f0").unlink()
        poller.next_batch()
        digest = poller.digest
    found = journal.claim(digest, "run", "some", include="*.csv", events="created")
    assert [event.key for event in found] == [b"one.csv"]
    assert journal.claim(digest, "run-2", "some") == []
    with pytest.raises(InvalidOption, match="events"):
        journal.claim(digest, "run-3", "some", events="gone")
    with pytest.raises(InvalidOption, match="include"):
        journal.claim(digest, "run-3", "some", include=["a", 7])
    with pytest.raises(InvalidOption, match="limit"):
        journal.claim(digest, "run-3", "some", limit=0)


def test_a_claim_whose_events_are_gone(journal: Journal, inbox: Path, state_url: str) -> None:
    with FilePoller(inbox, state=state_url, consumer="reader") as poller:
        poller.rewind(1)
    journal.claim(inbox, "run", "reader")
    with open_store(state_url) as store:
        (target,) = store.targets()
        store.prune(target.id, 1e12, 0, 0)
    with pytest.raises(OffsetTooOld):
        journal.claim(inbox, "run", "reader")
    with pytest.raises(OffsetTooOld):
        journal.release("run", consumer="reader")


def test_which_target_is_meant(journal: Journal, events: list[Event], inbox: Path, state_url: str) -> None:
    with pytest.raises(InvalidOption, match=f"is not in the state .*; there is: file://{inbox}"):
        journal.claim(inbox / "other", "run", "reader")
    with FilePoller(inbox, recurse=True, state=state_url, consumer="reader") as poller:
        digest = poller.digest
    with pytest.raises(InvalidOption, match=rf"give the digest .*{digest} \(recurse=True\)"):
        journal.claim(inbox, "run", "reader")
    assert journal.claim(digest, "run", "reader") == []


def test_one_kind_at_a_time(journal: Journal) -> None:
    with pytest.raises(InvalidOption, match="not both"):
        journal.release("run", consumer="a", handler="b")
    with pytest.raises(InvalidOption, match="not both"):
        journal.claims(consumer="a", handler="b")
    with pytest.raises(InvalidOption, match="consumer= or handler="):
        journal.release("run")


def test_a_journal_in_a_forked_child(journal: Journal, events: list[Event]) -> None:
    assert journal.event(events[0].id) == events[0]
    pid = os.fork()
    if not pid:
        try:
            journal.take(events[0].id, "child", "load")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(EventTaken, match="child"):
        journal.take(events[0].id, "parent", "load")


def test_what_is_exported() -> None:
    assert {"Journal", "open_journal", "Lease", "LeaseHeld"} <= set(poller_core.__all__)
