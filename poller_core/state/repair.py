"""Mending a state, and saying what it cost.

Guarantees: what is found by :func:`~poller_core.state.checks.check_store` and
can be mended is mended, per target as one transaction; nothing that was lost is
passed over in silence, neither in the result nor towards a consumer.

Does not guarantee: to bring anything back. A backup does.
"""

from __future__ import annotations

import os

from ..crashpoints import crash_point
from ..errors import StateUnreadable
from .checks import Keys, Unpack, examine, integrity_of
from .files import is_there
from .salvage import Repaired, salvage
from .sqlite import SqliteDatabase
from .store import Store, open_store
from .targets import load_targets, lock_target
from .urls import parse_state_url

__all__ = ["Repaired", "repair_state", "repair_store"]


def repair_state(
    url: str | os.PathLike[str], unpack: Unpack, keys: Keys, *, timeout: float = 30.0
) -> list[Repaired]:
    """Mend a state that nobody else is using.

    :param url: as for :func:`~poller_core.state.open_store`.
    :param unpack: gives a page's content; raises whatever it likes if it can't.
    :param keys: gives a content's keys; the same.
    :returns: what was mended and what it cost; empty if all was well.
    :raises StateDamaged: if nothing can be read.
    :raises StateLocked: if the file has to be made anew, and another process has it open.
    """
    place = parse_state_url(url)
    done: list[Repaired] = []
    if place.path is not None:
        if not is_there(place.path):
            raise StateUnreadable(f"there is no state file {place.path}")
        database = SqliteDatabase(place.path, timeout)
        try:
            sound = integrity_of(database) == ["ok"]
        finally:
            database.close()
        if not sound:
            done += salvage(place.path, timeout)
    with open_store(url, timeout=timeout) as store:
        done += repair_store(store, unpack, keys)
    return done


def repair_store(store: Store, unpack: Unpack, keys: Keys) -> list[Repaired]:
    """Mend what does not fit together, in a database that is sound as such."""
    database = store.database
    done = []
    with database.transaction():
        for target in load_targets(database):
            lock_target(database, target.id)
        # All are found before one is mended: mending one must not hide another.
        for problem in list(examine(database, unpack, keys)):
            for sql, parameters in problem.statements:
                database.run(sql, parameters)
            if problem.statements:
                done.append(Repaired(f"{problem.where}: {problem.what}", problem.cost))
        crash_point("state.repair.before")
    crash_point("state.repair.after")
    return done
