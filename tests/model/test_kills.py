"""Real consumers in processes of their own, killed and stopped at random moments while files land.

Nothing here is set up to happen at a certain instruction; the crash points have tests for that. What
must hold whenever the kill comes: every file is delivered, what was not acknowledged is delivered again
as it was, no id has two contents, and no two tokens have the same event.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: Seconds after which what has to happen counts as never happening.
PATIENCE = 120.0


class World:
    """A directory, the consumers of it, and what they were given."""

    def __init__(self, place: Path, state: str) -> None:
        self.place = place
        self.root = place / "root"
        self.root.mkdir()
        self.state = state
        self.stop = place / "stop"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, mode: str, kind: str, name: str = "one", pace: float = 0.0) -> subprocess.Popen[str]:
        """Start a consumer, and wait until it is at work.

        :param pace: how long it works on a batch, in seconds: the time in which a kill is most to be feared.
        """
        arguments = [mode, kind, self.root, self.state, name, self.place / name, self.stop, pace]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.consumer", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def end(self) -> None:
        """Let the consumers come to an end by themselves."""
        self.stop.touch()
        for process in self.processes:
            if process.poll() is None:
                assert process.wait(PATIENCE) == 0

    def clear(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def lines(self, name: str = "one") -> list[dict[str, Any]]:
        path = self.place / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def told(self, name: str = "one") -> list[tuple[Any, ...]]:
        """All that a consumer was given, as often as it was."""
        return [tuple(row) for line in self.lines(name) for row in line["events"]]

    def until_told(self, count: int, name: str = "one") -> None:
        """Wait until so many things were told; an open mark that was lost with the queue takes seconds."""
        end = time.monotonic() + PATIENCE
        keys: set[str] = set()
        rest = b""
        while not (self.place / name).exists():
            assert time.monotonic() < end, "nothing was told"
            time.sleep(0.05)
        with open(self.place / name, "rb") as log:
            while len(keys) < count:
                assert time.monotonic() < end, f"{len(keys)} of {count} were told"
                time.sleep(0.2)
                *lines, rest = (rest + log.read()).split(b"\n")
                keys.update(row[3] for line in lines for row in json.loads(line)["events"])

    def listing(self) -> dict[str, tuple[int, int]]:
        found = {}
        for place, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(place, name)
                about = os.stat(path)
                found[os.path.relpath(path, self.root)] = (about.st_size, about.st_mtime_ns)
        return found

    def agree(self, name: str = "one") -> dict[int, tuple[Any, ...]]:
        """Hold what a consumer was given against the disk; its events, each once."""
        events: dict[int, tuple[Any, ...]] = {}
        ids: dict[str, tuple[Any, ...]] = {}
        for row in self.told(name):
            assert ids.setdefault(row[0], row) == row, "an id with two contents"
            assert events.setdefault(row[1], row) == row, "a number with two ids"
        known: dict[str, tuple[int, int]] = {}
        for _, (_, _, event, key, size, mtime_ns) in sorted(events.items()):
            if event == "deleted":
                del known[key]
            else:
                assert (event == "created") == (key not in known), f"{key} was {event}"
                assert known.get(key) != (size, mtime_ns), f"{key} was {event}, and is as it was"
                known[key] = (size, mtime_ns)
        assert known == self.listing()
        return events


@pytest.fixture
def world(tmp_path: Path, state_url: str) -> Iterator[World]:
    world = World(tmp_path, state_url)
    yield world
    world.clear()


@pytest.fixture
def file_world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, f"sqlite:///{tmp_path}/state.db")
    yield world
    world.clear()


@contextmanager
def files_land(root: Path) -> Iterator[list[str]]:
    """While this lasts, files are made, written to, renamed and deleted by somebody; those made."""
    made: list[str] = []
    over = threading.Event()

    def work() -> None:
        dice = random.Random(len(os.fspath(root)))
        while not over.is_set():
            folder = root / f"d{len(made) // 100}"
            folder.mkdir(exist_ok=True)
            name = f"{len(made):06}"
            (folder / f".{name}.part").write_text(name)
            (folder / f".{name}.part").rename(folder / name)
            made.append(f"{folder.name}/{name}")
            old = root / dice.choice(made)
            if dice.random() < 0.1 and old.exists():
                old.write_text(f"again {dice.random()}")
            time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("mode", "kind"), [("get", "scan"), ("batches", "watch"), ("claim", "watch")])
def test_killed_again_and_again(file_world: World, mode: str, kind: str) -> None:
    _kill(file_world, mode, kind)


@pytest.mark.slow
@pytest.mark.postgres
def test_killed_again_and_again_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    world = World(tmp_path, postgres_url)
    try:
        _kill(world, "claim", "watch")
    finally:
        world.clear()


def _kill(world: World, mode: str, kind: str) -> None:
    dice = random.Random()
    kills = 0
    with files_land(world.root) as made:
        while kills < 8 or len(made) < 300:
            process = world.start(mode, kind, pace=0.02)
            time.sleep(dice.random() * 0.25)
            process.kill()
            assert process.wait() == -signal.SIGKILL
            kills += 1
    world.start(mode, kind)
    world.end()
    events = world.agree()
    created = Counter(row[3] for row in events.values() if row[2] == "created")
    assert created == Counter(made)
    if mode == "claim":
        owned: dict[str, list[str]] = {}
        for line in world.lines():
            ids = [row[0] for row in line["events"]]
            if ids:
                assert owned.setdefault(line["token"], ids) == ids, "a token with two batches"
        everything = [event for ids in owned.values() for event in ids]
        assert len(everything) == len(set(everything)), "two tokens have the same event"


def test_two_processes_on_one_target(world: World) -> None:
    """Both look all the time, one of them at everything: each change is in the journal once."""
    world.start("get", "scan", "one")
    world.start("get", "watch", "two")
    with files_land(world.root) as made:
        while len(made) < 600:
            time.sleep(0.01)
    world.end()
    assert world.agree("one") == world.agree("two")
    for name in ("one", "two"):
        told = world.told(name)
        assert len(told) == len(set(told)), "nobody failed, and it was told twice"


@pytest.mark.slow
def test_two_processes_killed_in_turn(file_world: World) -> None:
    """Of two processes that keep one state one or the other is killed: neither loses or doubles anything."""
    world, dice = file_world, random.Random()
    with files_land(world.root) as made:
        for _ in range(8):
            pair = [world.start("get", "watch", "one", 0.01), world.start("get", "scan", "two")]
            time.sleep(dice.random() * 0.2)
            for process in dice.sample(pair, 2):
                process.kill()
                process.wait()
                time.sleep(dice.random() * 0.05)
    world.start("get", "watch", "one")
    world.start("get", "scan", "two")
    world.end()
    one, two = world.agree("one"), world.agree("two")
    # The second one began with what was there then, which was written for it alone.
    assert all(one[seq] == two[seq] for seq in one.keys() & two.keys())
    assert len(one.keys() & two.keys()) > 100
    assert len(made) > 100


def test_stopped_while_20000_files_come(file_world: World) -> None:
    """The consumer is stopped, and the kernel's queue flows over, if it is not very long."""
    world = file_world
    process = world.start("batches", "watch")
    process.send_signal(signal.SIGSTOP)
    for number in range(20_000):
        fd = os.open(world.root / f"{number:05}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b"x")
        os.close(fd)
    process.send_signal(signal.SIGCONT)
    world.until_told(20_000)
    world.end()
    assert Counter(row[3] for row in world.told()) == Counter(f"{number:05}" for number in range(20_000))
    world.agree()


_MAKE = """
import os, sys
root, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    fd = os.open(f"{root}/d{number // 1000:03}/{number:06}", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, b"x")
    os.close(fd)
"""


@pytest.mark.slow
def test_100000_files_as_fast_as_they_can_be_made(file_world: World) -> None:
    world = file_world
    for number in range(100):
        (world.root / f"d{number:03}").mkdir()
    world.start("batches", "watch")
    makers = [
        subprocess.Popen([sys.executable, "-c", _MAKE, str(world.root), str(first), "25000"])
        for first in range(0, 100_000, 25_000)
    ]
    for maker in makers:
        assert maker.wait(PATIENCE) == 0
    world.until_told(100_000)
    world.end()
    told = Counter(row[3] for row in world.told())
    assert told == Counter(f"d{number // 1000:03}/{number:06}" for number in range(100_000))
    world.agree()
