"""Start data pipelines from new files and objects: none missed, none half-written, none twice.

:func:`make_poller` gives a :class:`Poller` for a URL; :meth:`~Poller.get_new_events`
gives what was created, modified or deleted since it was last asked. With
``state`` it remembers across restarts. ::

    from poller_core import make_poller

    with make_poller("/data/inbox", recurse=True, state="/var/lib/poller/state.db") as poller:
        for subject, event in poller.get_new_events():
            print(event, subject.path)
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a checkout can be run by any Python, and pip isn't asked then
    raise ImportError(
        "poller-core needs Python 3.11 or newer; this is Python %d.%d, %s"  # noqa: UP031
        % (*sys.version_info[:2], sys.executable)
    )

from .access import check_credentials, check_state
from .delivery import AsyncBatch, Batch, Claim, Waiting
from .errors import (
    AccessDenied,
    AuthenticationFailed,
    EventTaken,
    InvalidOption,
    InvalidUrl,
    LeaseHeld,
    NoPoller,
    OffsetTooOld,
    PollerClosed,
    PollerError,
    PollerRefused,
    StateDamaged,
    StateError,
    StateFull,
    StateLocked,
    StateNewer,
    StateReadOnly,
    StateUnreadable,
    TargetError,
    TargetMoved,
    TargetNotFound,
    UnknownClaim,
    UnknownConsumer,
    UnknownEvent,
    UnknownScheme,
    WriteConflict,
)
from .events import Event
from .journals import Journal, open_journal
from .lease import Lease
from .listed import ListingPoller
from .listing import Change, Chunk, Entry, Facts, Gap, Source, Span
from .local import FilePoller, INotifyPoller
from .options import Options
from .poller import Poller, make_poller, register_poller, registered
from .status import ConsumerStatus, Status
from .swift import SwiftPoller
from .url import Url

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AsyncBatch",
    "AuthenticationFailed",
    "Batch",
    "Change",
    "Chunk",
    "Claim",
    "ConsumerStatus",
    "Entry",
    "Event",
    "EventTaken",
    "Facts",
    "FilePoller",
    "Gap",
    "INotifyPoller",
    "InvalidOption",
    "InvalidUrl",
    "Journal",
    "Lease",
    "LeaseHeld",
    "ListingPoller",
    "NoPoller",
    "OffsetTooOld",
    "Options",
    "Poller",
    "PollerClosed",
    "PollerError",
    "PollerRefused",
    "Source",
    "Span",
    "StateDamaged",
    "StateError",
    "StateFull",
    "StateLocked",
    "StateNewer",
    "StateReadOnly",
    "StateUnreadable",
    "Status",
    "SwiftPoller",
    "TargetError",
    "TargetMoved",
    "TargetNotFound",
    "UnknownClaim",
    "UnknownConsumer",
    "UnknownEvent",
    "UnknownScheme",
    "Url",
    "Waiting",
    "WriteConflict",
    "__version__",
    "check_credentials",
    "check_state",
    "make_poller",
    "open_journal",
    "register_poller",
    "registered",
]
