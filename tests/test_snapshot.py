"""The merge against a dictionary: whatever changes, is held, missing or unseen, both must say the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller_core import pages
from poller_core.listing import Chunk, Span, key_span, tree_span
from poller_core.snapshot import Rules, merge
from tests.pagemodel import WHOLE, Look, Snapshot, World, differs, never, paged

#: Sizes of pages (new, most, least): small ones split and join all the time.
SMALL = [(4, 8, 2), (4, 8, 0), (5, 9, 5), (1, 2, 1), (3, 4, 2)]

DIRECTORIES = [b"", b"a-/", b"a/", b"a/b/", b"a/b0/", b"a0/", b"b/", b"b/\xff/", b"c/"]
KEYS = sorted(
    directory + name
    for directory in DIRECTORIES
    for name in (b"\x01", b"a", b"a.b", b"b!", b"m", b"x", b"\xfe")
)
#: Where spans and gaps begin and end.
BOUNDS = sorted(
    {*KEYS, *(key + b"\0" for key in KEYS), *DIRECTORIES, *(d[:-1] + b"0" for d in DIRECTORIES if d)}
)


# -- random looks ------------------------------------------------------------


def some_keys() -> st.SearchStrategy[frozenset[bytes]]:
    """None, a few, a run of neighbours, about half, or all keys."""
    last = len(KEYS)
    runs = st.tuples(st.integers(0, last), st.integers(0, last)).map(lambda ends: KEYS[min(ends) : max(ends)])
    masks = st.integers(0, 2**last - 1).map(lambda mask: [key for i, key in enumerate(KEYS) if mask >> i & 1])
    few = st.lists(st.sampled_from(KEYS), max_size=3)
    return st.one_of(st.just([]), few, runs, masks, st.just(KEYS)).map(frozenset)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    kind = draw(st.sampled_from(["whole", "any", "key", "tree", "any"]))
    if kind == "key":
        return key_span(draw(st.sampled_from(KEYS)))
    if kind == "tree":
        return tree_span(draw(st.sampled_from(DIRECTORIES)))
    if kind == "any":
        places = st.sampled_from(KEYS) | st.sampled_from(BOUNDS)
        start, stop = sorted((draw(places), draw(places)))
        return Span(start, draw(st.sampled_from([stop, None])))
    return WHOLE


@st.composite
def gap_lists(draw: st.DrawFn) -> list[Span]:
    if not draw(st.booleans()):
        return []
    edges = sorted(draw(st.sets(st.sampled_from(BOUNDS), min_size=1, max_size=6)))
    gaps = [Span(*pair) for pair in pairwise(edges)][::2]
    if len(edges) % 2:
        gaps.append(Span(edges[-1]))
    if draw(st.booleans()):
        # Two that touch.
        middle = gaps[0].start + b"\0\0"
        gaps[:1] = [Span(gaps[0].start, middle), Span(middle, gaps[0].stop)]
    return [gap for gap in gaps if gap.stop is None or gap.start < gap.stop]


@st.composite
def looks(draw: st.DrawFn, number: int, known: World) -> Look:
    """What became of a known world."""
    gone, written, chmod = draw(some_keys()), draw(some_keys()), draw(some_keys())
    world = {key: row for key, row in known.items() if key not in gone}
    world |= dict.fromkeys(draw(some_keys()), (number, 0))
    world |= dict.fromkeys(written & set(world), (number, 0))
    world |= {key: (world[key][0], number) for key in chmod & set(world)}
    return Look(
        world,
        span=draw(spans()),
        gaps=draw(gap_lists()),
        held=draw(some_keys()) if draw(st.booleans()) else frozenset(),
        unproven=draw(some_keys()) if draw(st.booleans()) else frozenset(),
        report=draw(st.sampled_from([True, True, True, False])),
        metadata=draw(st.booleans()),
        sizes=tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))),
        live=draw(st.booleans()),
    )


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(SMALL), st.sampled_from(["tree", "tree", "flat", "mixed"]))
def test_it_says_what_a_dictionary_would(
    data: st.DataObject, sizes: tuple[int, int, int], style: str
) -> None:
    with paged(sizes):
        stored, alike = Snapshot(), style != "mixed"
        world: World = dict.fromkeys(sorted(data.draw(st.just(frozenset(KEYS)) | some_keys())), (0, 0))
        look = Look(world, tree=style != "flat", report=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            pages_of = st.lists(st.integers(1, sizes[1]), min_size=1, max_size=8)
            stored.fill(world, data.draw(pages_of), tree=look.tree)
        else:
            stored.look(look)
        for number in range(1, data.draw(st.integers(2, 5))):
            look = data.draw(looks(number, look.world))
            look.tree = style == "tree" or (style == "mixed" and data.draw(st.booleans()))
            stored.look(look, alike=alike)
        again = Look(look.world, tree=look.tree, sizes=(3, 1))
        stored.look(again, alike=alike)
        assert stored.look(again) == []
        assert stored.loaded == []


def large_world(seed: random.Random) -> World:
    """Some thousand keys: one directory with very many, some with many, and many with few."""
    counts = [3000, *(seed.randrange(700) for _ in range(4)), *(seed.randrange(4) for _ in range(300))]
    seed.shuffle(counts)
    return {
        b"%s%03d/%05d" % (b"sub/" * (number % 3), number, name): (0, number)
        for number, count in enumerate(counts)
        for name in range(count)
    }


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32))
def test_it_does_so_with_pages_of_real_size(number: int) -> None:
    seed = random.Random(number)
    stored = Snapshot()
    world = large_world(seed)
    stored.look(Look(world, report=seed.random() < 0.5, sizes=(seed.randrange(1, 3000),)))
    for turn in range(1, 4):
        share = seed.choice([0.001, 0.05, 0.9])
        keys = sorted(world)
        at, to = sorted(seed.sample(range(len(keys)), 2))
        gone = {key for key in keys[at:to] if seed.random() < share}
        world = {key: row for key, row in world.items() if key not in gone}
        world |= {key: (turn, 0) for key in world if seed.random() < share / 10}
        world |= {b"%s.%d" % (key, turn): (0, 0) for key in keys if seed.random() < share}
        edges = sorted(seed.sample(keys, 4))
        look = Look(
            world,
            span=seed.choice([WHOLE, WHOLE, Span(edges[0], edges[3]), Span(edges[0])]),
            gaps=[Span(*edges[1:3])] if seed.random() < 0.5 else [],
            held=frozenset(key for key in world if seed.random() < 0.01),
            unproven=frozenset(key for key in gone if seed.random() < 0.01),
            sizes=tuple(seed.randrange(1, 2000) for _ in range(3)),
            live=seed.random() < 0.5,
        )
        stored.look(look)


# -- what a look costs -------------------------------------------------------


def flat_world(count: int) -> World:
    return {b"%08d" % number: (0, 0) for number in range(count)}


def test_what_is_unchanged_is_not_read() -> None:
    stored, world = Snapshot(), flat_world(20_000)
    stored.look(Look(world, sizes=(1000,)))
    assert stored.look(Look(world, sizes=(7, 1999))) == []
    assert stored.loaded == []


def test_a_change_costs_one_page() -> None:
    stored, world = Snapshot(), flat_world(20_000)
    stored.look(Look(world, sizes=(1000,)))
    world[b"00010000"] = (1, 0)
    (step,) = stored.look(Look(world, sizes=(1000,)))
    assert len(stored.loaded) == len(step.put) == 1
    assert step.drop == []
    world[b"00010001"] = (1, 0)
    (step,) = stored.look(Look(world, span=key_span(b"00010001")))
    assert len(stored.loaded) == len(step.put) == 1


def test_a_gap_without_known_keys_costs_nothing() -> None:
    stored, world = Snapshot(), flat_world(2_000)
    stored.look(Look(world, sizes=(1000,)))
    gap = Span(b"00000700.", b"00000700/")
    assert stored.look(Look(world, gaps=[gap], sizes=(1000,))) == []
    assert stored.loaded == []


def test_pages_that_shrink_are_joined() -> None:
    stored, world = Snapshot(), flat_world(20_000)
    stored.look(Look(world, sizes=(1000,)))
    rest = {key: row for number, (key, row) in enumerate(world.items()) if number % 20 == 0}
    stored.look(Look(rest, sizes=(1000,)))
    stored.look(Look(dict.fromkeys(rest, (1, 0)), sizes=(1000,)))
    assert len(stored.pages) <= 1000 / pages.PAGE_MIN + 1


@pytest.mark.parametrize("left", [0, 1, 20])
def test_a_mass_deletion_is_done_in_small_steps(left: int) -> None:
    stored, world = Snapshot(), flat_world(8_000)
    stored.look(Look(world, sizes=(1000,)))
    rest = {key: row for number, (key, row) in enumerate(world.items()) if number % 500 < left}
    steps = stored.look(Look(rest, sizes=(1000,)))
    assert max(len(step.deltas) for step in steps) <= 2 * pages.PAGE_MAX


def test_a_first_look_is_done_in_small_steps() -> None:
    given_out = 0

    def listing() -> Iterator[Chunk]:
        nonlocal given_out
        for number in range(100):
            names = [b"%03d-%03d" % (number, name) for name in range(300)]
            given_out += len(names)
            yield Chunk(b"", names, [(0, 0)] * len(names))

    stored = Snapshot()
    for step in merge(listing(), [], WHOLE, Rules(never, differs, never)):
        stored.apply(step)
        assert given_out - stored.entries <= pages.PAGE_MAX + 300
    assert len(stored.world()) == given_out == 30_000
    full = [stored.pages[key].entries for key in stored.order()[:-1]]
    assert full == [pages.PAGE_ENTRIES] * len(full)
