"""What the tests of containers share."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from poller_core import Event, SwiftPoller
from poller_core.clock import Clock
from tests.services.containers import Box


class FastClock(Clock):
    """Sleeps no longer than a moment, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        super().sleep(min(seconds, 0.005))


def told(events: Iterable[Event]) -> list[tuple[str, str]]:
    """Names and events, in their order."""
    return [(event.key.decode(), event.event) for event in events]


def poller(box: Box, /, url: Any = None, **options: Any) -> Any:
    """A poller for the box that loses little time where a fault is made."""
    return SwiftPoller(url or box.url(), **{"retries": 1, "timeout": 10, "clock": FastClock(), **options})


@contextlib.contextmanager
def logged(name: str = "", *louder: str) -> Iterator[list[str]]:
    """All that a logger is told (by default that of all), with everything that a record has.

    :param louder: names of loggers that are turned up as far as they go, as the first one is.
    """
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.name} {self.format(record)} {record.__dict__!r}")

    handler = Keep(0)
    loggers = [logging.getLogger(one) for one in (name, *louder)]
    before = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(1)
    yield lines
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def rows(count: int, form: str = "{:06}") -> list[tuple[str, int, str, float | None]]:
    """Rows for :meth:`Box.fill`."""
    return [(form.format(number), number, f"{number:032x}", 1.7e9 + number) for number in range(count)]


_ODD = (
    " #?%&+=;:@'\"\\^~`|<>[]{}()!$*,\n\r\t\x01\x7f\N{DEGREE SIGN}\N{LATIN SMALL LETTER E WITH ACUTE}"
    "e\N{COMBINING ACUTE ACCENT}\N{SNOWMAN}\N{PILE OF POO}\ud7ff\ue000\uffff\U0010ffff"
)

#: Names that are legal and awkward.
ODD_NAMES = [
    *(f"x{char}y" for char in _ODD),
    *(f"{char}" for char in _ODD),
    "/leading", "a//b", "//", "/", "a/./b", "a/../b", "..", ".", "%2F", "%", "&name=b", "name=", "?c&name=x",
    "A", "a", "a!", "a/b", "a0", "a/", "x" * 1024, "\N{SNOWMAN}" * 341, "\ufeffbom", "\u202ertl",
]  # fmt: skip
ODD_NAMES = list(dict.fromkeys(ODD_NAMES))


def numbered(names: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    """Names, each with a content of its own."""
    return zip(names, (b"%d" % number for number in itertools.count(1)), strict=False)
