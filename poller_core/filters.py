"""Which names are left out, and which a consumer wants.

Patterns are those of ``.gitignore`` files (through the ``pathspec`` library):
``*.csv`` at any depth, ``/top.csv`` only at the top, ``tmp/`` a directory and
all below it, ``**`` any depth, ``!`` takes back what an earlier pattern said.

Guarantees: whether a name matches depends on the name alone, so a filter can be
asked when something changed instead of on every look, and gives the same answer
each time. An excluded directory is not descended into. A pattern that can't be
understood raises :class:`~poller_core.errors.InvalidOption`.

Not guaranteed: that an excluded *file* costs nothing; its name is still listed
with its directory, it is only never reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pathspec

from .errors import InvalidOption

__all__ = ["LEFTOVERS", "Exclude", "Patterns"]

#: What editors, browsers and transfer programs leave about while they work. Each is ``prefix*``, ``*suffix``,
#: ``*infix*`` or a whole name, of a file, or, with a slash at its end, of a directory.
LEFTOVERS: tuple[str, ...] = (
    "*~",  # Emacs, vi and others: backups
    "*.swp",  # vi
    "*.swo",
    "*.swx",
    ".#*",  # Emacs: locks
    "#*#",  # Emacs: autosaves
    "*.kate-swp",
    ".~lock.*#",  # LibreOffice
    "~$*",  # Microsoft Office
    ".goutputstream-*",  # GLib
    "*.tmp",
    "*.temp",
    "*.part",  # Firefox, curl, lftp and many others
    "*.partial",
    "*.filepart",  # WinSCP
    "*.crdownload",  # Chrome
    "*.download",  # Safari
    "*.opdownload",  # Opera
    "*.aria2",
    "*.gstmp",  # gsutil
    ".nfs*",  # a file that was deleted while an NFS client had it open
    ".fuse_hidden*",  # the same, FUSE
    ".~tmp~/",  # rsync --delay-updates
    ".rsync-partial/",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
)


#: What is most likely meant for several patterns: ``*.csv,*.txt``, and braces, which ``.gitignore`` has not.
_SEVERAL = re.compile(r"\*\.\w+(?:[,;|\s]+\*\.\w+)+[,;|\s]*")
_SEPARATORS = re.compile(r"[,;|\s]+")
_BRACES = re.compile(r"\.\{\w+(?:,\s*\w+)+\}$")


class Patterns:
    """A list of patterns in the manner of ``.gitignore``.

    :param patterns: the patterns, or a single one.
    :param option: the option's name, for errors.
    """

    def __init__(self, patterns: str | Iterable[str], option: str) -> None:
        lines = [patterns] if isinstance(patterns, str) else list(patterns)
        for line in lines:
            if not isinstance(line, str) or not line.strip():
                raise InvalidOption(
                    f"{option}={line!r}: expected patterns as in .gitignore, such as '*.csv' or 'tmp/'"
                )
            if not line.isascii() and any("\ud800" <= char <= "\udfff" for char in line):
                # It is kept in the state, as part of what the target is, and that takes text.
                raise InvalidOption(f"{option}={line!r}: is not UTF-8; write '?' for each byte that is not")
            if _SEVERAL.fullmatch(line) or _BRACES.search(line):
                parts = [part for part in _SEPARATORS.split(line) if part] if _SEVERAL.fullmatch(line) else []
                several = ", ".join(map(repr, parts)) or "'*.csv', '*.txt'"
                raise InvalidOption(
                    f"{option}={line!r} is one pattern, and matches nothing that you mean; expected a list, "
                    f"{option}=[{several}]; on the command line --{option} may be repeated"
                )
        self.patterns = tuple(lines)
        try:
            self._spec = pathspec.GitIgnoreSpec.from_lines(lines)
        except (ValueError, TypeError) as error:
            raise InvalidOption(f"{option}={lines!r}: {error}; expected patterns as in .gitignore") from None

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, key: bytes) -> bool:
        """Whether the patterns select this key; a directory's ends in ``/``."""
        return self._spec.match_file(key.decode("utf-8", "surrogateescape"))

    def which(self, key: bytes) -> str | None:
        """The pattern that decided to select this key, or None if it isn't selected."""
        result = self._spec.check_file(key.decode("utf-8", "surrogateescape"))
        return self.patterns[result.index] if result.include and result.index is not None else None


class _Leftovers:
    """:data:`LEFTOVERS`, matched by the plain string methods: some 20 times as fast as patterns."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names = [pattern.encode() for pattern in patterns]
        self._folders = frozenset(name for name in names if name.endswith(b"/"))
        files = [name for name in names if not name.endswith(b"/")]
        self._whole = frozenset(name for name in files if b"*" not in name)
        self._prefixes = tuple(name[:-1] for name in files if name.find(b"*") == len(name) - 1)
        self._suffixes = tuple(name[1:] for name in files if name.rfind(b"*") == 0)
        self._both = [tuple(name.split(b"*")) for name in files if 0 < name.find(b"*") < len(name) - 1]
        # Nearly every name is cleared by its first and last character alone.
        heads = [*self._prefixes, *self._whole, *(head for head, _ in self._both), b"."]
        self._first = frozenset(head[0] for head in heads)
        self._last = frozenset(tail[-1] for tail in self._suffixes)

    def file(self, name: bytes) -> bool:
        if name and name[0] not in self._first and name[-1] not in self._last:
            return False
        if name.endswith(self._suffixes) or name.startswith(self._prefixes) or name in self._whole:
            return True
        for head, tail in self._both:
            if name.startswith(head) and name.endswith(tail) and len(name) >= len(head) + len(tail):
                return True
        # rsync writes to .NAME.XXXXXX, six letters or digits, and renames when it is done.
        # Six small letters are more likely a word (".eslint.config") than rsync's, of which one in 180 is so.
        end = name[-6:]
        if name[:1] != b"." or name[-7:-6] != b"." or len(name) <= 8:
            return False
        return end.isalnum() and not (end.isalpha() and end.islower())

    def folder(self, name: bytes) -> bool:
        return name + b"/" in self._folders


_leftovers = _Leftovers(LEFTOVERS)


class Exclude:
    """What a target leaves out.

    :param patterns: in the manner of ``.gitignore``.
    :param leftovers: whether :data:`LEFTOVERS` (and rsync's temporary names) are left out too.
    :param own: keys of the poller's own files, should they lie in the target.
    """

    def __init__(
        self, patterns: str | Iterable[str] = (), leftovers: bool = True, own: Iterable[bytes] = ()
    ) -> None:
        self._patterns = Patterns(patterns, "exclude")
        self._leftovers = leftovers
        self.own = frozenset(own)  #: see above

    def enter(self, prefix: bytes) -> bool:
        """Whether to descend into a directory, given as ``path/``."""
        if self._leftovers and _leftovers.folder(prefix[:-1].rpartition(b"/")[2]):
            return False
        return not (self._patterns and self._patterns.matches(prefix))

    def drops(self, key: bytes) -> bool:
        """Whether the subject is left out."""
        if self._leftovers and _leftovers.file(key.rpartition(b"/")[2]):
            return True
        if self.own and key in self.own:
            return True
        return bool(self._patterns) and self._patterns.matches(key)

    def why(self, key: bytes) -> str | None:
        """Why the subject is left out, for people; None if it isn't."""
        if key in self.own:
            return "the poller's own state"
        if self._leftovers and _leftovers.file(key.rpartition(b"/")[2]):
            return "a leftover of an editor or transfer (default_exclude)"
        pattern = self._patterns.which(key) if self._patterns else None
        return None if pattern is None else f"exclude {pattern!r}"
