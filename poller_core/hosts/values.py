"""Arguments and events as JSON, which is all that hosts store and hand on.

Guarantees: an event's JSON is what :meth:`poller_core.Event.from_dict` reads, names that
are not UTF-8 included.

Not guaranteed: that an option's value can be had; opening the poller tells. What is
neither a URL, a path nor a length of time stays what it is: it may stand for a value that
the host fills in later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..events import Event
from ..url import Url

__all__ = ["plain", "plain_options", "plain_seconds", "plain_url"]


def plain(event: Event) -> dict[str, Any]:
    """An event in JSON types: what :meth:`poller_core.Event.to_dict` gives, and besides

    ``path``: of a file, what to open; None if its name is not UTF-8, as JSON can't hold it then
    (``os.fspath(Event.from_dict(event).subject)`` does); ``container`` and ``name`` of an object.
    """
    raw = event.to_dict()
    subject = event.subject
    if isinstance(subject, Url) and subject.scheme == "file":
        path = os.fspath(subject)
        try:
            path.encode()
        except UnicodeEncodeError:
            raw["path"] = None
        else:
            raw["path"] = path
    elif event.container is not None:
        raw["container"], raw["name"] = event.container, event.name
    return raw


def plain_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as JSON; those that are None were not."""
    plain: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        plain[name] = list(value) if isinstance(value, tuple | set | frozenset) else plain_seconds(value)
    return plain


def plain_seconds(value: Any) -> Any:
    """A ``timedelta`` as seconds; anything else as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def plain_url(url: Any) -> Any:
    """A URL or path as text; what stands for one, such as another task's output, as it is."""
    if isinstance(url, Url):
        return str(url)
    return os.fspath(url) if isinstance(url, os.PathLike) else url
