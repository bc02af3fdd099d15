"""What a look would report, found out without changing anything.

Guarantees: the same code looks, compares and filters as in a real look, on a
private copy of the target's state; the state itself is only read, and neither
it nor a row for the target is made if it is not there. What is left out is
told, with the reason.

Not guaranteed: that the next real look finds the same; time goes on. Ids and
sequence numbers of what is not in the journal yet are not told, since another
process may be given them first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from .engine import Engine, Progress
from .errors import PollerRefused
from .events import Event
from .filters import Exclude
from .listed import ListingPoller, options_for
from .listing import Gap, Row, Span
from .options import Options
from .poller import make_poller
from .state import Store, open_store
from .state.copying import copy_target, find_targets
from .state.files import is_there
from .state.urls import parse_state_url
from .url import Url

__all__ = ["LeftOut", "Preview", "preview"]


class LeftOut(msgspec.Struct, frozen=True):
    """Something that is not reported, and why."""

    subject: str
    why: str
    event: str | None = (
        None  #: what would be reported of it otherwise; None: it is left out as long as it is there
    )


class Preview(msgspec.Struct, kw_only=True):
    """What a look would do now."""

    url: str
    known: bool  #: whether the state has the target
    baseline: int | None  #: names that the first look would take as known, without reporting them
    waiting: list[Event]  #: in the journal already, and not acknowledged
    found: list[Event]  #: what a look adds
    held: list[LeftOut]  #: still being written or not quiet for long enough; reported later
    dropped: list[LeftOut]  #: what is there and excluded; a directory ends in ``/`` and was not entered
    unwanted: list[LeftOut]  #: events that ``events`` or ``include`` keep from this consumer
    gaps: list[str]  #: what could not be listed, and why

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types."""
        events = {"waiting": self.waiting, "found": self.found}
        raw: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        raw |= {name: [event.to_dict() for event in those] for name, those in events.items()}
        return msgspec.to_builtins(raw)  # type: ignore[no-any-return]


def preview(
    url: Any,
    *,
    make: Callable[..., Any] = make_poller,
    state: Any = None,
    progress: Progress | None = None,
    **options: Any,
) -> Preview:
    """Say what a look would report, and what it would leave out.

    :param make: what makes the poller: a class, or :func:`~poller_core.poller.make_poller`.
    :param state: the state that would be used; None, or one that is not there: as for a new target.
    :param progress: called now and then with the number of names listed so far.
    :param options: those of the poller.
    :raises PollerError: what making the poller and looking would raise.
    """
    url = Url(url)
    parsed = options_for(url, options)
    with _Copy(parse_state_url(state).path) as copy:
        copied = copy.fill(url, parsed, state)
        with contextlib.closing(make(url, state=copy, progress=progress, **options)) as poller:
            if not isinstance(poller, ListingPoller):
                raise PollerRefused(f"{type(poller).__name__} can't tell what it would report")
            return _look(url, poller, parsed, copied, progress)


def _look(
    url: Url, poller: ListingPoller, options: Options, copied: dict[str, int], progress: Progress | None
) -> Preview:
    engine = poller._shared.engine
    target = engine.store.reload(engine.target_id)
    known = target.digest in copied
    newest = copied.get(target.digest, 0)
    held: dict[bytes, str] = {}
    _note_held(engine, held)
    if not target.complete or known:
        engine.look(progress=progress)
    consumers = engine.store.consumers
    everything = consumers.pending(engine.target_id, poller.consumer)
    events = poller._events([one for one in everything.events if poller._select(one.record)])
    unwanted = poller._events([one for one in everything.events if not poller._select(one.record)])
    names, folders = _dropped(poller, engine)
    return Preview(
        url=str(url.without_credentials()),
        known=known,
        baseline=target.entries - len(names) if not known and target.complete else None,
        waiting=[event for event in events if event.seq <= newest],
        found=[_unnumbered(event) for event in events if event.seq > newest],
        held=[LeftOut(str(engine.source.subject(key)), why) for key, why in sorted(held.items())],
        dropped=names + folders,
        unwanted=[_why_unwanted(event, options) for event in unwanted],
        gaps=list(engine.health.reasons),
    )


class _Copy(Store):
    """A private state. It outlives the pollers that refuse the target, and close what they were given.

    :param path: the real state's file, which is left out, should it lie in the target.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(parse_state_url(None), open_store(None).database)
        self.path = path

    def fill(self, url: Url, options: Options, state: Any) -> dict[str, int]:
        """Take over what the real state knows of the target (or of several, if the URL does not say which).

        :returns: the newest event by the digest of the target.
        """
        place = parse_state_url(state)
        if place.private or (place.path is not None and not _there(place.path)):
            return {}
        with open_store(state, create=False) as store:
            found = find_targets(store, str(url.without_credentials()), options.target.text())
            for target in found:
                copy_target(store, target, self)
            return {target.digest: target.last_seq for target in found}

    def __fspath__(self) -> str:
        # Lets it pass as the ``state`` of a poller, for which open_store() then gives it back as it is.
        return f"a private copy, number {id(self)}"

    def __enter__(self) -> _Copy:
        return self

    def close(self) -> None:
        """Nothing yet."""

    def __exit__(self, *error: object) -> None:
        super().close()


def _there(path: Path) -> bool:
    # A log without its file is a state that is damaged, not one that was never made.
    return is_there(path) or is_there(path.with_name(path.name + "-wal"))


def _note_held(engine: Engine, held: dict[bytes, str]) -> None:
    ask = engine.hold

    def hold(key: bytes, row: Row) -> bool:
        writing = engine.watch is not None and engine.watch.busy(key, row, False)
        keep = ask(key, row)
        if keep:
            held[key] = "somebody is writing to it" if writing else "it is not quiet for long enough yet"
        else:
            held.pop(key, None)
        return keep

    engine.hold = hold  # type: ignore[method-assign]  # only here, on an engine that nobody else has


class _Noting(Exclude):
    """Notes the directories that are not entered."""

    def __init__(self, exclude: Exclude) -> None:
        self._exclude = exclude
        self.kept_out: list[bytes] = []

    def enter(self, prefix: bytes) -> bool:
        entered = self._exclude.enter(prefix)
        if not entered:
            self.kept_out.append(prefix)
        return entered


def _dropped(poller: ListingPoller, engine: Engine) -> tuple[list[LeftOut], list[LeftOut]]:
    """The names that are excluded, and the directories that are not entered."""
    noting = _Noting(engine.exclude)
    names: list[LeftOut] = []
    source = poller.make_source(noting)
    try:
        source.begin(engine.store.reload(engine.target_id).identity)
        for item in source.scan(Span()):
            if not isinstance(item, Gap):
                for name in item.names:
                    why = engine.exclude.why(item.prefix + name)
                    if why is not None:
                        names.append(LeftOut(str(source.subject(item.prefix + name)), why))
        unknown = "a leftover of an editor or transfer (default_exclude)"
        folders = [
            LeftOut(f"{source.subject(prefix)}/", engine.exclude.why(prefix) or unknown)
            for prefix in dict.fromkeys(noting.kept_out)
        ]
    finally:
        source.close()
        source.end()
    return names, folders


def _unnumbered(event: Event) -> Event:
    return msgspec.structs.replace(event, id="", seq=0)


def _why_unwanted(event: Event, options: Options) -> LeftOut:
    if event.event not in options.events:
        why = f"events are {', '.join(options.events)} only"
    else:
        why = "no include pattern matches: " + ", ".join(map(repr, options.include))
    return LeftOut(str(event.subject), why, event.event)
