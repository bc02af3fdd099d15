"""Our events as Prefect's: what stands in the feed, and what triggers can match.

Guarantees: an event of ours is one event of Prefect's, however often it is sent, as its id
is made of ours; what is sent is what Prefect takes and its databases can store (no name
that is not UTF-8, no NUL, no id that is too long for an index). No secret is in it: a
subject's URL has no credentials.

Not guaranteed: that Prefect keeps it; see :mod:`poller_prefect.feed`.
"""

from __future__ import annotations

import hashlib
import posixpath
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_from_bytes

from poller_core import Event, Url
from poller_core.hosts import plain

__all__ = ["EVENTS", "PREFIX", "facts", "host_event", "host_id", "label", "related_as", "target_label"]

#: What events are called: this, and "created", "modified" or "deleted".
PREFIX = "poller.subject."
EVENTS = {name: PREFIX + name for name in ("created", "modified", "deleted")}
#: Ours among all UUIDs that are made of names. Never change it: it is in every id.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "poller-core")
#: PostgreSQL's indexes hold 2,700 bytes a row. An id of a longer subject ends in a digest.
_LONGEST = 1000
#: Prefect forgets events by when they occurred; one that was found long ago would be gone at once.
_OLDEST = timedelta(days=1)


def host_id(event: Event) -> uuid.UUID:
    """The id that Prefect knows the event by."""
    return uuid.uuid5(_NAMESPACE, event.id)


def facts(event: Event, target: str) -> dict[str, Any]:
    """What there is to know of an event, by the names that parameters may ask for; all plain JSON.

    :param target: the URL that is watched.
    """
    known = plain(event)
    names = ("seq", "key", "size", "mtime", "mtime_ns", "etag", "detected_at", "path", "container", "name")
    told = {name: known.get(name) for name in names}
    told.update(url=known["subject"], event_id=event.id, event=event.event, target=target)
    told["payload"] = payload(event, target)
    return told


def payload(event: Event, target: str) -> dict[str, Any]:
    """The whole event in JSON types; what is not known of it is None, so that a template finds it."""
    known = plain(event)
    usual: dict[str, Any] = dict.fromkeys(("size", "mtime", "mtime_ns", "etag", "path", "container", "name"))
    return {**usual, **known, "target": target}


def target_label(url: str | Url) -> str:
    """The URL of a target, as the label ``target`` has it."""
    return str(Url(url).without_credentials())


def host_event(
    event: Event, target: str, related: Iterable[dict[str, str]] = (), now: datetime | None = None
) -> dict[str, Any]:
    """An event as ``POST /events`` takes it.

    :param target: the URL that is watched, as :func:`target_label` gives it.
    :param related: what else it concerns, such as the run that found it.
    :param now: the time of sending, UTC.
    """
    now = now or datetime.now(UTC)
    occurred = event.detected_at or now
    url = str(event.subject)
    key = _text(event.key)
    name = _text(_name(event))
    resource = {
        "prefect.resource.id": label(PREFIX + url),
        "prefect.resource.name": name or key or url,
        "url": url,
        "target": target,
        "key": key,
        "suffix": posixpath.splitext(name)[1],
    }
    resource = {name: value for name, value in resource.items() if value}
    told = payload(event, target)
    for fact in ("path", "container"):
        if told[fact]:
            resource[fact] = told[fact]
    return {
        "id": str(host_id(event)),
        "event": EVENTS[event.event],
        "occurred": min(now, max(occurred, now - _OLDEST)).isoformat(),
        "resource": resource,
        "related": [related_as("target", label("poller.target." + target)), *related],
        "payload": told,
    }


def related_as(role: str, resource_id: str, name: str | None = None) -> dict[str, str]:
    """Something that an event concerns besides its subject, as Prefect takes it.

    :param name: what the feed shows for it; None: its id.
    """
    found = {"prefect.resource.id": resource_id, "prefect.resource.role": role}
    return found if name is None else {**found, "prefect.resource.name": name}


def label(text: str) -> str:
    """A text that fits an index."""
    if len(text.encode()) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return text.encode()[: _LONGEST - 17].decode(errors="ignore") + "~" + digest


def _name(event: Event) -> bytes:
    """The last part of the subject's name."""
    name = event.name
    raw = name.encode() if name is not None else event.key
    return posixpath.basename(raw.rstrip(b"/")) or raw


def _text(raw: bytes) -> str:
    """A name as text; percent-encoded if it is none."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return quote_from_bytes(raw)
    return quote_from_bytes(raw) if "\0" in text else text
