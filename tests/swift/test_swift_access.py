"""``check_credentials``, on a real Keystone and a real TempAuth: whom they make one, or what is wrong."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Iterator

import pytest
import requests

from poller_core import AuthenticationFailed, InvalidOption, TargetError, check_credentials
from poller_core.backends.swift import sessions
from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, REGION, USER
from tests.swift.tools import logged

SECRET = "s3cr-hunter2"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OS_CLOUD",
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_PASSWORD",
        "ST_USER",
        "ST_KEY",
        "OS_REGION_NAME",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_session_is_left() -> Iterator[None]:
    yield
    assert sessions._sessions == {}


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All that this package logs."""
    with logged("poller_core") as lines:
        yield lines


@pytest.fixture
def token(swift_aio: SwiftAIO) -> Iterator[str]:
    box = Box(swift_aio, keystone=True)
    yield box.token
    box.close()


def password(aio: SwiftAIO, **other: str) -> dict[str, str]:
    """What a form has in its fields."""
    url = aio.env["OS_AUTH_URL"]
    return {"auth_url": url, "username": USER, "password": PASSWORD, "project_name": PROJECT, **other}


def whole(aio: SwiftAIO, server: str) -> str:
    """The account and where it is, as both are told."""
    if server == "proxy":
        return f"account AUTH_test at {aio.env['ST_AUTH'].partition('://')[2].partition('/')[0]}"
    return f"account AUTH_{aio.env['AIO_PROJECT_ID']} at {aio.env['AIO_SWIFT_KS'].partition('://')[2]}"


def shown_by(error: BaseException) -> str:
    found = "".join(traceback.format_exception(error))
    chain: BaseException | None = error
    while chain is not None:
        found += f"{chain!r}{chain.args!r}"
        chain = None if chain.__suppress_context__ and chain.__cause__ is None else chain.__cause__
    return found


def nobody_there() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


# -- let in ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v3", "/v3/", "", "/v2.0"])
def test_a_password(swift_aio, path, log):
    root = swift_aio.env["OS_AUTH_URL"].removesuffix("/v3")
    said = check_credentials(credentials=password(swift_aio, auth_url=root + path))
    assert said.startswith(f"Swift: {whole(swift_aio, 'proxyks')}, region {REGION}, by credentials=…: ")
    assert f"password of {USER} in {PROJECT} at {root}{path}" in said
    assert PASSWORD not in "".join([said, *log])


def test_it_asks_keystone_and_swift(swift_aio):
    """It does not make up what it says; and it changes nothing in the cloud."""
    with swift_aio.recorded("proxyks") as seen:
        check_credentials(credentials=password(swift_aio))
        asked = [str(line) for line in seen()]
    assert len(asked) == 1
    assert "GET" in asked[0]
    assert "/info" in asked[0]


@pytest.mark.parametrize("path", ["/v3", ""])
def test_a_token(swift_aio, token, path, log):
    url = swift_aio.env["OS_AUTH_URL"].removesuffix("/v3") + path
    wanted = {"token": token, "project_name": PROJECT, "project_domain_id": "default", "auth_url": url}
    said = check_credentials(credentials=wanted)
    assert whole(swift_aio, "proxyks") in said
    assert token not in "".join([said, *log])


def test_an_application_credential(swift_aio, token, log):
    url = swift_aio.env["OS_AUTH_URL"]
    where = f"{url}/users/{swift_aio.env['AIO_USER_ID']}/application_credentials"
    headers = {"X-Auth-Token": token}
    wanted = {"application_credential": {"name": "for-a-check"}}
    made = requests.post(where, headers=headers, json=wanted, timeout=60).json()["application_credential"]
    by_id = {
        "auth_url": url,
        "application_credential_id": made["id"],
        "application_credential_secret": made["secret"],
    }
    said = check_credentials(credentials=by_id)
    assert whole(swift_aio, "proxyks") in said
    assert "v3applicationcredential" in said
    with pytest.raises(AuthenticationFailed) as caught:
        check_credentials(credentials={**by_id, "application_credential_secret": SECRET})
    assert SECRET not in shown_by(caught.value)
    requests.delete(f"{where}/{made['id']}", headers=headers, timeout=60).raise_for_status()
    with pytest.raises(AuthenticationFailed, match="no such application credential") as caught:
        check_credentials(credentials=by_id)
    assert made["secret"] not in "".join([said, shown_by(caught.value), *log])


def test_tempauth(swift_aio, log):
    wanted = {"auth_url": swift_aio.env["ST_AUTH"], "username": "test:tester", "password": "testing"}
    said = check_credentials(credentials=wanted)
    assert said == (
        f"Swift: {whole(swift_aio, 'proxy')}, by credentials=…: v1password of test:tester "
        f"at {swift_aio.env['ST_AUTH']}"
    )
    with pytest.raises(AuthenticationFailed, match="v1password of test:tester") as caught:
        check_credentials(credentials={**wanted, "password": SECRET})
    assert SECRET not in "".join([shown_by(caught.value), *log])


def test_the_environment(swift_aio, monkeypatch):
    for name, value in swift_aio.env.items():
        if name.startswith("OS_"):
            monkeypatch.setenv(name, value)
    assert whole(swift_aio, "proxyks") in check_credentials()
    monkeypatch.setenv("OS_PASSWORD", SECRET)
    with pytest.raises(AuthenticationFailed) as caught:
        check_credentials()
    assert SECRET not in shown_by(caught.value)


def test_clouds_yaml(swift_aio, monkeypatch, tmp_path):
    auth = password(swift_aio, user_domain_id="default", project_domain_id="default")
    clouds = {"clouds": {"mine": {"auth": auth, "region_name": REGION}}}
    (tmp_path / "clouds.yaml").write_text(json.dumps(clouds))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    said = check_credentials(cloud="mine")
    assert whole(swift_aio, "proxyks") in said
    assert said.endswith("by the cloud 'mine' of clouds.yaml")
    with pytest.raises(InvalidOption, match="cloud='yours'"):
        check_credentials(cloud="yours")


def test_the_region(swift_aio):
    wanted = password(swift_aio)
    assert f"region {REGION}" in check_credentials(credentials=wanted, region=REGION)
    with pytest.raises(TargetError, match=r"no public endpoint.*region 'Mars'"):
        check_credentials(credentials=wanted, region="Mars")


def test_tls():
    with SwiftAIO(tls=True) as aio:
        wanted = password(aio)
        assert whole(aio, "proxyks") in check_credentials(credentials=wanted, cacert=aio.env["AIO_CACERT"])
        with pytest.warns(Warning, match="Unverified HTTPS"):
            check_credentials(credentials=wanted, insecure=True)
        with pytest.raises(TargetError, match=r"certificate of Keystone is not trusted.*cacert="):
            check_credentials(credentials=wanted)


# -- not let in --------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v3", "", "/v2.0"])
@pytest.mark.parametrize("field", ["username", "password", "project_name"])
def test_what_is_wrong(swift_aio, path, field, log):
    url = swift_aio.env["OS_AUTH_URL"].removesuffix("/v3") + path
    given = password(swift_aio, auth_url=url) | {field: SECRET}
    with pytest.raises(AuthenticationFailed, match=r"not authenticated.*Wrong user, password") as caught:
        check_credentials(credentials=given)
    shown = "".join([shown_by(caught.value), *log])
    assert PASSWORD not in shown
    assert field != "password" or SECRET not in shown


def test_a_token_that_is_none(swift_aio, log):
    given = {"auth_url": swift_aio.env["OS_AUTH_URL"], "token": SECRET, "project_name": PROJECT}
    with pytest.raises(TargetError) as caught:  # Keystone answers 404 to what is not even the form of a token
        check_credentials(credentials={**given, "project_domain_id": "default"})
    assert SECRET not in "".join([shown_by(caught.value), *log])


@pytest.mark.parametrize("path", ["/v3", "", "/v2.0", "/auth/v1.0"])
def test_nobody_listens(path, log):
    host = nobody_there()
    given = {
        "auth_url": f"http://{host}{path}",
        "username": USER,
        "password": SECRET,
        "project_name": PROJECT,
    }
    with pytest.raises(TargetError, match=r"can't be reached: it refuses the connection") as caught:
        check_credentials(credentials=given)
    assert host in str(caught.value)
    assert SECRET not in "".join([shown_by(caught.value), *log])


def test_nobody_answers(log):
    """A form is not to hang: the wait is as long as was asked for."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        given = {"auth_url": f"http://127.0.0.1:{silent.getsockname()[1]}/v3", "username": USER}
        with pytest.raises(TargetError, match=r"in time|stopped") as caught:
            check_credentials(credentials={**given, "password": SECRET, "project_name": PROJECT}, timeout=0.3)
    assert SECRET not in "".join([shown_by(caught.value), *log])


def test_keystone_is_there_and_swift_is_not(swift_aio):
    """Being authenticated is half of it: who can't reach Swift would not be served."""
    where = swift_aio.env["AIO_SWIFT_KS"].partition("://")[2]
    with (
        swift_aio.fault("proxyks", "GET /info", status=0, part=0.5),
        pytest.raises(TargetError, match=f"{where}.*(cut short|middle of its answer)"),
    ):
        check_credentials(credentials=password(swift_aio))


@pytest.mark.parametrize("path", ["", "/v3"])
def test_what_is_no_keystone(swift_aio, path):
    host = swift_aio.env["ST_AUTH"].partition("/auth")[0]
    with pytest.raises(TargetError, match=r"no Keystone|Keystone answered|not authenticated"):
        check_credentials(credentials=password(swift_aio, auth_url=host + path))


def test_no_address():
    given = {"username": USER, "password": SECRET, "project_name": PROJECT}
    said = r"^credentials\['auth_url'\] is missing: .*such as 'https://keystone\.example\.org:5000/v3'$"
    with pytest.raises(InvalidOption, match=said) as caught:
        check_credentials(credentials=given)
    assert SECRET not in shown_by(caught.value)


def test_nothing_at_all():
    with pytest.raises(InvalidOption, match="no credentials: neither OS_USERNAME") as caught:
        check_credentials()
    assert "swift:" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"password": 7}, "has to be a text"),
        ({"auth_type": "hearsay"}, "hearsay"),
        ("alice:s3cr-hunter2", "expected a mapping"),
    ],
)
def test_what_cant_be(swift_aio, given, said):
    if isinstance(given, dict):
        given = password(swift_aio, password=SECRET) | given
    with pytest.raises(InvalidOption, match=said) as caught:
        check_credentials(credentials=given)
    assert SECRET not in shown_by(caught.value)


@pytest.mark.parametrize(
    "options", [{"interface": "outer"}, {"timeout": -1}, {"retries": -1}, {"cacert": "/no"}]
)
def test_settings_that_cant_be(swift_aio, options):
    with pytest.raises(InvalidOption, match=next(iter(options))):
        check_credentials(credentials=password(swift_aio), **options)


@pytest.mark.parametrize("who", ["bob:s3cr-hunter2@", "s3cr-hunter2@", "bob:s3cr-hunter2/x@"])
@pytest.mark.parametrize("path", ["/v3", "", "/auth/v1.0"])
def test_a_secret_in_the_address(who, path, log, caplog):
    """It belongs into another field; where it was typed nonetheless, nobody is to repeat it, or to log it."""
    url = f"http://{who}{nobody_there()}{path}"
    with pytest.raises(InvalidOption, match="auth_url") as caught:
        check_credentials(
            credentials={"auth_url": url, "username": USER, "password": PASSWORD, "project_name": PROJECT}
        )
    assert SECRET not in "".join([shown_by(caught.value), caplog.text, *log])
