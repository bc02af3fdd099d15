"""``poller preview``: what it tells, and that it changes nothing."""

from __future__ import annotations

import errno
import functools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from poller_core import FilePoller, PollerRefused, local
from poller_core.backends.filesystem import FileSystem
from poller_core.preview import preview
from tests.cli.tools import Cli

TABLES = ("meta", "targets", "pages", "journal", "consumers", "claims", "takes", "returned", "dead")


def _rows(cli: Cli) -> list[list[str]]:
    with closing(sqlite3.connect(cli.state)) as database:
        return [
            sorted(repr(row) for row in database.execute(f"SELECT * FROM poller_{table}")) for table in TABLES
        ]


def _subjects(parts: list[dict], inbox: Path) -> dict[str, str]:
    return {part["subject"].removeprefix(f"file://{inbox}/"): part["why"] for part in parts}


def test_a_new_target_is_not_made_and_neither_is_a_state(cli: Cli, inbox: Path) -> None:
    (inbox / "a").write_text("1")
    (inbox / "b.swp").write_text("1")
    found = cli.json("preview", inbox)
    assert (found["known"], found["baseline"], found["found"]) == (False, 1, [])
    assert not Path(cli.state).parent.exists()
    text = cli("preview", inbox, "--existing", "report").stdout
    assert f"created  {inbox}/a\n" in text
    assert "leftover" in text
    assert not Path(cli.state).parent.exists()
    other = inbox.with_name("other")
    other.mkdir()
    cli("poll", other)
    before = _rows(cli)
    assert len(cli.json("preview", inbox, "--existing", "report")["found"]) == 1
    assert _rows(cli) == before


@pytest.mark.parametrize("scan", [False, True])
def test_it_tells_what_poll_would_and_changes_nothing(cli: Cli, inbox: Path, scan: bool) -> None:
    for name in ("gone", "written", "same"):
        (inbox / name).write_text("1")
    cli("poll", inbox, "-r")
    (inbox / "waits").write_text("1")
    cli("poll", inbox, "-r", "--consumer", "other")
    (inbox / "gone").unlink()
    (inbox / "written").write_text("22")
    (inbox / "sub").mkdir()
    (inbox / "sub" / "new").write_text("1")
    before = _rows(cli)
    arguments = ("-r", "--scan") if scan else ("-r",)
    found = cli.json("preview", inbox, *arguments)
    assert _rows(cli) == before
    told = [(one["event"], one["key"]) for one in found["waiting"] + found["found"]]
    assert told == [
        ("created", "waits"),
        ("deleted", "gone"),
        ("created", "sub/new"),
        ("modified", "written"),
    ]
    # Again, since nothing was acknowledged.
    assert cli.json("preview", inbox, *arguments)["waiting"] == found["waiting"]
    polled = cli.lines("poll", inbox, *arguments)
    assert [(one["event"], one["key"]) for one in polled] == told
    assert found["waiting"][0]["id"] == polled[0]["id"]


def test_a_consumer_that_is_not_there_is_not_made(cli: Cli, inbox: Path) -> None:
    (inbox / "a").write_text("1")
    cli("poll", inbox)
    before = _rows(cli)
    found = cli.json("preview", inbox, "--consumer", "new", "--existing", "report")
    assert [one["key"] for one in found["found"]] == ["a"]
    assert _rows(cli) == before


def test_it_tells_what_filters_drop_and_why(cli: Cli, inbox: Path) -> None:
    excludes = ("--exclude", "tmp/", "--exclude", "*.log")
    cli("poll", inbox, "-r", *excludes)
    for name in ("a.csv", "b.txt", "c.part", "d.log", "tmp/deep/e.csv", ".rsync-partial/f"):
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_text("1")
    found = cli.json(
        "preview",
        inbox,
        "-r",
        "--exclude",
        "tmp/",
        "--exclude",
        "*.log",
        "--include",
        "*.csv",
        "--events",
        "created",
    )
    assert [one["key"] for one in found["found"]] == ["a.csv"]
    dropped = _subjects(found["dropped"], inbox)
    assert set(dropped) == {"c.part", "d.log", "tmp/", ".rsync-partial/"}
    assert dropped["d.log"] == "exclude '*.log'"
    assert dropped["tmp/"] == "exclude 'tmp/'"
    assert "default_exclude" in dropped["c.part"]
    assert "default_exclude" in dropped[".rsync-partial/"]
    unwanted = _subjects(found["unwanted"], inbox)
    assert list(unwanted) == ["b.txt"]
    assert "*.csv" in unwanted["b.txt"]


def test_it_tells_what_is_held(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    with open(inbox / "open", "w") as file:
        file.write("not yet")
        file.flush()
        found = cli.json("preview", inbox)
    assert found["found"] == []
    assert "writing" in _subjects(found["held"], inbox)["open"]
    cli("poll", inbox, "--settle", "3600")
    (inbox / "new").write_text("1")
    found = cli.json("preview", inbox, "--settle", "3600")
    assert "quiet" in _subjects(found["held"], inbox)["new"]


def test_a_state_within_the_target_is_left_out(inbox: Path, tmp_path: Path) -> None:
    cli = Cli(str(inbox / "state.db"), tmp_path)
    cli("poll", inbox)
    (inbox / "a").write_text("1")
    found = cli.json("preview", inbox)
    assert [one["key"] for one in found["found"]] == ["a"]
    assert _subjects(found["dropped"], inbox)["state.db"] == "the poller's own state"


def test_it_tells_what_can_not_be_listed(inbox: Path, tmp_path: Path) -> None:
    """The file system layer refuses, since root may list everything."""
    (inbox / "closed").mkdir()
    (inbox / "closed" / "a").write_text("1")

    class Refusing(FileSystem):
        def open_dir(self, name: bytes, dir_fd: int | None, follow: bool) -> int:
            if name == b"closed":
                raise PermissionError(errno.EACCES, "Permission denied")
            return super().open_dir(name, dir_fd, follow)

    make = functools.partial(FilePoller, fs=Refusing())
    found = preview(inbox, make=make, state=tmp_path / "state.db", recurse=True, existing="report")
    assert found.found == []
    assert ["closed" in reason for reason in found.gaps] == [True]


def test_much_is_cut_short_for_people(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    for number in range(30):
        (inbox / f"{number}").touch()
    text = cli("preview", inbox, "--limit", 5).stdout
    assert "Would be reported: 30" in text
    assert text.count("created ") == 5
    assert "25 more" in text
    assert len(cli.json("preview", inbox, "--limit", 5)["found"]) == 30


def test_a_poller_that_refuses_leaves_the_copy_to_the_next(
    cli: Cli, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal, of a file system that does not tell of changes, is made up."""
    (inbox / "a").write_text("1")
    cli("poll", inbox)
    (inbox / "b").write_text("1")

    def refuse(*args: object) -> None:
        raise PollerRefused("no such file system")

    monkeypatch.setattr(local, "_must_deliver", refuse)
    assert [one["key"] for one in cli.json("preview", inbox)["found"]] == ["b"]
