"""What a sensor, trigger or operator watches, the poller made of it, and what is told of that.

Guarantees: what goes to Airflow is plain JSON; what Airflow's connections and configuration
say goes to the poller, and nowhere else.

Not guaranteed: that the target is there; opening it tells.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseHook

from poller_core import (
    Event,
    InvalidOption,
    InvalidUrl,
    ListingPoller,
    NoPoller,
    OffsetTooOld,
    PollerError,
    StateNewer,
    UnknownScheme,
    Url,
    make_poller,
)

from .connections import poller_options
from .secrets import refuse_secrets
from .settings import prepare, settings

__all__ = [
    "FINAL",
    "JOURNAL_ONLY",
    "Watching",
    "as_airflow_has_it",
    "plain",
    "plain_options",
    "plain_seconds",
    "plain_url",
    "refuse_relative",
    "report",
    "report_claim",
]

#: What trying again can't mend.
FINAL = (InvalidOption, InvalidUrl, NoPoller, OffsetTooOld, StateNewer, UnknownScheme)
#: Take what the journal has, without looking: whoever says so knows that somebody else looks.
JOURNAL_ONLY = math.inf

_SHOWN = 20
#: How long a first look takes before it is told of, and then between two tellings, seconds.
_TELL_AFTER = 10.0


@dataclass(frozen=True)
class Watching:
    """A target, and for which consumer."""

    url: str
    consumer: str
    conn_id: str | None = None
    state: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, log: Any = None) -> ListingPoller:
        """Make the poller; blocks.

        :param log: told of a first look that takes long.
        :raises PollerError: for whatever stands in the way.
        """
        return self.open_with({} if self.conn_id is None else _of(BaseHook.get_connection(self.conn_id)), log)

    async def connection(self) -> dict[str, Any]:
        """What the connection says, without blocking the loop."""
        return {} if self.conn_id is None else _of(await BaseHook.aget_connection(self.conn_id))

    def open_with(self, connection: Mapping[str, Any], log: Any = None) -> ListingPoller:
        """As :meth:`open`, with what :meth:`connection` gave."""
        refuse_secrets(self.url, self.state, self.options)
        refuse_relative(self.url)
        usual = settings()
        url = Url(self.url)
        options = dict(connection)
        of_connection = options.pop("state", None)
        state = self.state or of_connection or usual.state
        if url.scheme == "file":
            options = {}  # a connection for containers may be given for its state alone
        prepare(state)
        poller = make_poller(
            url,
            consumer=self.consumer,
            state=state,
            retention=usual.retention,
            retention_unread=usual.retention_unread,
            **({} if log is None else {"progress": _Progress(log, self.url)}),
            **{**options, **self.options},
        )
        if isinstance(poller, ListingPoller):
            return poller
        poller.close()
        raise NoPoller(
            f"{type(poller).__name__}, which is registered for {url.scheme!r} URLs, has no journal from "
            f"which a run could claim its events; expected one derived from poller_core.ListingPoller"
        )


class _Progress:
    """Tells of a first look that takes long."""

    def __init__(self, log: Any, url: str) -> None:
        self._log, self._url = log, url
        self._next = time.monotonic() + _TELL_AFTER

    def __call__(self, count: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_AFTER
            self._log.info("%s: first look, %s entries so far", self._url, f"{count:,}")


def refuse_relative(url: object) -> None:
    """Refuse a path that means another directory in each process.

    :raises InvalidUrl: if it is relative.
    """
    text = plain_url(url)
    if isinstance(text, str) and not text.startswith(("/", "{{")) and ":" not in text:
        raise InvalidUrl(
            f"{text!r} is a relative path, and triggerer and workers may each be in another directory; "
            f"expected an absolute one, such as {os.path.join('/data', text)!r}, or a URL"
        )


def _of(connection: Any) -> dict[str, Any]:
    # Airflow makes "generic" of some that it does not know.
    if connection.conn_type not in ("poller", "generic", None, ""):
        raise InvalidOption(
            f"connection {connection.conn_id!r} is of the type {connection.conn_type!r}; expected 'poller'"
        )
    return poller_options(connection)


def plain_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as JSON."""
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


def plain(event: Event) -> dict[str, Any]:
    """An event in JSON types, for XComs: what :meth:`poller_core.Event.to_dict` gives, and besides

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


def report(log: Any, poller: Any) -> None:
    """Tell how the target is, for who reads the task's log."""
    try:
        status = poller.status()
    except PollerError as error:
        log.warning("its state can't be told: %s", error)
        return
    took = "" if status.look_seconds is None else f", which took {status.look_seconds:.3f} s"
    looked = "never" if status.last_look is None else f"{status.last_look:%Y-%m-%d %H:%M:%S} UTC{took}"
    log.info("Watched: %s; entries: %s; last look: %s", status.url, f"{status.entries:,}", looked)
    if status.error:
        log.warning("%s can't be looked at: %s", status.url, status.error)
    if status.gaps:
        log.warning(
            "%s: %d part(s) can't be listed: %s", status.url, status.gaps, "; ".join(status.errors[:3])
        )


def report_claim(log: Any, token: str, events: list[Event]) -> None:
    """Tell which events a run has claimed."""
    log.info("Claimed %d event(s) for %r: seq %d to %d", len(events), token, events[0].seq, events[-1].seq)
    for event in events[:_SHOWN]:
        log.info("  %s %s", event.event, event.subject)
    if len(events) > _SHOWN:
        log.info("  … and %d more", len(events) - _SHOWN)


@contextlib.contextmanager
def as_airflow_has_it() -> Iterator[None]:
    """Errors as Airflow knows them: what a retry can't mend fails the task at once."""
    try:
        yield
    except FINAL as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    except PollerError as error:
        raise AirflowException(f"{type(error).__name__}: {error}") from error
