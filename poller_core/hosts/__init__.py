"""What an adapter to a scheduler needs, whichever the scheduler is.

A host (Airflow, Prefect …) stores what it is given for all to read, runs its parts in
several processes and on several machines, and starts runs that fail and are tried again.
An adapter is what is left when that is taken care of here: arguments and events as JSON,
secrets and relative paths refused, names that fit, a place for the state, and what is
told in a run's log.

Guarantees: nothing here imports a host, and nothing here asks for configuration or
environment; what is a host's own, such as the names of its things in an error's text,
is given by the adapter.

Not guaranteed: that a host keeps to itself what it is given; hence the refusals.
"""

from __future__ import annotations

from .credentials import CREDENTIALS, SWIFT_OPTIONS
from .installed import not_installed
from .opening import open_listing
from .places import prepare_state, refuse_own_state, refuse_relative, refuse_unknown
from .runs import FINAL, JOURNAL_ONLY, fitting
from .secrets import OPTIONS, OURS, Advice, has_password, refuse_secrets, without_password
from .telling import Log, Progress, report, report_claim
from .values import plain, plain_options, plain_seconds, plain_url

__all__ = [
    "CREDENTIALS",
    "FINAL",
    "JOURNAL_ONLY",
    "OPTIONS",
    "OURS",
    "SWIFT_OPTIONS",
    "Advice",
    "Log",
    "Progress",
    "fitting",
    "has_password",
    "not_installed",
    "open_listing",
    "plain",
    "plain_options",
    "plain_seconds",
    "plain_url",
    "prepare_state",
    "refuse_own_state",
    "refuse_relative",
    "refuse_secrets",
    "refuse_unknown",
    "report",
    "report_claim",
    "without_password",
]
