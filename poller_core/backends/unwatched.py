"""What a watch on a tree can't cover: directories that have to be listed at every look.

Guarantees: bounded memory, since nothing is kept below a directory that is kept,
and beyond a thousand directories it becomes the whole target; and that a directory
stays in until it was listed again and could be watched.
"""

from __future__ import annotations

from ..listing import Span, merged, tree_span

__all__ = ["Unwatched"]

_MANY = 1000  # directories, before they become the whole target


class Unwatched:
    """A set of directories, by prefix, each with all that is below it."""

    __slots__ = ("_all", "_failed")

    def __init__(self) -> None:
        self._all: set[bytes] = set()
        self._failed: set[bytes] = set()

    def begin(self) -> None:
        """A look begins."""
        self._failed.clear()

    def add(self, prefix: bytes) -> None:
        """This directory can't be watched, as it seems in this look."""
        for prefixes in (self._all, self._failed):
            if not _covered(prefixes, prefix):
                prefixes.add(prefix)
                if len(prefixes) > _MANY:
                    prefixes.clear()
                    prefixes.add(b"")

    def looked(self, listed: list[Span]) -> None:
        """These spans (merged) were listed: what lies in them, and was not added meanwhile, is watched."""
        kept = {one for one in self._all if not any(tree_span(one).within(span) for span in listed)}
        self._all = kept | self._failed

    def spans(self) -> list[Span]:
        """What to list at every look: sorted, merged."""
        return merged(tree_span(one) for one in self._all)


def _covered(prefixes: set[bytes], prefix: bytes) -> bool:
    at = 0
    while prefix[:at] not in prefixes:
        at = prefix.find(b"/", at) + 1
        if not at:
            return False
    return True
