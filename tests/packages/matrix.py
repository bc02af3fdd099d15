"""The wheel as a user installs it: with the newest releases of today, on every Python that is here.

    make test-packages                                   # all that there is
    make test-packages ARGS="--python 3.13 --extra airflow --extra prefect"

For each Python and each extra an environment is made, the wheel is put in without any lock, and something
real is done: files, containers of a Swift and a state in a PostgreSQL that are started here, and where the
extra is a scheduler, the demo: it starts, a file lands, and a run works on it. A table tells in the end what
was installed and how it went.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.packages.clean import ROOT, Clean, Failed, make, tell_and_tell_again
from tests.services.containers import Box
from tests.services.postgres import Postgres
from tests.services.processes import free_port
from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, REGION, USER

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: What is told of each, besides what the extra brings.
EXTRAS = {
    "none": ("msgspec", "typer"),
    "swift": ("keystoneauth1", "python-swiftclient"),
    "clouds": ("openstacksdk",),
    "postgres": ("psycopg",),
    "airflow": ("apache-airflow", "fastapi", "sqlalchemy"),
    "prefect": ("prefect", "fastapi", "sqlalchemy"),
    "airflow,prefect": ("apache-airflow", "prefect", "fastapi", "sqlalchemy"),
}
#: What the guide for Prefect tells to install besides.
BESIDES = {"airflow,prefect": ["fastapi<0.137", "sqlalchemy<2.1"]}
console = Console(highlight=False, soft_wrap=True)


class NotHere(Exception):
    """There is no such Python."""


@dataclass
class Row:
    """What became of one Python and one extra."""

    python: str
    extra: str
    versions: str = ""
    result: str = "ok"
    seconds: float = 0


class Services:
    """A Swift and a PostgreSQL, started when they are asked for."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._aio: SwiftAIO | None = None
        self._server: Any = None
        self._databases = 0

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def box(self) -> Iterator[Box]:
        """A new container, of an account that Keystone knows."""
        if self._aio is None:
            self._aio = self._stack.enter_context(SwiftAIO())
        box = Box(self._aio, keystone=True).create()
        yield box
        box.remove()
        box.close()

    def database(self) -> str:
        """The URL of a new database."""
        import psycopg

        if self._server is None:
            self._server = self._stack.enter_context(Postgres(18))
        self._databases += 1
        name = f"matrix_{self._databases}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(database=name))


# -- what is tried -------------------------------------------------------------------


def into(folder: Path) -> Callable[[str, bytes], int]:
    """Makes files there."""
    folder.mkdir()
    return lambda name, data: (folder / name).write_bytes(data)


def files(env: Clean, state: str | None = None) -> None:
    inbox = env.work / "inbox"
    tell_and_tell_again(env, str(inbox), state or str(env.work / "state.db"), into(inbox))


def nothing_else(env: Clean, services: Services) -> None:
    env.run("poller", "doctor", "--state", env.work / "doctor.db", status=None)
    files(env)


def postgresql(env: Clean, services: Services) -> None:
    files(env, services.database())


def container(env: Clean, services: Services) -> None:
    with services.box() as box:
        tell_and_tell_again(env, box.url(), str(env.work / "state.db"), box.put)


def cloud(env: Clean, services: Services) -> None:
    """Credentials from clouds.yaml."""
    with services.box() as box:
        auth = {
            "auth_url": box.aio.env["OS_AUTH_URL"],
            "username": USER,
            "password": PASSWORD,
            "project_name": PROJECT,
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        path = env.work / "clouds.yaml"
        path.write_text(json.dumps({"clouds": {"mine": {"auth": auth, "region_name": REGION}}}))
        environ = {"OS_CLOUD": "mine", "OS_CLIENT_CONFIG_FILE": str(path)}
        target = f"swift://?{box.name}"
        tell_and_tell_again(env, target, str(env.work / "state.db"), box.put, environ)


def airflow(env: Clean, services: Services) -> None:
    home = {"AIRFLOW_HOME": str(env.work / "airflow")}
    said = env.run("airflow", "providers", "get", "poller-core", "--full", "-o", "json", environ=home)
    if "poller_airflow.sensors" not in said.stdout:
        raise Failed(f"Airflow does not find the provider:\n{said.stdout}")
    demo(env, "airflow")


def prefect(env: Clean, services: Services) -> None:
    demo(env, "prefect")
    script = Path(__file__).with_name("prefect_scheduled.py")
    place = env.work / "demo-prefect"
    env.run("python", "-c", f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", cwd=place)


def both(env: Clean, services: Services) -> None:
    airflow(env, services)
    prefect(env, services)


def demo(env: Clean, host: str) -> None:
    """What ``make demo`` shows, with the package that is installed."""
    place = env.work / f"demo-{host}"
    for name in ("demo", "dags_examples", "tests/services"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Packages, so that no other "tests" of what is installed comes first.
    for name in ("demo", "tests"):
        (place / name / "__init__.py").touch()
    said = env.run("python", "-m", f"demo.{host}", "--once", "--port", free_port(), cwd=place).stdout
    if not re.search(r"run .*: (success|Completed)", said):
        raise Failed(f"no run worked on the file:\n{said[-3000:]}")


TRIED: dict[str, Callable[[Clean, Services], None]] = {
    "none": nothing_else,
    "swift": container,
    "clouds": cloud,
    "postgres": postgresql,
    "airflow": airflow,
    "prefect": prefect,
    "airflow,prefect": both,
}


# -- where ---------------------------------------------------------------------------


def interpreter(wanted: str) -> str:
    """A Python by its version or its path; its path.

    :raises NotHere: if there is none.
    """
    places = [wanted, f"python{wanted}"]
    places += map(str, Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python3"))
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys._base_executable)"
    for place in filter(shutil.which, places):
        done = subprocess.run([place, "-c", code], capture_output=True, text=True)
        version, _, path = done.stdout.strip().partition(" ")
        if done.returncode == 0 and ("/" in wanted or version == wanted):
            return path
    raise NotHere(f"there is no Python {wanted} here")


def uv() -> str:
    """The installer: ``.ci/venv tools`` makes it."""
    path = Path(sys.prefix + "-tools") / "bin" / "uv"
    return str(path) if path.exists() else "uv"


def tried(
    python: str, extra: str, wheel: Path, more: list[str] | None, services: Services, keep: bool
) -> Row:
    """Install and try."""
    row = Row(python, extra)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="poller-test-pk-"))
    try:
        env = Clean(folder, interpreter(python))
        into_it = ("--quiet", "--python", env.bin / "python")
        row.python = env.run("python", "--version").stdout.split()[1]
        what = str(wheel) if extra == "none" else f"{wheel}[{extra}]"
        besides = BESIDES.get(extra, []) if more is None else more
        env.run(uv(), "pip", "install", *into_it, what, *besides)
        env.run(uv(), "pip", "check", *into_it)
        found = json.loads(env.run(uv(), "pip", "list", *into_it, "--format", "json").stdout)
        versions = {one["name"].lower(): one["version"] for one in found}
        row.versions = ", ".join(f"{name} {versions[name]}" for name in EXTRAS[extra])
        if "prefect" in extra:  # what the demo itself needs
            env.run(uv(), "pip", "install", *into_it, "psutil")
        ((_, package, prefix),) = env.probe("where")
        if not Path(package).is_relative_to(prefix):
            raise Failed(f"{package} was imported, which was not installed")
        TRIED[extra](env, services)
    except NotHere as error:
        row.result = str(error)
    except (Failed, AssertionError, subprocess.TimeoutExpired) as error:
        row.result = "FAILED"
        console.print(f"\n[red]{row.python}, {extra}: failed[/]")
        console.print(str(error), markup=False)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"    kept: {folder}")
    row.seconds = time.monotonic() - began
    console.print(f"    {row.python:8} {extra:16} {row.result:8} {row.seconds:4.0f} s  {row.versions}")
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make test-packages ARGS=…",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--python", action="append", help="a version, or a path; all that there are")
    parser.add_argument("--extra", action="append", choices=list(EXTRAS), help="one of them; all")
    parser.add_argument("--wheel", type=Path, help="this one, instead of one that is made now")
    parser.add_argument(
        "--with", nargs="*", dest="more", help="what to install besides, instead of what the guide tells"
    )
    parser.add_argument("--keep", action="store_true", help="leave the environments")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        wheel = options.wheel
        if wheel is None:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="poller-test-pk-"))
            wheel, _ = make(Path(out))
        services = stack.enter_context(Services())
        rows = [
            tried(python, extra, wheel.resolve(), options.more, services, options.keep)
            for python in options.python or PYTHONS
            for extra in options.extra or EXTRAS
        ]
    table = Table("Python", "extra", "installed", "result", "s", title=wheel.name)
    for row in rows:
        table.add_row(row.python, row.extra, row.versions, row.result, f"{row.seconds:.0f}")
    console.print(table)
    failed = sum(row.result == "FAILED" for row in rows)
    console.print(f"{sum(row.result == 'ok' for row in rows)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore:XDG_RUNTIME_DIR")
    sys.exit(main())
