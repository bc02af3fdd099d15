"""Data of Prefect and the state both in PostgreSQL, as where pollers and workers are on several machines."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from poller_prefect import PollerState
from pydantic import SecretStr

from tests.prefect.burst import FOLLOWS, ROOT, Burst
from tests.prefect.steps import feed
from tests.prefect.tools import using
from tests.services.postgres_contrib import ContribPostgres, programs
from tests.services.prefect_host import PrefectHost

PASSWORD = "wonderland-42"

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def state(postgres_server: Any) -> Iterator[str]:
    """The URL of the state, with a password in it."""
    import psycopg

    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE prefect_poller")
        connection.execute(f"CREATE ROLE prefect_poller LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    url = postgres_server.get_uri(database="prefect_poller")
    url = url.replace("postgres:@", f"prefect_poller:{PASSWORD}@").replace(
        "postgresql:", "postgresql+psycopg:"
    )
    assert PASSWORD in url
    yield url
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE prefect_poller WITH (FORCE)")
        connection.execute("DROP ROLE prefect_poller")


@pytest.fixture(scope="module")
def host(state: str, work: Path) -> Iterator[PrefectHost]:
    """A second Prefect, with PostgreSQL for everything, and a block for the state."""
    where = programs()
    if where is None:
        pytest.skip("no PostgreSQL with pg_trgm, which Prefect's server needs: apt-get install postgresql")
    environ = {"PYTHONPATH": str(ROOT)}
    with (
        ContribPostgres(where) as postgres,
        PrefectHost(work / "pg" / "home", database=postgres.url(), environ=environ) as host,
    ):
        with using(host):
            PollerState(url=SecretStr(state)).save("pg-state")
        yield host


def awkward() -> list[str]:
    """Names that fit no index, or mean something to somebody on the way."""
    noise = random.Random(1)  # what can be packed fits
    longer = ["".join(noise.choices(string.ascii_letters, k=250)) for _ in range(13)]
    told = [
        "a\nb",
        "a\tb",
        "a'b\"c",
        "100%s %(x)s",
        "\\x00 \\u0000",
        "{{ path }}",
        "$1 ${HOME}",
        "[a]*?!",
        "-rf",
    ]
    return [
        "/".join(longer),
        "/".join(longer[2:]),
        *told,
        "ü€😀",
        " ",
        "not UTF-8 \udcff",
        "\ufeffbom",
        "x" * 255,
    ]


@pytest.mark.parametrize(
    ("way", "number", "victims"), [("direct", 60, ["server", "poller"]), ("triggered", 24, ["server"])]
)
def test_burst(host: PrefectHost, state: str, inbox: Path, way: str, number: int, victims: list[str]) -> None:
    names = awkward()
    names += [f"file-{index:02}" for index in range(number - len(names))]
    options = {"state": "pg-state", "recurse": True}
    burst = Burst(host, way, inbox, FOLLOWS, state, options)
    burst.kill_in_the_middle(names, victims)
    completed = burst.done(len(names))
    burst.check_that_each_was_done_once(names, completed)
    told = host.until("all events", lambda: len(events := feed(host, inbox)) >= len(names) and events)
    assert sorted(event["payload"]["id"] for event in told) == sorted(line[0] for line in burst.lines())
    burst.end()
    # The block's password is nowhere in the clear: neither in a file nor in a table of the state.
    assert not [
        path for path in host.home.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
