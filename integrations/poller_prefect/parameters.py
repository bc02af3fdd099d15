"""The parameters of a run, from the facts of its event.

Guarantees: a parameter that is one template gets the fact with its type; a fact that
there is not is refused before anything is polled.

Not guaranteed: that the flow takes what it gets; Prefect checks it against the flow's
own schema when the run is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from poller_core import InvalidOption

__all__ = ["FACTS", "Parameters"]

#: What templates may name.
FACTS = (
    "url",
    "event_id",
    "event",
    "path",
    "key",
    "size",
    "mtime",
    "mtime_ns",
    "etag",
    "seq",
    "detected_at",
    "container",
    "name",
    "target",
    "payload",
)
#: Facts that a flow's parameter gets by its name alone. Not "name" and "target", which may mean anything.
_BY_NAME = tuple(fact for fact in FACTS if fact not in ("name", "target", "container"))
#: As Prefect writes them, and as the poller command does: Prefect takes its own out of a prefect.yaml.
_TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}|\{([A-Za-z_][\w.]*)\}")


class Parameters:
    """Makes the parameters of runs.

    :param given: templates, such as ``{"file": "{path}"}`` or ``{"file": "{{ path }}"}``; None: each
        parameter of the flow that is called as a fact gets it.
    :param schema: of the flow's parameters.
    :param fixed: those that the deployment sets itself.
    :raises InvalidOption: if a template names something else than a fact.
    """

    def __init__(
        self, given: Mapping[str, Any] | None, schema: Mapping[str, Any] | None, fixed: Mapping[str, Any]
    ) -> None:
        properties = (schema or {}).get("properties", {})
        if given is None:
            given = {name: f"{{{name}}}" for name in _BY_NAME if name in properties and name not in fixed}
        self._templates = dict(given)
        unknown = sorted({name for name in _names(self._templates) if name.split(".")[0] not in FACTS})
        if unknown:
            raise InvalidOption(
                f"parameters: {', '.join(unknown)} is no fact of an event; there are: {', '.join(FACTS)}"
            )

    def __call__(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the run for an event.

        :param facts: as :func:`poller_prefect.events.facts` gives them.
        """
        return {name: _filled(value, facts) for name, value in self._templates.items()}


def _names(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        for found in _TEMPLATE.finditer(template):
            yield _name(found)
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from _names(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from _names(value)


def _filled(template: Any, facts: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        whole = _TEMPLATE.fullmatch(template.strip())
        if whole is not None:
            return _fact(whole, facts)
        return _TEMPLATE.sub(lambda found: _text(_fact(found, facts)), template)
    if isinstance(template, Mapping):
        return {name: _filled(value, facts) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(value, facts) for value in template]
    return template


def _name(found: re.Match[str]) -> str:
    return found[2] if found[1] is None else found[1]


def _fact(found: re.Match[str], facts: Mapping[str, Any]) -> Any:
    value: Any = facts
    for part in _name(found).split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)
