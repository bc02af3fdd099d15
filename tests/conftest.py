"""What all tests share: a state of each kind, and a Swift.

``state_url`` runs a test once with an SQLite file and once with a real
PostgreSQL, which is started for the session. Without one the tests fail: a
database that is not tested is not supported.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO

_numbers = itertools.count(1)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty directory to watch."""
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of our own, for the session."""
    from tests.services.postgres import Postgres

    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Any) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    import psycopg

    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.get_uri(database=name)
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def state_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a state that does not exist yet, on either database."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    # Not below tmp_path: a test may watch that, and the state would be among what it sees.
    return f"sqlite:///{tmp_path_factory.mktemp('state') / 'state.db'}"


@pytest.fixture(scope="session")
def swift_aio() -> Iterator[SwiftAIO]:
    """A Swift with TempAuth and, on another port, a Keystone."""
    with SwiftAIO() as aio:
        yield aio


@pytest.fixture(scope="session")
def small_aio() -> Iterator[SwiftAIO]:
    """A Swift with TempAuth that lists ten names at once."""
    with SwiftAIO(keystone=False, listing_limit=10) as aio:
        yield aio


def _box(aio: SwiftAIO, keystone: bool = False) -> Iterator[Box]:
    box = Box(aio, keystone=keystone).create()
    yield box
    box.remove()
    box.close()


@pytest.fixture
def box(swift_aio: SwiftAIO) -> Iterator[Box]:
    """A new container."""
    yield from _box(swift_aio)


@pytest.fixture
def ks_box(swift_aio: SwiftAIO) -> Iterator[Box]:
    """A new container of an account that Keystone knows."""
    yield from _box(swift_aio, keystone=True)


@pytest.fixture(scope="module")
def keystone(swift_aio: SwiftAIO) -> Iterator[Box]:
    """A container of an account that Keystone knows, for all tests of a file."""
    yield from _box(swift_aio, keystone=True)


@pytest.fixture
def small_box(small_aio: SwiftAIO) -> Iterator[Box]:
    """A new container that is listed by tens."""
    yield from _box(small_aio)
