"""What is told of objects: overwritten, deleted, special ones, listed late; a container that goes away."""

from __future__ import annotations

import json
import sqlite3
import time
from hashlib import md5
from pathlib import Path

import pytest

from poller_core import TargetNotFound
from tests.services.containers import Box
from tests.swift.tools import poller, rows, told


@pytest.fixture
def one(box):
    with poller(box) as made:
        yield made


def test_overwritten(box, one):
    box.put("a", b"one")
    assert told(one.get_new_events()) == [("a", "created")]
    box.put("a", b"two")  # as long as before
    (event,) = one.get_new_events()
    assert told([event]) == [("a", "modified")]
    assert (event.size, event.etag) == (3, md5(b"two").hexdigest())
    box.put("a", b"three")
    assert told(one.get_new_events()) == [("a", "modified")]
    assert one.get_new_events() == []


@pytest.mark.parametrize("metadata", [False, True])
def test_the_same_content_and_metadata(box, metadata):
    with poller(box, metadata=metadata) as one:
        box.put("a", b"one")
        one.get_new_events()
        expected = [("a", "modified")] if metadata else []
        box.put("a", b"one")
        assert told(one.get_new_events()) == expected
        box.post("a", X_Object_Meta_Colour="red")
        assert told(one.get_new_events()) == expected
        assert one.get_new_events() == []


def test_deleted_and_put_again(box, one):
    box.put("a", b"one")
    one.get_new_events()
    box.delete("a")
    (event,) = one.get_new_events()
    assert told([event]) == [("a", "deleted")]
    assert event.size == 3
    box.put("a", b"one")
    assert told(one.get_new_events()) == [("a", "created")]
    box.delete("a")
    box.put("a", b"other")
    assert told(one.get_new_events()) == [("a", "modified")]
    box.put("b", b"x")
    box.delete("b")
    assert one.get_new_events() == []


def test_copied(box, one):
    box.put("a", b"one")
    box.ask("COPY", "a", headers={"Destination": f"{box.name}/b"})
    assert told(one.get_new_events()) == [("a", "created"), ("b", "created")]


# -- special objects ---------------------------------------------------------


def _manifest(box: Box, *names: str) -> str:
    return json.dumps([{"path": f"/{box.name}/{name}"} for name in names])


def test_static_large_objects(box, one):
    for name in ("s1", "s2"):
        box.put(name, name.encode() * 10)
    put = {"params": {"multipart-manifest": "put"}}
    box.ask("PUT", "slo", data=_manifest(box, "s1", "s2"), **put)
    events = {event.name: event for event in one.get_new_events()}
    assert events["slo"].size == 40
    with one.open(events["slo"]) as file:
        assert file.read() == b"s1" * 10 + b"s2" * 10
    assert one.get_new_events() == []
    box.ask("PUT", "slo", data=_manifest(box, "s1"), **put)
    assert told(one.get_new_events()) == [("slo", "modified")]
    box.delete("slo")
    assert told(one.get_new_events()) == [("slo", "deleted")]  # the manifest alone, not its segments


def test_dynamic_large_objects(box, one):
    box.put("part/1", b"1")
    box.put("dlo", b"", X_Object_Manifest=f"{box.name}/part/")
    events = {event.name: event for event in one.get_new_events()}
    assert events["dlo"].size == 0
    with one.open(events["dlo"]) as file:
        assert file.read() == b"1"
    box.put("part/2", b"2")
    assert told(one.get_new_events()) == [("part/2", "created")]
    with one.open(events["dlo"]) as file:
        assert file.read() == b"12"


def test_symlinks(box, one):
    box.put("target", b"one")
    box.put("link", b"", X_Symlink_Target=f"{box.name}/target")
    events = {event.name: event for event in one.get_new_events()}
    assert set(events) == {"target", "link"}
    with one.open(events["link"]) as file:
        assert file.read() == b"one"
    box.put("target", b"other")
    assert told(one.get_new_events()) == [("target", "modified")]
    box.delete("target")
    assert told(one.get_new_events()) == [
        ("target", "deleted")
    ]  # the link is still there, though it leads nowhere
    with pytest.raises(TargetNotFound):
        one.open(events["link"])
    box.delete("link")
    assert told(one.get_new_events()) == [("link", "deleted")]


def test_a_versioned_container(box, one):
    box.ask("POST", headers={"X-Versions-Enabled": "true"})
    box.put("a", b"one")
    box.put("a", b"two")
    assert told(one.get_new_events()) == [("a", "created")]
    box.delete("a")
    assert told(one.get_new_events()) == [("a", "deleted")]
    for version in box.ask("GET", params={"format": "json", "versions": "true"}).json():
        box.ask("DELETE", "a", params={"version-id": version["version_id"]})
    assert one.get_new_events() == []
    box.ask("POST", headers={"X-Versions-Enabled": "false"})


def test_expired(box, one):
    box.put("a", b"one", X_Delete_After="1")
    (event,) = one.get_new_events()
    end = time.monotonic() + 30
    while box.head("a").status_code != 404:
        assert time.monotonic() < end
    assert one.get_new_events() == []  # it is listed still
    with pytest.raises(TargetNotFound):
        one.open(event)
    for daemon in (
        "object-updater",
        "container-updater",
        "object-expirer",
    ):  # each needs what the last one did
        box.aio.once(daemon)
    assert told(one.get_new_events()) == [("a", "deleted")]


# -- listings that are late --------------------------------------------------


def test_listed_late(box, one):
    with box.aio.late_listings():
        box.put("late", b"1")
    box.put("soon", b"2")
    (soon,) = one.get_new_events()
    assert soon.name == "soon"
    box.aio.once("object-updater")
    (late,) = one.get_new_events()
    assert late.name == "late"
    assert late.mtime < soon.mtime


def test_deleted_and_listed_still(box, one):
    box.put("a", b"1")
    one.get_new_events()
    with box.aio.late_listings():
        box.delete("a")
    assert one.get_new_events() == []
    box.aio.once("object-updater")
    assert told(one.get_new_events()) == [("a", "deleted")]


def test_there_and_not_listed(box, one):
    """A row is lost, the object is not: nothing is deleted, by HEAD for few and by samples for many."""
    names = [f"{number:03}" for number in range(60)]
    for name in names:
        box.put(name, b"1")
    assert len(one.get_new_events()) == 60
    database = _database(box)
    with sqlite3.connect(database) as rows_of:
        rows_of.create_function("chexor", 3, lambda *_: "0" * 32)
        rows_of.execute("DELETE FROM object WHERE name < '005'")
    assert one.get_new_events() == []
    with sqlite3.connect(database) as rows_of:
        rows_of.create_function("chexor", 3, lambda *_: "0" * 32)
        rows_of.execute("DELETE FROM object")
    rows_of.close()
    assert one.get_new_events() == []
    assert one.status().entries == 60
    for name in names:
        box.delete(name)
    assert told(one.get_new_events()) == [(name, "deleted") for name in names]


def _database(box: Box) -> Path:
    for path in (Path(box.aio.env["AIO_RUN"]) / "srv" / "d1" / "containers").rglob("*.db"):
        found = sqlite3.connect(path)
        try:
            if found.execute("SELECT container FROM container_info").fetchone() == (box.name,):
                return path
        finally:
            found.close()
    raise AssertionError(f"no database of {box.name}")


def test_a_row_that_is_older_than_what_is_known(box, one):
    """A replica that lags: made by setting back what the listing says of an object."""
    box.put("a", b"old")
    one.get_new_events()
    database = _database(box)
    known = sqlite3.connect(database)
    old = known.execute("SELECT created_at, etag, size FROM object WHERE name = 'a'").fetchone()
    box.put("a", b"newer")
    assert told(one.get_new_events()) == [("a", "modified")]
    box.listing()
    known.create_function("chexor", 3, lambda *_: "0" * 32)
    known.execute("PRAGMA recursive_triggers = off")
    new = known.execute("SELECT created_at, etag, size FROM object WHERE name = 'a'").fetchone()
    known.execute("DROP TRIGGER IF EXISTS object_update")
    known.execute("UPDATE object SET created_at = ?, etag = ?, size = ? WHERE name = 'a'", old)
    known.commit()
    assert [row["hash"] for row in box.listing()] == [md5(b"old").hexdigest()]
    assert one.get_new_events() == []
    known.execute("UPDATE object SET created_at = ?, etag = ?, size = ? WHERE name = 'a'", new)
    known.commit()
    known.close()
    assert one.get_new_events() == []
    box.put("a", b"newest")
    assert told(one.get_new_events()) == [("a", "modified")]


def test_an_older_row_that_the_object_agrees_with(small_aio):
    """After a restore, say. (There are no objects behind these rows at all, so nobody contradicts.)"""
    box = Box(small_aio).create()
    box.fill([("a", 1, "1" * 32, 1.7e9)])
    with poller(box) as one:
        database = _database(box)
        with sqlite3.connect(database) as known:
            known.create_function("chexor", 3, lambda *_: "0" * 32)
            known.execute("DELETE FROM object")
        known.close()
        box.fill([("a", 2, "2" * 32, 1.6e9)])
        assert told(one.get_new_events()) == [("a", "modified")]
    box.close()


def test_many_deleted_at_once(box, one):
    names = [f"{number:03}" for number in range(100)]
    for name in names:
        box.put(name, b"1")
    one.get_new_events()
    for name in names[10:90]:
        box.delete(name)
    with box.aio.recorded("proxy") as seen:
        assert told(one.get_new_events()) == [(name, "deleted") for name in names[10:90]]
        heads = [request for request in seen() if request.startswith("HEAD")]
        assert 0 < len(heads) < 10


# -- the container -----------------------------------------------------------


def test_a_container_that_goes_away_and_comes_again(swift_aio, tmp_path):
    box = Box(swift_aio).create()
    for name in ("a", "b", "c"):
        box.put(name, b"1")
    with poller(box, state=tmp_path / "state.db") as one:
        box.remove()
        for _ in range(2):
            with pytest.raises(TargetNotFound, match=f"no container '{box.name}'"):
                one.get_new_events()
        assert one.status().entries == 3
        assert "no container" in one.status().error
    with pytest.raises(TargetNotFound):
        poller(box, state=tmp_path / "state.db")
    box.create()
    box.put("b", b"2")
    box.put("d", b"1")
    with poller(box, state=tmp_path / "state.db") as one:
        assert told(one.get_new_events()) == [
            ("a", "deleted"),
            ("b", "modified"),
            ("c", "deleted"),
            ("d", "created"),
        ]
        assert one.status().error is None
    box.remove()
    box.close()


def test_a_container_that_goes_away_while_it_is_listed(small_box):
    for name, *_ in rows(25, "{:02}"):
        small_box.put(name, b"1")
    with poller(small_box) as one:
        for name in ("03", "04"):
            small_box.delete(name)
        # From the second page on everything answers 404, HEADs too.
        gone = rf"(GET .*marker=|HEAD .*/{small_box.name})"
        with (
            small_box.aio.fault("proxy", gone, status=404),
            pytest.raises(TargetNotFound, match="no container"),
        ):
            one.get_new_events()
        assert one.status().entries == 25
        assert told(one.get_new_events()) == [("03", "deleted"), ("04", "deleted")]
