"""A directory with a watch on it, and a walk such as the engine has."""

from __future__ import annotations

import os
from pathlib import Path

from poller_core.backends.inotify import InotifyWatch
from poller_core.listing import Hints, Span

__all__ = ["WHOLE", "Tree", "holds"]

WHOLE = [Span()]


class Tree:
    """A directory, a watch on it, and a walk such as the engine has."""

    def __init__(self, root: Path, **options) -> None:
        self.root = root
        options.setdefault("recurse", True)
        self.recurse = options["recurse"]
        self.follow = options.get("follow_symlinks", False)
        self.watch = InotifyWatch(**options)

    def walk(self, prefix: bytes = b"", above: tuple = ()) -> None:
        path = os.path.join(os.fsencode(self.root), prefix)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = os.fstat(fd)
            identity = (found.st_dev, found.st_ino)
            if identity in above:
                return
            self.watch.on_directory(prefix, fd, found.st_dev)
            names = sorted(os.listdir(path))
        finally:
            os.close(fd)
        for name in names if self.recurse else []:
            inner = os.path.join(path, name)
            if os.path.isdir(inner) and (self.follow or not os.path.islink(inner)):
                self.walk(prefix + name + b"/", (*above, identity))

    def look(self) -> Hints:
        """One look: drain, walk what is hinted, say that it is done."""
        hints = self.watch.drain()
        for span in hints.spans:
            if span == Span():
                self.walk()
            elif span.start.endswith(b"/") and os.path.isdir(
                os.path.join(os.fsencode(self.root), span.start)
            ):
                self.walk(span.start)
        self.watch.looked(hints.spans)
        return hints


def holds(hints: Hints, *keys: bytes) -> bool:
    return all(any(span.holds(key) for span in hints.spans) for key in keys)
