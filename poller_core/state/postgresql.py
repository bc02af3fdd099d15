"""The state in a PostgreSQL database.

Guarantees: a connection that was lost between two transactions is made anew
once; one that is lost within a transaction is an error, and trying again is
safe. No error shows a password.

Does not guarantee: to know whether a commit was stored when the connection was
lost during that very commit. Every write of this package may be repeated, or
is turned away as a conflict if it had been stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import StateDamaged, StateError, StateFull, StateLocked, StateReadOnly, StateUnreadable
from .database import Database, SqlRow
from .leases import LeaseLock
from .pgleases import PostgresLease

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresDatabase"]

_Result = TypeVar("_Result")

#: What processes that make or change the tables agree on; the number means nothing.
_SCHEMA_LOCK = 0x706F6C6C6572

#: Connections of a parent process. Closing one in the child would end the parent's session.
_inherited: list[object] = []

_FULL = {"53100"}
_LOCKED = {"55P03", "40P01", "40001", "57014"}
_READ_ONLY = {"25006", "42501"}
_DAMAGED = {"42P01", "42P07", "42703", "42804", "XX001", "XX002"}


class PostgresDatabase(Database):
    """A connection to PostgreSQL.

    :param shown: the URL without its password.
    :param parameters: what libpq is given, password included.
    """

    types: ClassVar[dict[str, str]] = {
        "int": "BIGINT",
        "real": "DOUBLE PRECISION",
        "text": "TEXT",
        "blob": "BYTEA",
    }
    for_update = " FOR UPDATE"

    def __init__(self, shown: str, parameters: dict[str, str], timeout: float) -> None:
        super().__init__(shown, timeout)
        self._parameters = parameters
        self._connection: psycopg.Connection[SqlRow] | None = None

    # -- the connection --------------------------------------------------------------

    def _connected(self) -> psycopg.Connection[SqlRow]:
        if self._connection is None or self._connection.closed:
            if self._depth:
                raise self._lost()
            self._connection = self.connect()
        return self._connection

    def connect(self, more: Mapping[str, str] | None = None) -> psycopg.Connection[SqlRow]:
        """A new connection, which is the caller's to close.

        :param more: what libpq is given where the URL says nothing else.
        :raises StateUnreadable: if the server can't be reached.
        """
        try:
            import psycopg
        except ImportError as error:
            raise StateUnreadable(
                "a state in PostgreSQL needs psycopg 3, which is not installed: "
                f"pip install 'poller-core[postgres]' ({error})"
            ) from error
        wait = {"connect_timeout": str(max(2, round(self.timeout))), **(more or {}), **self._parameters}
        try:
            connection = psycopg.connect(autocommit=True, client_encoding="utf8", **wait)  # type: ignore[arg-type]
            try:
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, false)",
                    (f"{max(1, round(self.timeout * 1000))}ms",),
                )
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            # Without its cause: libpq may quote the parameters that it was given.
            raise StateUnreadable(
                f"the state {self.shown} can't be reached: {self._without_secrets(error)}. "
                "Check that the server runs, and the host, database, user and password"
            ) from None
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _before_fork(self) -> None:
        pass

    def _in_child(self, busy: bool) -> None:
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None

    # -- statements --------------------------------------------------------------------

    def _do(self, action: Callable[[psycopg.Connection[SqlRow]], _Result]) -> _Result:
        """Run something; once more on a new connection if it was lost and nothing is under way."""
        connection = self._connected()
        import psycopg

        try:
            return action(connection)
        except psycopg.Error as error:
            if not connection.closed:
                raise self.translated(error) from error
            self._connection = None
            if self._depth:
                raise self._lost() from error
        try:
            return action(self._connected())
        except psycopg.Error as error:
            raise self.translated(error) from error

    def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[SqlRow]:
        return self._do(lambda connection: connection.execute(_translate(sql), parameters).fetchall())

    def _run(self, sql: str, parameters: Sequence[Any]) -> int:
        return self._do(lambda connection: connection.execute(_translate(sql), parameters).rowcount)

    def _run_many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        many = list(parameters)
        if many:
            self._do(lambda connection: connection.cursor().executemany(_translate(sql), many))

    def _begin(self, write: bool) -> None:
        # Writers lock their target's row first, and so see what the one before them has committed.
        kind = "READ COMMITTED" if write else "REPEATABLE READ READ ONLY"
        self._do(lambda connection: connection.execute(f"BEGIN ISOLATION LEVEL {kind}"))

    def _commit(self) -> None:
        self._do(lambda connection: connection.execute("COMMIT"))

    def _roll_back(self) -> None:
        import psycopg

        if self._connection is not None and not self._connection.closed:
            try:
                self._connection.execute("ROLLBACK")
            except psycopg.Error:
                # The server rolls back when the connection ends; the next statement makes a new one.
                self._disconnect()

    def has_table(self, name: str) -> bool:
        # Not to_regclass() alone: a session remembers that a table was not there, and hears of one that
        # another made meanwhile only as it locks a table of the statement's own.
        return bool(self.rows("SELECT 1 FROM pg_catalog.pg_class WHERE oid = to_regclass(?)", (name,)))

    def lease(self, key: int) -> LeaseLock:
        return PostgresLease(self, key)

    def lock_schema(self) -> None:
        self._must_write()
        self._fetch("SELECT pg_advisory_xact_lock(?)", (_SCHEMA_LOCK,))

    # -- errors ---------------------------------------------------------------------------

    def _lost(self) -> StateUnreadable:
        return StateUnreadable(
            f"the connection to the state {self.shown} was lost. Nothing was half-written; "
            "trying again is safe"
        )

    def translated(self, error: psycopg.Error) -> StateError:
        """What the server says, as an error of this package; without secrets."""
        code = error.sqlstate or ""
        name = f"the state {self.shown}"
        if code in _LOCKED:
            return StateLocked(
                f"{name} was kept locked by another process for longer than {self.timeout:g} s; "
                "nothing was written, trying again is safe"
            )
        if code in _FULL:
            return StateFull(
                f"there is no room to write {name}; nothing was half-written. Free some space and try again"
            )
        reason = self._without_secrets(error)
        if code in _READ_ONLY:
            return StateReadOnly(
                f"{name} can't be written to: {reason}. Give the user the right to create and write tables "
                "(GRANT CREATE, USAGE ON SCHEMA public TO …), or use the primary server"
            )
        if code in _DAMAGED:
            return StateDamaged(
                f"{name} is damaged ({reason}). It is not taken for empty: restore it from a backup, or try "
                "'poller repair'"
            )
        return StateUnreadable(f"{name} can't be used: {reason}")

    def _without_secrets(self, error: Exception) -> str:
        # What the server says comes with the statement that it is about.
        said = getattr(getattr(error, "diag", None), "message_primary", None)
        text = said or str(error)
        text = " ".join(text.split()).rstrip(".?") or type(error).__name__
        for name, value in self._parameters.items():
            if value and "password" in name:
                text = text.replace(value, "***")
        return text


@functools.cache
def _translate(sql: str) -> str:
    """From ``?`` to what psycopg wants. No statement of this package has a ``%`` or a literal ``?``."""
    return sql.replace("?", "%s")
