"""How many flow runs a second are made for files that are in the journal already.

* *direct*: ``poll_flow(run=…)`` makes a run for each event, and emits the event besides, as it does
  unless told otherwise;
* *triggered*: ``poll_flow`` emits events, and an automation of Prefect's starts a run of a deployment
  that has ``on_created()`` for its trigger;
* *bare*: ``POST /deployments/…/create_flow_run`` by Prefect's own client, which asks again where the server
  is busy; one after the other, as ours does it, and 8 at a time; with a key and the same parameter. Nothing
  is read or written beside.

The clock runs from the start of the delivery until the last run is in the server's database, which is
seen there. Told besides is when the last event was acknowledged: ours may be started anew only
after that without sending anything again. A file without a run is lost; one with two has one twice.

Each size and way has a process, a directory and a deployment of its own. Nothing executes the runs; they
are deleted afterwards, so that nobody pays for those of the one before. Meanwhile the server does what it
does as it comes: marks them as late, for one.

Not measured: PostgreSQL, with which the triggered way is a few times as fast; how long runs take.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.services.prefect_host import PrefectHost

from .prefect_child import Seen, run
from .prefect_events import files
from .report import at_most, note, table

__all__ = ["measured"]

SIZES = (1, 10, 200, 1000)
#: Of these, one round.
_LARGE = 200
#: No more runs come. The server takes seconds for each that a trigger makes, when it has many to make.
_SILENCE = 30.0
#: What --quick leaves of the triggered way, of which 1,000 take minutes.
_QUICK = 50

DIRECT, TRIGGERED, BARE, SINGLE = "direct", "triggered", "bare POST, 8 at a time", "bare POST, 1 at a time"
#: How many requests at a time.
AT_ONCE = {BARE: 8, SINGLE: 1}
WAYS = (BARE, SINGLE, DIRECT, TRIGGERED)


@dataclass
class Made:
    """What became of the files of one way."""

    seconds: float | None  #: until the last run was there; None: there was none
    acknowledged: float | None
    there: int
    twice: int
    lost: int


def measured(host: PrefectHost, work: Path, rounds: int, quick: bool) -> None:
    """Measure and print."""
    chance = random.Random(13)
    found: dict[tuple[int, str], list[Made]] = {}
    note("runs: warming up …")
    for way in WAYS:
        _one(host, work, way, 1)
    for count in (1, 10, _QUICK) if quick else SIZES:
        for number in range(rounds if count < _LARGE else 1):
            for way in chance.sample(WAYS, len(WAYS)):
                began = time.monotonic()
                made = _one(host, work, way, count)
                found.setdefault((count, way), []).append(made)
                note(f"{count:,} runs, {way}, round {number + 1}: {time.monotonic() - began:.0f} s")
    _show(found)


_numbers = iter(range(1, 1_000_000))


def _one(host: PrefectHost, work: Path, way: str, count: int) -> Made:
    name = f"runs-{next(_numbers)}"
    place = work / name
    inbox = files(place / "inbox", count)
    with Seen.runs(host, name) as seen:
        if way in AT_ONCE:
            told = run(host, "runs_bare", count=count, name=name, at_once=AT_ONCE[way])
        else:
            told = run(
                host,
                "runs_ours",
                inbox=str(inbox),
                state=f"sqlite:///{place}/state.db",
                count=count,
                name=name,
                triggered=way == TRIGGERED,
            )
        there = seen.settle(count, _SILENCE)
    last = seen.reached(min(there, count)) if there else None
    runs = host.flow_runs(deployment=f"worked/{name}")
    files_of = Counter(str(one["parameters"]["url"]) for one in runs)
    _clear(host, name, runs)
    shutil.rmtree(place)
    return Made(
        None if last is None else last - told["began"],
        None if way in AT_ONCE else told["ended"] - told["began"],
        there,
        sum(times - 1 for times in files_of.values()),
        count - len(files_of),
    )


def _clear(host: PrefectHost, name: str, runs: list[dict[str, Any]]) -> None:
    """Delete the deployment, with the automation of its trigger, and its runs."""
    host.ask("DELETE", f"deployments/{host.deployment(f'worked/{name}')['id']}")
    for start in range(0, len(runs), 50):
        wanted = [one["id"] for one in runs[start : start + 50]]
        host.ask("POST", "flow_runs/bulk_delete", json={"flow_runs": {"id": {"any_": wanted}}})


def _show(found: dict[tuple[int, str], list[Made]]) -> None:
    rows = []
    for (count, way), several in sorted(found.items(), key=lambda item: (item[0][0], WAYS.index(item[0][1]))):
        seconds = _middle([one.seconds for one in several])
        base = _middle([one.seconds for one in found[count, BARE]])
        acknowledged = _middle([one.acknowledged for one in several])
        twice, lost = max(one.twice for one in several), max(one.lost for one in several)
        # What an automation makes twice, take_event() sorts out.
        told_twice, bar_twice = at_most(twice, 0, "{:,.0f}") if way == DIRECT else (f"{twice:,}", "")
        told_lost, bar_lost = at_most(lost, 0, "{:,.0f}") if way not in AT_ONCE else (f"{lost:,}", "")
        rows.append(
            [
                f"{count:,}: {way}",
                "" if seconds is None else f"{seconds:,.2f}",
                "" if seconds is None else f"{count / seconds:,.1f}",
                "" if seconds is None or base is None else f"{base / seconds:.2f}",
                "" if acknowledged is None else f"{acknowledged:,.2f}",
                told_twice,
                bar_twice,
                told_lost,
                bar_lost,
            ]
        )
    table(
        "Runs: made for files that are in the journal",
        ("files", "all there, s", "a second", "of bare", "acknowledged, s", "twice", "bar", "lost", "bar"),
        rows,
        f"Medians; of {_LARGE} files and more, one round. Twice, lost: the most in one round. "
        f"Of bare: of {BARE}.",
    )


def _middle(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
