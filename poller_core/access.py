"""Whether a poller would be let in: for a form's *Test* button, or a start-up check.

Guarantees: nothing is changed, neither in the state nor in the cloud; no secret is in
what is said or raised.

Not guaranteed: that the container is there, or may be read; ``poller doctor URL`` tells.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .clock import Clock
from .errors import StateReadOnly
from .state import open_store
from .state.urls import parse_state_url
from .url import Url

__all__ = ["check_credentials", "check_state"]


def check_state(state: str | os.PathLike[str]) -> str:
    """Open a state as a poller would; what there is to say of it.

    :param state: as for ``make_poller``.
    :raises InvalidOption: if that is no state.
    :raises StateError: if it can't be used.
    """
    place = parse_state_url(state)
    if place.path is not None and not place.path.exists():
        return f"state: {place.text} is not there yet, and is made when it is needed ({_room(place.path)})"
    store = open_store(state, create=False)
    store.close()
    return f"state: {place.text} can be used"


def _room(path: Path) -> str:
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
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

    :param credentials, cloud, region, interface, cacert, insecure, timeout, retries: as for
        :class:`poller_core.SwiftPoller`; ``auth_url`` has to be among the credentials.
    :raises InvalidOption: if they don't fit together, or say too little.
    :raises TargetError: if they are not accepted, or nobody answers.
    """
    from .backends.swift import credentials as ways
    from .backends.swift import sessions
    from .backends.swift.account import Account
    from .backends.swift.location import locate

    # Of a URL only the container has to be there, and it is not asked for.
    location = locate(Url("swift:///?any"))
    access = ways.choose(location, credentials=credentials, cloud=cloud, region=region, interface=interface)
    net = sessions.network(cacert, insecure, timeout, retries)
    account = Account(sessions.SharedSession(access, net), net, Clock())
    try:
        place = account.place()
        account.info()
    finally:
        account.close()
    where = f", region {place.region}" if place.region else ""
    return f"Swift: account {place.account} at {place.host}{where}, by {access.way}"
