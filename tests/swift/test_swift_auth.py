"""Every way of being authenticated, on a real Keystone and a real TempAuth; and who shares what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from poller_core import AuthenticationFailed, SwiftPoller, TargetError, make_poller
from poller_core.backends.swift import sessions
from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, USER
from tests.swift.tools import poller, told


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OS_CLOUD", "OS_USERNAME", "OS_PASSWORD", "ST_USER", "ST_KEY", "OS_REGION_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keystone(swift_aio: SwiftAIO) -> Iterator[Any]:
    """Ask Keystone for something, as the user."""
    box = Box(swift_aio, keystone=True)
    box._authenticate()

    def ask(method: str, path: str, **options: Any) -> Any:
        headers = {"X-Auth-Token": box._token, **options.pop("headers", {})}
        answer = requests.request(method, swift_aio.env["OS_AUTH_URL"] + path, headers=headers, **options)
        answer.raise_for_status()
        return answer

    ask.token = box._token  # type: ignore[attr-defined]
    yield ask
    box.close()


def works(box: Box, url: str, **options: Any) -> None:
    with SwiftPoller(url, existing="report", retries=0, **options) as one:
        assert told(one.get_new_events()) == [("a", "created")]
        with one.open(one._shared.engine.source.subject(b"a")) as file:
            assert file.read() == b"1"


@pytest.fixture
def with_one(ks_box: Box) -> Box:
    ks_box.put("a", b"1")
    return ks_box


def _bare(box: Box, path: str = "/v3", user: str = "") -> str:
    host = box.auth_host.partition("/")[0]
    return f"swift://{user}{host}{path}?{box.name}"


# -- in the URL --------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v3", "/v3/", "", "/", "/v2.0"])
def test_user_and_tenant(with_one, path):
    works(with_one, _bare(with_one, path, f"{USER}+{PROJECT}:{PASSWORD}@"))


@pytest.mark.parametrize("scheme", ["swift", "swt"])
def test_schemes(with_one, scheme):
    url = with_one.url().replace("swift:", f"{scheme}:", 1)
    with make_poller(url) as one:
        assert type(one) is SwiftPoller
        with_one.put("b", b"2")
        (event,) = one.get_new_events()
        assert str(event.subject) == with_one.subject("b").replace("swift:", f"{scheme}:", 1)


def test_domain_and_region(with_one):
    works(with_one, with_one.url(domain="Default", region=with_one.region))
    with pytest.raises(AuthenticationFailed, match="Wrong user, password"):
        poller(with_one, with_one.url(domain="Elsewhere"))


@pytest.mark.parametrize("user", ["test%3Atester:testing@", "tester+test:testing@"])
def test_tempauth(box, user):
    box.put("a", b"1")
    works(box, _bare(box, "/auth/v1.0", user))


# -- besides it --------------------------------------------------------------


def test_os_variables(with_one, monkeypatch):
    for name, value in with_one.aio.env.items():
        if name.startswith("OS_"):
            monkeypatch.setenv(name, value)
    works(with_one, _bare(with_one))
    works(with_one, f"swift://?{with_one.name}")  # where OS_AUTH_URL says
    monkeypatch.delenv("OS_AUTH_TYPE")
    works(with_one, _bare(with_one))
    monkeypatch.delenv("OS_PROJECT_NAME")
    monkeypatch.setenv("OS_TENANT_NAME", PROJECT)  # its old name
    works(with_one, _bare(with_one))


def test_st_variables(box, monkeypatch):
    box.put("a", b"1")
    for name in ("ST_AUTH", "ST_USER", "ST_KEY"):
        monkeypatch.setenv(name, box.aio.env[name])
    works(box, box.url(user=False))
    works(box, f"swift://?{box.name}")


def test_a_token(with_one, keystone):
    credentials = {"token": keystone.token, "project_name": PROJECT, "project_domain_id": "default"}
    works(with_one, _bare(with_one), credentials=credentials)
    works(with_one, _bare(with_one, ""), credentials=credentials)
    with pytest.raises(AuthenticationFailed, match="no such token; it was revoked, or has expired"):
        poller(with_one, _bare(with_one), credentials={**credentials, "token": "wonderland-17"})


def test_an_application_credential(with_one, keystone, monkeypatch):
    user, name = with_one.aio.env["AIO_USER_ID"], f"for-{with_one.name}"
    made, secret = with_one.application_credential(name)
    by_id = {
        "application_credential_id": made,
        "application_credential_secret": secret,
        "project_name": PROJECT,  # as it stands in many an openrc file; Keystone would refuse to be told
    }
    works(with_one, _bare(with_one), credentials=by_id)
    by_name = {
        "auth_type": "v3applicationcredential",
        "application_credential_name": name,
        "application_credential_secret": secret,
        "username": USER,
        "user_domain_id": "default",
    }
    works(with_one, _bare(with_one), credentials=by_name)
    monkeypatch.setenv("OS_AUTH_TYPE", "v3applicationcredential")
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_ID", made)
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_SECRET", secret)
    works(with_one, _bare(with_one))
    keystone("DELETE", f"/users/{user}/application_credentials/{made}")
    with pytest.raises(AuthenticationFailed, match="no such application credential"):
        poller(with_one, _bare(with_one), credentials=by_id)


def test_clouds_yaml(with_one, monkeypatch, tmp_path):
    env = with_one.aio.env
    auth = {"auth_url": env["OS_AUTH_URL"], "username": USER, "password": PASSWORD, "project_name": PROJECT}
    auth |= {"user_domain_id": "default", "project_domain_id": "default"}
    clouds = {"clouds": {"mine": {"auth": auth, "region_name": env["OS_REGION_NAME"]}}}
    (tmp_path / "clouds.yaml").write_text(json.dumps(clouds))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    works(with_one, _bare(with_one), cloud="mine")
    with pytest.raises(TargetError, match=r"no public endpoint.*region 'Mars'"):
        poller(with_one, _bare(with_one), cloud="mine", region="Mars")
    with pytest.raises(Exception, match="cloud='yours'"):
        poller(with_one, _bare(with_one), cloud="yours")
    monkeypatch.setenv("OS_CLOUD", "mine")
    works(with_one, _bare(with_one))


def test_a_session_and_a_plugin_of_the_callers(with_one):
    from keystoneauth1.identity import v3
    from keystoneauth1.session import Session

    plugin = v3.Password(
        with_one.aio.env["OS_AUTH_URL"],
        username=USER,
        password=PASSWORD,
        project_name=PROJECT,
        user_domain_id="default",
        project_domain_id="default",
    )
    http = requests.Session()  # which keystoneauth1 closes itself only in newer releases
    session = Session(auth=plugin, session=http)
    works(with_one, _bare(with_one), auth=plugin)
    works(with_one, _bare(with_one), session=session)
    assert session.get_token()  # it is the caller's, and was not closed
    http.close()


# -- TLS ---------------------------------------------------------------------


def test_tls(monkeypatch):
    with SwiftAIO(tls=True) as aio:
        monkeypatch.delenv("OS_CACERT", raising=False)
        for keystone in (True, False):
            box = Box(aio, keystone=keystone).create()
            box.put("a", b"1")
            assert box.url().startswith("swifts://")
            works(box, box.url(), cacert=aio.env["AIO_CACERT"])
            works(box, box.url().replace("swifts", "swts", 1), cacert=aio.env["AIO_CACERT"])
            with pytest.warns(Warning, match="Unverified HTTPS"):
                works(box, box.url(), insecure=True)
            with monkeypatch.context() as patch:
                patch.setenv("OS_CACERT", aio.env["AIO_CACERT"])
                works(box, box.url())
            with pytest.raises(TargetError, match=r"certificate of Keystone is not trusted.*cacert="):
                poller(box)
            box.close()


# -- sharing -----------------------------------------------------------------


def test_pollers_share_a_session(swift_aio):
    boxes = [Box(swift_aio, keystone=True).create() for _ in range(3)]
    with swift_aio.recorded("proxyks"):
        pollers = [poller(box) for box in boxes for _ in range(2)]
        assert len({id(one._session.get()) for one in pollers}) == 1
        assert len({one._session.get().get_token() for one in pollers}) == 1
        other = poller(boxes[0], timeout=7)
        assert other._session.get() is not pollers[0]._session.get()
        other.close()
        for one in pollers:
            assert one.get_new_events() == []
            one.close()
    assert sessions._sessions == {}
    for box in boxes:
        box.remove()
        box.close()


def test_the_engine_outlives_the_poller_that_brought_it(box, tmp_path):
    first = poller(box, state=tmp_path / "state.db", consumer="one")
    second = poller(box, state=tmp_path / "state.db", consumer="two")
    assert first._shared is second._shared
    first.close()
    box.put("a", b"1")
    assert told(second.get_new_events()) == [("a", "created")]
    second.close()
    assert sessions._sessions == {}


def test_accounts_are_different_targets(swift_aio, tmp_path, monkeypatch):
    """The same URL, container and state, with the credentials of two accounts, side by side."""
    mine = Box(swift_aio, "twice").create()
    theirs = Box(swift_aio, "twice")
    http = requests.Session()
    answer = http.get(swift_aio.env["ST_AUTH"], headers={"X-Auth-User": "admin:admin", "X-Auth-Key": "admin"})
    theirs._token, theirs.storage_url = answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]
    theirs.create()
    assert theirs.storage_url != mine.storage_url
    options = {"state": tmp_path / "state.db", "retries": 0}
    url = mine.url(user=False)
    one = SwiftPoller(
        url,
        credentials={"auth_type": "v1password", "username": "test:tester", "password": "testing"},
        **options,
    )
    two = SwiftPoller(
        url,
        credentials={"auth_type": "v1password", "username": "admin:admin", "password": "admin"},
        **options,
    )
    mine.put("a", b"1")
    theirs.put("b", b"1")
    assert told(one.get_new_events()) == [("a", "created")]
    assert told(two.get_new_events()) == [("b", "created")]
    one.close()
    two.close()
    # And the same account, by another way, is the same target.
    monkeypatch.setenv("ST_USER", "test:tester")
    monkeypatch.setenv("ST_KEY", "testing")
    mine.put("c", b"1")
    with SwiftPoller(url, **options) as again:
        assert told(again.get_new_events()) == [("c", "created")]
    for box in (mine, theirs):
        box.remove()
        box.close()
    http.close()
