"""Reading the place of a state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poller_core.errors import InvalidOption
from poller_core.state.urls import parse_state_url


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path(os.path.realpath(tmp_path))
    places: list[tuple[str | Path, Path]] = [
        ("sqlite:////var/lib/x.db", Path("/var/lib/x.db")),
        ("sqlite:///rel.db", here / "rel.db"),
        ("rel.db", here / "rel.db"),
        ("./with:colon.db", here / "with:colon.db"),
        (Path("sqlite:odd"), here / "sqlite:odd"),
        ("/a/b%20c.db", Path("/a/b%20c.db")),
    ]
    for given, expected in places:
        place = parse_state_url(given)
        assert place.path == expected
        assert place.text == f"sqlite:///{expected}"
        assert not place.private


def test_a_link_is_followed_once_and_for_all(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    assert parse_state_url(tmp_path / "link.db").path == tmp_path / "real.db"


@pytest.mark.parametrize("given", [None, "sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_private(given: str | None) -> None:
    assert parse_state_url(given).private


def test_postgresql() -> None:
    place = parse_state_url(
        "postgresql+psycopg://al%40ice:s%2Fe%23cret@db.example.org:5433/poll%20er?sslmode=require&sslpassword=hush"
    )
    assert place.parameters == {
        "host": "db.example.org",
        "port": "5433",
        "user": "al@ice",
        "password": "s/e#cret",
        "dbname": "poll er",
        "sslmode": "require",
        "sslpassword": "hush",
    }
    assert place.text == "postgresql://al%40ice@db.example.org:5433/poll%20er?sslmode=require"
    assert not place.private
    for shown in (repr(place), str(place), place.text):
        assert "s/e#cret" not in shown
        assert "s%2Fe%23cret" not in shown
        assert "hush" not in shown


def test_postgresql_by_socket_and_defaults() -> None:
    place = parse_state_url("postgresql://u@/name?host=/run/postgresql")
    assert place.parameters == {"user": "u", "dbname": "name", "host": "/run/postgresql"}
    assert place.text == "postgresql://u@/name?host=/run/postgresql"
    assert not parse_state_url("postgresql://").private


@pytest.mark.parametrize(
    "given",
    [
        "",
        "a\0b",
        "sqlite:x.db",
        "sqlite://host/x.db",
        "sqlite:///x.db?mode=ro",
        "mysql://u:hunter2@h/x",
        "postgres://u:hunter2@h/x",
        "postgresql:u:hunter2@h/x",
        "postgresql://u:hunter2/x@h/db",
        "postgresql://u:hun#ter2@h/db",
        "postgresql://u:hunter2@[h/db",
        "postgresql://u:hunter2@h/db?sslmode",
        "postgresql://u:hunter2@h:70000/db",
    ],
)
def test_what_is_not_understood(given: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_state_url(given)
    assert "hunter2" not in str(caught.value)
    assert "expected" in str(caught.value) or "example" in str(caught.value)
    assert caught.value.__cause__ is None
