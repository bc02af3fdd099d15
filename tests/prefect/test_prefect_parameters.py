"""Parameters from facts: by name, by templates of both spellings, with their types."""

from __future__ import annotations

import pytest
from poller_prefect import on_created, poll_flow
from poller_prefect.parameters import Parameters

from poller_core import InvalidOption, PollerError

FACTS = {"path": "/in/a {b}.csv", "size": 7, "etag": None, "payload": {"size": 7, "path": "/in/a {b}.csv"}}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ path }}", "/in/a {b}.csv"),
        ("{path}", "/in/a {b}.csv"),
        ("{{size}}", 7),
        (" {size} ", 7),
        ("{payload}", FACTS["payload"]),
        ("{payload.size}", 7),
        ("{payload.nothing}", None),
        ("{etag}", None),
        ("gzip {path} ({{ size }} bytes){etag}", "gzip /in/a {b}.csv (7 bytes)"),
        ('{"a": 1}', '{"a": 1}'),
        (["{size}", {"of": "{path}"}], [7, {"of": "/in/a {b}.csv"}]),
        (2026, 2026),
        (None, None),
    ],
)
def test_a_template_gives_the_fact_with_its_type(template, value):
    assert Parameters({"it": template}, {}, {})(FACTS) == {"it": value}


def test_by_name_what_the_flow_has_and_the_deployment_does_not_set():
    schema: dict[str, dict[str, object]] = {"properties": {"path": {}, "size": {}, "year": {}, "name": {}}}
    assert Parameters(None, schema, {"size": 1})(FACTS) == {"path": "/in/a {b}.csv"}
    assert Parameters({}, schema, {})(FACTS) == {}


@pytest.mark.parametrize("template", ["{{ $HOME }}", "{{ }}", "{{ a b }}"])
def test_what_is_no_name_is_refused(template):
    with pytest.raises(InvalidOption, match="no fact of an event"):
        Parameters({"it": template}, {}, {})


@pytest.mark.parametrize("template", ["{sze}", "{{ sze }}", "a {sze} b", ["{sze}"], {"x": {"y": "{sze}"}}])
def test_an_unknown_fact_is_refused(template):
    with pytest.raises(InvalidOption, match="sze is no fact of an event; there are: url, event_id"):
        Parameters({"it": template}, {}, {})


def test_a_trigger_as_text_has_to_know_the_parameters():
    with pytest.raises(InvalidOption, match="which parameters the flow has"):
        on_created("/data/inbox").as_yaml()
    assert (
        "event_id: '{{ event.payload.id }}'" in on_created("/data/inbox", parameters=["event_id"]).as_yaml()
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "data/inbox"}, "is a relative path, and workers may each be in another directory"),
        ({"url": "~/inbox"}, "'~' and variables are for a shell to fill in"),
        ({"url": "/data/*.csv"}, "expected the directory, '/data', and include="),
        ({"url": "s3://bucket/inbox"}, "there is no poller for 's3' URLs"),
        ({"url": "swif://host/v3?box"}, "did you mean 'swift'"),
        ({"recurese": True}, "unknown option 'recurese'; did you mean 'recurse'"),
        ({"settle": "5 seconds"}, "settle='5 seconds': expected a number of seconds"),
        ({"events": "create"}, "events='create': expected some of created, modified, deleted"),
        ({"include": ["*.csv,*.txt"]}, "expected a list, include="),
        ({"state": "state.db"}, "is another file for who is in another directory.*POLLER_STATE or a block"),
        ({"state": "sqlite:///:memory:"}, "ends with the process"),
        ({"credentials": {"password": "wonderland-17"}}, "credentials=… holds a secret"),
    ],
)
def test_mistakes_are_told_where_a_poll_is_deployed(given, says):
    with pytest.raises(PollerError, match=says) as caught:
        poll_flow.to_deployment("inbox", parameters={"url": "/data", **given})
    assert "wonderland" not in str(caught.value)


@pytest.mark.parametrize("state", ["production", "/data/state.db", "sqlite:////data/state.db", None])
def test_what_is_no_mistake(state):
    given = {"url": "/data", "state": state, "recurse": True, "include": ["*.csv"], "settle": 5}
    poll_flow.to_deployment("inbox", parameters=given)
    poll_flow.to_deployment("inbox", parameters={"url": "{{ prefect.variables.url }}", "region": "here"})


@pytest.mark.parametrize(
    ("match", "says"),
    [
        ({"suffx": ".csv"}, "'suffx' is no label of an event; did you mean 'suffix'"),
        ({"event": "created"}, "labels are: key, suffix, path, container, url"),
        ({"suffix": "csv"}, "suffix 'csv' has no dot, and no event has that; expected '.csv'"),
        ({"suffix": [".csv", "txt"]}, "expected '.txt'"),
    ],
)
def test_a_trigger_that_would_never_fire(match, says):
    with pytest.raises(InvalidOption, match=says):
        on_created("/data/inbox", match=match)


def test_a_trigger_for_what_nobody_polls():
    with pytest.raises(PollerError, match="did you mean 'swift'"):
        on_created("swif://host/v3?box")
