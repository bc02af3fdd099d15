"""What goes wrong: one clear line on standard error, nothing on standard output, the right exit code."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.tools import Cli, ends


def _one_line(cli: Cli, *args: object, code: int) -> str:
    result = cli(*args, code=code)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("poller: ")
    return line


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("poll", ""), "/data/inbox"),
        (("poll", "file://host/x"), "three slashes"),
        (("poll", "gopher://h/x"), "file"),
        (("poll", "{inbox}", "--existing", "maybe"), "'ignore' or 'report'"),
        (("poll", "{inbox}", "--events", "renamed"), "created, modified, deleted"),
        (("poll", "{inbox}", "--consumer", ""), "printable"),
        (("poll", "{inbox}", "--settle", "nan"), "seconds"),
        (("poll", "{inbox}", "--include", " "), "*.csv"),
        (("poll", "{inbox}", "--exclude", os.fsdecode(b"caf\xe9")), "UTF-8"),
        (("watch", "{inbox}", "--interval", "0"), "above 0"),
        (("watch", "{inbox}", "--exec", ""), "cp {path}"),
        (("watch", "{inbox}", "--exec", "cat 'x"), "quotation"),
        (("watch", "{inbox}", "--exec", "cat {file}"), "{path}"),
        (("watch", "{inbox}", "--exec", "cat {}"), "{path}"),
        (("watch", "{inbox}", "--exec", "no-such-program {path}"), "no-such-program"),
        (("watch", "{inbox}", "--jobs", "2"), "--exec"),
        (("watch", "{inbox}", "--exec", "true", "--backoff", "-1"), "--backoff"),
        (("poll", "{inbox}", "--state", "mysql://user:hush@host/db"), "postgresql"),
    ],
)
def test_bad_input_is_2_and_says_what_is_right(cli: Cli, inbox: Path, args, says: str) -> None:
    line = _one_line(cli, *(arg.format(inbox=inbox) if arg == "{inbox}" else arg for arg in args), code=2)
    assert says in line
    assert "hush" not in line


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("events", "--after", "1", "--since", "2026-01-01"), "one of them"),
        (("events", "--since", "yesterday"), "2026-11-23"),
        (("events", "/not/watched"), "/not/watched"),
        (("events", "--consumer", "who"), "poller consumers"),
        (("rewind", "--to", "tomorrow"), "--to"),
        (("rewind", "--to", "77"), "77"),
        (("rewind", "--to", "1", "--consumer", "who"), "who"),
        (("status", "--target", "ffff"), "--target"),
        (("release", "nobody"), "poller claims"),
        (("dead", "--retry", "7"), "no dead letter 7"),
        (("dead", "--retry", "some"), "all"),
        (("dead", "--exec", "true"), "--retry"),
        (("forget", "/not/watched", "--yes"), "/not/watched"),
    ],
)
def test_what_is_not_in_the_state_is_2(cli: Cli, inbox: Path, args, says: str) -> None:
    cli("poll", inbox, "-q")
    assert says in _one_line(cli, *args, code=2)


def test_usage_is_2(cli: Cli) -> None:
    for args in (("poll",), ("nonsense",), ("poll", "/x", "--nonsense"), ("watch", "/x", "--jobs", "0")):
        result = cli(*args, code=2)
        assert result.stdout == ""
        assert "Usage" in result.stderr


@pytest.mark.parametrize("command", ["poll", "watch", "preview"])
def test_a_target_that_is_not_there_is_3(cli: Cli, tmp_path: Path, command: str) -> None:
    assert "is not there" in _one_line(cli, command, tmp_path / "nowhere", code=3)
    if command != "preview":
        assert cli.json("status")["targets"] == []


def test_a_target_that_is_gone_is_3_and_stays_in_the_state(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    inbox.rmdir()
    assert "is not there" in _one_line(cli, "poll", inbox, code=3)
    (target,) = cli.json("status")["targets"]
    assert "is not there" in target["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_target_that_may_not_be_listed_is_3() -> None:
    """As another user, since root may list everything. The program is loaded before that."""
    open_to_all = Path(tempfile.mkdtemp())
    try:
        open_to_all.chmod(0o777)
        closed = open_to_all / "closed"
        closed.mkdir(0o700)
        cli = Cli(str(open_to_all / "state.db"), open_to_all)
        cli("--version")
        process = os.fork()
        if not process:
            code = 99
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                line = _one_line(cli, "poll", closed, code=3)
                code = 0 if "permission" in line else 98
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    finally:
        shutil.rmtree(open_to_all)


@pytest.mark.parametrize("command", ["status", "events", "claims", "check", "dead", "forget"])
def test_no_state_is_4_and_none_is_made(cli: Cli, inbox: Path, command: str) -> None:
    args = (inbox, "--yes") if command == "forget" else ()
    assert "no state" in _one_line(cli, command, *args, code=4)
    assert not Path(cli.state).parent.exists()


@pytest.mark.parametrize("command", ["poll", "status", "preview", "check", "repair", "doctor"])
def test_a_state_that_can_not_be_reached_is_told_as_such(tmp_path: Path, inbox: Path, command: str) -> None:
    cli = Cli(str(tmp_path / ("x" * 300)), tmp_path)
    says = "can't be reached: File name too long. Give a shorter path"
    if command == "doctor":
        found = cli.json("doctor", code=1)
        assert any(one["level"] == "bad" and says in one["what"] for one in found)
    else:
        assert says in _one_line(cli, command, *([inbox] if command in ("poll", "preview") else []), code=4)


def test_a_damaged_state_is_4_and_stays_as_it_is(cli: Cli, inbox: Path) -> None:
    path = Path(cli.state)
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)
    for args in (("poll", inbox), ("watch", inbox), ("preview", inbox), ("status",), ("check",)):
        assert "damaged" in _one_line(cli, *args, code=4)
    assert path.read_bytes() == b"this is no database" * 100


def test_a_state_of_a_later_version_is_4(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    with closing(sqlite3.connect(cli.state)) as database:
        database.execute("UPDATE poller_meta SET value = '999' WHERE key = 'schema_version'")
        database.commit()
    assert "upgrade" in _one_line(cli, "poll", inbox, code=4)


def test_events_that_are_gone_are_4(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    for name in "ab":
        (inbox / name).write_text("1")
        cli("poll", inbox, "--consumer", "fast")
    with closing(sqlite3.connect(cli.state)) as database:
        database.execute("DELETE FROM poller_journal WHERE first_seq <= 1")
        database.execute("UPDATE poller_targets SET floor_seq = 1")
        database.commit()
    assert "rewind" in _one_line(cli, "poll", inbox, code=4)
    assert "1" in _one_line(cli, "events", "--after", 0, code=4)


def test_a_password_is_never_shown(cli: Cli, inbox: Path) -> None:
    for args in (
        ("poll", "swift://alice:hush-hush@host/v3?container"),
        ("preview", "swift://alice:hush-hush@host/v3?container"),
        ("poll", "swift:alice:hush-hush@host"),
        ("poll", inbox, "--state", "postgresql+psycopg://alice:hush-hush@127.0.0.1:1/db"),
        ("status", "--state", "postgresql+psycopg://alice:hush-hush@127.0.0.1:1/db"),
        ("doctor", "--state", "postgresql+psycopg://alice:hush-hush@127.0.0.1:1/db"),
    ):
        for more in ((), ("-vv",), ("--json",)):
            result = cli(*args, *more, code=None)
            assert result.exit_code != 0
            assert result.output
            assert "hush-hush" not in result.output
    assert "hush-hush" not in cli("poll", "--help").output


def test_very_verbose_shows_the_traceback(cli: Cli, tmp_path: Path) -> None:
    assert "Traceback" in cli("poll", tmp_path / "nowhere", "-vv", code=3).stderr
    assert "Traceback" not in cli("poll", tmp_path / "nowhere", "-v", code=3).stderr


def test_an_output_that_is_full_acknowledges_nothing(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    (inbox / "a").write_text("1")
    with open("/dev/full", "wb") as full, cli.process("poll", inbox, stdout=full) as process:
        _, errors = process.communicate()
        assert process.returncode == 1
        assert errors.decode().startswith("poller: standard output")
        assert b"Traceback" not in errors
    assert [one["key"] for one in cli.lines("poll", inbox)] == ["a"]


def test_a_reader_that_goes_away_is_no_noise(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    for number in range(3000):
        (inbox / f"{number:04}").touch()
    reading, writing = os.pipe()
    os.close(reading)
    with cli.process("poll", inbox, stdout=writing) as process:
        os.close(writing)
        assert ends(process) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert len(cli.lines("poll", inbox)) == 3000
