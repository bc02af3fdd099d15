"""What adapters to schedulers make of runs: names, what ends one for good, and what is told in a log."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller_core import (
    FilePoller,
    InvalidOption,
    InvalidUrl,
    NoPoller,
    OffsetTooOld,
    Options,
    PollerError,
    PollerRefused,
    StateNewer,
    TargetNotFound,
    UnknownScheme,
    Url,
    make_poller,
    poller,
    register_poller,
)
from poller_core.clock import Clock
from poller_core.hosts import FINAL, JOURNAL_ONLY, Progress, fitting, report, report_claim, telling
from poller_core.state import open_store
from tests.faultfs import FaultFileSystem
from tests.races.tools import put

log = logging.getLogger("host")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "host")
    return caplog


def lines(told: pytest.LogCaptureFixture) -> list[str]:
    return [f"{row.levelname} {row.getMessage()}" for row in told.records if row.name == "host"]


# -- runs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["load.wait", "a" * 250, "Ünïcode/ ", "load/manual__2026-01-01T00:00/wait[3]"]
)
def test_name_that_fits(name: str) -> None:
    assert fitting(name) == name


def test_name_that_does_not_fit() -> None:
    long = "a" * 251
    assert fitting(long) == fitting("a" * 251) == "a" * 233 + "~" + fitting(long)[-16:]
    assert re.fullmatch(r"a{233}~[0-9a-f]{16}", fitting(long))
    assert fitting("a\nb").startswith("a?b~")
    assert len({fitting(name) for name in ("a\nb", "a\tb", "a?b", "a\udc80b", "a\udc81b")}) == 5
    assert fitting("load.wait", 20) == "load.wait"
    assert re.fullmatch(r"a long n~[0-9a-f]{16}", fitting("a long name of a task for it", 25))


@given(st.text(min_size=1), st.integers(0, 300))
def test_state_takes_what_fits(text: str, more: int) -> None:
    """As a consumer's name; and two that differ behind the cut stay two."""
    name = text + "x" * more
    consumer = fitting(name if name.strip() else f"x{name}")
    assert Options.parse(given={"consumer": consumer}).consumer == consumer
    assert fitting(name + "1") != fitting(name + "2")


@pytest.mark.parametrize(
    ("url", "final"),
    [
        ("gopher://host/x", UnknownScheme),
        ("swift:x", InvalidUrl),
        ("refused://host", NoPoller),
        ("/dev/null/x", None),
        ("/not-there/at-all", None),
    ],
)
def test_what_ends_a_run(url: str, final: type[PollerError] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake; what is not there may come."""

    def refuses(url: Url, **options: object) -> FilePoller:
        raise PollerRefused("not on a Monday")

    monkeypatch.setattr(poller, "_registry", {name: list(made) for name, made in poller._registry.items()})
    register_poller("refused")(refuses)
    with pytest.raises(PollerError) as caught:
        make_poller(url)
    assert isinstance(caught.value, FINAL) == (final is not None)
    assert isinstance(caught.value, final or TargetNotFound)


class Fast(Clock):
    """An hour passes at each glance at it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        self.ahead += 3600
        return super().monotonic() + self.ahead


def test_what_ends_a_run_in_the_state(inbox: Path, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    keeps: dict[str, Any] = {"state": state, "clock": Fast(), "retention": 0, "retention_unread": 0}
    with FilePoller(inbox, consumer="slow", **keeps) as slow:
        with FilePoller(inbox, **keeps) as quick:
            for name in "abc":
                put(inbox / name)
                quick.get_new_events()
        with pytest.raises(FINAL) as caught:
            slow.get_new_events()
        assert isinstance(caught.value, OffsetTooOld)
    with pytest.raises(FINAL) as caught:
        make_poller(inbox, state=state, recurze=True)
    assert isinstance(caught.value, InvalidOption)
    with open_store(state) as store, store.database.transaction():
        store.database.run("UPDATE poller_meta SET value = '999' WHERE key = 'schema_version'")
    with pytest.raises(FINAL) as caught:
        make_poller(inbox, state=state)
    assert isinstance(caught.value, StateNewer)


def test_journal_only(inbox: Path, tmp_path: Path) -> None:
    with FilePoller(inbox, state=tmp_path / "state.db") as watched:
        put(inbox / "a")
        assert list(watched.claim("run", max_age=JOURNAL_ONLY)) == []
        assert len(watched.claim("run", max_age=0.0)) == 1
    assert math.isinf(JOURNAL_ONLY)


# -- what is told ------------------------------------------------------------


def test_report(inbox: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    for number in range(1200):
        (inbox / f"{number:04}").touch()
    with FilePoller(inbox, state=tmp_path / "state.db") as watched:
        report(log, watched)
        line, known = lines(told)
        assert known == (
            "INFO Nothing happened there yet: what was there at the first look counts as known. "
            "existing='report' gives it to a new consumer, "
            f"'poller rewind file://{inbox} --to beginning' to one that is there"
        )
        told.clear()
        put(inbox / "new")
        watched.get_new_events()
        report(log, watched)
        assert len(lines(told)) == 1
        assert re.fullmatch(
            rf"INFO Watched: file://{re.escape(str(inbox))}; entries: 1,200; last look: "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, which took \d+\.\d{3} s",
            line,
        )


def test_report_of_trouble(inbox: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    faults = FaultFileSystem()
    for name in "abcd":
        (inbox / name).mkdir()
    url = f"file://{inbox}"
    with FilePoller(inbox, recurse=True, state=tmp_path / "state.db", fs=faults) as watched:
        for name in "abcd":
            faults.fail("open_dir", name.encode(), errno.EACCES)
        watched.get_new_events()
        report(log, watched)
        assert [line.partition(": ")[0] for line in lines(told)] == ["INFO Watched", f"WARNING {url}"]
        assert lines(told)[1].startswith(f"WARNING {url}: 4 part(s) can't be listed: ")
        assert lines(told)[1].count(os.strerror(errno.EACCES)) == 3
        told.clear()
        inbox.rename(tmp_path / "elsewhere")
        with pytest.raises(PollerError):
            watched.get_new_events()
        report(log, watched)
        assert lines(told)[1].startswith(f"WARNING {url} can't be looked at: ")
        told.clear()
    report(log, watched)
    (line,) = lines(told)
    assert line.startswith("WARNING its state can't be told: ")


def test_report_of_a_claim(inbox: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    with FilePoller(inbox, state=tmp_path / "state.db") as watched:
        for number in range(21):
            put(inbox / f"{number:02}")
        few = watched.claim("run '1'", 2)
        report_claim(log, few.token, few)
        assert lines(told) == [
            "INFO Claimed 2 event(s) for \"run '1'\": seq 1 to 2",
            f"INFO   created file://{inbox}/00",
            f"INFO   created file://{inbox}/01",
        ]
        told.clear()
        put(inbox / "21")
        put(inbox / "22")
        watched.get_new_events()
        rest = watched.claim("run 2")
        report_claim(log, rest.token, list(rest))
        assert len(rest) == 21
        assert lines(told)[0] == "INFO Claimed 21 event(s) for 'run 2': seq 3 to 23"
        assert lines(told)[1:-1] == [f"INFO   created {event.subject}" for event in rest[:20]]
        assert lines(told)[-1] == "INFO   … and 1 more"
        told.clear()
        report_claim(log, rest.token, rest[:20])
        assert len(lines(told)) == 21


def test_progress(inbox: Path, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1200):
        (inbox / f"{number:04}").touch()
    FilePoller(inbox, progress=Progress(log, str(inbox))).close()
    assert lines(told) == []  # a look as short as that is not worth a line
    monkeypatch.setattr(telling, "_TELL_AFTER", 0.0)
    FilePoller(inbox, progress=Progress(log, str(inbox))).close()
    assert lines(told)[-1] == f"INFO {inbox}: first look, 1,200 entries so far"
    told.clear()
    tells = Progress(log, "x")
    monkeypatch.setattr(telling, "_TELL_AFTER", 3600.0)
    tells(1)
    tells(2)  # not before the next hour
    assert lines(told) == ["INFO x: first look, 1 entries so far"]
