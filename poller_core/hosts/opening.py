"""The poller of a host's run.

Guarantees: it has a journal, from which what was found can be given out again; what is
for containers does not get in the way of a directory.

Not guaranteed: that secrets and relative paths were refused; the adapter asks before,
with advice in its host's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import NoPoller
from ..listed import ListingPoller
from ..poller import make_poller
from ..url import Url

__all__ = ["open_listing"]


def open_listing(
    target: Url, purpose: str, access: Mapping[str, Any], options: Mapping[str, Any], **own: Any
) -> ListingPoller:
    """Make the poller that is registered for a URL; blocks.

    :param purpose: what its journal is for, as in "a run could claim its events"; for the error's text.
    :param access: options from where the host keeps secrets. They are kept from a directory: they may have
        been given with others that are for any target.
    :param options: those that the user has given; they come before those of ``access``.
    :param own: those that are the adapter's alone, such as ``consumer`` and ``state``.
    :raises NoPoller: if it has no journal.
    :raises PollerError: for whatever else stands in the way.
    """
    poller = make_poller(target, **own, **{**({} if target.scheme == "file" else access), **options})
    if isinstance(poller, ListingPoller):
        return poller
    poller.close()
    raise NoPoller(
        f"{type(poller).__name__}, which is registered for {target.scheme!r} URLs, has no journal from "
        f"which {purpose}; expected one derived from poller_core.ListingPoller"
    )
