"""What ``docs/how-to/troubleshooting.md`` quotes is what the program says.

By mistakes that are made here, as far as that is cheap; of the other messages each piece has to stand in the
source.
"""

from __future__ import annotations

import ast
import functools
import logging
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poller_core import (
    PollerError,
    hosts,
    make_poller,
    open_journal,
)
from tests.races.tools import put
from tests.test_mistakes import PATHS, no_instance

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"


def quoted() -> list[str]:
    """The messages that the page says are ours: the first column of tables with that heading."""
    found, ours = [], False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            ours = False
        elif line.startswith("| it says"):
            ours = True
        elif ours and (match := re.match(r"\| `([^`]+)`", line)):
            found.append(match[1])
    return found


@functools.cache
def said() -> list[str]:
    """Every text in the program, with ``…`` for what is filled in."""
    texts = []
    for folder in ("poller_core", "integrations"):
        for path in (ROOT / folder).rglob("*.py"):
            texts += [text for text in map(_as_said, ast.walk(ast.parse(path.read_text()))) if text]
    return texts


def _as_said(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%\.?\d*[sdfgr]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_as_said(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "…"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _as_said(node.left), _as_said(node.right)
        return left + right if left and right else ""
    return ""


def pieces(text: str) -> list[str]:
    """What stands between the parts that are filled in, but for what is too short to tell anything."""
    return [piece.strip() for piece in re.split("…|'…'", text) if len(piece.strip()) > 3]


class _Keep(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Told:
    """What is told of mistakes that are made here."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def of(self, function: Callable[..., object], *args: Any, **options: Any) -> None:
        """Make a mistake."""
        try:
            function(*args, **options)
        except (PollerError, ImportError, AttributeError, TypeError) as error:
            self.texts.append(str(error))
        else:
            raise AssertionError(f"that is no mistake: {args!r}, {options!r}")


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[str]:
    """The mistakes of the page, as far as they can be made cheaply."""
    box = tmp_path_factory.mktemp("mistakes")
    inbox = box / "inbox"
    inbox.mkdir()
    (box / "file").touch()
    found = Told()
    for path in (*(given.replace("{box}", str(box)) for given, _ in PATHS), box / "file" / "below"):
        found.of(make_poller, path)
    for url in ("file://data/inbox", "C:/data", "swif://host/v3?box", "s3://bucket/x", "swift://host/v3"):
        found.of(make_poller, url)
    for options in (
        {"recurese": True},
        {"interval": 5},
        {"settle": "5 seconds"},
        {"events": "create"},
        {"include": "*.csv,*.txt"},
        {"include": [f"{inbox}/*.csv"]},
        {"include": ["2026/*.csv"]},
        {"consumer": ""},
        {"state": box},
        {"state": "~/state.db"},
        {"state": "sqlite://state.db"},
        {"state": "/proc/poller/state.db"},
        {"state": "postgresql+psycopg://poller:hunter2@127.0.0.1:1/poller"},
        {"state": "postgresql+psycopg://poller:hun/ter2@127.0.0.1:port/poller"},
    ):
        found.of(make_poller, inbox, **options)
    found.of(open_journal, box / "nowhere.db")
    advice = hosts.Advice("Airflow", url=str, state="", option=str)
    for function, *args in (
        (hosts.refuse_relative, "data/inbox"),
        (hosts.refuse_relative, "~/inbox"),
        (hosts.refuse_relative, "/data/*.csv"),
        (hosts.prepare_state, "state.db", "the settings"),
        (hosts.prepare_state, ":memory:", "the settings"),
    ):
        found.of(function, *args)
    found.of(hosts.refuse_secrets, "swift://alice:hunter2@host/v3?box", advice=advice)
    for module, oldest in (("airflow", "3.1"), ("prefect", "3.6.24")):
        missing = ModuleNotFoundError(name=module)
        found.texts.append(str(hosts.not_installed(missing, module, "not-there-at-all", oldest)))
    alice = {"username": "alice", "password": "hunter2", "project_name": "demo"}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if re.match("(OS|ST)_|.*_proxy$", name, re.IGNORECASE)]:
            patch.delenv(name)
        found.of(make_poller, "swift://127.0.0.1:1/v3?box", retries=0)
        found.of(make_poller, "swift://127.0.0.1:1/v3?box", retries=0, credentials=alice)
        patch.setenv("http_proxy", "http://127.0.0.1:1")
        found.of(make_poller, "swift://keystone.example.org/v3?box", retries=0, credentials=alice)
        # The limit is the whole user's, so it is made up.
        patch.setattr("inotify_simple.INotify", no_instance)
        handler = _Keep(found.texts)
        logging.getLogger("poller_core").addHandler(handler)
        make_poller(inbox).close()
        logging.getLogger("poller_core").removeHandler(handler)
    with make_poller(inbox) as poller:
        put(inbox / "a")
        (event,) = poller.get_new_events()
        found.of(poller.next_batch, limit=0)
        found.of(poller.claim, "")
        found.of(poller.take, event, "run-1")
        found.of(pickle.dumps, poller)
        found.of(getattr, event, "path")
    found.of(poller.get_new_events)
    return [" ".join(text.split()) for text in found.texts]


@pytest.mark.parametrize("message", quoted())
def test_what_the_page_quotes_is_what_is_said(message, told):
    """By a mistake that was made here; else each piece of it stands in the program."""
    pattern = ".*".join(map(re.escape, message.split("…")))
    if not any(re.search(pattern, text, re.DOTALL) for text in told):
        for piece in pieces(message):
            assert any(piece in text for text in said()), f"nobody says {piece!r}"


def test_the_page_quotes_messages(told):
    assert len(quoted()) > 60
    assert not any(piece in text for piece in pieces("… nobody would say that …") for text in said())
    made = [
        one
        for one in quoted()
        if any(re.search(".*".join(map(re.escape, one.split("…"))), text) for text in told)
    ]
    assert len(made) > len(quoted()) / 2
    assert not any("hunter2" in text or "ter2" in text for text in told)
