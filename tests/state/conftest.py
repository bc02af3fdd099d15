"""What the tests of the state share: one on either database, and a target in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poller_core.state import Consumers, Store, Target, open_store
from tests.state.helpers import add, some, target_of


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
