"""The names in one directory, in byte order, however many there are.

Guarantees: every name that the system lists, once, sorted by its bytes; all of
them are read before the first is given, so that a directory that fails half-way
fails as a whole. A million names need some 20 MiB while they are used: large
directories are kept as packed, sorted pieces that are merged bit by bit.

Does not guarantee: that a name is still there.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from .filesystem import FileSystem

__all__ = ["sorted_names"]

#: From this ``st_size`` on a directory may have more names than a list should hold.
LARGE = 2 << 20

_BATCH = 8192  # names that are read and sorted at a time; more than fit the cache would sort slower
_PIECE = 1024  # names that are packed together

_name = attrgetter("name")

# What the C library asks the kernel for at a time, and the most that a name takes there besides itself:
# what fits into one answer is of one moment, and has no repeats.
_BUFFER, _OVERHEAD = 32_768, 27

# What os.fsencode uses, without its call for each directory.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


def sorted_names(
    fs: FileSystem, fd: int, size: int | None
) -> tuple[list[bytes], Iterator[list[bytes]] | None]:
    """The names in an open directory: the first ones, and an iterator of more if there are very many.

    :param size: the ``st_size`` of the directory, or None if that says nothing.
    :raises OSError: when the directory can't be read to its end.
    """
    if size is not None and size < LARGE:
        return _sorted(fs.listdir(fd)), None
    runs: list[list[bytes]] = []
    with fs.scandir(fd) as entries:
        names = _sorted(list(map(_name, islice(entries, _BATCH))))
        if len(names) < _BATCH:
            return names, None
        while names:
            runs.append([b"/".join(names[i : i + _PIECE]) for i in range(0, len(names), _PIECE)])
            names = _sorted(list(map(_name, islice(entries, _BATCH))))
    return [], _merged(runs)


def _sorted(names: list[str]) -> list[bytes]:
    if not names:
        return []
    # Text sorts faster than bytes, and in the same order unless a byte that is no text was smuggled
    # in as a surrogate. No name holds a slash, so that one call encodes all of them.
    names.sort()
    text = "/".join(names)
    found = text.encode(_ENCODING, _ERRORS).split(b"/")
    if not text.isascii():
        found.sort()
    if len(text) + _OVERHEAD * len(found) > _BUFFER:
        return _once(found)
    return found


def _once(names: list[bytes]) -> list[bytes]:
    """The names without repeats: a directory that is changed while it is read may give one twice."""
    return names if len(set(names)) == len(names) else list(dict.fromkeys(names))


def _merged(runs: list[list[bytes]]) -> Iterator[list[bytes]]:
    """Merge sorted runs of packed pieces; what is unpacked at a time is one piece of each run."""
    heads: list[list[bytes]] = [[] for _ in runs]
    for run in runs:
        run.reverse()
    while True:
        for index, run in enumerate(runs):
            if run and not heads[index]:
                heads[index] = run.pop().split(b"/")
        # Up to here every run is unpacked: the rest of a run lies above the last name of its head.
        edges = [head[-1] for head, run in zip(heads, runs, strict=True) if run]
        merged: list[bytes] = []
        if not edges:
            for head in heads:
                merged += head
            if merged:
                merged.sort()
                yield _once(merged)
            return
        edge = min(edges)
        for index, head in enumerate(heads):
            if head and head[0] <= edge:
                cut = bisect_right(head, edge)
                merged += head[:cut]
                heads[index] = head[cut:]
        merged.sort()
        yield _once(merged)
