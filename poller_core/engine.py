"""One target in one process: when to look, and where.

An :class:`Engine` has a target's source, its watch and its part of the state.
All pollers and consumers of a target in a process share it. What a look does
with what it lists is in :mod:`poller_core.look`.

Guarantees:

* **One writer.** A look that finds that another process has written since it
  began is repeated.
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

import msgspec

from .clock import Clock
from .errors import StateError, TargetError, WriteConflict
from .filters import Exclude
from .listing import Chunk, Gap, Row, Source, Span, Watch, key_span, merged
from .look import Look, reports, resume_at
from .options import Options
from .pages import Segment
from .quiet import Settling
from .state import Store, Target

__all__ = ["Engine", "Health", "Progress"]

log = logging.getLogger("poller_core")

#: Called now and then during a look with the number of entries listed so far.
Progress = Callable[[int], None]

#: A subject that will be quiet within so many seconds is waited for, within the look.
_WAIT_WITHIN = 0.05
#: How often a look is repeated when another process was faster.
_TRIES = 20
#: How many gaps are told one by one.
_GAPS_TOLD = 100
#: How many of them the log is told at a time.
_GAPS_LOGGED = 5
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
        self._origin = clock.origin()
        self._recalled = False  # whether what earlier processes saw was taken over
        self._left = False  # whether there is anything of it in the state
        self._whole = True
        self._todo: list[Span] = []
        self._closed: set[bytes] = set()
        self._gaps: list[Gap] = []
        self._gaps_said: frozenset[str] = frozenset()  # the reasons that the log was told
        self._next_full = self._schedule_full()
        self._noted = ("", float("-inf"))  # the health last written, and when
        self._pruned = float("-inf")  # when the journal was, monotonic
        self._listed = 0
        self._progress: Progress | None = None
        self._woken = threading.Event()
        # By digest: whichever page it is the digest of, that is its content. Hints lead to one page often.
        self._recent: dict[bytes, list[Segment]] | None = None if watch is None else {}

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
                self._recall()
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
        report = target.complete or reports(target, self.options)
        look = Look(
            self.store,
            self.source,
            self.exclude,
            target,
            identity,
            listing=self.listing,
            hold=self.hold if report or self.settling.wait > 0 else None,
            settled=self.settled,
            report=report,
            metadata=self.options.target.metadata,
            recent=self._recent,
            now=self.clock.wall(),
        )
        look.over(spans)
        if 0 < self.settling.wait <= _WAIT_WITHIN:
            # Just written: too near for its fingerprint to be trusted, and soon enough to wait for.
            again = self.settling.keys(_WAIT_WITHIN)
            if again:
                look.commit()
                self.clock.sleep(self.settling.wait)
                due = self.settling.begin(again=True)
                look.over([key_span(key) for key in again])
        look.commit(final=True)
        if not report:
            log.info(
                "%s: first look done: what is there counts as known, and is not reported (existing='report' "
                "would); %d entries",
                target.url,
                self._listed,
            )
        if not report and self.source.slack > 0:
            # A write in the same tick as the last one before the listing leaves no trace in the fingerprint.
            # So that tick must be over before anybody is told that what is there now is known.
            self.clock.sleep(self.source.slack)
        self.settling.forget(due, whole, [gap.span for gap in look.gaps])
        self._gaps = [
            gap for gap in self._gaps if not any(gap.span.within(span) for span in spans)
        ] + look.gaps
        self._tell_gaps(target.url)
        if self.watch is not None:
            self.watch.looked(spans)
        self._closed.clear()
        self._todo = []
        if whole:
            # A first look that was resumed did not walk, and so does not watch, what lies before.
            self._whole = self.watch is not None and bool(target.resume_key)
            self._next_full = self._schedule_full()

    def _recall(self) -> None:
        """Once: go on from what an earlier process held, so that looking once a process is enough."""
        if self._recalled or self._origin is None:
            return
        offset, observed = self.store.observations.load(self.target_id, self._origin)
        self.settling.recall(offset, observed)
        self._recalled, self._left = True, bool(observed)

    def _leave(self) -> None:
        """Leave what is held to the next process; without it, subjects are held for longer, no more."""
        if not self._recalled or self._origin is None or self.store.private:
            return
        observed = self.settling.observed()
        if observed or self._left:
            with contextlib.suppress(StateError):
                self.store.observations.save(
                    self.target_id, self._origin, self.settling.offset, observed, self.clock.wall()
                )

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
            return [Span(resume_at(target.resume_key))] if not target.complete else [Span()]
        assert watch is not None
        spans = self._todo + watch.unwatched() + [gap.span for gap in self._gaps]
        spans += [key_span(key) for key in due]
        self._todo = merged(spans)
        return self._todo

    def _schedule_full(self) -> float:
        every = self.options.full_every
        return self.clock.monotonic() + every * (0.5 + random.random())

    # -- what a look asks ----------------------------------------------------

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

    # -- health --------------------------------------------------------------

    def _tell_gaps(self, url: str) -> None:
        """Tell the log what can't be listed, once for each reason, and when there is none any more."""
        reasons = frozenset(gap.reason for gap in self._gaps)
        said, self._gaps_said = self._gaps_said, reasons
        new = sorted(reasons - said)
        if said and not reasons:
            log.warning("%s: all of it can be listed again", url)
        elif new:
            more = f"; and {len(new) - _GAPS_LOGGED} more" if len(new) > _GAPS_LOGGED else ""
            log.warning(
                "%s: %d part(s) can't be listed; what is in them is not reported, nor taken for deleted: %s",
                url,
                len(self._gaps),
                "; ".join(new[:_GAPS_LOGGED]) + more,
            )

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
            self._leave()


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
