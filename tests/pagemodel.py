"""A snapshot kept as the state keeps it, and a dictionary that tells what the merge must make of it.

:meth:`Snapshot.look` runs :func:`poller_core.snapshot.merge` and compares it with
:meth:`Look.expected` after every single step; the tests say what is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, pairwise, zip_longest
from typing import Any
from unittest.mock import patch

from poller_core import pages, snapshot
from poller_core.listing import Change, Chunk, Gap, Kind, Row, Span
from poller_core.snapshot import Delta, Page, PageHead, Rules, Step, merge

World = dict[bytes, Row]

WHOLE = Span()


def paged(sizes: tuple[int, int, int]) -> ExitStack:
    stack = ExitStack()
    for name, value in zip(("PAGE_ENTRIES", "PAGE_MAX", "PAGE_MIN"), sizes, strict=True):
        stack.enter_context(patch.object(snapshot, name, value))
    return stack


def differs(old: Row, new: Row) -> Change:
    return Change.content if old[0] != new[0] else Change.metadata


def split_key(key: bytes, tree: bool) -> tuple[bytes, bytes]:
    at = key.rfind(b"/") + 1 if tree else 0
    return key[:at], key[at:]


@dataclass
class Look:
    """What there is, and under which circumstances it is looked at."""

    world: World
    span: Span = WHOLE
    gaps: list[Span] = field(default_factory=list)  # sorted, disjoint
    held: frozenset[bytes] = frozenset()
    unproven: frozenset[bytes] = frozenset()
    report: bool = True
    metadata: bool = False
    tree: bool = True  # chunks have the directory as their prefix
    sizes: tuple[int, ...] = (5,)
    live: bool = False  # the stored pages are read as the merge goes on, not beforehand

    def seen(self, key: bytes) -> bool:
        return self.span.holds(key) and not any(gap.holds(key) for gap in self.gaps)

    def listing(self) -> Iterator[Chunk | Gap]:
        sizes = cycle(self.sizes)
        gaps = list(self.gaps)
        chunk: list[tuple[bytes, bytes, Row]] = []
        room = next(sizes)

        def flush() -> Iterator[Chunk]:
            nonlocal room
            if chunk:
                yield Chunk(chunk[0][0], [name for _, name, _ in chunk], [row for _, _, row in chunk])
                chunk.clear()
                room = next(sizes)

        for key in sorted(filter(self.seen, self.world)):
            while gaps and gaps[0].start <= key:
                yield from flush()
                yield Gap(gaps.pop(0), "can't be read")
            prefix, name = split_key(key, self.tree)
            if len(chunk) >= room or (chunk and chunk[0][0] != prefix):
                yield from flush()
            chunk.append((prefix, name, self.world[key]))
        yield from flush()
        yield from (Gap(gap, "can't be read") for gap in gaps)

    def expected(self, known: World) -> tuple[World, list[Delta]]:
        """What is known afterwards, and the changes: told key by key, without any pages."""
        after, deltas = dict(known), []
        for key in sorted({*known, *self.world}):
            if not self.seen(key) or known.get(key) == self.world.get(key):
                continue
            if key not in self.world:
                if key in self.unproven:
                    continue
                kind, row = Kind.deleted, after.pop(key)
            else:
                row = self.world[key]
                kind = Kind.modified if key in known else Kind.created
                silent = kind is Kind.modified and row[0] == known[key][0] and not self.metadata
                if self.report and not silent and key in self.held:
                    continue
                after[key] = row
                if silent:
                    continue
            if self.report:
                deltas.append(Delta(key, kind, row))
        return after, deltas


class Snapshot:
    """The stored pages, kept as the state would."""

    def __init__(self) -> None:
        self.pages: dict[bytes, Page] = {}
        self.entries = 0
        self.loaded: list[bytes] = []

    def apply(self, step: Step) -> None:
        for key in step.drop:
            del self.pages[key]
        for page in step.put:
            self.pages[page.first_key] = page
        self.entries += step.entries

    def fill(self, world: World, sizes: Iterable[int], *, tree: bool = True) -> None:
        """Store a world in pages of these sizes, over and over, as a long history may leave them."""
        keys = sorted(world)
        for size in cycle(sizes):
            if not keys:
                break
            part = Look({key: world[key] for key in keys[:size]}, tree=tree, sizes=(size,))
            raw = pages.encode([item for item in part.listing() if isinstance(item, Chunk)])
            self.pages[keys[0]] = Page(keys[0], pages.digest(raw), len(part.world), raw)
            del keys[:size]
        self.entries = len(world)

    def order(self) -> list[bytes]:
        return sorted(self.pages)

    def ranges(self) -> dict[bytes, Span]:
        order = self.order()
        return {lo: Span(lo, hi) for lo, hi in zip_longest(order, order[1:])}

    def world(self) -> World:
        """What is stored, after a check that every page is as it must be."""
        world: World = {}
        for lo, span in self.ranges().items():
            page = self.pages[lo]
            segments = pages.decode(page.raw)
            keys = pages.keys(page.raw)
            assert page.first_key == lo
            assert page.digest == pages.digest(page.raw)
            assert page.entries == len(keys)
            assert 0 < len(keys) <= vars(snapshot)["PAGE_MAX"]
            assert all(map(span.holds, keys))
            assert all(one < other for one, other in pairwise(keys))
            assert all(a.prefix != b.prefix for a, b in pairwise(segments))
            world.update(zip(keys, (row for part in segments for row in part.rows), strict=True))
        assert self.entries == len(world)
        return world

    def head(self, lo: bytes) -> PageHead:
        return PageHead(*self.pages[lo][:3])

    def heads(self, span: Span) -> Iterator[PageHead]:
        """From the page that holds the start of the span to the one that holds its end; read one by one."""
        order = self.order()
        at = order[max(bisect_right(order, span.start) - 1, 0)] if order else None
        while at is not None and (span.stop is None or at < span.stop or at <= span.start):
            yield self.head(at)
            at = min((lo for lo in self.pages if lo > at), default=None)

    def look(self, look: Look, *, alike: bool = True) -> list[Step]:
        """Merge, and compare with the model after every step.

        :param alike: whether the stored keys were cut into prefix and name as they are now.
        """
        before, ranges, originals = self.world(), self.ranges(), dict(self.pages)
        expected, deltas = look.expected(before)
        self.loaded = []
        asked: list[bytes] = []

        def load(head: PageHead) -> list[pages.Segment]:
            # A step may be written at once or much later: either way the page must be there to be read.
            assert head == self.head(head.first_key) == PageHead(*originals[head.first_key][:3])
            self.loaded.append(head.first_key)
            return pages.decode(self.pages[head.first_key].raw)

        def hold(key: bytes, row: Row) -> bool:
            assert look.world[key] == row != before.get(key)
            asked.append(key)
            return key in look.held

        def confirm(keys: list[bytes]) -> set[bytes]:
            assert keys
            assert all(look.seen(key) and key in before and key not in look.world for key in keys)
            asked.extend(keys)
            return set(keys) - look.unproven

        rules = Rules(load, differs, confirm, hold if look.held else None, look.report, look.metadata)
        heads: Iterable[PageHead] = self.heads(look.span if look.live else Span(look.span.start))
        if not look.live:
            heads = list(heads)
        steps: list[Step] = []
        done: bytes | None = b""
        for step in merge(look.listing(), heads, look.span, rules):
            assert done is not None
            assert step.upto is None or step.upto > done
            assert all(done <= delta.key and Span(b"", step.upto).holds(delta.key) for delta in step.deltas)
            assert not {page.first_key for page in step.put} & set(step.drop)
            assert all(page != self.pages.get(page.first_key) for page in step.put)
            self.apply(step)
            steps.append(step)
            done = step.upto
            new = Span(b"", done)
            mixed = {key: row for key, row in before.items() if not new.holds(key)}
            assert self.world() == mixed | {key: row for key, row in expected.items() if new.holds(key)}
        assert self.world() == expected
        assert [delta for step in steps for delta in step.deltas] == deltas
        assert len(asked) == len(set(asked))
        if done is not None:
            # Another merge that starts behind the last step meets no page that this one has changed.
            changed = {page.first_key for step in steps for page in step.put} & set(self.pages)
            for stop in (self.ranges()[key].stop for key in changed):
                assert stop is not None
                assert stop <= done
        if alike:
            self.check_loads(look, before, ranges)
        return steps

    def check_loads(self, look: Look, before: World, ranges: dict[bytes, Span]) -> None:
        """A page is read, once, if it differs, was seen in part, or is joined with the one before it."""
        assert len(self.loaded) == len(set(self.loaded))
        edges = {edge for span in (look.span, *look.gaps) for edge in span if edge is not None}
        order = list(ranges)
        for index, (lo, span) in enumerate(ranges.items()):
            if lo not in self.loaded or any(span.holds(edge) and edge != lo for edge in edges):
                continue
            seen = [key for key in {*before, *look.world} if span.holds(key) and look.seen(key)]
            if all(before.get(key) == look.world.get(key) for key in seen):
                assert vars(snapshot)["PAGE_MIN"] > 0
                assert order[index - 1] in self.loaded if index else any(key < lo for key in look.world)


def never(_: object) -> Any:
    """For a rule that must not be asked."""
    raise AssertionError("there was nothing to ask")
