"""The triggers alone, in one event loop as the triggerer has it, with the real pollers below them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import Asset, Connection
from poller_airflow import PollerEventTrigger, PollerSensor, PollerTrigger, poller_asset
from poller_airflow.assets import trigger_of
from poller_airflow.connections import poller_options
from poller_airflow.watching import Watching

from poller_core import (
    FilePoller,
    InvalidOption,
    InvalidUrl,
    NoPoller,
    Poller,
    PollerError,
    StateUnreadable,
    make_poller,
)
from poller_core import poller as registry
from poller_core.backends.filesystem import FileSystem
from tests.airflow.tools import put


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


async def first(trigger: Any, seconds: float = 20) -> dict[str, Any]:
    """What a trigger fires first."""
    async with contextlib.aclosing(trigger.run()) as events:
        event = await asyncio.wait_for(anext(events), seconds)
        payload: dict[str, Any] = event.payload
        return payload


async def test_fires_for_what_waits_already(box: Path, state: str) -> None:
    with FilePoller(box, state=state, consumer="c"):
        pass
    put(box / "a")
    for _ in range(2):  # it takes nothing
        assert await first(PollerTrigger(str(box), "c", state=state)) == {
            "status": "waiting",
            "count": 1,
            "after": 0,
            "to": 1,
        }


async def test_fires_again_until_it_is_taken(box: Path, state: str) -> None:
    trigger = PollerEventTrigger(
        str(box), "c", state=state, poke_interval=0.05, remind=0.3, existing="report"
    )
    put(box / "a")
    events = trigger.run()
    seen = [(await asyncio.wait_for(anext(events), 20)).payload for _ in range(3)]
    assert seen == [{"url": str(box), "consumer": "c", "count": 1, "after": 0, "to": 1}] * 3
    assert json.loads(json.dumps(seen)) == seen
    with make_poller(box, state=state, consumer="c") as poller:
        poller.claim("run")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(events), 1.5)
    await events.aclose()


async def test_error_that_no_retry_mends_fails_the_task(box: Path, state: str) -> None:
    told = await first(PollerTrigger(str(box), "c", state=state, existing="perhaps"))
    assert told["status"] == "error"
    assert told["error"].startswith("InvalidOption: ")


async def test_event_trigger_never_ends(box: Path, state: str, caplog: pytest.LogCaptureFixture) -> None:
    trigger = PollerEventTrigger("gopher://example.org/x", "c", state=state)
    with pytest.raises(asyncio.TimeoutError):
        await first(trigger, 1.5)


async def test_hundred_triggers_cost_one_listing_an_interval(
    box: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without inotify, so that there is something to count."""
    put(box / "a")
    lists = 0
    real = FileSystem.open_dir

    def counted(*args: Any) -> int:
        nonlocal lists
        lists += 1
        return real(*args)

    monkeypatch.setattr("poller_core.local._must_deliver", _refuse)
    monkeypatch.setattr(FileSystem, "open_dir", counted)
    triggers = [
        PollerTrigger(str(box), f"c{number}", state=state, poke_interval=1.0) for number in range(100)
    ]
    waiting = [asyncio.ensure_future(first(trigger, 60)) for trigger in triggers]
    await asyncio.sleep(5)  # all of them are open by then
    before = lists
    await asyncio.sleep(5)
    assert 3 <= lists - before <= 8
    assert not any(task.done() for task in waiting)
    put(box / "b")
    assert [told["count"] for told in await asyncio.gather(*waiting)] == [1] * 100


def _refuse(url: Any) -> None:
    from poller_core import PollerRefused

    raise PollerRefused("made up: as on a network's file system")


async def test_cancelled_while_it_opens_leaves_nothing_open(
    box: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closed, go = threading.Event(), threading.Event(), threading.Event()
    real = FilePoller.__init__
    real_close = FilePoller.close

    def slow(self: Any, *args: Any, **options: Any) -> None:
        opened.set()
        go.wait(20)
        real(self, *args, **options)

    def close(self: Any) -> None:
        real_close(self)
        closed.set()

    monkeypatch.setattr(FilePoller, "__init__", slow)
    monkeypatch.setattr(FilePoller, "close", close)
    task = asyncio.ensure_future(first(PollerTrigger(str(box), "c", state=state)))
    await asyncio.to_thread(opened.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await asyncio.to_thread(closed.wait, 20)


def test_only_stores_its_arguments() -> None:
    """Whatever they are: a trigger that raises when it is made takes the whole triggerer with it."""
    strange: list[dict[str, Any]] = [
        {"url": None},
        {"url": "swift://a+b:c@host?x"},
        {"url": 1, "consumer": 2, "nonsense": object()},
    ]
    for arguments in strange:
        PollerTrigger(**arguments)
        PollerEventTrigger(**arguments)


def test_arguments_come_back(box: Path) -> None:
    given: dict[str, Any] = {
        "url": str(box),
        "consumer": "c",
        "conn_id": "store",
        "state": "sqlite:////tmp/x.db",
        "poke_interval": 3.0,
        "remind": 9.0,
        "limit": None,
        "batch_for": 1.5,
        "recurse": True,
        "include": ["*.csv"],
    }
    for kind in (PollerTrigger, PollerEventTrigger):
        path, kwargs = kind(**given).serialize()
        assert path == f"poller_airflow.triggers.{kind.__name__}"
        assert json.loads(json.dumps(kwargs)) == given | ({"hold": 0.0} if kind is PollerTrigger else {})
        assert kind(**kwargs).serialize() == (path, kwargs)


SECRETS = [
    {"url": "swift://alice+demo:wonderland-17@keystone.example.org/v3?box"},
    {"url": "swift://alice+demo:{{ conn.x.password }}wonderland-17@host?box"},
    {"url": "/data", "state": "postgresql+psycopg://poller:wonderland-17@db/poller"},
]


@pytest.mark.parametrize("arguments", SECRETS)
def test_secret_is_refused(arguments: dict[str, Any]) -> None:
    for make in (
        lambda: PollerSensor(task_id="wait", **arguments),
        lambda: PollerTrigger(consumer="c", **arguments).serialize(),
        lambda: PollerEventTrigger(consumer="c", **arguments).serialize(),
        lambda: poller_asset("inbox", **arguments),
    ):
        with pytest.raises((InvalidUrl, InvalidOption), match="connection") as caught:
            make()
        assert "wonderland" not in str(caught.value)


def test_credentials_are_refused() -> None:
    with pytest.raises(InvalidOption, match=r"credentials=… holds a secret"):
        poller_asset("inbox", "swift://host?box", credentials={"password": "wonderland-17"})
    with pytest.raises(InvalidOption, match=r"unknown option 'recurze'"):
        poller_asset("inbox", "/data", recurze=True)
    with pytest.raises(InvalidOption, match=r"existing='perhaps': expected 'ignore' or 'report'"):
        poller_asset("inbox", "/data", existing="perhaps")
    with pytest.raises(InvalidUrl, match="names no container"):
        poller_asset("inbox", "swift://host/v3")
    with pytest.raises(InvalidUrl, match="is a relative path"):
        poller_asset("inbox", "data/inbox")
    with pytest.raises(InvalidOption, match=r"needs consumer="):
        PollerEventTrigger("/data").serialize()
    with pytest.raises(InvalidOption, match=r"is not watched by a poller"):
        trigger_of("inbox")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"url": "~/inbox"}, "'~' and variables are for a shell to fill in"),
        ({"url": "/data/*.csv"}, r"expected the directory, '/data', and include=\['\*\.csv'\]"),
        ({"url": "s3://bucket/inbox"}, "there is no poller for 's3' URLs"),
        ({"url": "swif://host/v3?box"}, "did you mean 'swift'"),
        ({"interval": 5}, "did you mean 'poke_interval'"),
        ({"connection": "store"}, "did you mean 'conn_id'"),
        ({"settle": "5 seconds"}, "settle='5 seconds': expected a number of seconds"),
        ({"include": "*.csv,*.txt"}, "expected a list, include="),
        ({"state": "state.db"}, r"is another file for who is in another directory.*in \[poller\] state of"),
        ({"state": ":memory:"}, r"ends with the process.*in \[poller\] state of Airflow's configuration"),
    ],
)
def test_mistakes_are_told_where_the_dag_is_read(arguments: dict[str, Any], says: str) -> None:
    """A watcher's errors are told in the triggerer's output only."""
    with pytest.raises(PollerError, match=says):
        poller_asset("inbox", **{"url": "/data", **arguments})


def test_state_of_the_task_comes_before_the_connections(box: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs" / "state.db", tmp_path / "ours" / "state.db"
    extra = json.dumps({"state": f"sqlite:///{theirs}"})
    connection = poller_options(Connection(conn_id="store", conn_type="poller", extra=extra))
    Watching(str(box), "c").open_with(connection).close()
    assert theirs.exists()
    Watching(str(box), "c", state=f"sqlite:///{ours}").open_with(connection).close()
    assert ours.exists()
    assert ours.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StateUnreadable, match=r"can't be made.*expected a place that may be written to"):
        Watching(str(box), "c", state="sqlite:////dev/null/state.db").open()
    with pytest.raises(InvalidUrl, match=r"'box' is a relative path"):
        Watching("box", "c").open()


def test_poller_without_a_journal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(Poller):
        def get_new_events(self) -> list[Any]:
            return []

    monkeypatch.setattr(registry, "_registry", {"clock": [Clock]})
    with pytest.raises(NoPoller, match="Clock, which is registered for 'clock' URLs, has no journal"):
        Watching("clock://wall", "c", state=f"sqlite:///{tmp_path}/state.db").open()


def test_uri_of_an_asset_names_its_container() -> None:
    uri = "swift://keystone.example.org:5000/v3?container=inbox"
    assert Asset(uri).uri == uri
    # Airflow would drop "inbox", and all containers would be one asset.
    with pytest.raises(InvalidUrl, match=r"swift://keystone.example.org/v3\?container=inbox"):
        Asset("swift://keystone.example.org/v3?inbox")


def test_provider_is_shown_whole_and_without_a_warning(tmp_path: Path) -> None:
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}

    def airflow(*args: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("airflow")), *args],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for word in ("poller", "Poller"):
            assert word not in done.stderr
        return done.stdout

    info = json.loads(airflow("providers", "get", "poller-core", "--full", "-o", "json"))[0]
    assert info["provider_info"]["connection-types"] if "provider_info" in info else info
    assert "poller" in airflow("providers", "hooks", "-o", "json")
    assert "poller_airflow.triggers" in airflow("providers", "triggers", "-o", "json")
    assert "poller_airflow.queues.PollerMessageQueueProvider" in airflow("providers", "queues", "-o", "json")
    assert "poller_airflow.links.DispatchedRunsLink" in airflow("providers", "links", "-o", "json")
    assert (
        airflow("config", "get-value", "poller", "state").strip() == f"sqlite:///{tmp_path}/poller/state.db"
    )


def test_error_of_airflow_itself() -> None:
    """What the sensor raises is what Airflow counts as a failure that may be retried, or may not."""
    from airflow.providers.common.compat.sdk import AirflowFailException
    from poller_airflow.watching import as_airflow_has_it

    from poller_core import TargetNotFound

    with pytest.raises(AirflowFailException, match=r"^InvalidUrl: what$"), as_airflow_has_it():
        raise InvalidUrl("what")
    with pytest.raises(AirflowException, match=r"^TargetNotFound: what$") as caught, as_airflow_has_it():
        raise TargetNotFound("what")
    assert not isinstance(caught.value, AirflowFailException)
