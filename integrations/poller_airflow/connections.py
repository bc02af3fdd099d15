"""What a connection of the type ``poller`` says, as a poller takes it.

Guarantees: what is secret in it goes to the poller and nowhere else; errors name
the connection and its fields, never their values.

Not guaranteed: that the credentials are right; the hook's *Test* tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from poller_core import InvalidOption
from poller_core.hosts import CREDENTIALS, SWIFT_OPTIONS

__all__ = ["poller_options"]

_NUMBERS = {"timeout": float, "retries": int}


def poller_options(connection: Any) -> dict[str, Any]:
    """The options for ``make_poller`` that a connection stands for.

    :param connection: an Airflow connection.
    :returns: ``credentials``, ``state`` and others; only those that it says something of.
    :raises InvalidOption: if a field is not known or can't be.
    """
    extra = _extra(connection)
    unknown = [name for name in extra if name not in (*CREDENTIALS, *SWIFT_OPTIONS, "state", "auth_url")]
    if unknown:
        known = ", ".join(sorted((*CREDENTIALS, *SWIFT_OPTIONS, "state", "auth_url")))
        raise InvalidOption(
            f"connection {connection.conn_id!r}: its extra has {', '.join(sorted(unknown))}; "
            f"known are: {known}"
        )
    options = {name: extra[name] for name in (*SWIFT_OPTIONS, "state") if name in extra}
    for name, kind in _NUMBERS.items():
        if name in options:
            options[name] = _number(connection.conn_id, name, kind, options[name])
    if "insecure" in options:
        options["insecure"] = _flag(connection.conn_id, "insecure", options["insecure"])
    credentials = {name: str(extra[name]) for name in CREDENTIALS if name in extra}
    if connection.login:
        credentials["username"] = connection.login
    if connection.password:
        # The one box for secrets that every form has serves an application credential, too.
        application = any(name.startswith("application_credential_") for name in credentials)
        secret = "application_credential_secret" if application else "password"
        credentials.setdefault(secret, connection.password)
    if credentials:
        address = extra.get("auth_url") or _address(connection)
        if address:
            credentials["auth_url"] = address
        options["credentials"] = credentials
    return options


def _extra(connection: Any) -> dict[str, Any]:
    text = connection.extra
    if not text:
        return {}
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None
    if not isinstance(extra, Mapping):
        raise InvalidOption(
            f"connection {connection.conn_id!r}: its extra is no JSON object; expected one such as "
            f'{{"project_name": "demo"}}'
        )
    # A form that is left empty gives empty texts and nulls.
    return {name: value for name, value in extra.items() if value not in (None, "")}


def _number(conn_id: str, name: str, kind: type, value: object) -> float | int:
    try:
        return kind(value)  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        raise InvalidOption(f"connection {conn_id!r}: {name} is no number") from None


def _flag(conn_id: str, name: str, value: object) -> bool:
    # A form gives a boolean, a connection that is written as a URI a text.
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            str(value).strip().lower()
        ]
    except KeyError:
        raise InvalidOption(f"connection {conn_id!r}: {name} is neither true nor false") from None


def _address(connection: Any) -> str | None:
    """Where Keystone is: what the host says, completed by port and path."""
    host = (connection.host or "").rstrip("/")
    if not host:
        return None
    parts = urlsplit(host if "://" in host else f"https://{host}")
    place = parts.netloc
    if connection.port and not re.search(r":\d+$", place):
        place += f":{connection.port}"
    path = parts.path or quote("/" + (connection.schema or "").strip("/"))
    return urlunsplit((parts.scheme, place, path.rstrip("/"), "", ""))
