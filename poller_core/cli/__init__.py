"""The ``poller`` command; :func:`main` is its entry point.

The parts: ``app`` (options, errors, exit codes), ``show`` (what is printed),
``watch`` (watch, poll, preview), ``working``, ``command``, ``feed`` and
``runner`` (``--exec``), ``targets`` (finding a target in the state), ``manage``,
``alarm``, ``copying``, ``dead`` and ``journal`` (what is done with a state), ``doctor``
and ``machine`` (what a machine allows).
"""

from __future__ import annotations

from . import copying, dead, doctor, journal, manage, watch  # they register their commands
from .app import app, main

_ORDER = (
    "watch", "poll", "preview", "status", "events", "consumers", "rewind", "claims", "release", "dead",
    "check", "repair", "copy", "forget", "doctor",
)  # fmt: skip
app.registered_commands.sort(key=lambda one: _ORDER.index(one.name or ""))

__all__ = ["app", "copying", "dead", "doctor", "journal", "main", "manage", "watch"]
