"""``--exec``: every event's command is done at least once, whatever happens in between.

Real processes throughout. The commands append to files, so that what was done
is known from outside of the program under test.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from poller_core import make_poller
from tests.cli.tools import Cli, ends, eventually
from tests.races.tools import land


@pytest.fixture
def script(tmp_path: Path):
    """Makes a program out of lines of Python; its text for ``--exec``."""

    def make(*lines: str) -> str:
        path = tmp_path / "script.py"
        path.write_text("\n".join(("import json, os, sys, time", *lines)) + "\n")
        return f"{sys.executable} {path}"

    return make


def _append(log: Path, what: str) -> str:
    """A line of Python that notes something, whole, however many do so at once."""
    return f"with open({str(log)!r}, 'ab', 0) as log: log.write(os.fsencode({what}) + b'\\0')"


def _noted(log: Path) -> list[bytes]:
    return log.read_bytes().split(b"\0")[:-1] if log.exists() else []


STRANGE = [
    b"with space",
    b"double \"quotes\" and 'single'",
    b"$(touch pwned) `touch pwned` ; touch pwned",
    b"new\nline",
    b"-rf",
    b"--help",
    b"{path}{key}{{",
    b"back\\slash",
    b"caf\xe9 \xff\xfe",
    "ünïcödé".encode(),
    b"*",
    b" ",
    b"~",
]


def test_any_name_stays_one_argument(cli: Cli, inbox: Path, tmp_path: Path, script) -> None:
    cli("poll", inbox, "-q", "--no-default-exclude")
    for name in STRANGE:
        (inbox / os.fsdecode(name)).write_bytes(b"12")
    log = tmp_path / "log"
    run = script(_append(log, "'\\n\\n'.join(sys.argv[1:])"))
    command = f"{run} {{path}} key={{key}} '{{event}} {{size}} {{{{x}}}}' {{url}}"
    with cli.process("poll", inbox, "--no-default-exclude", "--exec", command, "-j", 3) as process:
        assert ends(process) == 0
    found = {tuple(one.split(b"\n\n")) for one in _noted(log)}
    root = os.fsencode(inbox)
    assert {one[:3] for one in found} == {
        (root + b"/" + name, b"key=" + name, b"created 2 {x}") for name in STRANGE
    }
    assert all(one[3].startswith(b"file:///") and one[3].isascii() for one in found)
    assert not (tmp_path / "pwned").exists()


def test_the_event_is_in_the_environment_and_on_standard_input(
    cli: Cli, inbox: Path, tmp_path: Path, script
) -> None:
    cli("poll", inbox, "-q")
    (inbox / "a b").write_text("123")
    log = tmp_path / "log"
    run = script(
        "found = {name: value for name, value in os.environ.items() if name.startswith('POLLER_')}",
        "found['stdin'] = sys.stdin.read()",
        _append(log, "json.dumps(found)"),
    )
    os.environ["POLLER_ETAG"] = "somebody else's"
    try:
        with cli.process("poll", inbox, "--exec", run, "--stdin") as process:
            assert ends(process) == 0
    finally:
        del os.environ["POLLER_ETAG"]
    found = json.loads(_noted(log)[0])
    event = json.loads(found.pop("stdin"))
    assert event["key"] == "a%20b"
    assert found["POLLER_EVENT_ID"] == event["id"]
    assert found["POLLER_PATH"] == str(inbox / "a b")
    assert (found["POLLER_EVENT"], found["POLLER_SIZE"], found["POLLER_ATTEMPT"]) == ("created", "3", "1")
    assert "POLLER_ETAG" not in found
    (inbox / "c").write_text("1")
    with cli.process("poll", inbox, "--exec", run) as process:
        assert ends(process) == 0
    assert json.loads(_noted(log)[1])["stdin"] == ""


@pytest.mark.parametrize("jobs", [1, 4])
def test_killed_in_the_middle_nothing_is_lost(
    state_url: str, inbox: Path, tmp_path: Path, script, jobs: int
) -> None:
    cli = Cli(state_url, tmp_path)
    cli("poll", inbox, "-q")
    log, names = tmp_path / "log", {f"f{number:02}" for number in range(20)}
    run = script(
        "name = os.path.basename(sys.argv[1])",
        # The first one is slow: what comes behind it is done, and must not be done again.
        "time.sleep(1.5 if name == 'f00' else 0.05)",
        _append(log, "name"),
    )
    command = f"{run} {{path}}"
    with cli.process("watch", inbox, "--exec", command, "-j", jobs) as process:
        for name in sorted(names):
            land(inbox / name)
        eventually(lambda: len(_noted(log)) >= 7, "work")
        assert ends(process, signal.SIGKILL) == -signal.SIGKILL
    first = _noted(log)
    assert len(set(first)) < len(names), "killed too late to tell anything"
    with cli.process("poll", inbox, "--exec", command, "-j", jobs) as process:
        assert ends(process) == 0
    done = _noted(log)
    assert {os.fsdecode(name) for name in done} == names
    # At most those that ran when it was killed, or whose end was not stored yet, were done twice.
    assert len(done) - len(names) <= 2 * jobs
    assert cli.offsets() == {"default": (20, 0)}
    assert cli.json("check") == []


def test_a_slow_command_holds_up_no_other(cli: Cli, inbox: Path, tmp_path: Path, script) -> None:
    cli("poll", inbox, "-q")
    log, gate = tmp_path / "log", tmp_path / "gate"
    run = script(
        "name = os.path.basename(sys.argv[1])",
        f"while name == 'a' and not os.path.exists({str(gate)!r}): time.sleep(0.02)",
        _append(log, "name"),
    )
    for name in ("a", *(f"b{number:03}" for number in range(40))):
        (inbox / name).write_text("1")
    with cli.process("watch", inbox, "--exec", f"{run} {{path}}", "-j", 2) as process:
        eventually(lambda: len(_noted(log)) == 40, "the work on the others")
        eventually(lambda: cli.json("consumers")[0]["lag"] <= 41)
        assert b"a" not in _noted(log)
        assert ends(process, signal.SIGKILL) == -signal.SIGKILL
    gate.touch()
    before = len(_noted(log))
    with cli.process("poll", inbox, "--exec", f"{run} {{path}}", "-j", 2) as process:
        assert ends(process) == 0
    again = _noted(log)[before:]
    assert b"a" in again
    assert len(again) <= 4, "what was finished was done again"


def test_the_events_of_a_subject_run_in_order_one_at_a_time(
    cli: Cli, inbox: Path, tmp_path: Path, script
) -> None:
    cli("poll", inbox, "-q")
    log = tmp_path / "log"
    with make_poller(inbox, state=cli.state, consumer="other") as poller:
        for text in ("1", "22", "333"):
            for name in "ab":
                (inbox / name).write_text(text)
            poller.get_new_events()
        (inbox / "a").unlink()
        poller.get_new_events()
    key, kind = "os.environ['POLLER_KEY']", "os.environ['POLLER_EVENT']"
    run = script(
        _append(log, f"{key} + ' begin ' + {kind}"),
        f"time.sleep(0.2 if {kind} == 'created' else 0)",
        _append(log, f"{key} + ' end ' + {kind}"),
    )
    with cli.process("poll", inbox, "--exec", run, "-j", 8) as process:
        assert ends(process) == 0
    for subject, kinds in (
        (b"a", [b"created", b"modified", b"modified", b"deleted"]),
        (b"b", [b"created", b"modified", b"modified"]),
    ):
        mine = [tuple(one.split(b" ")[1:]) for one in _noted(log) if one.startswith(subject + b" ")]
        assert mine == [(step, kind) for kind in kinds for step in (b"begin", b"end")]


def test_what_fails_is_tried_again_then_a_dead_letter(cli: Cli, inbox: Path, tmp_path: Path, script) -> None:
    cli("poll", inbox, "-q")
    log = tmp_path / "log"
    run = script(
        "name, attempt = os.environ['POLLER_KEY'], int(os.environ['POLLER_ATTEMPT'])",
        _append(log, "f'{name} {attempt}'"),
        "sys.exit({'good': 0, 'late': attempt < 3, 'bad': 7}[name])",
    )
    for name in ("good", "late", "bad"):
        (inbox / name).write_text("1")
    with cli.process("poll", inbox, "-x", run, "--retries", 2, "--backoff", 0.01) as process:
        _, errors = process.communicate()
        assert process.returncode == 5
    assert b"gave up on created" in errors
    assert sorted(_noted(log)) == [b"bad 1", b"bad 2", b"bad 3", b"good 1", b"late 1", b"late 2", b"late 3"]
    (letter,) = cli.json("dead", inbox)
    assert (letter["event"]["key"], letter["attempts"]) == ("bad", 3)
    assert letter["error"].endswith("exit code 7")
    assert "bad" in cli("dead").stdout
    # It counts as read, and is not given again by itself.
    assert cli.offsets()["default"][1] == 0
    assert cli.lines("poll", inbox) == []


def test_dead_letters_run_again_or_go_back(cli: Cli, inbox: Path, tmp_path: Path, script) -> None:
    cli("poll", inbox, "-q")
    for name in "abc":
        (inbox / name).write_text("1")
    assert cli("poll", inbox, "-x", "false", "--retries", 0, code=5).stdout == ""
    letters = [letter["seq"] for letter in cli.json("dead")]
    assert letters == [1, 2, 3]
    # Still failing: it stays, and the attempts add up.
    assert cli("dead", "--retry", 1, "-x", "false", "--retries", 0, code=5).stdout == ""
    assert [letter["attempts"] for letter in cli.json("dead")] == [2, 1, 1]
    log = tmp_path / "log"
    run = script(_append(log, "os.environ['POLLER_KEY']"))
    cli("dead", "--retry", 1, "-x", run)
    assert _noted(log) == [b"a"]
    assert [letter["seq"] for letter in cli.json("dead")] == [2, 3]
    assert cli.json("dead", "--retry", "all")["given_back"] == [2, 3]
    assert cli.json("dead") == []
    assert [one["key"] for one in cli.lines("poll", inbox)] == ["b", "c"]
    assert cli.lines("poll", inbox) == []


def test_a_command_that_can_not_be_started_is_a_dead_letter(cli: Cli, inbox: Path, tmp_path: Path) -> None:
    cli("poll", inbox, "-q")
    program = tmp_path / "program"
    program.write_text("not a program")
    program.chmod(0o755)
    (inbox / "a").write_text("1")
    cli("poll", inbox, "-x", str(program), "--retries", 0, code=5)
    (letter,) = cli.json("dead")
    assert "can't be started" in letter["error"]


def test_json_tells_how_each_event_went(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    for name in "ab":
        (inbox / name).write_text("1")
    command = "sh -c 'echo noise; test $POLLER_KEY = a'"
    with cli.process("poll", inbox, "--json", "-x", command, "--retries", 0) as process:
        output, errors = process.communicate()
        assert process.returncode == 5
    outcomes = [json.loads(line) for line in output.splitlines()]
    assert {one["key"]: (one["done"], one["attempts"]) for one in outcomes} == {
        "a": (True, 1),
        "b": (False, 1),
    }
    assert errors.count(b"noise") == 2


def test_filtered_events_do_not_hold_up_the_offset(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q", "--include", "*.csv")
    for name in ("a.csv", "b.txt", "c.csv", "d.txt"):
        (inbox / name).write_text("1")
    cli("poll", inbox, "--include", "*.csv", "-x", "true")
    assert cli.offsets() == {"default": (4, 0)}
    (inbox / "e.txt").write_text("1")
    cli("poll", inbox, "--include", "*.csv", "-x", "false", "--retries", 0)
    assert cli.offsets() == {"default": (5, 0)}


def test_the_end_waits_for_what_runs(cli: Cli, inbox: Path, tmp_path: Path, script) -> None:
    cli("poll", inbox, "-q")
    log, begun = tmp_path / "log", tmp_path / "begun"
    run = script(f"open({str(begun)!r}, 'w').close()", "time.sleep(1)", _append(log, "'done'"))
    with cli.process("watch", inbox, "-x", run, "--grace", 50) as process:
        for name in "ab":
            land(inbox / name)
        eventually(begun.exists)
        # As a terminal does: to the whole group. The command is none of it.
        assert ends(process, signal.SIGINT) == 130
    assert _noted(log) == [b"done"]
    assert [one["key"] for one in cli.lines("poll", inbox)] == ["b"]


@pytest.mark.parametrize("insist", [False, True])
def test_the_end_gives_back_what_takes_too_long(
    cli: Cli, inbox: Path, tmp_path: Path, script, insist: bool
) -> None:
    cli("poll", inbox, "-q")
    (tmp_path / "pids").mkdir()
    run = script(f"open({str(tmp_path / 'pids')!r} + f'/{{os.getpid()}}', 'w').close()", "time.sleep(600)")
    grace = 500 if insist else 0.2
    with cli.process("watch", inbox, "-x", run, "--grace", grace, "-j", 2, "-v") as process:
        for name in "ab":
            land(inbox / name)
        eventually(lambda: len(os.listdir(tmp_path / "pids")) == 2)
        process.send_signal(signal.SIGTERM)
        if insist:
            assert process.stderr is not None
            while b"waiting for 2 commands" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
        assert ends(process) == 143
    for pid in os.listdir(tmp_path / "pids"):
        assert not Path(f"/proc/{pid}").exists()
    # Neither done nor a dead letter.
    assert cli.json("dead") == []
    assert [one["key"] for one in cli.lines("poll", inbox)] == ["a", "b"]


def test_a_retry_does_not_hold_up_the_end(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    (inbox / "a").write_text("1")
    with cli.process("watch", inbox, "-x", "false", "--backoff", 250) as process:
        assert process.stderr is not None
        while b"again in 250 s" not in process.stderr.readline():
            pass
        assert ends(process, signal.SIGTERM) == 143
    assert cli.json("dead") == []
    assert [one["key"] for one in cli.lines("poll", inbox)] == ["a"]


def test_dead_letters_are_told_by_the_exit_code_of_watch(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-q")
    (inbox / "a").write_text("1")
    with cli.process("watch", inbox, "-x", "false", "--retries", 0) as process:
        eventually(lambda: cli.json("dead"))
        assert ends(process, signal.SIGTERM) == 5


def test_a_rewind_reaches_a_running_watch(cli: Cli, inbox: Path, tmp_path: Path, script) -> None:
    cli("poll", inbox, "-q")
    log = tmp_path / "log"
    run = script(_append(log, "os.environ['POLLER_KEY']"))
    with cli.process("watch", inbox, "-x", run, "--interval", 0.2) as process:
        land(inbox / "a")
        eventually(lambda: cli.offsets() == {"default": (1, 0)})
        cli("rewind", inbox, "--to", 1)
        eventually(lambda: _noted(log) == [b"a", b"a"])
        eventually(lambda: cli.offsets() == {"default": (1, 0)})
        assert ends(process, signal.SIGTERM) == 143


def test_a_state_that_is_locked_for_a_while_loses_nothing(
    cli: Cli, inbox: Path, tmp_path: Path, script
) -> None:
    """Nothing can be written to it for a while, as when its disk is full."""
    cli("poll", inbox, "-q")
    log = tmp_path / "log"
    run = script(_append(log, "os.environ['POLLER_KEY']"))
    with cli.process("watch", inbox, "-x", run, "-j", 2) as process:
        eventually(cli.watching)
        database = sqlite3.connect(cli.state, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        for name in "abc":
            land(inbox / name)
        time.sleep(1)
        database.execute("ROLLBACK")
        database.close()
        eventually(lambda: cli.offsets() == {"default": (3, 0)})
        assert ends(process, signal.SIGTERM) == 143
    assert sorted(_noted(log)) == [b"a", b"b", b"c"]
