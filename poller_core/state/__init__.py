"""The state: one schema on SQLite and PostgreSQL.

:func:`open_store` opens it. The parts: ``urls`` (where it is), ``database``,
``sqlite``, ``postgresql`` (connections and errors), ``schema`` (tables,
migrations), ``files`` (making a file), ``records`` and ``journal`` (events),
``targets``, ``store`` (snapshots and events), ``consumers``, ``reading``, ``ownership``,
``single``, ``handlers`` and ``retention`` (who has read what), ``leases`` and ``pgleases``,
``observed`` (what was seen and not reported), ``checks``, ``repair`` and ``salvage``.

Nothing in here knows what is watched, or what a page holds.
"""

from .consumers import Consumers, DeadLetter
from .ownership import ClaimRow
from .reading import ConsumerRow, Pending
from .records import Numbered, Record, event_id, parse_event_id
from .store import Committed, Head, PageRow, SnapshotChange, Store, open_store
from .targets import Target

__all__ = [
    "ClaimRow",
    "Committed",
    "ConsumerRow",
    "Consumers",
    "DeadLetter",
    "Head",
    "Numbered",
    "PageRow",
    "Pending",
    "Record",
    "SnapshotChange",
    "Store",
    "Target",
    "event_id",
    "open_store",
    "parse_event_id",
]
