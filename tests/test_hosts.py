"""What adapters to schedulers share: JSON, refusals, names, places, and what is told in a log."""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import inspect
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller_core import (
    Event,
    FilePoller,
    InvalidOption,
    InvalidUrl,
    NoPoller,
    OffsetTooOld,
    Options,
    PollerError,
    PollerRefused,
    StateNewer,
    StateUnreadable,
    SwiftPoller,
    TargetNotFound,
    UnknownScheme,
    Url,
    make_poller,
    poller,
    register_poller,
)
from poller_core.backends.swift import credentials as ways
from poller_core.backends.swift.location import locate
from poller_core.clock import Clock
from poller_core.hosts import (
    CREDENTIALS,
    FINAL,
    JOURNAL_ONLY,
    OPTIONS,
    OURS,
    SWIFT_OPTIONS,
    Advice,
    Progress,
    fitting,
    has_password,
    not_installed,
    plain,
    plain_options,
    plain_seconds,
    plain_url,
    prepare_state,
    refuse_relative,
    refuse_secrets,
    refuse_unknown,
    report,
    report_claim,
    telling,
    without_password,
)
from poller_core.options import TargetOptions
from poller_core.state import open_store
from tests.faultfs import FaultFileSystem
from tests.races.tools import put

ROOT = Path(__file__).parent.parent
SECRET = "s3cr3t"
ADVICE = Advice(
    host="The host",
    url=lambda shown: f"Write url={shown!r}",
    state="Put it into the configuration",
    option=lambda name: f"Put {name} into the vault",
)
log = logging.getLogger("host")


def refused(url: object, state: object = None, options: dict[str, object] | None = None) -> str:
    """What a refusal says, which shows no secret, not even in its traceback."""
    with pytest.raises((InvalidUrl, InvalidOption)) as caught:
        refuse_secrets(url, state, options, advice=ADVICE)
    raised = caught.value
    lines = traceback.format_exception(type(raised), raised, None)  # with its causes, without our source
    assert SECRET not in "".join(lines) + repr(raised)
    return f"{type(raised).__name__}: {raised}"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "host")
    return caplog


def lines(told: pytest.LogCaptureFixture) -> list[str]:
    return [f"{row.levelname} {row.getMessage()}" for row in told.records if row.name == "host"]


def test_imports_no_host() -> None:
    code = (
        "import sys, poller_core.hosts; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('airflow', 'prefect')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# -- events and options as JSON ----------------------------------------------


def test_event_of_a_file(box: Path) -> None:
    with FilePoller(box, recurse=True) as watched:
        for name in ("100% #1?.csv", os.fsdecode(b"caf\xe9"), "naïve"):
            put(box / name)
        events = {event.key: event for event in watched.get_new_events()}
    shown = {key: plain(event) for key, event in events.items()}
    assert shown[b"100% #1?.csv"]["path"] == f"{box}/100% #1?.csv"
    assert shown["naïve".encode()]["path"] == f"{box}/naïve"
    assert shown[b"caf\xe9"]["path"] is None
    for key, event in events.items():
        back = json.loads(json.dumps(shown[key]).encode())
        assert back == shown[key]
        assert Event.from_dict(back) == event
        assert {name: value for name, value in back.items() if name != "path"} == event.to_dict()
        assert Path(os.fspath(Url(str(Event.from_dict(back).subject)))).exists()


def test_event_of_an_object() -> None:
    event = Event(subject=Url("swift://host/v3?in%20box&name=a/b%20%231"), event="created", seq=7)
    assert plain(event) == {**event.to_dict(), "container": "in box", "name": "a/b #1"}


@pytest.mark.parametrize("subject", [17, "row-17", Url("gopher://host/x"), Url("swift://host/v3?box")])
def test_event_of_something_else(subject: Url | str | int) -> None:
    event = Event(subject=subject, event="deleted", seq=7)
    assert plain(event) == event.to_dict()


def test_options_as_json() -> None:
    later = object()
    given = {
        "include": ("*.csv", "*.txt"),
        "fingerprint": {"size"},
        "events": frozenset({"created"}),
        "exclude": ["x"],
        "settle": timedelta(minutes=1.5),
        "full_every": 60,
        "recurse": False,
        "region": None,
        "existing": later,
    }
    assert plain_options(given) == {
        "include": ["*.csv", "*.txt"],
        "fingerprint": ["size"],
        "events": ["created"],
        "exclude": ["x"],
        "settle": 90.0,
        "full_every": 60,
        "recurse": False,
        "existing": later,
    }
    assert (plain_seconds(timedelta(seconds=-1)), plain_seconds(2), plain_seconds("2")) == (-1.0, 2, "2")


def test_url_as_text(tmp_path: Path) -> None:
    later = object()
    assert plain_url(tmp_path / "a b") == f"{tmp_path}/a b"
    assert plain_url(Url(f"swift://alice:{SECRET}@host/v3?box")) == "swift://alice@host/v3?box"
    assert plain_url(Url("/data/a b")) == "file:///data/a%20b"
    assert plain_url("{{ params.url }}") == "{{ params.url }}"
    assert plain_url(later) is later
    assert plain_url(None) is None


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


# -- places ------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["data/inbox", "inbox", "./inbox", "../inbox", Path("data/inbox"), "a {{ b }}"]
)
def test_relative_path(url: str | Path) -> None:
    with pytest.raises(InvalidUrl) as caught:
        refuse_relative(url)
    assert str(caught.value) == (
        f"{str(url)!r} is a relative path, and triggerer and workers may each be in another directory; "
        f"expected an absolute one, such as {os.path.join('/data', str(url).removeprefix('./'))!r}, or a URL"
    )
    with pytest.raises(InvalidUrl, match="is a relative path, and workers may each be in"):
        refuse_relative(url, "workers")


@pytest.mark.parametrize(
    "url",
    [
        "/data/inbox",
        Path("/data/inbox"),
        Url("inbox"),
        "file:///data",
        "swift://host?box",
        "{{ params.url }}",
        "{{ params.folder }}/inbox",
        None,
        17,
    ],
)
def test_what_is_not_relative(url: object) -> None:
    refuse_relative(url)


@pytest.mark.parametrize("text", ["sqlite:///{}", "{}"])
def test_directory_of_a_state(tmp_path: Path, text: str) -> None:
    umask = os.umask(0)
    try:
        state = text.format(tmp_path / "a" / "b" / "state.db")
        prepare_state(state, "the settings")
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
        assert not (tmp_path / "a" / "b" / "state.db").exists()
        prepare_state(state, "the settings")
        (tmp_path / "open").mkdir(mode=0o755)
        prepare_state(text.format(tmp_path / "open" / "state.db"), "the settings")
        assert (tmp_path / "open").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(umask)
    with make_poller(tmp_path, state=state):
        assert (tmp_path / "a" / "b" / "state.db").is_file()


def test_state_without_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_state(f"postgresql://poller:{SECRET}@db/{tmp_path}/made/poller", "the settings")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("sqlite://", "ends with the process"),
        ("sqlite:///:memory:", "ends with the process"),
        (":memory:", "ends with the process"),
        ("state.db", "is another file for who is in another directory"),
        ("states/state.db", "is another file for who is in another directory"),
        ("sqlite:///state.db", "is another file for who is in another directory"),
        ("SQLite:///state.db", "is another file for who is in another directory"),
    ],
)
def test_state_that_no_other_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption) as caught:
        prepare_state(state, "the settings")
    assert str(caught.value) == (
        f"state={state!r} {why}, and what one process finds others are to take; expected "
        f"sqlite:////absolute/path.db or postgresql+psycopg://user@host/database, in the settings or in "
        f"state=…"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["~/inbox", "$HOME/inbox", "${DATA}/inbox"])
def test_path_for_a_shell(url: str) -> None:
    with pytest.raises(InvalidUrl, match=r"'~' and variables are for a shell to fill in.*'/data/inbox'"):
        refuse_relative(url)


@pytest.mark.parametrize(
    ("url", "above", "pattern"),
    [
        ("/data/inbox/*.csv", "/data/inbox", "*.csv"),
        ("/data/**/*.csv", "/data", "*.csv"),
        ("file:///data/*", "file:///data", "*"),
        ("/*", "/", "*"),
    ],
)
def test_path_with_a_pattern(url: str, above: str, pattern: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        refuse_relative(url)
    assert f"expected the directory, {above!r}, and include=[{pattern!r}]" in str(caught.value)


def test_scheme_that_nobody_has() -> None:
    for url in ("s3://bucket/x", "swif://host?box", "https://host/v3"):
        with pytest.raises(UnknownScheme):
            refuse_unknown(Url(url))
    for url in ("/data", "swift://host?box", "shelf://kitchen"):
        refuse_unknown(Url(url))


def test_names_of_the_host_come_first() -> None:
    advice = dataclasses.replace(ADVICE, arguments={"interval": "did you mean 'poke_interval'?"})
    with pytest.raises(InvalidOption, match=r"'interval'; did you mean 'poke_interval'\? options are"):
        refuse_secrets("/data", None, {"interval": 5}, advice=advice)


def test_directory_that_cant_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, why in [
        ("/dev/null", errno.EEXIST),
        (str(tmp_path / "file"), errno.EEXIST),
        (str(tmp_path / "file" / "below"), errno.ENOTDIR),
        (str(tmp_path / ("x" * 300)), errno.ENAMETOOLONG),
    ]:
        with pytest.raises(StateUnreadable) as caught:
            prepare_state(f"sqlite:///{folder}/state.db", "the settings")
        assert str(caught.value) == (
            f"the directory of the state, {folder}, can't be made: {os.strerror(why)}; expected a place that "
            f"may be written to, in the settings or in state=…"
        )


@pytest.mark.parametrize(
    "state", ["", "sqlite:///a\0b/state.db", "sqlite://host/x", f"postgresql://poller:{SECRET}/x@db/poller"]
)
def test_state_that_is_none(state: str) -> None:
    with pytest.raises(InvalidOption, match=r"^state: ") as caught:
        prepare_state(state, "the settings")
    assert SECRET not in str(caught.value)


def test_host_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'airflow'", name="airflow")
    monkeypatch.setattr("importlib.metadata.version", _version_of({"old": "2.10.5", "new": "3.2.0rc1"}))
    for package, what in (("none", "it is not installed"), ("old", "2.10.5 is installed")):
        said = not_installed(missing, "airflow", package, "3.1")
        assert isinstance(said, ModuleNotFoundError)
        assert str(said) == (
            f"poller_airflow needs Airflow 3.1 or newer, and {what} for {sys.executable}: "
            f"pip install 'poller-core[airflow]'"
        )
    assert not_installed(missing, "airflow", "new", "3.1") is missing
    other = ImportError("cannot import name", name="sqlalchemy")
    assert not_installed(other, "airflow", "none", "3.1") is other


def _version_of(versions: dict[str, str]) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    return version


@pytest.mark.parametrize("statement", ["import poller_prefect", "from poller_airflow import poller_asset"])
def test_adapter_without_its_host(statement: str) -> None:
    """As in an environment that has this package alone."""
    host = "prefect" if "prefect" in statement else "airflow"
    program = f"import sys; sys.modules[{host!r}] = None; sys.path.insert(0, 'integrations'); {statement}"
    python = [sys.executable, "-c", program]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: poller_{host} needs {host.capitalize()} 3.")
    assert last.endswith(f"pip install 'poller-core[{host}]'")


# -- runs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["load.wait", "a" * 250, "Ünïcode/ ", "load/manual__2026-01-01T00:00/wait[3]"]
)
def test_name_that_fits(name: str) -> None:
    assert fitting(name) == name


def test_name_that_does_not_fit() -> None:
    long = "a" * 251
    assert fitting(long) == fitting("a" * 251) == "a" * 233 + "~" + fitting(long)[-16:]
    assert re.fullmatch(r"a{233}~[0-9a-f]{16}", fitting(long))
    assert fitting("a\nb").startswith("a?b~")
    assert len({fitting(name) for name in ("a\nb", "a\tb", "a?b", "a\udc80b", "a\udc81b")}) == 5
    assert fitting("load.wait", 20) == "load.wait"
    assert re.fullmatch(r"a long n~[0-9a-f]{16}", fitting("a long name of a task for it", 25))


@given(st.text(min_size=1), st.integers(0, 300))
def test_state_takes_what_fits(text: str, more: int) -> None:
    """As a consumer's name; and two that differ behind the cut stay two."""
    name = text + "x" * more
    consumer = fitting(name if name.strip() else f"x{name}")
    assert Options.parse(given={"consumer": consumer}).consumer == consumer
    assert fitting(name + "1") != fitting(name + "2")


@pytest.mark.parametrize(
    ("url", "final"),
    [
        ("gopher://host/x", UnknownScheme),
        ("swift:x", InvalidUrl),
        ("refused://host", NoPoller),
        ("/dev/null/x", None),
        ("/not-there/at-all", None),
    ],
)
def test_what_ends_a_run(url: str, final: type[PollerError] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake; what is not there may come."""

    def refuses(url: Url, **options: object) -> FilePoller:
        raise PollerRefused("not on a Monday")

    monkeypatch.setattr(poller, "_registry", {name: list(made) for name, made in poller._registry.items()})
    register_poller("refused")(refuses)
    with pytest.raises(PollerError) as caught:
        make_poller(url)
    assert isinstance(caught.value, FINAL) == (final is not None)
    assert isinstance(caught.value, final or TargetNotFound)


class Fast(Clock):
    """An hour passes at each glance at it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        self.ahead += 3600
        return super().monotonic() + self.ahead


def test_what_ends_a_run_in_the_state(box: Path, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    keeps: dict[str, Any] = {"state": state, "clock": Fast(), "retention": 0, "retention_unread": 0}
    with FilePoller(box, consumer="slow", **keeps) as slow:
        with FilePoller(box, **keeps) as quick:
            for name in "abc":
                put(box / name)
                quick.get_new_events()
        with pytest.raises(FINAL) as caught:
            slow.get_new_events()
        assert isinstance(caught.value, OffsetTooOld)
    with pytest.raises(FINAL) as caught:
        make_poller(box, state=state, recurze=True)
    assert isinstance(caught.value, InvalidOption)
    with open_store(state) as store, store.database.transaction():
        store.database.run("UPDATE poller_meta SET value = '999' WHERE key = 'schema_version'")
    with pytest.raises(FINAL) as caught:
        make_poller(box, state=state)
    assert isinstance(caught.value, StateNewer)


def test_journal_only(box: Path, tmp_path: Path) -> None:
    with FilePoller(box, state=tmp_path / "state.db") as watched:
        put(box / "a")
        assert list(watched.claim("run", max_age=JOURNAL_ONLY)) == []
        assert len(watched.claim("run", max_age=0.0)) == 1
    assert math.isinf(JOURNAL_ONLY)


# -- what is told ------------------------------------------------------------


def test_report(box: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    for number in range(1200):
        (box / f"{number:04}").touch()
    with FilePoller(box, state=tmp_path / "state.db") as watched:
        report(log, watched)
        (line,) = lines(told)
        assert re.fullmatch(
            rf"INFO Watched: file://{re.escape(str(box))}; entries: 1,200; last look: "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, which took \d+\.\d{3} s",
            line,
        )


def test_report_of_trouble(box: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    faults = FaultFileSystem()
    for name in "abcd":
        (box / name).mkdir()
    url = f"file://{box}"
    with FilePoller(box, recurse=True, state=tmp_path / "state.db", fs=faults) as watched:
        for name in "abcd":
            faults.fail("open_dir", name.encode(), errno.EACCES)
        watched.get_new_events()
        report(log, watched)
        assert [line.partition(": ")[0] for line in lines(told)] == ["INFO Watched", f"WARNING {url}"]
        assert lines(told)[1].startswith(f"WARNING {url}: 4 part(s) can't be listed: ")
        assert lines(told)[1].count(os.strerror(errno.EACCES)) == 3
        told.clear()
        box.rename(tmp_path / "elsewhere")
        with pytest.raises(PollerError):
            watched.get_new_events()
        report(log, watched)
        assert lines(told)[1].startswith(f"WARNING {url} can't be looked at: ")
        told.clear()
    report(log, watched)
    (line,) = lines(told)
    assert line.startswith("WARNING its state can't be told: ")


def test_report_of_a_claim(box: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    with FilePoller(box, state=tmp_path / "state.db") as watched:
        for number in range(21):
            put(box / f"{number:02}")
        few = watched.claim("run '1'", 2)
        report_claim(log, few.token, few)
        assert lines(told) == [
            "INFO Claimed 2 event(s) for \"run '1'\": seq 1 to 2",
            f"INFO   created file://{box}/00",
            f"INFO   created file://{box}/01",
        ]
        told.clear()
        put(box / "21")
        put(box / "22")
        watched.get_new_events()
        rest = watched.claim("run 2")
        report_claim(log, rest.token, list(rest))
        assert len(rest) == 21
        assert lines(told)[0] == "INFO Claimed 21 event(s) for 'run 2': seq 3 to 23"
        assert lines(told)[1:-1] == [f"INFO   created {event.subject}" for event in rest[:20]]
        assert lines(told)[-1] == "INFO   … and 1 more"
        told.clear()
        report_claim(log, rest.token, rest[:20])
        assert len(lines(told)) == 21


def test_progress(box: Path, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1200):
        (box / f"{number:04}").touch()
    FilePoller(box, progress=Progress(log, str(box))).close()
    assert lines(told) == []  # a look as short as that is not worth a line
    monkeypatch.setattr(telling, "_TELL_AFTER", 0.0)
    FilePoller(box, progress=Progress(log, str(box))).close()
    assert lines(told)[-1] == f"INFO {box}: first look, 1,200 entries so far"
    told.clear()
    tells = Progress(log, "x")
    monkeypatch.setattr(telling, "_TELL_AFTER", 3600.0)
    tells(1)
    tells(2)  # not before the next hour
    assert lines(told) == ["INFO x: first look, 1 entries so far"]
