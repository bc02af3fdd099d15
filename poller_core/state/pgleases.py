"""Leases in PostgreSQL: session advisory locks, each on a connection of its own.

Guarantees: the server frees a lease as soon as the holder's connection ends, as
it does when the holder is killed; and within about a minute when the holder's
machine vanishes, or the network to it. :meth:`PostgresLease.held` asks the server.

Does not guarantee: anything behind a pooler that gives each transaction another
session (PgBouncer's ``pool_mode=transaction``): there ``held()`` says no. Give
``state=`` the server's own address.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any

from ..crashpoints import crash_point
from ..errors import PollerError
from .leases import LeaseLock

if TYPE_CHECKING:
    import psycopg

    from .postgresql import PostgresDatabase

__all__ = ["PostgresLease"]

#: By these, both sides notice within about a minute that the other one is gone without a word, in seconds.
_CLIENT = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SERVER = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}

#: How a holder is called on the server, which shows others who it is.
_NAME = re.compile(r"poller lease (\d{1,10})@([A-Za-z0-9._-]{1,40})", re.ASCII)

_LOCK = (
    "locktype = 'advisory' AND granted AND objsubid = 1 AND classid::bigint = %s AND objid::bigint = %s "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

#: Connections of a parent process. Closing one in the child would end the parent's session.
_inherited: list[object] = []
_open: weakref.WeakSet[PostgresLease] = weakref.WeakSet()


class PostgresLease(LeaseLock):
    """An advisory lock.

    :param database: gives the connection; its own is not used.
    :param key: which lock, see :func:`~poller_core.state.leases.lease_key`.
    """

    def __init__(self, database: PostgresDatabase, key: int) -> None:
        self._database = database
        self._key = key
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._lock = threading.Lock()
        _open.add(self)

    def take(self) -> bool:
        import psycopg

        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            try:
                row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
            except psycopg.Error as error:
                self._disconnect()
                raise self._database.translated(error) from error
        if row is None or not row[0]:
            return False
        crash_point("lease.taken")
        return True

    def held(self) -> bool:
        found = self._ask(f"SELECT 1 FROM pg_locks WHERE pid = pg_backend_pid() AND {_LOCK}")
        return found is not None

    def holder(self) -> str:
        found = self._ask(
            f"SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE {_LOCK} LIMIT 1"
        )
        # It is what another client says of itself, so only what looks like ours is shown.
        known = _NAME.fullmatch(found[0] or "") if found else None
        return f"process {known[1]} on {known[2]}" if known else ""

    def release(self) -> None:
        import psycopg

        with self._lock:
            if self._connection is not None:
                try:
                    # The server takes a moment to notice an end; this way it is free when we return.
                    self._connection.execute("SELECT pg_advisory_unlock_all()")
                except psycopg.Error:
                    pass  # it is free as soon as the server notices the end
                self._disconnect()

    # -- inside ----------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        host = re.sub(r"[^A-Za-z0-9._-]", "", socket.gethostname())[:40] or "unknown"
        connection = self._database.connect(
            {**_CLIENT, "application_name": f"poller lease {os.getpid()}@{host}"}
        )
        settings = dict(_SERVER)
        if connection.info.server_version >= 140000:
            settings["idle_session_timeout"] = "0"  # holding a lease is nothing but idling
        try:
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        except psycopg.Error as error:
            connection.close()
            raise self._database.translated(error) from error
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, sql: str) -> tuple[Any, ...] | None:
        import psycopg

        with self._lock:
            if self._connection is None:
                return None
            try:
                return self._connection.execute(sql, (self._key >> 32, self._key & 0xFFFFFFFF)).fetchone()
            except (psycopg.Error, PollerError):
                return None

    def start_in_child(self) -> None:
        """Called by the fork hook in the child: the lease is the parent's, and must end with it."""
        connection, self._connection = self._connection, None
        self._lock = threading.Lock()
        if connection is not None:
            # A socket that is open here would keep the session alive when the parent is killed.
            # The number stays taken, since what is kept of the connection still knows it.
            _inherited.append(connection)
            try:
                empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(empty, connection.fileno(), inheritable=False)
                os.close(empty)
            except Exception:  # noqa: BLE001 - a fork hook must not raise, and there is nobody to tell
                pass


def _after_fork_in_child() -> None:
    for lease in list(_open):
        lease.start_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
