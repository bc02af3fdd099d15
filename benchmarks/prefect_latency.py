"""How soon after a file's closing its flow run is made, and how soon it runs.

* *direct*: ``poll_flow(run=…)``;
* *triggered*: ``poll_flow``, and a deployment that has ``on_created()`` for its trigger;

each once with ``follow=True``, woken by inotify, and once as a deployment that is scheduled every 5 s, a
process for each poll. The *floor* is bare inotify and one ``POST /deployments/…/create_flow_run`` by
Prefect's own client, open already.

A file is written under a hidden name, closed and renamed; the clock starts between the two. *Created* is
what the server notes of the run (``created``), *running* when its process said so (``start_time``).
One runner executes the runs of all ways, a process each, and asks the server once a second what is due
(Prefect's default: every 10 s). So the time from created to running is the runner's turn and
the start of Python, the floor's as ours.

Those that follow and the floor get one file each in a round, one after the other, in an order that
is drawn, at moments that are spread evenly over a second. Then, each by itself, those with an interval:
their files come at moments that are spread evenly over it, so that few rounds tell the median. Each file
waits until the run of the one before has ended. A first file warms each of them up and is not counted.

Not measured: many files at once (:mod:`benchmarks.prefect_runs`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.services.prefect_host import HostError, PrefectHost

from .prefect_child import ROOT, argv
from .report import at_most, note, table

__all__ = ["measured"]

INTERVAL = 5.0
#: What a poll that follows may add to the floor until the run is made, seconds.
ADDED = 0.1
#: Between the end of a file's run and the next file.
_PAUSE = 1.0
_PATIENCE = 90.0

FLOOR = "floor"
FOLLOWING = ("direct-follow", "triggered-follow")
SCHEDULED = ("direct-interval", "triggered-interval")
WAYS = (FLOOR, *FOLLOWING, *SCHEDULED)
TITLES = {
    FLOOR: "floor: bare inotify, one POST",
    "direct-follow": "direct, follow=True",
    "triggered-follow": "triggered, follow=True",
    "direct-interval": "direct, every 5 s",
    "triggered-interval": "triggered, every 5 s",
}


@dataclass
class Times:
    """One file's way, in seconds from its closing."""

    created: float
    running: float


def measured(host: PrefectHost, work: Path, rounds: int) -> None:
    """Measure and print."""
    inboxes = {way: work / "latency" / way for way in WAYS}
    for inbox in inboxes.values():
        inbox.mkdir(parents=True)
    drop = _Files(host, inboxes)
    chance = random.Random(7)
    found: dict[str, list[Times]] = {way: [] for way in WAYS}
    triggered = {way: str(inboxes[way]) if way.startswith("triggered") else None for way in WAYS}
    with _running(host, "latency-runner", argv("serve_worked", ways=triggered)):
        for way in WAYS:
            host.until(f"the deployment {way}", partial(host.deployment, f"worked/{way}"))
        _following(host, work, drop, chance, rounds, found)
        for way in SCHEDULED:
            _scheduled(host, work, drop, way, _spread(chance, rounds), found)
    _show(found, rounds)


def _following(
    host: PrefectHost,
    work: Path,
    drop: _Files,
    chance: random.Random,
    rounds: int,
    found: dict[str, list[Times]],
) -> None:
    deployment = str(host.deployment(f"worked/{FLOOR}")["id"])
    commands = {FLOOR: argv("floor", inbox=str(drop.inboxes[FLOOR]), deployment_id=deployment)}
    for way in FOLLOWING:
        commands[way] = argv("follow", **_poll(work, drop, way))
    with (
        _running(host, FLOOR, commands[FLOOR]),
        _running(host, FOLLOWING[0], commands[FOLLOWING[0]]),
        _running(host, FOLLOWING[1], commands[FOLLOWING[1]]),
    ):
        host.until("the floor to watch", lambda: "watching" in host.log(FLOOR))
        for way in FOLLOWING:
            host.until(f"{way} to follow", partial(_follows, host, way))
        for way in commands:
            drop.warm(way)
        for number, part in enumerate(_spread(chance, rounds)):
            began = time.monotonic()
            for way in chance.sample(list(commands), len(commands)):
                time.sleep(part)
                drop.timed(way, found[way])
            note(f"following, round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s")


def _follows(host: PrefectHost, way: str) -> bool:
    host.check(way)
    return "Following" in host.log(way)


def _scheduled(
    host: PrefectHost,
    work: Path,
    drop: _Files,
    way: str,
    spread: Sequence[float],
    found: dict[str, list[Times]],
) -> None:
    began = time.monotonic()
    command = argv("by_interval", name=way, interval=INTERVAL, **_poll(work, drop, way))
    with _running(host, way, command):
        drop.warm(way)
        for part in spread:
            now = time.time()
            time.sleep((part * INTERVAL - now) % INTERVAL)
            drop.timed(way, found[way])
    note(f"{TITLES[way]}: {time.monotonic() - began:.0f} s")


def _poll(work: Path, drop: _Files, way: str) -> dict[str, Any]:
    return {
        "inbox": str(drop.inboxes[way]),
        "state": f"sqlite:///{work}/latency/{way}.db",
        "run": f"worked/{way}" if way.startswith("direct") else None,
    }


@contextmanager
def _running(host: PrefectHost, name: str, command: Sequence[str]) -> Iterator[None]:
    host.start(name, command, cwd=ROOT)
    try:
        yield
    finally:
        try:
            host.stop(name)
        except HostError as error:
            note(str(error))


def _spread(chance: random.Random, rounds: int) -> list[float]:
    """As many moments of a span as there are rounds, evenly over it, in any order; 0 to 1."""
    moments = [(number + chance.random()) / rounds for number in range(rounds)]
    chance.shuffle(moments)
    return moments


class _Files:
    """Drops files, and follows them to the end of their runs."""

    def __init__(self, host: PrefectHost, inboxes: dict[str, Path]) -> None:
        self.inboxes = inboxes
        self._host = host
        self._numbers = iter(range(1, 1_000_000))

    def warm(self, way: str) -> None:
        """One that is not counted."""
        self.timed(way, [])

    def timed(self, way: str, times: list[Times]) -> None:
        """One; what it took is added, unless no run came of it."""
        try:
            times.append(self._one(way))
        except HostError as error:
            note(f"no run of {way} has come to its end: {error}")

    def _one(self, way: str) -> Times:
        name = f"{next(self._numbers):04}.csv"
        inbox = self.inboxes[way]
        part = inbox / f".{name}.part"
        part.write_bytes(b"x" * 64)
        closed = time.time()
        part.rename(inbox / name)
        run = self._host.until(f"the run for {name}", partial(self._ended, way, name), _PATIENCE)
        time.sleep(_PAUSE)
        return Times(_moment(run["created"]) - closed, _moment(run["start_time"]) - closed)

    def _ended(self, way: str, name: str) -> dict[str, Any] | None:
        self._host.check()
        runs = self._host.ask(
            "POST",
            "flow_runs/filter",
            json={"deployments": {"name": {"any_": [way]}}, "flows": {"name": {"any_": ["worked"]}}},
        )
        mine = [one for one in runs if one["parameters"].get("url", "").endswith(f"/{name}")]
        return next((one for one in mine if one["state_type"] == "COMPLETED"), None)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# -- the table ------------------------------------------------------------------------------


def _show(found: dict[str, list[Times]], rounds: int) -> None:
    few = [way for way, times in found.items() if len(times) < 2]
    if few:
        note(f"too few files came through to tell: {', '.join(few)}")
    if FLOOR in few:
        return
    rows = []
    floor = median(one.created for one in found[FLOOR])
    for way, times in found.items():
        if way in few:
            continue
        created = [one.created for one in times]
        running = [one.running for one in times]
        start = median(one.running - one.created for one in times)
        added = median(created) - floor
        told, bar = f"{added:.3f}", ""
        if way == "direct-follow":
            told, bar = at_most(added, ADDED, "{:.3f}")
        rows.append(
            [
                TITLES[way],
                f"{median(created):.3f}",
                f"{_worst(created):.3f}",
                "" if way == FLOOR else told,
                bar,
                f"{median(running):.2f}",
                f"{_worst(running):.2f}",
                f"{start:.2f}",
                f"{len(times)}/{rounds}",
            ]
        )
    table(
        "Latency: seconds from a file's closing",
        ("", "run created", "p95", "added", "bar", "running", "p95", "of it the runner's", "files"),
        rows,
        "Medians. Added: to the floor. The runner's: from created to running; it asks once a second what is "
        "due. With an interval of 5 s, half of it and the start of a poll's process are part of the time.",
    )


def _worst(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]
