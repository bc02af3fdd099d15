"""Swift by a connection, on a real Swift and a real Keystone; and what is left of its secrets anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from poller_airflow import PollerHook

from tests import test_docstrings
from tests.airflow.tools import consumers, found_in
from tests.services.airflow_host import AirflowHost, HostError
from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, USER

#: Everything secret that the tests here give to Airflow.
SECRETS = [PASSWORD, "wonderland-17", "wonderland-state"]


def connection(aio: SwiftAIO, **fields: Any) -> dict[str, Any]:
    """A connection with user and password, as the form would send it."""
    extra = {"project_name": PROJECT, "retries": 0, **fields.pop("extra", {})}
    usual = {"conn_type": "poller", "host": aio.env["OS_AUTH_URL"], "login": USER, "password": PASSWORD}
    return {
        **usual,
        **fields,
        "extra": json.dumps({name: value for name, value in extra.items() if value is not None}),
    }


def button(host: AirflowHost, body: dict[str, Any]) -> tuple[bool, str]:
    """What the button *Test* of the form says."""
    answer = host.ask("POST", "connections/test", json={"connection_id": "being_made", **body})
    return answer["status"], answer["message"]


@pytest.fixture(scope="module")
def example(host: AirflowHost, swift_aio: SwiftAIO, state: Path) -> Iterator[Box]:
    """The container of the example, which is watched, and in which something has landed.

    It is looked at once a minute, which passes while other tests run.
    """
    inbox = Box(swift_aio, "example", keystone=True).create()
    inbox.put("old", b"there before")
    host.ask("POST", "connections", json={"connection_id": "poller_swift", **connection(swift_aio)})
    host.pause("swift_container", False)
    host.until("it to be watched", lambda: "swift_inbox" in consumers(state))
    inbox.put("a", b"123")
    yield inbox
    host.pause("swift_container")
    inbox.remove()
    inbox.close()


def test_button(host: AirflowHost, swift_aio: SwiftAIO, keystone: Box, example: Box) -> None:
    well, said = button(host, connection(swift_aio))
    assert well, said
    assert f"Swift: account AUTH_{swift_aio.env['AIO_PROJECT_ID']}" in said
    assert "state: " in said
    # Keystone's address in parts, as other forms ask for it.
    where = urlsplit(swift_aio.env["OS_AUTH_URL"])
    parts = {"host": f"http://{where.hostname}", "port": where.port, "schema": "v3"}
    assert button(host, connection(swift_aio, **parts))[0]
    tempauth = {"host": swift_aio.env["ST_AUTH"], "login": swift_aio.env["ST_USER"]}
    well, said = button(
        host,
        connection(swift_aio, **tempauth, password=swift_aio.env["ST_KEY"], extra={"project_name": None}),
    )
    assert well, said
    assert "Swift: account AUTH_test" in said
    token = keystone.token
    well, said = button(
        host, connection(swift_aio, login=None, password=None, extra={"token": token, "auth_type": "v3token"})
    )
    assert well, said
    assert token not in said


def test_button_for_an_application_credential(host: AirflowHost, swift_aio: SwiftAIO, keystone: Box) -> None:
    made, secret = keystone.application_credential("for-airflow")
    body = connection(
        swift_aio,
        login=None,
        password=secret,
        extra={"project_name": None, "application_credential_id": made},
    )
    well, said = button(host, body)
    assert well, said
    assert secret not in said
    well, said = button(host, {**body, "password": "wonderland-17"})
    assert not well
    assert "wonderland-17" not in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"password": "wonderland-17"}, "401"),
        ({"host": "http://127.0.0.1:1/v3"}, "127.0.0.1:1"),
        ({"extra": {"project_name": "not-there"}}, "401"),
        ({"extra": {"projekt": "demo"}}, "projekt"),
        ({"extra": {"retries": "many"}}, "retries is no number"),
        ({"extra": {"insecure": "perhaps"}}, "insecure is neither true nor false"),
        ({"extra": {"state": "sqlite:///relative/state.db"}}, "another file for who is in another directory"),
        (
            {"extra": {"state": "postgresql+psycopg://poller:wonderland-state@127.0.0.1:1/poller"}},
            "127.0.0.1",
        ),
        ({"host": None}, "no address to try them at"),
    ],
    ids=["password", "unreachable", "project", "unknown", "number", "flag", "state", "database", "no host"],
)
def test_button_says_what_is_wrong(
    host: AirflowHost, swift_aio: SwiftAIO, fields: dict[str, Any], says: str
) -> None:
    well, said = button(host, connection(swift_aio, **fields))
    assert not well, said
    assert says in said
    for secret in SECRETS:
        assert secret not in said


def test_sensor_on_a_container(host: AirflowHost, swift_aio: SwiftAIO, keystone: Box) -> None:
    host.ask("POST", "connections", json={"connection_id": "cloud", **connection(swift_aio)})
    conf = {"inbox": keystone.url(user=False), "conn_id": "cloud"}
    run = host.trigger("sensor_conn", conf)
    host.state_of("sensor_conn", run, "wait", "deferred")
    keystone.put("2026/sales #1.csv", b"1,2")
    assert host.finished("sensor_conn", run) == "success"
    (event,) = host.xcom("sensor_conn", run, "wait")
    assert event["event"] == "created"
    assert (event["container"], event["name"]) == (keystone.name, "2026/sales #1.csv")
    assert event["size"] == 3
    assert "path" not in event
    log = host.task_log("sensor_conn", run, "wait")
    assert "Claimed 1 event(s)" in log


# Airflow 3.1 imports its tables here, with a SQLAlchemy that warns of them; and takes that for "not found".
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_example_of_the_hook(
    swift_aio: SwiftAIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its docstring; here in the tests' own process."""
    (example,) = (one for one in test_docstrings.examples("poller_airflow") if "Hook" in one.place)
    monkeypatch.setenv("AIRFLOW_CONN_MY_STORE", json.dumps(connection(swift_aio)))
    monkeypatch.setenv("AIRFLOW__POLLER__STATE", f"sqlite:///{tmp_path}/state.db")
    inbox = Box(swift_aio, "inbox", keystone=True).create()
    try:
        names = test_docstrings.run(example, PollerHook=PollerHook)
        inbox.put("a.csv", b"123")
        # The claim of before had nothing, so it is none yet.
        test_docstrings.run(example, PollerHook=PollerHook)
        assert capsys.readouterr().out == "created a.csv\n"
        assert names["hook"].claims("swift://?inbox", consumer="mine") == [("run-7", 1)]
    finally:
        inbox.remove()
        inbox.close()


def test_password_that_a_template_gives(host: AirflowHost, swift_aio: SwiftAIO, keystone: Box) -> None:
    """It is there only when the task runs, and is refused before Airflow stores what the template became."""
    run = host.trigger("template_with_secret")
    assert host.finished("template_with_secret", run) == "failed"
    log = host.task_log("template_with_secret", run, "wait")
    assert "there is a password in the URL" in log
    assert PASSWORD not in log


def test_dags_with_a_secret_are_import_errors(host: AirflowHost, work: Path) -> None:
    head = "from airflow.sdk import DAG, Asset, AssetWatcher\nfrom poller_airflow import PollerSensor\n"
    queue = "from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger\n"
    sensor = head + "with DAG({name!r}, schedule=None):\n    PollerSensor{call}\n"
    asset = head + queue + "with DAG({name!r}, schedule=[Asset{call}]):\n    pass\n"
    url = "swift://alice+demo:wonderland-17@127.0.0.1/v3?box"
    calls = {
        "plain": f"(task_id='wait', url={url!r})",
        "partial": f".partial(task_id='wait', url={url!r}).expand(consumer=['a', 'b'])",
        "expand": f".partial(task_id='wait').expand(url=['/data', {url!r}])",
        "kwargs": f".partial(task_id='wait').expand_kwargs([{{'url': {url!r}}}])",
        "asset": f"({url.replace('?box', '?container=box')!r})",
        "queue": "('q', watchers=[AssetWatcher(name='w', trigger=MessageQueueTrigger("
        f"scheme='poller', consumer='c', url={url!r}))])",
    }
    files = {name: work / "dags" / f"secret_{name}.py" for name in calls}
    for name, call in calls.items():
        text = asset if name in ("asset", "queue") else sensor
        files[name].write_text(text.format(name=f"secret_{name}", call=call))
    try:

        def errors() -> dict[str, str]:
            found = host.get("importErrors", limit=100)["import_errors"]
            return {Path(one["filename"]).stem: one["stack_trace"] for one in found}

        host.until("their import errors", lambda: {f"secret_{name}" for name in calls} <= set(errors()))
        for name in calls:
            said = errors()[f"secret_{name}"]
            assert "there is a password in the URL" in said
            assert "conn_id='my_store'" in said
            with pytest.raises(HostError, match="404"):
                host.get(f"dags/secret_{name}")
    finally:
        for path in files.values():
            path.unlink()
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                compiled.unlink()


@pytest.mark.slow
def test_example_of_a_container(host: AirflowHost, example: Box) -> None:
    (run,) = host.until("a run", lambda: host.runs("swift_container"), 180)
    assert host.finished("swift_container", run["dag_run_id"]) == "success"
    assert host.xcom("swift_container", run["dag_run_id"], "load") == {"a": 3}


def test_no_secret_is_left_anywhere(host: AirflowHost, work: Path) -> None:
    """Metadata database, task logs, the services' logs, and the state: below one directory."""
    assert not found_in(work / "home", SECRETS)
    assert (work / "home" / "airflow.db").stat().st_size > 100_000
    assert (work / "home" / "poller" / "state.db").stat().st_size > 10_000
