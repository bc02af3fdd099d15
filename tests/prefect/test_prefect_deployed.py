"""``poll_flow`` served: by an interval, and following; runners and all that they start are processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prefect.steps import feed, made, polled, put, said
from tests.services.prefect_host import PrefectHost

SERVES = """
import os
from pathlib import Path
from prefect import flow, serve
from poller_prefect import on_created, poll_flow, take_batch, take_event

BOXES = Path(os.environ["POLLER_TEST_WORK"]) / "inboxes"

@flow(log_prints=True)
def served_load(url: str, event_id: str, size: int):
    with take_event(event_id) as event:
        assert str(event.subject) == url
        print("loaded", url, size)

@flow(log_prints=True)
def served_react(path: str, event_id: str):
    with take_event(event_id) as event:
        print("reacted", event.event, path)

@flow(retries=1, log_prints=True)
async def served_gather():
    names = [event.key.decode() for event in take_batch()]
    from prefect.runtime import flow_run
    if flow_run.run_count == 1:
        raise ValueError("the first try fails")
    print("gathered", *names)

if __name__ == "__main__":
    serve(
        served_load.to_deployment("load"),
        served_react.to_deployment("react", triggers=[on_created(BOXES / "triggers")]),
        served_gather.to_deployment("gather"),
        poll_flow.to_deployment(
            "every",
            interval=10,
            parameters={"url": BOXES / "every", "run": "served-load/load"},
            concurrency_limit=1,
        ),
        poll_flow.to_deployment("watch", tags=["watching"]),
    )
"""

FOLLOWS = """
import sys
from poller_prefect import poll_flow

poll_flow(sys.argv[1], run=sys.argv[2], consumer="script", follow=True, interval=300)
"""


@pytest.fixture(scope="module")
def serving(api: PrefectHost, work: Path) -> Iterator[Path]:
    """One runner for all tests here; where its inboxes are."""
    boxes = work / "inboxes"
    for name in ("every", "triggers"):
        (boxes / name).mkdir(parents=True)
    api.python(SERVES, name="everyday")
    api.until("the deployments to be there", lambda: api.deployment("poll-flow/watch"))
    yield boxes
    api.stop("everyday")


def ended(host: PrefectHost, deployment: str, count: int = 1) -> list[dict[str, Any]]:
    """The runs of a deployment, once there are so many and all of them have ended."""
    final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    def all_of_them() -> list[dict[str, Any]] | None:
        runs = made(host, deployment)
        done = len(runs) >= count and all(run["state_type"] in final for run in runs)
        return runs if done else None

    return list(host.until(f"{count} run(s) of {deployment} to end", all_of_them, 180))


def logged(host: PrefectHost, run: dict[str, Any], text: str) -> None:
    """Wait until a run has logged a line."""
    host.until(f"the line {text!r}", lambda: text in host.logs_of(run["id"]).splitlines())


def test_everything_by_a_runner(api: PrefectHost, serving: Path, inbox: Path) -> None:
    """Each way from a file to a run, with nothing but processes that a runner has started."""
    # By an interval: the first poll makes the baseline.
    folder = serving / "every"
    baseline = "Completed"
    api.until(
        "a first poll",
        lambda: any(run["state_name"] == baseline for run in made(api, "poll-flow/every")),
    )
    put(folder / "a b.csv", 7)
    (run,) = ended(api, "served-load/load")
    assert run["state_name"] == "Completed"
    assert run["labels"]["poller.consumer"] == "poll-flow/every"
    logged(api, run, f"loaded file://{folder}/a%20b.csv 7")
    poll = next(one for one in made(api, "poll-flow/every") if one["state_name"] == "Completed: 1 new")
    assert poll["auto_scheduled"]
    (event,) = feed(api, folder)
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
    assert related["flow-run"] == f"prefect.flow-run.{poll['id']}"
    assert related["deployment"] == f"prefect.deployment.{poll['deployment_id']}"
    assert related["started-flow-run"] == f"prefect.flow-run.{run['id']}"

    # By a trigger, and as a batch of which the first try fails.
    folder = serving / "triggers"
    gather: dict[str, Any] = {"run": "served-gather/gather", "batch": True}
    polled(folder)
    polled(folder, **gather)
    put(folder / "c")
    put(folder / "d")
    assert said(polled(folder))[0] == "Completed: 2 new"
    assert said(polled(folder, **gather))[0] == "Completed: 1 run"
    runs = ended(api, "served-react/react", 2)
    assert {run["state_name"] for run in runs} == {"Completed"}
    for run in runs:
        logged(api, run, f"reacted created {run['parameters']['path']}")
    (run,) = ended(api, "served-gather/gather")
    assert (run["state_name"], run["run_count"]) == ("Completed", 2)
    logged(api, run, "gathered c d")

    # What Prefect starts a second time ends at once, and well.
    again = api.run_deployment("served-react/react", parameters=runs[0]["parameters"])
    assert api.finished(again) == "AlreadyTaken"
    assert api.run(again)["state_type"] == "COMPLETED"
    assert runs[0]["id"] in api.run(again)["state"]["message"]


def followed(host: PrefectHost, inbox: Path, run: dict[str, Any]) -> None:
    """Wait until a poll follows; a look that comes by its interval is far away then."""
    line = f"Following file://{inbox} as consumer"
    host.until("the poll to follow", lambda: line in host.logs_of(run["id"]))


def test_following_until_it_is_cancelled(api: PrefectHost, serving: Path, inbox: Path) -> None:
    """Files are noticed at once; a second poll ends at once; cancelled, it leaves nothing locked."""
    given = {"url": str(inbox), "consumer": "cancelled", "follow": True, "interval": 3600}
    run = api.run(api.run_deployment("poll-flow/watch", parameters=given))
    followed(api, inbox, run)
    put(inbox / "a")
    api.until("the event to be there", lambda: len(feed(api, inbox)) == 1)
    (event,) = feed(api, inbox)
    assert "prefect.tag.watching" in {one["prefect.resource.id"] for one in event["related"]}

    second = polled(inbox, consumer="cancelled")
    assert second.name == "AlreadyPolled"
    assert second.is_completed()
    assert "cancelled" in str(second.message)
    assert said(polled(inbox, consumer="another"))[0] == "Completed"

    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    api.ask("POST", f"flow_runs/{run['id']}/set_state", json=cancelling)
    assert api.finished(run["id"]) == "Cancelled"
    put(inbox / "b")
    state = api.until("the lease to be free", lambda: free(inbox, "cancelled"), 30)
    assert said(state)[0] == "Completed: 1 new"
    assert [event["payload"]["key"] for event in feed(api, inbox)] == ["a", "b"]


def free(inbox: Path, consumer: str) -> Any:
    """The state of a poll that was not kept out."""
    state = polled(inbox, consumer=consumer)
    return state if state.name != "AlreadyPolled" else None


@pytest.mark.slow
def test_following_in_a_script(api: PrefectHost, serving: Path, inbox: Path) -> None:
    """A run is made soon after a file has landed; the server's death only delays it; SIGTERM ends it."""
    api.python(FOLLOWS, str(inbox), "served-load/load", name="follows")

    def own() -> list[dict[str, Any]]:
        api.check("follows")
        found = api.flow_runs("poll-flow", states=["Running"])
        return [run for run in found if run["parameters"]["url"] == str(inbox)]

    (run,) = api.until("the poll to run", own)
    followed(api, inbox, run)

    def sizes() -> list[int]:
        runs = [one["parameters"] for one in made(api, "served-load/load")]
        return sorted(one["size"] for one in runs if one["url"].startswith(f"file://{inbox}/"))

    put(inbox / "a", 11)
    # Long before a look would come by the interval.
    api.until("a run to be made", lambda: sizes() == [11], 60)

    api.kill_server()
    put(inbox / "b", 12)
    api.start_server()
    put(inbox / "c", 13)
    api.until("runs to be made", lambda: sizes() == [11, 12, 13], 120)

    api.stop("follows", timeout=60)
    assert api.finished(run["id"]) in ("Crashed", "Cancelled")
    put(inbox / "d")
    state = free(inbox, "script")
    assert state is not None, "its lease is not free"
    assert said(state)[0] == "Completed: 1 new"
