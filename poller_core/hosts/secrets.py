"""Arguments that hold a secret are refused, with what to do instead.

Guarantees: a password in a URL, or an option that carries one, raises; so does a URL that
is malformed and may hide one, such as one with a ``/`` in its password. The adapter asks
before the host stores anything. The error does not show the secret. A template,
``{{ … }}``, is recognized where a part of a URL may stand.

Not guaranteed: that a secret is recognized that stands where none belongs, such as in
a path or a consumer's name, or in a URL that is malformed and has a template besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidOption, InvalidUrl
from ..options import unknown_option
from ..poller import registered
from ..state.urls import parse_state_url
from ..url import Url, redact

__all__ = ["OPTIONS", "OURS", "Advice", "has_password", "refuse_secrets", "without_password"]

#: The options of ``make_poller`` that may be given in the open; all are plain JSON.
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
#: Options that carry a secret, and so come from where the host keeps secrets only.
_SECRET = ("credentials", "session", "auth", "password", "username", "token")
_TEMPLATE = r"\{\{.*?\}\}"
#: User and password, also of a URL that is a template yet. A template may hold any character, and is never
#: read in two ways in one place (that is what ``(?>`` is for): trying them all would take for ever.
_PASSWORD = re.compile(
    rf"//(?:(?>{_TEMPLATE}|[^/?#@:])*:(?>{_TEMPLATE}|[^/?#@])*|[^/?#@:]*:[^/?#@]*)@", re.DOTALL
)
#: All that may be user and password: these may hold a ``/`` or ``@`` that should have been encoded.
_USER_INFO = re.compile(r"//.*@", re.DOTALL)
#: What libpq takes for a secret in the query of its URLs.
_IN_QUERY = re.compile(r"(?<=[?&])(?:password|sslpassword|oauth_client_secret)=[^&#]*&?", re.IGNORECASE)
#: The schemes whose pollers come with this package, and so take no options but these.
OURS = ("file", "swift", "swifts", "swt", "swts")


@dataclass(frozen=True)
class Advice:
    """What to do instead, in the words of a host: whole sentences, without the full stop at the end."""

    host: str  #: the host's name, which would store the secret
    url: Callable[[str], str]  #: about a password in the URL; is given the URL without it
    state: str  #: about a password in ``state=…``
    option: Callable[[str], str]  #: about an option that holds a secret; is given its name
    arguments: Mapping[str, str] = field(default_factory=dict)  #: what the host calls what has other names


def refuse_secrets(
    url: object, state: object = None, options: Mapping[str, Any] | None = None, *, advice: Advice
) -> None:
    """Refuse what would put a secret into a host's tables.

    :param url: a URL, a path, or what stands for one, such as another task's output.
    :param advice: what to do instead, for the error's text.
    :raises InvalidUrl: if there is a password in the URL, or may be one, as it is malformed.
    :raises InvalidOption: if there is one elsewhere, or an option is not known.
    """
    stored = f"{advice.host} would store it for all to read"
    if has_password(url):
        raise InvalidUrl(
            f"there is a password in the URL, and {stored}. {advice.url(without_password(str(url)))}"
        )
    if isinstance(url, str) and "{{" not in url and redact(url) != url:
        Url(url)
    if state is not None and has_password(state):
        raise InvalidOption(f"there is a password in state=…, and {stored}. {advice.state}")
    if isinstance(state, str) and "{{" not in state and "://" in state and not state.startswith("sqlite:"):
        parse_state_url(state)
    for name in options or {}:
        if name in _SECRET:
            raise InvalidOption(f"{name}=… holds a secret, and {stored}. {advice.option(name)}")
        if name not in OPTIONS and not _of_others(url):
            raise unknown_option(name, OPTIONS, advice.arguments)


def has_password(text: object) -> bool:
    """Whether there is a password in a URL; what is no text is looked at as the text that it gives."""
    shown = str(text)
    return _PASSWORD.search(shown) is not None or _IN_QUERY.search(shown) is not None


def without_password(text: str) -> str:
    """A URL without the user and password that :func:`has_password` has found; else as it is.

    Of one with several ``@`` only what stands behind the last is left: each may belong to the password.
    """
    if _PASSWORD.search(text):
        text = _USER_INFO.sub("//", text)
    if _IN_QUERY.search(text):
        text = _IN_QUERY.sub("", text).rstrip("?&")
    return text


def _of_others(url: object) -> bool:
    """Whether a poller of somebody else's may be meant, which knows its options itself."""
    text = str(url)
    if "{{" in text or not isinstance(url, str):
        return True  # not known yet
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme.lower() not in OURS and scheme.lower() in registered()
