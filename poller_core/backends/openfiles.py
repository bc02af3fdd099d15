"""Which files are open for writing now, by any process, read from ``/proc``.

For what inotify can't know: who was writing before the watch was there (at the
start, after an overflow, in a directory that was just made), and whether a file
that was created without ever being opened for writing is still being written.

Guarantees: no file is opened, read or otherwise disturbed; what can't be read is
skipped, and :attr:`OpenFiles.complete` then says so. It takes a few
microseconds for each open file of the machine.

Does not guarantee: a picture of one moment, since processes come and go while it
is taken. Not seen are writers in another PID namespace or on another machine
(an NFS server's clients among them), a file that is written through a shared
mapping after its descriptor was closed, descriptors that are on their way
between two processes, and those of a thread with a descriptor table of its own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container
from typing import NamedTuple

__all__ = ["OpenFiles", "open_writers"]

_GONE = (FileNotFoundError, ProcessLookupError)


class OpenFiles(NamedTuple):
    """The regular files that somebody has open for writing."""

    writers: frozenset[tuple[int, int]]  #: (st_dev, st_ino)
    complete: bool  #: False: there are processes that we may not look into, so a file not named may be open


def open_writers(inodes: Container[int] | None = None, proc: str = "/proc") -> OpenFiles:
    """Look through the descriptors of every process, this one included.

    :param inodes: look only for files with these inode numbers, whatever their
        device. Give it where you can: other files are then not even stat'ed, so that
        one on a network server that hangs can't hold up the answer. (The kernel
        tells the number since Linux 5.14; an older one has them all stat'ed.)
    :param proc: where the proc file system is mounted.
    :returns: never raises for what can't be read: ``complete`` is False then.
    """
    writers: set[tuple[int, int]] = set()
    try:
        pids = [name for name in os.listdir(proc) if name.isdecimal()]
    except OSError:
        return OpenFiles(frozenset(), False)
    # With hidepid=2 other users' processes are not refused but left out, and so is the first one.
    complete = "1" in pids
    for pid in pids:
        base = f"{proc}/{pid}/fd"
        try:
            numbers = os.listdir(base)
        except _GONE:
            continue
        except OSError:
            complete = False
            continue
        for number in numbers:
            try:
                found = _writer(f"{base}/{number}", f"{proc}/{pid}/fdinfo/{number}", inodes)
            except _GONE:
                continue
            except OSError:
                # Only this one: a file of its may be on a file system that refuses us, its others need not.
                complete = False
                continue
            if found is not None:
                writers.add(found)
    return OpenFiles(frozenset(writers), complete)


def _writer(link: str, info: str, inodes: Container[int] | None) -> tuple[int, int] | None:
    # The owner's "w" on the link itself says how the descriptor was opened. Neither lstat nor readlink
    # asks the file system that the file is on, as stat does; most descriptors are ruled out by them.
    if not os.lstat(link).st_mode & stat.S_IWUSR or not os.readlink(link).startswith("/"):
        return None
    if inodes is not None:
        number = _inode(info)
        if number is not None and number not in inodes:
            return None
    found = os.stat(link)
    if not stat.S_ISREG(found.st_mode) or (inodes is not None and found.st_ino not in inodes):
        return None
    return found.st_dev, found.st_ino


def _inode(info: str) -> int | None:
    with open(info, encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name == "ino" and value.strip().isdecimal():
                return int(value)
    return None
