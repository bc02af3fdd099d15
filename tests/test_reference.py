"""The pages of ``docs/reference`` that are written by hand tell what there is: no more, and no less."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

import poller_core
from poller_core import FilePoller, PollerError, open_journal
from poller_core.backends.swift.location import _KNOWN, SCHEMES
from poller_core.cli import app
from poller_core.cli.app import _CODES
from poller_core.hosts import CREDENTIALS, SWIFT_OPTIONS
from poller_core.hosts.runs import FINAL
from poller_core.hosts.secrets import OPTIONS
from poller_core.options import Options, TargetOptions
from poller_core.state import open_store, schema
from poller_core.stored import status_of
from poller_core.swift import _OWN
from tests.test_docs import ROOT, blocks

REFERENCE = ROOT / "docs" / "reference"
SOURCES = [
    path for folder in ("poller_core", "integrations") for path in sorted((ROOT / folder).rglob("*.py"))
]


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its rank."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert found, title
    return re.split(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {number for number, row in enumerate(cells) if set("".join(row)) <= set("-: ")}
    return [row for number, row in enumerate(cells) if not {number, number + 1} & rules]


def named(text: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`]+)`", text))


# -- errors ----------------------------------------------------------------------------


def errors_of_the_engine() -> set[type[PollerError]]:
    for module in pkgutil.walk_packages(poller_core.__path__, "poller_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = set(), [PollerError]
    while left:
        for kind in left.pop().__subclasses__():
            if kind.__module__.startswith("poller_core."):
                found.add(kind)
                left.append(kind)
    return {kind for kind in found if not kind.__name__.startswith("_")}


def errors_of_the_adapters() -> set[str]:
    """Found in the text, as no scheduler is installed here."""
    names = {kind.__name__ for kind in errors_of_the_engine()} | {"PollerError"}
    return {
        node.name
        for path in sorted((ROOT / "integrations").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if any(isinstance(base, ast.Name) and base.id in names for base in node.bases)
    }


def test_every_error_is_told_with_its_exit_code() -> None:
    told = {row[0].strip("`"): row for row in rows(page("errors"))}
    engine = {kind.__name__: kind for kind in errors_of_the_engine()}
    assert told.keys() == engine.keys() | errors_of_the_adapters()
    for name, kind in engine.items():
        code = next((code for kinds, code in _CODES if issubclass(kind, kinds)), 1)
        assert told[name][4] == str(code), name
        assert told[name][1], name
        assert told[name][2], name


def test_what_fails_a_task_of_airflow_for_good_is_told() -> None:
    text = section(page("errors"), "Of Airflow").split(" as `AirflowFailException`")[0]
    assert named(text) == {kind.__name__ for kind in FINAL}


# -- configuration -----------------------------------------------------------------------


def test_every_option_is_told() -> None:
    text = section(page("configuration"), "Options of pollers")
    target = {one.name for one in fields(TargetOptions)}
    usual = {one.name: one.default for one in (*fields(TargetOptions), *fields(Options))}
    everywhere, containers = text.split("Of [containers]")
    told = {row[0].strip("`"): row for row in rows(everywhere)}
    assert told.keys() == (usual.keys() - {"target"}) | {"progress"}
    assert {name for name, row in told.items() if row[3] == "yes"} == target
    of_containers = {row[0].strip("`"): row for row in rows(containers)}
    assert of_containers.keys() == set(_OWN)
    hosts = {name for name, row in told.items() if row[4]} | {n for n, row in of_containers.items() if row[3]}
    assert hosts == set(OPTIONS)
    for name in ("retention", "retention_unread", "full_every"):
        assert told[name][2].split(" ")[0] == f"{usual[name]:.0f}"
    watch = typer.main.get_command(app).commands["watch"]  # type: ignore[attr-defined]
    flags = {flag for one in watch.params for flag in one.opts}
    for name, row in told.items():
        flag = "--no-default-exclude" if name == "default_exclude" else f"--{name.replace('_', '-')}"
        assert row[5] == (f"`{flag}`" if flag in flags else ""), name


def test_every_form_of_a_url_is_told() -> None:
    text = page("configuration")
    assert {f"{scheme}://" for scheme in SCHEMES} <= {
        name[: name.index("://") + 3] for name in named(section(text, "What is watched")) if "://" in name
    }
    told = re.findall(r"^\| `&(\w+)=", text, re.MULTILINE)
    assert sorted(told) == sorted(_KNOWN)


def constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def variables_read(path: Path) -> set[str]:
    """The variables of the environment whose names stand in a module; ``OS_`` and the like: any such."""
    tree = ast.parse(path.read_text())
    known, found = constants(tree), set[str]()
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("os.environ.get", "environ.get", "os.getenv", "os.environ.pop"):
                key = node.args[0]
            elif called == "_settings":
                key = node.args[1]
            found |= {
                str(one.value.value)
                for one in node.keywords
                if one.arg == "envvar" and isinstance(one.value, ast.Constant)
            }
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("os.environ", "environ"):
            key = node.slice
        if isinstance(key, ast.Constant):
            found.add(str(key.value))
        elif isinstance(key, ast.Name):
            found.add(known[key.id])
    return found


def test_every_variable_that_is_read_is_told() -> None:
    read = {name for path in SOURCES for name in variables_read(path)}
    # That this finds them is seen by these.
    assert {"POLLER_STATE", "POLLER_CRASH_AT", "AIRFLOW_HOME", "OS_CACERT", "OS_", "ST_"} <= read
    told = {
        name
        for row in rows(section(page("configuration"), "Environment"))
        for name in named(row[0])
        if re.fullmatch(r"[A-Z][A-Z_]+", name)
    }
    assert {name for name in read if not name.endswith("_")} <= told
    # What stands on the page is read: by its whole name, or as one of those that begin so.
    assert all(name in read or name.startswith(("OS_", "ST_")) for name in told)
    # Whatever is passed on to keystoneauth1, the usual ones are named.
    assert {f"OS_{name.upper()}" for name in (*CREDENTIALS, "username", "password", "auth_url")} <= told
    # Nobody else looks at the environment as a whole.
    whole = {path.name for path in SOURCES if re.search(r"os\.environ(?!\.get|\[)", path.read_text())}
    assert whole == {"command.py", "credentials.py", "sessions.py"}


def test_what_a_command_gets_is_told() -> None:
    given = re.findall(r'"(POLLER_\w+)"', (ROOT / "poller_core" / "cli" / "command.py").read_text())
    told = page("configuration").split("for what `--exec` runs: ")[1].split(". One of which")[0]
    assert named(told) == set(given)


def test_what_the_hosts_keep_is_told() -> None:
    from poller_airflow.provider import get_provider_info  # needs no Airflow

    text = page("configuration")
    info = get_provider_info()
    airflow, prefect = section(text, "Airflow"), section(text, "Prefect")
    told = {row[0].strip("`"): row[1] for row in rows(airflow)}
    for name, option in info["config"]["poller"]["options"].items():
        assert str(option["default"]) in told[name]
    (form,) = info["connection-types"]
    assert set(form["conn-fields"]) <= named(told["extra"])
    assert named(told["extra"]) == {*CREDENTIALS, *SWIFT_OPTIONS, "state"}
    blocks = {
        node.name: {
            one.target.id
            for one in node.body
            if isinstance(one, ast.AnnAssign)
            if isinstance(one.target, ast.Name) and not one.target.id.startswith("_")
        }
        for node in ast.parse((ROOT / "integrations" / "poller_prefect" / "blocks.py").read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert {re.match(r"`(\w+)`", row[0])[1]: named(row[1]) for row in rows(prefect)} == blocks  # type: ignore[index]


def test_settings_of_airflow_that_are_read_are_told() -> None:
    told = section(page("configuration"), "Airflow")
    for path in (ROOT / "integrations" / "poller_airflow").glob("*.py"):
        tree = ast.parse(path.read_text())
        known = constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "conf.get",
                "conf.getfloat",
                "conf.getint",
                "conf.getboolean",
            ):
                group, name = (
                    str(one.value) if isinstance(one, ast.Constant) else known[ast.unparse(one)]
                    for one in node.args[:2]
                )
                assert f"`[{group}]`" in told or f"`[{group}] {name}`" in told, f"{group}.{name}"
                assert f"`{name}`" in told or f"] {name}`" in told, f"{group}.{name}"


def test_entry_points_and_loggers_are_told() -> None:
    text = page("configuration")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = {(group, name) for group, points in project["entry-points"].items() for name in points} | {
        ("console_scripts", name) for name in project["scripts"]
    }
    own = section(text, "Pollers of your own")
    assert {(row[0].strip("`"), row[1].strip("`")) for row in rows(own)} == entries
    loggers = set()
    for path in SOURCES:
        for given in re.findall(r"logging\.getLogger\(([^)]*)\)", path.read_text()):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            loggers.add(module if given == "__name__" else given.strip("\"'"))
    assert {row[0].strip("`") for row in rows(section(text, "Log"))} == loggers


def test_state_of_the_command_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for variable, place in (("XDG_STATE_HOME", "poller"), ("HOME", ".local/state/poller")):
        home = tmp_path / variable
        subprocess.run(
            [sys.executable, "-m", "poller_core.cli", "poll", inbox],
            env={variable: str(home)},
            check=True,
        )
        assert (home / place / "state.db").is_file()


# -- the schema ----------------------------------------------------------------------------


def told_tables() -> dict[str, set[str]]:
    """The page's tables and their columns."""
    text = page("state-schema")
    return {
        name: {column for row in rows(section(text, name)) for column in named(row[0])}
        for name in re.findall(r"^## (poller_\w+)$", text, re.MULTILINE)
    }


def test_tables_and_columns_are_those_that_there_are(state_url: str) -> None:
    with open_store(state_url) as store:
        if store.path is not None:
            found = store.database.rows(
                "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
                "WHERE m.type = 'table'"
            )
        else:
            found = store.database.rows(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            )
    there: dict[str, set[str]] = {}
    for table, column in found:
        there.setdefault(str(table), set()).add(str(column))
    assert told_tables() == there
    assert there.keys() == {"poller_meta", "poller_targets", *(f"poller_{name}" for name in schema.TABLES)}


def test_the_version_on_the_page_is_the_current_one() -> None:
    assert f"for as long as `schema_version` is {schema.current_version()}." in page("state-schema")


def test_queries_for_others_say_what_status_says(state_url: str, inbox: Path) -> None:
    with FilePoller(inbox, state=state_url, consumer="nightly") as poller:
        for name in "abcd":
            (inbox / name).touch()
        claim = poller.claim("run-1", limit=2)
        poller.claim("run-2", limit=1)
        poller.release("run-2")
        target, last = poller._engine.target_id, poller.status().last_seq
    with open_store(state_url) as store:
        store.consumers.bury(target, "nightly", last, 3, "exit code 1", "{}")
        status = status_of(store, target)
    targets, consumers, claims, dead, version = query(state_url)
    assert [(one["url"], one["entries"], one["last_seq"], one["oldest_seq"]) for one in targets] == [
        (status.url, status.entries, status.last_seq, status.oldest_seq)
    ]
    assert [(one["name"], one["lag"]) for one in consumers] == [
        (one.name, one.lag) for one in status.consumers
    ]
    assert [(one["token"], one["first_seq"], one["last_seq"]) for one in claims] == [
        ("run-1", claim[0].seq, claim[-1].seq)
    ]
    assert [(one["seq"], one["attempts"], one["error"]) for one in dead] == [(last, 3, "exit code 1")]
    assert version == [{"value": str(schema.current_version())}]
    with open_journal(state_url) as journal:
        assert [(row.token, row.count) for row in journal.claims()] == [("run-1", 2)]


def query(state_url: str) -> list[list[dict[str, Any]]]:
    """The page's queries, made as anybody would."""
    statements = [code for _, code in blocks(REFERENCE / "state-schema.md", "sql")]
    assert len(statements) == 5
    if state_url.startswith("sqlite"):
        with closing(sqlite3.connect(state_url.removeprefix("sqlite:///"))) as connection:
            return [answer(connection.execute(one)) for one in statements]
    import psycopg

    with psycopg.connect(state_url.replace("+psycopg", "")) as server:
        return [answer(server.execute(one)) for one in statements]


def answer(cursor: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


# -- promises ------------------------------------------------------------------------------


def test_what_shows_a_promise_is_there() -> None:
    text = section(
        (ROOT / "docs" / "promises.md").read_text(), "Killed at each step: what the next start believes"
    )
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    shown = [row[3] for row in rows(text)]
    assert len(shown) > 30
    for cell in shown:
        files = re.findall(r"`(test_\w+\.py)`", cell)
        assert files, cell
        assert set(files) <= there


# -- scaling -------------------------------------------------------------------------------


def test_figures_that_were_measured_are_those_of_the_benchmarks() -> None:
    measured = set(re.findall(r"[\d.,]*\d", (ROOT / "docs" / "benchmarks.md").read_text()))
    told = re.findall(r"\*\*(.*?)\*\*", (ROOT / "docs" / "scaling.md").read_text())
    figures = {number for text in told for number in re.findall(r"[\d.,]*\d", text)}
    assert len(figures) > 25
    assert figures <= measured


# -- what is public ------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["poller_core", "poller_airflow", "poller_prefect"])
def test_all_that_is_public_has_a_place(package: str) -> None:
    folder = ROOT / ("" if package == "poller_core" else "integrations") / package
    tree = ast.parse((folder / "__init__.py").read_text())
    (public,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    name = package.removeprefix("poller_")
    told = {
        one.rpartition(".")[2]
        for one in re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)", page(name), re.MULTILINE)
    }
    errors = set(poller_core.errors.__all__) if package == "poller_core" else set()
    assert set(public) - errors - {"__version__"} <= told


def test_signature_of_the_poll_is_its_own() -> None:
    """It is written out on its page, without Prefect's annotations, which nobody can read."""
    (told,) = re.findall(r"^\.\. autofunction:: poll_flow\((.*)\)$", page("prefect"), re.MULTILINE)
    shown = ast.parse(f"def poll_flow({told}): ...").body[0]
    source = (ROOT / "integrations" / "poller_prefect" / "flow.py").read_text()
    (real,) = (node for node in ast.walk(ast.parse(source)) if getattr(node, "name", "") == "poll_flow")
    assert isinstance(shown, ast.FunctionDef)
    assert isinstance(real, ast.AsyncFunctionDef)
    for one in real.args.args:
        one.annotation = None
    assert ast.unparse(shown.args) == ast.unparse(real.args)
