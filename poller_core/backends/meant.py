"""What was probably meant by a path that is not there.

Guarantees: what is said is about the path alone and what lies beside it; nothing is made
or changed, and a directory with very many names is not read to its end.

Not guaranteed: that it is what was meant. A name may hold whatever is taken for a mistake here.
"""

from __future__ import annotations

import difflib
import os
from itertools import islice

from .filesystem import FileSystem, shown

__all__ = ["meant"]

#: How many names of a directory are compared.
_MOST = 2000
_PATTERN = frozenset(b"*?[")


def meant(fs: FileSystem, path: bytes, above: bytes) -> str:
    """A sentence about what was probably meant, or nothing.

    :param path: absolute; it is not there.
    :param above: the directory nearest above it that is.
    """
    rest = path[len(above) :].lstrip(b"/").split(b"/")
    name = rest[0]
    if name == b"~" or (name.startswith(b"~") and not name.endswith(b"~")):
        return "'~' is for the shell to fill in: write the directory out, or use os.path.expanduser()"
    if name.startswith(b"$"):
        return "a variable is for the shell to fill in: write its value, or use os.path.expandvars()"
    if any(_PATTERN.intersection(part) for part in rest):
        deep = ", recurse=True" if len(rest) > 1 else ""
        return (
            f"a pattern is no part of the path: watch {shown(above)} with include=[{shown(rest[-1])!r}]{deep}"
        )
    if b"\\" in path:
        return "directories are separated by '/' here; a share is watched where it is mounted"
    for around, what in ((b" \t\r\n", "blanks"), (b" \t\r\n\"'", "quotation marks")):
        bare = name.strip(around)
        if bare not in (b"", name) and _is_there(fs, os.path.join(above, bare)):
            return f"there is {shown(os.path.join(above, bare))}, without {what} around it"
    return _near(fs, above, name)


def _near(fs: FileSystem, above: bytes, name: bytes) -> str:
    try:
        fd = fs.open_dir(above, None, True)
    except OSError:
        return ""
    try:
        with fs.scandir(fd) as entries:
            names = [entry.name for entry in islice(entries, _MOST)]
    except OSError:
        return ""
    finally:
        fs.close(fd)
    near = difflib.get_close_matches(os.fsdecode(name), names, 1, 0.75)
    return f"did you mean {shown(os.path.join(above, os.fsencode(near[0])))}?" if near else ""


def _is_there(fs: FileSystem, path: bytes) -> bool:
    try:
        fs.stat(path)
    except OSError:
        return False
    return True
