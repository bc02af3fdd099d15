"""Parameters from facts: by name, by templates of both spellings, with their types."""

from __future__ import annotations

import pytest
from poller_prefect import on_created
from poller_prefect.parameters import Parameters

from poller_core import InvalidOption

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
