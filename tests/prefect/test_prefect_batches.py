"""``poll_flow(run=…, batch=True)`` and ``take_batch``: one run for all that waits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from poller_prefect import take_batch
from prefect import flow, task
from prefect.runtime import flow_run

from poller_core import Claim, InvalidOption
from tests.prefect.steps import apply, artifacts, feed, made, polled, put, run_here, said
from tests.services.prefect_host import PrefectHost


def keys(events: Claim | list[Any]) -> list[str]:
    return [event.key.decode() for event in events]


@flow
def batch_usual(text: str = "-") -> tuple[str, list[str]]:
    return text, keys(take_batch())


def test_one_run_for_all_that_waits(api: PrefectHost, inbox: Path) -> None:
    """At most so many; the next run has the next ones, and none is made while one is on its way."""
    deployment = apply(batch_usual)
    given: dict[str, Any] = {"run": deployment, "batch": True, "limit": 3, "parameters": {"text": "given"}}
    polled(inbox, **given)
    assert said(polled(inbox, **given)) == ("Completed", "nothing new")
    assert made(api, deployment) == []
    for name in "abcde":
        put(inbox / name)
    state = polled(inbox, **given)
    assert said(state) == ("Completed: 1 run", "1 run")
    assert (state.result().runs, state.result().lag) == (1, 5)
    (run,) = made(api, deployment)
    assert run["parameters"] == {"text": "given"}
    assert run["tags"] == ["poller"]
    assert run["labels"]["poller.batch"] == "true"
    (artifact,) = artifacts(api, state)
    assert "**1 run**" in artifact["description"]
    # What a batch has is not told one by one.
    assert feed(api, inbox) == []

    assert said(polled(inbox, **given)) == ("Completed", "nothing new")
    assert run_here(batch_usual, run).result() == ("given", ["a", "b", "c"])
    assert polled(inbox, **given).result().runs == 1
    second = made(api, deployment)[1]
    assert run_here(batch_usual, second).result() == ("given", ["d", "e"])
    assert said(polled(inbox, **given)) == ("Completed", "nothing new")
    assert len(made(api, deployment)) == 2
    # Run anew (by a person, say), it has the same; a run of its own has what is left, which is nothing.
    assert run_here(batch_usual, second).result() == ("given", ["d", "e"])


@task
def take_in_a_task(limit: int | None = None) -> list[str]:
    return keys(take_batch(limit))


@flow(retries=1, retry_delay_seconds=0)
async def batch_retried() -> tuple[list[str], int]:
    first = keys(take_batch(2))
    if flow_run.run_count == 1:
        raise ValueError("the first try fails")
    assert take_in_a_task() == first
    return first, int(flow_run.run_count or 0)


def test_retry_has_the_same_files(api: PrefectHost, inbox: Path) -> None:
    """Also while others have come; and a task of the run has what the run has."""
    deployment = apply(batch_retried)
    polled(inbox, run=deployment, batch=True)
    for name in "abc":
        put(inbox / name)
    polled(inbox, run=deployment, batch=True)
    (run,) = made(api, deployment)
    assert run_here(batch_retried, run).result() == (["a", "b"], 2)
    polled(inbox, run=deployment, batch=True)
    run = made(api, deployment)[1]
    assert run_here(batch_retried, run).result() == (["c"], 2)


@flow
def batch_dies(how: str = "") -> list[str]:
    if how == "before":
        raise ValueError("before it took anything")
    found = keys(take_batch())
    if how == "after":
        raise ValueError("after it took its files")
    return found


def test_run_that_ended_without_its_files(api: PrefectHost, inbox: Path) -> None:
    """It is made anew; one that failed with its files keeps them, and the next one has the next."""
    deployment = apply(batch_dies)

    def poll(how: str) -> Any:
        state = polled(inbox, run=deployment, batch=True, parameters={"how": how})
        return made(api, deployment)[-1] if state.result().runs else None

    poll("")
    put(inbox / "a")
    first = poll("before")
    assert run_here(batch_dies, first).is_failed()
    second = poll("before")
    assert second["id"] != first["id"]
    # It never even started: cancelled, or its worker is gone.
    force = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
    api.ask("POST", f"flow_runs/{second['id']}/set_state", json=force)
    third = poll("after")
    assert third["id"] not in (first["id"], second["id"])
    assert poll("after") is None
    assert run_here(batch_dies, third).is_failed()
    assert poll("") is None
    put(inbox / "b")
    fourth = poll("")
    assert run_here(batch_dies, fourth).result() == ["b"]
    assert len(made(api, deployment)) == 4


@flow
def batch_selected() -> list[str]:
    return keys(take_batch())


def test_only_what_the_poll_asks_for(api: PrefectHost, inbox: Path) -> None:
    deployment = apply(batch_selected)
    chosen: dict[str, Any] = {"include": ["*.csv"], "events": ["created"], "run": deployment, "batch": True}
    polled(inbox, **chosen)
    put(inbox / "a.txt")
    assert said(polled(inbox, **chosen))[0] == "Completed"
    put(inbox / "b.csv")
    assert said(polled(inbox, **chosen))[0] == "Completed: 1 run"
    (run,) = made(api, deployment)
    assert run_here(batch_selected, run).result() == ["b.csv"]


@flow
def batch_collected() -> list[str]:
    return keys(take_batch())


def test_collected_for_a_while(api: PrefectHost, inbox: Path) -> None:
    """A run is made when the first file has waited for so long, or when there are as many as a batch has."""
    deployment = apply(batch_collected)
    given: dict[str, Any] = {"run": deployment, "batch": True, "limit": 3}
    polled(inbox, **given)
    put(inbox / "a")
    assert polled(inbox, **given, batch_for=3600).result().runs == 0
    put(inbox / "b")
    began = time.monotonic()
    assert polled(inbox, **given, batch_for=3600).result().runs == 0
    api.until("the batch to be ready", lambda: polled(inbox, **given, batch_for=4).result().runs, 60)
    assert time.monotonic() - began > 1
    (run,) = made(api, deployment)
    assert run_here(batch_collected, run).result() == ["a", "b"]
    for name in "cdef":
        put(inbox / name)
    assert polled(inbox, **given, batch_for=3600).result().runs == 1
    run = made(api, deployment)[1]
    assert run_here(batch_collected, run).result() == ["c", "d", "e"]
    assert polled(inbox, **given, batch_for=3600).result().runs == 0


@flow
def batch_named(url: str, more: dict[str, Any]) -> list[str]:
    return keys(take_batch(url=url, consumer="named", **more))


def test_batch_of_a_run_that_nobody_made(api: PrefectHost, inbox: Path) -> None:
    """Which target and consumer is said then; a run that says neither is told so."""
    polled(inbox, consumer="named", existing="report")
    for name in ("a.csv", "b.txt", "c.csv"):
        put(inbox / name)
    polled(inbox, consumer="looks")
    assert batch_named(str(inbox), {"include": "*.csv", "limit": 1}) == ["a.csv"]
    assert batch_named(f"file://{inbox}", {"events": ["created"]}) == ["b.txt", "c.csv"]
    assert batch_named(str(inbox), {}) == []
    with pytest.raises(InvalidOption, match=r"this run was not made by poll_flow\(run=…, batch=True\)"):
        batch_usual()
    with pytest.raises(InvalidOption, match="within a flow run only"):
        take_batch(url=inbox, consumer="named")


def test_batch_for_no_run(api: PrefectHost, inbox: Path) -> None:
    state = polled(inbox, batch=True)
    assert "InvalidOption: batch=True needs run='flow/deployment'" in str(state.message)
