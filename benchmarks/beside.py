"""What each watcher tells of what happens to files: ``make bench ARGS="--only beside"``.

Each question is put to each watcher in a process of its own and in a directory of its own. The last thing
that happens is always a file called ``now``: once it is told, or a limit has passed, what was told before is
the answer. Root can read everything, so a process of root's gives that right up first.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .measure import measure
from .peers import available
from .report import note, table
from .writer import start

__all__ = ["ask", "run"]

_PATIENCE = 20.0
_POLL = 0.3  # seconds between two looks of what looks; of cron's, as often as we ask
_BURST = 60_000

Told = list[tuple[str, str]]


# -- the watchers -----------------------------------------------------------------------------------


class _Watcher:
    """One way to watch a directory: ``more()`` is what was told since the last call."""

    def __init__(self, inbox: Path, place: Path) -> None:
        self.inbox, self.place = inbox, place

    def start(self) -> None:
        raise NotImplementedError

    def more(self) -> Told:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


class _Ours(_Watcher):
    scan = False

    def start(self) -> None:
        from poller_core import FilePoller, INotifyPoller

        kind = FilePoller if self.scan else INotifyPoller
        settle = 1 if self.scan else 0
        self.poller = kind(str(self.inbox), recurse=True, state=str(self.place / "state.db"), settle=settle)
        self.early: Told = []
        self.early = self.more()  # the first look

    def more(self) -> Told:
        from poller_core import TargetError

        if self.early:
            early, self.early = self.early, []
            return early
        time.sleep(_POLL)
        try:
            return [
                (event, os.path.basename(subject.path)) for subject, event in self.poller.get_new_events()
            ]
        except TargetError as error:
            return [("error", type(error).__name__)]

    def stop(self) -> None:
        self.poller.close()


class _OursByScanning(_Ours):
    scan = True


class _Watchdog(_Watcher):
    def start(self) -> None:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler

        told: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                path = str(getattr(event, "dest_path", "") or event.src_path)
                told.put((event.event_type, os.path.basename(path)))

        self.told = told
        self.observer = self.make()
        self.observer.schedule(Handler(), str(self.inbox), recursive=True)
        self.observer.start()
        time.sleep(2 * _POLL)  # it does not say when its first snapshot is taken

    def make(self) -> Any:
        from watchdog.observers import Observer

        return Observer()

    def more(self) -> Told:
        time.sleep(_POLL)
        return [self.told.get() for _ in range(self.told.qsize())]

    def stop(self) -> None:
        self.observer.stop()
        self.observer.join()


class _WatchdogByPolling(_Watchdog):
    def make(self) -> Any:
        from watchdog.observers.polling import PollingObserver

        return PollingObserver(timeout=_POLL)


class _Watchfiles(_Watcher):
    polling = False

    def start(self) -> None:
        from watchfiles._rust_notify import RustNotify

        self.watcher = RustNotify([str(self.inbox)], False, self.polling, int(_POLL * 1000), True, False)
        time.sleep(2 * _POLL)

    def more(self) -> Told:
        from watchfiles import Change

        found = self.watcher.watch(200, 50, 500, None)
        if isinstance(found, str):
            return []
        return [(Change(kind).raw_str(), os.path.basename(path)) for kind, path in found]

    def stop(self) -> None:
        self.watcher.close()


class _WatchfilesByPolling(_Watchfiles):
    polling = True


class _Find(_Watcher):
    """What a cron job does: a new stamp, ``find -newer`` the old one, and the new one in its place."""

    def start(self) -> None:
        stamp = self.place / "stamp"
        if not stamp.exists():
            stamp.touch()

    def more(self) -> Told:
        time.sleep(_POLL)
        stamp, fresh = self.place / "stamp", self.place / "fresh"
        fresh.touch()
        done = subprocess.run(
            ["find", str(self.inbox), "-type", "f", "-newer", str(stamp)],
            capture_output=True,
            text=True,
            check=False,
        )
        fresh.replace(stamp)
        told = [("newer", os.path.basename(line)) for line in done.stdout.splitlines()]
        return told + ([("error", f"status {done.returncode}")] if done.returncode else [])

    def stop(self) -> None:
        pass


_WATCHERS: dict[str, type[_Watcher]] = {
    "poller-core, inotify": _Ours,
    "poller-core, scanning": _OursByScanning,
    "watchdog, inotify": _Watchdog,
    "watchdog, polling": _WatchdogByPolling,
    "watchfiles, inotify": _Watchfiles,
    "watchfiles, polling": _WatchfilesByPolling,
    "find -newer": _Find,
}


# -- the questions ----------------------------------------------------------------------------------


def _until_now(watcher: _Watcher) -> Told:
    """Make the file ``now``; all that was told until it was, or until the limit."""
    inbox = watcher.inbox
    with contextlib.suppress(OSError):
        (inbox / "now").write_text("now")
    told: Told = []
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit and not any(name == "now" for _, name in told):
        told += watcher.more()
    return told + watcher.more()


def _about(told: Told, *names: str) -> str:
    found = dict.fromkeys(f"{event} {name}" for event, name in told if name in names or event == "error")
    blind = [] if any(name == "now" for _, name in told) else ["nothing afterwards"]
    return ", ".join([*found, *blind]) or "nothing"


def _down(watcher: _Watcher) -> str:
    """A file lands while the watcher is not running."""
    watcher.start()
    watcher.stop()
    (watcher.inbox / "late").write_text("x")
    watcher.start()
    return _about(_until_now(watcher), "late")


def _old(watcher: _Watcher) -> str:
    """A file with a date of long ago is moved in."""
    watcher.start()
    moved = watcher.place / "old"
    moved.write_text("x")
    os.utime(moved, (1e9, 1e9))
    moved.rename(watcher.inbox / "old")
    return _about(_until_now(watcher), "old")


def _half(watcher: _Watcher) -> str:
    """A file is being written for as long as the question takes."""
    watcher.start()
    done = threading.Event()
    with (watcher.inbox / "half").open("w") as file:

        def write() -> None:
            while not done.wait(0.1):
                file.write("x")
                file.flush()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return _about(_until_now(watcher), "half")
        finally:
            done.set()
            writer.join()


def _set_back(watcher: _Watcher) -> str:
    """A file gets other content of the same size, and its mtime is set back."""
    file = watcher.inbox / "back"
    file.write_text("one")
    os.utime(file, (1e9, 1e9))
    watcher.start()
    watcher.more()
    file.write_text("two")
    os.utime(file, (1e9, 1e9))
    return _about(_until_now(watcher), "back")


def _unreadable(watcher: _Watcher) -> str:
    """A subdirectory that can't be read for a while, and then can."""
    below = watcher.inbox / "below"
    below.mkdir()
    (below / "kept").write_text("x")
    watcher.start()
    watcher.more()
    below.chmod(0)
    told = _until_now(watcher)
    below.chmod(0o700)
    (watcher.inbox / "now").unlink()
    return _about(told + _until_now(watcher), "kept")


def _away(watcher: _Watcher) -> str:
    """The directory is away for a while, as a mount may be, and comes back."""
    (watcher.inbox / "kept").write_text("x")
    watcher.start()
    watcher.more()
    aside = watcher.place / "aside"
    watcher.inbox.rename(aside)
    told: Told = []
    for _ in range(5):
        told += watcher.more()
    aside.rename(watcher.inbox)
    return _about(told + _until_now(watcher), "kept")


def _burst(watcher: _Watcher) -> str:
    """Very many files, as fast as another process can make them."""
    watcher.start()
    writer = start(str(watcher.inbox), _BURST, 0)
    told: Told = []
    reader = threading.Thread(target=writer.communicate)  # it tells a lot
    reader.start()
    while reader.is_alive():
        told += watcher.more()
    told += _until_now(watcher)
    quiet = 0
    while quiet < 5:  # it may still be at it
        more = watcher.more()
        told += more
        quiet = 0 if more else quiet + 1
    missing = _BURST - len({name for _, name in told if name.isdigit()})
    return f"{missing:,} of {_BURST:,} not told" if missing else "all told"


_QUESTIONS: dict[str, Callable[[_Watcher], str]] = {
    "down": _down,
    "old": _old,
    "half": _half,
    "set back": _set_back,
    "unreadable": _unreadable,
    "away": _away,
    "burst": _burst,
}


def ask(question: str, watcher: str) -> dict[str, Any]:
    """One question to one watcher: what it told."""
    _like_anybody()
    with tempfile.TemporaryDirectory(prefix="beside-") as name:
        place = Path(name)
        inbox = place / "inbox"
        inbox.mkdir()
        asked = _WATCHERS[watcher](inbox, place)
        try:
            answer = _QUESTIONS[question](asked)
        except Exception as error:  # noqa: BLE001 - an error is an answer, too
            answer = f"raises {type(error).__name__}"
        with contextlib.suppress(Exception):
            asked.stop()
        return {"answer": answer}


def _like_anybody() -> None:
    """Give up root's right to read everything, also for what is started from here."""
    if os.getuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    no_root = 3  # SECBIT_NOROOT, and locked: who is root has no rights by that
    if libc.prctl(28, no_root, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECUREBITS)")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def run() -> None:
    """Put all questions to all watchers that are installed."""
    watchers = [
        name for name in _WATCHERS if name.startswith(("poller", "find")) or available(name.split(",")[0])
    ]
    for question, function in _QUESTIONS.items():
        note(f"{question} …")
        rows = [
            (name, measure("beside:ask", question=question, watcher=name).more["answer"]) for name in watchers
        ]
        table(str(function.__doc__), ("", "told"), rows)
