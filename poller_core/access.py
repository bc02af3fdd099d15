"""Whether a poller would be let in: for a form's *Test* button, or a start-up check.

Guarantees: nothing is changed, neither in the state nor in the cloud; no secret is in
what is said or raised.

Not guaranteed: that the container is there, or may be read; ``poller doctor URL`` tells.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from .clock import Clock
from .errors import StateReadOnly, StateUnreadable
from .state.database import Database
from .state.files import is_there
from .state.schema import SMALL_TABLES, prepare
from .state.sqlite import SqliteDatabase
from .state.urls import StateUrl, parse_state_url

__all__ = ["check_credentials", "check_state"]

#: How long a database and its locks are waited for, in seconds: somebody sits there and waits as well.
_PATIENCE = 10.0


class _Undone(Exception):
    """Ends a transaction of which nothing is to stay."""


def check_state(state: str | os.PathLike[str]) -> str:
    """Open a state as a poller would; what there is to say of it.

    One that is not there is fine, if it can be made; it is not made.

    :param state: as for ``make_poller``.
    :returns: a line for people.
    :raises InvalidOption: if that is no state.
    :raises StateError: if it can't be used.
    """
    place = parse_state_url(state)
    if place.path is not None:
        if not is_there(place.path):
            room = _room(place.path)
            return f"state: {place.text} is not there yet, and is made when it is needed ({room})"
    database = _connection(place)
    try:
        known = place.private or database.has_table("poller_meta")
        with contextlib.suppress(_Undone), database.transaction():
            # What a poller would do first, to see whether it can be done: make or migrate the tables, write.
            prepare(database, create=place.path is None)
            database.verify_tables(SMALL_TABLES)
            database.run("UPDATE poller_targets SET entries = entries WHERE id IS NULL")
            raise _Undone
    finally:
        database.close()
    if not known:
        return f"state: {place.text} has no tables yet; they can be made, and are made when they are needed"
    return f"state: {place.text} can be used"


def _connection(place: StateUrl) -> Database:
    if place.parameters:
        from .state.postgresql import PostgresDatabase

        return PostgresDatabase(place.text, place.parameters, _PATIENCE)
    return SqliteDatabase(place.path, _PATIENCE)


def _room(path: Path) -> str:
    log = path.with_name(path.name + "-wal")
    if is_there(log):
        raise StateUnreadable(
            f"the state file {path} is gone, but its log {log.name} is still there. Put the state file back, "
            "or, if a new beginning is meant, delete the log as well"
        )
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise StateUnreadable(f"{path} can't be made: {parent} is no directory")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StateReadOnly(f"{path} can't be made: {parent} may not be written to")
    return f"{parent} may be written to"


def check_credentials(
    *,
    credentials: Any = None,
    cloud: str | None = None,
    region: str | None = None,
    interface: str | None = None,
    cacert: str | None = None,
    insecure: bool | None = None,
    timeout: object = (5, 20),
    retries: int = 0,
) -> str:
    """Authenticate as a :class:`poller_core.SwiftPoller` would; whom that makes one.

    The parameters are those of :class:`poller_core.SwiftPoller`. Somebody waits for this, so ``timeout`` is
    5 s to connect and 20 s for which an answer may stand still by default, and nothing is repeated.

    :param credentials: ``auth_url`` has to be among them.
    :returns: a line for people: the account, where it is, and by which credentials.
    :raises InvalidOption: if they don't fit together, or say too little.
    :raises TargetError: if they are not accepted, or nobody answers.
    """
    from .backends.swift import credentials as ways
    from .backends.swift import sessions
    from .backends.swift.account import Account
    from .backends.swift.location import NOWHERE

    access = ways.choose(NOWHERE, credentials=credentials, cloud=cloud, region=region, interface=interface)
    net = sessions.network(cacert, insecure, timeout, retries)
    account = Account(sessions.SharedSession(access, net), net, Clock())
    try:
        place = account.place()
        account.info()
    finally:
        account.close()
    where = f", region {place.region}" if place.region else ""
    return f"Swift: account {place.account} at {place.host}{where}, by {access.way}"
