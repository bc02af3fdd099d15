"""Each command on a real directory and a real state, and what machines read of it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from poller_core import Event, make_poller
from tests.cli.tools import Cli


def test_poll_gives_each_event_once(cli: Cli, inbox: Path) -> None:
    (inbox / "old").write_text("known")
    first = cli("poll", inbox)
    assert first.stdout == ""
    assert "first look" in first.stderr
    (inbox / "a b").write_text("1")
    assert cli("poll", inbox).stdout == f"created  {inbox}/a b\n"
    again = cli("poll", inbox)
    assert (again.stdout, again.stderr) == ("", "")
    (inbox / "old").unlink()
    (inbox / "a b").write_text("22")
    assert cli("poll", inbox).stdout == f"modified {inbox}/a b\ndeleted  {inbox}/old\n"


def test_poll_as_json_gives_whole_events(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    (inbox / "a").write_text("123")
    (found,) = cli.lines("poll", inbox)
    event = Event.from_dict(found)
    assert (event.event, event.key, event.size, event.seq) == ("created", b"a", 3, 1)
    assert os.fspath(event.subject) == str(inbox / "a")  # type: ignore[arg-type]


def test_names_of_any_bytes_print(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    names = [b"caf\xe9", b"new\nline", b"\x1b[31mred", "é".encode(), b"-rf", b"tab\t"]
    for name in names:
        (inbox / os.fsdecode(name)).write_bytes(b"x")
    result = cli("poll", inbox, "--consumer", "people", "--existing", "report")
    lines = result.stdout.splitlines()
    assert len(lines) == len(names)
    assert "\x1b" not in result.stdout
    assert any(line.endswith("caf\\xe9") for line in lines)
    assert any(line.endswith("new\\nline") for line in lines)
    events = [Event.from_dict(one) for one in cli.lines("poll", inbox)]
    assert sorted(event.key for event in events) == sorted(names)
    assert {bytes(event.subject) for event in events} == {  # type: ignore[arg-type]
        os.fsencode(inbox) + b"/" + name for name in names
    }


def test_filters_and_kinds_choose_what_a_consumer_gets(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "--include", "*.csv", "--events", "created,deleted")
    for name in ("a.csv", "b.txt", "c.part"):
        (inbox / name).write_text("1")
    reading = ("--include", "*.csv", "--events", "created,deleted")
    assert [one["key"] for one in cli.lines("poll", inbox, *reading)] == ["a.csv"]
    (inbox / "a.csv").write_text("22")
    assert cli.lines("poll", inbox, *reading) == []
    (inbox / "a.csv").unlink()
    assert [one["event"] for one in cli.lines("poll", inbox, *reading)] == ["deleted"]


def test_a_fingerprint_without_what_a_file_system_makes_up(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    cli("poll", inbox, "--fingerprint", "size,mtime")
    (inbox / "a").write_text("1")
    assert cli("poll", inbox, "--fingerprint", "mtime size").stdout == f"created  {inbox}/a\n"
    cli("poll", inbox)
    # Another inode and ctime, the same size and date.
    (inbox / "b").write_text("1")
    os.utime(inbox / "b", ns=(1, (inbox / "a").stat().st_mtime_ns))
    (inbox / "b").rename(inbox / "a")
    assert cli("poll", inbox, "--fingerprint", "size,mtime").stdout == ""
    assert cli("poll", inbox).stdout == f"modified {inbox}/a\n"
    (status,) = cli.json("status", inbox, "--fingerprint", "size,mtime")["targets"]
    assert status["options"] == {"fingerprint": ["size", "mtime"]}
    assert "expected some of" in cli("poll", inbox, "--fingerprint", "colour", code=2).stderr
    assert "expected some of" in cli("poll", inbox, "--fingerprint", "", code=2).stderr


def test_status_tells_of_targets_and_consumers(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-r")
    (inbox / "a").write_text("1")
    cli("poll", inbox, "-r", "--consumer", "other")
    status = cli.json("status")
    (target,) = status["targets"]
    assert target["url"] == f"file://{inbox}"
    assert target["options"] == {"recurse": True}
    assert (target["complete"], target["entries"], target["last_seq"]) == (True, 1, 1)
    assert {one["name"]: one["lag"] for one in target["consumers"]} == {"default": 1, "other": 0}
    text = cli("status", inbox).stdout
    assert f"file://{inbox}" in text
    assert "default: read up to 0, 1 behind" in text
    (row_a, row_b) = cli.json("consumers", inbox)
    assert (row_a["consumer"], row_a["lag"], row_b["consumer"]) == ("default", 1, "other")


def test_several_targets_of_one_url_are_told_apart(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "-r")
    second = cli("poll", inbox, "--settle", "0.5")
    assert "other options" in second.stderr
    refused = cli("consumers", inbox, code=2)
    assert "--target" in refused.stderr
    assert "recurse=True" in refused.stderr
    assert [one["consumer"] for one in cli.json("consumers", inbox, "-r")] == ["default"]
    digests = [target["target"] for target in cli.json("status")["targets"]]
    assert len(set(digests)) == 2
    assert cli.json("consumers", "--target", digests[0][:10])
    assert "with these options" in cli("consumers", inbox, "--metadata", code=2).stderr
    # Exactly the default options, once they are among those: as for the command that watches.
    cli("poll", inbox)
    assert cli.json("consumers", inbox)


def test_events_reads_the_journal_and_moves_nobody(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    for number in range(5):
        (inbox / f"f{number}").write_text("1")
    assert len(cli.lines("poll", inbox)) == 5
    before = cli.offsets()
    assert [one["seq"] for one in cli.lines("events", inbox)] == [1, 2, 3, 4, 5]
    assert [one["seq"] for one in cli.lines("events", "--after", 2, "--limit", 2)] == [3, 4]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert cli.lines("events", "--since", later) == []
    assert len(cli.lines("events", "--since", earlier)) == 5
    assert cli("events", inbox).stdout.count("created ") == 5
    assert cli.offsets() == before


def test_events_of_a_single_file_have_its_own_path(cli: Cli, inbox: Path) -> None:
    file = inbox / "one.csv"
    file.write_text("1")
    cli("poll", file)
    file.write_text("22")
    (polled,) = cli.lines("poll", file)
    (read,) = cli.lines("events", file)
    assert read == polled
    assert read["subject"] == f"file://{file}"


def test_rewind_gives_events_again(cli: Cli, inbox: Path) -> None:
    (inbox / "old").write_text("1")
    cli("poll", inbox)
    for name in ("a", "b", "c"):
        (inbox / name).write_text("1")
    first = cli.lines("poll", inbox)
    cli("rewind", inbox, "--to", 2)
    assert cli.lines("poll", inbox) == first[1:]
    cli("rewind", inbox, "--to", (datetime.now(UTC) - timedelta(hours=1)).isoformat())
    assert cli.lines("poll", inbox) == first
    cli("rewind", inbox, "--to", "beginning")
    beginning = cli.lines("poll", inbox)
    assert [(one["event"], one["key"]) for one in beginning] == [
        ("created", key) for key in ("a", "b", "c", "old")
    ]
    (inbox / "d").write_text("1")
    assert cli.json("rewind", inbox, "--to", "now")["waiting"] == 0
    assert cli.lines("poll", inbox) == []


def test_claims_are_listed_and_released(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    for name in ("a", "b"):
        (inbox / name).write_text("1")
    with make_poller(inbox, state=cli.state) as poller:
        assert len(poller.claim("run-1")) == 2
    (claim,) = cli.json("claims")
    assert (claim["token"], claim["ranges"], claim["count"]) == ("run-1", [[1, 2]], 2)
    assert "run-1" in cli("claims").stdout
    assert cli.lines("poll", inbox) == []
    assert "run-2" in cli("release", "run-2", code=2).stderr
    assert cli.json("release", "run-1")["released"] == 2
    assert [one["key"] for one in cli.lines("poll", inbox)] == ["a", "b"]


def test_check_finds_damage_and_repair_mends_it(cli: Cli, inbox: Path) -> None:
    (inbox / "a").write_text("1")
    cli("poll", inbox)
    assert cli.json("check") == []
    assert "well" in cli("check").stdout
    with closing(sqlite3.connect(cli.state)) as database:
        database.execute("UPDATE poller_pages SET blob = x'00'")
        database.commit()
    (finding, *_) = cli.json("check", code=1)
    assert finding["severity"] == "error"
    assert "poller repair" in cli("check", code=1).stdout
    (mended, *_) = cli.json("repair")
    assert "created again" in mended["cost"]
    assert cli.json("check") == []
    assert cli.json("repair") == []


def test_accept_root_lets_a_target_move(cli: Cli, inbox: Path) -> None:
    """The other file system is made up in the state: a test can't always mount one."""
    (inbox / "a").write_text("1")
    cli("poll", inbox)
    with closing(sqlite3.connect(cli.state)) as database:
        (text,) = database.execute("SELECT identity FROM poller_targets").fetchone()
        moved = json.loads(text) | {"dev": 1 << 20, "fsid": 1, "fstype": "nfs4", "source": "host:/gone"}
        database.execute("UPDATE poller_targets SET identity = ?", (json.dumps(moved),))
        database.commit()
    refused = cli("poll", inbox, code=3)
    assert "--accept-root" in refused.stderr
    assert refused.stderr.count("another file system") == 1
    assert refused.stdout == ""
    cli("repair", inbox, "--accept-root")
    assert cli.lines("poll", inbox) == []
    cli("repair", inbox, code=2)


def test_forget_asks_and_deletes(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    cli("poll", inbox, "--consumer", "other")
    assert "--yes" in cli("forget", inbox, code=2).stderr
    assert "--target" in cli("forget", "--yes", code=2).stderr
    cli("forget", inbox, "--consumer", "other", "--yes")
    assert list(cli.offsets()) == ["default"]
    cli("forget", inbox, "--yes")
    assert cli.json("status")["targets"] == []


def test_postgresql_works_the_same(state_url: str, inbox: Path, tmp_path: Path) -> None:
    cli = Cli(state_url, tmp_path)
    cli("poll", inbox)
    (inbox / "a").write_text("1")
    found = cli.json("preview", inbox)["found"]
    assert [one["key"] for one in found] == ["a"]
    assert cli("poll", inbox, "--exec", "true").exit_code == 0
    assert cli.offsets() == {"default": (1, 0)}
    assert cli.json("check") == []
    assert [one["key"] for one in cli.lines("events")] == ["a"]


@pytest.mark.parametrize(
    "command",
    [
        "watch",
        "poll",
        "preview",
        "status",
        "events",
        "consumers",
        "rewind",
        "claims",
        "release",
        "dead",
        "check",
        "repair",
        "copy",
        "forget",
        "doctor",
    ],
)
def test_help_has_an_example(cli: Cli, command: str) -> None:
    text = cli(command, "--help").stdout
    assert f"    poller {command}" in text
    assert "Exit codes" in text


def test_help_says_what_the_exit_codes_mean(cli: Cli) -> None:
    text = " ".join(cli("--help").stdout.split())
    for part in ("2 wrong usage", "3 the target", "4 the state", "5 some events", "130 interrupted"):
        assert part in text
    assert cli("--version").stdout.startswith("poller ")
