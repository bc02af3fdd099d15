"""What goes wrong: called as a function it raises, and in a run of a deployment its state says what."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from poller_prefect import PollerState, SwiftCredentials, poll_flow
from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr

from poller_core import InvalidOption, PollerError, make_poller
from tests.prefect.burst import FOLLOWS, ROOT
from tests.prefect.steps import feed, put, state_file
from tests.services.prefect_host import HostError, PrefectHost

SECRET = "wonderland-17"

#: Runs polls that are scheduled.
POLLING = """
from prefect import flow
from poller_prefect import poll_flow
from tests.prefect.inline import run_inline

@flow
async def load(event_id: str, wanted: int = 0):
    pass

if __name__ == "__main__":
    run_inline((poll_flow, poll_flow.to_deployment("trouble")), (load, load.to_deployment("load")))
"""

#: The parameters of a poll, the class of its error, and what its message says besides. ``{box}`` is a
#: directory that is there, ``{states}`` one with states that can't be used.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no poller": ({"url": "gopher://example.org/x"}, "UnknownScheme", "there is no poller for 'gopher' URLs"),
    "malformed": ({"url": "swift://127.0.0.1/v3"}, "InvalidUrl", "names no container"),
    "relative": ({"url": "data/inbox"}, "InvalidUrl", "'data/inbox' is a relative path, and workers may"),
    "missing": ({"url": "{box}/missing"}, "TargetNotFound", "{box}/missing"),
    "no state": (
        {"state": "not-made"},
        "InvalidOption",
        "state='not-made': there is no block of that name and the type 'poller-state'. "
        "Make one with PollerState(…).save('not-made')",
    ),
    "no credentials": (
        {"url": "swift://127.0.0.1/v3?box", "credentials": "not-made"},
        "InvalidOption",
        "credentials='not-made': there is no block of that name and the type 'poller-swift-credentials'",
    ),
    "option": (
        {"options": {"recurze": True}},
        "InvalidOption",
        "unknown option 'recurze'; did you mean 'recurse'? options are: recurse,",
    ),
    "event": ({"events": "made"}, "InvalidOption", "expected"),
    "deployment": (
        {"run": "load/not-made"},
        "InvalidOption",
        "run='load/not-made': there is no such deployment; there are: ",
    ),
    "run": ({"run": "load"}, "InvalidOption", "run='load': expected '<flow>/<deployment>'"),
    "fact": (
        {"run": "load/load", "parameters": {"wanted": "{{ colour }}"}},
        "InvalidOption",
        "parameters: colour is no fact of an event; there are: url, event_id,",
    ),
    "batch": ({"batch": True}, "InvalidOption", "batch=True needs run='flow/deployment'"),
    "parameters": ({"parameters": {"a": 1}}, "InvalidOption", "parameters=… needs run='flow/deployment'"),
    "unreachable": (
        {"url": "swift://127.0.0.1:1/v3?box", "credentials": "trouble-store"},
        "TargetError",
        "127.0.0.1:1",
    ),
    "garbage": ({"state": "{states}/garbage.db"}, "StateDamaged", "{states}/garbage.db"),
    "newer": ({"state": "{states}/newer.db"}, "StateNewer", "is of version 999"),
    "directory": ({"state": "{states}/directory.db"}, "StateUnreadable", "{states}/directory.db"),
    "read-only": ({"state": "sqlite:////proc/poller/state.db"}, "StateUnreadable", "may be written to"),
    "database": (
        {"state": "trouble-database"},
        "StateUnreadable",
        "127.0.0.1",
    ),
}


@pytest.fixture(scope="module")
def places(work: Path) -> dict[str, str]:
    """A directory, and states that can't be used."""
    box, states = work / "trouble", work / "trouble-states"
    box.mkdir()
    put(box / "file")
    (states / "directory.db").mkdir(parents=True)
    (states / "garbage.db").write_bytes(b"this is no database\n" * 1000)
    newer = states / "newer.db"
    make_poller(box, state=f"sqlite:///{newer}", consumer="c").close()
    with closing(sqlite3.connect(newer)) as database:
        database.execute("UPDATE poller_meta SET value = '999'")
        database.commit()
    return {"box": str(box), "states": str(states)}


@pytest.fixture(scope="module")
def polling(api: PrefectHost, places: dict[str, str]) -> Iterator[PrefectHost]:
    """Runs what is scheduled for ``poll-flow/trouble``."""
    SwiftCredentials(
        auth_url="http://127.0.0.1:1/v3",
        username="alice",
        password=SecretStr(SECRET),
        project_name="demo",
        retries=0,
    ).save("trouble-store")
    PollerState(url=SecretStr(f"postgresql+psycopg://poller:{SECRET}@127.0.0.1:1/poller")).save(
        "trouble-database"
    )
    api.python(POLLING, name="polling", env={"PYTHONPATH": str(ROOT)})
    api.until("the deployment to be there", lambda: api.deployment("load/load"))
    yield api
    api.kill("polling")


def filled(given: Any, places: dict[str, str]) -> Any:
    """With the names of the places."""
    if isinstance(given, dict):
        return {name: filled(value, places) for name, value in given.items()}
    if isinstance(given, tuple):
        return tuple(filled(value, places) for value in given)
    if not isinstance(given, str):
        return given
    for name, place in places.items():
        given = given.replace(f"{{{name}}}", place)
    return given


@pytest.fixture(scope="module")
def deployed(polling: PrefectHost, places: dict[str, str]) -> dict[str, str]:
    """The runs that have to fail, all made at once."""

    def made(name: str) -> str:
        given = {"url": "{box}", "consumer": name, "patience": 30, **CASES[name][0]}
        # SQLite may keep a server of an older release waiting for as long as one asks it.
        return polling.run_deployment("poll-flow/trouble", filled(given, places), idempotency_key=name)

    return {name: polling.until("a run", lambda: made(name), 240) for name in CASES}  # noqa: B023


@pytest.mark.parametrize("case", CASES)
def test_bad_input(polling: PrefectHost, deployed: dict[str, str], places: dict[str, str], case: str) -> None:
    given, error, says = filled(CASES[case], places)
    before = len(polling.flow_runs("load"))
    with pytest.raises(PollerError) as caught:
        poll_flow(**{"url": places["box"], "consumer": f"{case}, called", "patience": 30, **given})
    run = deployed[case]
    assert polling.finished(run) == "Failed"
    message = polling.run(run)["state"]["message"]
    for kind, text in ((type(caught.value).__name__, str(caught.value)), message.split(": ", 1)):
        assert kind == error
        assert says in text
        assert SECRET not in text
    polling.until("its log", lambda: says in polling.logs_of(run))
    log = polling.logs_of(run)
    assert "Traceback" not in log
    assert SECRET not in log
    assert len(polling.flow_runs("load")) == before


def test_states_are_as_they_were(
    deployed: dict[str, str], places: dict[str, str], polling: PrefectHost
) -> None:
    for run in deployed.values():
        polling.finished(run)
    states = Path(places["states"])
    assert (states / "garbage.db").read_bytes() == b"this is no database\n" * 1000
    with closing(sqlite3.connect(states / "newer.db")) as database:
        assert database.execute("SELECT value FROM poller_meta").fetchall() == [("999",)]


@pytest.mark.parametrize(
    "given",
    [
        {"existing": "perhaps"},
        {"interval": 0},
        {"limit": 0},
        {"recurse": "deep"},
        {"parameters": ["a"]},
        {"url": None},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_no_run_is_made_with(
    polling: PrefectHost, places: dict[str, str], given: dict[str, Any]
) -> None:
    """The schema of the parameters tells it: to who calls, and by the server to who asks for a run."""
    with pytest.raises(HostError, match=rf"4\d\d .*{next(iter(given))}"):
        polling.run_deployment("poll-flow/trouble", {"url": places["box"], **given})
    with pytest.raises(ParameterTypeError, match=next(iter(given))):
        poll_flow(**{"url": places["box"], **given})


def test_argument_that_there_is_not(polling: PrefectHost, places: dict[str, str]) -> None:
    """Prefect's server takes any name; the run says that it is none."""
    given = {"url": places["box"], "recurze": True}
    with pytest.raises(InvalidOption, match="unknown option 'recurze'"):
        poll_flow(**given)
    run = polling.run_deployment("poll-flow/trouble", given)
    assert polling.finished(run) == "Failed"
    assert "recurze" in polling.run(run)["state"]["message"]


def test_target_that_goes_away(api: PrefectHost, inbox: Path) -> None:
    """While it is followed: that is told once, and it goes on when it is back."""
    folder = inbox / "mount"
    folder.mkdir()
    put(folder / "old")
    options = {"url": str(folder), "consumer": "away"}
    api.python(FOLLOWS, json.dumps(options), name="following", env={"PYTHONPATH": str(ROOT)})
    api.until("it to be followed", lambda: "Following" in api.log("following"))
    api.until("the first look", lambda: seen(api, folder))
    folder.rename(inbox / "elsewhere")
    api.until("it to be told", lambda: "is not there" in api.log("following").partition("trying again")[0])
    (inbox / "elsewhere").rename(folder)
    api.until("it to be back", lambda: f"file://{folder} can be looked at again" in api.log("following"))
    put(folder / "new")
    api.until("its event", lambda: feed(api, folder))
    # Nothing was taken for deleted, and nothing for new, that was there before.
    events = [(event["event"], event["payload"]["key"]) for event in feed(api, folder)]
    assert events == [("poller.subject.created", "new")]
    assert api.log("following").count("trying again") == 1
    api.kill("following")


def seen(host: PrefectHost, folder: Path) -> bool:
    with make_poller(folder, state=state_file(host), consumer="away") as poller:
        return poller.status().entries > 0
