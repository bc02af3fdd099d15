"""How soon after a file's closing the task starts that waits for it.

In each round every way gets one file, one after the other, in an order that is drawn. A file is written
under a hidden name and renamed; the clock starts right after that. What
has an interval gets its files at moments that are spread evenly over it, so that
few rounds tell its median; what has none, at any moment of the second that the
triggerer and the scheduler turn in. A first round warms up and is not counted.

Airflow collects what triggers fire once a second, and its scheduler sleeps between
its looks. So the difference of two ways' latencies is blurred by a good part of a
second; what a way adds is told from its own steps, which are not: until the
trigger fires, and in each task, from when its process comes to the DAG file.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from tests.services.airflow_host import AirflowHost, HostError

from .report import at_most, note, table

__all__ = ["prepare", "run"]

INTERVAL = 5.0
#: What we want to add at most to what Airflow itself takes, seconds; and the ratio to the peer.
ADDED, RATIO = 0.1, 1.0
#: Airflow may lose what a trigger fires within seconds of its task's deferral.
SETTLED = 7.0
#: Between two files: the last one's task is to have ended.
_PAUSE = 2.0
_PATIENCE = 60.0

SENSORS = ("sensor_inotify", "sensor_scan", "sensor_peer", "sensor_floor")
ASSETS = ("asset_inotify", "asset_scan", "asset_peer", "asset_floor")
TITLES = {
    "inotify": "ours, inotify",
    "scan": "ours, scanning",
    "sensor_peer": "FileSensor",
    "asset_peer": "FileDeleteTrigger",
    "floor": "floor: bare inotify",
}


@dataclass
class Times:
    """One file's way, in seconds."""

    fired: float  #: from its closing until the trigger fires
    first: float  #: until the first task after that starts (its own first line)
    downstream: float  #: until the task starts that the files are for
    tasks: float  #: in the tasks: from where the DAG file is begun to be read until that has done its part


def prepare(work: Path) -> None:
    """Make the directories."""
    for way in (*SENSORS, *ASSETS):
        (work / "inboxes" / way).mkdir(parents=True)


class Notes:
    """What the triggers and tasks of a way wrote down."""

    def __init__(self, work: Path, way: str) -> None:
        self._path = work / "notes" / way

    def after(self, moment: float, what: str) -> list[list[float]]:
        """The lines since then, by the first of their moments."""
        if not self._path.exists():
            return []
        lines = [line.split() for line in self._path.read_text().splitlines()]
        found = [[float(one) for one in line[1:]] for line in lines if line[0] == what]
        return [moments for moments in found if moments[0] > moment]


def run(host: AirflowHost, work: Path, rounds: int) -> None:
    """Measure and print."""
    ways = (*SENSORS, *ASSETS)
    notes = {way: Notes(work, way) for way in ways}
    for way in ways:
        host.until(f"DAG {way} to be read", partial(host.get, f"dags/{way}"))
    for way in ASSETS:
        host.pause(way, False)
    note("waiting for the assets to be watched …")
    for way in ASSETS:
        host.until(f"{way} to be watched", partial(notes[way].after, 0, "watching"))
    chance = random.Random(7)
    spread = _spread(chance, rounds)
    found: dict[str, list[Times]] = {way: [] for way in ways}
    lost: list[str] = []
    for number in range(-1, rounds):
        began = time.monotonic()
        one = _Round(host, work, notes, chance, number)
        times, late = one.run(spread[number])
        if number >= 0:
            lost += late
            for way, value in times.items():
                found[way].append(value)
        told = f"round {number + 1} of {rounds}" if number >= 0 else "warmed up"
        note(
            f"{told}: {time.monotonic() - began:.0f} s"
            + (f"; no task came of {', '.join(late)}" * bool(late))
        )
    _show("Deferrable sensors", SENSORS, found, rounds)
    _show("Assets", ASSETS, found, rounds)
    _added(found)
    if lost:
        note(f"files of which no task came within {_PATIENCE:.0f} s: {', '.join(lost)}")


def _spread(chance: random.Random, rounds: int) -> list[float]:
    """As many moments of a span as there are rounds, evenly over it, in any order; 0 to 1."""
    moments = [(number + chance.random()) / rounds for number in range(rounds)]
    chance.shuffle(moments)
    return moments


class _Round:
    """A file for each way."""

    def __init__(
        self,
        host: AirflowHost,
        work: Path,
        notes: dict[str, Notes],
        chance: random.Random,
        number: int,
    ) -> None:
        self._host = host
        self._work = work
        self._notes = notes
        self._chance = chance
        self._name = f"{number + 1:03}.csv"

    def run(self, part: float) -> tuple[dict[str, Times], list[str]]:
        """Drop them all, in that part of their intervals; what each took, and which never came."""
        since = time.time()
        for way in SENSORS:
            self._host.trigger(way, {"name": self._name})
        for way in SENSORS:
            self._host.until(
                f"the trigger of {way} to run", partial(self._notes[way].after, since, "watching")
            )
        settled = time.time() + SETTLED
        order = [self._shuffled(ASSETS), self._shuffled(SENSORS)]
        times: dict[str, Times] = {}
        late = []
        for way in (*order[0], *order[1]):
            earliest = time.time() + _PAUSE
            if way in SENSORS:
                earliest = max(earliest, settled)
            self._wait(way, earliest, part)
            before = time.time()
            dropped = self._drop(way)
            try:
                times[way] = self._followed(way, before, dropped)
            except HostError:
                late.append(way)
        return times, late

    def _shuffled(self, ways: Sequence[str]) -> list[str]:
        return self._chance.sample(ways, len(ways))

    def _wait(self, way: str, earliest: float, part: float) -> None:
        """Wait for a moment from the earliest one on: that part of a way's interval."""
        if way.endswith(("_scan", "_peer")):
            # Its last interval that is known of began when its trigger did, or when that fired.
            notes = self._notes[way]
            began = max(moments[0] for what in ("watching", "fired") for moments in notes.after(0, what))
            moment = earliest + (began + part * INTERVAL - earliest) % INTERVAL
        else:
            moment = earliest + part
        time.sleep(max(0.0, moment - time.time()))

    def _drop(self, way: str) -> float:
        inbox = self._work / "inboxes" / way
        part = inbox / f".{self._name}.part"
        part.write_bytes(b"x" * 64)
        part.rename(inbox / ("arrived" if way == "asset_peer" else self._name))
        return time.time()

    def _followed(self, way: str, before: float, dropped: float) -> Times:
        notes = self._notes[way]
        last = self._until(f"the task of {way}", lambda: notes.after(before, "downstream"))
        # It may have fired before the renaming returned here.
        fired = notes.after(before, "fired")[0][0]
        first = notes.after(before, "first")
        tasks = last[0][1] - last[0][0] + (first[0][2] - first[0][0] if first else 0.0)
        started = first[0][1] if first else last[0][1]
        return Times(fired - dropped, started - dropped, last[0][1] - dropped, tasks)

    def _until(self, what: str, found: Callable[[], list[list[float]]]) -> list[list[float]]:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            lines = found()
            if lines:
                return lines
            time.sleep(0.1)
        raise HostError(f"waited {_PATIENCE:.0f} s for {what}")


# -- the tables ---------------------------------------------------------------------------


def _title(way: str) -> str:
    return TITLES.get(way) or TITLES[way.partition("_")[2]]


def _middle(times: list[Times]) -> Times:
    return Times(*(median(getattr(one, field.name) for one in times) for field in fields(Times)))


def _worst(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]


def _show(title: str, ways: Sequence[str], found: dict[str, list[Times]], rounds: int) -> None:
    if not all(len(found[way]) > 1 for way in ways):
        note(f"{title}: too few files came through to tell")
        return
    peer = _middle(found[next(way for way in ways if way.endswith("_peer"))])
    judged = "first" if ways is ASSETS else "downstream"
    rows = []
    for way in ways:
        times = found[way]
        middle = _middle(times)
        ratios = {
            "first": middle.first / peer.first,
            "downstream": middle.downstream / peer.downstream,
        }
        told = {name: f"{ratio:.2f}" for name, ratio in ratios.items()}
        bar = ""
        if way.endswith(("_inotify", "_scan")):
            told[judged], bar = at_most(ratios[judged], RATIO)
        rows.append(
            [
                _title(way),
                _short(middle.fired),
                _short(_worst([one.fired for one in times])),
                f"{middle.first:.2f}",
                told["first"],
                f"{middle.downstream:.2f}",
                f"{_worst([one.downstream for one in times]):.2f}",
                told["downstream"],
                bar,
                f"{len(times)}/{rounds}",
            ]
        )
    table(
        f"{title}: seconds from a file's closing",
        ("", "fired", "p95", "first task", "of peer's", "downstream", "p95", "of peer's", "bar", "files"),
        rows,
        "Medians. What is not watched is looked at every 5 s. The first task goes on when the trigger has "
        + (
            "fired: of ours, it claims, and the bar is for it; the peer has a task less."
            if ways is ASSETS
            else "fired: it is the sensor. The bar is for the task after it."
        ),
    )


def _short(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds < 0.1 else f"{seconds:.2f}"


def _added(found: dict[str, list[Times]]) -> None:
    """What ours adds to what Airflow itself takes, step by step."""
    rows = []
    for kind, name in (("sensor", "sensor"), ("asset", "asset")):
        floor = found[f"{kind}_floor"]
        for how in ("inotify", "peer"):
            way = f"{kind}_{how}"
            if not (floor and found[way]):
                continue
            base, one = _middle(floor), _middle(found[way])
            fired, tasks = one.fired - base.fired, one.tasks - base.tasks
            ours = how == "inotify"
            rows.append(
                [
                    f"{name}: {_title(way)}",
                    f"{fired * 1000:.1f} ms",
                    f"{tasks * 1000:.1f} ms",
                    *(at_most(fired + tasks, ADDED, "{:.3f} s") if ours else (f"{fired + tasks:.3f} s", "")),
                    f"{one.downstream - base.downstream:+.2f} s",
                ]
            )
    table(
        "Added to what Airflow itself takes",
        ("", "until the trigger fires", "in the tasks", "together", "bar", "end to end"),
        rows,
        "Medians, less those of the floor. In the tasks: the DAG file's imports, the claim, and, of our "
        "asset, all that the claiming task does; but not that task's start, which the others don't have. "
        "End to end has the turns of triggerer and scheduler in it, which differ by more than what is told.",
    )
