"""Triggers for deployments: a run per event that :func:`poller_prefect.poll_flow` emits.

Guarantees: the trigger fires for each event of the target (``within=0``: none is merged
with another); a deployment gets those facts of the event as parameters that its flow has
parameters for, with their types.

Not guaranteed: that Prefect runs each trigger once. It may lose one, which ``poll_flow``
notices and sends again, and it may run one twice, which
:func:`poller_prefect.take_event` notices.
"""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable, Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import AutomationCore
from prefect.events.schemas.events import ResourceSpecification
from pydantic import PrivateAttr

from poller_core import InvalidOption, Url
from poller_core.events import EVENT_NAMES
from poller_core.hosts import plain_url, refuse_relative, refuse_unknown

from .events import EVENTS, PREFIX, target_label
from .settings import in_thread, refuse

__all__ = ["PollerEventTrigger", "on_created", "on_event"]

#: The labels of an event that a trigger can be narrowed by, besides Prefect's own.
LABELS = ("key", "suffix", "path", "container", "url", "target")
#: What a flow's parameters may be given, and the template of each. A bare ``{{ event.id }}`` fails every run.
TEMPLATES = {
    "url": "{{ event.resource['url'] }}",
    "event_id": "{{ event.payload.id }}",
    "event": "{{ event.payload.event }}",
    "path": "{{ event.payload.path }}",
    "key": "{{ event.payload.key }}",
    "size": "{{ event.payload.size }}",
    "mtime": "{{ event.payload.mtime }}",
    "etag": "{{ event.payload.etag }}",
    "seq": "{{ event.payload.seq }}",
    "detected_at": "{{ event.payload.detected_at }}",
    "container": "{{ event.payload.container }}",
    "name": "{{ event.payload.name }}",
    "payload": "{{ event.payload }}",
}


class PollerEventTrigger(DeploymentEventTrigger):
    """A :class:`prefect.events.DeploymentEventTrigger` for the events of a target.

    When the deployment is made, the parameters that its flow does not have are left out, unless
    they were asked for by name.
    """

    _all: bool = PrivateAttr(default=False)

    def as_automation(self) -> AutomationCore:
        """What Prefect makes of it, once the deployment is there."""
        if self._all:
            known = in_thread(self._parameters_of_flow)
            self.parameters = {
                name: value for name, value in (self.parameters or {}).items() if name in known
            }
        # As of a plain trigger: a class of ours is none that the server knows.
        plain = DeploymentEventTrigger.model_validate(self.model_dump())
        assert self._deployment_id is not None
        plain.set_deployment_id(self._deployment_id)
        return plain.as_automation()

    def _parameters_of_flow(self) -> set[str]:
        assert self._deployment_id is not None
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment(self._deployment_id)
        schema = deployment.parameter_openapi_schema
        return set((schema or {}).get("properties", {}))

    def as_yaml(self) -> str:
        """The trigger as text for ``triggers:`` of a deployment in ``prefect.yaml``.

        :raises InvalidOption: if it was not said which parameters the flow has; a text can't ask it.
        """
        if self._all:
            raise InvalidOption(
                "as_yaml() needs to know which parameters the flow has: on_created(url, parameters=['url', "
                f"'event_id']), or others of {', '.join(TEMPLATES)}"
            )
        assert isinstance(self.match, ResourceSpecification)  # Prefect makes it one
        import yaml  # type: ignore[import-untyped]  # comes with Prefect

        raw: dict[str, Any] = {
            "type": "event",
            "name": self.name,
            "expect": sorted(self.expect),
            "match": self.match.root,
            "parameters": self.parameters,
            "job_variables": self.job_variables,
            "schedule_after": self.schedule_after.total_seconds(),
            **({} if self.enabled else {"enabled": False}),
        }
        given = {name: value for name, value in raw.items() if value or value is False}
        return str(yaml.safe_dump([given], sort_keys=False, allow_unicode=True, width=1000))


def on_event(
    url: Any,
    *,
    events: str | Iterable[str] = EVENT_NAMES,
    parameters: Mapping[str, Any] | Iterable[str] | None = None,
    match: Mapping[str, str | list[str]] | None = None,
    name: str | None = None,
    **more: Any,
) -> PollerEventTrigger:
    """A trigger that starts a deployment for each event of a target.

    For ``serve(triggers=[on_event(url)])``, ``deploy(triggers=[…])`` and, by
    :meth:`PollerEventTrigger.as_yaml`, ``prefect.yaml``. The target has to be polled by
    :func:`poller_prefect.poll_flow` with the same URL.

    :param url: what is watched, as ``poll_flow`` has it.
    :param events: which events: ``"created"``, ``"modified"``, ``"deleted"``, one or several; all by default.
    :param parameters: what the flow is given. By default each of its parameters that is called as a fact of
        the event gets it: ``url``, ``event_id``, ``event``, ``path``, ``key``, ``size``, ``mtime``, ``etag``,
        ``seq``, ``detected_at``, ``container``, ``name``, ``payload``. Or a list of these names; or
        parameters with templates as Prefect has them, such as ``{"file": "{{ event.payload.path }}"}``.
    :param match: more labels that have to match, such as ``{"suffix": ".csv"}`` or ``{"key": "2026/*"}``.
        There are ``key``, ``suffix``, ``path``, ``container``, ``url``.
    :param name: of the automation; Prefect's own by default.
    :param more: as of :class:`prefect.events.DeploymentEventTrigger`: ``description``, ``enabled``,
        ``job_variables``, ``schedule_after``.
    :raises InvalidUrl: if the URL is malformed, or has a password.
    :raises UnknownScheme: if nobody has a poller for the URL, most likely.
    :raises InvalidOption: for an event, a label or a fact that there is not.
    """
    refuse(plain_url(url))
    refuse_relative(url, "server and workers")
    wanted = (events,) if isinstance(events, str) else tuple(events)
    unknown = [event for event in wanted if event not in EVENTS]
    if unknown or not wanted:
        raise InvalidOption(f"events={events!r}: expected some of {', '.join(EVENT_NAMES)}")
    _must_match(match or {})
    refuse_unknown(Url(url))
    labels: dict[str, str | list[str]] = {
        "prefect.resource.id": PREFIX + "*",
        "target": glob.escape(target_label(url)),
        **(match or {}),
    }
    label = target_label(url)
    more.setdefault("description", f"A run for each file or object {' or '.join(wanted)} in {label}")
    trigger = PollerEventTrigger(
        name=name,
        expect={EVENTS[event] for event in wanted},
        match=ResourceSpecification(labels),
        parameters=_parameters(parameters),
        **more,
    )
    trigger._all = parameters is None
    return trigger


def on_created(url: Any, **more: Any) -> PollerEventTrigger:
    """A trigger that starts a deployment for each new file or object: :func:`on_event` for ``created``."""
    return on_event(url, events="created", **more)


def _must_match(match: Mapping[str, str | list[str]]) -> None:
    """Refuse labels that no event has: the trigger would never fire, and nobody would be told."""
    for name, value in match.items():
        if name not in LABELS and "." not in name:
            near = difflib.get_close_matches(name, LABELS, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidOption(
                f"match: {name!r} is no label of an event; {hint}labels are: {', '.join(LABELS)}"
            )
        for one in [value] if isinstance(value, str) else value:
            if name == "suffix" and one and one[0] not in ".*!":
                raise InvalidOption(
                    f"match: suffix {one!r} has no dot, and no event has that; expected {'.' + one!r}"
                )


def _parameters(given: Mapping[str, Any] | Iterable[str] | None) -> dict[str, Any]:
    if given is None:
        return dict(TEMPLATES)
    if isinstance(given, Mapping):
        return dict(given)
    names = (given,) if isinstance(given, str) else tuple(given)
    unknown = [name for name in names if name not in TEMPLATES]
    if unknown:
        raise InvalidOption(f"parameters={list(names)!r}: expected some of {', '.join(TEMPLATES)}")
    return {name: TEMPLATES[name] for name in names}
