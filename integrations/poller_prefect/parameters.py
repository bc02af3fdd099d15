"""The parameters of a run, from the facts of its event.

Guarantees: a parameter that is one template gets the fact with its type; a fact that
there is not is refused before anything is polled.

Not guaranteed: that the flow takes what it gets; Prefect checks it against the flow's
own schema when the run is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.utilities.templating import PlaceholderType, apply_values, find_placeholders

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


class Parameters:
    """Makes the parameters of runs.

    :param given: templates, such as ``{"file": "{{ path }}"}``; None: each parameter of the flow that is
        called as a fact gets it.
    :param schema: of the flow's parameters.
    :param fixed: those that the deployment sets itself.
    :raises InvalidOption: if a template names something else than a fact.
    """

    def __init__(
        self, given: Mapping[str, Any] | None, schema: Mapping[str, Any] | None, fixed: Mapping[str, Any]
    ) -> None:
        properties = (schema or {}).get("properties", {})
        if given is None:
            given = {
                name: f"{{{{ {name} }}}}" for name in _BY_NAME if name in properties and name not in fixed
            }
        self._templates = dict(given)
        unknown = sorted(
            one.name
            for one in find_placeholders(self._templates)
            if one.type is not PlaceholderType.STANDARD or one.name.split(".")[0] not in FACTS
        )
        if unknown:
            raise InvalidOption(
                f"parameters: {', '.join(unknown)} is no fact of an event; there are: {', '.join(FACTS)}"
            )

    def __call__(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the run for an event.

        :param facts: as :func:`poller_prefect.events.facts` gives them.
        """
        return apply_values(self._templates, dict(facts), remove_notset=True)
