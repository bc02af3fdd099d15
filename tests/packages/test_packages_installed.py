"""The wheel, installed by pip in an environment of its own, with what the locks pin: does it work there?

With the releases that a user gets today, with other versions of Python, and with Airflow and Prefect it is
tried by ``make test-packages``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from poller_core import __version__
from tests.packages.clean import ROOT, Clean, pins, tell_and_tell_again
from tests.services.containers import Box


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock of the development environment, as constraints."""
    path = tmp_path_factory.mktemp("pins") / "pins.txt"
    path.write_text(pins(ROOT / "requirements" / "dev.txt"))
    return path


@pytest.fixture(scope="module")
def plain(wheel: Path, pinned: Path, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """An environment with the wheel, and no extra."""
    env = Clean(tmp_path_factory.mktemp("plain"))
    env.pip("install", "--quiet", "-c", pinned, wheel)
    return env


@pytest.fixture(scope="module")
def extras(wheel: Path, pinned: Path, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Another one, with the extras for Swift and for PostgreSQL."""
    env = Clean(tmp_path_factory.mktemp("extras"))
    env.pip("install", "--quiet", "-c", pinned, f"{wheel}[swift,postgres]")
    return env


def land(folder: Path):
    folder.mkdir()
    return lambda name, data: (folder / name).write_bytes(data)


def test_it_is_what_was_installed(plain: Clean) -> None:
    assert "No broken requirements" in plain.pip("check")
    ((version, folder, prefix),) = plain.probe("where")
    assert version == __version__
    assert Path(folder).is_relative_to(prefix)
    assert plain.run("poller", "--version").stdout.split()[-1] == __version__
    assert plain.run("python", "-m", "poller_core.cli", "--version").stdout.split()[-1] == __version__


def test_it_brings_no_more_than_it_needs(plain: Clean) -> None:
    installed = {row["name"] for row in json.loads(plain.pip("list", "--format=json"))}
    assert not installed & {
        "apache-airflow",
        "prefect",
        "psycopg",
        "python-swiftclient",
        "SQLAlchemy",
        "pytest",
    }


def test_the_doctor_looks(plain: Clean) -> None:
    done = plain.run("poller", "doctor", "--json", "--state", plain.work / "doctor.db", status=None)
    assert done.returncode in (0, 1), done.stderr  # 1: a limit of this machine is low
    about = {row["about"]: row["what"] for row in json.loads(done.stdout)}
    assert about["poller"].startswith(f"{__version__}, Python {sys.version_info[0]}.{sys.version_info[1]}.")
    assert "psycopg is not installed" in about["packages"]


def test_files(plain: Clean, tmp_path: Path) -> None:
    put = land(tmp_path / "inbox")
    tell_and_tell_again(plain, str(tmp_path / "inbox"), str(tmp_path / "state.db"), put)
    put("third.csv", b"")
    ran = plain.run(
        "poller", "poll", tmp_path / "inbox", "--state", tmp_path / "cli.db", "--existing", "report"
    )
    assert [line.split()[-1].rpartition("/")[2] for line in ran.stdout.splitlines()] == [
        "new.csv",
        "there.csv",
        "third.csv",
    ]


def test_what_is_missing_is_told(plain: Clean, inbox: Path) -> None:
    state = str(plain.work / "refused.db")
    (said,) = plain.probe(
        "refused", "swift://alice+demo:secret-word@keystone.example.org:5000/v3?inbox", state
    )
    assert "pip install 'poller-core[swift]'" in said
    (said,) = plain.probe("refused", inbox, "postgresql+psycopg://poller@db.example.org/poller")
    assert "pip install 'poller-core[postgres]'" in said


def test_containers(extras: Clean, small_box: Box) -> None:
    assert "No broken requirements" in extras.pip("check")
    tell_and_tell_again(extras, small_box.url(), str(extras.work / "swift.db"), small_box.put)


@pytest.mark.postgres
def test_state_in_postgresql(extras: Clean, tmp_path: Path, postgres_url: str) -> None:
    put = land(tmp_path / "inbox")
    tell_and_tell_again(extras, str(tmp_path / "inbox"), postgres_url, put)


def test_a_system_without_inotify(inbox: Path, tmp_path: Path) -> None:
    """Where Linux's own calls are not, directories are listed."""
    code = """if True:
        import os, sys
        del os.O_PATH, os.O_TMPFILE
        sys.modules["inotify_simple"] = None
        from poller_core import FilePoller, INotifyPoller, PollerRefused, make_poller
        try:
            INotifyPoller(sys.argv[1])
        except PollerRefused as error:
            print(error)
        with make_poller(sys.argv[1], state=sys.argv[2], consumer="one", settle=0) as poller:
            assert type(poller) is FilePoller, poller
            open(os.path.join(sys.argv[1], "new.csv"), "w").close()
            print([event.key for event in poller.next_batch()])
    """
    done = subprocess.run(
        [sys.executable, "-c", code, inbox, tmp_path / "state.db"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    refusal, found = done.stdout.splitlines()
    assert "inotify_simple can't be imported" in refusal
    assert found == "[b'new.csv']"
