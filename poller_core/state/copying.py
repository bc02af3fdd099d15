"""A copy of one target, from one state into another.

For trying out what a look would do. Guarantees: the copy is of one moment, and
the original is only read; memory is a window of rows.

Does not guarantee: anything if the other state has rows of that target already.
"""

from __future__ import annotations

from collections.abc import Iterator

from .database import Database, SqlRow
from .schema import TABLES
from .store import Store
from .targets import Target, load_targets

__all__ = ["copy_target", "find_targets"]

#: The large tables are read in windows, in order of this column.
_ORDER = {"pages": "first_key", "journal": "first_seq"}
_WINDOW = 100


def find_targets(store: Store, url: str, options: str) -> list[Target]:
    """The targets of this URL and these options; several only if neither says where the target is.

    :param url: as in :attr:`Target.url`.
    :param options: as in :attr:`Target.options`.
    """
    return [
        target for target in load_targets(store.database) if (target.url, target.options) == (url, options)
    ]


def copy_target(store: Store, target: Target, into: Store) -> None:
    """Copy a target with its snapshot, journal and consumers.

    :param into: a state that does not have the target.
    """
    with store.database.transaction(write=False), into.database.transaction():
        _insert(into.database, "targets", _all(store.database, "targets", "id", target.id))
        for table in TABLES:
            order = _ORDER.get(table)
            rows = (
                _all(store.database, table, "target_id", target.id)
                if order is None
                else _windows(store.database, table, order, target.id)
            )
            _insert(into.database, table, rows)


def _all(database: Database, table: str, column: str, value: int) -> Iterator[SqlRow]:
    yield from database.rows(f"SELECT * FROM poller_{table} WHERE {column} = ?", (value,))


def _windows(database: Database, table: str, order: str, target_id: int) -> Iterator[SqlRow]:
    beyond, after = "", tuple[object, ...]()
    while True:
        rows = database.rows(
            f"SELECT * FROM poller_{table} WHERE target_id = ?{beyond} ORDER BY {order} LIMIT {_WINDOW}",
            (target_id, *after),
        )
        yield from rows
        if len(rows) < _WINDOW:
            return
        # The column of the order is the second one of both tables.
        beyond, after = f" AND {order} > ?", (rows[-1][1],)


def _insert(database: Database, table: str, rows: Iterator[SqlRow]) -> None:
    for row in rows:
        database.run(f"INSERT INTO poller_{table} VALUES ({', '.join('?' * len(row))})", row)
