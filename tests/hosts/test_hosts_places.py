"""What adapters to schedulers say of places: paths, states, schemes, and an adapter without its host."""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poller_core import InvalidOption, InvalidUrl, StateUnreadable, UnknownScheme, Url, make_poller
from poller_core.hosts import not_installed, prepare_state, refuse_relative, refuse_secrets, refuse_unknown
from tests.hosts.tools import ADVICE, SECRET

ROOT = Path(__file__).parents[2]


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
