"""The source for directories and single files of this machine.

Guarantees:

* A look begins only if the target is there, may be listed, and is on the same
  file system as at the last look; it ends well only if the path still leads to
  the directory that was listed. So a mount that went away deletes nothing.
* :meth:`FileSource.absent` says "gone" only on the system's word (ENOENT,
  ENOTDIR) about the name itself or a directory above it, or when something that
  is never an entry has taken the name.

Does not guarantee: that a file system mounted *below* the root is missed when
it goes away; watch it as a target of its own if that matters.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

from ..errors import InvalidOption, StateUnreadable, TargetError, TargetMoved, TargetNotFound
from ..listing import Change, Chunk, Facts, Gap, Row, Source, Span, key_span
from ..url import Url
from .entries import FINGERPRINT, WalkOptions, is_subject, resolve
from .filesystem import ABSENT, Chain, FileSystem, is_name, shown, target_error
from .meant import meant
from .mounts import UNKNOWN, Mount, granularity_ns, is_remote, mount_of, same_mount, size_tells_entries
from .walk import OnDirectory, walk

__all__ = ["FileSource"]

#: By how much the clock of a file server may be behind ours, in seconds, before its timestamps mislead us.
_SERVER_SKEW = 300.0

_MODE, _INO, _NLINK, _UID, _GID, _SIZE, _MTIME, _CTIME = range(8)
_KIND = 0o170000

_ctime: Callable[[Row], Any] = itemgetter(_CTIME)

#: File systems whose id (``f_fsid``) is made from the one that they were given when they were made.
_LASTING_ID = frozenset({"ext2", "ext3", "ext4", "btrfs"})


class FileSource(Source):
    """A directory, or a single file, as a source of entries.

    :param path: a path; a relative one starts from the current directory of now.
    :param recurse: list what is in the directories below it, too.
    :param follow_symlinks: see symbolic links as what they point at. The path itself is followed always.
    :param directories: list directories as entries; their keys end in ``/``.
    :param fingerprint: which of ``size``, ``mtime``, ``ctime``, ``inode`` tell a change of content.
    :param enter: asked with ``name/…/``; where it says False the directory is left out.
    :param fs: the system calls to use.
    :raises InvalidOption: for a fingerprint that is empty or names something else.

    ``on_directory`` may be set to a function ``(prefix, descriptor, device)`` that is
    called before a directory is listed. After :meth:`begin`, ``root_id`` is (device, inode)
    of the directory that the path leads to, ``root_changed`` says whether that is another
    one than at the look before, ``mount`` is what it is on, and ``is_file`` whether the
    target is a single file; the root is then the directory that the file is in.
    """

    def __init__(
        self,
        path: str | bytes,
        recurse: bool = False,
        follow_symlinks: bool = False,
        directories: bool = False,
        fingerprint: Iterable[str] = tuple(FINGERPRINT),
        enter: Callable[[bytes], bool] | None = None,
        fs: FileSystem | None = None,
    ) -> None:
        self.path = bytes(Url.from_path(path))
        self._fingerprint = frozenset(fingerprint)
        if not self._fingerprint or not self._fingerprint <= FINGERPRINT.keys():
            raise InvalidOption(
                f"fingerprint={sorted(self._fingerprint)!r}: expected one or more of "
                f"{', '.join(sorted(FINGERPRINT))}, such as ['size', 'mtime']"
            )
        self._recurse = recurse
        self._follow = follow_symlinks
        self._directories = directories
        self._enter = enter
        self._fs = fs or FileSystem()
        self._fd = -1
        self._identity = ""
        self._described: tuple[bool, int] | None = None  # what ``_identity`` was made for
        self.on_directory: OnDirectory | None = None
        self.root_id: tuple[int, int] | None = None
        self.root_changed = False
        self.mount = UNKNOWN
        self.is_file = False

    # -- a look --------------------------------------------------------------

    def begin(self, known: str | None) -> str:
        self.close()
        was = _parsed(known)
        self.is_file = was["kind"] == "file" if was else not self._leads_to_directory()
        root = self._root
        try:
            self._fd = self._fs.open_dir(root, None, True)
            found = self._fs.fstat(self._fd)
            root_id = (found.st_dev, found.st_ino)
            if self._described != (self.is_file, found.st_dev):
                self.mount = mount_of(self._fd)
                self.slack = granularity_ns(self.mount.fstype) / 1e9
                self.skew = _SERVER_SKEW if is_remote(self.mount.fstype) else 0.0
                self._identity = self._describe(found.st_dev)
                self._described = (self.is_file, found.st_dev)
        except OSError as error:
            self.close()
            raise self._missing(root) if error.errno in ABSENT else target_error(error, root) from None
        if was and known != self._identity and not _same(was, json.loads(self._identity)):
            self.close()
            raise TargetMoved(
                f"{shown(root)} is on another file system than before: it was on {_in_words(was)}, it is on "
                f"{_in_words(json.loads(self._identity))} now. Is a mount missing? "
                f"If the move is meant: poller repair --accept-root"
            )
        self.root_changed = self.root_id is not None and self.root_id != root_id
        self.root_id = root_id
        return self._identity

    def scan(self, span: Span) -> Iterator[Chunk | Gap]:
        options = self._options()
        if not self.is_file:
            return walk(self._fs, self._opened(), span, options, self.on_directory)
        if self.on_directory is not None and self.root_id is not None:
            self.on_directory(b"", self._opened(), self.root_id[0])
        name = os.path.basename(self.path)
        return walk(self._fs, self._opened(), key_span(name), options) if span.holds(name) else iter(())

    def absent(self, keys: list[bytes]) -> set[bytes]:
        fs, root = self._fs, self._opened()
        follow = self._follow or self.is_file
        groups: dict[bytes, list[bytes]] = {}
        for key in keys:
            cut = key.rfind(b"/", 0, -1) + 1
            groups.setdefault(key[:cut], []).append(key[cut:])
        gone: set[bytes] = set()
        chain = Chain(fs, root, follow)
        try:
            for prefix in sorted(groups):
                names = groups[prefix]
                try:
                    fd = chain.open(prefix.split(b"/")[:-1])
                except OSError as error:
                    if error.errno in ABSENT:
                        gone.update([prefix + name for name in names])
                    continue
                gone.update([prefix + name for name in names if _gone(fs, fd, name, follow)])
        finally:
            chain.close()
        return gone

    def device_inode(self, key: bytes) -> tuple[int, int] | None:
        """What the system knows an entry by now; None if it can't be looked at."""
        fs = self._fs
        follow = self._follow or self.is_file
        above, _, name = key.rpartition(b"/")
        chain = Chain(fs, self._opened(), follow)
        try:
            fd = chain.open(above.split(b"/") if above else [])
            found = (fs.stat if follow else fs.lstat)(name, dir_fd=fd)
        except OSError:
            return None
        finally:
            chain.close()
        return found.st_dev, found.st_ino

    def verify(self) -> None:
        root = self._root
        try:
            self._opened()
            found = self._fs.stat(root)
        except OSError as error:
            raise target_error(error, root) from None
        if (found.st_dev, found.st_ino) != self.root_id:
            raise TargetError(
                f"{shown(root)} was replaced while it was listed; nothing is concluded from this look, "
                f"and the next one lists what is there now"
            )

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._fs.close(fd)

    # -- what rows mean ------------------------------------------------------

    def differs(self, old: Row, new: Row) -> Change:
        if (
            old[_SIZE] != new[_SIZE]
            or old[_MTIME] != new[_MTIME]
            or old[_INO] != new[_INO]
            or (old[_MODE] ^ new[_MODE]) & _KIND
        ):
            return Change.content
        # A new ctime alone: somebody wrote and then set the old mtime again. If mode, owner or links
        # are new as well, they explain it.
        explained = old[: _UID + 2] != new[: _UID + 2]
        return Change.metadata if explained else Change.content

    def facts(self, row: Row) -> Facts:
        if stat.S_ISDIR(row[_MODE]):
            return Facts()
        wanted = self._fingerprint
        return Facts(
            size=row[_SIZE] if "size" in wanted else None,
            mtime_ns=row[_MTIME] if "mtime" in wanted else None,
        )

    def subject(self, key: bytes) -> Url:
        return Url.from_path(self._root_slash + key.removesuffix(b"/"))

    def changed_ns(self, row: Row) -> int | None:
        if "ctime" not in self._fingerprint or stat.S_ISDIR(row[_MODE]):
            return None
        return max(int(row[_CTIME]), 0)

    def newest_ns(self, rows: list[Row]) -> int | None:
        if "ctime" not in self._fingerprint or self._directories:
            return super().newest_ns(rows)
        newest: int = max(map(_ctime, rows))
        return max(newest, 0)

    # -- the root ------------------------------------------------------------

    @property
    def _root(self) -> bytes:
        return os.path.dirname(self.path) if self.is_file else self.path

    @property
    def _root_slash(self) -> bytes:
        root = self._root
        return root if root.endswith(b"/") else root + b"/"

    def _opened(self) -> int:
        if self._fd < 0:
            raise RuntimeError("begin() comes first")
        return self._fd

    def _options(self) -> WalkOptions:
        return WalkOptions(
            recurse=self._recurse and not self.is_file,
            # A single file that is a link is what it points at, as the path of a directory is.
            follow_symlinks=self._follow or self.is_file,
            directories=self._directories and not self.is_file,
            fingerprint=self._fingerprint,
            enter=self._enter,
            label=self._root,
            sized=size_tells_entries(self.mount.fstype),
        )

    def _leads_to_directory(self) -> bool:
        try:
            mode = self._fs.stat(self.path).st_mode
        except OSError as error:
            missing = error.errno in ABSENT
            raise self._missing(self.path, new=True) if missing else target_error(error, self.path) from None
        if stat.S_ISDIR(mode):
            return True
        if stat.S_ISREG(mode):
            return False
        raise TargetError(f"{shown(self.path)} is a pipe, socket or device; expected a directory or a file")

    def _missing(self, path: bytes, new: bool = False) -> TargetError:
        above = path
        while above != b"/":
            above = os.path.dirname(above)
            try:
                mode = self._fs.stat(above).st_mode
            except OSError:
                continue
            if not stat.S_ISDIR(mode):
                return TargetNotFound(f"{shown(path)} is not there: {shown(above)} is not a directory")
            break
        try:
            self._fs.stat(path)
        except OSError:
            hint = meant(self._fs, path, above) if new else ""
            return TargetNotFound(
                f"{shown(path)} is not there (of the directories above it, {shown(above)} is); "
                f"{hint or 'expected an existing directory, such as /data/inbox, or a file'}"
            )
        return TargetNotFound(f"{shown(path)} is not a directory any more, as it was before")

    def _describe(self, device: int) -> str:
        mount = self.mount
        about: dict[str, Any] = {"kind": "file" if self.is_file else "directory", "dev": device}
        if mount.fstype in _LASTING_ID:
            about["fsid"] = self._fs.fstatvfs(self._fd).f_fsid
        about |= {"fstype": mount.fstype, "source": mount.source, "root": mount.root}
        return json.dumps(about, ensure_ascii=True)


def _gone(fs: FileSystem, fd: int, name: bytes, follow: bool) -> bool:
    """Whether it is certain that there is no such entry."""
    bare = name.removesuffix(b"/")
    if not is_name(bare):
        return True
    try:
        row = resolve(fs, fd, bare, follow)
    except OSError as error:
        return error.errno in ABSENT
    return not is_subject(row, directory=name.endswith(b"/"))


def _parsed(known: str | None) -> dict[str, Any]:
    if known is None:
        return {}
    try:
        was = json.loads(known)
        if was["kind"] in ("file", "directory"):
            return dict(was)
    except (ValueError, TypeError, KeyError):
        pass
    raise StateUnreadable(
        "what the state says about the root of this target can't be understood: it was written by "
        "another version of this program, or is damaged; see 'poller check'"
    )


def _same(was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether both mean one file system, although its device number may be another one now."""
    if was.get("dev") == now["dev"]:
        # Without a device of its own (major number 0) a mount has whatever number was free: another
        # type of file system under the same number is another mount.
        borrowed = os.major(now["dev"]) == 0
        types = {was.get("fstype"), now["fstype"]} - {UNKNOWN.fstype}
        return not borrowed or len(types) < 2
    if was.get("fsid") and now.get("fsid"):
        return bool(was["fsid"] == now["fsid"] and was.get("root") == now["root"])
    return same_mount(_mount(was), _mount(now))


def _mount(about: dict[str, Any]) -> Mount:
    return Mount(*(str(about.get(field, "")) for field in Mount._fields))


def _in_words(about: dict[str, Any]) -> str:
    mount = _mount(about)
    source = shown(mount.source) or "nowhere"
    device = int(about.get("dev", 0))
    return f"{mount.fstype} from {source}, device {os.major(device)}:{os.minor(device)}"
