"""What a host's run goes by: how its claim is called, how it looks, and what ends it for good.

Guarantees: a name is the same for the same text, on whatever machine and at whatever
try, and another for another text; it fits the state's limits whatever the host allows.
"""

from __future__ import annotations

import hashlib
import math

from ..errors import InvalidOption, InvalidUrl, NoPoller, OffsetTooOld, PollerError, StateNewer, UnknownScheme

__all__ = ["FINAL", "JOURNAL_ONLY", "fitting"]

#: What trying again can't mend.
FINAL: tuple[type[PollerError], ...] = (
    InvalidOption,
    InvalidUrl,
    NoPoller,
    OffsetTooOld,
    StateNewer,
    UnknownScheme,
)
#: As ``max_age``: take what the journal has, without looking; who says so knows that somebody else looks.
JOURNAL_ONLY = math.inf


def fitting(name: str, longest: int = 250) -> str:
    """The name of a consumer or claim as the state takes it.

    :param name: made of what the host allows.
    :param longest: how many characters there may be, at least 17; 250 is what the state takes.
    :returns: the name itself if it fits; else as much of it as can be read, and a digest of the whole.
    """
    if len(name) <= longest and name.isprintable():
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = "".join(char if char.isprintable() else "?" for char in name)
    return f"{readable[: longest - 17]}~{digest}"
