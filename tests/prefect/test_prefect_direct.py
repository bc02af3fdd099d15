"""``poll_flow(run="flow/deployment")``: one run per file, and what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from poller_prefect import take_event
from poller_prefect.polling import NotDelivered
from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from poller_core import Event, InvalidOption, make_poller
from tests.prefect.steps import (
    apply,
    artifacts,
    fed,
    feed,
    journal_event,
    made,
    polled,
    put,
    run_here,
    run_of,
    said,
    state_file,
)
from tests.services.prefect_host import PrefectHost


@flow
def direct_all(
    url: str,
    event_id: str,
    event: str,
    path: str,
    key: str,
    size: int,
    mtime: float,
    seq: int,
    detected_at: str,
    payload: dict[str, Any],
    etag: str | None = "-",
    name: str = "mine",
    target: str = "mine",
    other: int = 7,
) -> dict[str, Any]:
    with take_event(event_id) as taken:
        assert taken.id == event_id
    return dict(locals())


def test_parameters_are_filled_by_name(api: PrefectHost, inbox: Path) -> None:
    """With the types of the facts; also the run's name, tags and labels, and what is told of it."""
    deployment = apply(direct_all, tags=["own"])
    polled(inbox, run=deployment)
    assert made(api, deployment) == []
    put(inbox / "a b.csv", 42)
    state = polled(inbox, run=deployment)
    assert said(state) == ("Completed: 1 new", "1 new")

    (run,) = made(api, deployment)
    ours = journal_event(api, run["parameters"]["event_id"])
    url = f"file://{inbox}/a%20b.csv"
    assert ours.detected_at is not None
    assert run["parameters"] == {
        "url": url,
        "event_id": ours.id,
        "event": "created",
        "path": f"{inbox}/a b.csv",
        "key": "a%20b.csv",
        "size": 42,
        "mtime": ours.mtime,
        "seq": ours.seq,
        "detected_at": ours.detected_at.isoformat(),
        "etag": None,
        "payload": run["parameters"]["payload"],
    }
    assert Event.from_dict(run["parameters"]["payload"]) == ours
    assert run["parameters"]["payload"]["target"] == f"file://{inbox}"
    assert run["name"] == "created a b.csv"
    assert set(run["tags"]) == {"poller", "own"}
    with make_poller(inbox, state=state_file(api), consumer=deployment) as poller:
        digest = poller.digest
        assert poller.waiting() == poller.waiting(1)
        assert not poller.waiting()
    labels = {name: value for name, value in run["labels"].items() if name.startswith("poller.")}
    assert labels == {
        "poller.event": ours.id,
        "poller.target": f"file://{inbox}",
        "poller.digest": digest,
        "poller.consumer": deployment,
        "poller.limit": "1000",
        "poller.select": "{}",
    }
    # Whoever looks at the event finds the run, and the other way round.
    (event,) = fed(api, inbox, 1)
    started = [one for one in event["related"] if one["prefect.resource.role"] == "started-flow-run"]
    assert [(one["prefect.resource.id"], one["prefect.resource.name"]) for one in started] == [
        (f"prefect.flow-run.{run['id']}", "created a b.csv")
    ]
    assert (state.result().runs, state.result().events[0]["run"]) == (1, run["id"])
    (artifact,) = artifacts(api, state)
    assert f"[run]({api.url}/runs/flow-run/{run['id']})" in artifact["data"]
    poll = run_of(api, state)["id"]
    line = f"created {url}: run 'created a b.csv' ({run['id']})"
    api.until("the log to tell of it", lambda: line in api.logs_of(poll).splitlines())

    result = run_here(direct_all, run).result()
    assert (result["size"], result["mtime"], result["other"], result["name"], result["target"]) == (
        *(42, ours.mtime, 7),
        *("mine", "mine"),
    )
    assert result["payload"] == run["parameters"]["payload"]


@flow
def direct_templates(file: str, year: int, told: dict[str, Any], size: int = 1) -> None:
    pass


def test_parameters_by_templates(api: PrefectHost, inbox: Path) -> None:
    """A template alone keeps its type; what is not mentioned is left to the flow."""
    deployment = apply(direct_templates)
    templates = {
        "file": "{{ path }}",
        "year": 2026,
        "told": {"size": "{{ size }}", "text": "{{ event }}: {{ size }} bytes", "all": ["{{ payload.id }}"]},
    }
    polled(inbox, run=deployment, parameters=templates)
    put(inbox / "{{ size }}", 5)
    polled(inbox, run=deployment, parameters=templates)
    (run,) = made(api, deployment)
    assert run["parameters"] == {
        "file": f"{inbox}/{{{{ size }}}}",
        "year": 2026,
        "told": {"size": 5, "text": "created: 5 bytes", "all": [fed(api, inbox, 1)[0]["payload"]["id"]]},
    }


def test_template_of_what_there_is_not(api: PrefectHost, inbox: Path) -> None:
    """It is noticed before any event is touched."""
    deployment = apply(direct_templates)
    polled(inbox, run=deployment)
    put(inbox / "a")
    state = polled(inbox, run=deployment, parameters={"file": "{{ pth }}", "year": "{{ $HOME }}"})
    assert "InvalidOption: parameters: $HOME, pth is no fact of an event" in str(state.message)
    assert state.is_failed()
    with pytest.raises(InvalidOption, match="there is no such deployment"):
        polled(inbox, run="direct-templates/other").result()
    assert feed(api, inbox) == []
    given = {"file": "{{ key }}", "year": 1, "told": {}}
    assert said(polled(inbox, run=deployment, parameters=given))[0] == "Completed: 1 new"
    assert [run["parameters"] for run in made(api, deployment)[-1:]] == [{**given, "file": "a"}]


@flow
def direct_fixed(url: str, key: str, size: int) -> None:
    pass


def test_fixed_parameters_are_left_alone(api: PrefectHost, inbox: Path) -> None:
    deployment = apply(direct_fixed, parameters={"key": "fixed", "size": 0})
    polled(inbox, run=deployment)
    put(inbox / "a", 3)
    polled(inbox, run=deployment)
    (run,) = made(api, deployment)
    assert run["parameters"] == {"url": f"file://{inbox}/a", "key": "fixed", "size": 0}


@flow
def direct_once(size: int) -> tuple[str, int]:
    """Takes its event without being told which."""
    with take_event() as event:
        return str(event.subject), size


def test_one_run_per_event(api: PrefectHost, inbox: Path) -> None:
    """However often an event is delivered; another consumer's poll is another delivery."""
    deployment = apply(direct_once)
    polled(inbox, run=deployment)
    for number in range(20):
        put(inbox / f"{number:02}", number)
    assert polled(inbox, run=deployment).result().runs == 20
    runs = made(api, deployment)
    assert sorted(run["parameters"]["size"] for run in runs) == list(range(20))
    with make_poller(inbox, state=state_file(api), consumer=deployment) as poller:
        poller.rewind(1)
        assert poller.waiting().count == 20
    again = polled(inbox, run=deployment)
    assert said(again)[0] == "Completed: 20 new"
    assert {row["run"] for row in again.result().events} == {run["id"] for run in runs}
    assert len(made(api, deployment)) == 20
    assert len(fed(api, inbox, 20)) == 20

    taken = [run_here(direct_once, run).result() for run in runs[:2]]
    assert taken == [
        (f"file://{inbox}/{one['name'].split()[-1]}", one["parameters"]["size"]) for one in runs[:2]
    ]

    other = polled(inbox, run=deployment, consumer="other", start=1, emit=False)
    assert other.result().runs == 20
    assert len(made(api, deployment)) == 40
    assert len(fed(api, inbox, 20)) == 20
    # The same event for the same deployment: who has taken it has it.
    same = next(run for run in made(api, deployment)[20:] if run["name"] == runs[0]["name"])
    late = run_here(direct_once, same)
    assert (late.name, late.is_completed()) == ("AlreadyTaken", True)
    assert runs[0]["id"] in str(late.message)


def test_no_events_unless_wanted(api: PrefectHost, inbox: Path) -> None:
    deployment = apply(direct_fixed, parameters={"key": "fixed", "size": 0})
    polled(inbox, run=deployment, emit=False)
    put(inbox / "a")
    state = polled(inbox, run=deployment, emit=False)
    assert said(state)[0] == "Completed: 1 new"
    assert made(api, deployment)[-1]["parameters"]["url"] == f"file://{inbox}/a"
    assert feed(api, inbox) == []


@flow(name="direct-picky")
def picky(url: str, size: Annotated[int, Field(le=10)]) -> None:
    pass


@flow(name="direct-picky")
def less_picky(url: str, size: Annotated[int, Field(le=100)]) -> None:
    pass


def sizes(host: PrefectHost, deployment: str) -> list[int]:
    return sorted(run["parameters"]["size"] for run in made(host, deployment))


def test_what_is_refused_holds_up_no_others(api: PrefectHost, inbox: Path) -> None:
    """It waits, and is delivered as soon as the deployment takes it."""
    deployment = apply(picky)
    polled(inbox, run=deployment)
    for size in (3, 50, 5):
        put(inbox / f"{size}", size)
    state = polled(inbox, run=deployment)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, NotDelivered)
    assert str(state.message).startswith(
        f"NotDelivered: 1 event(s) could not be delivered: file://{inbox}/50: creating a flow run: "
        "Prefect answered "
    )
    assert "50 is greater than the maximum of 10" in str(state.message)
    assert "delivered by the next poll" in str(state.message)
    assert sizes(api, deployment) == [3, 5]
    (artifact,) = artifacts(api, state)
    assert "**2 new, 1 failed**" in artifact["description"]
    assert "lag 1" in artifact["description"]
    assert "**failed**: 1 event(s) could not" in artifact["description"]

    put(inbox / "7", 7)
    assert polled(inbox, run=deployment).is_failed()
    assert sizes(api, deployment) == [3, 5, 7]
    assert len(fed(api, inbox, 3)) == 3

    apply(less_picky)
    last = polled(inbox, run=deployment)
    assert said(last) == ("Completed: 1 new", "1 new")
    assert last.result().lag == 0
    assert sizes(api, deployment) == [3, 5, 7, 50]
    assert said(polled(inbox, run=deployment))[0] == "Completed"


@flow(retries=1, retry_delay_seconds=0)
async def direct_retried() -> str:
    from prefect.runtime import flow_run

    async with take_event() as event:
        if flow_run.run_count == 1:
            raise ValueError("the first try fails")
        return event.id


def test_retry_has_the_event_again(api: PrefectHost, inbox: Path) -> None:
    deployment = apply(direct_retried)
    polled(inbox, run=deployment)
    put(inbox / "a")
    polled(inbox, run=deployment)
    (run,) = made(api, deployment)
    state: State[str] = run_here(direct_retried, run)
    assert state.result() == run["labels"]["poller.event"]
    assert api.run(run["id"])["run_count"] == 2
