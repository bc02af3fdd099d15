"""Secrets are given in every way there is, right and wrong ones; then they are looked for everywhere."""

from __future__ import annotations

import base64
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from poller_prefect import PollerState, SwiftCredentials, poll_flow, take_event
from prefect import flow
from pydantic import SecretStr

from poller_core import InvalidOption, InvalidUrl
from tests.prefect.burst import ROOT
from tests.prefect.steps import apply, made, polled, run_here
from tests.prefect.tools import sent
from tests.services.containers import Box
from tests.services.prefect_host import HostError, PrefectHost
from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, USER

WRONG = "wonderland-1865"
IN_URL = "wonderland-1871"
OF_STATE = "wonderland-1876"

POLLING = """
from poller_prefect import poll_flow
from tests.prefect.inline import run_inline

if __name__ == "__main__":
    run_inline((poll_flow, poll_flow.to_deployment("secrets")))
"""
#: As people write it; the password comes from elsewhere, so that this file has none.
PREFECT_YAML = """
deployments:
- name: from-yaml
  entrypoint: polls.py:poll_flow
  work_pool: {name: secrets}
  parameters:
    url: "{{ $SECRET_URL }}"
"""


@flow
def keep(event_id: str, url: str) -> None:
    with take_event(event_id):
        print(url)


def blocks(aio: SwiftAIO, box: Box, secret: tuple[str, str]) -> dict[str, SwiftCredentials]:
    """A block for each kind of secret, and one with a wrong one."""
    where: dict[str, Any] = {"auth_url": aio.env["OS_AUTH_URL"], "retries": 0}
    who: dict[str, Any] = {**where, "username": USER, "project_name": PROJECT}
    return {
        "secret-password": SwiftCredentials(**who, password=SecretStr(PASSWORD)),
        "secret-application": SwiftCredentials(
            **where, application_credential_id=secret[0], application_credential_secret=SecretStr(secret[1])
        ),
        "secret-token": SwiftCredentials(
            **where, token=SecretStr(box.token), auth_type="v3token", project_name=PROJECT
        ),
        "secret-wrong": SwiftCredentials(**who, password=SecretStr(WRONG)),
    }


def refused(host: PrefectHost, folder: Path) -> None:
    """Passwords where none belongs: nothing takes them."""
    url = f"swift://{USER}+{PROJECT}:{IN_URL}@127.0.0.1:5000/v3?box"
    state = f"postgresql+psycopg://poller:{OF_STATE}@127.0.0.1:1/poller"
    before = len(host.flow_runs("poll-flow"))
    for given in (
        {"url": url},
        {"url": url.replace("?box", "/?{{ x }}")},
        {"url": "/data", "state": state},
        {"url": "/data", "options": {"password": IN_URL}},
        {"url": "/data", "options": {"credentials": {"token": IN_URL}}},
    ):
        ways: list[Any] = [
            lambda given=given: poll_flow(**given),
            lambda given=given: poll_flow(**given, return_state=True),
            lambda given=given: poll_flow.to_deployment("refused", parameters=given),
            lambda given=given: poll_flow.serve("refused", parameters=given),
            lambda given=given: poll_flow.deploy("refused", work_pool_name="secrets", parameters=given),
        ]
        for way in ways:
            with pytest.raises((InvalidUrl, InvalidOption), match="Prefect would store it") as caught:
                way()
            assert "wonderland" not in str(caught.value)
        if "options" not in given:
            body = {"name": "refused", "flow_id": host.deployment("poll-flow/secrets")["flow_id"]}
            schema = host.deployment("poll-flow/secrets")["parameter_openapi_schema"]
            with pytest.raises(HostError, match=r"4\d\d .*No password here"):
                host.run_deployment("poll-flow/secrets", given)
            with pytest.raises(HostError, match=r"4\d\d .*No password here"):
                host.ask(
                    "POST",
                    "deployments/",
                    json={
                        **body,
                        "parameters": given,
                        "parameter_openapi_schema": schema,
                        "enforce_parameter_schema": True,
                    },
                )
    folder.mkdir()
    (folder / "prefect.yaml").write_text(PREFECT_YAML)
    (folder / "polls.py").write_text("from poller_prefect import poll_flow\n")
    host.ask("POST", "work_pools/", json={"name": "secrets", "type": "process"})
    host.env["SECRET_URL"] = url
    try:
        done = host.command("--no-prompt", "deploy", "--all", cwd=folder, check=False)
    finally:
        del host.env["SECRET_URL"]
    assert done.returncode
    assert "No password here" in "".join((done.stdout + done.stderr).split("\n"))
    with pytest.raises(HostError, match="404"):
        host.deployment("poll-flow/from-yaml")
    with pytest.raises(HostError, match="404"):
        host.deployment("poll-flow/refused")
    assert len(host.flow_runs("poll-flow")) == before


def encodings(word: str) -> set[bytes]:
    """How a secret may be written."""
    raw = word.encode()
    # Wherever it begins within the groups of three; what is left of a short one stands anywhere by chance.
    packed = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return {raw, quote(word, safe="").encode(), raw.hex().encode(), *(one for one in packed if len(one) > 7)}


def found(content: bytes, secrets: list[str]) -> list[str]:
    return [word for word in secrets if any(one in content for one in encodings(word))]


@pytest.mark.slow
def test_no_secret_is_left_anywhere(
    api: PrefectHost,
    swift_aio: SwiftAIO,
    keystone: Box,
    work: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = keystone.application_credential("for-secrets")
    secrets = [PASSWORD, secret[1], keystone.token, WRONG, IN_URL, OF_STATE]
    api.python(POLLING, name="polling", env={"PYTHONPATH": str(ROOT)})
    api.until("the deployment to be there", lambda: api.deployment("poll-flow/secrets"))
    url, deployment = keystone.url(user=False), apply(keep)

    # Called and deployed, once for nothing and once for an object, with runs that take their events.
    given = blocks(swift_aio, keystone, secret)
    for number in range(2):
        runs = []
        for name, block in given.items():
            block.save(name, overwrite=True)
            more = {"credentials": name, "run": deployment, "consumer": name}
            state = polled(url, **more)
            assert state.is_failed() == (name == "secret-wrong")
            assert state.name == (
                "Failed" if name == "secret-wrong" else f"Completed: {number} new" if number else "Completed"
            )
            runs.append(api.run_deployment("poll-flow/secrets", {"url": url, **more}))
        assert [api.finished(run) for run in runs] == ["Completed"] * 3 + ["Failed"]
        keystone.put("sales.csv", b"1,2")
    for run in made(api, deployment):
        assert run_here(keep, run).is_completed()
    PollerState(url=SecretStr(f"postgresql+psycopg://poller:{OF_STATE}@127.0.0.1:1/poller")).save(
        "secret-state"
    )
    assert polled(url, credentials="secret-password", state="secret-state").is_failed()
    refused(api, tmp_path / "yaml")
    api.kill("polling")
    sent()

    # In files: databases with their logs, what processes wrote, our state, Prefect's own storage.
    paths = [path for path in api.home.rglob("*") if path.is_file()]
    assert {"prefect.db", "prefect.db-wal", "state.db", "server.log", "polling.log"} <= {
        path.name for path in paths
    }
    left = {str(path): found(path.read_bytes(), secrets) for path in paths}
    assert not {path: words for path, words in left.items() if words}
    # In Prefect's database, as text; with what has to be there, to see that this can be found at all.
    with closing(sqlite3.connect(f"file:{api.home}/prefect.db?mode=ro", uri=True)) as database:
        text = "\n".join(database.iterdump()).encode()
    assert not found(text, secrets)
    for there in (
        keystone.name,
        "secret-application",
        "sales.csv",
        "AuthenticationFailed",
        "StateUnreadable",
    ):
        assert found(text, [there]), there
    # What the API tells of blocks, runs, logs, events and artifacts; and what was written here.
    told = [api.blocks(), api.flow_runs(), api.events(), api.artifacts(), api.pages("logs/filter")]
    assert not found(repr(told).encode(), secrets)
    captured = capfd.readouterr()
    assert not found((captured.out + captured.err + caplog.text).encode(), secrets)
    assert not found(repr(given).encode(), secrets)
    assert os.environ["PREFECT_HOME"] == str(api.home)
