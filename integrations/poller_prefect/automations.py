"""Which automations an event will start a run by.

Guarantees: an automation is found if it is enabled, reacts to each single event, runs a
deployment, and its trigger matches, by the rules of Prefect's own server.

Not guaranteed: that others work. One that counts events, waits for several, or is part
of a compound trigger is not waited for.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from prefect.events.schemas.automations import Automation, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

__all__ = ["awaited"]


def awaited(automations: Iterable[Automation], event: Mapping[str, Any]) -> set[str]:
    """The ids of the automations that will run a deployment for an event.

    :param event: as :func:`poller_prefect.events.host_event` gives it.
    """
    return {str(one.id) for one in automations if _runs(one) and _covers(one.trigger, event)}


def _runs(automation: Automation) -> bool:
    trigger = automation.trigger
    return (
        automation.enabled
        and isinstance(trigger, EventTrigger)
        and trigger.posture == Posture.Reactive
        and trigger.threshold == 1
        and not trigger.after
        and any(action.type == "run-deployment" for action in automation.actions)
    )


def _covers(trigger: Any, event: Mapping[str, Any]) -> bool:
    if trigger.expect and not any(_expects(name, event["event"]) for name in trigger.expect):
        return False
    related = trigger.match_related
    specifications = related if isinstance(related, list) else [related]
    return _includes(trigger.match, [event["resource"]]) and all(
        _includes(one, event["related"]) for one in specifications
    )


def _expects(expected: str, name: str) -> bool:
    """As of the server: a name, or one that ends in a star."""
    return name.startswith(expected[:-1]) if expected.endswith("*") else name == expected


def _includes(given: Any, candidates: Iterable[Mapping[str, str]]) -> bool:
    specification = given if isinstance(given, ResourceSpecification) else ResourceSpecification(given)
    if not specification.root:
        return True
    return any(
        all(any(_matches(one, labels.get(name)) for one in wanted) for name, wanted in specification.items())
        for labels in candidates
    )


def _matches(expected: str, value: str | None) -> bool:
    """A glob, as Prefect's server has it; its client only knows a star at the end."""
    if value is None:
        return False
    found = fnmatch.fnmatchcase(value, expected.removeprefix("!"))
    return found != expected.startswith("!")
