"""Processes that are killed while they list, share a target, or fork; threads; asyncio; the command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poller_core import SwiftPoller
from tests.cli.tools import Cli
from tests.services.containers import Box
from tests.swift.tools import poller, rows, told

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0

#: Takes what there is, event by event, and writes down each before it is acknowledged.
_CONSUMER = """
import sys
from poller_core import SwiftPoller
from poller_core.state import store
url, state, consumer, out = sys.argv[1:]
with SwiftPoller(url, state=state, consumer=consumer, existing="report", retries=0) as poller:
    print("ready", flush=True)
    while True:
        with poller.next_batch(limit=7) as batch, open(out, "a") as file:
            for event in batch:
                file.write(event.to_json() + "\\n")
        if not batch:
            break
"""


def start(*args: object, code: str = _CONSUMER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str]) -> int:
    with process:
        process.communicate(timeout=PATIENCE)
    return process.returncode


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.01)


@pytest.fixture
def full(small_aio) -> Iterator[Box]:
    box = Box(small_aio).create()
    box.fill(rows(45))
    yield box
    box.close()


def test_killed_while_it_lists(full, state_url, tmp_path):
    """At each of the pages of a first look, and of a later one; nothing is lost, nothing is two things."""
    out = tmp_path / "out"
    arguments = (full.url(), state_url, "one", out)
    for marker in ("0*9", "0*19", "0*44"):
        with (
            full.aio.fault("proxy", f"GET .*marker={marker}(&|$)", status=0, delay=30),
            full.aio.recorded("proxy") as seen,
        ):
            process = start(*arguments)
            wait_for(lambda m=marker: any(re.search(f"marker={m}(&|$)", one) for one in seen()), "that page")
            process.kill()
            assert finish(process) == -9
    assert finish(start(*arguments)) == 0
    full.fill([("000003", 1, "f" * 32, None), ("000033", 1, "f" * 32, None)])
    with (
        full.aio.fault("proxy", "GET .*marker=0*29(&|$)", status=0, delay=30),
        full.aio.recorded("proxy") as seen,
    ):
        process = start(*arguments)
        wait_for(lambda: any(re.search("marker=0*29(&|$)", one) for one in seen()), "that page")
        process.kill()
        assert finish(process) == -9
    assert finish(start(*arguments)) == 0
    events = {event["id"]: (event["key"], event["event"]) for event in written(out)}
    assert len(written(out)) == len(events)
    names = [(name, "created") for name, *_ in rows(45)]
    assert sorted(events.values()) == sorted([*names, ("000003", "modified"), ("000033", "modified")])


def test_killed_again_and_again(small_box, tmp_path):
    """While objects come: each is delivered, with one id and one content."""
    out, arguments = tmp_path / "out", (small_box.url(), tmp_path / "state.db", "one", tmp_path / "out")
    names = [f"{number:03}" for number in range(60)]
    done = threading.Event()

    def drop() -> None:
        for name in names:
            small_box.put(name, name.encode())
        done.set()

    thread = threading.Thread(target=drop)
    thread.start()
    for pause in (0.3, 0.1, 0.5, 0.2, 0.4):
        process = start(*arguments)
        assert process.stdout is not None
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        process.kill()
        finish(process)
    thread.join()
    assert finish(start(*arguments)) == 0
    events = written(out)
    assert {event["key"] for event in events} == set(names)
    assert len({(event["id"], event["key"], event["etag"]) for event in events}) == 60


def test_two_processes(small_box, state_url, tmp_path):
    names = [f"{number:03}" for number in range(40)]
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert finish(start(small_box.url(), state_url, out.name, out)) == 0
    for part in (names[:20], names[20:]):
        for name in part:
            small_box.put(name, b"1")
        processes = [start(small_box.url(), state_url, out.name, out) for out in outs]
        assert [finish(process) for process in processes] == [0, 0]
    first, second = (written(out) for out in outs)
    assert sorted(event["key"] for event in first) == names
    assert [event["id"] for event in first] == [event["id"] for event in second]


def test_what_came_while_nothing_ran(box, tmp_path):
    state = tmp_path / "state.db"
    for name in ("a", "b", "c"):
        box.put(name, b"1")
    with poller(box, state=state) as one:
        assert one.get_new_events() == []
    box.put("a", b"2")
    box.delete("b")
    box.put("d", b"1")
    with poller(box, state=state) as one:
        assert told(one.get_new_events()) == [("a", "modified"), ("b", "deleted"), ("d", "created")]
    with poller(box, state=state) as one:
        assert one.get_new_events() == []


def test_a_child_after_a_fork(box, tmp_path):
    with poller(box, state=tmp_path / "state.db") as one:
        one.get_new_events()
        parents = one._session.get()
        reading, writing = os.pipe()
        box.put("a", b"1")
        child = os.fork()
        if not child:
            text = "failed"
            try:
                with SwiftPoller(box.url(), state=tmp_path / "child.db", existing="report") as own:
                    text = json.dumps([told(own.get_new_events()), one._session.get() is not parents])
            finally:
                os.write(writing, text.encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            assert json.loads(pipe.read()) == [[["a", "created"]], True]
        os.waitpid(child, 0)
        assert told(one.get_new_events()) == [("a", "created")]


def test_threads(box, tmp_path):
    names = [f"{number:03}" for number in range(30)]
    with (
        poller(box, state=tmp_path / "state.db", consumer="one") as one,
        poller(box, state=tmp_path / "state.db", consumer="two") as two,
        ThreadPoolExecutor(8) as threads,
    ):

        def work(number: int) -> list[tuple[str, bytes]]:
            mine = (one, two)[number % 2]
            found = []
            for event in mine.claim(f"thread {number}", limit=10, max_age=30):
                with mine.open(event) as file:
                    found.append((event.name, file.read()))
            return found

        for name in names:
            box.put(name, name.encode())
        assert told(one.get_new_events()) == [(name, "created") for name in names]
        one.rewind(1)
        done = list(threads.map(work, range(8)))
        for part in (done[::2], done[1::2]):
            assert sorted(itertools.chain(*part)) == [(name, name.encode()) for name in names]


async def test_a_slow_server_does_not_block_the_loop(box):
    longest, ticking = 0.0, True

    async def tick() -> None:
        nonlocal longest
        while ticking:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    one = await asyncio.to_thread(poller, box)
    task = asyncio.create_task(tick())
    with box.aio.fault("proxy", "GET .*format=json", status=0, delay=3, times=2):
        box.put("a", b"1")
        batches = one.batches(interval=0.5)
        batch = await asyncio.wait_for(anext(batches), PATIENCE)
        assert told(batch) == [("a", "created")]
        await batch.ack()
        await batches.aclose()
    ticking = False
    await task
    assert longest < 2, "the loop stood still while the server was waited for"
    await asyncio.to_thread(one.close)


async def test_a_server_that_is_away_for_a_while(box):
    with poller(box, retries=0) as one:
        batches = one.batches(interval=0.2)
        with box.aio.fault("proxy", "GET .*format=json", status=503, times=3):
            box.put("a", b"1")
            batch = await asyncio.wait_for(anext(batches), PATIENCE)
        assert told(batch) == [("a", "created")]
        await batch.ack()
        await batches.aclose()


# -- the command -------------------------------------------------------------


@pytest.fixture
def cli(box, tmp_path, monkeypatch) -> Cli:
    for name in ("ST_AUTH", "ST_USER", "ST_KEY"):
        monkeypatch.setenv(name, box.aio.env[name])
    return Cli(f"sqlite:///{tmp_path / 'state.db'}", tmp_path)


def test_the_command(cli, box):
    url = box.url(user=False)
    assert cli("poll", url).stdout == ""
    box.put("a b", b"12")
    assert cli("preview", url).stdout.count(box.subject("a b")) == 1
    assert cli("poll", url).stdout == f"created  {box.subject('a b')}\n"
    (status,) = cli.json("status", url)["targets"]
    assert (status["entries"], status["last_seq"]) == (1, 1)
    (event,) = cli.lines("events", url)
    assert event["subject"] == box.subject("a b")
    assert "well" in cli("check").stdout
    box.put("c", b"3")
    done = cli("poll", url, "--exec", "printf '%s|%s|%s\\n' {container} {name} {url}", code=0)
    assert done.exit_code == 0
    assert cli("poll", url).stdout == ""
    with cli.process(
        "poll", url, "-c", "x", "--existing", "report", "--exec", "echo {container} {name}"
    ) as process:
        out, _ = process.communicate(timeout=PATIENCE)
        assert out.decode() == f"{box.name} a b\n{box.name} c\n"


def test_the_doctor(cli, box):
    box.put("a", b"1")
    told_of = json.loads(cli("doctor", box.url(user=False), "--json", code=None).stdout)
    found = {one["about"].rpartition(": ")[2]: one for one in told_of}
    assert found["account"]["what"].startswith("AUTH_test at 127.0.0.1")
    assert "1 objects" in found["container"]["what"] or "0 objects" in found["container"]["what"]
    assert found["clock"]["level"] == "ok"
    assert "password" not in found
    text = cli("doctor", box.url(), code=1).stdout  # since that is not as it should be
    assert "password stands in the URL" in text
    assert ":testing" not in text


def test_what_the_command_says_is_wrong(cli, box):
    done = cli("poll", box.url(user=False) + "x", code=3)
    assert f"there is no container '{box.name}x'" in done.stderr
    assert cli.json("status")["targets"] == []  # nothing is left of what was mistyped
    done = cli("poll", box.url().replace(":testing", ":wrong"), code=3)
    assert "not authenticated" in done.stderr
    assert "wrong@" not in done.stderr
