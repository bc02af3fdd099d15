"""What adapters to schedulers refuse: whatever may hold a secret, and options that nobody has."""

from __future__ import annotations

import inspect
import time
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller_core import FilePoller, Options, SwiftPoller, Url, poller, register_poller
from poller_core.backends.swift import credentials as ways
from poller_core.backends.swift.location import locate
from poller_core.hosts import (
    CREDENTIALS,
    OPTIONS,
    OURS,
    SWIFT_OPTIONS,
    has_password,
    refuse_secrets,
    without_password,
)
from poller_core.options import TargetOptions
from tests.hosts.tools import ADVICE, SECRET, refused

# -- secrets -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"swift://alice+demo:{SECRET}@host:5000/v3?box", "swift://host:5000/v3?box"),
        (f"swift://:{SECRET}@host/v3?box", "swift://host/v3?box"),
        ("swift://alice:@host/v3?box", "swift://host/v3?box"),
        (f"postgresql+psycopg://poller:{SECRET}@db/poller", "postgresql+psycopg://db/poller"),
        # Templates, which may hold any character.
        (f"swift://alice:{{{{ x }}}}{SECRET}@host?box", "swift://host?box"),
        ("swift://{{ var.value.a }}:{{ conn.x.extra['a/b@c'] }}@host/v3?box", "swift://host/v3?box"),
        ("swift://{{ a:b }}+x:{{\np/q\n}}@{{ host }}/{{ path }}?box", "swift://{{ host }}/{{ path }}?box"),
        (f"{{{{ scheme }}}}://alice:{SECRET}@host?box", "{{ scheme }}://host?box"),
        (f"swift://alice:{SECRET}{{{{ broken@host?box", "swift://host?box"),
        (f"swift://{{{{ 'alice:{SECRET}@host' }}}}?box", "swift://host' }}?box"),
        # Malformed, and some well-formed by accident.
        (f"swift://alice:{SECRET}@host:port/v3?box", "swift://host:port/v3?box"),
        (f"swift://alice:p@{SECRET}@host/v3?box", "swift://host/v3?box"),
        (f"swift://alice:p@{SECRET}/x@host/v3?box", "swift://host/v3?box"),
        (f"swift://alice:p@ss\n{SECRET}@host/v3?box", "swift://host/v3?box"),
        (f"file://alice:{SECRET}@host/data", "file://host/data"),
        (f"swift:///alice:{SECRET}@host/v3?box", "swift://host/v3?box"),
        (f"//alice:{SECRET}@host/v3?box", "//host/v3?box"),
        # As libpq takes it.
        (f"swift://host/v3?box&password={SECRET}", "swift://host/v3?box"),
        (f"db://alice@host/x?sslPassword={SECRET}&a=b", "db://alice@host/x?a=b"),
    ],
)
def test_password_in_a_url(url: str, shown: str) -> None:
    assert has_password(url)
    assert without_password(url) == shown
    assert not has_password(shown)
    assert refused(url) == (
        f"InvalidUrl: there is a password in the URL, and The host would store it for all to read. "
        f"Write url={shown!r}"
    )
    assert refused("/data", state=url) == (
        "InvalidOption: there is a password in state=…, and The host would store it for all to read. "
        "Put it into the configuration"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"swift://alice:{SECRET}/x@host/v3",
        f"swift://alice:/{SECRET}@host/v3",
        f"swift://alice:#{SECRET}@host/v3",
        f"swift://alice:?{SECRET}@host/v3",
        f"swift://alice:12/{SECRET}@host/v3",
        f"swift://alice:{SECRET}",
        f"swift://alice:{SECRET}/v3",
        f"swift://alice:12{SECRET}",
        f"swift:alice:{SECRET}@host/v3",
        f"swift:/alice:{SECRET}@host/v3",
        f"file:alice:{SECRET}@host/data",
        f" swift://alice:{SECRET}/x@host/v3",
    ],
)
def test_malformed_url_that_may_hide_a_password(url: str) -> None:
    assert refused(url).startswith("InvalidUrl: '")


@pytest.mark.parametrize(
    "url",
    [
        "/data/inbox",
        "/data//a:b/c",
        "/data/alice:x@host",
        "data/inbox",
        "",
        "file:///data/a:b",
        "file:///data/alice:x@host",
        "swift:///?box",
        "swift://host/v3?box",
        "swift://host/v3?box&prefix=a@b:c/d@e",
        "swift://host:5000/v3?box&prefix=a%40b:c",
        "swift://alice+demo@host:5000/v3?box",
        "swift://[::1]:5000/v3?box",
        "swift://alice@[::1]/v3?in@box",
        "swift://host:{{ port }}/v3?{{ box }}",
        "swift://{{ params['a:b'] }}/v3?box&prefix=c@d",
        "swift://{{ host }}:5000/v3?box&prefix={{ '//a:b' }}",
        "{{ params.url }}",
        "{{ params['https://a:b'] }}",
        "counter://host/x",
        None,
        17,
        Path("/data/alice:x@host"),
        Url(f"swift://alice:{SECRET}@host/v3?box"),  # which shows it to nobody
    ],
)
def test_url_without_a_password(url: object) -> None:
    refuse_secrets(url, None, {"recurse": True}, advice=ADVICE)
    assert not has_password(url)
    assert without_password(str(url)) == str(url)


@given(st.text("ab{}:@/?# ", max_size=12), st.text("ab{}:@/?# \n", max_size=12))
@example("{{ x", " }}")
@example("a@", "b/")
def test_nothing_of_a_password_is_shown(before: str, behind: str) -> None:
    for url in (
        f"swift://u:{before}{SECRET}{behind}@host/v3?box",
        f"//u:{before}{SECRET}{behind}@host",
        f"swift://u:{{{{ p }}}}{before}{SECRET}{behind}@host",
    ):
        if has_password(url):
            assert SECRET not in without_password(url)
            refused(url)
        elif "{{" not in url and url.startswith("swift:"):
            refused(url)


def test_many_templates_take_no_time() -> None:
    """Reading each template in two ways would take years here."""
    begun = time.monotonic()
    for url in ("swift://" + "{{ a }}" * 200 + "/v3?box", "swift://a:" + "{{ a }}" * 200, "//:" + "{{" * 200):
        assert not has_password(url)
        assert without_password(url) == url
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (f"postgresql+psycopg://poller:{SECRET}/x@db/poller", "can't be taken apart"),
        (f"postgresql://poller:{SECRET}", "can't be taken apart"),
        (f"mysql://poller:{SECRET}/x@db/poller", "'mysql:' is not understood"),
        (f"postgresql://poller@db/poller?password={SECRET}", "there is a password in state=…"),
        (f"postgresql://poller@db/{{{{ name }}}}?password={SECRET}", "there is a password in state=…"),
    ],
)
def test_state_that_may_hide_a_password(state: str, says: str) -> None:
    said = refused("/data", state)
    assert said.startswith("InvalidOption: ")
    assert says in said


@pytest.mark.parametrize(
    "state",
    [
        None,
        "",
        "/var/lib/poller/a:b@c.db",
        "sqlite:////var/lib/poller/state.db",
        "postgresql+psycopg://poller@db/poller?passfile=/etc/pgpass",
        "{{ var.value.state }}",
        "postgresql://poller@{{ host }}:{{ port }}/poller",
        "sqlite:///what/is?wrong",  # and holds no secret
        Path("/var/lib/poller/state.db"),
    ],
)
def test_state_without_a_password(state: object) -> None:
    refuse_secrets("/data", state, advice=ADVICE)


@pytest.mark.parametrize("name", ["credentials", "session", "auth", "password", "username", "token"])
def test_option_that_holds_a_secret(name: str) -> None:
    for url in ("/data", "swift://host?box", "{{ url }}", "counter://x"):
        assert refused(url, None, {"recurse": True, name: {"password": SECRET}}) == (
            f"InvalidOption: {name}=… holds a secret, and The host would store it for all to read. "
            f"Put {name} into the vault"
        )


def test_unknown_option(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ", ".join(OPTIONS)
    for url in ("/data", "data:x", "swift://host?box", "SWIFTS://host?box", "counter://host"):
        assert refused(url, None, {"recurze": 1}) == (
            f"InvalidOption: unknown option 'recurze'; did you mean 'recurse'? options are: {known}"
        )
    # Not known yet, what it will be.
    for later in ("{{ url }}", object(), Path("/data")):
        refuse_secrets(later, None, {"recurze": 1}, advice=ADVICE)
    monkeypatch.setattr(poller, "_registry", {name: list(made) for name, made in poller._registry.items()})
    register_poller("counter")(lambda url, **options: FilePoller("/", **options))
    refuse_secrets("counter://host", None, {"recurze": 1}, advice=ADVICE)
    refuse_secrets("Counter://host", None, {"recurze": 1}, advice=ADVICE)


def test_options_are_those_of_our_pollers() -> None:
    swift = inspect.signature(SwiftPoller.__init__).parameters
    ours = {field.name for field in (*fields(Options), *fields(TargetOptions))}
    assert set(OPTIONS) <= ours | set(swift)
    # What is not among them an adapter has parameters or a place in the configuration for.
    assert ours - set(OPTIONS) == {"target", "state", "consumer", "retention", "retention_unread"}
    assert set(SWIFT_OPTIONS) <= set(swift)
    assert set(OURS) == set(poller.registered())


def test_credentials_are_what_a_swift_poller_takes() -> None:
    from keystoneauth1 import loading

    known = {"auth_type", "identity_api_version"}
    for kind in ("v3password", "v3token", "v3applicationcredential"):
        known |= {option.dest for option in loading.get_plugin_loader(kind).get_options()}
    assert set(CREDENTIALS) <= known
    access = ways.choose(
        locate(Url("swift://host/v3?box")),
        credentials={"application_credential_id": "x", "application_credential_secret": SECRET},
        environ={},
    )
    assert access.auth_type == "v3applicationcredential"
