"""The events that a poller reports.

An :class:`Event` is one change of one subject. It unpacks as the pair
``(subject, event)``, compares equal to that pair, and carries what a pipeline
wants to know besides. Guarantees: :meth:`Event.from_json` gives back exactly
what :meth:`Event.to_json` was given; the :attr:`Event.id` is the same each time
the event is delivered, and is never given to another event, not even after the
state was deleted or restored from a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, overload
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from .errors import InvalidOption
from .url import Url

__all__ = ["EVENT_NAMES", "Event", "EventName", "Subject"]

EventName: TypeAlias = Literal["created", "modified", "deleted"]

#: What can happen to a subject, in the order in which it can happen.
EVENT_NAMES: tuple[EventName, ...] = ("created", "modified", "deleted")

#: A URL for pollers of files and objects; pollers of other things may use what identifies those
#: (a text that holds ``://`` comes back from JSON as a URL).
Subject: TypeAlias = Url | str | int


#: What other programs call it, and tasks of schedulers.
_MEANT = {
    **dict.fromkeys(("path", "src_path", "filename"), "subject.path"),
    **dict.fromkeys(("url", "uri"), "subject"),
    **dict.fromkeys(("type", "event_type", "kind"), "event"),
}


class _Plain(msgspec.Struct):
    """An event in JSON types, as :meth:`Event.to_dict` gives it."""

    subject: str | int
    event: EventName
    id: str = ""
    seq: int = 0
    key: str = ""
    size: int | None = None
    mtime: float | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    detected_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One change of one subject. ::

        subject, what = event  # where, and "created", "modified" or "deleted"
        same = Event.from_json(event.to_json())  # through a queue, say
        assert same == event and same.id == event.id

    Immutable and hashable; compares equal to the pair ``(subject, event)``. What is not known is None.
    """

    subject: Subject  #: a :class:`~poller_core.url.Url` without credentials (or a row id)
    event: EventName  #: ``"created"``, ``"modified"`` or ``"deleted"``
    id: str = ""  #: stable and unique; the same at each delivery
    seq: int = 0  #: position in the target's journal, from 1
    key: bytes = b""  #: the subject's name below the target, ``/``-separated
    size: int | None = None  #: bytes; of a deleted subject: the last known
    mtime: float | None = None  #: last modification, seconds since 1970-01-01 UTC, as in ``os.stat``
    mtime_ns: int | None = None  #: the same in nanoseconds, exact
    etag: str | None = None  #: the object store's version mark
    detected_at: datetime | None = None  #: when the look that found it took place, UTC

    @property
    def container(self) -> str | None:
        """The container that an object is in; None for what is not an object."""
        return self._object()[0]

    @property
    def name(self) -> str | None:
        """The object's whole name in its container; None for what is not an object."""
        return self._object()[1]

    def _object(self) -> tuple[str | None, str | None]:
        items = self.subject.query_items if isinstance(self.subject, Url) else []
        name = dict(items).get("name")
        return (items[0][0], name) if name is not None and items[0][1] is None else (None, None)

    if not TYPE_CHECKING:  # who checks types is told there

        def __getattr__(self, name: str) -> Any:
            near = f"; did you mean event.{_MEANT[name]}?" if name in _MEANT else ""
            raise AttributeError(f"'Event' object has no attribute {name!r}{near}", name=name, obj=self)

    def __iter__(self) -> Iterator[Any]:
        yield self.subject
        yield self.event

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return (self.subject, self.event)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Event):
            return self._fields() == other._fields()
        if isinstance(other, tuple):
            return (self.subject, self.event) == other
        return NotImplemented

    def __lt__(self, other: Event | tuple[Any, ...]) -> bool:
        """By subject, then by what happened, as the pairs would be."""
        return tuple(self) < tuple(other)

    def __hash__(self) -> int:
        return hash((self.subject, self.event))

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__struct_fields__)

    def to_dict(self) -> dict[str, Any]:
        """The event in plain JSON types, without the fields that are not known.

        ``subject`` is the URL's text, ``key`` is percent-encoded as in the URL (names need not be UTF-8),
        ``detected_at`` is ISO 8601 in UTC.
        """
        raw: dict[str, Any] = {
            "subject": str(self.subject) if isinstance(self.subject, Url) else self.subject,
            "event": self.event,
            "id": self.id,
            "seq": self.seq,
            "key": quote_from_bytes(self.key),
            "size": self.size,
            "mtime": self.mtime,
            "mtime_ns": self.mtime_ns,
            "etag": self.etag,
            "detected_at": None if self.detected_at is None else self.detected_at.astimezone(UTC).isoformat(),
        }
        return {name: value for name, value in raw.items() if value is not None}

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return msgspec.json.encode(self.to_dict()).decode()

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Event:
        """The inverse of :meth:`to_dict`.

        :param raw: what it gave; ``subject`` and ``event`` have to be there, other fields may, and those that
            no event has are passed over.
        :raises InvalidOption: if a field is missing or has the wrong type.
        """
        try:
            plain = msgspec.convert(raw, _Plain)
            subject = plain.subject
            return cls(
                subject=Url(subject) if isinstance(subject, str) and "://" in subject else subject,
                event=plain.event,
                id=plain.id,
                seq=plain.seq,
                key=unquote_to_bytes(plain.key),
                size=plain.size,
                mtime=plain.mtime,
                mtime_ns=plain.mtime_ns,
                etag=plain.etag,
                detected_at=None if plain.detected_at is None else plain.detected_at.astimezone(UTC),
            )
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            raise InvalidOption(
                f"this is no event as Event.to_dict() gives it ({error}); "
                f'expected at least {{"subject": "file:///…", "event": "created"}}'
            ) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Event:
        """The inverse of :meth:`to_json`.

        :param text: what it gave.
        :raises InvalidOption: if it is no JSON, or no event.
        """
        try:
            raw = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise InvalidOption(f"this is no JSON of an event: {error}") from None
        if not isinstance(raw, dict):
            raise InvalidOption(f"an event is a JSON object, not {type(raw).__name__}")
        return cls.from_dict(raw)
