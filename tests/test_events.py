"""Events: a pair that carries more, and goes to JSON and back without loss."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller_core.errors import InvalidOption, PollerError
from poller_core.events import EVENT_NAMES, Event, Subject
from poller_core.url import Url

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTS = st.integers(-(2**63), 2**63 - 1)
PATHS = st.binary(max_size=30).map(lambda raw: Url(b"/" + raw.replace(b"\0", b"")))
SUBJECTS: st.SearchStrategy[Subject] = st.one_of(
    PATHS,
    st.just(Url("swift://alice@host:5000/v3/a%2Fb?c#d")),
    TEXTS.filter(lambda text: "://" not in text),
    INTS,
)
EVENTS = st.builds(
    Event,
    subject=SUBJECTS,
    event=st.sampled_from(EVENT_NAMES),
    id=TEXTS,
    seq=st.integers(0, 2**63 - 1),
    key=st.binary(max_size=30),
    size=st.none() | st.integers(0, 2**63 - 1),
    mtime=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    mtime_ns=st.none() | INTS,
    etag=st.none() | TEXTS,
    detected_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)


def an_event(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "subject": Url("/data/in/a b.csv"),
        "event": "created",
        "id": "7-0123456789abcdef",
        "seq": 7,
        "key": b"a b.csv",
        "size": 12,
        "mtime": 1.5,
        "mtime_ns": 1_500_000_000,
        "detected_at": datetime(2026, 11, 23, 6, 7, 8, 9, UTC),
    }
    return Event(**values | changes)


# -- the pair ----------------------------------------------------------------


def test_it_is_a_pair() -> None:
    event = an_event()
    subject, name = event
    assert (subject, name) == (Url("/data/in/a b.csv"), "created")
    assert tuple(event) == event[:] == (event[0], event[1]) == (subject, name)
    assert list(event) == [subject, name]
    assert event[-1] == "created"
    assert len(event) == 2
    with pytest.raises(IndexError):
        event[2]


def test_it_equals_its_pair() -> None:
    event, pair = an_event(), (Url("/data/in/a b.csv"), "created")
    assert event == pair
    assert pair == event
    assert event == ("file:///data/in/a%20b.csv", "created")
    assert event in [pair]
    assert event in {pair}
    assert pair in {event}
    assert [event] == [pair]
    assert event != (pair[0], "deleted")
    assert event != (pair[0],)
    assert event != [*pair]
    assert event != "created"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", Url("/x")),
        ("event", "modified"),
        ("id", ""),
        ("seq", 8),
        ("key", b""),
        ("size", None),
        ("mtime", 1.25),
        ("mtime_ns", 0),
        ("etag", "x"),
        ("detected_at", None),
    ],
)
def test_events_are_equal_if_all_their_fields_are(field: str, value: object) -> None:
    assert field in Event.__struct_fields__
    assert an_event() == an_event()
    assert hash(an_event()) == hash(an_event())
    assert an_event(**{field: value}) != an_event()


def test_it_can_not_be_changed() -> None:
    event = an_event()
    with pytest.raises(AttributeError):
        event.seq = 8  # type: ignore[misc]


@given(EVENTS)
def test_it_can_be_copied_and_pickled(event: Event) -> None:
    for other in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert other == event


def test_no_password_is_shown() -> None:
    event = an_event(subject=Url("swift://alice:s3cr3t@host/v3"))
    shown = [repr(event), str(event), event.to_json(), repr(event.to_dict()), repr(pickle.dumps(event))]
    assert not any("s3cr3t" in text for text in shown)


# -- JSON --------------------------------------------------------------------


@given(EVENTS)
@example(an_event(key=b"\xff%41/\n\0", subject=Url(b"/\xff%41/\n")))
@example(an_event(subject="row:17"))
@example(an_event(subject="/no/url"))
@example(an_event(subject=17))
@example(Event(subject=Url("/x"), event="deleted"))
def test_it_comes_back_from_json(event: Event) -> None:
    text = event.to_json()
    assert "\n" not in text
    for again in (Event.from_json(text), Event.from_json(text.encode()), Event.from_dict(event.to_dict())):
        assert again == event
        assert type(again.subject) is type(event.subject)
        assert again.detected_at is None or again.detected_at.tzinfo == UTC
    assert json.loads(text) == event.to_dict()
    assert Event.from_json(json.dumps(event.to_dict())) == event


def test_what_is_in_the_json() -> None:
    assert an_event(key=b"d\xff/a b", mtime=None).to_dict() == {
        "subject": "file:///data/in/a%20b.csv",
        "event": "created",
        "id": "7-0123456789abcdef",
        "seq": 7,
        "key": "d%FF/a%20b",
        "size": 12,
        "mtime_ns": 1_500_000_000,
        "detected_at": "2026-11-23T06:07:08.000009+00:00",
    }


def test_times_are_told_in_utc() -> None:
    at = datetime(2026, 11, 23, 6, 0, tzinfo=timezone(timedelta(hours=2)))
    event = an_event(detected_at=at)
    assert event.to_dict()["detected_at"] == "2026-11-23T04:00:00+00:00"
    assert Event.from_dict(event.to_dict()) == event
    later = Event.from_dict(event.to_dict() | {"detected_at": "2026-11-23T06:00:00+02:00"})
    assert later.detected_at == at
    assert later.detected_at is not None
    assert later.detected_at.tzinfo == UTC


def test_unknown_fields_are_passed_over() -> None:
    assert Event.from_dict(an_event().to_dict() | {"colour": "blue"}) == an_event()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", None),
        ("subject", 1.5),
        ("subject", "file://host/x"),
        ("subject", "x://host:port"),
        ("event", "renamed"),
        ("event", None),
        ("id", 7),
        ("seq", "7"),
        ("seq", True),
        ("key", 7),
        ("key", "\ud800"),
        ("size", "12"),
        ("mtime", "1"),
        ("mtime_ns", 1.5),
        ("etag", 7),
        ("detected_at", 7),
        ("detected_at", "yesterday"),
        ("detected_at", "2026-11-23T06:00:00"),
        ("detected_at", "0001-01-01T00:00:00+05:00"),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidOption, match="this is no event") as caught:
        Event.from_dict(an_event().to_dict() | {field: value})
    assert isinstance(caught.value, PollerError)


@pytest.mark.parametrize("missing", ["subject", "event"])
def test_a_missing_field_is_named(missing: str) -> None:
    raw = an_event().to_dict()
    del raw[missing]
    with pytest.raises(InvalidOption, match=missing):
        Event.from_dict(raw)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        (b"\xff", "no JSON"),
        ('{"subject": "\ud800"}', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "a JSON object, not list"),
        ("null", "a JSON object, not NoneType"),
        ("{}", "this is no event"),
    ],
)
def test_what_is_no_event_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        Event.from_json(text)


def test_a_refusal_does_not_repeat_a_password() -> None:
    with pytest.raises(InvalidOption) as caught:
        Event.from_dict({"subject": "swift://alice:s3cr3t@host:port/v3", "event": "created"})
    assert "s3cr3t" not in str(caught.value)
