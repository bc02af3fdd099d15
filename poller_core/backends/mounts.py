"""What kind of file system an open descriptor is on, and what may be expected of it.

Guarantees: a file system that is not known by name gets the careful answer
everywhere: it delivers no inotify events, its timestamps are coarse, the size
of a directory says nothing about how many names are in it.

Does not guarantee: an answer outside Linux (``/proc`` is read), or for a mount
that is not visible in this mount namespace: the type is then ``unknown``.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

__all__ = [
    "UNKNOWN",
    "Mount",
    "delivers_inotify",
    "granularity_ns",
    "is_remote",
    "mount_of",
    "same_mount",
    "size_tells_entries",
]


class Mount(NamedTuple):
    """One line of the mount table."""

    fstype: str  #: as in the mount table: ``ext4``, ``nfs4``, ``fuse.sshfs``; ``unknown`` if not found
    source: str  #: a device (``/dev/…``), an export (``host:/path``), or a mere word (``tmpfs``)
    root: str  #: which directory of the file system is mounted; other than ``/`` for bind mounts


UNKNOWN = Mount("unknown", "", "")

_FINE = frozenset(
    (
        "ext4",
        "xfs",
        "btrfs",
        "tmpfs",
        "ramfs",
        "f2fs",
        "zfs",
        "jfs",
        "bcachefs",
        "nilfs2",
        "ntfs3",
        "ubifs",
        "devtmpfs",
        "apfs",
    )
)
_MULTIGRAIN = frozenset(("ext4", "xfs", "btrfs", "tmpfs"))
_SECONDS = frozenset(("ext2", "ext3", "reiserfs", "minix", "hfsplus"))
_TWO_SECONDS = frozenset(("vfat", "msdos", "exfat"))
_LOCAL = _FINE | _SECONDS | _TWO_SECONDS
_REMOTE = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gfs",
        "gfs2",
        "ocfs2",
        "gpfs",
        "beegfs",
        "orangefs",
        "pvfs2",
        "coda",
        "ncpfs",
        "virtiofs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "acfs",
        "davfs",
        "panfs",
    )
)
_SIZED = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs"))

_MS = 1_000_000
_OCTAL = re.compile(r"\\([0-7]{3})")


def mount_of(fd: int, proc: str = "/proc/self") -> Mount:
    """The mount that an open descriptor is on; :data:`UNKNOWN` if that can't be found out."""
    try:
        with open(f"{proc}/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
            number = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        with open(f"{proc}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if line.startswith(number + " "):
                    return _parsed(line)
    except (OSError, StopIteration, IndexError, ValueError):
        # No /proc, or one that looks different: every user of the answer is careful with "unknown".
        return UNKNOWN
    return UNKNOWN


def _parsed(line: str) -> Mount:
    before, after = line.rstrip("\n").split(" - ", 1)
    fstype, source = after.split(" ")[:2]
    return Mount(fstype, _unescaped(source), _unescaped(before.split(" ")[3]))


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: os.fsdecode(bytes([int(match[1], 8) & 255])), text)


def same_mount(was: Mount, now: Mount) -> bool:
    """Whether two entries of mount tables, of different times, mean one and the same file system.

    Device numbers change from one start of the machine to the next, so the
    name of the device or export decides. A mere word (``tmpfs``, ``overlay``)
    is no name: such mounts are never the same.
    """
    named = "/" in now.source or ":" in now.source
    return named and now.fstype != UNKNOWN.fstype and was == now


def delivers_inotify(fstype: str) -> bool:
    """Whether inotify tells of *every* change that is made through this machine's own kernel."""
    return fstype in _LOCAL


def is_remote(fstype: str) -> bool:
    """Whether other machines, or a program of the user's, may change it behind the kernel's back."""
    return fstype in _REMOTE or fstype.startswith("fuse")


def granularity_ns(fstype: str, release: str | None = None) -> int:
    """How near two changes may be and still carry the same timestamp, in nanoseconds, with some slack.

    Since Linux 6.13 ("multigrain timestamps") a change after a ``stat`` never gets the timestamp that the
    ``stat`` saw, on the file systems that take part: the answer for those is 0.

    :param release: of the kernel, as ``os.uname().release`` gives it, which is the default.

    For ``ext4`` this is 10 ms, although one that was made with very small inodes
    keeps whole seconds only: the name does not tell.
    """
    if fstype in _MULTIGRAIN and _version(os.uname().release if release is None else release) >= (6, 13):
        return 0
    if fstype in _FINE or fstype == "overlay":  # whose timestamps are those of the file system below
        return 10 * _MS
    if fstype in _SECONDS:
        return 1_100 * _MS
    if fstype in _TWO_SECONDS:
        return 2_100 * _MS
    return 2_000 * _MS


def _version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def size_tells_entries(fstype: str) -> bool:
    """Whether a directory with many names has a large ``st_size`` (twelve bytes a name or more)."""
    return fstype in _SIZED
