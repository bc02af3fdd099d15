"""Metadata and state both in PostgreSQL, as where triggerer and workers are on several machines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import HERE
from tests.airflow.tools import found_in, ledger, put
from tests.services.airflow_host import AirflowHost

PASSWORD = "wonderland-42"

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


@pytest.fixture(scope="module")
def database(postgres_server: Any) -> Iterator[Any]:
    """Two databases; gives a function that connects to one of them, and their URLs."""
    import psycopg

    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE airflow_meta")
        connection.execute("CREATE DATABASE airflow_poller")
        connection.execute(f"CREATE ROLE poller LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    yield postgres_server
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE airflow_meta WITH (FORCE)")
        connection.execute("DROP DATABASE airflow_poller WITH (FORCE)")
        connection.execute("DROP ROLE poller")


@pytest.fixture(scope="module")
def pg_host(database: Any, work: Path) -> Iterator[AirflowHost]:
    """A second Airflow, with PostgreSQL for everything."""
    metadata = database.get_uri(database="airflow_meta").replace("postgresql://", "postgresql+psycopg2://")
    state = database.get_uri(database="airflow_poller").replace("postgres:@", f"poller:{PASSWORD}@")
    state = state.replace("postgresql://", "postgresql+psycopg://")
    assert PASSWORD in state
    folder = work / "pg"
    folder.mkdir()
    with AirflowHost(
        folder / "home",
        HERE / "dags",
        database=metadata,
        settings={"POLLER__STATE": state, "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10"},
        environ={"POLLER_TEST_WORK": str(folder)},
    ) as host:
        yield host


def test_sensor(pg_host: AirflowHost, work: Path) -> None:
    inbox = work / "pg" / "inbox"
    inbox.mkdir()
    run = pg_host.trigger("sensor_deferrable", {"inbox": str(inbox)})
    pg_host.state_of("sensor_deferrable", run, "wait", "deferred")
    put(inbox / "a")
    assert pg_host.finished("sensor_deferrable", run) == "success"
    assert pg_host.xcom("sensor_deferrable", run, "names") == ["a"]


@pytest.mark.timeout(600)
def test_burst_while_the_triggerer_is_killed(pg_host: AirflowHost, work: Path, database: Any) -> None:
    dag, folder = "burst_parallel", work / "pg" / "assets" / "bursts"
    pg_host.pause(dag, False)
    pg_host.until("it to be watched", lambda: dag in consumers(database))
    names = [f"file-{number:03}" for number in range(120)]
    for name in names[:60]:
        put(folder / name)
    pg_host.kill("triggerer")
    for name in names[60:]:
        put(folder / name)
    pg_host.start("triggerer")
    pg_host.until("all of them", lambda: len({line[3] for line in ledger(work / "pg", dag)}) >= 120, 300)
    for run in pg_host.runs(dag):
        assert pg_host.finished(dag, run["dag_run_id"]) == "success"
    done = Counter(line[3] for line in ledger(work / "pg", dag))
    assert sorted(done) == names
    assert set(done.values()) == {1}


def consumers(database: Any) -> list[str]:
    import psycopg

    with psycopg.connect(database.get_uri(database="airflow_poller")) as connection:
        try:
            return [row[0] for row in connection.execute("SELECT name FROM poller_consumers")]
        except psycopg.errors.UndefinedTable:
            return []


def test_password_of_the_state_is_nowhere(pg_host: AirflowHost, work: Path, database: Any) -> None:
    import psycopg

    assert not found_in(work / "pg" / "home", [PASSWORD])
    for name in ("airflow_meta", "airflow_poller"):
        with psycopg.connect(database.get_uri(database=name)) as connection:
            tables = connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables "
                "WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            assert len(tables) > 5
            for schema, table in tables:
                rows = connection.execute(f'SELECT t::text FROM "{schema}"."{table}" t').fetchall()
                assert not [row for row in rows if PASSWORD in row[0]], table
    assert not os.path.exists(work / "pg" / "home" / "poller" / "state.db")
