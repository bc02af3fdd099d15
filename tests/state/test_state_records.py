"""The journal's codec and the event ids."""

from __future__ import annotations

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from poller_core.errors import StateDamaged
from poller_core.state import Record, event_id, parse_event_id
from poller_core.state.records import decode_batch, encode_batch, row_digest
from tests.state.helpers import some

sizes = st.none() | st.integers(0, 2**63 - 1)
#: Differences between neighbouring times have to fit as well, which 580 years do.
times = st.none() | st.integers(-(2**62), 2**62)
one = st.builds(
    Record, st.sampled_from([1, 2, 3]), st.binary(max_size=40), sizes, times, st.none() | st.text()
)


@given(st.lists(one, min_size=1, max_size=30))
def test_what_is_written_is_read(batch: list[Record]) -> None:
    assert decode_batch(encode_batch(batch)) == batch


def test_small() -> None:
    assert len(encode_batch(some(1000))) < 10_000


def _packed(value: object) -> bytes:
    return zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"garbage",
        encode_batch(some(3))[:-1],
        zstandard.ZstdCompressor().compress(b"garbage"),
        _packed([9, b"\1", [b"a"], None, None, None]),
        _packed([1, b"\1", [b"a"], [1, 2], None, None]),
        _packed([1, b"\1\1", [b"a"], None, None, None]),
        _packed([1, b"\1", [b"a"], ["x"], None, None]),
        _packed([1, b"\1", [b"a"], None, None]),
    ],
)
def test_what_is_no_batch(blob: bytes) -> None:
    with pytest.raises(StateDamaged):
        decode_batch(blob)


def test_digest_covers_numbers_and_time() -> None:
    blob = encode_batch(some(2))
    digests = {
        row_digest(1, 2, 5, blob),
        row_digest(2, 3, 5, blob),
        row_digest(1, 2, 6, blob),
        row_digest(1, 2, 5, blob[:-1]),
    }
    assert len(digests) == 4


def test_event_id_is_stable_and_of_all_fields() -> None:
    record = Record(1, b"a/b", 7, 8, "e")
    # Ids are in other people's databases: this one must never change.
    assert event_id("0123456789abcdef", 12, record) == "12-6e5af86cd855d92d"
    others = [
        event_id("0123456789abcdee", 12, record),
        event_id("0123456789abcdef", 13, record),
        *(
            event_id("0123456789abcdef", 12, other)
            for other in (
                record._replace(kind=2),
                record._replace(key=b"a/c"),
                record._replace(size=8),
                record._replace(mtime_ns=7),
                record._replace(etag=None),
                Record(1, b"a/b", 8, 7, "e"),
            )
        ),
    ]
    assert len({event_id("0123456789abcdef", 12, record), *others}) == len(others) + 1


@given(st.integers(1, 2**63 - 1), one)
def test_event_id_is_read(seq: int, record: Record) -> None:
    assert parse_event_id(event_id("e", seq, record)) == seq


@pytest.mark.parametrize(
    "text",
    [
        "", "12", "12-", "0-0123456789abcdef", "012-0123456789abcdef", "-1-0123456789abcdef",
        "9223372036854775808-0123456789abcdef", "12-0123456789ABCDEF", "12-0123456789abcdef\n",
        "١٢-0123456789abcdef", "12-0123456789abcde", "99999999999999999999999-0123456789abcdef",
    ],
)  # fmt: skip
def test_what_is_no_event_id(text: str) -> None:
    assert parse_event_id(text) is None
