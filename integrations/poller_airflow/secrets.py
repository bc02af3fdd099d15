"""Arguments that hold a secret are refused, with what to do instead.

Guarantees: a password in a URL, or an option that carries one, raises before Airflow
stores it: where a task, trigger or asset is made, where a mapped task is put into a
DAG, and where a template was rendered. The error does not show the secret.

Not guaranteed: that a secret is recognized that stands where none belongs, such as in
a path or a consumer's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from poller_core import InvalidOption, InvalidUrl, registered

__all__ = ["OPTIONS", "OURS", "refuse_secrets", "refuse_secrets_of_mapped"]

#: The options of ``make_poller`` that a DAG may give; all are plain JSON.
OPTIONS = (
    "recurse",
    "events",
    "include",
    "exclude",
    "default_exclude",
    "settle",
    "follow_symlinks",
    "directories",
    "metadata",
    "fingerprint",
    "existing",
    "start",
    "full_every",
    "cloud",
    "region",
    "interface",
    "cacert",
    "insecure",
)
#: Options that carry a secret, and so come from a connection only.
_SECRET = ("credentials", "session", "auth", "password", "username", "token")
#: User and password, also of a URL that is a template yet, or malformed.
_PASSWORD = re.compile(r"//(?:\{\{.*?\}\}|[^/?#@:])*:(?:\{\{.*?\}\}|[^/?#@])*@")
#: The schemes whose pollers come with this package, and so take no options but these.
OURS = ("file", "swift", "swifts", "swt", "swts")


def refuse_secrets(url: object, state: object = None, options: Mapping[str, Any] | None = None) -> None:
    """Refuse what would put a secret into Airflow's tables.

    :raises InvalidUrl: if there is a password in the URL.
    :raises InvalidOption: if there is one elsewhere, or an option is not known.
    """
    if _PASSWORD.search(str(url)):
        shown = _PASSWORD.sub("//", str(url))
        raise InvalidUrl(
            f"there is a password in the URL, and Airflow would store it for all to read. Make a connection "
            f"of the type 'poller' with it (airflow connections add my_store --conn-type poller "
            f"--conn-login USER --conn-password …), and write url={shown!r}, conn_id='my_store'"
        )
    if state is not None and _PASSWORD.search(str(state)):
        raise InvalidOption(
            "there is a password in state=…, and Airflow would store it for all to read. Put the database's "
            "URL into [poller] state of Airflow's configuration, or into the field 'state' of a connection "
            "of the type 'poller', and give its conn_id"
        )
    for name in options or {}:
        if name in _SECRET:
            raise InvalidOption(
                f"{name}=… holds a secret, and Airflow would store it for all to read. Put it into a "
                f"connection of the type 'poller', and give its conn_id"
            )
        if name not in OPTIONS and not _of_others(url):
            raise InvalidOption(f"unknown option {name!r}; options are: {', '.join(OPTIONS)}")


def refuse_secrets_of_mapped(arguments: Mapping[str, Any]) -> None:
    """The same for the arguments of a mapped task, of which each may be a list or another task's output."""
    for name, value in arguments.items():
        for one in _each(value):
            refuse_secrets(one if name == "url" else "", one if name == "state" else None)
            if name == "options" and isinstance(one, Mapping):
                refuse_secrets("{{ any }}", options=one)


def _of_others(url: object) -> bool:
    """Whether a poller of somebody else's may be meant, which knows its options itself."""
    text = str(url)
    if "{{" in text or not isinstance(url, str):
        return True  # not known yet
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme.lower() not in OURS and scheme.lower() in registered()


def _each(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else (value,)
