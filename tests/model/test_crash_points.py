"""Killed at every crash point, a process that is started again loses nothing and tells nothing twice.

A life (:mod:`tests.model.victim`) is lived once in peace, and it is counted how often it passes each of
the named points. Then it is lived again and again, each time killed at another point at another time,
and taken up by a new process. What was logged before and after together is held against the promises:

* what was not acknowledged comes again, with the same id and content;
* all that was delivered to a consumer, in order and each once, gives what is on the disk;
* a token has the same events whenever it asks, and no other token has them;
* the state fits together.

Which points there are is read from the source: one that no life passes fails the test. To die more
often, at the points of every kind: ``MODEL_CRASHES=5``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import poller_core
from poller_core import FilePoller, pages
from poller_core.state import open_store
from poller_core.state.checks import check_store

SOURCE = Path(poller_core.__file__).parent
NAMES = sorted(
    {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r'\bcrash_point\("([^"]+)"\)', path.read_text())
    }
)
#: How many times of one point are tried, of all times that it is passed; 0: few, and not all everywhere.
TIMES = int(os.environ.get("MODEL_CRASHES", "0"))


class Server:
    """The process that gives birth to all the lives."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def live(self, place: Path, state: str, kind: str = "scan", crash: str = "", task: str = "live") -> int:
        """Live until the end or the crash; the exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        life = {"place": str(place), "state": state, "kind": kind, "crash": crash, "task": task}
        self._process.stdin.write(json.dumps(life) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, 137), (place / "error").read_text()
        return code

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def make_place(place: Path) -> Path:
    for number in range(14):
        path = place / "root" / f"d{number % 2}" / f"{number:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"before {number}")
    return place


def listing(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            about = path.stat()
            found[str(path.relative_to(root))] = (about.st_size, about.st_mtime_ns)
    return found


class Evidence:
    """What the log says, held against the promises."""

    def __init__(self, place: Path) -> None:
        self.lines = [json.loads(line) for line in (place / "log").read_text().splitlines()]
        self.root = place / "root"

    def examine(self) -> None:
        ids: dict[str, dict[str, Any]] = {}
        seqs: dict[int, str] = {}
        for line in self.lines:
            for event in line["events"]:
                assert ids.setdefault(event["id"], event) == event, "an id with two contents"
                assert seqs.setdefault(event["seq"], event["id"]) == event["id"], "a number with two ids"
        there = listing(self.root)
        for consumer in ("get", "batch", "claim", "take"):
            assert self._replay(consumer) == there, consumer
        assert self._replay("rewind", after="begins") == there
        self._claims()

    def _replay(self, consumer: str, after: str | None = None) -> dict[str, tuple[int, int]]:
        """What a consumer knows that takes each event once, in order."""
        lines = [line for line in self.lines if line["consumer"] == consumer]
        if after is not None:
            # Whoever begins anew forgets what he knew; what began twice is told twice.
            last = max(number for number, line in enumerate(lines) if line["what"] == after)
            lines = lines[last:]
        events = {event["seq"]: event for line in lines for event in line["events"]}
        known: dict[str, tuple[int, int]] = {}
        for _, event in sorted(events.items()):
            key, name = event["key"], event["event"]
            if name == "deleted":
                del known[key]
                continue
            assert (name == "modified") == (key in known), f"{key} was {name}"
            fingerprint = (event["size"], event["mtime_ns"])
            assert known.get(key) != fingerprint, f"{key} was {name}, and is as it was"
            known[key] = fingerprint
        return known

    def _claims(self) -> None:
        owned: dict[str, list[str]] = {}
        for line in self.lines:
            if line["what"] == "releasing":
                owned.pop(line["token"], None)
            elif line["what"] == "claimed":
                events = [event["id"] for event in line["events"]]
                if events:
                    assert owned.setdefault(line["token"], events) == events, "a token with two batches"
        everything = [event for events in owned.values() for event in events]
        assert len(everything) == len(set(everything)), "two tokens have the same event"


def spread(count: int, most: int) -> list[int]:
    """Some of the numbers from 1 to ``count``: the middle one, or the first, the last, some between."""
    if most == 1:
        return [(count + 1) // 2]
    return sorted({1 + round(step * (count - 1) / (most - 1)) for step in range(most)})


def lives(server: Server, base: Path, make_state: Any, kind: str, times: int, only: str = "") -> None:
    """Live once in peace, and then once for each death.

    :param times: how often to die at each point.
    :param only: die only at points whose names end so.
    """
    peace = make_place(base / "peace")
    state = make_state(peace)
    assert server.live(peace, state, kind, "count") == 0
    Evidence(peace).examine()
    passed = json.loads((peace / "count").read_text())
    expected = {name for name in NAMES if not name.startswith("state.") or "sqlite" in state}
    assert expected - passed.keys() <= {"state.salvage.before", "state.salvage.after"}, "never passed"
    for name, count in sorted(passed.items()):
        for time in spread(count, times) if name.endswith(only) else []:
            place = make_place(base / f"{name}-{time}")
            state = make_state(place)
            try:
                assert server.live(place, state, kind, f"{name}:{time}") == 137, (
                    f"{name}:{time} was not passed"
                )
                check(state)
                assert server.live(place, state, kind) == 0
                Evidence(place).examine()
                check(state)
            except BaseException as error:
                error.add_note(f"killed at {name}:{time}")
                raise
            shutil.rmtree(place)


def check(state: str) -> None:
    """The state, as a kill left it, fits together."""
    if state.startswith("sqlite:") and not Path(state.removeprefix("sqlite:///")).exists():
        return
    with open_store(state) as store:
        assert check_store(store, pages.unpack, pages.keys) == []


def in_a_file(place: Path) -> str:
    return f"sqlite:///{place}/state.db"


@pytest.mark.slow
def test_killed_at_every_point(server: Server, tmp_path: Path) -> None:
    lives(server, tmp_path, in_a_file, "scan", TIMES or 2)


@pytest.mark.slow
def test_killed_at_every_point_while_watching(server: Server, tmp_path: Path) -> None:
    lives(server, tmp_path, in_a_file, "watch", TIMES or 1, "" if TIMES else ".before")


@pytest.mark.slow
@pytest.mark.postgres
def test_killed_at_every_point_on_postgresql(server: Server, tmp_path: Path, postgres_url: str) -> None:
    # Each place is a target of its own in one database.
    lives(server, tmp_path, lambda place: postgres_url, "scan", TIMES or 1, "" if TIMES else ".before")


@pytest.mark.parametrize("point", [name for name in NAMES if "salvage" in name])
def test_killed_while_a_broken_file_is_mended(server: Server, tmp_path: Path, point: str) -> None:
    place = make_place(tmp_path / "place")
    path = place / "state.db"
    state = f"sqlite:///{path}"
    with FilePoller(place / "root", recurse=True, state=state, existing="report") as poller:
        before = [(event.id, event.key) for event in poller.get_new_events()]
    _break(path)
    assert server.live(place, state, crash=point, task="salvage") == 137
    assert server.live(place, state, task="salvage") == 0
    check(state)
    with FilePoller(place / "root", recurse=True, state=state) as poller:
        poller.rewind(1)
        assert [(event.id, event.key) for event in poller.next_batch(None)][: len(before)] == before


def _break(path: Path) -> None:
    """Write nonsense over the pages of the snapshot within the file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'poller_pages'").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)


def test_the_environment_kills_a_fresh_process(tmp_path: Path) -> None:
    """The way in which a user would do it, without any of the above."""
    place = make_place(tmp_path / "place")
    code = "import sys; from poller_core import FilePoller; FilePoller(sys.argv[1], state=sys.argv[2])"
    environment = {**os.environ, "POLLER_CRASH_AT": "look.commit.before"}
    command = [sys.executable, "-c", code, str(place / "root"), str(place / "state.db")]
    assert subprocess.run(command, env=environment).returncode == 137
    assert subprocess.run(command).returncode == 0
