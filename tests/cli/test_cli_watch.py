"""``poller watch`` without a command: a real process, its output, its signals."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.tools import Cli, ends, eventually
from tests.races.tools import land


@pytest.mark.parametrize("scan", [False, True])
def test_events_are_printed_as_they_come(cli: Cli, inbox: Path, scan: bool) -> None:
    more = ("--scan", "--interval", "0.2") if scan else ()
    with cli.process("watch", inbox, "-r", "--json", *more) as process:
        assert process.stdout is not None
        eventually(lambda: Path(cli.state).exists() and cli.watching())
        (inbox / "sub").mkdir()
        land(inbox / "sub" / "a")
        found = json.loads(process.stdout.readline())
        assert (found["event"], found["key"]) == ("created", "sub/a")
        (inbox / "sub" / "a").unlink()
        found = json.loads(process.stdout.readline())
        assert (found["event"], found["key"]) == ("deleted", "sub/a")
        eventually(lambda: cli.offsets() == {"default": (2, 0)}, "the acknowledgement")
        assert ends(process, signal.SIGTERM) == 143
    assert cli.lines("poll", inbox, "-r") == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_it_quietly(cli: Cli, inbox: Path, number: signal.Signals, code: int) -> None:
    cli("poll", inbox, "-q")
    (inbox / "a").write_text("1")
    with cli.process("watch", inbox) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"created  {inbox}/a\n".encode()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, rest, errors) == (code, b"", b"")


def test_a_hangup_that_was_ignored_stays_so(cli: Cli, inbox: Path) -> None:
    """As under nohup."""
    cli("poll", inbox, "-q")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli.process("watch", inbox) as process:
            assert process.stdout is not None
            land(inbox / "a")
            assert process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            land(inbox / "b")
            assert process.stdout.readline() == f"created  {inbox}/b\n".encode()
            assert ends(process, signal.SIGTERM) == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_target_that_goes_away_and_comes_back_is_waited_for(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    with cli.process("watch", inbox, "--interval", "0.2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        land(inbox / "first")
        assert process.stdout.readline()
        inbox.rename(inbox.with_name("away"))
        assert b"is not there" in process.stderr.readline()
        inbox.mkdir()
        assert b"again" in process.stderr.readline()
        land(inbox / "a")
        found = {process.stdout.readline() for _ in range(2)}
        assert found == {f"deleted  {inbox}/first\n".encode(), f"created  {inbox}/a\n".encode()}
        assert ends(process, signal.SIGTERM) == 143


def test_a_reader_that_does_not_read_does_not_keep_it_from_ending(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    for number in range(3000):
        (inbox / f"a-name-that-is-long-enough-to-fill-the-pipe-{number:05}").touch()
    with cli.process("watch", inbox) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        # Something has been written, and nobody reads the rest.
        eventually(lambda: process.stdout is not None and process.stdout.read(1))
        assert ends(process, signal.SIGINT) == 130
    # Only what was written whole was acknowledged.
    assert len(cli.lines("poll", inbox)) >= 1000


def test_what_was_printed_before_a_kill_may_come_again_and_the_rest_comes(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    with cli.process("watch", inbox, "--json") as process:
        assert process.stdout is not None
        for number in range(200):
            (inbox / f"{number:03}").write_text("1")
        printed = {json.loads(process.stdout.readline())["key"]}
        process.kill()
        rest = process.stdout.read().splitlines(keepends=True)
        printed |= {json.loads(line)["key"] for line in rest if line.endswith(b"\n")}
        process.wait()
    again = {one["key"] for one in cli.lines("poll", inbox)}
    assert printed | again == {f"{number:03}" for number in range(200)}


def test_two_consumers_watch_at_once(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    cli("poll", inbox, "-q", "--consumer", "other")
    with cli.process("watch", inbox) as one, cli.process("watch", inbox, "--consumer", "other") as other:
        land(inbox / "a")
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == f"created  {inbox}/a\n".encode()
        assert ends(one, signal.SIGTERM) == ends(other, signal.SIGTERM) == 143
    assert cli.json("check") == []


def test_events_follow_goes_on(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    (inbox / "a").write_text("1")
    cli("poll", inbox)
    with cli.process("events", inbox, "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"created  {inbox}/a\n".encode()
        (inbox / "b").write_text("1")
        cli("poll", inbox)
        assert process.stdout.readline() == f"created  {inbox}/b\n".encode()
        assert ends(process, signal.SIGINT) == 130
