"""What a watch noticed since it was last asked, and where to list because of that.

Names are kept by the watch of their directory: where that is in the tree is told
when the hints are made, so that a directory may be renamed while they wait.

Guarantees: every name that was noted lies in a span of the hints, unless the target
is not about it (another file's name, a subdirectory that is not entered). Where a
directory's place can't be told, the whole target is hinted.

Does not guarantee: that what is hinted has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..listing import Hints, Span, key_span, merged, tree_span
from .watchtree import WatchTree

__all__ = ["Noticed", "Scope"]


class Scope(NamedTuple):
    """What the target is about."""

    recurse: bool  #: the whole tree below a directory that changed; else only the directory's own key
    single: bytes | None = None  #: this one name in the root directory, and nothing else
    follow_symlinks: bool = False  #: a link that comes or goes may be a directory, with things below it
    enter: Callable[[bytes], bool] | None = None  #: whether a directory (its prefix) is walked at all


class Noticed:
    """By watch, the names that something happened to."""

    __slots__ = ("_scope", "closed", "everything", "names", "trees")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.clear()

    def clear(self) -> None:
        """Forget all: the hints were given."""
        self.names: dict[int, set[bytes]] = {}  #: of files, and what may be one
        self.trees: dict[int, set[bytes]] = {}  #: of directories
        self.closed: dict[int, set[bytes]] = {}  #: of files that their writer closed
        self.everything = False  #: where to look can't be told

    def __bool__(self) -> bool:
        return bool(self.everything or self.names or self.trees)

    def hints(self, tree: WatchTree) -> Hints:
        """Where to list, as things stand in the tree now."""
        everything = self.everything
        places: dict[int, list[bytes]] = {}
        for wd in self.names.keys() | self.trees.keys():
            found = tree.prefixes(wd)
            if found is None:
                # Old events on top of a newer walk: where this is can't be told, so look everywhere.
                everything = True
            places[wd] = found or []
        closed = {
            prefix + name for wd, names in self.closed.items() for prefix in places[wd] for name in names
        }
        single = self._scope.single
        if single is not None:
            closed &= {single}
        spans = [Span()] if everything else self._spans(places, tree.root)
        return Hints(merged(spans), False, frozenset(closed))

    def _spans(self, places: dict[int, list[bytes]], root: int) -> list[Span]:
        recurse, single, follow, enter = self._scope
        if single is not None:
            touched = self.names.get(root, set()) | self.trees.get(root, set())
            return [key_span(single)] if single in touched else []
        spans: list[Span] = []
        for wd, names in self.names.items():
            for prefix in places[wd]:
                spans += [key_span(prefix + name) for name in names]
                if follow and recurse:
                    spans += [tree_span(prefix + name + b"/") for name in names]
        below = tree_span if recurse else key_span
        for wd, names in self.trees.items():
            for prefix in places[wd]:
                inner = [prefix + name + b"/" for name in names]
                spans += [below(one) for one in inner if enter is None or enter(one)]
        return spans
