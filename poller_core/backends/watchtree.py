"""Which directory each inotify watch is on.

A directory is kept as *its parent's watch number and its own name*, in one short
byte string, both ways. So moving a directory is one step, whatever is below it;
and a hundred thousand directories take some 20 MiB.

Guarantees: a watch number that is not known leads nowhere; a directory that can be
reached by several paths (symbolic links that are followed, bind mounts) has them all.

Does not guarantee: to agree with the disk at any moment. Events tell of the past,
a walk of the present, and the two meet here in any order; a mistake that comes
from that is put right when the directories that the events named are walked again.
"""

from __future__ import annotations

__all__ = ["WatchTree", "join", "split"]

_MANY = 64  # paths to one directory, before it is given up


def join(parent: int, name: bytes) -> bytes:
    """The key of a directory: its parent's watch number and its name."""
    return parent.to_bytes(4, "big") + name


def split(path: bytes) -> tuple[bytes, bytes]:
    """The prefix (ending in ``/``, or ``b""``) and the name of a path."""
    at = path.rfind(b"/") + 1
    return path[:at], path[at:]


def _parent(key: bytes) -> int:
    return int.from_bytes(key[:4], "big")


class WatchTree:
    """A two-way map between watch numbers and prefixes."""

    __slots__ = ("_last", "_more", "_wds", "keys", "loose", "root")

    def __init__(self) -> None:
        self.root = -1  #: the watch of the root directory; -1: none
        self.keys: dict[int, bytes] = {}  #: watch → key; ``b""`` for the root, and for what has no place now
        self.loose: set[int] = set()  #: those that lost their place; the owner clears it
        self._wds: dict[bytes, int] = {}
        self._more: dict[int, list[bytes]] = {}  # further keys of a watch
        self._last: tuple[bytes, int] = (b"", -1)  # the prefix that was asked for last

    def set_root(self, wd: int) -> bool:
        """Say which watch the root has; whether it had none before."""
        is_new = self.root != wd
        self.root = wd
        self.keys[wd] = b""
        return is_new

    def remember(self, prefix: bytes, wd: int) -> None:
        """Make the next question for this prefix a quick one."""
        self._last = (prefix, wd)

    def find(self, prefix: bytes) -> int | None:
        """The watch of the directory with this prefix (ending in ``/``; ``b""``: the root)."""
        if prefix == self._last[0] and self._last[1] != -1:
            return self._last[1]
        if self.root == -1:
            return None
        wd = self.root
        if prefix:
            for name in prefix[:-1].split(b"/"):
                found = self._wds.get(join(wd, name))
                if found is None:
                    return None
                wd = found
        self._last = (prefix, wd)
        return wd

    def attach(self, wd: int, key: bytes) -> bool:
        """Put a watch in a place, besides any that it has; whether the watch is a new one."""
        held = self._wds.get(key)
        if held == wd:
            return False
        if held is not None:
            self.detach(key)
        before = self.keys.get(wd)
        if before:
            self._more.setdefault(wd, []).append(key)
        else:
            self.keys[wd] = key
            self.loose.discard(wd)
        self._wds[key] = wd
        return before is None

    def detach(self, key: bytes) -> int | None:
        """Take the place from the watch that has it, if any; returns that watch."""
        self._last = (b"", -1)
        wd = self._wds.pop(key, None)
        if wd is None:
            return None
        others = self._more.get(wd, [])
        if key in others:
            others.remove(key)
        elif others:
            self.keys[wd] = others.pop()
        else:
            self.keys[wd] = b""
            self.loose.add(wd)
        if not others:
            self._more.pop(wd, None)
        return wd

    def drop(self, wd: int) -> None:
        """Forget a watch and its places. Those below it lead nowhere until they are walked again."""
        self._last = (b"", -1)
        key = self.keys.pop(wd, b"")
        for place in [key, *self._more.pop(wd, ())]:
            if place:
                del self._wds[place]
        self.loose.discard(wd)
        if wd == self.root:
            self.root = -1

    def prefixes(self, wd: int) -> list[bytes] | None:
        """Every prefix of the directory; none if it is cut off from the root.

        :returns: None when they can't be told: they run in a circle, or are too many.
        """
        found: list[bytes] = []
        steps = 2 * len(self.keys) + 1000
        todo: list[tuple[int, bytes, tuple[int, ...]]] = [(wd, b"", ())]
        while todo:
            node, tail, seen = todo.pop()
            while node != self.root:
                steps -= 1
                if steps < 0 or len(todo) + len(found) > _MANY:
                    return None
                key = self.keys.get(node)
                if not key:
                    break
                others = self._more.get(node)
                if others:
                    # No path leads twice through one directory: a walk does not enter it again either.
                    if node in seen:
                        break
                    seen = (*seen, node)
                    todo += [(_parent(other), other[4:] + b"/" + tail, seen) for other in others]
                tail = key[4:] + b"/" + tail
                node = _parent(key)
            else:
                found.append(tail)
        return found

    def below(self, gone: set[int]) -> set[int]:
        """These watches, and all that can be reached through them only."""
        found = set(gone)
        grown = True
        while grown:
            # Parents mostly stand before their children here, so that one round finds nearly all.
            grown = False
            for wd, key in self.keys.items():
                if key and wd not in found and _parent(key) in found:
                    if all(_parent(other) in found for other in self._more.get(wd, ())):
                        found.add(wd)
                        grown = True
        return found
