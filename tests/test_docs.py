"""Every Python example in README and docs is run, block by block; every command, option and link is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from poller_core import poller as registry
from poller_core.cli import app
from poller_core.options import Options, TargetOptions

ROOT = Path(__file__).parent.parent
OTHERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "dags_examples" / "README.md"]
PAGES = [*OTHERS, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start()) + 2, match[2])
        for match in BLOCK.finditer(text)
        if match[1] == language
    ]


#: Schedulers, which have examples of their own: see tests/airflow/test_airflow_docs.py and the like.
HOSTS = ("airflow", "prefect")


def examples(page: Path, host: str | None = None) -> list[tuple[int, str]]:
    """A page's Python: that for a scheduler, or all that is for none.

    Pages in ``docs/reference`` are generated from what is tested elsewhere; tutorials are done as they
    stand, see ``tests/test_tutorials.py``.
    """
    if page.parent.name in ("reference", "tutorials"):
        return []

    def whose(code: str) -> str | None:
        return next((name for name in HOSTS if name in code), None)

    return [(line, code) for line, code in blocks(page, "python") if whose(code) == host]


def run(page: Path, code: list[tuple[int, str]]) -> dict[str, object]:
    """Run blocks one after the other; what is defined then."""
    names: dict[str, object] = {"__name__": "__main__"}
    for line, text in code:
        # Empty lines in front, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)
    return names


#: Pages that need a Swift or a PostgreSQL, or whose Python their commands run: see
#: tests/swift/test_swift_docs.py, tests/test_howtos.py and tests/cli/test_cli_docs.py.
SERVICES = ("swift.md", "swift-application-credentials.md", "postgresql.md", "command-line.md")


def with_python() -> list[Path]:
    return [page for page in PAGES if examples(page) and page.name not in SERVICES]


def test_there_are_examples():
    assert ROOT / "README.md" in with_python()
    assert ROOT / "docs" / "python.md" in with_python()


@pytest.mark.parametrize("page", with_python(), ids=lambda page: page.name)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {scheme: list(classes) for scheme, classes in registry._registry.items()}
    monkeypatch.setattr(registry, "_registry", before)
    (tmp_path / "inbox").mkdir()
    run(page, examples(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert not broken


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings get, as on the usual hosts of repositories."""
    lines = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def test_the_options_in_the_guide_are_those_that_there_are():
    text = (ROOT / "docs" / "python.md").read_text()
    table = text.split("## Options")[1].split("## ")[0]
    told = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    there = {one.name for one in fields(Options)} | {one.name for one in fields(TargetOptions)}
    assert told == (there - {"target"}) | {"progress"}


def test_the_commands_in_the_guide_are_those_that_there_are():
    text = (ROOT / "docs" / "command-line.md").read_text()
    told = set(re.findall(r"`poller (\w+)[^`]*`", text.split("## A command per file")[0])) - {"COMMAND"}
    assert told == {one.name for one in app.registered_commands}
