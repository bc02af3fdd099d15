"""``on_created`` and ``on_event``: deployments that run because an event was emitted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from poller_prefect import on_created, on_event, take_event
from prefect import flow
from prefect.events import DeploymentEventTrigger

from poller_core import InvalidOption
from tests.prefect.steps import apply, artifacts, feed, made, polled, put, run_here, said
from tests.services.prefect_host import PrefectHost


@flow
def triggered_usual(url: str, event_id: str, size: int, path: str, payload: dict[str, Any]) -> str:
    with take_event(event_id) as event:
        return str(event.subject)


@flow
def triggered_listed(url: str, size: int = -1, key: str = "") -> None:
    pass


def test_two_deployments_of_one_target(api: PrefectHost, inbox: Path) -> None:
    """Both have a run when the poll returns: with all that the flow asks for, or with what is listed."""
    usual = apply(triggered_usual, triggers=[on_created(inbox)])
    listed = apply(triggered_listed, triggers=[on_created(inbox, parameters=["url", "key"])])
    polled(inbox)
    put(inbox / "old")
    put(inbox / "two words [1].csv", 20)
    state = polled(inbox)
    # Without waiting: that was the poll's to do.
    runs, others = made(api, usual), made(api, listed)
    assert said(state) == ("Completed: 2 new", "2 new")
    events = {event["payload"]["key"]: event["payload"] for event in feed(api, inbox)}
    assert {run["parameters"]["url"] for run in runs} == {one["subject"] for one in events.values()}
    (run,) = [run for run in runs if run["parameters"]["size"] == 20]
    told = events["two%20words%20%5B1%5D.csv"]
    assert run["parameters"] == {
        "url": f"file://{inbox}/two%20words%20%5B1%5D.csv",
        "event_id": told["id"],
        "size": 20,
        "path": f"{inbox}/two words [1].csv",
        "payload": told,
    }
    assert sorted(run["parameters"]["key"] for run in others) == ["old", "two%20words%20%5B1%5D.csv"]
    assert {frozenset(run["parameters"]) for run in others} == {frozenset(("url", "key"))}

    # One that Prefect starts again finds its event taken; one that is retried has it.
    assert run_here(triggered_usual, run).result() == told["subject"]
    again = api.run_deployment(usual, parameters=run["parameters"])
    late = run_here(triggered_usual, api.run(again))
    assert (late.name, late.is_completed(), api.state_of(again)) == ("AlreadyTaken", True, "AlreadyTaken")
    assert run["id"] in str(late.message)


@flow
def triggered_usual_other(event_id: str) -> str:
    with take_event(event_id) as event:
        return str(event.subject)


def test_each_deployment_takes_for_itself(api: PrefectHost, inbox: Path) -> None:
    """And Prefect's own id of the event says which, too."""
    one = apply(triggered_usual_other, triggers=[on_created(inbox)])
    template = {"event_id": "{{ event.id | string }}"}
    two = apply(triggered_usual_other, "b", triggers=[on_created(inbox, parameters=template)])
    polled(inbox)
    put(inbox / "a")
    polled(inbox)
    (run,), (other,) = made(api, one), made(api, two)
    (event,) = feed(api, inbox)
    assert run["parameters"]["event_id"] == event["payload"]["id"]
    assert other["parameters"]["event_id"] == event["id"]
    for each in (run, other):
        assert run_here(triggered_usual_other, each).result() == f"file://{inbox}/a"


@flow
def triggered_chosen(what: str, told: str) -> None:
    pass


def test_only_some_events(api: PrefectHost, inbox: Path) -> None:
    """Of the kind and with the labels that were asked for, and of this target only."""
    folder, beside = inbox / "in [1]", inbox / "in 1"
    for one in (folder, beside):
        one.mkdir()
    deployment = apply(
        triggered_chosen,
        triggers=[
            on_event(
                folder,
                events="deleted",
                match={"suffix": ".csv"},
                parameters={"what": "{{ event.payload.event }}", "told": "it was {{ event.payload.size }}"},
            )
        ],
    )
    for one in (folder, beside):
        for name in ("a.csv", "b.csv", "c.txt"):
            put(one / name, 6)
        polled(one)
        put(one / "new.csv")
        put(one / "b.csv", 8)
        for name in ("a.csv", "c.txt"):
            (one / name).unlink()
        assert said(polled(one))[0] == "Completed: 1 new, 1 modified, 2 deleted"
    (run,) = made(api, deployment)
    assert run["parameters"] == {"what": "deleted", "told": "it was 6"}


@flow
def triggered_well(key: str) -> None:
    pass


@flow
def triggered_badly(key: str) -> None:
    pass


def test_automation_that_fails(api: PrefectHost, inbox: Path) -> None:
    """Its events wait, and the poll says why; others go on. Once it is mended, they are delivered."""
    well = apply(triggered_well, triggers=[on_created(inbox)])
    bad = {"key": "{{ event.id }}"}  # an id is nothing that JSON has
    badly = apply(
        triggered_badly,
        triggers=[on_created(inbox, match={"suffix": ".bad"}, parameters=bad, name="the bad one")],
    )
    polled(inbox)
    for name in ("a.csv", "z.bad", "c.csv"):
        put(inbox / name)
    state = polled(inbox, patience=10)
    assert state.is_failed()
    assert str(state.message).startswith(
        "NotDelivered: 1 event(s) could not be delivered: automation 'the bad one' failed: "
    )
    assert "Unable to create flow run" in str(state.message)
    (artifact,) = artifacts(api, state)
    assert "**2 new, 1 failed**" in artifact["description"]
    assert "lag 1" in artifact["description"]
    assert made(api, badly) == []
    # One that works is not held up by one that does not; the poll has not waited for it then.
    api.until("its run", lambda: "z.bad" in {run["parameters"]["key"] for run in made(api, well)})

    put(inbox / "d.csv")
    state = polled(inbox, patience=10)
    assert (state.is_failed(), "automation 'the bad one' failed" in str(state.message)) == (True, True)
    assert {run["parameters"]["key"] for run in made(api, well)} == {"a.csv", "z.bad", "c.csv", "d.csv"}

    apply(triggered_badly, triggers=[])
    for automation in api.automations():  # some releases have done that already
        if automation["name"] == "the bad one":
            api.ask("DELETE", f"automations/{automation['id']}")
    api.until(
        "the event to be delivered", lambda: said(polled(inbox, patience=10))[0] == "Completed: 1 new", 60
    )
    assert len(feed(api, inbox)) == 4


@flow
def triggered_never(url: str) -> None:
    pass


def test_automations_that_run_nothing_are_not_waited_for(api: PrefectHost, inbox: Path) -> None:
    """One that is disabled, of another target, or counts: the poll returns all the same."""
    deployment = apply(
        triggered_never,
        triggers=[
            on_created(inbox, enabled=False, name="disabled"),
            on_created(inbox / "elsewhere", name="elsewhere"),
            DeploymentEventTrigger(
                expect={"poller.subject.*"}, threshold=1000, within=timedelta(hours=1), name="counts"
            ),
        ],
    )
    polled(inbox)
    put(inbox / "a")
    assert said(polled(inbox, patience=5))[0] == "Completed: 1 new"
    assert made(api, deployment) == []


def test_what_cannot_be(inbox: Path) -> None:
    with pytest.raises(InvalidOption, match="events='made': expected some of created, modified, deleted"):
        on_event(inbox, events="made")
    with pytest.raises(InvalidOption, match=r"expected some of url, event_id"):
        on_created(inbox, parameters=["url", "sise"])
