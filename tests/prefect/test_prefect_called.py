"""``poll_flow`` called as a function: what it returns, and what it tells Prefect."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import prefect
import pytest
from poller_prefect import Polled, poll_flow
from prefect import flow, tags
from prefect.client.schemas.objects import State, StateType

from poller_core import Event, TargetNotFound, Url
from tests.prefect.steps import artifacts, feed, journal_event, key_of, polled, put, run_of, said
from tests.services.prefect_host import PrefectHost


def test_what_happened_is_told(api: PrefectHost, inbox: Path) -> None:
    """Baseline, then one of each; in the result, the state, the log, the feed and the artifact."""
    put(inbox / "old.csv", 10)
    put(inbox / "gone.tar.gz")
    first = polled(inbox)
    assert said(first) == ("Completed", "nothing new")
    assert first.result() == Polled(f"file://{inbox}", entries=2)
    assert (feed(api, inbox), artifacts(api, first)) == ([], [])

    put(inbox / "new", 3)
    put(inbox / "old.csv", 12)
    (inbox / "gone.tar.gz").unlink()
    before = datetime.now(UTC)
    with tags("nightly"):
        state = polled(inbox)
    assert said(state) == ("Completed: 1 new, 1 modified, 1 deleted", "1 new, 1 modified, 1 deleted")
    result = state.result()
    assert (result.created, result.modified, result.deleted, result.new) == (1, 1, 1, 3)
    assert (result.runs, result.failed, result.gaps, result.lag, result.entries) == (0, 0, 0, 0, 2)
    assert {(row["event"], row["subject"], row["size"]) for row in result.events} == {
        ("created", f"file://{inbox}/new", 3),
        ("modified", f"file://{inbox}/old.csv", 12),
        ("deleted", f"file://{inbox}/gone.tar.gz", 1),
    }

    events = feed(api, inbox)
    assert {event["event"] for event in events} == {
        "poller.subject.created",
        "poller.subject.modified",
        "poller.subject.deleted",
    }
    run = run_of(api, state)
    for event in events:
        ours = journal_event(api, event["payload"]["id"])
        assert event["id"] == key_of(ours.id)
        assert event["event"] == f"poller.subject.{ours.event}"
        assert Event.from_dict(event["payload"]) == ours
        name = ours.key.decode()
        assert event["payload"]["path"] == str(inbox / name)
        assert event["payload"]["target"] == f"file://{inbox}"
        assert (event["payload"]["etag"], event["payload"]["container"]) == (None, None)
        suffix = {"new": {}, "old.csv": {"suffix": ".csv"}, "gone.tar.gz": {"suffix": ".gz"}}[name]
        assert event["resource"] == {
            "prefect.resource.id": f"poller.subject.file://{inbox}/{name}",
            "prefect.resource.name": name,
            "url": f"file://{inbox}/{name}",
            "target": f"file://{inbox}",
            "key": name,
            "path": str(inbox / name),
            **suffix,
        }
        occurred = datetime.fromisoformat(event["occurred"])
        assert occurred == ours.detected_at
        assert before - timedelta(seconds=1) < occurred < datetime.now(UTC)
        roles = {
            one["prefect.resource.role"]: (one["prefect.resource.id"], one.get("prefect.resource.name"))
            for one in event["related"]
        }
        assert roles["target"][0] == f"poller.target.file://{inbox}"
        assert roles["flow-run"] == (f"prefect.flow-run.{run['id']}", run["name"])
        assert roles["tag"][0] == "prefect.tag.nightly"

    api.until("the log to be there", lambda: "Finished in state" in api.logs_of(run["id"]))
    log = api.logs_of(run["id"])
    for name, kind in (("new", "created"), ("old.csv", "modified"), ("gone.tar.gz", "deleted")):
        assert f"{kind} file://{inbox}/{name}" in log.splitlines()
    assert f"Watched: file://{inbox}; entries: 2; last look: " in log

    (artifact,) = artifacts(api, state)
    assert artifact["type"] == "table"
    assert artifact["key"].startswith("poller-")
    assert "**1 new, 1 modified, 1 deleted**" in artifact["description"]
    assert f"target: `file://{inbox}`, 2 entries, last look 2" in artifact["description"]
    assert "consumer: `poll-flow`, lag 0" in artifact["description"]
    assert "gaps: 0" in artifact["description"]
    links = {
        f"[{event['event'].rpartition('.')[2]}]"
        f"({api.url}/events/event/{event['occurred'][:10]}/{event['id']})"
        for event in events
    }
    assert {row["event"] for row in rows(artifact)} == links
    assert {row["subject"] for row in rows(artifact)} == {row["subject"] for row in result.events}

    again = polled(inbox)
    assert said(again) == ("Completed", "nothing new")
    assert (artifacts(api, again), len(feed(api, inbox))) == ([], 3)


def rows(artifact: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table artifact."""
    import json

    data = artifact["data"]
    return list(json.loads(data) if isinstance(data, str) else data)


def test_same_artifact_is_made_anew(api: PrefectHost, inbox: Path) -> None:
    """One key per target and consumer, so that its history is one page."""
    put(inbox / "a")
    states = [polled(inbox, existing="report", consumer=one) for one in ("one", "two")]
    put(inbox / "b")
    states += [polled(inbox, consumer=one) for one in ("one", "two")]
    keys = [artifact["key"] for state in states for artifact in artifacts(api, state)]
    assert len(keys) == 4
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]


async def test_awaited(api: PrefectHost, inbox: Path) -> None:
    result = await poll_flow(inbox)
    assert isinstance(result, Polled)
    put(inbox / "a")
    state = await poll_flow(inbox, return_state=True)
    assert isinstance(state, State)
    assert said(state) == ("Completed: 1 new", "1 new")
    assert (await state.result()).new == 1


@flow
def sync_parent(url: str) -> Polled:
    result: Polled = poll_flow(url, consumer="a")
    return result


@flow
async def async_parent(url: str) -> tuple[Polled, str | None]:
    result = await poll_flow(url, consumer="a")
    state = await poll_flow(url, consumer="b", existing="report", return_state=True)
    return result, state.name


def children(host: PrefectHost, parent: State[Any]) -> list[dict[str, Any]]:
    """The polls that were made within a flow run."""
    tasks = {task["id"] for task in host.task_runs(run_of(host, parent)["id"])}
    return [run for run in host.flow_runs("poll-flow") if run["parent_task_run_id"] in tasks]


def test_within_flows(api: PrefectHost, inbox: Path) -> None:
    polled(inbox, consumer="a")
    put(inbox / "a")
    parent = sync_parent(str(inbox), return_state=True)
    assert parent.result().new == 1
    (child,) = children(api, parent)
    assert child["state_name"] == "Completed: 1 new"


async def test_within_async_flows(api: PrefectHost, inbox: Path) -> None:
    await poll_flow(inbox, consumer="a")
    put(inbox / "a")
    parent: Any = await async_parent(str(inbox), return_state=True)
    result, name = await parent.result()
    assert (result.new, name) == (1, "Completed: 1 new")
    assert [one["state_name"] for one in children(api, parent)] == ["Completed: 1 new"] * 2


def test_other_options_of_the_flow(api: PrefectHost, inbox: Path) -> None:
    """A copy is called from anywhere too, is polled for under its own name, and tried again."""
    nightly = poll_flow.with_options(name="nightly-poll", retries=1, retry_delay_seconds=0)
    assert type(nightly) is type(poll_flow)
    assert nightly(inbox).new == 0
    put(inbox / "a")
    state = nightly(inbox, return_state=True)
    assert said(state) == ("Completed: 1 new", "1 new")
    (artifact,) = artifacts(api, state)
    assert "consumer: `nightly-poll`" in artifact["description"]
    failed = nightly(inbox / "missing", return_state=True)
    run = run_of(api, failed)
    # Prefect 3.6 leaves it to a runner to try a run again that returned a failure.
    old = prefect.__version__.startswith("3.6.")
    assert (run["run_count"], run["state_type"]) == ((1, "SCHEDULED") if old else (2, "FAILED"))
    assert "TargetNotFound" in failed.message
    assert api.flow_runs("nightly-poll")[-1]["id"] == run["id"]


def test_missing_target(api: PrefectHost, inbox: Path) -> None:
    """The error of the core is raised, and is the state's message; there is no trace to read through."""
    with pytest.raises(TargetNotFound, match="missing"):
        poll_flow(inbox / "missing")
    state = polled(inbox / "missing")
    assert state.type == StateType.FAILED
    assert str(state.message).startswith("TargetNotFound: ")
    log = api.until("its log", lambda: api.logs_of(run_of(api, state)["id"]))
    assert "Traceback" not in log


def test_what_is_there_already(api: PrefectHost, inbox: Path) -> None:
    for name in ("a", "b"):
        put(inbox / name)
    assert said(polled(inbox, existing="report")) == ("Completed: 2 new", "2 new")
    assert [event["payload"]["key"] for event in feed(api, inbox)] == ["a", "b"]
    assert said(polled(inbox, existing="report")) == ("Completed", "nothing new")


def test_only_what_is_asked_for(api: PrefectHost, inbox: Path) -> None:
    (inbox / "below").mkdir()
    chosen: dict[str, Any] = {"include": ["*.csv"], "events": "created", "recurse": True}
    polled(inbox, **chosen)
    for name in ("a.csv", "a.txt", "below/b.csv", "below/b.txt"):
        put(inbox / name)
    assert said(polled(inbox, **chosen))[0] == "Completed: 2 new"
    (inbox / "a.csv").unlink()
    put(inbox / "below" / "b.csv", 20)
    assert said(polled(inbox, **chosen))[0] == "Completed"
    assert [event["payload"]["key"] for event in feed(api, inbox)] == ["a.csv", "below/b.csv"]


POLL = """
import sys
from poller_prefect import poll_flow

state = poll_flow(sys.argv[1], recurse=True, return_state=True)
print(state.state_details.flow_run_id, state.name, state.message, sep="|")
"""


def test_part_that_cannot_be_read(api: PrefectHost, inbox: Path) -> None:
    """Found is what could be read; nothing of the rest is thought to be gone."""
    for name in ("closed", "open"):
        (inbox / name).mkdir()
        put(inbox / name / "old")
    polled(inbox, recurse=True)
    put(inbox / "open" / "new")
    put(inbox / "closed" / "new")
    (inbox / "closed").chmod(0)
    # Nothing is closed to root, unless these rights are given up, which only a process of its own can do.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    try:
        done = subprocess.run(
            [*drop, sys.executable, "-c", POLL, str(inbox)],
            env=api.env,
            cwd=inbox.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        (inbox / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    run, name, message = done.stdout.splitlines()[-1].split("|")
    assert (name, message) == ("Completed: 1 new, 1 gap", "1 new, 1 gap")
    assert api.state_of(run) == "Completed: 1 new, 1 gap"
    (artifact,) = [one for one in api.artifacts() if one["flow_run_id"] == run]
    assert "gaps: 1\n    * " in artifact["description"]
    assert "closed" in artifact["description"]
    api.until("its log to tell", lambda: "closed" in api.logs_of(run))
    assert said(polled(inbox, recurse=True))[0] == "Completed: 1 new"
    found = [(event["payload"]["event"], event["payload"]["key"]) for event in feed(api, inbox)]
    assert found == [("created", "open/new"), ("created", "closed/new")]


def test_any_name(api: PrefectHost, inbox: Path) -> None:
    """Names that are not UTF-8, that look like patterns or templates, and paths too long for an index."""
    deep = os.fsencode(inbox) + b"".join(b"/" + bytes([letter]) * 250 for letter in b"abcdefg")
    names = [
        *(b"caf\xe9.csv", b"two words .csv", b"[x]*?.csv", b"100%25 #?&;.csv", b"line\nbreak", b"{{ path }}"),
        *("ünï\u2028.csv".encode(), b"\x01\x1f", b"a" * 255, deep[len(os.fsencode(inbox)) + 1 :] + b"/z.csv"),
    ]
    polled(inbox, recurse=True)
    os.makedirs(deep)
    for name in names:
        put(os.fsencode(inbox) + b"/" + name)
    assert said(polled(inbox, recurse=True))[0] == f"Completed: {len(names)} new"
    events = feed(api, inbox)
    assert {Event.from_dict(event["payload"]).key for event in events} == set(names)
    assert len({event["resource"]["prefect.resource.id"] for event in events}) == len(names)
    for event in events:
        ours = Event.from_dict(event["payload"])
        url = Url(event["resource"]["url"])
        assert os.fsencode(url) == os.fsencode(inbox) + b"/" + ours.key
        try:
            text = os.fsdecode(ours.key).encode().decode()
        except UnicodeEncodeError:
            text = "caf%E9.csv"
            assert "path" not in event["resource"]
            assert event["payload"]["path"] is None
        assert event["resource"]["key"] == text
        assert event["resource"].get("suffix") == (".csv" if ours.key.endswith(b".csv") else None)
        assert len(event["resource"]["prefect.resource.id"].encode()) <= 1000
    for name in names:
        os.unlink(os.fsencode(inbox) + b"/" + name)
    assert said(polled(inbox, recurse=True))[0] == f"Completed: {len(names)} deleted"
    assert len(feed(api, inbox)) == 2 * len(names)


def test_thousand_files(api: PrefectHost, inbox: Path) -> None:
    """All are stored, none twice; what is shown of them has an end."""
    polled(inbox)
    for number in range(1000):
        put(inbox / f"{number:04}.csv")
    state = polled(inbox)
    assert said(state) == ("Completed: 1000 new", "1000 new")
    events = feed(api, inbox)
    assert [event["payload"]["key"] for event in events] == [f"{number:04}.csv" for number in range(1000)]
    assert len({event["id"] for event in events}) == 1000
    assert len(state.result().events) == 100
    (artifact,) = artifacts(api, state)
    assert len(rows(artifact)) == 100
    assert "**1000 new**; the first 100 are below" in artifact["description"]
    run = run_of(api, state)["id"]
    api.until("the log to be there", lambda: "… 1000 events in all" in api.logs_of(run))
    assert len([line for line in api.logs_of(run).splitlines() if line.startswith("created ")]) == 20
