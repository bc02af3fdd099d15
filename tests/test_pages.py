"""Pages: equal entries give equal bytes, and what is damaged is called damaged."""

from __future__ import annotations

import hashlib
import struct
import threading

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from poller_core import pages
from poller_core.errors import StateDamaged
from poller_core.pages import Segment

NUMBERS = st.integers(-(2**63), 2**64 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.lists(NUMBERS | TEXTS | st.none(), max_size=8).map(tuple)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    names = sorted(draw(st.sets(st.binary(max_size=8), min_size=1, max_size=8)))
    rows = [draw(ROWS) for _ in names]
    return Segment(draw(st.binary(max_size=8)), names, rows)


def a_page(entries: int = 300) -> bytes:
    names = [b"%05d.csv" % number for number in range(entries)]
    rows = [(33188, number, 1, 0, 0, 100, 10**18 + number * 7919, 10**18) for number in range(entries)]
    return pages.encode([Segment(b"dir/", names, rows)])


@given(st.lists(segments(), max_size=4))
def test_entries_come_back(parts: list[Segment]) -> None:
    raw = pages.encode(parts)
    assert pages.unpack(pages.pack(raw)) == raw
    again = pages.decode(raw)
    assert again == parts
    assert all(type(row) is tuple for part in again for row in part.rows)
    assert pages.encode(again) == raw
    assert pages.digest(raw) == hashlib.sha256(raw).digest()
    assert pages.keys(raw) == [part.prefix + name for part in parts for name in part.names]


def test_any_difference_gives_another_digest() -> None:
    page = [Segment(b"d/", [b"a", b"b"], [(1, "x", None), (2, "y", None)])]
    others = [
        [Segment(b"e/", [b"a", b"b"], [(1, "x", None), (2, "y", None)])],
        [Segment(b"d/", [b"a", b"c"], [(1, "x", None), (2, "y", None)])],
        [Segment(b"d/", [b"a", b"b"], [(1, "x", None), (3, "y", None)])],
        [Segment(b"d/", [b"a", b"b"], [(1, "x", None), (2, None, "y")])],
        [Segment(b"d/", [b"a"], [(1, "x", None)])],
        [],
    ]
    digests = {pages.digest(pages.encode(part)) for part in [page, *others]}
    assert len(digests) == len(others) + 1


def test_pages_are_small() -> None:
    assert len(pages.pack(a_page(pages.PAGE_ENTRIES))) < 40 * pages.PAGE_ENTRIES


def test_only_what_has_the_digest_is_verified() -> None:
    raw = a_page(3)
    assert pages.verified(raw, pages.digest(raw)) == raw
    with pytest.raises(StateDamaged, match="'poller check'"):
        pages.verified(raw, pages.digest(a_page(4)))


def test_threads_do_not_disturb_each_other() -> None:
    raws = [a_page(100 + number) for number in range(4)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(100):
            if pages.unpack(pages.pack(raws[number])) != raws[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- damage ------------------------------------------------------------------


def claiming(size: int) -> bytes:
    """A frame whose header claims that much content."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00"


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x28\xb5\x2f",
        b"no zstd at all",
        bytes(1000),
        pages.pack(a_page())[:-1],
        pages.pack(a_page())[:10],
        pages.pack(a_page()) + b"more",
        pages.pack(a_page()) * 2,
        claiming(1 << 62),
        claiming(1 << 40),
        claiming(1 << 20),
        zstandard.ZstdCompressor(write_content_size=False).compress(a_page()),
    ],
    ids=lambda blob: f"{len(blob)} bytes",
)
def test_a_blob_that_is_no_page_is_damage(blob: bytes) -> None:
    with pytest.raises(StateDamaged, match=r"can't be decompressed .*'poller check'"):
        pages.unpack(blob)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x80",
        a_page()[:-1],
        a_page() + b"\0",
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode([(b"", [b"a"])]),
        msgspec.msgpack.encode([("text", [b"a"], [(1,)])]),
        msgspec.msgpack.encode([(b"", ["text"], [(1,)])]),
        msgspec.msgpack.encode([(b"", [b"a"], [1])]),
        msgspec.msgpack.encode([(b"", [b"a", b"b"], [(1,)])]),
        msgspec.msgpack.encode([(b"", [b"a"], [(1,), (2,)])]),
        msgspec.msgpack.encode([(b"", [], [])]),
        b"\x91\x93\xc4\x00\x91\xc4\x01a\x91\x91\xa1\xff",  # a text that is not UTF-8
        b"\x91\x93\xc4\x00\x90\x91\xdd\xff\xff\xff\xff",  # a row that claims four billion values
        b"\x91\x93\xc4\x00\x91\xc4\x01a\x91" + b"\x91" * 100_000 + b"\xc0",  # nested without end
    ],
    ids=lambda raw: f"{len(raw)} bytes",
)
def test_bytes_that_are_no_page_are_damage(raw: bytes) -> None:
    for read in (pages.decode, pages.keys):
        with pytest.raises(StateDamaged, match="'poller check'"):
            read(raw)


@given(st.data())
def test_a_flipped_bit_is_damage_or_changes_the_digest(data: st.DataObject) -> None:
    raw = a_page(40)
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    assert pages.digest(bytes(flipped)) != pages.digest(raw)
    blob = bytearray(pages.pack(raw))
    blob[bit % (8 * len(blob)) // 8] ^= 1 << bit % 8
    for read, damaged in ((pages.decode, bytes(flipped)), (pages.unpack, bytes(blob))):
        try:
            read(damaged)
        except StateDamaged:
            continue


@given(st.binary(max_size=60))
def test_any_bytes_are_a_page_or_damage(raw: bytes) -> None:
    # No other error gets out, whatever the bytes.
    for read in (pages.unpack, pages.decode, pages.keys):
        try:
            read(raw)
        except StateDamaged:
            continue
