"""One connection to a state database, whichever it is.

:class:`Database` is what the rest of the package talks to. The SQL that it is
given is the common subset of SQLite and PostgreSQL with ``?`` for parameters;
subclasses translate what differs.

Guarantees:

* A transaction is stored whole or not at all. After any error in it, it is
  rolled back and the connection can be used again.
* Only :class:`~poller_core.errors.PollerError` s leave this package for what the
  database says, and none of them holds a password.
* Threads may share a database: they take turns, a transaction at a time.
* A connection is never used on both sides of a fork.

Does not guarantee: that statements outside of a transaction see one moment.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeAlias

from ..errors import PollerClosed, PollerError
from .leases import LeaseLock

__all__ = ["Database", "SqlRow"]

SqlRow: TypeAlias = tuple[Any, ...]

#: How long a fork waits for another thread's transaction to end, in seconds.
_FORK_PATIENCE = 10.0


class Database(ABC):
    """A connection, made when it is first needed, and its transactions.

    :param shown: what errors call this database; no secrets.
    :param timeout: how long to wait for a lock, in seconds.
    """

    #: What the columns' types are called.
    types: ClassVar[dict[str, str]]
    #: What a SELECT ends with that is to lock the row until the transaction ends.
    for_update: str

    def __init__(self, shown: str, timeout: float) -> None:
        self.shown = shown
        self.timeout = timeout
        self._lock = threading.RLock()
        self._depth = 0
        self._writing = False
        self._closed = False
        #: Why this process may not use the database, if it may not.
        self._refusal: str | None = None
        _databases.add(self)

    # -- what callers use ------------------------------------------------------

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[SqlRow]:
        """Run a statement and fetch all that it gives."""
        with self._lock:
            self._usable()
            return self._fetch(sql, parameters)

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> SqlRow | None:
        """Run a statement and fetch the first row that it gives."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement in a transaction that is open for writing; the number of rows that it touched."""
        self._must_write()
        return self._run(sql, parameters)

    def run_many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Run a statement once per set of parameters, in a transaction that is open for writing."""
        self._must_write()
        self._run_many(sql, parameters)

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        """All or nothing: commits at the end of the block, rolls back on any exception.

        Inside another one of the same thread it is part of that one. A reading
        transaction sees one moment of the database throughout.
        """
        with self._lock:
            self._usable()
            if self._depth:
                if write:
                    self._must_write()
                yield
                return
            self._begin(write)
            self._depth, self._writing = 1, write
            try:
                yield
                self._commit()
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._depth, self._writing = 0, False

    def close(self) -> None:
        """Let the connection go. Closing twice is fine."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._disconnect()
        _databases.discard(self)

    # -- what a subclass brings -----------------------------------------------------

    @abstractmethod
    def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[SqlRow]: ...

    @abstractmethod
    def _run(self, sql: str, parameters: Sequence[Any]) -> int: ...

    @abstractmethod
    def _run_many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None: ...

    @abstractmethod
    def _begin(self, write: bool) -> None: ...

    @abstractmethod
    def _commit(self) -> None: ...

    @abstractmethod
    def _roll_back(self) -> None:
        """Undo what is open, and never raise: it runs while another error is on its way."""

    @abstractmethod
    def _disconnect(self) -> None: ...

    @abstractmethod
    def _before_fork(self) -> None:
        """Nobody is in a transaction, and the process is about to fork. Never raises."""

    @abstractmethod
    def _in_child(self, busy: bool) -> None:
        """This is the child of a fork. Let go of what was inherited, without closing it.

        :param busy: a transaction was under way at that moment.
        """

    def verify_tables(self, tables: Sequence[str]) -> None:
        """Raise :class:`~poller_core.errors.StateDamaged` if a table and its index disagree.

        Nothing is done where the database sees to that by itself.
        """

    @abstractmethod
    def has_table(self, name: str) -> bool:
        """Whether there is a table of that name."""

    @abstractmethod
    def lease(self, key: int) -> LeaseLock:
        """What one holder at a time can have, among all that use this database.

        :param key: which one, see :func:`~poller_core.state.leases.lease_key`.
        """

    @abstractmethod
    def lock_schema(self) -> None:
        """Keep other processes from changing the schema until this transaction ends."""

    # -- inside --------------------------------------------------------------------

    def _usable(self) -> None:
        if self._closed:
            raise PollerClosed(f"the state {self.shown} was closed")
        if self._refusal is not None:
            raise PollerError(self._refusal)

    def _must_write(self) -> None:
        if not (self._depth and self._writing):
            raise RuntimeError("a write needs a transaction that was begun for writing")

    def hold_for_fork(self) -> bool:
        """Called by the fork hook: wait until nobody is busy; True if the lock is held now."""
        held = self._lock.acquire(timeout=_FORK_PATIENCE)
        if held and not self._depth and not self._closed:
            self._before_fork()
        return held

    def go_on_after_fork(self, held: bool) -> None:
        """Called by the fork hook in the parent."""
        if held:
            self._lock.release()

    def start_in_child(self, held: bool) -> None:
        """Called by the fork hook in the child."""
        busy = bool(self._depth) or not held
        # The thread that held the old lock, if any, does not exist on this side.
        self._lock = threading.RLock()
        self._depth, self._writing = 0, False
        if not self._closed:
            self._in_child(busy)


#: Everything that is open, for the fork hooks.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class _Forking(threading.local):
    """What this thread holds while it forks; two threads may fork at a time."""

    def __init__(self) -> None:
        self.held: list[tuple[Database, bool]] = []


_forking = _Forking()


def _before_fork() -> None:
    _forking.held = [(database, database.hold_for_fork()) for database in list(_databases)]


def _after_fork_in_parent() -> None:
    for database, held in _forking.held:
        database.go_on_after_fork(held)
    _forking.held = []


def _after_fork_in_child() -> None:
    for database, held in _forking.held:
        database.start_in_child(held)
    _forking.held = []


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
