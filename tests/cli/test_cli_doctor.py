"""``poller doctor``: on this very machine; limits that a test can't lower are made up."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from poller_core.cli import doctor, machine
from tests.cli.tools import Cli


def _levels(findings: list[dict]) -> dict[str, set[str]]:
    levels: dict[str, set[str]] = {}
    for finding in findings:
        levels.setdefault(finding["about"], set()).add(finding["level"])
    return levels


def test_it_looks_and_changes_nothing(cli: Cli, inbox: Path) -> None:
    (inbox / "sub").mkdir()
    before = (inbox.stat().st_mtime_ns, sorted(os.listdir(inbox)))
    found = cli("doctor", inbox, "-r", code=None)
    assert found.exit_code in (0, 1)
    assert f"file://{inbox}" in found.stdout
    assert "all of 2 directories" in found.stdout
    assert (inbox.stat().st_mtime_ns, sorted(os.listdir(inbox))) == before
    assert not Path(cli.state).parent.exists()


def test_json_has_every_finding(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    result = cli("doctor", inbox, "--json", code=None)
    findings = json.loads(result.stdout)
    levels = _levels(findings)
    assert {"poller", "packages", "open files", "state", f"file://{inbox}"} <= set(levels)
    low = any(finding["level"] in ("low", "bad") for finding in findings)
    assert result.exit_code == (1 if low else 0)
    assert all(finding["advice"] for finding in findings if finding["level"] in ("low", "bad"))


def test_what_is_missing_is_bad(cli: Cli, tmp_path: Path) -> None:
    found = cli.json("doctor", tmp_path / "not there", code=1)
    (finding,) = [one for one in found if one["about"].endswith("not%20there")]
    assert finding["level"] == "bad"
    assert finding["advice"] == f"mkdir -p '{tmp_path}/not there'"
    assert "file" in cli("doctor", "gopher://host/x", code=2).stderr


def test_what_was_meant_is_told(cli: Cli, inbox: Path) -> None:
    (inbox / "one.csv").touch()
    for given, advice in (
        (f"{inbox}x", f"did you mean {inbox}?"),
        (inbox / "*.csv", f"a pattern is no part of the path: watch {inbox} with include=['*.csv']"),
    ):
        (finding,) = [one for one in cli.json("doctor", given, code=1) if one["about"].startswith("file:")]
        assert finding["advice"] == advice
    single = json.loads(cli("doctor", inbox / "one.csv", "--json", code=None).stdout)
    assert [one["what"] for one in single if "single" in one["what"]] == [
        "it is a single file: what lies beside it is not watched"
    ]


def test_a_state_that_others_can_read_is_low(cli: Cli, inbox: Path) -> None:
    cli("poll", inbox)
    assert stat.S_IMODE(os.stat(cli.state).st_mode) == 0o600
    os.chmod(cli.state, 0o644)
    found = cli.json("doctor", code=1)
    assert any(one["about"] == "state" and one["advice"] == f"chmod 600 {cli.state}" for one in found)


def test_a_damaged_state_is_bad(cli: Cli) -> None:
    Path(cli.state).parent.mkdir()
    Path(cli.state).write_bytes(b"nothing of the kind" * 100)
    Path(cli.state).chmod(0o600)
    assert any(one["about"] == "state" and one["level"] == "bad" for one in cli.json("doctor", code=1))


def test_low_limits_come_with_the_command_that_raises_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits are made up: a test must not lower the machine's."""
    numbers = {"max_user_instances": 10, "max_user_watches": 4096, "max_queued_events": 100}
    monkeypatch.setattr(doctor, "read_number", lambda path: numbers[path.rpartition("/")[2]])
    monkeypatch.setattr(doctor, "inotify_use", lambda: machine.InotifyUse(9, 100, True))
    found = {one.about: one for one in doctor._inotify()}
    assert {one.level for one in found.values()} == {"low"}
    assert "sysctl fs.inotify.max_user_instances=512" in found["inotify instances"].advice
    assert "fs.inotify.max_user_watches=524288" in found["inotify watches"].advice
    assert "/etc/sysctl.d/" in found["inotify queue"].advice


def test_instances_and_watches_in_use_are_counted(inbox: Path) -> None:
    inotify_simple = pytest.importorskip("inotify_simple")
    before = machine.inotify_use()
    with inotify_simple.INotify() as watch:
        for name in ("a", "b", "c"):
            (inbox / name).mkdir()
            watch.add_watch(inbox / name, 2)
        # Other tests may run at the same time; this process's own can be told apart.
        mine = [
            fd
            for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"
        ]
        found = machine.inotify_use()
    assert mine
    assert found.instances >= 1
    assert found.watches >= 3
    assert isinstance(before.complete, bool)


def test_timestamps_are_measured_without_a_name(inbox: Path) -> None:
    before = inbox.stat().st_mtime_ns
    step = machine.granularity(str(inbox))
    assert step is None or 0 < step <= 3
    assert inbox.stat().st_mtime_ns == before
    assert machine.granularity(str(inbox / "missing")) is None


def test_the_walk_is_bounded(inbox: Path) -> None:
    for number in range(20):
        (inbox / f"{number}").mkdir()
    whole = machine.walked(str(inbox), True)
    assert (whole.directories, whole.count, whole.complete) == (21, 0, True)
    cut = machine.walked(str(inbox), True, most=5)
    assert (cut.directories, cut.complete) == (5, False)
    assert machine.walked(str(inbox), False).directories == 1
    assert machine.walked(str(inbox), True, lambda prefix: prefix != b"7/").directories == 20
