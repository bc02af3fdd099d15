"""How a page of the snapshot is written down.

A page is a run of neighbouring entries, a few hundred of them, encoded as
MessagePack in *segments* (the entries under one prefix), compressed with zstd.
Its digest is the SHA-256 of the encoding before compression.

Guarantees: entries that are equal give equal bytes, whichever chunks they came
in, as long as the source splits keys the same way each time; so an equal digest
means "nothing changed" without reading the stored page. What can't be decoded
raises :class:`~poller_core.errors.StateDamaged`.

Not guaranteed: that a page is small. An entry takes the bytes of its name, and
some 45 more before compression.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, TypeAlias

import msgspec
import zstandard

from .errors import StateDamaged
from .listing import Chunk

__all__ = [
    "PAGE_ENTRIES",
    "PAGE_MAX",
    "PAGE_MIN",
    "Segment",
    "decode",
    "digest",
    "encode",
    "keys",
    "pack",
    "unpack",
    "verified",
]

#: Entries that a new page is given; the most it may grow to before it is split;
#: and the number below which it is joined with its neighbour when it is rewritten.
PAGE_ENTRIES = 512
PAGE_MAX = 1024
PAGE_MIN = 128

#: A page of more bytes than this is damaged, or made to exhaust memory.
_MOST_BYTES = 1 << 28

#: Neighbouring entries of a page under one prefix, in the shape in which a listing gives them.
Segment: TypeAlias = Chunk

_Wire: TypeAlias = list[tuple[bytes, list[bytes], list[tuple[Any, ...]]]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


class _Zstd(threading.local):
    # A compressor must not be used from two threads at once, and is not cheap to make.
    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


def encode(segments: list[Segment]) -> bytes:
    """The bytes of a page, not compressed."""
    return _encoder.encode(segments)


def digest(raw: bytes) -> bytes:
    """The SHA-256 of an encoded page, 32 bytes."""
    return hashlib.sha256(raw).digest()


def pack(raw: bytes) -> bytes:
    """Compress an encoded page for the database."""
    return _zstd.compress(raw)


def unpack(blob: bytes) -> bytes:
    """The inverse of :func:`pack`.

    :raises StateDamaged: if it can't be decompressed.
    """
    try:
        # Room is made for the size that the blob claims, so that one is judged first.
        if not 0 <= zstandard.frame_content_size(blob) <= _MOST_BYTES:
            raise zstandard.ZstdError("it claims a size that no page has")
        return _zstd.decompress(blob, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise StateDamaged(
            f"a page of the snapshot can't be decompressed ({error}); run 'poller check'"
        ) from error


def verified(raw: bytes, expected: bytes) -> bytes:
    """The bytes of a page, if they are those of this digest.

    :raises StateDamaged: if they are not. A flipped bit can decode well, and would be taken for a change.
    """
    if digest(raw) != expected:
        raise StateDamaged("a page of the snapshot does not match its digest; run 'poller check'")
    return raw


def decode(raw: bytes) -> list[Segment]:
    """The inverse of :func:`encode`.

    :raises StateDamaged: if these are not the bytes of a page.
    """
    try:
        segments = [Segment(*part) for part in _decoder.decode(raw)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateDamaged(
            f"a page of the snapshot can't be decoded ({error}); run 'poller check'"
        ) from error
    if not all(part.names and len(part.names) == len(part.rows) for part in segments):
        raise StateDamaged("a page of the snapshot has names without fingerprints; run 'poller check'")
    return segments


def keys(raw: bytes) -> list[bytes]:
    """The keys of an encoded page, as they stand there.

    :raises StateDamaged: as for :func:`decode`.
    """
    return [prefix + name for prefix, names, _ in decode(raw) for name in names]
