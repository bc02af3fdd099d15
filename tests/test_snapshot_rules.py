"""Single rules of the merge, and listings that break them."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller_core import pages
from poller_core.errors import PollerError, StateDamaged
from poller_core.listing import Chunk, Entry, Gap, Row, Span, chunks_of, key_span, tree_span
from poller_core.snapshot import Rules, Step, merge
from tests.pagemodel import WHOLE, Look, Snapshot, differs, never, paged

KEYS = [b"%c%d" % (letter, digit) for letter in b"abcdef" for digit in range(5)]


def test_nothing_comes_of_nothing() -> None:
    stored = Snapshot()
    assert stored.look(Look({})) == []
    assert stored.look(Look({}, gaps=[WHOLE])) == []


def test_a_baseline_asks_what_to_hold_and_takes_it_all_the_same() -> None:
    asked = []

    def hold(key: bytes, row: Row) -> bool:
        asked.append((key, row))
        return True

    chunk = Chunk(b"d/", [b"a", b"b"], [(1, 0), (2, 0)])
    rules = Rules(never, differs, never, hold, report=False)
    (step,) = merge([chunk], [], WHOLE, rules)
    assert step.deltas == []
    assert step.entries == 2
    assert asked == [(b"d/a", (1, 0)), (b"d/b", (2, 0))]


@pytest.mark.parametrize(("report", "settled"), [(False, True), (False, False), (True, True)])
def test_a_baseline_of_settled_rows_asks_nothing(report: bool, settled: bool) -> None:
    asked: list[bytes] = []
    judged: list[Row] = []

    def hold(key: bytes, row: Row) -> bool:
        asked.append(key)
        return False

    def all_settled(rows: list[Row]) -> bool:
        judged.extend(rows)
        return settled

    chunks = [Chunk(b"d/", [b"a", b"b"], [(1, 0), (2, 0)])]
    (step,) = merge(chunks, [], WHOLE, Rules(never, differs, never, hold, report, settled=all_settled))
    assert step.entries == 2
    assert asked == ([] if settled and not report else [b"d/a", b"d/b"])
    assert judged == ([] if report else [(1, 0), (2, 0)])


@pytest.mark.parametrize("wrong", [b"b1\0", b"c1", b"a1\0"])
@pytest.mark.parametrize("least", [0, 2])
def test_a_page_under_a_wrong_key_is_damage(wrong: bytes, least: int) -> None:
    stored, world = Snapshot(), dict.fromkeys((b"a1", b"a2", b"b1", b"b2", b"c2", b"c3"), (0, 0))
    stored.fill(world, [2])
    # Its digest is right all the same: that one does not tell where the page belongs.
    stored.pages[wrong] = stored.pages.pop(b"b1")._replace(first_key=wrong)
    rules = Rules(lambda head: pages.decode(stored.pages[head.first_key].raw), differs, never)
    listing = [Chunk(b"", sorted(world), [(0, 0)] * len(world))]
    with paged((4, 8, least)), pytest.raises(StateDamaged, match="holds keys of another"):
        deque(merge(listing, stored.heads(WHOLE), WHOLE, rules))


def test_a_small_page_that_is_seen_in_part_is_written_alone() -> None:
    with paged((4, 8, 2)):
        stored, world = Snapshot(), dict.fromkeys((b"a1", b"a2", b"b1"), (0, 0))
        stored.fill(world, [2, 1])
        world[b"a1"] = (1, 0)
        stored.look(Look(world, span=key_span(b"a1")))
    assert stored.loaded == [b"a1"]


def test_a_region_closed_in_parts_gets_a_last_step() -> None:
    # The new keys fill the part that is closed; the rest is as it was, yet it moved to a page of its own.
    with paged((4, 8, 2)):
        stored = Snapshot()
        world = {b"m%d" % number: (0, 0) for number in range(6)}
        stored.look(Look(world))
        world |= {b"a%d" % number: (0, 0) for number in range(4)}
        steps = stored.look(Look(world, sizes=(20,)))
    assert [step.upto for step in steps] == [b"m0", None]
    assert steps[-1] == Step([], [], [], 0, None)


def test_what_was_left_over_goes_if_all_of_it_is_gone() -> None:
    with paged((4, 8, 2)):
        stored = Snapshot()
        stored.look(Look({b"x%d" % number: (0, 0) for number in range(8)}))
        world = {b"m%d" % number: (0, 0) for number in range(9)}
        stored.look(Look(world, held=frozenset(sorted(world)[4:]), sizes=(20,)))
        assert len(stored.pages) == 1


def test_a_page_that_ends_with_the_span_is_joined_and_written() -> None:
    with paged((4, 8, 2)):
        stored, world = Snapshot(), dict.fromkeys((b"a1", b"a2", b"b1"), (0, 0))
        stored.fill(world, [2, 1])
        del world[b"a1"]
        stored.look(Look(world, span=Span(b"", b"b1")))
        assert list(stored.pages) == [b"a1"]


def test_a_page_behind_the_span_is_not_read() -> None:
    stored, world = Snapshot(), dict.fromkeys((b"a", b"b", b"c"), (0, 0))
    stored.fill(world, [1])
    world[b"a"] = (1, 0)
    with paged((4, 8, 0)):
        stored.look(Look(world, span=Span(b"", b"b")))
    assert stored.loaded == [b"a"]


# -- listings that break the rules -------------------------------------------


def names(*keys: bytes) -> Chunk:
    return Chunk(b"", list(keys), [(9, 9)] * len(keys))


BAD = {
    "within a chunk": [names(b"a", b"c", b"b", b"d")],
    "first and last swapped": [names(b"d", b"b", b"a")],
    "twice in a chunk": [names(b"a", b"b", b"b")],
    "between chunks": [names(b"a", b"c"), names(b"b")],
    "twice in two chunks": [names(b"a", b"b"), names(b"b", b"c")],
    "twice, cut in two ways": [names(b"a/x"), Chunk(b"a/", [b"x"], [(9, 9)])],
    "under two prefixes": [Chunk(b"b/", [b"x"], [(9, 9)]), Chunk(b"a/", [b"x"], [(9, 9)])],
    "a gap behind its place": [names(b"a", b"c"), Gap(Span(b"b", b"d"), "")],
    "gaps that overlap": [Gap(Span(b"b", b"d"), ""), Gap(Span(b"c", b"e"), "")],
    "in a gap": [Gap(Span(b"b", b"d"), ""), names(b"c")],
}


@pytest.mark.parametrize("listing", BAD.values(), ids=BAD)
@pytest.mark.parametrize("known", [[], [b"a", b"b", b"c", b"d"], [b"bb"], [b"b"], [b"c"]], ids=repr)
@pytest.mark.parametrize("sizes", [(1, 1, 0), (4, 8, 2)])
@pytest.mark.parametrize("report", [True, False])
def test_a_listing_out_of_order_raises(
    listing: list[Chunk | Gap], known: list[bytes], report: bool, sizes: tuple[int, int, int]
) -> None:
    with paged(sizes):
        stored = Snapshot()
        stored.look(Look(dict.fromkeys(known, (0, 0))))
        rules = Rules(
            lambda head: pages.decode(stored.pages[head.first_key].raw), differs, set, report=report
        )
        copies = [
            item if isinstance(item, Gap) else Chunk(item[0], item[1][:], item[2][:]) for item in listing
        ]
        steps = merge(copies, list(stored.heads(WHOLE)), WHOLE, rules)
        with pytest.raises(PollerError, match="not sorted"):
            deque(map(stored.apply, steps))
        stored.world()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(KEYS), min_size=2, max_size=30), st.data())
def test_a_listing_in_any_wrong_order_raises(keys: list[bytes], data: st.DataObject) -> None:
    with paged((4, 8, 2)):
        stored = Snapshot()
        stored.look(Look(dict.fromkeys(data.draw(st.sets(st.sampled_from(KEYS))), (0, 0))))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(keys) - 1))))
        chunks = [names(*keys[at:to]) for at, to in pairwise([0, *cuts, len(keys)])]
        rules = Rules(lambda head: pages.decode(stored.pages[head.first_key].raw), differs, set)
        try:
            for step in merge(chunks, list(stored.heads(WHOLE)), WHOLE, rules):
                stored.apply(step)
        except PollerError:
            assert keys != sorted(set(keys))
            stored.world()
        else:
            assert keys == sorted(set(keys))
            assert list(stored.world()) == keys


@pytest.mark.parametrize("key", [b"a", b"c", b"c\0"])
def test_a_key_outside_of_the_span_raises(key: bytes) -> None:
    with pytest.raises(PollerError, match=r"not sorted|span ends"):
        list(merge([names(key)], [], Span(b"b", b"c"), Rules(never, differs, never)))


def test_a_chunk_must_have_a_fingerprint_for_each_name() -> None:
    with pytest.raises(PollerError, match="2 names but 1 fingerprints"):
        list(merge([Chunk(b"", [b"a", b"b"], [(0,)])], [], WHOLE, Rules(never, differs, never)))


def test_a_gap_may_reach_beyond_the_span() -> None:
    stored = Snapshot()
    world = dict.fromkeys((b"a/1", b"a/2", b"a/3"), (0, 0))
    stored.look(Look(world))
    everywhere = [tree_span(b"a/")]
    assert stored.look(Look({}, span=key_span(b"a/2"), gaps=everywhere)) == []
    assert stored.loaded == []


def test_single_entries_are_gathered_into_chunks() -> None:
    gap = Gap(Span(b"b", b"c"), "can't be read")
    entries: list[Entry | Gap] = [
        Entry(b"a1", (1,)),
        Entry(b"a2", (2,)),
        Entry(b"a3", (3,)),
        gap,
        Entry(b"d", (4,)),
    ]
    assert list(chunks_of(entries, 2)) == [
        Chunk(b"", [b"a1", b"a2"], [(1,), (2,)]),
        Chunk(b"", [b"a3"], [(3,)]),
        gap,
        Chunk(b"", [b"d"], [(4,)]),
    ]
