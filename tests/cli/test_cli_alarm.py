"""``poller status --check``: an alarm for each thing that can be wrong, and none where nothing is."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from poller_core import FilePoller
from poller_core.state import open_store
from tests.cli.tools import Cli
from tests.faultfs import FaultFileSystem


def alarms(cli: Cli, *args: object, code: int = 1) -> list[str]:
    return cli("status", *args, "--check", code=code).stderr.splitlines()


def test_all_is_well(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    assert alarms(cli, "--max-age", 60, "--max-lag", 0, code=0) == []


def test_nothing_is_asked_unless_it_is(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    inbox.rmdir()
    cli("poll", inbox, code=3)
    result = cli("status")
    assert result.stderr == ""
    assert "is not there" in result.stdout


def test_a_target_that_is_away(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    inbox.rmdir()
    cli("poll", inbox, code=3)
    (line,) = alarms(cli)
    assert line.startswith(f"poller: file://{inbox}: {inbox} is not there")
    # Data stays what it is, and the alarm is beside it.
    assert cli.json("status", "--check", code=1)["targets"][0]["error"]
    inbox.mkdir()
    cli("poll", inbox)
    assert alarms(cli, code=0) == []


def test_a_part_that_can_not_be_listed(cli: Cli, inbox: Path) -> None:
    (inbox / "shut").mkdir()
    fs = FaultFileSystem()
    fs.fail("open_dir", b"shut", errno.EACCES)
    with FilePoller(inbox, recurse=True, state=cli.state, fs=fs) as poller:
        poller.get_new_events()
    (line,) = alarms(cli)
    assert "1 part(s) can't be listed: Permission denied" in line
    assert "shut" in line


def test_a_look_that_is_too_old(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    time.sleep(0.02)
    (line,) = cli("status", "--max-age", 0.01, code=1).stderr.splitlines()
    assert "the last look was at" in line


def test_a_consumer_that_is_behind(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox, "--consumer", "slow")
    for name in "ab":
        (inbox / name).touch()
    cli("poll", inbox)
    (line,) = cli("status", "--max-lag", 1, code=1).stderr.splitlines()
    assert line == f"poller: file://{inbox}: consumer 'slow' is 2 events behind"
    assert cli("status", "--max-lag", 2).stderr == ""
    with open_store(cli.state) as store:
        (target,) = store.targets()
        store.prune(target.id, time.time() + 10, 0, 0)
    (line,) = alarms(cli)
    assert line.endswith("consumer 'slow' has read up to 0, and the journal begins at 3")
    assert "pruned" in cli("poll", inbox, "--consumer", "slow", code=4).stderr


def test_a_first_look_that_is_not_done(cli: Cli, inbox: Path) -> None:
    with open_store(cli.state) as store:
        store.target("0" * 32, f"file://{inbox}", "{}")
    (line,) = alarms(cli)
    assert line.endswith("the first look is not done")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_an_age_that_can_not_be(cli: Cli, inbox: Path, value: str) -> None:
    cli("poll", inbox)
    assert "--max-age" in cli("status", f"--max-age={value}", code=2).stderr
