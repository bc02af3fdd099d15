"""What the journal holds, and how it is written down.

A journal row is one batch of events with consecutive sequence numbers. The
batch is kept column by column (kinds, keys, sizes, times, ETags) as
MessagePack, compressed with zstd: five to ten bytes an event.

Guarantees: decoding gives back exactly what was encoded, and bytes that are
not a batch raise :class:`~poller_core.errors.StateDamaged`. An event id depends
on the target's epoch, the sequence number and every field of the record, so two
different events have different ids, also after a state was made anew.

Does not guarantee: that bytes were not altered in a way that still decodes;
:func:`row_digest` is for that.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import msgspec
import zstandard

from ..errors import StateDamaged

__all__ = ["Numbered", "Record", "decode_batch", "encode_batch", "event_id", "parse_event_id", "row_digest"]

_FORMAT = 1
_LARGEST = 2**63 - 1
_ID = re.compile(r"([1-9][0-9]{0,18})-[0-9a-f]{16}", re.ASCII)


class Record(NamedTuple):
    """One change, as the journal keeps it."""

    kind: int  #: a :class:`~poller_core.listing.Kind`
    key: bytes
    size: int | None = None  #: bytes
    mtime_ns: int | None = None  #: nanoseconds since 1970-01-01 UTC
    etag: str | None = None


class Numbered(NamedTuple):
    """A change with its place in the journal."""

    seq: int  #: counts from 1, per target
    detected_at_us: int  #: when the look that found it was stored, microseconds since 1970-01-01 UTC
    record: Record


class _Columns(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    format: int
    kinds: bytes
    keys: list[bytes]
    sizes: list[int | None] | None  #: None: no record has one
    mtimes: list[int | None] | None  #: each as the difference to the one before
    etags: list[str | None] | None


class _Tools(threading.local):
    """zstd's objects may not be used by two threads at once, and are dear to make."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_tools = _Tools()
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Columns)


def encode_batch(records: Sequence[Record]) -> bytes:
    """Write down one batch, which is not empty."""
    kinds, keys, sizes, mtimes, etags = zip(*records, strict=True)
    columns = (
        _FORMAT,
        bytes(kinds),
        keys,
        None if _all_none(sizes) else sizes,
        None if _all_none(mtimes) else _differences(mtimes),
        None if _all_none(etags) else etags,
    )
    return _tools.compress(_encoder.encode(columns))


def decode_batch(blob: bytes) -> list[Record]:
    """Read a batch.

    :raises StateDamaged: if the bytes are not a batch.
    """
    try:
        columns = _decoder.decode(_tools.decompress(blob))
        if columns.format != _FORMAT:
            raise StateDamaged(f"a journal row has the unknown format {columns.format}")
        if len(columns.kinds) != len(columns.keys):
            raise StateDamaged("a journal row has columns of different lengths")
        return list(
            map(
                Record,
                columns.kinds,
                columns.keys,
                *(
                    _column(values, columns)
                    for values in (columns.sizes, _sums(columns.mtimes), columns.etags)
                ),
            )
        )
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateDamaged(f"a journal row can't be decoded: {error}") from error


def row_digest(first_seq: int, last_seq: int, detected_at_us: int, blob: bytes) -> bytes:
    """The digest that is kept with a journal row: of its batch, its numbers and its time."""
    head = struct.pack(">qqq", first_seq, last_seq, detected_at_us)
    return hashlib.blake2b(head + blob, digest_size=16).digest()


def event_id(epoch: str, seq: int, record: Record) -> str:
    """The id of an event: the same for ever, and never another event's.

    :param epoch: the target's, see :class:`~poller_core.state.Target`.
    """
    # MessagePack says where each value ends, so no two lists of values have the same bytes.
    fields = _encoder.encode((epoch, seq, *record))
    return f"{seq}-{hashlib.blake2b(fields, digest_size=8).hexdigest()}"


def parse_event_id(id: str) -> int | None:
    """The sequence number in an event id, or None if the text is no event id."""
    found = _ID.fullmatch(id)
    seq = int(found[1]) if found else 0
    return seq if 0 < seq <= _LARGEST else None


def _all_none(values: Sequence[object]) -> bool:
    return values.count(None) == len(values)


def _differences(values: Iterable[int | None]) -> list[int | None]:
    last = 0
    result: list[int | None] = []
    for value in values:
        if value is None:
            result.append(None)
        else:
            result.append(value - last)
            last = value
    return result


def _sums(values: list[int | None] | None) -> list[int | None] | None:
    if values is None:
        return None
    last = 0
    result: list[int | None] = []
    for value in values:
        if value is None:
            result.append(None)
        else:
            last += value
            result.append(last)
    return result


def _column(values: Sequence[object] | None, columns: _Columns) -> Iterable[object]:
    if values is None:
        return repeat(None)
    if len(values) != len(columns.keys):
        raise StateDamaged("a journal row has columns of different lengths")
    return values
