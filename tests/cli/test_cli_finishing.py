"""The part of the state that ``--exec`` stands on: events finished one by one, dead letters given back."""

from __future__ import annotations

import pytest

from poller_core.errors import EventTaken, OffsetTooOld, UnknownConsumer, UnknownEvent
from poller_core.state import Record, SnapshotChange, Store, open_store
from poller_core.state.copying import copy_target, find_targets
from poller_core.state.single import finish, revive


@pytest.fixture
def store(state_url: str):
    with open_store(state_url) as opened:
        yield opened


def _filled(store: Store, count: int = 6) -> int:
    target = store.target("d" * 32, "file:///x", "{}")
    store.consumers.create(target.id, "me")
    records = [Record(1, b"%d" % number) for number in range(1, count + 1)]
    store.commit(target.id, 0, SnapshotChange(1, records=records))
    return target.id


def _waiting(store: Store, target: int, limit: int | None = None) -> list[int]:
    return [one.seq for one in store.consumers.pending(target, "me", limit).events]


def _offset(store: Store, target: int) -> int:
    return store.consumers.known(target, "me").seq


def _marks(store: Store) -> int:
    (row,) = store.database.rows("SELECT COUNT(*) FROM poller_takes")
    return int(row[0])


def test_what_is_finished_out_of_order_is_not_given_again(store: Store) -> None:
    target = _filled(store)
    assert finish(store.database, target, "me", [2, 5], 0, 0) == 0
    assert _waiting(store, target) == [1, 3, 4, 6]
    assert finish(store.database, target, "me", [1], 0, 0) == 2
    assert (_offset(store, target), _marks(store)) == (2, 1)
    assert finish(store.database, target, "me", [3, 4, 6], 0, 2) == 6
    assert (_waiting(store, target), _marks(store)) == ([], 0)


def test_what_was_not_wanted_is_passed(store: Store) -> None:
    target = _filled(store)
    assert finish(store.database, target, "me", [2], 4, 0) == 4
    assert _waiting(store, target) == [5, 6]
    # Never beyond what there is.
    assert finish(store.database, target, "me", [], 99, 4) == 6


def test_a_rewind_in_between_stands(store: Store) -> None:
    target = _filled(store)
    assert finish(store.database, target, "me", [], 5, 0) == 5
    store.consumers.rewind(target, "me", 2)
    assert finish(store.database, target, "me", [6], 6, 5) == 1
    assert _waiting(store, target) == [2, 3, 4, 5]


def test_another_ones_take_stays(store: Store) -> None:
    target = _filled(store, 2)
    epoch = store.reload(target).epoch
    from poller_core.state import event_id

    one = store.event(target, "me", 2)
    store.consumers.take(target, "me", event_id(epoch, 2, one.record), "other")
    finish(store.database, target, "me", [2], 0, 0)
    assert store.consumers.owner(target, "me", 2) == "other"


def test_returned_events_are_finished_too(store: Store) -> None:
    target = _filled(store)
    store.consumers.claim(target, "me", "run", 3)
    store.consumers.release(target, "me", "run")
    assert _waiting(store, target) == [1, 2, 3, 4, 5, 6]
    finish(store.database, target, "me", [1, 3], 3, 3)
    assert _waiting(store, target) == [2, 4, 5, 6]


def test_a_dead_letter_goes_back(store: Store) -> None:
    target = _filled(store)
    store.consumers.bury(target, "me", 3, 1, "why", "{}")
    finish(store.database, target, "me", [1, 2], 2, 0)
    assert _offset(store, target) == 3
    revive(store.database, target, "me", 3)
    assert _waiting(store, target) == [3, 4, 5, 6]
    assert store.consumers.dead(target, "me") == []
    # One beyond the offset is simply next again.
    store.consumers.bury(target, "me", 5, 1, "why", "{}")
    assert _waiting(store, target) == [3, 4, 6]
    revive(store.database, target, "me", 5)
    assert _waiting(store, target) == [3, 4, 5, 6]


def test_a_dead_letter_that_can_not_go_back_stays(store: Store) -> None:
    target = _filled(store)
    with pytest.raises(UnknownEvent):
        revive(store.database, target, "me", 3)
    with pytest.raises(UnknownConsumer):
        revive(store.database, target, "nobody", 3)
    store.consumers.bury(target, "me", 1, 1, "why", "{}")
    finish(store.database, target, "me", [], 6, 1)
    store.prune(target, 1e12, 0, 0)
    with pytest.raises(OffsetTooOld):
        revive(store.database, target, "me", 1)
    assert len(store.consumers.dead(target, "me")) == 1


def test_a_dead_letter_that_somebody_has_stays(store: Store) -> None:
    from poller_core.state import event_id

    target = _filled(store)
    one = store.event(target, "me", 2)
    store.consumers.take(target, "me", event_id(store.reload(target).epoch, 2, one.record), "other")
    store.consumers.bury(target, "me", 2, 1, "why", "{}")
    with pytest.raises(EventTaken):
        revive(store.database, target, "me", 2)
    assert len(store.consumers.dead(target, "me")) == 1


def test_accept_root_forgets_where_it_was(store: Store) -> None:
    target = store.target("d" * 32, "file:///x", "{}")
    done = store.commit(target.id, 0, SnapshotChange(1, identity="here"))
    store.accept_root(target.id)
    assert store.reload(target.id).identity is None
    # A look that began before is not stored.
    assert store.generation(target.id) == done.generation + 1


def test_a_copy_has_everything(store: Store) -> None:
    target_id = _filled(store, 250)
    store.consumers.claim(target_id, "me", "run", 3)
    store.consumers.bury(target_id, "me", 9, 1, "why", "{}")
    known = store.reload(target_id)
    (target,) = find_targets(store, known.url, known.options)
    assert target == known
    with open_store(None) as copy:
        copy_target(store, target, copy)
        assert find_targets(copy, known.url, known.options) == [target]
        assert copy.consumers.pending(target_id, "me") == store.consumers.pending(target_id, "me")
        assert copy.consumers.claims(target_id) == store.consumers.claims(target_id)
        assert copy.consumers.dead(target_id, "me") == store.consumers.dead(target_id, "me")
    assert find_targets(store, known.url, '{"recurse":true}') == []


def test_a_state_that_is_not_there_is_not_made(tmp_path) -> None:
    from poller_core.errors import StateError

    with pytest.raises(StateError):
        open_store(tmp_path / "sub" / "state.db", create=False)
    assert not (tmp_path / "sub").exists()


def test_an_open_store_is_given_back(store: Store) -> None:
    assert open_store(store) is store
