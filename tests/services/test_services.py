"""The services themselves: what the tests of containers rely on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import requests

from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO


@pytest.mark.parametrize("which", ["box", "ks_box"])
def test_objects(which: str, request: pytest.FixtureRequest) -> None:
    box: Box = request.getfixturevalue(which)
    box.put("a b/\N{SNOWMAN}", b"12345")
    assert box.get("a b/\N{SNOWMAN}").content == b"12345"
    assert [(row["name"], row["bytes"]) for row in box.listing()] == [("a b/\N{SNOWMAN}", 5)]
    box.delete("a b/\N{SNOWMAN}")
    assert box.listing() == []


def test_faults(box: Box) -> None:
    box.put("a", b"x" * 1000)
    with box.aio.fault("proxy", "GET .*/a", status=503, times=1, headers={"Retry-After": "7"}):
        answer = box.ask("GET", "a", ok=(503,))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
        assert box.get("a").status_code == 200
    with box.aio.fault("proxy", "format=json", status=200, body="<html>"):
        assert box.ask("GET", params={"format": "json"}).text == "<html>"
    with (
        box.aio.fault("proxy", "GET .*/a", part=0.5),
        pytest.raises(requests.exceptions.ChunkedEncodingError),
    ):
        box.get("a")
    with (
        box.aio.fault("proxy", "GET .*/a", part=0.5, stall=30),
        pytest.raises(requests.exceptions.ConnectionError, match="timed out"),
    ):
        box.ask("GET", "a", timeout=0.5)
    assert box.get("a").content == b"x" * 1000


def test_requests_are_recorded(box: Box) -> None:
    with box.aio.recorded("proxy") as seen:
        box.ask("GET", params={"format": "json", "marker": "m"})
        assert seen() == [f"GET /v1/AUTH_test/{box.name}?format=json&marker=m"]


def test_late_listings(box: Box) -> None:
    with box.aio.late_listings():
        box.put("late", b"1")
    assert box.head("late").status_code == 200
    assert box.listing() == []
    box.aio.once("object-updater")
    assert [row["name"] for row in box.listing()] == ["late"]


def test_rows_without_objects(box: Box) -> None:
    box.fill([(f"{number:05}", number, "0" * 32, None) for number in range(12_000)])
    assert [row["bytes"] for row in box.listing()] == list(range(12_000))
    box.ask("DELETE", ok=(409,))
    box.name = "another"  # what has no objects need not be deleted one by one


def test_nothing_is_left() -> None:
    with SwiftAIO(keystone=False) as aio:
        folder = Path(aio.env["AIO_RUN"])
        assert folder.is_dir()
        pids = [process.pid for process in aio.procs.values()]
    assert not folder.exists()
    assert subprocess.run(["ps", "-p", ",".join(map(str, pids))], stdout=subprocess.DEVNULL).returncode == 1
