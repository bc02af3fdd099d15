"""What the command shows of handlers, and does with what their runs have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poller_core import Event, EventTaken, Journal, make_poller, open_journal
from tests.cli.tools import Cli


@pytest.fixture
def events(cli: Cli, inbox: Path) -> list[Event]:
    """Three events, which the consumer "load" has read."""
    with make_poller(inbox, state=cli.state, consumer="load") as poller:
        for name in ("a", "b", "c"):
            (inbox / name).write_text("1")
        return poller.get_new_events()


@pytest.fixture
def journal(cli: Cli, events: list[Event]) -> Iterator[Journal]:
    with open_journal(cli.state) as opened:
        yield opened


def test_claims_shows_them_and_status_does_not(cli: Cli, journal: Journal, events: list[Event]) -> None:
    journal.take(events[1].id, "run-1", "deployment")
    (row,) = cli.json("claims")
    assert (row["kind"], row["consumer"], row["token"]) == ("handler", "deployment", "run-1")
    assert (row["ranges"], row["count"]) == ([[2, 2]], 1)
    text = cli("claims").stdout
    assert "handler" in text
    assert "deployment" in text
    assert "\\n" not in text
    assert list(cli.offsets()) == ["load"]
    assert cli.json("consumers")[0]["claims"] == 0
    assert cli.json("check") == []
    assert cli.json("claims", "--handler", "deployment") == [row]
    assert cli.json("claims", "--consumer", "deployment") == []
    assert "one of them" in cli("claims", "--handler", "a", "--consumer", "a", code=2).stderr


def test_release(cli: Cli, journal: Journal, events: list[Event]) -> None:
    journal.take(events[1].id, "run-1", "deployment")
    with pytest.raises(EventTaken):
        journal.take(events[1].id, "run-2", "deployment")
    assert "given back to handler 'deployment'" in cli("release", "run-1").stdout
    assert journal.take(events[1].id, "run-2", "deployment") == events[1]
    assert cli.json("release", "run-2") == {"released": 1, "handler": "deployment", "token": "run-2"}
    assert "run-2" in cli("release", "run-2", code=2).stderr


def test_release_of_one_of_two(cli: Cli, inbox: Path, journal: Journal, events: list[Event]) -> None:
    (inbox / "d").write_text("1")
    with make_poller(inbox, state=cli.state, consumer="load") as poller:
        assert len(poller.claim("run")) == 1
    journal.take(events[0].id, "run", "load")
    assert cli.json("consumers")[0]["claims"] == 1
    refused = cli("release", "run", code=2).stderr
    assert "consumer 'load'" in refused
    assert "handler 'load'" in refused
    assert "--handler" in refused
    assert cli.json("release", "run", "--handler", "load")["released"] == 1
    assert cli.json("release", "run")["consumer"] == "load"
    assert [one["key"] for one in cli.lines("poll", inbox, "--consumer", "load")] == ["d"]


def test_forget(cli: Cli, inbox: Path, journal: Journal, events: list[Event]) -> None:
    journal.take(events[0].id, "run", "load")
    assert "--yes" in cli("forget", inbox, "--handler", "load", code=2).stderr
    assert "no handler" in cli("forget", inbox, "--handler", "nobody", "--yes", code=2).stderr
    assert "one of them" in cli("forget", inbox, "--handler", "a", "--consumer", "a", "--yes", code=2).stderr
    assert cli.json("forget", inbox, "--handler", "load", "--yes")["handler"] == "load"
    assert journal.claims() == []
    assert list(cli.offsets()) == ["load"]
    journal.take(events[0].id, "run", "load")
    cli("forget", inbox, "--consumer", "load", "--yes")
    assert [row.kind for row in journal.claims()] == ["handler"]
    assert cli.json("check") == []
