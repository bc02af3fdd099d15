"""Arguments that hold a secret are refused, with what to do instead in Airflow.

Guarantees: as :mod:`poller_core.hosts.secrets`, before Airflow stores an argument: where a
task, trigger or asset is made, where a mapped task is put into a DAG, and where a template
was rendered.

Not guaranteed: that a secret is recognized that stands where none belongs, such as in
a path or a consumer's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from poller_core import hosts

__all__ = ["refuse_secrets", "refuse_secrets_of_mapped"]

_ADVICE = hosts.Advice(
    host="Airflow",
    url=lambda shown: (
        f"Make a connection of the type 'poller' with it (airflow connections add my_store --conn-type "
        f"poller --conn-login USER --conn-password …), and write url={shown!r}, conn_id='my_store'"
    ),
    state=(
        "Put the database's URL into [poller] state of Airflow's configuration, or into the field 'state' of "
        "a connection of the type 'poller', and give its conn_id"
    ),
    option=lambda name: "Put it into a connection of the type 'poller', and give its conn_id",
    arguments={
        "interval": "did you mean 'poke_interval'?",
        "connection": "did you mean 'conn_id'?",
        "batch": "a run has all that waits, up to 'limit'",
    },
)


def refuse_secrets(url: object, state: object = None, options: Mapping[str, Any] | None = None) -> None:
    """Refuse what would put a secret into Airflow's tables.

    :raises InvalidUrl: if there is a password in the URL.
    :raises InvalidOption: if there is one elsewhere, or an option is not known.
    """
    hosts.refuse_secrets(url, state, options, advice=_ADVICE)


def refuse_secrets_of_mapped(arguments: Mapping[str, Any]) -> None:
    """The same for the arguments of a mapped task, of which each may be a list or another task's output."""
    for name, value in arguments.items():
        for one in _each(value):
            refuse_secrets(one if name == "url" else "", one if name == "state" else None)
            if name == "options" and isinstance(one, Mapping):
                refuse_secrets("{{ any }}", options=one)


def _each(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else (value,)
