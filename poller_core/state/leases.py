"""Something that one holder at a time has, and that is free when the holder is gone, however it went.

Guarantees: two holders never have one lease of a state at once, in whatever
processes and threads; the kernel frees a holder's as it ends, killed or not.
There is one lock file per SQLite state, ``….db-lease``, which only its owner may
read; a lease is a lock of one byte of it. A forked child has none of its
parent's leases, and takes none from it.

Does not guarantee: that the holder still has it, unless it asks
(:meth:`LeaseLock.held`). Whoever deletes the lock file lets a second one in.

A hazard to know: POSIX drops all locks that a process has on a file as soon as
the process closes *any* descriptor of it. So there is one descriptor per file
and process, which is closed with the last lease. Locks of open file descriptions
don't have that flaw, but a forked child would hold them on after its parent was killed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from ..crashpoints import crash_point
from ..errors import StateError, StateFull, StateReadOnly, StateUnreadable

__all__ = ["SUFFIX", "FileLease", "FreeLease", "LeaseLock", "lease_key"]

#: What the lock file's name has more than the state's.
SUFFIX = "-lease"

_BUSY = {errno.EACCES, errno.EAGAIN}


def lease_key(epoch: str, consumer: str) -> int:
    """The number of the lease of a consumer, 62 bits: no other one's, by all that chance allows.

    :param epoch: the target's. It is random, so that two states in one database have different leases.
    """
    text = f"{epoch}\n{consumer}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 2


class LeaseLock(ABC):
    """One lease, as one process sees it. May be used by several threads."""

    @abstractmethod
    def take(self) -> bool:
        """Take it, if nobody has it; whether it was free. Never waits for a holder.

        :raises StateError: if that can't be found out.
        """

    @abstractmethod
    def held(self) -> bool:
        """Whether this one has it still. Never raises: what can't be found out is not held."""

    @abstractmethod
    def holder(self) -> str:
        """Who has it, for people, as far as that can be told; else empty."""

    @abstractmethod
    def release(self) -> None:
        """Let it go, and whatever it takes to have it. Again does nothing; never raises."""


class FreeLease(LeaseLock):
    """The lease of a state that nobody else can open."""

    _taken = False

    def take(self) -> bool:
        self._taken = True
        return True

    def held(self) -> bool:
        return self._taken

    def holder(self) -> str:
        return ""

    def release(self) -> None:
        self._taken = False


class _LockFile:
    """A lock file that this process has open, and the leases that it holds in it."""

    def __init__(self, identity: tuple[int, int], descriptor: int) -> None:
        self.identity = identity
        self.descriptors = [descriptor]  # the first one is used; should there be others, they stay open too
        self.held: set[int] = set()

    def close_unused(self) -> None:
        if not self.held:
            _files.pop(self.identity, None)
            for descriptor in self.descriptors:
                os.close(descriptor)


_files: dict[tuple[int, int], _LockFile] = {}
#: Held only for moments, and never while another lock is waited for. Reentrant, as a signal handler,
#: or what the garbage collector ends, may let go of a lease while its thread takes one.
_guard = threading.RLock()


class FileLease(LeaseLock):
    """A lock of one byte of a file beside the state.

    :param state: the SQLite file.
    :param key: which byte, see :func:`lease_key`.
    """

    def __init__(self, state: Path, key: int) -> None:
        self._path = state.with_name(state.name + SUFFIX)
        self._key = key
        self._file: _LockFile | None = None
        self._owner = 0  # the process that holds it

    def take(self) -> bool:
        with _guard:
            for _ in range(3):
                try:
                    file = self._opened()
                except OSError as error:
                    raise self._translated(error) from error
                if self._key in file.held:
                    return False
                file.held.add(self._key)
                try:
                    if not self._lock(file):
                        return False
                    # It may have been deleted since it was opened: who comes later would not find the lock.
                    if self._identity() == file.identity:
                        self._file, self._owner = file, os.getpid()
                        break
                finally:
                    if self._file is None:
                        self._let_go(file)
            else:
                raise StateUnreadable(f"the lock file {self._path} is being deleted again and again")
        crash_point("lease.taken")
        return True

    def held(self) -> bool:
        with _guard:
            file = self._file
            if file is None or self._owner != os.getpid():
                return False
            try:
                # Locking again is nothing to the kernel, unless the lock was lost and is another's by now.
                return self._identity() == file.identity and self._lock(file)
            except StateError:
                return False

    def holder(self) -> str:
        with _guard:
            try:
                file = self._opened()
            except OSError:
                return ""
            try:
                if self._key in file.held:
                    return f"process {os.getpid()}, which is this one"
                number = _locker(file.descriptors[0], self._key)
                return f"process {number} of this machine" if number > 0 else ""
            finally:
                file.close_unused()

    def release(self) -> None:
        with _guard:
            file, self._file = self._file, None
            if file is None or self._owner != os.getpid():
                return
            self._let_go(file)

    # -- inside ----------------------------------------------------------------------

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat(follow_symlinks=False)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _opened(self) -> _LockFile:
        """The lock file; by a descriptor that is open already, if there is one."""
        known = _files.get(self._identity() or (0, 0))
        if known is not None:
            return known
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        found = os.fstat(descriptor)
        identity = (found.st_dev, found.st_ino)
        known = _files.get(identity)
        if known is not None:
            # Put back under its name just now. Closing this one would drop the locks of the other.
            known.descriptors.append(descriptor)
            return known
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a file")
        file = _files[identity] = _LockFile(identity, descriptor)
        return file

    def _lock(self, file: _LockFile) -> bool:
        try:
            fcntl.lockf(file.descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._key)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise self._translated(error) from error
        return True

    def _let_go(self, file: _LockFile) -> None:
        try:
            fcntl.lockf(file.descriptors[0], fcntl.LOCK_UN, 1, self._key)
        except OSError:
            pass  # closing the file, or the end of the process, frees it all the same
        file.held.discard(self._key)
        file.close_unused()

    def _translated(self, error: OSError) -> StateError:
        reason = f"the lock file {self._path}, beside the state, can't be used: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StateFull(f"{reason}. Free some space and try again")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StateReadOnly(
                f"{reason}. Only the user who made it may use it: run as that user, or delete it "
                "while no poller runs"
            )
        return StateUnreadable(f"{reason}. Delete it while no poller runs, or give another place as state=")


def _locker(descriptor: int, key: int) -> int:
    """The process that has a byte locked; 0 if none has, or it can't be told (another container's)."""
    if sys.platform != "linux":
        return 0  # the structure is laid out in another way
    asked = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, key, 1, 0)
    try:
        kind, _, _, _, number = struct.unpack("hhqqi0q", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except (OSError, struct.error):
        return 0
    return 0 if kind == fcntl.F_UNLCK else int(number)


def _after_fork_in_child() -> None:
    # The locks are the parent's. Closing what was inherited leaves them alone, since they are no
    # locks of this process.
    for file in _files.values():
        for descriptor in file.descriptors:
            try:
                os.close(descriptor)
            except OSError:
                pass
    _files.clear()
    _guard.release()


os.register_at_fork(
    before=_guard.acquire,
    after_in_parent=_guard.release,
    after_in_child=_after_fork_in_child,
)
