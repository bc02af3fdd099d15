"""What this machine and a directory allow: limits, timestamps, permissions. For ``poller doctor``.

Guarantees: nothing is changed, and no name is ever made in a directory (what is
measured there is measured on a file without a name); each answer takes a second
or two at most, however large the tree is.

Does not guarantee: to see what other users' processes use, unless run as root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["InotifyUse", "Permissions", "granularity", "inotify_use", "read_number", "walked"]

_MEASURE = 0.25
_MOST_DIRECTORIES = 20_000
_MOST_SECONDS = 2.0


def read_number(path: str) -> int | None:
    """A number from a file of ``/proc``; None if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None


@dataclass(frozen=True)
class InotifyUse:
    """What this user's processes use of inotify."""

    instances: int
    watches: int
    complete: bool  #: False: some of them could not be looked into


def inotify_use(proc: str = "/proc") -> InotifyUse:
    """Count inotify instances and watches of this user."""
    instances = watches = 0
    complete = True
    for pid in _own_processes(proc):
        try:
            numbers = os.listdir(f"{proc}/{pid}/fd")
        except OSError as error:
            complete = complete and isinstance(error, FileNotFoundError | ProcessLookupError)
            continue
        for number in numbers:
            try:
                if os.readlink(f"{proc}/{pid}/fd/{number}") != "anon_inode:inotify":
                    continue
                with open(f"{proc}/{pid}/fdinfo/{number}", encoding="ascii", errors="replace") as lines:
                    watches += sum(line.startswith("inotify wd:") for line in lines)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it was closed just now
            except OSError:
                complete = False
                continue
            instances += 1
    return InotifyUse(instances, watches, complete)


def _own_processes(proc: str) -> Iterator[str]:
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for name in names:
        try:
            if name.isdecimal() and os.stat(f"{proc}/{name}").st_uid == os.getuid():
                yield name
        except OSError:
            continue


def granularity(directory: str | bytes) -> float | None:
    """The smallest step of a file's timestamps there, in seconds; None if that can't be measured.

    Measured on a file without a name, which nobody who watches the directory sees.
    """
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):
        return None  # not writable for us, or the file system can't
    try:
        steps: list[int] = []
        last = os.fstat(fd).st_mtime_ns
        end = time.monotonic() + _MEASURE
        while time.monotonic() < end:
            os.pwrite(fd, b"x", 0)
            now = os.fstat(fd).st_mtime_ns
            if now != last:
                steps.append(now - last)
                last = now
    except OSError:
        return None
    finally:
        os.close(fd)
    return min((abs(step) for step in steps), default=_MEASURE * 1e9) / 1e9


@dataclass
class Permissions:
    """What a walk of the directories found."""

    directories: int = 0
    unreadable: list[str] = field(default_factory=list)
    count: int = 0  #: how many can't be read; :attr:`unreadable` names the first of them
    complete: bool = True  #: False: there was more than could be looked at


def walked(
    root: str,
    recurse: bool,
    enter: Callable[[bytes], bool] | None = None,
    most: int = _MOST_DIRECTORIES,
) -> Permissions:
    """Count directories, and find those that this user can't list.

    :param recurse: those below, too.
    :param enter: whether a directory, as ``name/…/``, is looked at in real looks, too.
    """
    found = Permissions()
    end = time.monotonic() + _MOST_SECONDS
    todo: list[tuple[str, bytes]] = [(root, b"")]
    while todo:
        if found.directories >= most or time.monotonic() > end:
            found.complete = False
            break
        path, prefix = todo.pop()
        found.directories += 1
        try:
            with os.scandir(path) as entries:
                below = list(_directories(entries)) if recurse else []
            # Names can be listed without x, but not looked at.
            os.stat(os.path.join(path, "."))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            found.count += 1
            if len(found.unreadable) < 20:
                found.unreadable.append(path)
            continue
        for name in below:
            key = prefix + os.fsencode(name) + b"/"
            if enter is None or enter(key):
                todo.append((os.path.join(path, name), key))
    return found


def _directories(entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield entry.name
