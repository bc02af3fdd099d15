"""Places that mean the same to each process of a host: no relative path, a state whose directory is there.

Guarantees: a relative path is refused before it means another directory elsewhere; the
directory of an SQLite state that is made here can be entered by its owner only.

Not guaranteed: that another machine has what is at an absolute path, and that a directory
that was there before is closed to others.
"""

from __future__ import annotations

import os

from ..errors import InvalidUrl, StateUnreadable
from ..state.urls import parse_state_url
from .values import plain_url

__all__ = ["prepare_state", "refuse_relative"]


def refuse_relative(url: object, who: str = "triggerer and workers") -> None:
    """Refuse a path that means another directory in each process.

    :param url: a URL or path; a text that begins with a template passes.
    :param who: the host's processes, for the error's text.
    :raises InvalidUrl: if it is relative.
    """
    text = plain_url(url)
    if isinstance(text, str) and not text.startswith(("/", "{{")) and ":" not in text:
        raise InvalidUrl(
            f"{text!r} is a relative path, and {who} may each be in another directory; "
            f"expected an absolute one, such as {os.path.join('/data', text)!r}, or a URL"
        )


def prepare_state(state: str, where: str) -> None:
    """Make the directory of an SQLite state, for its owner only; for any other state, nothing.

    :param state: as of :func:`poller_core.make_poller`.
    :param where: where else than in ``state=…`` it can be given, for the error's text.
    :raises InvalidOption: if it is none of what is understood.
    :raises StateUnreadable: if the directory can't be made.
    """
    path = parse_state_url(state).path
    if path is None:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnreadable(
            f"the directory of the state, {path.parent}, can't be made: {error.strerror}; expected a place "
            f"that may be written to, in {where} or in state=…"
        ) from None
