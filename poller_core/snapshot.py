"""The merge: a sorted listing and the sorted pages of the snapshot, into changes.

Pure: no clock, no database, no file. The listing is cut at the boundaries of
the stored pages; each part is encoded, and if its digest is the stored page's,
that page is passed over unread. Only a page that differs is loaded and compared.

Guarantees:

* **Bounded.** A few pages of the listing and of the snapshot are in memory,
  however long the listing is.
* **Each step stands alone.** A :class:`Step` can be committed by itself: the
  snapshot is then right below :attr:`Step.upto` and as before above it.
* **Not seen is not gone.** Nothing is concluded about keys in a gap or outside
  the span looked at; a missing key is deleted only if ``confirm`` proves it.
* **Held is not seen.** An entry that ``hold`` keeps back stays as it was in the
  snapshot, so that the next look finds the difference again.

* **Order is checked.** A listing that is out of order, or leaves its span,
  raises before anything of it is written; the steps given until then stand.

Not guaranteed: that pages are as full as they could be. One that shrinks is
joined with the page behind it only if the look covers both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter, lt
from typing import NamedTuple

from . import pages
from .errors import PollerError, StateDamaged
from .listing import Change, Chunk, Gap, Kind, Row, Span
from .pages import PAGE_ENTRIES, PAGE_MAX, PAGE_MIN, Segment

__all__ = ["Delta", "Page", "PageHead", "Rules", "Step", "merge"]


class PageHead(NamedTuple):
    """A stored page without its content: it holds the keys from ``first_key`` to the next page's."""

    first_key: bytes
    digest: bytes
    entries: int


class Page(NamedTuple):
    """A page to store."""

    first_key: bytes
    digest: bytes
    entries: int
    raw: bytes  #: encoded, not compressed
    segments: list[Segment] | None = None  #: the content itself, not to be changed


class Delta(NamedTuple):
    """One change. ``row`` is the new fingerprint, or the last known one of what was deleted."""

    key: bytes
    kind: Kind
    row: Row


class Step(NamedTuple):
    """What a part of the merge changes."""

    drop: list[bytes]  #: first keys of pages to delete
    put: list[Page]  #: pages to store, after the deletions
    deltas: list[Delta]  #: in order of key
    entries: int  #: by how much the number of entries in the snapshot changed
    upto: bytes | None  #: all keys below this one are done; None: all are


@dataclass(frozen=True)
class Rules:
    """What the merge asks of others."""

    load: Callable[[PageHead], list[Segment]]  #: read a stored page
    differs: Callable[[Row, Row], Change]  #: judge two unequal rows
    confirm: Callable[[list[bytes]], set[bytes]]  #: which of these are proven to be gone
    #: Whether what was created or modified must wait, by key and new row; None: none must.
    hold: Callable[[bytes, Row], bool] | None = None
    #: False: take what is there as known, without changes (a baseline). ``hold`` is asked, so that
    #: it learns what can't be trusted yet, but nothing waits.
    report: bool = True
    metadata: bool = False  #: whether a change of metadata alone is a modification
    #: Whether ``hold`` need not be asked of any of these rows in a baseline, which it would make
    #: twice as slow; None: it is always asked.
    settled: Callable[[list[Row]], bool] | None = None
    #: Which of these changes (key, known row, listed row) are older than what is known, and not believed.
    outdated: Callable[[list[tuple[bytes, Row, Row]]], set[bytes]] | None = None


@dataclass(slots=True)
class _Region:
    """The keys from ``lo`` up to ``hi`` (the next stored page), and what is known of them so far."""

    lo: bytes
    hi: bytes | None
    heads: list[PageHead]  # the stored pages that it covers
    olds: list[Segment] | None = None  # their content, once loaded; set at once if a part is closed already
    news: list[Segment] = field(default_factory=list)  # what the listing gave
    count: int = 0  # the entries in news

    def append(self, part: Segment) -> None:
        # Neighbours under one prefix are one segment: a page must not depend on the chunks it came in.
        if self.news and self.news[-1].prefix == part.prefix:
            self.news[-1].names.extend(part.names)
            self.news[-1].rows.extend(part.rows)
        else:
            self.news.append(part)
        self.count += len(part.names)


def merge(
    listing: Iterable[Chunk | Gap], heads: Iterable[PageHead], span: Span, rules: Rules
) -> Iterator[Step]:
    """Compare a listing of ``span`` with the stored pages that touch it.

    :param listing: chunks and gaps, in order. The lists in chunks are used up.
        A gap may reach beyond the span, a chunk may not.
    :param heads: the stored pages in order, from the one that holds ``span.start``;
        those behind the span may be left out.
    :param rules: see :class:`Rules`.
    :returns: the steps that differ, in order; nothing for what is unchanged.
    :raises PollerError: if the listing is not in order, or leaves the span.
    """
    return _Merge(heads, span, rules).run(listing)


class _Merge:
    def __init__(self, heads: Iterable[PageHead], span: Span, rules: Rules) -> None:
        self._rules = rules
        self._span = span
        self._gaps: list[Span] = []
        self._heads = iter(heads)
        self._next = next(self._heads, None)
        # Below the first page nothing is stored, as if there were an empty page.
        self._region = _Region(b"", self._next.first_key if self._next else None, [])

    def _open_next(self) -> None:
        """Go on to the next stored page; behind the last one nothing is left to do."""
        head = self._next
        if head is None:
            self._region = _Region(self._region.lo, None, [])
            return
        self._next = next(self._heads, None)
        self._region = _Region(head.first_key, self._next.first_key if self._next else None, [head])

    def run(self, listing: Iterable[Chunk | Gap]) -> Iterator[Step]:
        start, stop = self._span
        floor = start  # no key to come may lie below it
        for item in listing:
            if isinstance(item, Gap):
                gap = _common(item.span, self._span)
                if gap.stop is not None and gap.start >= gap.stop:
                    continue
                if gap.start < floor:
                    raise _unsorted(gap.start, floor)
                self._gaps.append(gap)
                floor = gap.start if gap.stop is None else gap.stop
                continue
            part = item
            prefix, names, rows = part
            first, last = prefix + names[0], prefix + names[-1]
            if first < floor:
                raise _unsorted(first, floor)
            if stop is not None and last >= stop:
                raise PollerError(f"the listing gave {last!r}, but its span ends before {stop!r}")
            if len(names) != len(rows):
                raise PollerError(
                    f"the chunk at {first!r} has {len(names)} names but {len(rows)} fingerprints"
                )
            floor = last + b"\0"
            region = self._region
            while region.hi is not None and last >= region.hi:
                # All keys between the first and the last begin with the prefix, and so does the boundary,
                # unless it lies before the first.
                cut = bisect_left(names, region.hi[len(prefix) :]) if region.hi.startswith(prefix) else 0
                if cut:
                    region.append(Segment(prefix, names[:cut], rows[:cut]))
                    names, rows = names[cut:], rows[cut:]
                    part = Segment(prefix, names, rows)
                yield from self._finish()
                region = self._region
            region.append(part)
            while self._region.count > (PAGE_MAX if self._region.heads else PAGE_ENTRIES + PAGE_MIN):
                yield from self._finish_part()
        while self._region.hi is not None and (stop is None or self._region.hi <= stop):
            yield from self._finish()
        if stop is None or self._region.lo < stop:
            yield from self._finish()

    # -- closing a region ----------------------------------------------------

    def _finish(self) -> Iterator[Step]:
        """Close the region at its end and open the next one, or join it with the page behind it."""
        region = self._region
        whole = Span(region.lo, region.hi)
        looked_at = _common(whole, self._span)
        gaps = self._gaps_in(looked_at)
        parted = region.olds is not None
        put: list[Page] | None = None
        if not parted:
            if not region.news and (not region.heads or any(_covers(gap, looked_at) for gap in gaps)):
                self._open_next()
                return
            if len(region.heads) == 1 and region.heads[0].entries == region.count:
                put = _pages(region.lo, region.news)
                if [page.digest for page in put] == [region.heads[0].digest]:
                    self._open_next()
                    return
            if not gaps and looked_at == whole and self._joined(region):
                return
        olds = self._olds()
        merged, deltas = self._compare(olds, region.news, gaps, region.hi)
        if put is None or merged is not region.news:
            put = _pages(region.lo, merged)
        step = self._step(put, [], deltas, _count(olds), region.hi)
        self._open_next()
        # After a part of a region there is always a last step for it, which says that it is done with.
        if parted or step.put or step.drop or step.deltas:
            yield step

    def _gaps_in(self, span: Span) -> list[Span]:
        # Spans are asked for in order: what ends before this one is done with.
        self._gaps = [gap for gap in self._gaps if gap.stop is None or gap.stop > span.start]
        return [gap for gap in self._gaps if span.stop is None or gap.start < span.stop]

    def _joined(self, region: _Region) -> bool:
        """Let the region grow by the page behind it, if it changed and became too small to stand alone."""
        upcoming = self._next
        if upcoming is None or not 0 < region.count < PAGE_MIN:
            return False
        stored = sum(head.entries for head in region.heads) + upcoming.entries
        # The second bound is for a mass deletion, which must not gather the whole snapshot.
        if region.count + upcoming.entries > PAGE_ENTRIES or stored > 2 * PAGE_MAX:
            return False
        region.heads.append(upcoming)
        self._next = next(self._heads, None)
        region.hi = self._next.first_key if self._next else None
        return True

    def _finish_part(self) -> Iterator[Step]:
        """Close a page's worth of a region that is too long; the rest of it goes on."""
        region = self._region
        part, rest = _take(region.news, PAGE_ENTRIES)
        cut = rest[0].prefix + rest[0].names[0]
        gaps = self._gaps_in(Span(region.lo, cut))
        below, above = _split(self._olds(), cut)
        merged, deltas = self._compare(below, part, gaps, cut)
        # The rest of the stored page must stay in the snapshot, whatever happens before it is compared.
        left = _pages(cut, above)
        step = self._step(_pages(region.lo, merged), left, deltas, _count(below), cut)
        heads = [PageHead(page.first_key, page.digest, page.entries) for page in left]
        self._region = _Region(cut, region.hi, heads, above, rest, region.count - PAGE_ENTRIES)
        yield step

    def _step(
        self, put: list[Page], left: list[Page], deltas: list[Delta], before: int, upto: bytes | None
    ) -> Step:
        """The step that puts these pages in the place of the region's.

        :param put: what is done, with ``before`` entries until now.
        :param left: what is yet to be compared.
        """
        entries = sum(page.entries for page in put) - before
        stored = {head.first_key: head.digest for head in self._region.heads}
        put = put + left
        drop = [key for key in stored if all(page.first_key != key for page in put)]
        put = [page for page in put if stored.get(page.first_key) != page.digest]
        return Step(drop, put, deltas, entries, upto)

    def _olds(self) -> list[Segment]:
        region = self._region
        if region.olds is None:
            ends = [*(head.first_key for head in region.heads[1:]), region.hi]
            # Not strict: below the first page there is an end, but nothing is stored.
            loaded = [self._load(head, hi) for head, hi in zip(region.heads, ends, strict=False)]
            region.olds = _join([part for page in loaded for part in page])
        return region.olds

    def _load(self, head: PageHead, hi: bytes | None) -> list[Segment]:
        page = self._rules.load(head)
        ends = [page[0].prefix + page[0].names[0], page[-1].prefix + page[-1].names[-1]] if page else []
        if not all(Span(head.first_key, hi).holds(key) for key in ends):
            # Damage to the first key of a page, which is in no digest: its entries would count as gone.
            raise StateDamaged(
                f"the page of the snapshot at {head.first_key!r} holds keys of another; run 'poller check'"
            )
        return page

    def _compare(
        self, olds: list[Segment], news: list[Segment], gaps: list[Span], hi: bytes | None
    ) -> tuple[list[Segment], list[Delta]]:
        """What is known below ``hi`` after this look, and what changed; nothing where it was blind."""
        _check_order(news, hi)
        start, stop = self._span
        blind = [Span(b"", start), *gaps] if start else gaps
        if stop is not None:
            blind = [*blind, Span(stop, None)]
        if not blind:
            return _compare(olds, news, self._rules)
        seen: list[Segment] = []
        unseen: list[tuple[bytes, list[Segment]]] = []
        for lo, top in blind:
            before, olds = _split(olds, lo)
            inside, olds = (olds, []) if top is None else _split(olds, top)
            seen += before
            unseen.append((lo, inside))
        merged, deltas = _compare(seen + olds, news, self._rules)
        pieces: list[Segment] = []
        for lo, inside in unseen:
            before, merged = _split(merged, lo)
            pieces += before + inside
        return _join(pieces + merged), deltas


def _check_order(news: list[Segment], hi: bytes | None) -> None:
    # Only what differs gets here: what is unchanged need not pay for it. Between chunks, run() looks.
    for prefix, names, _ in news:
        if not all(map(lt, names, islice(names, 1, None))):
            at = next(i for i in range(1, len(names)) if names[i] <= names[i - 1])
            raise _unsorted(prefix + names[at], prefix + names[at - 1])
    if news and hi is not None and (last := news[-1].prefix + news[-1].names[-1]) >= hi:
        raise _unsorted(hi, last)


def _unsorted(key: bytes, last: bytes) -> PollerError:
    return PollerError(
        f"the listing is not sorted: {key!r} came after {last!r}; keys must come in byte order, each once"
    )


# -- spans and segments ------------------------------------------------------


def _common(one: Span, other: Span) -> Span:
    """What lies in both; empty (not sorted) if nothing does."""
    stops = [stop for stop in (one.stop, other.stop) if stop is not None]
    return Span(max(one.start, other.start), min(stops, default=None))


def _covers(gap: Span, span: Span) -> bool:
    return gap.start <= span.start and (gap.stop is None or (span.stop is not None and gap.stop >= span.stop))


def _count(segments: list[Segment]) -> int:
    return sum(len(part.names) for part in segments)


def _join(parts: list[Segment]) -> list[Segment]:
    """The same entries, with neighbours under one prefix as one segment."""
    joined: list[Segment] = []
    for part in parts:
        if joined and joined[-1].prefix == part.prefix:
            last = joined[-1]
            joined[-1] = Segment(last.prefix, last.names + part.names, last.rows + part.rows)
        else:
            joined.append(part)
    return joined


def _split(segments: list[Segment], cut: bytes) -> tuple[list[Segment], list[Segment]]:
    """The segments below and from ``cut`` on."""
    for index, (prefix, names, _) in enumerate(segments):
        if prefix + names[-1] < cut:
            continue
        at = bisect_left(names, cut[len(prefix) :]) if cut.startswith(prefix) else 0
        return _cut(segments, index, at)
    return segments, []


def _take(segments: list[Segment], size: int) -> tuple[list[Segment], list[Segment]]:
    """The first ``size`` entries, and the rest."""
    for index, part in enumerate(segments):
        if len(part.names) > size:
            return _cut(segments, index, size)
        size -= len(part.names)
    return segments, []


def _cut(segments: list[Segment], index: int, at: int) -> tuple[list[Segment], list[Segment]]:
    if not at:
        return segments[:index], segments[index:]
    prefix, names, rows = segments[index]
    head, tail = Segment(prefix, names[:at], rows[:at]), Segment(prefix, names[at:], rows[at:])
    return [*segments[:index], head], [tail, *segments[index + 1 :]]


def _pages(lo: bytes, segments: list[Segment]) -> list[Page]:
    """Encode segments as one page, or as several if they are too many for one."""
    done: list[Page] = []
    total = _count(segments)
    while total:
        size = total if total <= PAGE_MAX else PAGE_ENTRIES
        part, segments = _take(segments, size)
        raw = pages.encode(part)
        done.append(Page(lo, pages.digest(raw), size, raw, part))
        total -= size
        if total:
            lo = segments[0].prefix + segments[0].names[0]
    return done


# -- comparing ---------------------------------------------------------------


def _compare(olds: list[Segment], news: list[Segment], rules: Rules) -> tuple[list[Segment], list[Delta]]:
    """What is known after this look (``news`` itself, if that is it), and what changed."""
    changed: list[tuple[bytes, Row, Row]] = []
    created: list[tuple[bytes, Row]] = []
    missing: list[tuple[bytes, Row]] = []
    if not olds:
        if not rules.report and (rules.hold is None or _settled(news, rules)):
            return news, []
        created = _items(news)
    elif len(olds) == len(news) and all(
        old.prefix == new.prefix and old.names == new.names for old, new in zip(olds, news, strict=True)
    ):
        for (prefix, names, before), (_, _, after) in zip(olds, news, strict=True):
            if before != after:
                rows = zip(names, before, after, strict=True)
                changed += [(prefix + name, old, new) for name, old, new in rows if old != new]
    else:
        known, seen = dict(_items(olds)), dict(_items(news))
        changed = [(key, known[key], row) for key, row in seen.items() if known.get(key, row) != row]
        created = [item for item in seen.items() if item[0] not in known]
        missing = [item for item in known.items() if item[0] not in seen]

    if not rules.metadata:
        changed = [item for item in changed if rules.differs(item[1], item[2]) is Change.content]
    stale = rules.outdated(changed) if changed and rules.outdated is not None else set()
    if stale:
        changed = [item for item in changed if item[0] not in stale]
    gone = rules.confirm([key for key, _ in missing]) if missing else set()
    held: set[bytes] = set()
    if rules.hold is not None:
        held.update(key for key, row in created if rules.hold(key, row))
        held.update(key for key, _, row in changed if rules.hold(key, row))
    deltas: list[Delta] = []
    # What the snapshot goes on to say, or not to say.
    stay = stale | {key for key, _ in missing if key not in gone}
    if rules.report:
        stay |= held
        made, written, deleted = Kind.created, Kind.modified, Kind.deleted
        deltas += [Delta(key, made, row) for key, row in created if key not in held]
        deltas += [Delta(key, written, row) for key, _, row in changed if key not in held]
        deltas += [Delta(key, deleted, row) for key, row in missing if key in gone]
        deltas.sort(key=itemgetter(0))
    return (_keep(olds, news, stay) if stay else news), deltas


def _settled(news: list[Segment], rules: Rules) -> bool:
    settled = rules.settled
    return settled is not None and all(settled(part.rows) for part in news)


def _keep(olds: list[Segment], news: list[Segment], stay: set[bytes]) -> list[Segment]:
    """What is there now, but these keys as they were."""
    entries = [
        (prefix + name, prefix, name, row)
        for part, old in ((olds, True), (news, False))
        for prefix, names, rows in part
        for name, row in zip(names, rows, strict=True)
        if (prefix + name in stay) is old
    ]
    entries.sort(key=itemgetter(0))
    segments: list[Segment] = []
    for _, prefix, name, row in entries:
        if not segments or segments[-1].prefix != prefix:
            segments.append(Segment(prefix, [], []))
        segments[-1].names.append(name)
        segments[-1].rows.append(row)
    return segments


def _items(segments: list[Segment]) -> list[tuple[bytes, Row]]:
    return [
        (prefix + name, row)
        for prefix, names, rows in segments
        for name, row in zip(names, rows, strict=True)
    ]
