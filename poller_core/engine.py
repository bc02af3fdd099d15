"""The look: from a listing to events in the journal.

An :class:`Engine` is one target in one process: its source, its watch, its part
of the state. All pollers and consumers of a target in a process share it.

Guarantees:

* **All or nothing, in steps.** A look writes snapshot and journal in the same
  transaction. A long look does so in bounded steps, each complete in itself:
  killed between two, the next look goes on from there.
* **One writer.** A step is dropped, with all that its look found after it, if
  another process has written since the look began; the look is then repeated.
* **Hints are not lost.** What the watch said is remembered until a look at it
  was committed; after any failure the whole target is listed again.
* **Sharing.** A look that began after it was asked for serves all who asked.

Not guaranteed: that a change that came and went between two looks is seen.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import msgspec

from . import pages
from .clock import Clock
from .crashpoints import crash_point
from .errors import StateError, TargetError, WriteConflict
from .filters import Exclude
from .listing import Chunk, Gap, Row, Source, Span, Watch, key_span, merged
from .options import Options
from .quiet import Settling
from .snapshot import Delta, Page, PageHead, Rules, Step, merge
from .state import PageRow, Record, SnapshotChange, Store, Target

__all__ = ["Engine", "Health", "Progress"]

log = logging.getLogger("poller_core")

#: Called now and then during a look with the number of entries listed so far.
Progress = Callable[[int], None]

#: A step of a long look is written when it has gathered so many pages or events.
_STEP_PAGES = 256
_STEP_RECORDS = 20_000
#: A subject that will be quiet within so many seconds is waited for, within the look.
_WAIT_WITHIN = 0.05
#: How many decoded pages are kept.
_RECENT = 4
#: How often a look is repeated when another process was faster.
_TRIES = 20
#: How many gaps are told one by one.
_GAPS_TOLD = 100
#: How often it is written down that a watched target was looked at in which nothing happens, seconds.
_NOTE_IDLE_EVERY = 10.0


class Health(msgspec.Struct):
    """How the target was at the last looks; kept in the state for ``status``."""

    error: str | None = None  #: why the target can't be looked at now
    gaps: int = 0  #: how many spans could not be listed
    reasons: list[str] = msgspec.field(default_factory=list)  #: the first of them, and why
    held: int = 0  #: subjects that wait to be quiet, or for their writer to be done
    watches: int = 0
    overflows: int = 0
    watching: bool = False  #: whether changes are noticed as they happen


@dataclass
class _Gathered:
    """What a look found and has not written yet."""

    pages: dict[bytes, PageRow | None] = field(default_factory=dict)  # None: delete the page
    records: list[Record] = field(default_factory=list)
    entries: int = 0
    upto: bytes | None = b""
    touched: bytes | None = b""  # the pages below this key are not as in the database; None: to the end


class Engine:
    """One target in this process.

    :param store: the state.
    :param target: the target's row in it.
    :param source: what is listed.
    :param watch: what notices changes, or None to list everything on every look.
    """

    def __init__(
        self,
        store: Store,
        target: Target,
        source: Source,
        options: Options,
        exclude: Exclude,
        clock: Clock,
        watch: Watch | None = None,
    ) -> None:
        self.store = store
        self.target_id = target.id
        self.epoch = target.epoch
        self.source = source
        self.options = options
        self.exclude = exclude
        self.clock = clock
        self.watch = watch
        self.health = Health(watching=watch is not None)
        self.settling = Settling(clock, options.target.settle, 0.0)
        self._lock = threading.RLock()
        self._began = float("-inf")  # when the last look that was finished began, monotonic
        self._whole = True
        self._todo: list[Span] = []
        self._closed: set[bytes] = set()
        self._gaps: list[Gap] = []
        self._next_full = self._schedule_full()
        self._noted = ("", float("-inf"))  # the health last written, and when
        self._pruned = clock.monotonic()
        self._listed = 0
        self._progress: Progress | None = None
        self._woken = threading.Event()
        # By digest: whichever page it is the digest of, that is its content.
        self.recent: dict[bytes, list[pages.Segment]] = {}

    # -- looking -------------------------------------------------------------

    def look(
        self, max_age: float = 0.0, progress: Progress | None = None, *, held_only: bool = False
    ) -> float:
        """Look at the target, and write what changed to the journal.

        :param max_age: a look that began so many seconds ago is good enough; another process's counts too.
        :param held_only: without a watch: look only at subjects that waited to be quiet, and are due.
        :returns: how many seconds ago the look that was good enough began; 0 if it was made now.
        :raises TargetError: when the target as a whole can't be looked at; nothing is concluded.
        :raises StateError: when the state can't be used; nothing was half-written.
        """
        asked = self.clock.monotonic()
        with self._lock:
            if not held_only and self._began >= asked - max_age:
                return max(0.0, asked - self._began)
            # Another process's look is as good, unless a watch of ours has begun to tell what is new since.
            other = not self.looked or (self.watch is None and not self._whole)
            if max_age > 0 and other and (age := self._looked_elsewhere(max_age)) is not None:
                return age
            self._progress = progress
            for attempt in range(_TRIES):
                try:
                    began = self.clock.monotonic()
                    self._look(held_only and self.watch is None)
                    if not held_only:
                        self._began = began
                    break
                except WriteConflict:
                    if attempt == _TRIES - 1:
                        raise
                    self.clock.sleep(random.random() * 0.005 * (attempt + 1))
        return 0.0

    @property
    def looked(self) -> bool:
        """Whether this process has looked, as a whole, since it opened the target."""
        return self._began > float("-inf")

    def check(self) -> None:
        """See whether the target is there and may be looked at, without listing it."""
        with self._lock:
            try:
                self.source.begin(self.store.reload(self.target_id).identity)
                self.source.close()
            except TargetError as error:
                self.health.error = str(error)
                with contextlib.suppress(StateError):  # the error to tell is the target's
                    self._note(None, 0.0)
                raise

    def _looked_elsewhere(self, max_age: float) -> float | None:
        """How many seconds ago some process looked; None: more than allowed."""
        looked = self.store.reload(self.target_id).looked_at
        age = -1.0 if looked is None else self.clock.wall() - looked
        return age if 0 <= age <= max_age else None

    def _look(self, held_only: bool) -> None:
        clock, source = self.clock, self.source
        wall, began = clock.wall(), clock.monotonic()
        self._listed = 0
        target = self.store.reload(self.target_id)
        try:
            identity = source.begin(target.identity)
            try:
                self.settling.adjust(source.slack, source.skew)
                self._look_at(target, identity, held_only)
            finally:
                source.close()
        except TargetError as error:
            self._whole = True
            if self.health.error is None:
                log.warning("%s: %s", target.url, error)
            self.health.error = str(error)
            with contextlib.suppress(StateError):  # the error to tell is the target's
                self._note(None, 0.0)
            raise
        except WriteConflict:
            raise  # what there was to look at is still in _todo, and is looked at again
        except BaseException:
            # Watches may be missing for what the look did not come to; listing everything makes up for it.
            self._whole = True
            raise
        if self.health.error is not None:
            log.warning("%s: can be looked at again", target.url)
            self.health.error = None
        if not held_only:
            self._note(wall, clock.monotonic() - began)
        if clock.monotonic() - self._pruned > 60:
            self._pruned = clock.monotonic()
            self.store.prune(self.target_id, wall, self.options.retention, self.options.retention_unread)

    def _look_at(self, target: Target, identity: str, held_only: bool) -> None:
        """The look proper, of an open source."""
        due = self.settling.begin()
        held_only = held_only and target.complete
        spans = [key_span(key) for key in sorted(due)] if held_only else self._plan(target, due)
        most = self.source.most_spans
        if most is not None and len(spans) > most:
            spans = [Span(spans[0].start, spans[-1].stop)]
        whole = self._whole and not held_only
        run = _Run(self, target, identity, report=target.complete or _reports(target, self.options))
        run.over(spans)
        if 0 < self.settling.wait <= _WAIT_WITHIN:
            # Just written: too near for its fingerprint to be trusted, and soon enough to wait for.
            again = self.settling.keys(_WAIT_WITHIN)
            if again:
                run.commit()
                self.clock.sleep(self.settling.wait)
                due = self.settling.begin()
                run.over([key_span(key) for key in again])
        run.commit(final=True)
        if not run.report and self.source.slack > 0:
            # A write in the same tick as the last one before the listing leaves no trace in the fingerprint.
            # So that tick must be over before anybody is told that what is there now is known.
            self.clock.sleep(self.source.slack)
        self.settling.forget(due)
        self._gaps = [
            gap for gap in self._gaps if not any(gap.span.within(span) for span in spans)
        ] + run.gaps
        if self.watch is not None:
            self.watch.looked(spans)
        self._closed.clear()
        self._todo = []
        if whole:
            # A first look that was resumed did not walk, and so does not watch, what lies before.
            self._whole = self.watch is not None and bool(target.resume_key)
            self._next_full = self._schedule_full()

    def _plan(self, target: Target, due: list[bytes]) -> list[Span]:
        """What to list now; ``due`` are held subjects that may be quiet by now."""
        watch = self.watch
        if watch is None:
            self._whole = True
        else:
            watch.begin()
            hints = watch.drain()
            self._closed |= hints.closed
            if hints.whole or not target.complete or self.clock.monotonic() >= self._next_full:
                self._whole = True
            self._todo += hints.spans
        if self._whole:
            return [Span(_resume(target.resume_key))] if not target.complete else [Span()]
        assert watch is not None
        spans = self._todo + watch.unwatched() + [gap.span for gap in self._gaps]
        spans += [key_span(key) for key in due]
        self._todo = merged(spans)
        return self._todo

    def _schedule_full(self) -> float:
        every = self.options.full_every
        return self.clock.monotonic() + every * (0.5 + random.random())

    # -- what the merge asks -------------------------------------------------

    def hold(self, key: bytes, row: Row) -> bool:
        """Whether a new or changed entry must wait before it is reported."""
        if self.exclude.drops(key):
            return False
        if self.watch is not None and self.watch.busy(key, row, key in self._closed):
            return True
        return not self.settling.quiet(key, row, self.source.changed_ns(row))

    def settled(self, rows: list[Row]) -> bool:
        """Whether all of these are too old to have to wait."""
        return self.settling.settled(self.source.newest_ns(rows))

    def listing(self, spans: list[Span], gaps: list[Gap]) -> Iterator[Chunk | Gap]:
        """What is there now in the spans; what lies between them counts as not seen."""
        end: bytes | None = None
        own = self.exclude.own
        for span in spans:
            if end is not None and end < span.start:
                yield Gap(Span(end, span.start), "")
            scanned = self.source.scan(span)
            # Each look changes the state, and must not find that at the next one.
            for item in _without(own, scanned) if own else scanned:
                if isinstance(item, Gap):
                    item = item.clipped(span)  # noqa: PLW2901 - what a source can't see may reach further
                    gaps.append(item)
                else:
                    self._listed += len(item.names)
                    if self.watch is not None:
                        self.watch.listed()
                    if self._progress is not None:
                        self._progress(self._listed)
                yield item
            end = span.stop

    def remember(self, page: Page) -> None:
        """Keep the content of pages just written: in an inbox, the next file is mostly in the same one."""
        if self.watch is not None and page.segments is not None:
            self.recent.pop(page.digest, None)
            self.recent[page.digest] = page.segments
            if len(self.recent) > _RECENT:
                del self.recent[next(iter(self.recent))]

    def record(self, delta: Delta) -> Record:
        """What the journal keeps of a change."""
        size, mtime_ns, etag = self.source.facts(delta.row)
        return Record(int(delta.kind), delta.key, size, mtime_ns, etag)

    # -- health --------------------------------------------------------------

    def _note(self, looked_at: float | None, took: float) -> None:
        """Write down how the look went; only now and then if nothing but the time changed."""
        health = self.health
        health.gaps = len(self._gaps)
        health.reasons = [gap.reason for gap in self._gaps[:_GAPS_TOLD]]
        health.held = len(self.settling)
        if self.watch is not None:
            health.held += self.watch.held
            health.watches, health.overflows = self.watch.watches, self.watch.overflows
        text = msgspec.json.encode(health).decode()
        now = self.clock.monotonic()
        # A watch that has nothing to tell is asked every few seconds, and each note is a write to the disk.
        every = 1.0 if self.watch is None or self._listed else _NOTE_IDLE_EVERY
        if text != self._noted[0] or (looked_at is not None and now - self._noted[1] > every):
            self.store.look_done(self.target_id, looked_at, took, text)
            self._noted = (text, now)

    # -- waiting -------------------------------------------------------------

    def due(self, interval: float) -> float:
        """In how many seconds the next look is worth while, at most ``interval``."""
        due = [self.settling.due(), None if self.watch is None else self.watch.due()]
        return min([interval, *(seconds + 0.001 for seconds in due if seconds is not None)])

    def wait(self, timeout: float | None) -> bool:
        """Block until there is a hint, :meth:`wake` is called, or the time is over."""
        if self.watch is not None:
            return self.watch.wait(timeout)
        woken = self._woken.wait(timeout)
        self._woken.clear()
        return woken

    def wake(self) -> None:
        """End a :meth:`wait` in another thread."""
        if self.watch is not None:
            self.watch.wake()
        else:
            self._woken.set()

    def close(self) -> None:
        """Stop watching. The state is the caller's to close."""
        with self._lock:
            if self.watch is not None:
                self.watch.close()
            self.source.end()


class _Run:
    """One look under way: what it found, and the generation that it may write to."""

    def __init__(self, engine: Engine, target: Target, identity: str, report: bool) -> None:
        self._engine = engine
        self._identity = identity
        self._generation = target.generation
        self._complete = target.complete
        self._known_identity = target.identity
        self.report = report
        self._found = _Gathered()
        self._at_us = int(engine.clock.wall() * 1e6)
        self.gaps: list[Gap] = []
        self._rules = Rules(
            load=self._load,
            differs=engine.source.differs,
            confirm=self._confirm,
            hold=engine.hold if report or engine.settling.wait > 0 else None,
            report=report,
            metadata=engine.options.target.metadata,
            settled=engine.settled,
            outdated=engine.source.outdated,
        )

    def over(self, spans: list[Span]) -> None:
        """Look at spans that are sorted and disjoint."""
        engine, at = self._engine, 0
        while at < len(spans):
            start = spans[at].start
            found = self._found
            if found.touched is None or start < found.touched:
                self.commit()
            # Spans in one stored page are looked at as one, since they change the same page.
            heads = (PageHead(*head) for head in engine.store.heads(engine.target_id, start, None))
            first = list(islice(heads, 2))
            bound = next((head.first_key for head in first if head.first_key > start), None)
            group = [spans[at]]
            at += 1
            while at < len(spans) and (bound is None or spans[at].start < bound):
                group.append(spans[at])
                at += 1
            self._merge(group, chain(first, heads))

    def _merge(self, group: list[Span], heads: Iterable[PageHead]) -> None:
        engine = self._engine
        span = Span(group[0].start, group[-1].stop)
        listing = engine.listing(group, self.gaps)
        for step in merge(listing, heads, span, self._rules):
            self._gather(step)
            if len(self._found.pages) >= _STEP_PAGES or len(self._found.records) >= _STEP_RECORDS:
                self.commit()

    def _gather(self, step: Step) -> None:
        found, engine = self._found, self._engine
        for key in step.drop:
            found.pages[key] = None
        for page in step.put:
            found.pages[page.first_key] = PageRow(
                page.first_key, page.digest, page.entries, pages.pack(page.raw)
            )
            engine.remember(page)
        drops, record = engine.exclude.drops, engine.record
        found.records += [record(delta) for delta in step.deltas if not drops(delta.key)]
        found.entries += step.entries
        found.upto = found.touched = step.upto

    def _load(self, head: PageHead) -> list[pages.Segment]:
        known = self._engine.recent.get(head.digest)
        if known is not None:
            return known
        raw = pages.unpack(self._engine.store.blob(self._engine.target_id, head.first_key, head.digest))
        return pages.decode(pages.verified(raw, head.digest))

    def _confirm(self, keys: list[bytes]) -> set[bytes]:
        return self._engine.source.absent(keys)

    def commit(self, final: bool = False) -> None:
        """Write what was found so far, in one transaction."""
        found, engine = self._found, self._engine
        completes = final and not self._complete
        if not found.pages and not found.records and not completes and self._identity == self._known_identity:
            return
        if final and not completes and not found.pages and not found.records:
            log.info("the target's identity changed to %s", self._identity)
        engine.source.verify()
        crash_point("look.commit.before")
        committed = engine.store.commit(
            engine.target_id,
            self._generation,
            SnapshotChange(
                drop=[key for key, page in found.pages.items() if page is None],
                put=[page for page in found.pages.values() if page is not None],
                records=found.records,
                detected_at_us=self._at_us,
                entries=found.entries,
                identity=self._identity,
                resume_key=None if final or self._complete else _resume_mark(self.report, found.upto),
                complete=final or self._complete,
            ),
        )
        crash_point("look.commit.after")
        self._generation = committed.generation
        self._known_identity = self._identity
        self._found = _Gathered(upto=found.upto)


def _reports(target: Target, options: Options) -> bool:
    """Whether a first look reports what it finds; one that was begun goes on as it began."""
    if target.resume_key:
        return target.resume_key.startswith(b"r")
    return options.existing == "report" or options.start == "beginning"


def _resume_mark(report: bool, upto: bytes | None) -> bytes:
    return (b"r" if report else b"i") + (upto or b"")


def _resume(mark: bytes | None) -> bytes:
    return mark[1:] if mark else b""


def _without(keys: frozenset[bytes], listing: Iterable[Chunk | Gap]) -> Iterator[Chunk | Gap]:
    """A listing without these keys."""
    for item in listing:
        prefix = item.prefix if isinstance(item, Chunk) else b""
        here = {key[len(prefix) :] for key in keys if key.startswith(prefix)}
        if isinstance(item, Chunk) and not here.isdisjoint(item.names):
            _, names, rows = item
            kept = [at for at, name in enumerate(names) if name not in here]
            if kept:
                yield Chunk(prefix, [names[at] for at in kept], [rows[at] for at in kept])
        else:
            yield item
