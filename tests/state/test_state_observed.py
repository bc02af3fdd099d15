"""What is held by a process, and left to the next one."""

from __future__ import annotations

import pytest

from poller_core.errors import StateDamaged
from poller_core.state import Store, open_store
from poller_core.state.checks import check_store
from poller_core.state.copying import copy_target
from poller_core.state.observed import Observed
from poller_core.state.repair import repair_store
from tests.state.helpers import keys_of, target_of, unpack

SEEN = [Observed(b"a", b"12345678", 10.5, 60.0), Observed(b"b\xff/", b"", 11.0, 2.0)]


def test_what_was_saved_is_loaded_under_its_origin_alone(store: Store) -> None:
    target = target_of(store)
    store.observations.save(target.id, "boot 1", 1.7e9, SEEN, 1000.0)
    store.observations.save(target.id, "boot 2", 1.8e9, SEEN[:1], 1001.0)
    assert store.observations.load(target.id, "boot 1") == (1.7e9, SEEN)
    assert store.observations.load(target.id, "boot 2") == (1.8e9, SEEN[:1])
    assert store.observations.load(target.id, "boot 3") == (0.0, [])
    assert store.observations.load(target.id + 1, "boot 1") == (0.0, [])


def test_the_last_one_counts(store: Store) -> None:
    target = target_of(store)
    store.observations.save(target.id, "boot", 1.0, SEEN, 1000.0)
    store.observations.save(target.id, "boot", 2.0, SEEN[1:], 1001.0)
    assert store.observations.load(target.id, "boot") == (2.0, SEEN[1:])
    store.observations.save(target.id, "boot", 2.0, [], 1002.0)
    assert store.observations.load(target.id, "boot") == (0.0, [])
    assert store.database.rows("SELECT * FROM poller_observed") == []


def test_other_starts_are_kept_for_a_day(store: Store) -> None:
    target = target_of(store)
    store.observations.save(target.id, "old", 1.0, SEEN, 1000.0)
    store.observations.save(target.id, "young", 1.0, SEEN, 2000.0)
    store.observations.save(target.id, "new", 1.0, SEEN, 1000.0 + 86401)
    assert store.observations.load(target.id, "old") == (0.0, [])
    assert store.observations.load(target.id, "young") == (1.0, SEEN)


def test_it_belongs_to_the_target(store: Store) -> None:
    target = target_of(store)
    store.observations.save(target.id, "boot", 1.0, SEEN, 1000.0)
    with open_store(None) as other:
        copy_target(store, target, other)
        assert other.observations.load(target.id, "boot") == (1.0, SEEN)
    store.forget(target.id)
    assert store.observations.load(target.id, "boot") == (0.0, [])
    with pytest.raises(StateDamaged, match="forgotten"):
        store.observations.save(target.id, "boot", 1.0, SEEN, 1000.0)


@pytest.mark.parametrize("change", ["blob = ?", "digest = ?"])
def test_damage_is_found_and_costs_nothing(store: Store, change: str) -> None:
    target = target_of(store)
    store.observations.save(target.id, "boot", 1.0, SEEN, 1000.0)
    store.observations.save(target.id, "other boot", 1.0, SEEN, 1000.0)
    with store.database.transaction():
        store.database.run(f"UPDATE poller_observed SET {change} WHERE origin = 'boot'", (b"\x92",))
    with pytest.raises(StateDamaged, match="poller repair"):
        store.observations.load(target.id, "boot")
    (found,) = check_store(store, unpack, keys_of)
    assert "digest" in found.what
    (mended,) = repair_store(store, unpack, keys_of)
    assert mended.cost.startswith("nothing")
    assert check_store(store, unpack, keys_of) == []
    assert store.observations.load(target.id, "boot") == (0.0, [])
    assert store.observations.load(target.id, "other boot") == (1.0, SEEN)
