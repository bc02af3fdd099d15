"""The options of a poller, checked.

Guarantees: every option that is unknown or can't have the value given raises
:class:`~poller_core.errors.InvalidOption`, which names the option, the value
and what is expected. Options of the *target* (what is listed) are apart from
those of the *consumer* (what it is given): only the first, together with the
URL, decide which snapshot and journal are used.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, TypeAlias

import msgspec

from .errors import InvalidOption
from .events import EVENT_NAMES
from .filters import Patterns
from .url import Url

__all__ = ["FINGERPRINT", "Options", "Seconds", "TargetOptions", "seconds", "unknown_option"]

#: What is no option of a poller, and what to do instead.
_INSTEAD = {
    "interval": "that is an argument of batches() and wakeups(), and of 'poller watch'",
    "limit": "that is an argument of next_batch(), batches() and claim()",
    "max_age": "that is an argument of next_batch(), get_new_events() and claim()",
    "batch_for": "that is an argument of claim() and wakeups()",
    "timeout": "that is an option of containers, and an argument of wait()",
    **dict.fromkeys(("pattern", "patterns", "glob", "filter", "suffix"), "did you mean 'include'?"),
    **dict.fromkeys(("ignore", "ignore_patterns", "skip"), "did you mean 'exclude'?"),
    **dict.fromkeys(("hidden", "ignore_hidden"), "did you mean 'default_exclude'?"),
    "name": "did you mean 'consumer'?",
    "on": "did you mean 'events'?",
}

#: What a file's fingerprint is made of, unless told otherwise.
FINGERPRINT = ("size", "mtime", "ctime", "inode")

#: A length of time, in seconds.
Seconds: TypeAlias = float | timedelta


def seconds(name: str, value: object, endless: bool = False) -> float:
    """A length of time as seconds: a number or a ``timedelta``, not negative.

    :param endless: ``math.inf`` is fine, too.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, bool) and isinstance(value, int | float) and value >= 0:
        if math.isfinite(value) or endless:
            return float(value)
    more = " (math.inf: without end)" if endless else ""
    raise InvalidOption(f"{name}={value!r}: expected a number of seconds, 0 or more{more}, or a timedelta")


def unknown_option(
    name: str, known: Iterable[str], instead: Mapping[str, str] | None = None
) -> InvalidOption:
    """The error for an option that there is not.

    :param known: the names of those that there are.
    :param instead: what to do instead, by name; it comes before what is said of such names elsewhere.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    hint = (instead or {}).get(name) or _INSTEAD.get(name) or (f"did you mean {near[0]!r}?" if near else "")
    hint += " " if hint.endswith("?") else "; " if hint else ""
    return InvalidOption(f"unknown option {name!r}; {hint}options are: {', '.join(names)}")


def _texts(name: str, value: object, example: str = "*.csv") -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise InvalidOption(f"{name}={value!r}: expected a list of texts, such as {name}=[{example!r}]")
    return tuple(value)


def _or(value: object, usual: object) -> object:
    return usual if value is None else value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(f"{name}={value!r}: expected True or False")
    return value


@dataclass(frozen=True)
class TargetOptions:
    """What decides what is listed; with the URL, the identity of the target.

    Change one, and it is another target, with a snapshot and a journal of its own.
    """

    recurse: bool = False  #: look into subdirectories too (containers: True, all objects)
    exclude: tuple[str, ...] = ()  #: patterns of what is left out, as in ``.gitignore``
    default_exclude: bool = True  #: leave out what editors and transfers leave about
    settle: float = 0.0  #: how long a subject must be quiet before it is reported, seconds or ``timedelta``
    follow_symlinks: bool = False  #: look through symbolic links, also to directories
    directories: bool = False  #: report directories too
    metadata: bool = False  #: report a change of mode, owner or links as ``modified``
    #: What a change is told by: some of ``size``, ``mtime``, ``ctime``, ``inode``.
    fingerprint: tuple[str, ...] = FINGERPRINT

    def digest(self, url: Url, place: str = "") -> str:
        """What tells this target from others: 32 hexadecimal digits.

        :param place: what the URL does not say of where the target is, such as the account.
        """
        parts = [str(url.without_credentials()), msgspec.to_builtins(self), *([place] if place else [])]
        whole = msgspec.json.encode(parts)
        return hashlib.sha256(whole).hexdigest()[:32]

    def text(self) -> str:
        """The options that differ from the default, as JSON."""
        usual = TargetOptions()
        mine = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != getattr(usual, f.name)
        }
        return msgspec.json.encode(mine).decode()


@dataclass(frozen=True)
class Options:
    """The options that every poller takes, checked; as keyword arguments of :func:`poller_core.make_poller`.

    Those of :class:`~poller_core.options.TargetOptions` are given likewise, each under its own name.
    Lengths of time are seconds, or a ``timedelta``.
    """

    #: What decides what is listed.
    target: TargetOptions = field(default_factory=TargetOptions)
    #: Where the state is kept: a path, ``sqlite:////path``, ``postgresql+psycopg://user@host/database``;
    #: None: a temporary file of the poller's own, gone when it is closed.
    state: str | os.PathLike[str] | None = None
    consumer: str = "default"  #: the name under which what was delivered is remembered
    events: tuple[str, ...] = EVENT_NAMES  #: which events the consumer is given
    include: tuple[str, ...] = ()  #: patterns of what the consumer is given; none: everything
    existing: str = "ignore"  #: what is there already at the first look: ``"ignore"`` it or ``"report"`` it
    #: Where a new consumer starts: ``"now"``, ``"beginning"`` or a seq; None: as ``existing`` says.
    start: Literal["now", "beginning"] | int | None = None
    retention: float = 30 * 86400.0  #: how long delivered events are kept, seconds (30 days)
    #: How long events are kept that a consumer has not acknowledged, seconds (90 days).
    retention_unread: float = 90 * 86400.0
    full_every: float = 3600.0  #: how often a watched target is listed in full all the same, seconds; about

    @classmethod
    def parse(
        cls, recurse: object = False, given: Mapping[str, Any] | None = None, more: Iterable[str] = ()
    ) -> Options:
        """Check the options given to a poller.

        :param recurse: the option of that name.
        :param given: the others, by name; those left out have their default.
        :param more: names that the poller takes besides, for the error.
        :raises InvalidOption: for an unknown name or a value that can't be.
        """
        raw = {"recurse": recurse, **(given or {})}
        known = [f.name for f in fields(cls) if f.name != "target"] + [f.name for f in fields(TargetOptions)]
        for name in raw:
            if name not in known:
                raise unknown_option(name, sorted([*known, *more]))
        target = TargetOptions(
            recurse=_flag("recurse", raw["recurse"]),
            exclude=_texts("exclude", _or(raw.get("exclude"), ())),
            default_exclude=_flag("default_exclude", raw.get("default_exclude", True)),
            settle=seconds("settle", _or(raw.get("settle"), 0)),
            follow_symlinks=_flag("follow_symlinks", raw.get("follow_symlinks", False)),
            directories=_flag("directories", raw.get("directories", False)),
            metadata=_flag("metadata", raw.get("metadata", False)),
            fingerprint=_fingerprint(raw.get("fingerprint", FINGERPRINT)),
        )
        Patterns(target.exclude, "exclude")
        options = cls(
            target=target,
            state=_state(raw.get("state")),
            consumer=_consumer(raw.get("consumer", "default")),
            events=_events(raw.get("events", EVENT_NAMES)),
            include=_texts("include", _or(raw.get("include"), ())),
            existing=raw.get("existing", "ignore"),
            start=_start(raw.get("start")),
            retention=seconds("retention", raw.get("retention", cls.retention)),
            retention_unread=seconds("retention_unread", raw.get("retention_unread", cls.retention_unread)),
            full_every=seconds("full_every", raw.get("full_every", cls.full_every)),
        )
        Patterns(options.include, "include")
        if options.existing not in ("ignore", "report"):
            raise InvalidOption(f"existing={options.existing!r}: expected 'ignore' or 'report'")
        return options


def _fingerprint(value: object) -> tuple[str, ...]:
    parts = _texts("fingerprint", value, "size")
    unknown = [part for part in parts if part not in FINGERPRINT]
    if unknown or not parts:
        raise InvalidOption(f"fingerprint={value!r}: expected some of {', '.join(FINGERPRINT)}")
    return tuple(part for part in FINGERPRINT if part in parts)


def _events(value: object) -> tuple[str, ...]:
    names = _texts("events", value, "created")
    unknown = [name for name in names if name not in EVENT_NAMES]
    if unknown or not names:
        raise InvalidOption(f"events={value!r}: expected some of {', '.join(EVENT_NAMES)}")
    return tuple(name for name in EVENT_NAMES if name in names)


def _consumer(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 250 or not value.isprintable():
        raise InvalidOption(f"consumer={value!r}: expected a name of 1 to 250 printable characters")
    return value


def _state(value: object) -> str | os.PathLike[str] | None:
    if value is None or isinstance(value, str | os.PathLike):
        return value
    raise InvalidOption(
        f"state={value!r}: expected 'sqlite:////path/to/state.db', 'postgresql+psycopg://…' or a path"
    )


def _start(value: object) -> Literal["now", "beginning"] | int | None:
    if value is None:
        return None
    if value == "now":
        return "now"
    if value == "beginning":
        return "beginning"
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InvalidOption(f"start={value!r}: expected 'now', 'beginning' or the seq of an event, from 1")
