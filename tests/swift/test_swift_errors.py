"""Each error names its situation, and none of them, nor any log, holds a secret."""

from __future__ import annotations

import os
import pickle
import sqlite3
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from poller_core import (
    AccessDenied,
    AuthenticationFailed,
    PollerError,
    SwiftPoller,
    TargetError,
    TargetNotFound,
)
from tests.services.containers import Box
from tests.services.swift_child import OTHER_PASSWORD, OTHER_USER, PASSWORD, PROJECT, USER
from tests.swift.tools import logged, poller, told


def _host(box: Box) -> str:
    return box.auth_host.partition("/")[0]


def test_a_container_that_is_not_there(ks_box):
    url = ks_box.url().replace(ks_box.name, ks_box.name + "x")
    with pytest.raises(TargetNotFound, match=f"no container '{ks_box.name}x'.*there is '{ks_box.name}'"):
        poller(ks_box, url)
    other = Box(ks_box.aio)
    with pytest.raises(TargetNotFound, match="expected an existing one"):
        poller(other)
    other.close()


@pytest.mark.parametrize("path", ["/v3", "", "/v2.0"])
@pytest.mark.parametrize("what", ["user", "password", "tenant"])
def test_wrong_credentials(ks_box, path, what):
    user, tenant, password = USER, PROJECT, PASSWORD
    info = {
        "user": f"nobody-else+{tenant}:{password}",
        "password": f"{user}+{tenant}:wrong",
        "tenant": f"{user}+admin:{password}",
    }[what]
    with pytest.raises(AuthenticationFailed, match=r"not authenticated.*Wrong user, password"):
        poller(ks_box, f"swift://{info}@{_host(ks_box)}{path}?{ks_box.name}")


def test_wrong_credentials_of_tempauth(box):
    with pytest.raises(AuthenticationFailed, match="v1password of test:tester"):
        poller(box, f"swift://test%3Atester:wrong@{_host(box)}/auth/v1.0?{box.name}")


def test_no_role(ks_box):
    url = f"swift://{OTHER_USER}+{PROJECT}:{OTHER_PASSWORD}@{_host(ks_box)}/v3?{ks_box.name}"
    with pytest.raises(AccessDenied, match=r"may not be read.*a role that may list it, or a read ACL"):
        poller(ks_box, url)
    ks_box.ask("POST", headers={"X-Container-Read": f"{PROJECT}:*,.rlistings"})
    ks_box.ask("POST", headers={"X-Container-Read": "*:*,.rlistings"})
    with poller(ks_box, url) as one:
        ks_box.put("a", b"1")
        assert told(one.get_new_events()) == [("a", "created")]


def test_a_token_for_no_project(ks_box):
    credentials = {"username": USER, "password": PASSWORD}
    with pytest.raises(AuthenticationFailed, match="valid for no project"):
        poller(ks_box, ks_box.url(user=False), credentials=credentials)


def test_a_region_that_is_not_there(ks_box):
    with pytest.raises(
        TargetError, match=r"no public endpoint.*region 'Mars'; there is: .*public in RegionOne"
    ):
        poller(ks_box, ks_box.url(region="Mars"))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1:1", "refuses the connection"),
        ("no-such-host.invalid", "no host of that name|can't be looked up"),
    ],
)
@pytest.mark.parametrize("path", ["/v3", ""])
def test_nobody_there(ks_box, host, said, path):
    with pytest.raises(TargetError, match=f"can't be reached: .*({said})"):
        poller(ks_box, f"swift://{USER}+{PROJECT}:{PASSWORD}@{host}{path}?c", retries=0)


@pytest.mark.parametrize("path", ["", "/v3"])
def test_what_is_no_keystone(box, path):
    with pytest.raises(PollerError, match=r"no Keystone|Keystone answered|not authenticated"):
        poller(box, f"swift://{USER}+{PROJECT}:{PASSWORD}@{_host(box)}{path}?c", retries=0)


def test_tls_to_a_plain_server(ks_box):
    with pytest.raises(TargetError, match=r"does not answer in TLS.*plain http"):
        poller(ks_box, ks_box.url().replace("swift:", "swifts:", 1), retries=0)


# -- secrets -----------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All that anything logs, with the loggers of the libraries turned up as far as they go."""
    with logged("", "keystoneauth", "swiftclient", "urllib3", "requests") as lines:
        yield lines


def _everything(error: BaseException) -> str:
    found = "".join(traceback.format_exception(error))
    chain: BaseException | None = error
    while chain is not None:
        found += f"{chain!r}{chain.args!r}"
        chain = chain.__cause__ or chain.__context__
    return found


def test_no_secret_gets_out(swift_aio, tmp_path, log, monkeypatch):
    """Scans what was written, said and stored for passwords, for tokens and for their beginnings."""
    secrets = {PASSWORD, "testing", "wr0ng-secret"}
    said: list[str] = []
    for keystone in (True, False):
        box = Box(swift_aio, keystone=keystone).create()
        state = tmp_path / f"state{keystone}.db"
        with poller(box, state=state) as one:
            for session in (one._session, one._shared.engine.source._account._shared):
                secrets.add(session.get().get_token()[:16])
            box.put("a", b"1")
            box.put("b", b"1")
            events = one.get_new_events()
            box.delete("b")
            events += one.get_new_events()
            one.open(events[0]).close()
            connection = one.connection()
            connection.head_container(box.name)
            connection.close()
            with (
                swift_aio.fault(box.server, "GET .*format=json", status=401),
                pytest.raises(PollerError) as caught,
            ):
                one.get_new_events()
            said.append(_everything(caught.value))
            secrets.add(one._session.get().get_token()[:16])
            for thing in (
                one,
                one.url,
                one._session,
                one._session.access,
                one._net,
                one._location,
                one._account,
            ):
                said.append(f"{thing!r} {thing!s}")
            said += [event.to_json() + repr(event) + repr(pickle.dumps(event.subject)) for event in events]
            said.append(one.status().to_json() if hasattr(one.status(), "to_json") else repr(one.status()))
        wrong = box.url().replace(f":{PASSWORD}@", ":wr0ng-secret@").replace(":testing@", ":wr0ng-secret@")
        assert "wr0ng" in wrong
        for url in (
            wrong,
            wrong.replace("@", "@no-such-host.invalid:1/"),
            wrong.replace("?", "?nothing"),
            wrong + "&x=1",
        ):
            with pytest.raises(PollerError) as caught:
                poller(box, url, retries=0)
            said.append(_everything(caught.value))
        with pytest.raises(PollerError) as caught:
            SwiftPoller(
                box.url(user=False), credentials={"username": "u", "password": "wr0ng-secret"}, retries=0
            )
        said.append(_everything(caught.value))
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        with sqlite3.connect(state) as database:
            stored += "\n".join(database.iterdump()).encode("utf-8", "surrogateescape")
        database.close()
        for secret in secrets:
            assert secret.encode() not in stored
        box.remove()
        box.close()
    assert any("keystoneauth" in line for line in log)
    assert any("swiftclient" in line for line in log)
    for secret in secrets:
        assert secret
        for text in [*said, *log]:
            assert secret not in text, f"{secret[:3]}… is in {text[:300]}"


def test_no_secret_in_the_environment_is_told(ks_box, monkeypatch, log):
    """What stands in OS_… is no business of anybody's either."""
    for name, value in {"USERNAME": USER, "PASSWORD": "wr0ng-secret", "PROJECT_NAME": PROJECT}.items():
        monkeypatch.setenv(f"OS_{name}", value)
    with pytest.raises(AuthenticationFailed) as caught:
        poller(ks_box, ks_box.url(user=False))
    assert "OS_… of the environment" in str(caught.value)
    everything: list[Any] = [_everything(caught.value), *log]
    assert not [text for text in everything if "wr0ng-secret" in text.replace(repr(os.environ), "")]
