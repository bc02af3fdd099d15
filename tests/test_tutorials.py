"""The tutorials are done as they stand, and so are the commands of the other pages, as far as a test can."""

from __future__ import annotations

import configparser
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.tools import ends, eventually
from tests.pageshell import PageShell, fences, follow
from tests.test_docs import PAGES, ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
#: Those with a scheduler are done where it is installed.
ELSEWHERE = {
    "airflow": "tests/airflow/test_airflow_tutorial.py",
    "prefect": "tests/prefect/test_prefect_tutorial.py",
}
#: Nobody's systemd is asked to run anything: what the unit says is tried below.
SYSTEMD = ["systemctl --user ", "journalctl --user "]

INBOX = {"/data/inbox": "inbox"}
#: The other pages with commands, and how they are run.
COMMANDS: dict[str, dict[str, Any]] = {
    "README.md": {
        # Make's targets are what "make test" and the tests of the demo are about, Swift has tests of its own.
        "leave": ["make ", 'poller watch "swift:'],
        "endless": [r"poller watch \./inbox"],
        "before": "mkdir inbox",
    },
    # The connection is made by tests/airflow.
    "docs/airflow.md": {
        "leave": ["airflow connections add"],
        "before": "mkdir -p inbox airflow/poller\nexport AIRFLOW_HOME=$PWD/airflow\n"
        "poller poll -q inbox --state airflow/poller/state.db",
    },
    "docs/prefect.md": {
        "before": "mkdir -p inbox ~/.prefect/poller\npoller poll -q inbox --state ~/.prefect/poller/state.db"
    },
    # They need a Swift, which tests/swift has.
    "docs/swift.md": {"leave": ["poller (doctor|watch) ", "openstack ", "export OS_"]},
}


@pytest.mark.parametrize("name", ["python", pytest.param("shell", marks=pytest.mark.slow)])
def test_tutorial(tmp_path, name):
    follow(TUTORIALS / f"{name}.md", tmp_path / "work", leave=SYSTEMD)


def test_each_tutorial_is_done():
    assert {page.stem for page in TUTORIALS.glob("*.md")} == {"python", "shell", *ELSEWHERE}
    for name, path in ELSEWHERE.items():
        assert f'TUTORIALS / "{name}.md"' in (ROOT / path).read_text()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_tutorial_that_is_done_elsewhere_is_whole(name):
    """What is done elsewhere takes minutes, and is not part of each run: a slip shows here."""
    found = fences(TUTORIALS / f"{name}.md")
    assert {one.language for one in found if one.file is None} == {"sh", "text"}
    for one in found:
        if one.language == "python":
            compile(one.text, one.file or "", "exec")


@pytest.mark.parametrize(("name", "consumer"), [("python", "loader"), ("shell", "default")])
def test_the_unit_in_a_tutorial_runs_as_it_says(tmp_path, name, consumer):
    with PageShell(tmp_path / "work") as shell:
        home = shell.home
        shell.run(
            f"mkdir -p ~/sales-{name}/inbox ~/sales-{name}/done\ncd ~/sales-{name}\npython3 -m venv venv"
        )
        for one in fences(TUTORIALS / f"{name}.md"):
            if one.file is not None:
                shell.write(one.file, one.text)
        shell.run("[ ! -e load ] || chmod +x load")
        # What is there at the first look is known; what comes after it is loaded.
        shell.run(f"poller poll inbox -q --state state.db --consumer {consumer}")
        env = shell.environ
    (unit,) = (home / ".config" / "systemd" / "user").glob("*.service")
    assert unit.stem == f"sales-{name}"
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str  # type: ignore[method-assign, assignment]
    read.read_string(unit.read_text().replace("%h", str(home)))
    service = read["Service"]
    folder = Path(service["WorkingDirectory"])
    variables = dict(one.split("=", 1) for one in shlex.split(service.get("Environment", "")))
    with (
        open(tmp_path / "log", "w+") as log,
        subprocess.Popen(
            shlex.split(service["ExecStart"]), cwd=folder, env={**env, **variables}, stdout=log, stderr=log
        ) as process,
    ):
        try:
            (folder / "inbox" / "a.csv").write_text("a,1\n")
            total = folder / "total.csv"
            eventually(lambda: total.exists() and total.read_text() == "a,1\n", "the work")
            status = ends(process, signal.SIGTERM)
        finally:
            process.kill()
    assert status in (0, int(service.get("SuccessExitStatus", "0"))), (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(tmp_path, name):
    languages = {one.language for one in fences(ROOT / name)} - {"sh"}
    follow(ROOT / name, tmp_path / "work", others=languages, replace=INBOX, **COMMANDS[name])


def test_no_command_is_left_out():
    with_commands = {page for page in PAGES if re.search(r"^```sh$", page.read_text(), re.MULTILINE)}
    # Made from the program; for who works here, and all of it make and pytest; done by their own tests.
    others = {"docs/reference/command.md", "CONTRIBUTING.md", "docs/command-line.md"}
    pages = [page for page in with_commands if page.parent not in (TUTORIALS, ROOT / "docs" / "how-to")]
    assert {str(page.relative_to(ROOT)) for page in pages} == {*COMMANDS, *others}
