"""What a look at a container costs, against a bare listing page by page and against swiftclient's own.

The server is a real Swift on loopback, so that most of the time is the server's; what
is ours shows in the CPU time of the client.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any

from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO

from .measure import Job, Result, interleaved, measure, timed
from .report import at_most, note, table

__all__ = ["bare", "first_look", "full_listing", "poll", "run"]

#: To reach: wall time against the bare listing, CPU time of ours beyond it, memory above the interpreter.
WALL, OWN, MEMORY = 1.1, 0.6, 60.0


def bare(storage_url: str, token: str, container: str, page: int) -> dict[str, Any]:
    """All rows by ``requests`` and msgspec's JSON, page by page, of which one is kept."""
    import msgspec
    import requests

    decode, count, marker = msgspec.json.Decoder().decode, 0, ""
    with requests.Session() as http, timed() as timer:
        rows: list[dict[str, str]] = [{}]
        while rows:
            answer = http.get(
                f"{storage_url}/{container}",
                params={"format": "json", "limit": str(page), "marker": marker},
                headers={"X-Auth-Token": token},
            )
            rows = decode(answer.content) if answer.content else []
            count += len(rows)
            marker = rows[-1]["name"] if rows else ""
    return timer.result(rows=count)


def full_listing(storage_url: str, token: str, container: str) -> dict[str, Any]:
    """All rows by swiftclient, as a list."""
    import swiftclient

    with timed() as timer:
        connection = swiftclient.Connection(preauthurl=storage_url, preauthtoken=token)
        _, rows = connection.get_container(container, full_listing=True)
    connection.close()
    return timer.result(rows=len(rows))


def first_look(url: str, state: str) -> dict[str, Any]:
    """From nothing to a baseline, authentication included."""
    from poller_core import SwiftPoller

    with timed() as timer:
        poller = SwiftPoller(url, state=state)
    entries = poller.status().entries
    poller.close()
    return timer.result(rows=entries)


def poll(url: str, state: str) -> dict[str, Any]:
    """One more look by a poller that is open."""
    from poller_core import SwiftPoller

    with SwiftPoller(url, state=state) as poller:
        with timed() as timer:
            events = poller.get_new_events()
        return timer.result(rows=poller.status().entries, events=len(events))


def run(base: Path, quick: bool, rounds: int) -> None:
    """Measure and print."""
    count = 20_000 if quick else 200_000
    with SwiftAIO(keystone=False) as aio:
        box = Box(aio).create()
        note(f"filling a container with {count:,} rows …")
        names = [f"{number // 1000:04}/part-{number % 1000:06}.csv" for number in range(count)]
        box.fill([(name, number, f"{number:032x}", 1.7e9 + number / 7) for number, name in enumerate(names)])
        _measure(base, box, names, rounds)
        box.close()


def _measure(base: Path, box: Box, names: list[str], rounds: int) -> None:
    known, new = base / "swift.db", base / "swift-new.db"
    url = box.url()
    where = {"storage_url": box.storage_url, "token": box._token, "container": box.name}
    chance = random.Random(7)

    def change() -> None:
        some = chance.sample(names, max(1, len(names) // 1000))
        box.fill([(name, 1, f"{chance.getrandbits(128):032x}", time.time()) for name in some])

    def afresh() -> None:
        for path in base.glob("swift-new.db*"):
            path.unlink()

    measure("swift:first_look", url=url, state=str(known))
    note("listing …")
    jobs = {
        "bare listing, page by page": Job("swift:bare", {**where, "page": 10_000}),
        "unchanged": Job("swift:poll", {"url": url, "state": str(known)}),
        "0.1 % changed": Job("swift:poll", {"url": url, "state": str(known)}, change),
        "first look": Job("swift:first_look", {"url": url, "state": str(new)}, afresh),
        "swiftclient, full_listing": Job("swift:full_listing", where),
    }
    found = interleaved(rounds, jobs)
    with box.aio.recorded("proxy") as seen:
        measure("swift:poll", url=url, state=str(known))
        requests = [request for request in seen() if "marker=" in request or "limit=10000" in request]
    size = sum(path.stat().st_size for path in base.glob("swift.db*"))
    _show(len(names), found, len(requests), size)


def _show(count: int, found: dict[str, Result], requests: int, size: int) -> None:
    base = found["bare listing, page by page"]
    rows = []
    for name, result in found.items():
        wall, own = result.wall / base.wall, (result.cpu - base.cpu) / count * 1e6
        unchanged = name == "unchanged"
        ours = name not in ("bare listing, page by page", "swiftclient, full_listing")
        rows.append(
            [
                name,
                f"{result.wall:.2f}",
                *(at_most(wall, WALL) if unchanged else (f"{wall:.2f}", "")),
                f"{result.cpu:.2f}",
                *(at_most(own, OWN) if unchanged else (f"{own:.2f}", "")),
                *(at_most(result.peak, MEMORY, "{:.0f}") if ours else (f"{result.peak:.0f}", "")),
            ]
        )
    table(
        f"A container of {count:,} objects",
        ("", "seconds", "of bare", "bar", "CPU", "own µs each", "bar", "MiB", "bar"),
        rows,
        f"An unchanged look took {requests} requests for pages (at most {math.ceil(count / 10_000) + 1} are "
        f"right); state on disk: {size / count:.1f} bytes per entry.",
    )
