"""What adapters to schedulers share: events, options and URLs as JSON, and no scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from poller_core import Event, FilePoller, Url
from poller_core.hosts import plain, plain_options, plain_seconds, plain_url
from tests.hosts.tools import SECRET
from tests.races.tools import put


def test_imports_no_host() -> None:
    code = (
        "import sys, poller_core.hosts; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('airflow', 'prefect')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# -- events and options as JSON ----------------------------------------------


def test_event_of_a_file(inbox: Path) -> None:
    with FilePoller(inbox, recurse=True) as watched:
        for name in ("100% #1?.csv", os.fsdecode(b"caf\xe9"), "naïve"):
            put(inbox / name)
        events = {event.key: event for event in watched.get_new_events()}
    shown = {key: plain(event) for key, event in events.items()}
    assert shown[b"100% #1?.csv"]["path"] == f"{inbox}/100% #1?.csv"
    assert shown["naïve".encode()]["path"] == f"{inbox}/naïve"
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
