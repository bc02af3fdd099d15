"""Containers of a real Swift, with a real Keystone: by a block of credentials, whatever is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from poller_prefect import SwiftCredentials, poll_flow, take_event
from prefect import flow
from pydantic import SecretStr

from poller_core import PollerError
from tests.prefect.steps import apply, made, polled, run_here, run_of, said
from tests.services.containers import Box
from tests.services.prefect_host import PrefectHost
from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, REGION, USER

WRONG = "wonderland-17"


@flow
def load_object(event_id: str, container: str, name: str, size: int, path: str | None) -> None:
    with take_event(event_id) as event:
        assert event.name == name
        SEEN.append((event.event, container, name, size, path))


#: What :func:`load_object` was given.
SEEN: list[tuple[Any, ...]] = []


def loaded(name: str) -> SwiftCredentials:
    """A block as a flow has it."""
    block = SwiftCredentials.load(name)
    assert isinstance(block, SwiftCredentials)
    return block


def by_password(aio: SwiftAIO, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {
        "auth_url": aio.env["OS_AUTH_URL"],
        "username": USER,
        "password": PASSWORD,
        "project_name": PROJECT,
        "region": REGION,
    }


def by_application(aio: SwiftAIO, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    made, secret = box.application_credential(f"for-{folder.name}")
    return {
        "auth_url": aio.env["OS_AUTH_URL"],
        "application_credential_id": made,
        "application_credential_secret": secret,
    }


def by_token(aio: SwiftAIO, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {
        "auth_url": aio.env["OS_AUTH_URL"],
        "auth_type": "v3token",
        "token": box.token,
        "project_name": PROJECT,
    }


def by_cloud(aio: SwiftAIO, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    auth = {
        "auth_url": aio.env["OS_AUTH_URL"],
        "username": USER,
        "password": PASSWORD,
        "project_name": PROJECT,
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    (folder / "clouds.yaml").write_text(
        json.dumps({"clouds": {"mine": {"auth": auth, "region_name": REGION}}})
    )
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(folder / "clouds.yaml"))
    return {"cloud": "mine"}


def by_tempauth(aio: SwiftAIO, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"auth_url": aio.env["ST_AUTH"], "username": aio.env["ST_USER"], "password": aio.env["ST_KEY"]}


#: Ways to be let in, and what of each to make wrong.
WAYS: dict[str, tuple[Callable[..., dict[str, Any]], str]] = {
    "password": (by_password, "password"),
    "application": (by_application, "application_credential_secret"),
    "token": (by_token, "token"),
    "cloud": (by_cloud, "cloud"),
    "tempauth": (by_tempauth, "password"),
}


@pytest.mark.parametrize("way", WAYS)
def test_object_has_its_run(
    api: PrefectHost,
    swift_aio: SwiftAIO,
    keystone: Box,
    request: pytest.FixtureRequest,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every kind of credentials: the block says that they are right, and an object has its run."""
    box: Box = request.getfixturevalue("box" if way == "tempauth" else "ks_box")
    given = WAYS[way][0](swift_aio, keystone, tmp_path, monkeypatch)
    SwiftCredentials(**given).save(f"store-{way}")
    account = "AUTH_test" if way == "tempauth" else f"AUTH_{swift_aio.env['AIO_PROJECT_ID']}"
    assert f"Swift: account {account}" in loaded(f"store-{way}").check()

    facts = {name: f"{{{{ {name} }}}}" for name in ("event_id", "container", "name", "size", "path")}
    more: dict[str, Any] = {
        "credentials": f"store-{way}",
        "run": apply(load_object),
        "parameters": facts,
        "consumer": f"by {way}",
    }
    box.put("old", b"there before")
    assert said(polled(box.url(user=False), **more)) == ("Completed", "nothing new")
    before = len(made(api, more["run"]))
    box.put("2026/sales #1 ü.csv", b"1,2")
    state = polled(box.url(user=False), **more)
    assert said(state) == ("Completed: 1 new", "1 new")
    (run,) = made(api, more["run"])[before:]
    del SEEN[:]
    assert run_here(load_object, run).is_completed()
    assert [("created", box.name, "2026/sales #1 ü.csv", 3, None)] == SEEN
    (event,) = api.events(prefix="poller.subject.", related=f"prefect.flow-run.{run['id']}")
    assert event["event"] == "poller.subject.created"
    assert event["resource"]["container"] == box.name
    assert (event["resource"]["key"], event["resource"]["suffix"]) == ("2026/sales #1 ü.csv", ".csv")
    assert "path" not in event["resource"]
    assert event["payload"]["size"] == 3


@pytest.mark.parametrize("way", WAYS)
def test_wrong_credentials_are_told(
    api: PrefectHost,
    swift_aio: SwiftAIO,
    keystone: Box,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, wrong = WAYS[way]
    given = make(swift_aio, keystone, tmp_path, monkeypatch)
    SwiftCredentials(**{**given, wrong: WRONG, "retries": 0}).save(f"wrong-{way}")
    says = {"cloud": f"cloud={WRONG!r}", "token": "no such token"}.get(way, "401")
    with pytest.raises(PollerError) as caught:
        loaded(f"wrong-{way}").check()
    assert says in str(caught.value)
    url = keystone.url(user=False)
    state = polled(url, credentials=f"wrong-{way}", consumer="wrong")
    assert state.is_failed()
    assert state.message is not None
    assert says in state.message
    if way != "cloud":  # which is a name
        assert WRONG not in str(caught.value)
        assert WRONG not in state.message
        api.until("its log", lambda: says in api.logs_of(run_of(api, state)["id"]))
        assert WRONG not in api.logs_of(run_of(api, state)["id"])


def test_credentials_that_nobody_can_try(api: PrefectHost, tmp_path: Path) -> None:
    block = SwiftCredentials(
        auth_url="http://127.0.0.1:1/v3",
        username="alice",
        password=SecretStr(WRONG),
        project_name="demo",
        retries=0,
    )
    with pytest.raises(PollerError, match=r"127\.0\.0\.1:1") as caught:
        block.check()
    assert WRONG not in str(caught.value)
    with pytest.raises(PollerError) as caught:
        SwiftCredentials(username="alice", password=SecretStr(WRONG)).check()
    assert WRONG not in str(caught.value)
    # What a form that was not filled in sends.
    with pytest.raises(PollerError) as caught:
        SwiftCredentials(username="", password=SecretStr(""), auth_url="").check()
    assert str(caught.value)


def test_container_that_is_not_there(api: PrefectHost, swift_aio: SwiftAIO, keystone: Box) -> None:
    SwiftCredentials(**by_password(swift_aio, keystone, Path(), pytest.MonkeyPatch())).save("store-missing")
    url = keystone.url(user=False).replace(keystone.name, "not-made")
    with pytest.raises(PollerError, match="not-made"):
        poll_flow(url, credentials="store-missing")


def test_object_that_is_gone_when_its_run_comes(api: PrefectHost, swift_aio: SwiftAIO, ks_box: Box) -> None:
    """The run is given its event all the same, and the deletion has one of its own."""
    SwiftCredentials(**by_password(swift_aio, ks_box, Path(), pytest.MonkeyPatch())).save("store-gone")
    facts = {name: f"{{{{ {name} }}}}" for name in ("event_id", "container", "name", "size", "path")}
    deployment = apply(load_object)
    more: dict[str, Any] = {"credentials": "store-gone", "run": deployment, "parameters": facts}
    assert said(polled(ks_box.url(user=False), **more))[0] == "Completed"
    before = len(made(api, deployment))
    ks_box.put("a", b"123")
    polled(ks_box.url(user=False), **more)
    ks_box.delete("a")
    assert said(polled(ks_box.url(user=False), **more)) == ("Completed: 1 deleted", "1 deleted")
    del SEEN[:]
    assert [run_here(load_object, run).type.name for run in made(api, deployment)[before:]] == [
        "COMPLETED"
    ] * 2
    assert [one[0] for one in SEEN] == ["created", "deleted"]
