"""How many events a second come from the journal into Prefect's database, and how many never do.

Ours is ``poll_flow`` that emits events: the journal has them, and the clock runs from the start of
the delivery until the last one was stored, read back and acknowledged. Beside it what Prefect has
itself, with the same events, each with its own ids and names:

* ``emit_event`` in a flow, once for each; the process ends as processes do, or, by ``os._exit``, right
  after the last call, as one that is killed then;
* ``POST /events``, by 100 and by 200 (as ours sends them), one request after the other.

When something was stored is seen in the server's database, for all of them alike: nothing of what
Prefect's own calls would take to make sure is counted. What was not stored when nothing more
came for a while is lost.

The server flushes as it does unless told otherwise: whenever 20 events wait, and every 5 s. So up to 19 of
them wait for up to 5 s, whoever sent them. That is a part of the time until all are stored, and not
of the second rate, until all but 20 are.

Each way has a process of its own and a directory of its own; all of them are measured once in each
round, in an order that is drawn. Ratios are taken within a round, and then their median.

Not measured: a server that is killed, or busy with something else, where what was sent and not read
back is lost; and PostgreSQL.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.services.prefect_host import PrefectHost

from .prefect_child import Seen, run
from .report import at_least, at_most, note, table

__all__ = ["files", "measured"]

SIZES = (1000, 5000)
#: Of the bare POST's rate.
RATIO = 0.8
#: What the server writes at a time.
_PIECE = 20
#: Nothing more comes: thrice the time after which the server flushes.
_SILENCE = 15.0

OURS, BASE = "ours", "POST /events by 200"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    OURS: ("emit_ours", {}),
    "emit_event, process ends": ("emit_bare", {"abrupt": False}),
    "emit_event, os._exit": ("emit_bare", {"abrupt": True}),
    "POST /events by 100": ("post_bare", {"by": 100}),
    BASE: ("post_bare", {"by": 200}),
}


@dataclass
class Rates:
    """What became of the events of one way."""

    whole: float  #: events stored a second, until the last of them was (and, of ours, was acknowledged)
    most: float | None  #: the same but for the last 20; None: there were fewer
    lost: int


def measured(host: PrefectHost, work: Path, rounds: int, quick: bool) -> None:
    """Measure and print."""
    chance = random.Random(11)
    note("events: warming up …")
    _one(host, work, BASE, 200)
    for count in SIZES[:1] if quick else SIZES:
        found: dict[str, list[Rates]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in chance.sample(list(WAYS), len(WAYS)):
                note(f"{count:,} events, round {number + 1} of {rounds}: {way} …")
                found[way].append(_one(host, work, way, count))
        _show(count, rounds, found)


def files(folder: Path, count: int) -> Path:
    """A new directory with so many files."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"part-{number:05}.csv").write_bytes(b"x")
    return folder


_numbers = iter(range(1, 1_000_000))


def _one(host: PrefectHost, work: Path, way: str, count: int) -> Rates:
    function, arguments = WAYS[way]
    place = work / f"events-{next(_numbers)}"
    inbox = files(place / "inbox", count)
    with Seen.events(host, inbox) as seen:
        told = run(
            host, function, inbox=str(inbox), state=f"sqlite:///{place}/state.db", count=count, **arguments
        )
        stored = seen.settle(count, _SILENCE)
    shutil.rmtree(place)
    last = seen.reached(stored)
    if not stored or last is None:
        return Rates(0.0, 0.0, count)
    if way == OURS:
        last = max(last, told["ended"])
    piece = seen.reached(stored - _PIECE) if stored > _PIECE else None
    return Rates(
        stored / (last - told["began"]),
        None if piece is None else (stored - _PIECE) / (piece - told["began"]),
        count - stored,
    )


def _show(count: int, rounds: int, found: dict[str, list[Rates]]) -> None:
    rows = []
    for way, rates in found.items():
        ratio, bar = _ratio(rates, found[BASE], lambda one: one.whole), ""
        told = "" if ratio is None else f"{ratio:.2f}"
        if way == OURS and ratio is not None:
            told, bar = at_least(ratio, RATIO, "{:.2f}")
        most = _ratio(rates, found[BASE], lambda one: one.most)
        lost = max(one.lost for one in rates)
        rows.append(
            [
                way,
                f"{median(one.whole for one in rates):,.0f}",
                told,
                bar,
                f"{median(one.most or 0.0 for one in rates):,.0f}",
                "" if most is None else f"{most:.2f}",
                *(at_most(lost, 0, "{:,.0f}") if way == OURS else (f"{lost:,}", "")),
            ]
        )
    table(
        f"Events: {count:,} from the journal to Prefect's database",
        ("", "stored a second", "of the POST's", "bar", "all but 20", "of the POST's", "lost", "bar"),
        rows,
        f"Medians of {rounds} rounds; lost: the most in one of them. Of ours, until all were acknowledged. "
        "The server flushes every 5 s, and whenever 20 events wait; the second rate is without the last "
        "of these flushes.",
    )


def _ratio(rates: list[Rates], base: list[Rates], what: Callable[[Rates], float | None]) -> float | None:
    pairs = [(what(one), what(other)) for one, other in zip(rates, base, strict=True)]
    ratios = [one / other for one, other in pairs if one is not None and other]
    return median(ratios) if ratios else None
