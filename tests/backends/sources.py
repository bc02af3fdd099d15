"""Files to list, and a source that lists them."""

from __future__ import annotations

import os
from pathlib import Path

from poller_core.backends.file import FileSource
from poller_core.listing import Chunk, Row, Span, key_span

__all__ = ["ALL", "keys", "look", "make", "row_of"]

ALL = Span()


def make(root: Path, *paths: str | bytes) -> None:
    """Make empty files, and directories, which end in ``/``."""
    for path in paths:
        full = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if not full.endswith(b"/"):
            os.close(os.open(full, os.O_CREAT | os.O_WRONLY, 0o644))


def keys(source: FileSource, span: Span = ALL) -> list[bytes]:
    found = []
    for item in source.scan(span):
        assert isinstance(item, Chunk)
        found += [item.prefix + name for name in item.names]
    return found


def look(source: FileSource, known: str | None = None) -> tuple[str, list[bytes]]:
    before = set(os.listdir("/proc/self/fd"))
    identity = source.begin(known)
    try:
        found = keys(source)
        source.verify()
    finally:
        source.close()
    assert set(os.listdir("/proc/self/fd")) == before
    return identity, found


def row_of(source: FileSource, key: bytes) -> Row:
    source.begin(None)
    (chunk,) = source.scan(key_span(key))
    assert isinstance(chunk, Chunk)
    source.close()
    return chunk.rows[0]
