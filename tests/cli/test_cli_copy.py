"""``poller copy``: what is known goes into another state; nothing comes twice, nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller_core import make_poller
from tests.cli.tools import Cli


@pytest.fixture
def used(cli: Cli, inbox: Path) -> Cli:
    """A state in which everything has been used."""
    for number in range(6):
        (inbox / f"f{number}").write_text("1")
    with make_poller(inbox, state=cli.state, consumer="loader", existing="report") as poller:
        assert len(poller.next_batch(2)) == 2
        poller.claim("run-1", limit=2)
        poller.take(poller.next_batch()[2].id, "run-2")
    cli("poll", inbox, "--exec", "false", "--retries", 0, "--existing", "report", code=5)
    return cli


def test_goes_on_where_it_was(used: Cli, inbox: Path, state_url: str, tmp_path: Path) -> None:
    there = Cli(state_url, tmp_path)
    said = used("copy", "--to", state_url).stdout
    assert said == f"copied file://{inbox}: 6 entries, events up to 12, 2 consumers\n"
    for command in ("status", "consumers", "claims", "dead"):
        mine, its = used.json(command), there.json(command)
        assert (mine["targets"] if command == "status" else mine) == (
            its["targets"] if command == "status" else its
        )
    assert used.lines("events") == there.lines("events")
    assert there.json("check") == []
    (inbox / "new").write_text("1")
    with make_poller(inbox, state=used.state, consumer="loader") as poller:
        before = [event.id for event in poller.claim("run-1")]
    with make_poller(inbox, state=state_url, consumer="loader") as poller:
        assert [event.id for event in poller.claim("run-1")] == before
        assert [event.key for event in poller.next_batch()] == [b"f2", b"f3", b"f5", b"new"]


def test_only_what_is_named(used: Cli, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    used("poll", tmp_path / "more")
    there = Cli(str(tmp_path / "there.db"), tmp_path)
    (digest,) = used.json("copy", inbox, "--to", there.state)["targets"]
    assert [one["target"] for one in there.json("status")["targets"]] == [digest]
    assert [one["url"] for one in there.json("status")["targets"]] == [f"file://{inbox}"]


def test_what_is_there_is_not_written_over(used: Cli, inbox: Path, tmp_path: Path) -> None:
    there = Cli(str(tmp_path / "there.db"), tmp_path)
    there("poll", inbox, "--consumer", "mine")
    told = used("copy", "--to", there.state, code=2).stderr
    assert f"file://{inbox}" in told
    assert "already" in told
    assert list(there.offsets()) == ["mine"]
    assert "already" in used("copy", "--to", used.state, code=2).stderr


def test_to_nowhere(used: Cli) -> None:
    assert "ends with the process" in used("copy", "--to", ":memory:", code=2).stderr
    assert "not understood" in used("copy", "--to", "mysql://root:hush@localhost/x", code=2).stderr
