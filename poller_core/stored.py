"""What a state tells of a target and its events, without the target.

Guarantees: nothing is opened but the state, so neither the target nor its
credentials are needed.

Does not guarantee: that a subject of a poller of your own is the URL that its
source would make; without the source it is the target's URL, a slash and the key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from .backends.swift.location import SCHEMES, locate
from .engine import Health
from .events import EVENT_NAMES, Event, EventName
from .listing import Kind
from .state import Numbered, Store, Target, event_id
from .status import ConsumerStatus, Status
from .url import Url

__all__ = ["event_of", "options_of", "status_of", "to_event"]

#: The names of events by the number under which they are stored.
_NAMES: dict[int, EventName] = {int(Kind[name]): name for name in EVENT_NAMES}


def to_event(subject: Callable[[bytes], Url], epoch: str, numbered: Numbered) -> Event:
    """A row of the journal as what users see.

    :param subject: gives the URL of a key.
    :param epoch: of the target.
    """
    seq, detected_at_us, record = numbered
    kind, key, size, mtime_ns, etag = record
    return Event(
        subject=subject(key),
        event=_NAMES[kind],
        id=event_id(epoch, seq, record),
        seq=seq,
        key=key,
        size=size,
        mtime=None if mtime_ns is None else mtime_ns / 1e9,
        mtime_ns=mtime_ns,
        etag=etag,
        detected_at=datetime.fromtimestamp(detected_at_us / 1e6, UTC),
    )


def status_of(store: Store, target_id: int, health: Health | None = None) -> Status:
    """How a target is, from the state; ``health`` is newer than what the state has, if given."""
    target = store.reload(target_id)
    if health is None:
        health = msgspec.json.decode(target.health, type=Health) if target.health else Health()
    return Status(
        url=target.url,
        target=target.digest,
        options=msgspec.json.decode(target.options) if target.options else {},
        complete=target.complete,
        entries=target.entries,
        last_look=None if target.looked_at is None else datetime.fromtimestamp(target.looked_at, UTC),
        look_seconds=target.look_seconds,
        last_seq=target.last_seq,
        oldest_seq=target.floor_seq + 1,
        error=health.error,
        gaps=health.gaps,
        errors=list(health.reasons),
        held=health.held,
        watching=health.watching,
        watches=health.watches,
        overflows=health.overflows,
        consumers=[
            ConsumerStatus(
                name=row.name,
                seq=row.seq,
                lag=store.consumers.lag(target_id, row.name),
                updated_at=datetime.fromtimestamp(row.updated_at, UTC),
            )
            for row in store.consumers.all(target_id)
        ],
    )


def options_of(target: Target) -> dict[str, Any]:
    """The options that decide what is listed, where they are not the default, as a poller takes them."""
    return dict(json.loads(target.options)) if target.options else {}


def event_of(target: Target, numbered: Numbered) -> Event:
    """A row of the journal as what users see, without asking the target."""
    return to_event(partial(_subject, target), target.epoch, numbered)


def _subject(target: Target, key: bytes) -> Url:
    url = Url(target.url)
    if url.scheme in SCHEMES:
        return locate(url).subjects()(key)
    if url.scheme != "file":
        return Url(f"{target.url.rstrip('/')}/{os.fsdecode(key)}")
    root = bytes(url)
    identity = json.loads(target.identity) if target.identity else {}
    if identity.get("kind") == "file":
        root = os.path.dirname(root)
    return Url.from_path(os.path.join(root, b"") + key.removesuffix(b"/"))
