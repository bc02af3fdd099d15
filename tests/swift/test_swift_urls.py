"""What a Swift URL says, what is wrong with one that says too little, and which credentials are chosen."""

from __future__ import annotations

import json
import pickle
import re
import traceback
from typing import Any

import pytest

from poller_core import (
    InvalidOption,
    InvalidUrl,
    PollerError,
    PollerRefused,
    SwiftPoller,
    Url,
    check_credentials,
    make_poller,
)
from poller_core.backends.swift import credentials as ways
from poller_core.backends.swift.account import Account
from poller_core.backends.swift.location import Location, locate
from poller_core.backends.swift.sessions import SharedSession, network
from poller_core.clock import Clock


def at(text: str) -> Location:
    return locate(Url(text))


@pytest.mark.parametrize(
    ("text", "auth_url"),
    [
        ("swift://a+t:p@host:5000/v3?c", "http://host:5000/v3"),
        ("swt://a+t:p@host?c", "http://host"),
        ("swifts://host/identity?c", "https://host/identity"),
        ("swts://[::1]:5000/v2.0?c", "https://[::1]:5000/v2.0"),
        ("swift://?c", None),
    ],
)
def test_where_to_authenticate(text, auth_url):
    assert at(text).auth_url == auth_url


@pytest.mark.parametrize(
    ("info", "user", "tenant", "password"),
    [
        ("alice+demo:secret@", "alice", "demo", "secret"),
        ("a%2Bb+t%2Bu:p%40%3A%2F%25@", "a+b", "t+u", "p@:/%"),
        ("alice+x%40example.org+demo:p@", "alice+x@example.org", "demo", "p"),
        ("test%3Atester:testing@", "test:tester", None, "testing"),
        ("%C3%A9+%E2%98%83:%F0%9F%98%80@", "\xe9", "\N{SNOWMAN}", "\N{GRINNING FACE}"),
        ("", None, None, None),
    ],
)
def test_user_info(info, user, tenant, password):
    location = at(f"swift://{info}host/v3?c")
    assert (location.user, location.tenant, location.password) == (user, tenant, password)
    if password is not None and len(password) > 1:
        assert password not in repr(location) + str(location.url)


def test_query():
    location = at("swift://h/v3?my%20c%23&prefix=a/b%26c&delimiter=/&region=R%201&domain=D")
    assert location.container == "my c#"
    assert location.prefix == "a/b&c"
    assert not location.recurse
    assert (location.region, location.domain) == ("R 1", "D")
    assert str(location.subjects()(b"x y")) == "swift://h/v3?my%20c%23&region=R%201&name=x%20y"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swift://a+t:p@host/v3", "names no container"),
        ("swift://a+t:p@host/v3?", "names no container"),
        ("swift://a+t:p@host/v3?prefix=x", "names no container"),
        ("swift://host/v3?a&b", "names 2 containers"),
        ("swift://host/v3?a/b", "holds no '/'.*a&prefix=b"),
        ("swift://host/v3?" + "c" * 257, "at most 256 bytes"),
        ("swift://host/v3?container=inbox", r"as in '\?inbox'"),
        ("swift://host/v3?c&name=x", "URL of one object"),
        ("swift://host/v3?c&colour=red", "'colour'.*known are: prefix="),
        ("swift://host/v3?c&prefix=a&prefix=b", "'prefix' twice"),
        ("swift://host/v3?c&prefix=", "'prefix' without a value"),
        ("swift://host/v3?c&delimiter=%20", "the one delimiter is '/'"),
        ("swift://host/v3?%FF", "are UTF-8"),
        ("swift://host/v3?a%00b", "are UTF-8 without NUL"),
        ("swift://host/v3?c#part", "write '#' as %23"),
        ("swift:///v3?c", "names no host"),
        ("swift://alice@host/v3?c", "has no password"),
        ("swift://alice+demo@host/v3?c", "has no password"),
        ("swift://+demo:p@host/v3?c", "lacks the user"),
        ("swift://alice+:p@host/v3?c", "lacks the tenant"),
        ("swift://:p@host/v3?c", "lacks the user"),
        ("swift://a+t:p@host:0/v3?c", "port from 1 to 65535"),
        ("swift://a+t:p@host:port/v3?c", "malformed"),
        ("swift:host?c", "needs '//'"),
        ("file:///tmp", "SwiftPoller watches containers"),
    ],
)
def test_what_is_wrong(text, said):
    with pytest.raises(InvalidUrl, match=said) as caught:
        SwiftPoller(text)
    told = str(caught.value)
    assert ":p@" not in told
    assert "alice:" not in told
    assert caught.value.__cause__ is None


def test_no_tenant_for_keystone():
    with pytest.raises(InvalidUrl, match=r"names a user and no tenant.*'alice"):
        SwiftPoller("swift://alice:p@host/v3?c")


def test_the_registry_knows_all_schemes():
    assert set(SwiftPoller.schemes) == {"swift", "swt", "swifts", "swts"}


# -- credentials -------------------------------------------------------------

_OS = {"OS_USERNAME": "u", "OS_PASSWORD": "s3cret", "OS_PROJECT_NAME": "t", "OS_AUTH_URL": "https://else/v3"}
_ST = {"ST_USER": "a:u", "ST_KEY": "s3cret", "ST_AUTH": "http://temp/auth/v1.0"}


def chosen(text: str, environ: dict[str, str] | None = None, **given: Any) -> ways.Access:
    access = ways.choose(at(text), environ=environ or {}, **given)
    assert "s3cret" not in repr(access) + access.way
    return access


def test_which_is_chosen():
    assert chosen("swift://h/v3?c", _OS | _ST).auth_type == "v3password"
    assert chosen("swift://h/auth/v1.0?c", _OS | _ST).auth_type == "v1password"
    assert chosen("swift://h/v3?c", _ST).auth_type == "v1password"
    assert chosen("swift://h/v3?c", _OS | {"OS_CLOUD": "mine"}).cloud == "mine"
    assert chosen("swift://h/auth/v1.0?c", _ST | {"OS_CLOUD": "mine"}).auth_type == "v1password"
    assert chosen("swift://h/v3?c", _OS, cloud="mine").cloud == "mine"
    inside = chosen("swift://x+y:s3cret@h/v3?c", _OS | {"OS_CLOUD": "mine"})
    assert (inside.cloud, inside.options["username"], inside.options["project_name"]) == (None, "x", "y")
    given = chosen("swift://h/v3?c", _OS, credentials={"OS_USERNAME": "z", "password": "s3cret"})
    assert given.options["username"] == "z"


def test_where():
    assert chosen("swift://h:1/v3?c", _OS).auth_url == "http://h:1/v3"
    assert chosen("swift://?c", _OS).auth_url == "https://else/v3"
    assert chosen("swift://?c", _ST).auth_url == "http://temp/auth/v1.0"
    with pytest.raises(InvalidOption, match="not known where to authenticate"):
        chosen("swift://?c", credentials={"username": "u", "password": "s3cret", "project_name": "t"})


@pytest.mark.parametrize(
    ("given", "environ", "said"),
    [
        (
            {"credentials": {"username": "u", "password": "s3cret", "project_name": "t"}},
            {"OS_AUTH_URL": "https://else/v3"},
            r"^credentials\['auth_url'\] is missing, and 'swift://\?c' names no host: .*'https://keystone\.",
        ),
        ({}, {**_OS, "OS_AUTH_URL": ""}, r"^OS_AUTH_URL is missing, and .* such as https://keystone\."),
        ({}, {**_ST, "ST_AUTH": ""}, r"^ST_AUTH is missing, and .* such as https://swift\..*/auth/v1\.0"),
    ],
)
def test_where_is_not_known(given, environ, said):
    with pytest.raises(InvalidOption, match=said) as caught:
        chosen("swift://?c", environ, **given)
    assert "s3cret" not in str(caught.value)


_ADDRESSES = (
    "http://bob:s3cret@h/v3",
    "http://s3cret@h/v3",
    "http://bob:s3cret/x@h/v3",
    "bob:s3cret@h/v3",
    "my_bob:s3cret@h",
    "http://bob:s3cret",
    "https://h:5000/v3?token=s3cret",
)


@pytest.mark.parametrize("address", _ADDRESSES)
@pytest.mark.parametrize("name", ["credentials['auth_url']", "OS_AUTH_URL", "ST_AUTH"])
def test_a_secret_in_the_address(name, address, monkeypatch, caplog):
    """Wherever it is given, and whoever is given it; what looks like one that was typed by half as well."""
    caplog.set_level(0)
    known = {"username": "u", "password": "p", "project_name": "t", "auth_url": address}
    in_st, in_os = {"ST_KEY": "p", "ST_AUTH": address}, {"OS_PASSWORD": "p", "OS_AUTH_URL": address}
    environ = {"ST_AUTH": _ST | in_st, "OS_AUTH_URL": _OS | in_os}.get(name, {})
    given: dict[str, Any] = {} if environ else {"credentials": known}
    for variable in ("OS_CLOUD", *_OS, *_ST):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    for ask in (
        lambda: ways.choose(at("swift://?c"), **given),
        lambda: SwiftPoller("swift://?c", retries=0, **given),
        lambda: make_poller("swift://?c", retries=0, **given),
        lambda: check_credentials(**given),
    ):
        with pytest.raises(PollerError, match=re.escape(f"{name}: user, password and token")) as caught:
            ask()
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
        assert "s3cret" not in shown
    # Where the URL names the host, that address is not used; it is not shown either.
    access = ways.choose(at("swift://h/v3?c"), **given)
    assert access.auth_url == "http://h/v3"
    assert "s3cret" not in repr(access) + repr(access.options) + access.way


@pytest.mark.parametrize("address", _ADDRESSES)
def test_a_secret_in_the_address_of_a_cloud(address, monkeypatch, tmp_path, caplog):
    caplog.set_level(0)
    auth = {"auth_url": address, "username": "u", "password": "s3cret", "project_name": "t"}
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": {"mine": {"auth": auth}}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    for ask in (
        lambda: SwiftPoller("swift://?c", cloud="mine", retries=0),
        lambda: check_credentials(cloud="mine"),
    ):
        with pytest.raises(
            InvalidOption, match=r"cloud='mine': auth_url: user, password and token"
        ) as caught:
            ask()
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + caplog.text


@pytest.mark.parametrize(
    "address", ["https://h:5000/v3", "http://[::1]:5000", "https://h/identity/v3", "https://h"]
)
def test_addresses_that_hold_none(address):
    assert chosen("swift://?c", _OS | {"OS_AUTH_URL": address}).auth_url == address


def test_types():
    password = {"username": "u", "password": "s3cret", "project_name": "t"}
    assert chosen("swift://h/v3?c", credentials=password).auth_type == "v3password"
    assert chosen("swift://h/v2.0?c", credentials=password).auth_type == "v2password"
    assert chosen("swift://h?c", credentials=password).auth_type == "password"
    assert chosen("swift://h?c", _OS | {"OS_IDENTITY_API_VERSION": "3"}).auth_type == "v3password"
    assert chosen("swift://h?c", credentials={"token": "s3cret"}).auth_type == "token"
    assert chosen("swift://h/v3?c", credentials={"token": "s3cret"}).auth_type == "v3token"
    credential = {"application_credential_id": "i", "application_credential_secret": "s3cret"}
    assert chosen("swift://h/v3?c", credentials=credential).auth_type == "v3applicationcredential"


def test_domains():
    def domains(text: str, environ: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in chosen(text, environ).options.items() if "domain" in name}

    assert domains("swift://h/v3?c", _OS) == {"user_domain_id": "default", "project_domain_id": "default"}
    assert domains("swift://h?c", _OS) == {"default_domain_id": "default"}
    assert domains("swift://h/v3?c", _OS | {"OS_USER_DOMAIN_NAME": "D"}) == {
        "user_domain_name": "D",
        "project_domain_id": "default",
    }
    assert domains("swift://h/v3?c&domain=E", _OS | {"OS_USER_DOMAIN_ID": "x"}) == {
        "user_domain_name": "E",
        "project_domain_name": "E",
    }


def test_region_and_interface():
    access = chosen("swift://h/v3?c&region=R", _OS | {"OS_REGION_NAME": "S", "OS_INTERFACE": "internalURL"})
    assert (access.region, access.interface) == ("R", "internal")
    assert chosen("swift://h/v3?c", _OS | {"OS_REGION_NAME": "S"}).region == "S"
    with pytest.raises(InvalidOption, match="but the URL says"):
        chosen("swift://h/v3?c&region=R", _OS, region="Q")
    with pytest.raises(InvalidOption, match="'public', 'internal' or 'admin'"):
        chosen("swift://h/v3?c", _OS, interface="outer")


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("swift://h/v3?c", {}, "there are no credentials for.*OS_USERNAME"),
        ("swift://u+t:s3cret@h/v3?c", {"cloud": "x"}, "in the URL, and in cloud"),
        ("swift://h/v3?c", {"cloud": "x", "credentials": {}}, "credentials and cloud are ways"),
        ("swift://h/v3?c", {"session": object()}, "expected a keystoneauth1.session.Session"),
        ("swift://h/v3?c", {"auth": "s3cret"}, "expected an auth plugin"),
        ("swift://h/v3?c", {"credentials": "s3cret"}, "expected a mapping"),
        ("swift://h/v3?c", {"credentials": {"username": 7}}, "'username' has to be a text"),
    ],
)
def test_what_can_not_be_chosen(text, given, said):
    with pytest.raises(InvalidOption, match=said) as caught:
        chosen(text, **given)
    assert "s3cret" not in str(caught.value)


def test_plugins_that_can_not_be_made():
    def make(**options: str) -> Any:
        return ways.plugin(chosen("swift://h/v3?c", credentials={"password": "s3cret", **options}))

    with pytest.raises(InvalidOption, match="no way to authenticate called 'v9'"):
        make(auth_type="v9")
    with pytest.raises(InvalidOption) as caught:
        make(application_credential_name="x")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("package", ["keystoneauth1", "swiftclient.authv1"])
def test_a_package_that_is_missing(package, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    if package == "keystoneauth1":
        monkeypatch.setitem(sys.modules, "keystoneauth1.session", None)
    with pytest.raises(PollerRefused, match=r"pip install 'poller-core\[swift\]'"):
        SwiftPoller("swift://a%3Au:s3cret@127.0.0.1:1/auth/v1.0?c", retries=0)
    with pytest.raises(Exception, match="no poller can serve") as caught:
        make_poller("swift://a%3Au:s3cret@127.0.0.1:1/auth/v1.0?c", retries=0)
    assert "s3cret" not in str(caught.value)


def test_openstacksdk_that_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openstack", None)
    with pytest.raises(PollerRefused, match=r"clouds.yaml.*pip install 'poller-core\[swift,clouds\]'"):
        SwiftPoller("swift://h/v3?c", cloud="mine")


# -- the network -------------------------------------------------------------


def test_network(tmp_path):
    file = tmp_path / "ca.pem"
    file.touch()
    assert network(environ={}) == (None, (10.0, 60.0), 3)
    assert network(file, environ={}).verify == str(file)
    assert network(environ={"OS_CACERT": str(file)}).verify == str(file)
    assert network(insecure=True, environ={"OS_CACERT": "/nowhere"}).verify is False
    assert network(environ={"OS_INSECURE": "True"}).verify is False
    assert network(timeout=5, environ={}).timeout == (5.0, 5.0)
    assert network(timeout=(1, 2), retries=0, environ={}) == (None, (1.0, 2.0), 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cacert": "/nowhere/ca.pem"}, "there is no such file"),
        ({"insecure": "yes"}, "True or False"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": (1, -1)}, "0 or more"),
        ({"timeout": "long"}, "number of seconds"),
        ({"retries": -1}, "from 0 to 100"),
        ({"retries": 1.5}, "from 0 to 100"),
    ],
)
def test_network_that_can_not_be(given, said):
    with pytest.raises(InvalidOption, match=said):
        network(**given, environ={})


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("http://h:8080/v1/AUTH_0123", "AUTH_0123"),
        ("http://h:8080/swift/v1/", "the project"),
        ("http://h/swift/v1/AUTH_x/", "AUTH_x"),
    ],
)
def test_the_account(url, account):
    """Ceph's gateway may leave the account out of its address. (There is none here, so this is a fake.)"""

    class Session:
        auth = None

        def get_endpoint(self, **wanted: Any) -> str:
            assert wanted == {"service_type": "object-store", "interface": "internal", "region_name": "R"}
            return url

        def get_project_id(self) -> str:
            return "the project"

        def request(self) -> None:
            raise AssertionError("nothing is to be asked")

    session = Session()
    session.auth = object()
    net = network(environ={})
    access = chosen("swift://h/v3?c&region=R", session=session, interface="internal")
    shared = SharedSession(access, net)
    place = Account(shared, net, Clock()).place()
    assert (place.account, place.region) == (account, "R")
    shared.close()


def test_a_url_is_pickled_without_its_password():
    url = Url("swift://alice+demo:s3cret@host/v3?c")
    assert b"s3cret" not in pickle.dumps(url)
    assert pickle.loads(pickle.dumps(url)) == url
    assert str(url) == "swift://alice+demo@host/v3?c"
    assert str(Url("swift://a%2Bb+t@host/v3?c")) == "swift://a%2Bb+t@host/v3?c"
