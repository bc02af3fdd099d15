"""Where a state is kept: reading the ``state=`` argument.

Guarantees: :attr:`StateUrl.text` and every error of this module are free of
passwords, and a password is in no repr. What can't be understood raises
:class:`~poller_core.errors.InvalidOption`, with an example of what can.

Does not guarantee: that the place exists or can be reached; that is found out
when the state is opened.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from ..errors import InvalidOption

__all__ = ["StateUrl", "parse_state_url"]

_EXPECTED = (
    "expected a path, sqlite:////absolute/path.db, sqlite:///relative.db, "
    "postgresql+psycopg://user@host/database, or nothing for a state that ends with the process"
)
_FOR_A_SHELL = re.compile(r"~[^/]*/|\$\{?\w")
_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
#: libpq options whose values are secret, and are never shown.
_SECRET = frozenset({"password", "passfile", "sslpassword", "sslkey", "oauth_client_secret"})


@dataclass(frozen=True)
class StateUrl:
    """A state's place, taken apart."""

    text: str  #: the URL, without secrets
    path: Path | None = None  #: the SQLite file, resolved; None for PostgreSQL and for a private state
    parameters: dict[str, str] = field(default_factory=dict, repr=False)  #: libpq's, password included

    @property
    def private(self) -> bool:
        """Whether it is a temporary state that no other process can open."""
        return self.path is None and not self.parameters


def parse_state_url(url: str | os.PathLike[str] | None) -> StateUrl:
    """Read the ``state=`` argument.

    :param url: a path, a URL, or None for a private, temporary state.
    :raises InvalidOption: when it is none of what is understood.
    """
    if url is None or url == ":memory:":
        return StateUrl("sqlite://")
    text = os.fsdecode(os.fspath(url))
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not isinstance(url, str) or not colon or "/" in scheme:
        return _file(text)
    if scheme == "sqlite" and rest.startswith("//"):
        if rest in ("//", "///", "///:memory:"):
            return StateUrl("sqlite://")
        if not rest.startswith("///"):
            raise InvalidOption(
                f"state: an sqlite URL has no host, so it has three or four slashes; {_EXPECTED}"
            )
        if "?" in rest:
            raise InvalidOption(f"state: an sqlite URL takes no '?' parameters; {_EXPECTED}")
        return _file(rest[3:])
    if scheme in ("postgresql", "postgresql+psycopg") and rest.startswith("//"):
        return _postgresql(text)
    if rest.startswith("//") or scheme in ("sqlite", "postgresql", "postgresql+psycopg", "postgres", "file"):
        # What follows the scheme may hold a password: only the scheme is shown.
        raise InvalidOption(f"state: a URL that begins with {scheme + ':'!r} is not understood; {_EXPECTED}")
    return _file(text)


def _file(name: str) -> StateUrl:
    if not name or "\0" in name:
        raise InvalidOption(f"state: {name!r} is not a file name; {_EXPECTED}")
    if _FOR_A_SHELL.match(name):
        # Else a directory of that very name would be made, wherever the program happens to be.
        raise InvalidOption(
            f"state: {name!r}: '~' and variables are for the shell to fill in; write the directory out, or "
            f"use os.path.expanduser() and os.path.expandvars(). If that is the name, write './' before it"
        )
    if _OF_WINDOWS.match(name):
        raise InvalidOption(f"state: {name!r} is a path of Windows; {_EXPECTED}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise InvalidOption(
            f"state: {name!r} can't be written in the file system's encoding; {_EXPECTED}"
        ) from None
    # Resolved now: a later chdir must not move the state, and SQLite's side files lie beside the real file.
    path = Path(os.path.realpath(name))
    return StateUrl(f"sqlite:///{path}", path)


def _postgresql(text: str) -> StateUrl:
    try:
        parts = urlsplit(text)
        port = parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        # The cause quotes the URL, and what looks like a port may be half of a password.
        raise InvalidOption(
            "state: the postgresql URL can't be taken apart (characters such as '/', '@', '#' and '?' "
            "in a user name or password are written as %2F, %40, %23, %3F); "
            "example: postgresql+psycopg://user:password@host:5432/database"
        ) from None
    parameters = {
        "host": unquote(parts.hostname or ""),
        "port": str(port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    parameters = {name: value for name, value in parameters.items() if value}
    parameters.update(query)
    if parts.fragment or any("\0" in value for value in parameters.values()):
        raise InvalidOption(
            "state: a postgresql URL has no '#' part and no zero bytes (a '#' in a password is written %23); "
            "example: postgresql+psycopg://user:password@host:5432/database"
        )
    # libpq falls back to its own defaults for what is missing, so this must not look private.
    return StateUrl(_shown(parts, query), None, parameters or {"dbname": ""})


def _shown(parts: SplitResult, query: list[tuple[str, str]]) -> str:
    user = quote(unquote(parts.username or ""), safe="")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    place = f"{user}@{host}" if user else host
    if parts.port:
        place += f":{parts.port}"
    kept = [(name, value) for name, value in query if name.lower() not in _SECRET]
    return f"postgresql://{place}{parts.path}" + (f"?{urlencode(kept, safe='/')}" if kept else "")
