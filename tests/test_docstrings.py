"""Every example in a docstring is run: the engine's here, the adapters' by the tests of their schedulers.

An example is an indented block behind a line that ends in ``::``, as it is shown in the reference.
"""

from __future__ import annotations

import ast
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import poller_core
from poller_core import Poller, Span, Url, make_poller, register_poller
from poller_core import poller as registry
from poller_core.backends.inotify import InotifyWatch
from poller_core.backends.swift.location import locate

ROOT = Path(__file__).parent.parent


class Example(NamedTuple):
    """A block of a docstring."""

    place: str  #: ``module`` or ``module:name``
    line: int  #: of its docstring's end, more or less, for tracebacks
    code: str


def docstrings(path: Path) -> Iterator[tuple[str, int, str]]:
    """All of a module: of what, where, and the text."""
    tree = ast.parse(path.read_text())
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("integrations.")
    module = module.removesuffix(".__init__")
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                name = "" if isinstance(node, ast.Module) else f":{node.name}"
                yield module + name, node.body[0].lineno, text


def examples(package: str) -> list[Example]:
    """All examples of a package."""
    folder = ROOT / ("poller_core" if package == "poller_core" else f"integrations/{package}")
    return [
        Example(place, line, textwrap.dedent(found[1]).strip() + "\n")
        for path in sorted(folder.rglob("*.py"))
        for place, line, text in docstrings(path)
        for found in re.finditer(r"::\n\n((?:    .*\n|\n)+)", f"{text}\n")
    ]


def run(example: Example, **names: Any) -> dict[str, Any]:
    """Run an example that sees these names; what is defined then."""
    exec(compile("\n" * (example.line - 1) + example.code, example.place, "exec"), names)
    return names


def named(package: str) -> dict[str, Example]:
    found = examples(package)
    assert len({one.place for one in found}) == len(found), "one of them has two, which share a name here"
    return {one.place: one for one in found}


ENGINE = named("poller_core")


def test_all_of_them_are_run() -> None:
    """Whoever writes another one runs it here, or where its scheduler is."""
    assert ENGINE.keys() == {
        "poller_core",
        "poller_core.poller:register_poller",
        "poller_core.backends.inotify",
        "poller_core.backends.swift.location",
        "poller_core.events:Event",
        "poller_core.journals:open_journal",
        "poller_core.url:Url",
    }
    # In tests/airflow/conftest.py and test_airflow_with_secrets.py.
    assert named("poller_airflow").keys() == {
        "poller_airflow",
        "poller_airflow.assets:poller_asset",
        "poller_airflow.hooks:PollerHook",
    }
    # In tests/prefect/test_prefect_served.py.
    assert named("poller_prefect").keys() == {"poller_prefect"}


def test_nothing_is_shown_in_another_way() -> None:
    for package in ("poller_core", "poller_airflow", "poller_prefect"):
        folder = ROOT / ("poller_core" if package == "poller_core" else f"integrations/{package}")
        for path in folder.rglob("*.py"):
            assert ">>> " not in path.read_text(), path


def elsewhere(example: Example, inbox: Path) -> Example:
    """With the test's own directories for those that the example names."""
    code = example.code.replace("/data/inbox", str(inbox))
    return example._replace(code=code.replace("/var/lib/poller", str(inbox.parent)))


def test_package(inbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = elsewhere(ENGINE["poller_core"], inbox)
    run(example)
    (inbox / "sub").mkdir()
    (inbox / "sub" / "a.csv").touch()
    run(example)
    assert capsys.readouterr().out == f"created {inbox}/sub/a.csv\n"
    assert (inbox.parent / "state.db").is_file()


def test_register_poller(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {scheme: list(classes) for scheme, classes in registry._registry.items()}
    monkeypatch.setattr(registry, "_registry", before)
    made = run(ENGINE["poller_core.poller:register_poller"], register_poller=register_poller, Poller=Poller)
    assert isinstance(make_poller("table://example.org/orders"), made["TablePoller"])


def test_inotify(inbox: Path) -> None:
    watch = InotifyWatch(recurse=True)
    try:
        fd = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY)
        watch.on_directory(b"", fd, os.fstat(fd).st_dev)
        os.close(fd)
        watch.drain()
        (inbox / "a").touch()
        names = run(ENGINE["poller_core.backends.inotify"], watch=watch, spans=[Span()])
        assert any(span.holds(b"a") for span in names["hints"].spans)
    finally:
        watch.close()


def test_url_of_a_container() -> None:
    """It is a grammar; what is made by it is understood, with what is optional and without."""
    grammar = "".join(ENGINE["poller_core.backends.swift.location"].code.split())
    names = re.sub(r"<([\w-]+)>", lambda found: found[1].replace("-", "."), grammar)
    port = names.replace("[:port]", "[:5000]").replace("[/path]", "[/v3]").replace("=…", "=some")
    whole = locate(Url(re.sub(r"[\[\]]", "", port)))
    assert (whole.user, whole.tenant, whole.password) == ("user", "tenant", "password")
    assert (whole.container, whole.prefix, whole.recurse) == ("container", "some", False)
    assert (whole.region, whole.domain) == ("some", "some")
    assert whole.auth_url == "http://keystone.host:5000/v3"
    bare = locate(Url(re.sub(r"\[[^\]]*\]", "", port)))
    assert (bare.container, bare.prefix, bare.auth_url) == ("container", "", "http://keystone.host")


def test_event(inbox: Path) -> None:
    with make_poller(inbox, existing="report") as poller:
        (inbox / "a.csv").write_text("abc")
        (event,) = poller.get_new_events()
        names = run(ENGINE["poller_core.events:Event"], event=event, Event=poller_core.Event)
    assert names["what"] == "created"
    assert names["subject"].path == f"{inbox}/a.csv"


def test_url() -> None:
    run(ENGINE["poller_core.url:Url"], Url=Url)


def test_open_journal(inbox: Path) -> None:
    example = elsewhere(ENGINE["poller_core.journals:open_journal"], inbox)
    with make_poller(inbox, existing="report", state=inbox.parent / "state.db") as poller:
        (inbox / "a.csv").touch()
        (event,) = poller.get_new_events()
    given = {"open_journal": poller_core.open_journal, "event_id": event.id}
    assert run(example, **given, run_id="run-1")["event"] == event
    with pytest.raises(poller_core.EventTaken):
        run(example, **given, run_id="run-2")
