"""One look under way: from a listing to events in the journal.

A :class:`Look` merges what is listed now with the pages of the snapshot, and
writes what differs. When to look, and where, is the engine's to say
(:mod:`poller_core.engine`).

Guarantees:

* **All or nothing, in steps.** Snapshot and journal are written in the same
  transaction. A long look does so in bounded steps, each complete in itself:
  killed between two, the next look goes on from there.
* **One writer.** A step is dropped, with all that its look found after it, if
  another process has written since the look began.

Not guaranteed: that a look which fails leaves nothing behind. The steps that
it had written stand, and are as true as those of any other look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from . import pages
from .crashpoints import crash_point
from .filters import Exclude
from .listing import Chunk, Gap, Row, Source, Span
from .options import Options
from .snapshot import Delta, Page, PageHead, Rules, Step, merge
from .state import PageRow, Record, SnapshotChange, Store, Target

__all__ = ["Look", "reports", "resume_at"]

log = logging.getLogger("poller_core")

#: A step of a long look is written when it has gathered so many pages or events.
_STEP_PAGES = 256
_STEP_RECORDS = 20_000
#: How many decoded pages are kept.
_RECENT = 4


@dataclass
class _Gathered:
    """What a look found and has not written yet."""

    pages: dict[bytes, PageRow | None] = field(default_factory=dict)  # None: delete the page
    records: list[Record] = field(default_factory=list)
    entries: int = 0
    upto: bytes | None = b""
    touched: bytes | None = b""  # the pages below this key are not as in the database; None: to the end


class Look:
    """What a look found, and the generation that it may write to.

    :param source: what is listed; it has begun this look.
    :param target: its row in the state, as it was before the look.
    :param identity: what the source says that the target is now.
    :param listing: what is there now in spans, which are sorted and disjoint; it adds gaps to the list.
    :param hold: see :class:`~poller_core.snapshot.Rules`, as for ``settled``, ``report`` and ``metadata``.
    :param recent: what the pages hold that were written lately, by digest, for looks to come; None: not kept.
    :param now: the time that is told as the events' own, in seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        source: Source,
        exclude: Exclude,
        target: Target,
        identity: str,
        *,
        listing: Callable[[list[Span], list[Gap]], Iterator[Chunk | Gap]],
        hold: Callable[[bytes, Row], bool] | None,
        settled: Callable[[list[Row]], bool],
        report: bool,
        metadata: bool,
        recent: dict[bytes, list[pages.Segment]] | None,
        now: float,
    ) -> None:
        self.gaps: list[Gap] = []  #: what could not be listed so far
        self._store = store
        self._source = source
        self._exclude = exclude
        self._target_id = target.id
        self._identity = identity
        self._generation = target.generation
        self._complete = target.complete
        self._known_identity = target.identity
        self._listing = listing
        self._report = report
        self._recent = recent
        self._found = _Gathered()
        self._at_us = int(now * 1e6)
        self._rules = Rules(
            load=self._load,
            differs=source.differs,
            confirm=source.absent,
            hold=hold,
            report=report,
            metadata=metadata,
            settled=settled,
            outdated=source.outdated,
        )

    def over(self, spans: list[Span]) -> None:
        """Look at spans that are sorted and disjoint."""
        at = 0
        while at < len(spans):
            start = spans[at].start
            found = self._found
            if found.touched is None or start < found.touched:
                self.commit()
            # Spans in one stored page are looked at as one, since they change the same page.
            heads = (PageHead(*head) for head in self._store.heads(self._target_id, start, None))
            first = list(islice(heads, 2))
            bound = next((head.first_key for head in first if head.first_key > start), None)
            group = [spans[at]]
            at += 1
            while at < len(spans) and (bound is None or spans[at].start < bound):
                group.append(spans[at])
                at += 1
            self._merge(group, chain(first, heads))

    def _merge(self, group: list[Span], heads: Iterable[PageHead]) -> None:
        span = Span(group[0].start, group[-1].stop)
        for step in merge(self._listing(group, self.gaps), heads, span, self._rules):
            self._gather(step)
            if len(self._found.pages) >= _STEP_PAGES or len(self._found.records) >= _STEP_RECORDS:
                self.commit()

    def _gather(self, step: Step) -> None:
        found = self._found
        for key in step.drop:
            found.pages[key] = None
        for page in step.put:
            found.pages[page.first_key] = PageRow(
                page.first_key, page.digest, page.entries, pages.pack(page.raw)
            )
            self._remember(page)
        drops, record = self._exclude.drops, self._record
        found.records += [record(delta) for delta in step.deltas if not drops(delta.key)]
        found.entries += step.entries
        found.upto = found.touched = step.upto

    def _record(self, delta: Delta) -> Record:
        size, mtime_ns, etag = self._source.facts(delta.row)
        return Record(int(delta.kind), delta.key, size, mtime_ns, etag)

    def _load(self, head: PageHead) -> list[pages.Segment]:
        known = None if self._recent is None else self._recent.get(head.digest)
        if known is not None:
            return known
        raw = pages.unpack(self._store.blob(self._target_id, head.first_key, head.digest))
        return pages.decode(pages.verified(raw, head.digest))

    def _remember(self, page: Page) -> None:
        """Keep the content of pages just written: in an inbox, the next file is mostly in the same one."""
        recent = self._recent
        if recent is not None and page.segments is not None:
            recent.pop(page.digest, None)
            recent[page.digest] = page.segments
            if len(recent) > _RECENT:
                del recent[next(iter(recent))]

    def commit(self, final: bool = False) -> None:
        """Write what was found so far, in one transaction.

        :param final: the look is at its end.
        :raises WriteConflict: if another process has written since the look began; nothing was written.
        """
        found = self._found
        completes = final and not self._complete
        if not found.pages and not found.records and not completes and self._identity == self._known_identity:
            return
        if final and not completes and not found.pages and not found.records:
            log.info("the target's identity changed to %s", self._identity)
        self._source.verify()
        crash_point("look.commit.before")
        committed = self._store.commit(
            self._target_id,
            self._generation,
            SnapshotChange(
                drop=[key for key, page in found.pages.items() if page is None],
                put=[page for page in found.pages.values() if page is not None],
                records=found.records,
                detected_at_us=self._at_us,
                entries=found.entries,
                identity=self._identity,
                resume_key=None if final or self._complete else _resume_mark(self._report, found.upto),
                complete=final or self._complete,
            ),
        )
        crash_point("look.commit.after")
        self._generation = committed.generation
        self._known_identity = self._identity
        self._found = _Gathered(upto=found.upto)


def reports(target: Target, options: Options) -> bool:
    """Whether a first look reports what it finds; one that was begun goes on as it began."""
    if target.resume_key:
        return target.resume_key.startswith(b"r")
    return options.existing == "report" or options.start == "beginning"


def _resume_mark(report: bool, upto: bytes | None) -> bytes:
    return (b"r" if report else b"i") + (upto or b"")


def resume_at(mark: bytes | None) -> bytes:
    """The key from which a first look goes on that was begun; ``b""``: from the start."""
    return mark[1:] if mark else b""
