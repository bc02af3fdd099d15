"""Places that mean the same to each process of a host: no relative path, a state whose directory is there.

Guarantees: a relative path, or a state, is refused before it means another one elsewhere; the
directory of an SQLite state that is made here can be entered by its owner only.

Not guaranteed: that another machine has what is at an absolute path, and that a directory
that was there before is closed to others.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from ..errors import InvalidOption, InvalidUrl, StateUnreadable
from ..poller import registered, unknown_scheme
from ..state.urls import parse_state_url
from ..url import Url
from .values import plain_url

__all__ = ["prepare_state", "refuse_own_state", "refuse_relative", "refuse_unknown"]

#: Schemes that people try. Of any other a process elsewhere may have a poller that is not registered here.
_TRIED = frozenset(
    (
        *("http", "https", "ftp", "ftps", "sftp", "ssh", "nfs", "smb", "cifs", "webdav", "hdfs"),
        *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "wasb"),
    )
)


def refuse_relative(url: object, who: str = "triggerer and workers") -> None:
    """Refuse a path that means another directory in each process.

    :param url: a URL or path; a text that begins with a template passes.
    :param who: the host's processes, for the error's text.
    :raises InvalidUrl: if it is relative, or holds a pattern.
    """
    text = plain_url(url)
    if not isinstance(text, str) or text.startswith("{{"):
        return
    if not text.startswith("/") and ":" not in text:
        bare = text.strip().removeprefix("./")
        if bare.startswith(("~", "$")):
            raise InvalidUrl(
                f"{text!r}: '~' and variables are for a shell to fill in, and may mean another directory to "
                f"each of {who}; expected an absolute path, such as '/data/inbox', or a URL"
            )
        near = bare if bare.startswith("/") else os.path.join("/data", bare)
        raise InvalidUrl(
            f"{text!r} is a relative path, and {who} may each be in another directory; "
            f"expected an absolute one, such as {near!r}, or a URL"
        )
    if "*" in text and text.startswith(("/", "file:")) and "{{" not in text:
        above, _, pattern = text.rpartition("/")
        while "*" in above:
            above = above.rpartition("/")[0]
        raise InvalidUrl(
            f"{text!r}: a pattern is no part of the path; expected the directory, {above or '/'!r}, and "
            f"include=[{pattern!r}]"
        )


def refuse_unknown(url: Url) -> None:
    """Refuse a URL for which there is no poller, and most likely in no other process either.

    :raises UnknownScheme: if its scheme is one that people try, or a misspelt one.
    """
    known = registered()
    if url.scheme not in known and (url.scheme in _TRIED or difflib.get_close_matches(url.scheme, known, 1)):
        raise unknown_scheme(url.scheme)


def prepare_state(state: str, where: str) -> None:
    """Make the directory of an SQLite state, for its owner only; refuse one that no other process can find.

    :param state: as of :func:`poller_core.make_poller`.
    :param where: where else than in ``state=…`` it can be given, for the error's text.
    :raises InvalidOption: if it is none of what is understood, or of one process only.
    :raises StateUnreadable: if the directory can't be made.
    """
    path = refuse_own_state(state, where)
    if path is None:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnreadable(
            f"the directory of the state, {path.parent}, can't be made: {error.strerror}; expected a place "
            f"that may be written to, in {where} or in state=…"
        ) from None


def refuse_own_state(state: str, where: str) -> Path | None:
    """Refuse a state that no other process can find: one in memory, or at a relative path.

    :param state: as of :func:`poller_core.make_poller`.
    :param where: where else than in ``state=…`` it can be given, for the error's text.
    :returns: the file of an SQLite state.
    :raises InvalidOption: if it is none of what is understood, or of one process only.
    """
    place = parse_state_url(state)
    text = re.sub(r"\Asqlite:///", "", state, count=1, flags=re.IGNORECASE)
    if place.private or (place.path is not None and not text.startswith("/")):
        what = "ends with the process" if place.private else "is another file for who is in another directory"
        raise InvalidOption(
            f"state={state!r} {what}, and what one process finds others are to take; expected "
            f"sqlite:////absolute/path.db or postgresql+psycopg://user@host/database, in {where} or in "
            f"state=…"
        )
    return place.path
