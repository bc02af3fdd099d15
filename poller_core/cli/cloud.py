"""``poller doctor`` on a container: who one is there, what may be read, and what a look costs.

Guarantees: nothing is changed; a request is not repeated for long; no secret is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import msgspec

from ..backends.swift import credentials, sessions
from ..backends.swift.account import Account, Answer, quoted
from ..backends.swift.location import Location, locate
from ..clock import Clock
from ..errors import PollerError, TargetError
from ..url import Url
from .findings import Finding

__all__ = ["examine"]

_PAGE = 10_000


def examine(url: Url) -> Iterator[Finding]:
    """What there is to say of a container."""
    about = str(url.without_credentials())
    try:
        location = locate(url)
        access = credentials.choose(location)
        net = sessions.network(timeout=(5, 20), retries=0)
    except PollerError as error:
        yield Finding(about, "bad", str(error))
        return
    account = Account(sessions.SharedSession(access, net), net, Clock())
    try:
        yield from _account(about, access, account, location)
    except PollerError as error:
        yield Finding(about, "bad", str(error))
    finally:
        account.close()


def _account(
    about: str, access: credentials.Access, account: Account, location: Location
) -> Iterator[Finding]:
    place = account.place()
    region = f", region {place.region}" if place.region else ""
    yield Finding(f"{about}: credentials", "ok", access.way)
    yield Finding(f"{about}: account", "ok", f"{place.account} at {place.host}{region}")
    if location.password:
        yield Finding(
            f"{about}: password",
            "low",
            "the password stands in the URL, where shells and process lists show it",
            "export OS_USERNAME=… OS_PASSWORD=… OS_PROJECT_NAME=…   (and leave the user info out)",
        )
    page = _PAGE
    try:
        page = int(msgspec.json.decode(account.info().body)["swift"]["container_listing_limit"])
        yield Finding(f"{about}: page", "ok", f"the cluster lists {page} names at once")
    except (TargetError, msgspec.DecodeError, KeyError, TypeError, ValueError):
        yield Finding(f"{about}: page", "info", f"the cluster does not tell its limit; {page} is assumed")
    answer = account.get(quoted(location.container), {"format": "json", "limit": "1"}, lambda one: one)
    count = int(answer.headers.get("X-Container-Object-Count") or 0)
    requests = math.ceil(count / page) + 1
    yield Finding(
        f"{about}: container",
        "ok",
        f"{count} objects (that number may lag); a look costs {requests} requests at most",
    )
    yield from _clock(about, answer)


def _clock(about: str, answer: Answer) -> Iterator[Finding]:
    try:
        behind = Clock().wall() - parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return
    # The header has whole seconds, and took a moment to come.
    good = -2 < behind < 3
    word = "behind" if behind > 0 else "ahead of"
    yield Finding(
        f"{about}: clock",
        "ok" if good else "info",
        "the server's clock agrees with this one to a second or two"
        if good
        else f"the server's clock is {abs(behind):.0f} s {word} this one; that is allowed for",
    )
