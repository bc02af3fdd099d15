"""What is particular to PostgreSQL: connections, secrets, rights."""

from __future__ import annotations

import builtins
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from poller_core.errors import StateDamaged, StateError, StateLocked, StateReadOnly, StateUnreadable
from poller_core.state import SnapshotChange, Store, open_store
from poller_core.state.postgresql import PostgresDatabase
from poller_core.state.schema import prepare
from poller_core.state.urls import parse_state_url
from tests.state.helpers import add, seqs, some, target_of

pytestmark = pytest.mark.postgres

SECRET = "s3cr/t pass"
QUOTED = "s3cr%2Ft%20pass"


@pytest.fixture
def admin(postgres_url: str) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    with open_store(postgres_url) as opened:
        yield opened


def backend_of(store: Store) -> int:
    row = store.database.row("SELECT pg_backend_pid()")
    assert row is not None
    return int(row[0])


def test_the_driver_may_be_named(postgres_url: str) -> None:
    with open_store(postgres_url.replace("postgresql://", "postgresql+psycopg://")) as store:
        assert store.url.startswith("postgresql://postgres@/test_")
        assert not store.private
        assert store.path is None


def shown_by(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://bob:{QUOTED}@/nowhere?host=/no/such/directory",
        f"postgresql://bob:{QUOTED}@localhost:1/nowhere",
        f"postgresql://bob@localhost:1/nowhere?password={QUOTED}",
        f"postgresql://bob:{QUOTED}@localhost:1/nowhere?no_such_option=1",
        f"postgresql://bob:{QUOTED}@localhost:1/nowhere?sslmode=nonsense",
    ],
)
def test_a_server_that_is_not_there(url: str) -> None:
    with pytest.raises(StateUnreadable) as caught:
        open_store(url, timeout=3)
    assert "bob" in str(caught.value)
    assert "nowhere" in str(caught.value)
    assert "s3cr" not in shown_by(caught.value)


def test_a_database_that_is_not_there(postgres_url: str) -> None:
    base, _, query = postgres_url.partition("?")
    url = f"{base}_not?{query}".replace("postgres:@", f"postgres:{QUOTED}@")
    with pytest.raises(StateUnreadable, match="does not exist") as caught:
        open_store(url)
    assert "s3cr" not in shown_by(caught.value)


def test_no_password_in_anything_that_is_shown(postgres_url: str) -> None:
    with open_store(postgres_url.replace("postgres:@", f"postgres:{QUOTED}@")) as store:
        target = target_of(store)
        shown = [store.url, repr(store), str(store), repr(store.database), store.database.shown]
        store.forget(target.id)
        with pytest.raises(StateError) as caught:
            store.reload(target.id)
        shown.append(shown_by(caught.value))
    assert not [text for text in shown if "s3cr" in text]


def test_without_the_driver(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "psycopg":
            raise ImportError("no psycopg")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(StateUnreadable, match=r"pip install 'poller-core\[postgres\]'"):
        open_store(postgres_url)


def test_a_lost_connection_is_made_anew(store: Store, admin: Any) -> None:
    target = target_of(store)
    add(store, target, some(3))
    for attempt in (
        lambda: store.generation(target.id),
        lambda: seqs(store.read(target.id, "", 0)[0]),
        lambda: store.commit(target.id, store.generation(target.id), SnapshotChange(1, records=some(1))),
    ):
        admin.execute("SELECT pg_terminate_backend(%s)", (backend_of(store),))
        attempt()
    assert store.last_seq(target.id) == 4


def test_a_connection_that_is_lost_in_a_transaction(store: Store, admin: Any) -> None:
    target = target_of(store)
    pid = backend_of(store)

    def lose_it() -> None:
        with store.database.transaction():
            add(store, target, some(1))
            admin.execute("SELECT pg_terminate_backend(%s)", (pid,))
            # Whatever comes next in the transaction must fail, and not run alone on a new connection.
            with pytest.raises(StateUnreadable, match="lost"):
                store.generation(target.id)
            with pytest.raises(StateUnreadable, match="lost"):
                add(store, target, some(1))

    with pytest.raises(StateUnreadable, match="lost"):
        lose_it()
    assert store.last_seq(target.id) == 0
    assert add(store, target, some(1)) == 1


def test_locked(store: Store, postgres_url: str) -> None:
    target = target_of(store)
    with open_store(postgres_url, timeout=0.2) as other:
        with store.database.transaction():
            add(store, target, some(1))
            with pytest.raises(StateLocked, match=r"0\.2 s"):
                add(other, target, some(1))
            # Readers wait for nobody.
            assert other.last_seq(target.id) == 0
        assert add(other, target, some(1)) == 2


def test_rights(store: Store, postgres_url: str, admin: Any) -> None:
    target = target_of(store)
    name = f"reader_{target.id}"
    admin.execute(f"CREATE ROLE {name} LOGIN")
    try:
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
        with open_store(postgres_url.replace("postgres:@", f"{name}@")) as other:
            assert other.last_seq(target.id) == 0
            with pytest.raises(StateReadOnly):
                add(other, target, some(1))
    finally:
        admin.execute(f"DROP OWNED BY {name}")
        admin.execute(f"DROP ROLE {name}")


def test_no_right_to_make_tables(postgres_url: str, admin: Any) -> None:
    admin.execute("CREATE ROLE nobody_here LOGIN")
    try:
        with pytest.raises(StateReadOnly) as caught:
            open_store(postgres_url.replace("postgres:@", "nobody_here@"))
        assert str(caught.value).endswith(
            " can't be written to: permission denied for schema public. Give the user the right to create "
            "and write tables (GRANT CREATE, USAGE ON SCHEMA public TO …), or use the primary server"
        )
    finally:
        admin.execute("DROP ROLE nobody_here")


def test_a_server_that_only_reads(store: Store, postgres_url: str) -> None:
    target = target_of(store)
    url = postgres_url + "&options=-cdefault_transaction_read_only%3Don"
    with open_store(url) as other:
        assert other.last_seq(target.id) == 0
        with pytest.raises(StateReadOnly):
            add(other, target, some(1))


def test_tables_without_their_version_are_damage(store: Store, postgres_url: str, admin: Any) -> None:
    target_of(store)
    admin.execute("DROP TABLE poller_meta")
    with pytest.raises(StateDamaged):
        open_store(postgres_url)
    assert admin.execute("SELECT count(*) FROM poller_targets").fetchone() == (1,)


def test_what_lies_beside_is_left_alone(postgres_url: str, admin: Any) -> None:
    admin.execute("CREATE TABLE targets (x int)")
    with open_store(postgres_url) as store:
        target_of(store)
    assert admin.execute("SELECT count(*) FROM targets").fetchone() == (0,)


def test_two_that_make_the_tables_at_once(postgres_url: str) -> None:
    """The second one has asked before whether they are there, and was told that they are not."""
    place = parse_state_url(postgres_url)
    first, second = (PostgresDatabase(place.text, place.parameters, 30) for _ in range(2))
    errors: list[BaseException] = []

    def make() -> None:
        try:
            prepare(second, create=True)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=make)
    with first.transaction():
        first.lock_schema()
        thread.start()
        time.sleep(0.5)  # so that it waits for the lock
        prepare(first, create=True)
    thread.join()
    assert errors == []
    assert second.has_table("poller_dead")
    first.close()
    second.close()
