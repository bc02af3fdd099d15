"""The rows of a container's listing, and what they say.

A row of the snapshot is ``(ETag, size, last modified)``, just as the listing has them.

Guarantees: every name comes out as its UTF-8 bytes; a listing that is not in
byte order, or does not go on behind its marker, is refused.

What the rows of special objects mean, which is Swift's to say:

* A *pseudo-directory* (``application/directory``, or an empty object whose name ends
  in ``/``) is a mark that programs leave; it is an entry only if directories are wanted.
* A *static large object* has the ETag of its manifest and the size of the whole; a
  *dynamic* one has size 0, and its row does not change when a segment does.
* A *symlink* has a row of its own; what it points at may change without it.
* An object that has *expired* is listed until the cluster has removed it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from ...listing import Row

__all__ = ["ETAG", "MODIFIED", "SIZE", "Listed", "after", "before", "modified_ns", "read"]

ETAG, SIZE, MODIFIED = 0, 1, 2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DIRECTORY = "application/directory"
_LAST = "\U0010ffff"


class _Row(msgspec.Struct, gc=False):
    name: str = ""
    bytes: int = 0
    hash: str = ""
    last_modified: str = ""
    content_type: str = ""
    subdir: str = ""


_decode = msgspec.json.Decoder(list[_Row]).decode


class Listed(msgspec.Struct, gc=False):
    """A page of a listing."""

    keys: list[bytes]
    rows: list[Row]
    last: str  #: where to go on: the last name, of an entry or not; empty if there is no more


def read(body: bytes | bytearray, marker: str, directories: bool) -> Listed:
    """Read a page.

    :param body: JSON, as Swift answers it; empty if there is nothing. A ``bytearray`` is emptied: some MiB
        that need not be there beside what is made of them.
    :param marker: behind which it was asked to begin.
    :param directories: take pseudo-directories, and what a delimiter sums up, for entries.
    :raises ValueError: if it can't be what was asked for.
    """
    if not body:
        return Listed([], [], "")
    try:
        page = _decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"expected a listing in JSON ({error})") from None
    if isinstance(body, bytearray):
        body.clear()
    if not page:
        return Listed([], [], "")
    last = page[-1].subdir or page[-1].name
    if not directories:
        page = [
            row
            for row in page
            if row.name and not row.content_type.startswith(_DIRECTORY) and (row.bytes or row.name[-1] != "/")
        ]
        keys = [row.name.encode() for row in page]
    else:
        keys = [(row.name or row.subdir).encode() for row in page]
        # The mark of a pseudo-directory may be listed beside what the delimiter makes of it.
        if len(set(keys)) != len(keys):
            page = list({row.subdir or row.name: row for row in page}.values())
            keys = [(row.name or row.subdir).encode() for row in page]
    rows: list[Row] = [(row.hash, row.bytes, row.last_modified) for row in page]
    if keys != sorted(keys):
        raise ValueError("the names are not in order")
    behind = marker.encode()
    if last.encode() <= behind or (keys and keys[0] <= behind and marker):
        raise ValueError("it does not begin behind the name that it was to begin behind")
    return Listed(keys, rows, last)


def modified_ns(row: Row) -> int | None:
    """When the store last touched the object, ns since 1970 (its clock, to the microsecond)."""
    try:
        moment = datetime.fromisoformat(row[MODIFIED])
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND * 1000


def before(key: bytes) -> str:
    """A marker before a key: a listing that begins behind it has the key, if it is there.

    A marker is exclusive and a span's start inclusive, and there is no text just before another one.
    So a few names before the key may be listed, too.
    """
    if not key:
        return ""
    if key.endswith((b"\0", b"\1")):
        return key[:-1].decode("utf-8", "ignore")  # no name holds NUL, so nothing lies between
    # What is no character any more, since a key was cut in the middle, is left off, which begins earlier.
    text = key.decode("utf-8", "ignore")
    if not text:
        return ""
    code = ord(text[-1]) - 1
    if 0xD800 <= code <= 0xDFFF:
        code = 0xD7FF
    return text[:-1] + chr(code) + _LAST


def after(key: bytes) -> str | None:
    """An end marker such that a listing has what lies before a key; None if there is no such text."""
    if key.endswith(b"\0"):
        key = key[:-1] + b"\1"  # a NUL is refused, and no name lies between
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
