"""The examples, as they stand, on a real Prefect: files land, and what each promises happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with Prefect
from poller_prefect import SwiftCredentials, on_created

from tests.prefect.tools import using
from tests.services.containers import Box
from tests.services.prefect_host import PrefectHost
from tests.services.swift_aio import SwiftAIO

EXAMPLES = Path(__file__).parent.parent.parent / "dags_examples" / "prefect"
NAMES = ["one.csv", "three.csv", "two.csv"]


@pytest.fixture
def serving(prefect_host: PrefectHost, inbox: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The example of that name is served, and has had its first look; what lands from then on is new."""
    name = request.param
    (inbox / "old.csv").write_text("there before")
    serve(prefect_host, name, POLLER_INBOX=str(inbox))
    poll = poll_of(name)

    def looked() -> bool:
        prefect_host.check(name)
        if name != "follow":
            return bool(prefect_host.flow_runs(deployment=poll, states=["Completed"]))
        running = prefect_host.flow_runs(deployment=poll, states=["Running"])
        return any("Following" in prefect_host.logs_of(run["id"]) for run in running)

    prefect_host.until("the first look", looked, 280)
    yield name
    assert prefect_host.stop(name, 60) == 0


def serve(host: PrefectHost, name: str, **environment: str) -> None:
    """Start an example, and its poll at once: by itself it would come after its interval."""
    host.python(EXAMPLES / f"{name}.py", name=name, env=environment)

    def there() -> bool:
        host.check(name)
        return "being served" in host.log(name)

    host.until("the deployments", there, 200)
    host.run_deployment(poll_of(name))


def poll_of(name: str) -> str:
    return f"poll-flow/{name.replace('_', '-')}"


def put(inbox: Path) -> None:
    """Three files land, whole."""
    for name in NAMES:
        new = inbox.parent / f"new-{inbox.name}-{name}"
        new.write_text("abc")
        new.rename(inbox / name)


def completed(host: PrefectHost, deployment: str, number: int) -> list[dict[str, Any]]:
    """The runs of a deployment, once so many have completed."""

    def there() -> list[dict[str, Any]]:
        runs = host.flow_runs(deployment=deployment)
        assert not [run for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
        done = [run for run in runs if run["state_type"] == "COMPLETED"]
        return done if len(done) >= number else []

    found: list[dict[str, Any]] = host.until(f"{number} runs of {deployment}", there, 280)
    return found


def said(host: PrefectHost, runs: list[dict[str, Any]], number: int) -> list[str]:
    """What flows printed of the files they loaded, once there are so many lines."""

    def lines() -> list[str]:
        logs = "\n".join(host.logs_of(run["id"]) for run in runs)
        found = [line for line in logs.splitlines() if line.startswith("load")]
        return sorted(found) if len(found) >= number else []

    found: list[str] = host.until("the runs' logs", lines)
    return found


@pytest.mark.parametrize("serving", ["run_per_file"], indirect=True)
def test_run_per_file(prefect_host: PrefectHost, serving: str, inbox: Path) -> None:
    put(inbox)
    runs = completed(prefect_host, "load-file/inbox", 3)
    assert sorted(run["name"] for run in runs) == [f"created {name}" for name in NAMES]
    assert sorted(run["parameters"]["path"] for run in runs) == [str(inbox / name) for name in NAMES]
    assert said(prefect_host, runs, 3) == [f"loading {inbox / name}, 3 bytes" for name in NAMES]


@pytest.mark.parametrize("serving", ["served_on_created"], indirect=True)
def test_served_on_created(prefect_host: PrefectHost, serving: str, inbox: Path) -> None:
    put(inbox)
    prefect_host.run_deployment(poll_of(serving))
    runs = completed(prefect_host, "load-created/inbox", 3)
    assert said(prefect_host, runs, 3) == [f"loading file://{inbox / name}, 3 bytes" for name in NAMES]
    events = prefect_host.events("poller.subject.created", resource=f"poller.subject.file://{inbox}/*")
    assert sorted(event["resource"]["key"] for event in events) == NAMES


@pytest.mark.parametrize("serving", ["one_run_for_many"], indirect=True)
def test_one_run_for_many(prefect_host: PrefectHost, serving: str, inbox: Path) -> None:
    put(inbox)
    runs = completed(prefect_host, "load-many/inbox", 1)
    (line,) = said(prefect_host, runs, 1)
    assert line == f"loaded 3 file(s): {dict.fromkeys(NAMES, 3)}"


@pytest.mark.slow
@pytest.mark.parametrize("serving", ["follow"], indirect=True)
def test_follow(prefect_host: PrefectHost, serving: str, inbox: Path) -> None:
    put(inbox)
    runs = completed(prefect_host, "load-at-once/inbox", 3)
    assert said(prefect_host, runs, 3) == [f"loading {inbox / name}, 3 bytes" for name in NAMES]
    # The watchdog's run has nothing to do.
    assert completed(prefect_host, "poll-flow/follow", 1)[0]["state_name"] == "AlreadyPolled"


@pytest.mark.slow
def test_swift_container(prefect_host: PrefectHost, swift_aio: SwiftAIO, ks_box: Box) -> None:
    environment = swift_aio.env
    with using(prefect_host):
        SwiftCredentials(
            auth_url=environment["OS_AUTH_URL"],
            username=environment["OS_USERNAME"],
            password=environment["OS_PASSWORD"],
            project_name=environment["OS_PROJECT_NAME"],
        ).save("poller-swift")
    name = "swift_container"
    serve(prefect_host, name, POLLER_CONTAINER=ks_box.name)
    completed(prefect_host, poll_of(name), 1)
    ks_box.put("a b.csv", b"12345")
    prefect_host.run_deployment(poll_of(name))
    runs = completed(prefect_host, "load-object/container", 1)
    assert said(prefect_host, runs, 1) == ["loading a b.csv, 5 bytes"]
    assert prefect_host.stop(name, 60) == 0


@pytest.mark.slow
def test_work_pool(prefect_host: PrefectHost, inbox: Path) -> None:
    environment = {"POLLER_INBOX": str(inbox)}
    prefect_host.worker("files", env=environment)
    before = prefect_host.env
    prefect_host.env = {**before, **environment}
    try:
        prefect_host.command("deploy", "--all", cwd=EXAMPLES)
    finally:
        prefect_host.env = before
    polls = ("poll-flow/pool-per-file", "poll-flow/pool-on-created")
    for poll in polls:
        prefect_host.run_deployment(poll)
    for poll in polls:
        completed(prefect_host, poll, 1)
    put(inbox)
    direct = completed(prefect_host, "load-file/pool", 3)
    assert said(prefect_host, direct, 3) == [f"loading {inbox / name}, 3 bytes" for name in NAMES]
    # Prefect may start one of these twice, as both polls emit the events; each file is loaded by one.
    triggered = completed(prefect_host, "load-created/pool", 3)
    assert said(prefect_host, triggered, 3) == [f"loading file://{inbox / name}, 3 bytes" for name in NAMES]
    for poll in polls:
        prefect_host.ask("PATCH", f"deployments/{prefect_host.deployment(poll)['id']}", json={"paused": True})
    assert prefect_host.stop("worker", 60) == 0


def test_trigger_in_text_is_what_is_printed() -> None:
    text = (EXAMPLES / "prefect.yaml").read_text().replace("{{ $POLLER_INBOX }}", "/data/inbox")
    (pasted,) = [
        trigger for one in yaml.safe_load(text)["deployments"] for trigger in one.get("triggers", [])
    ]
    made = on_created("/data/inbox", name=pasted["name"], parameters=["event_id"])
    assert [pasted] == yaml.safe_load(made.as_yaml())
