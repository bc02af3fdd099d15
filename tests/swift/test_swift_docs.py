"""The examples of the page on Swift, run against a real one."""

from __future__ import annotations

import re

from poller_core.backends.swift import location
from poller_core.swift import _OWN
from tests.services.containers import Box
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "swift.md"


def test_examples_run(swift_aio, tmp_path, monkeypatch, capsys):
    for name, value in swift_aio.env.items():
        if name.startswith("OS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    box = Box(swift_aio, "inbox", keystone=True).create()
    example = "swift://keystone.example.org:5000/v3?inbox"
    names: dict[str, object] = {"__name__": "__main__"}
    ((line, code),) = blocks(PAGE, "python")
    assert example in code
    code = code.replace(example, box.url(user=False))
    exec(compile(code, f"{PAGE}:{line}", "exec"), names)
    box.put("sales.csv", b"12345")
    code = code.replace("poller = make_poller", "# poller = make_poller")
    exec(compile(code, f"{PAGE}:{line}", "exec"), names)
    assert capsys.readouterr().out.startswith("created inbox sales.csv 5 ")
    assert names["data"] == b"12345"
    names["poller"].close()  # type: ignore[attr-defined]
    box.remove()
    box.close()


def test_what_is_told_is_what_there_is():
    text = PAGE.read_text()
    table = text.split("## Options")[1].split("## ")[0]
    told = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert told == set(_OWN)
    for name in location._KNOWN:
        assert f"[&{name}=" in text
