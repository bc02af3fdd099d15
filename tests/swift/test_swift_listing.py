"""What of a container is listed, in how many requests, and how its objects are named."""

from __future__ import annotations

import gzip
import json
from bisect import bisect_left

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller_core import (
    Event,
    Gap,
    InvalidOption,
    InvalidUrl,
    Span,
    SwiftPoller,
    TargetNotFound,
    Url,
    make_poller,
)
from poller_core.backends.swift import rows as listed
from poller_core.backends.swift.source import SwiftSource
from poller_core.clock import Clock
from tests.services.containers import Box
from tests.swift.tools import ODD_NAMES, numbered, poller, rows, told


def filled(box: Box, count: int) -> Box:
    """A container of which nobody deletes the objects, since there are only rows."""
    box.fill(rows(count))
    return box


@pytest.fixture
def many(swift_aio):
    box = Box(swift_aio).create()
    yield box
    box.close()


def listings(seen: list[str]) -> list[str]:
    return [request for request in seen if request.startswith("GET") and "format=json" in request]


def test_25000_objects(many):
    with poller(many) as one:
        filled(many, 25_000)
        assert one.get_new_events() == [(many.subject(name), "created") for name, *_ in rows(25_000)]
        with many.aio.recorded("proxy") as seen:
            assert one.get_new_events() == []
            assert len(listings(seen())) == len(seen()) == 4
        many.fill(
            [("000007", 1, "f" * 32, None), ("019999b", 1, "f" * 32, None), ("024999", 3, "e" * 32, None)]
        )
        assert told(one.get_new_events()) == [
            ("000007", "modified"),
            ("019999b", "created"),
            ("024999", "modified"),
        ]
        assert one.status().entries == 25_001


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (9, 2), (10, 2), (11, 3), (30, 4)])
def test_requests_of_a_look(small_aio, count, requests):
    box = filled(Box(small_aio).create(), count)
    with poller(box) as one, small_aio.recorded("proxy") as seen:
        assert one.get_new_events() == []
        assert len(seen()) == requests
        assert all("limit=10" in request.replace("&", "?").split("?") for request in seen())  # as it says
    box.close()


def test_a_cluster_that_keeps_its_limit_to_itself(small_aio):
    box = filled(Box(small_aio).create(), 25)
    with small_aio.fault("proxy", "GET /info", status=403), pytest.raises(Exception, match="412"):
        poller(box, existing="report").get_new_events()
    with small_aio.fault("proxy", "GET /info", status=404), small_aio.recorded("proxy") as seen:
        with pytest.raises(Exception, match="412"):
            poller(box)
        assert seen()
    box.close()


def test_every_odd_name(box):
    for name, content in numbered(ODD_NAMES):
        box.put(name, content)
    contents = dict(numbered(ODD_NAMES))
    with poller(box, existing="report", default_exclude=False) as one:
        events = one.get_new_events()
        expected = sorted((name for name in ODD_NAMES), key=str.encode)
        assert [event.name for event in events] == expected
        for event in events:
            assert event.container == box.name
            assert event.key == event.name.encode()
            assert event == Event.from_json(event.to_json())
            assert Event.from_json(event.to_json()).name == event.name
            assert Url(str(event.subject)) == event.subject
            with one.open(event) as file:
                assert file.read() == contents[event.name]
        assert one.get_new_events() == []
        for name in ODD_NAMES:
            box.delete(name)
        assert told(one.get_new_events()) == [(name, "deleted") for name in expected]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_subjects_keep_every_name(name):
    subject = SwiftPoller.locate(Url("swift://u+t:pw@host:5000/v3?c%20d&region=R")).subjects()(name.encode())
    event = Event(subject=subject, event="created")
    assert (event.container, event.name) == ("c d", name)
    again = Event.from_json(event.to_json())
    assert (again.container, again.name, again.subject) == ("c d", name, subject)
    assert subject.username is None
    assert "pw" not in str(subject).partition("name=")[0]


def test_what_is_no_object_has_no_container():
    for subject in (Url("/a/b"), "row", 7, Url("http://host/x?name=b"), Url("swift://host/v3?inbox")):
        event = Event(subject=subject, event="created")
        assert (event.container, event.name) == (None, None)


# -- spans -------------------------------------------------------------------

_SPANS = sorted({*ODD_NAMES, *(f"n{number:02}" for number in range(30))}, key=str.encode)


@pytest.fixture(scope="module")
def spans(small_aio):
    box = Box(small_aio).create()
    box.fill([(name, 1, "0" * 32, 1.7e9) for name in _SPANS])
    with poller(box) as one:
        source = one._shared.engine.source
        assert isinstance(source, SwiftSource)
        source.begin(None)
        yield source
    box.close()


_KEYS = [name.encode() for name in _SPANS]
_borders = st.one_of(
    st.sampled_from(_KEYS),
    st.sampled_from(_KEYS).map(lambda key: key + b"\0"),
    st.sampled_from(_KEYS).flatmap(lambda key: st.integers(1, len(key)).map(lambda length: key[:length])),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(str.encode),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_borders, st.one_of(st.none(), _borders))
def test_spans(spans, start, stop):
    if stop is not None and stop <= start:
        start, stop = stop, start
    found = []
    for item in spans.scan(Span(start, stop)):
        assert not isinstance(item, Gap)
        assert 0 < len(item.names) == len(item.rows)
        found += item.names
    end = len(_KEYS) if stop is None else bisect_left(_KEYS, stop)
    assert found == _KEYS[bisect_left(_KEYS, start) : end]


@given(_borders)
def test_markers(key):
    marker = listed.before(key)
    assert marker.encode() < key or (marker, key) == ("", b"")
    end = listed.after(key)
    if end is not None:
        assert "\0" not in end
        assert end.encode() >= key


# -- less than all -----------------------------------------------------------

_TREE = ["a", "d/", "d/1", "d/2", "d/e/3", "e/x", "f", "tmp/y", "z.part", "z.csv"]


@pytest.fixture
def tree(box):
    for name in _TREE:
        box.put(name, b"" if name.endswith("/") else b"x")
    return box


@pytest.mark.parametrize(
    ("query", "options", "names"),
    [
        ({}, {}, ["a", "d/1", "d/2", "d/e/3", "e/x", "f", "tmp/y", "z.csv"]),
        (
            {},
            {"default_exclude": False},
            ["a", "d/1", "d/2", "d/e/3", "e/x", "f", "tmp/y", "z.csv", "z.part"],
        ),
        ({}, {"recurse": True, "exclude": ["tmp/", "d/e"]}, ["a", "d/1", "d/2", "e/x", "f", "z.csv"]),
        ({}, {"include": ["*.csv", "/d/*"]}, ["d/1", "d/2", "d/e/3", "z.csv"]),
        ({}, {"recurse": False}, ["a", "f", "z.csv"]),
        ({"delimiter": "/"}, {}, ["a", "f", "z.csv"]),
        ({"prefix": "d/"}, {}, ["d/1", "d/2", "d/e/3"]),
        ({"prefix": "d/", "delimiter": "/"}, {}, ["d/1", "d/2"]),
        ({"prefix": "d"}, {"recurse": False}, []),
        ({"delimiter": "/"}, {"directories": True}, ["a", "d/", "e/", "f", "tmp/", "z.csv"]),
        ({"prefix": "d/"}, {"directories": True}, ["d/", "d/1", "d/2", "d/e/3"]),
        ({"prefix": "d/", "delimiter": "/"}, {"directories": True}, ["d/", "d/1", "d/2", "d/e/"]),
    ],
)
def test_what_is_meant(tree, query, options, names):
    with poller(tree, tree.url(**query), existing="report", **options) as one:
        assert told(one.get_new_events()) == [(name, "created") for name in names]
        assert one.get_new_events() == []
        for name in _TREE:
            tree.delete(name)
        assert told(one.get_new_events()) == [(name, "deleted") for name in names]


def test_a_mark_of_a_directory_is_one_whatever_its_name(box):
    box.put("folder", b"", Content_Type="application/directory")
    box.put("folder/", b"not empty")
    with poller(box, existing="report") as one:
        assert told(one.get_new_events()) == [("folder/", "created")]


def test_options_that_contradict(box):
    with pytest.raises(InvalidOption, match="delimiter"):
        poller(box, box.url(delimiter="/"), recurse=True)
    for name in ("follow_symlinks", "fingerprint"):
        with pytest.raises(InvalidOption, match=f"{name}.*for files"):
            poller(box, **{name: True if name == "follow_symlinks" else ["size"]})
    with pytest.raises(InvalidOption, match="did you mean 'cacert'"):
        poller(box, cacrt="x")


# -- events and objects ------------------------------------------------------


def test_what_an_event_says(box):
    with make_poller(box.url()) as one:
        assert type(one) is SwiftPoller
        assert one.recurse
        box.put("data", b"12345")
        (event,) = one.get_new_events()
        head = box.head("data").headers
        assert event == (box.subject("data"), "created")
        subject = Url(str(event.subject))
        assert (subject.scheme, subject.hostname, subject.username) == ("swift", "127.0.0.1", None)
        assert event.size == 5
        assert event.etag == head["ETag"]
        assert event.mtime == pytest.approx(float(head["X-Timestamp"]), abs=1e-4)


def test_settle_goes_by_the_time_of_the_server(box):
    with poller(box, settle=3600) as one:
        box.put("new", b"1")
        box.fill([("old", 3, "0" * 32, 1.7e9)])
        assert told(one.get_new_events()) == [("old", "created")]
        assert one.status().held == 1
    box.delete("new")
    box.fill([("new", 0, "0", None)])
    box.name = Box(box.aio).create().name


def test_many_that_settle_cost_few_requests(box):
    class Later(Clock):
        ahead = 0.0

        def wall(self) -> float:
            return super().wall() + self.ahead

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock = Later()
    with poller(box, settle=60, clock=clock) as one:
        for number in range(30):
            box.put(f"{number:02}", b"x")
        assert one.get_new_events() == []
        clock.ahead = 61
        with box.aio.recorded("proxy") as seen:
            one._engine.look(held_only=True)
            assert len(seen()) <= 2
        assert len(one.get_new_events()) == 30


def test_ten_consumers_cost_one_listing(box, tmp_path):
    state = tmp_path / "state.db"
    pollers = [poller(box, state=state, consumer=f"c{number}") for number in range(10)]
    box.put("a", b"1")
    with box.aio.recorded("proxy") as seen:
        assert told(pollers[0].get_new_events()) == [("a", "created")]
        assert [told(one.get_new_events(max_age=60)) for one in pollers[1:]] == [[("a", "created")]] * 9
        assert len(listings(seen())) == 2
    for one in pollers:
        one.close()


def test_opening_an_object(box):
    data = bytes(range(256)) * 4000
    packed = gzip.compress(b"packed" * 100)
    with poller(box) as one:
        box.put("data", data)
        box.put("packed", packed, Content_Encoding="gzip")
        event, other = one.get_new_events()
        with one.open(event) as file:
            assert file.read(10) == data[:10]
            assert file.read() == data[10:]
            assert file.read() == b""
        with one.open(event.subject) as file:
            assert b"".join(iter(lambda: file.read(1000), b"")) == data
        with one.open(other) as file:
            assert file.read() == packed  # as it is stored
        box.delete("data")
        with pytest.raises(TargetNotFound, match="'data'"):
            one.open(event)
        for wrong in (Url("/etc/passwd"), Url(box.subject("x").replace(box.name, "other"))):
            with pytest.raises(InvalidUrl, match="no object of"):
                one.open(wrong)


def test_an_object_whose_transfer_ends_early(box):
    with poller(box) as one:
        box.put("data", b"x" * 100_000)
        (event,) = one.get_new_events()
        with (
            box.aio.fault("proxy", "GET .*/data", part=0.5),
            one.open(event) as file,
            pytest.raises(Exception, match="ended before the object"),
        ):
            file.read()


def test_a_connection_for_more(box):
    with poller(box) as one:
        connection = one.connection()
        connection.put_object(box.name, "made", b"12")
        assert told(one.get_new_events()) == [("made", "created")]
        connection.close()


def test_the_state_knows_where_it_was(box, tmp_path):
    with poller(box, state=tmp_path / "state.db") as one:
        one.get_new_events()
        target = one._engine.store.reload(one._engine.target_id)
        assert json.loads(target.identity or "") == {
            "kind": "swift",
            "account": "AUTH_test",
            "container": box.name,
        }
        assert target.url == box.url(user=False)
