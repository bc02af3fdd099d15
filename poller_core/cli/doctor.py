"""``poller doctor``: what this machine, a URL and a state allow, and how to raise what is low.

Guarantees: nothing is changed anywhere; each finding that is not fine says what
to do, as a command wherever there is one.

Does not guarantee: that what is fine now stays so.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from .. import __version__
from ..backends.filesystem import FileSystem
from ..backends.meant import meant
from ..backends.mounts import Mount, delivers_inotify, granularity_ns, is_remote, mount_of
from ..backends.openfiles import open_writers
from ..backends.swift.location import SCHEMES
from ..errors import PollerError, StateUnreadable
from ..filters import Exclude
from ..poller import registered, unknown_scheme
from ..state import open_store
from ..state.files import is_there
from ..state.urls import parse_state_url
from ..url import Url
from .app import Common, Watched, command
from .findings import Finding
from .machine import granularity, inotify_use, read_number, walked

__all__ = ["doctor"]

_PACKAGES = (
    "inotify_simple",
    "msgspec",
    "pathspec",
    "zstandard",
    "typer",
    "rich",
    "psycopg",
    "keystoneauth1",
    "python-swiftclient",
    "openstacksdk",
)
_LIMITS = "/proc/sys/fs/inotify/"
_STYLE = {"ok": "green", "info": "", "low": "yellow", "bad": "bold red"}


@command("doctor")
def doctor(
    common: Common,
    watched: Watched,
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="What is to be watched.", show_default=False)
    ] = None,
) -> int:
    """Tell what this machine, a URL and the state allow, and how to raise what is low.

    Changes nothing. Ends with 0 if all is fine, with 1 if something is low or wrong.

    \b
      poller doctor
      poller doctor /data/inbox -r
    """
    output = common.output()
    findings = [*_program(), *_limits(), *_state(common)]
    if url is not None:
        findings += _target(url, watched)
    if output.json:
        output.document([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            output.line(f"{finding.level:<5} {finding.about}: {finding.what}", _STYLE[finding.level])
            if finding.advice:
                output.line(f"      → {finding.advice}")
    return 1 if any(finding.level in ("low", "bad") for finding in findings) else 0


# -- the program ---------------------------------------------------------------------


def _program() -> Iterator[Finding]:
    yield Finding(
        "poller", "info", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} is not installed")
    yield Finding("packages", "info", ", ".join(versions))


# -- limits ------------------------------------------------------------------------------


def _sysctl(name: str, value: int) -> str:
    setting = f"fs.inotify.{name}={value}"
    return f"sudo sysctl {setting} && echo {setting} | sudo tee -a /etc/sysctl.d/60-poller.conf"


def _limits() -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding(
            "inotify", "info", f"there is none on {sys.platform}: everything is listed at each look"
        )
    else:
        yield from _inotify()
        if not open_writers().complete:
            yield Finding(
                "open files of others",
                "info",
                "this user can't see them; a file that somebody else has open for writing since before the "
                "watch began is known by --settle only",
            )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = soft != resource.RLIM_INFINITY and soft < 512
    yield Finding(
        "open files",
        "low" if low else "ok",
        f"at most {_limit(soft)} for this process (up to {_limit(hard)} may be asked for)",
        "ulimit -n 1024" if low else "",
    )


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _inotify() -> Iterator[Finding]:
    try:
        import inotify_simple  # noqa: F401 - whether it is there is the question
    except ImportError:
        yield Finding(
            "inotify",
            "low",
            "inotify_simple is not installed: everything is listed at each look",
            "python3 -m pip install inotify_simple",
        )
        return
    used = inotify_use()
    note = "" if used.complete else " at least (some processes can't be looked into)"
    for name, number, what, least in (
        ("max_user_instances", used.instances, "instances", 8),
        ("max_user_watches", used.watches, "watches", 8192),
    ):
        most = read_number(_LIMITS + name)
        if most is None:
            yield Finding(f"inotify {what}", "info", f"{_LIMITS}{name} can't be read")
            continue
        low = number > 0.8 * most or most < least
        yield Finding(
            f"inotify {what}",
            "low" if low else "ok",
            f"{number} of {most} in use by this user{note}",
            _sysctl(name, max(2 * most, 64 * least)) if low else "",
        )
    queued = read_number(_LIMITS + "max_queued_events")
    if queued is not None:
        low = queued < 16384
        yield Finding(
            "inotify queue",
            "low" if low else "ok",
            f"{queued} events; when more come at once, everything is listed again",
            _sysctl("max_queued_events", 65536) if low else "",
        )


# -- the state ----------------------------------------------------------------------------


def _state(common: Common) -> Iterator[Finding]:
    place = parse_state_url(common.place())
    if place.path is None:
        yield from _opened(common, place.text)
        return
    path = place.path
    try:
        there = is_there(path)
    except StateUnreadable as error:
        yield Finding("state", "bad", str(error), f"namei -l {shlex.quote(str(path))}")
        return
    directory = path.parent
    while not directory.exists():
        directory = directory.parent
    shown = shlex.quote(str(path))
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding(
            "state",
            "bad",
            f"{directory} can't be written to by this user",
            f"give another place with --state, or: sudo chown {os.getuid()} {shlex.quote(str(directory))}",
        )
    mount = _mount(directory)
    if mount is not None and is_remote(mount.fstype):
        yield Finding(
            "state",
            "bad",
            f"{directory} is on a file system of the network ({mount.fstype}), where SQLite's log and locks "
            f"are not safe",
            "--state with a local path, or postgresql+psycopg://user@host/database",
        )
    free = os.statvfs(directory)
    room = free.f_bavail * free.f_frsize
    if room < 100 * 1024 * 1024:
        yield Finding(
            "state",
            "low",
            f"{room // 1024 // 1024} MiB are free in {directory}",
            f"df -h {shlex.quote(str(directory))}",
        )
    if not there:
        yield Finding(
            "state", "info", f"{path} is not there yet; the first 'poller watch' or 'poll' makes it"
        )
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            "state",
            "low",
            f"{path} has mode {mode:04o}: others can read the names in it",
            f"chmod 600 {shown}",
        )
    yield from _opened(common, place.text)


def _opened(common: Common, shown: str) -> Iterator[Finding]:
    try:
        with open_store(common.place(), create=False) as store:
            targets = len(store.targets())
    except PollerError as error:
        yield Finding("state", "bad", str(error), f"poller check --state {shlex.quote(shown)}")
        return
    yield Finding("state", "ok", f"{shown} can be opened; it has {targets} targets")


# -- what is to be watched -------------------------------------------------------------------


def _target(text: str, watched: Watched) -> Iterator[Finding]:
    url = Url(text)
    about = str(url.without_credentials())
    if url.scheme not in registered():
        raise unknown_scheme(url.scheme)
    if url.scheme in SCHEMES:
        from .cloud import examine

        yield from examine(url)
        return
    if url.scheme != "file":
        yield Finding(about, "info", "only files and containers can be examined")
        return
    path = url.path
    try:
        found = os.stat(path)
    except OSError as error:
        yield Finding(
            about,
            "bad",
            f"{error.strerror}",
            (_meant(path) or f"mkdir -p {shlex.quote(path)}")
            if isinstance(error, FileNotFoundError)
            else f"namei -l {shlex.quote(path)}",
        )
        return
    directory = path if stat.S_ISDIR(found.st_mode) else os.path.dirname(path)
    if directory != path:
        yield Finding(about, "info", "it is a single file: what lies beside it is not watched")
    mount = _mount(directory)
    if mount is None:
        yield Finding(about, "bad", "it can't be opened by this user", f"namei -l {shlex.quote(path)}")
        return
    yield from _file_system(about, directory, mount)
    if directory == path:
        yield from _tree(about, path, watched, mount)


def _meant(path: str) -> str:
    above = os.path.dirname(path)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    return meant(FileSystem(), os.fsencode(path), os.fsencode(above))


def _file_system(about: str, directory: str, mount: Mount) -> Iterator[Finding]:
    source = f" from {mount.source}" if mount.source else ""
    if delivers_inotify(mount.fstype):
        yield Finding(
            about,
            "ok",
            f"on {mount.fstype}{source}, which tells inotify of changes: they are noticed at once",
        )
    else:
        yield Finding(
            about,
            "info",
            f"on {mount.fstype}{source}, which does not tell inotify of every change: it is listed at each "
            f"look. --interval says how often; use --settle, since writers can't be seen there",
        )
    expected = granularity_ns(mount.fstype) / 1e9
    measured = granularity(directory)
    text = "not measured (this user can't write there, or it has no files without names)"
    if measured is not None:
        text = f"measured: {measured:.3g} s"
    coarse = measured is not None and measured > max(expected, 0.02)
    yield Finding(
        f"{about}: timestamps",
        "low" if coarse else "ok",
        f"two changes within {expected:.3g} s may carry the same one, it is assumed; {text}",
        f"--settle {max(1.0, 2 * (measured or 0)):.0f}" if coarse else "",
    )


def _tree(about: str, path: str, watched: Watched, mount: Mount) -> Iterator[Finding]:
    exclude = Exclude(watched.exclude or (), not watched.no_default_exclude)
    tree = walked(path, watched.recurse, exclude.enter)
    more = "" if tree.complete else " at least (the walk was cut short)"
    if tree.count:
        first = shlex.quote(tree.unreadable[0])
        yield Finding(
            f"{about}: permissions",
            "bad" if tree.directories == tree.count else "low",
            f"{tree.count} directories can't be listed by this user{more}: {', '.join(tree.unreadable)}",
            f"sudo setfacl -m u:{os.getuid()}:rx {first}   (or chmod o+rx)",
        )
    else:
        yield Finding(
            f"{about}: permissions", "ok", f"all of {tree.directories} directories can be listed{more}"
        )
    most = read_number(_LIMITS + "max_user_watches")
    if most is not None and delivers_inotify(mount.fstype):
        wanted = tree.directories + inotify_use().watches
        low = wanted > 0.8 * most or (not tree.complete and wanted > 0.4 * most)
        yield Finding(
            f"{about}: watches",
            "low" if low else "ok",
            f"{tree.directories} are needed{more}, {most} are allowed for all programs of this user",
            _sysctl("max_user_watches", max(2 * most, 4 * wanted)) if low else "",
        )


def _mount(directory: str | os.PathLike[str]) -> Mount | None:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return mount_of(fd)
    finally:
        os.close(fd)
