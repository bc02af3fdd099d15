"""The command of ``--exec``: its arguments, its environment, and running it once.

The text is split as a shell would, but no shell runs: a placeholder stays one
argument, whatever the file is called. Guarantees: the bytes of a name arrive as
they are; a placeholder that does not exist is refused before anything runs.

The command's standard input is empty, unless the event is asked for there. It
runs in a session of its own, so that Ctrl-C reaches only this program, which
then decides. Not guaranteed: that it ends with this program; after ``kill -9``
it goes on, and its event is given again.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process

from ..errors import InvalidOption
from ..events import Event
from ..url import Url

__all__ = ["PLACEHOLDERS", "Command", "Started"]

#: What may stand in braces, and what for.
PLACEHOLDERS = {
    "path": "the file's path (for other things: the URL)",
    "url": "the URL",
    "event": "created, modified or deleted",
    "id": "the event's id, the same at each delivery",
    "size": "bytes, empty if unknown",
    "key": "the name below what is watched; it may begin with a dash",
    "container": "the container of an object, else empty",
    "name": "the name of an object in its container, else empty",
}
_BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_]*)\}")


class Command:
    """A command with placeholders.

    :param text: as it would be typed.
    :param send_event: give the event as JSON on standard input.
    :param output: the descriptor that the command's standard output goes to; None: ours.
    :raises InvalidOption: if the text can't be a command, or the program is not there.
    """

    def __init__(self, text: str, send_event: bool = False, output: int | None = None) -> None:
        try:
            self._parts = shlex.split(text)
        except ValueError as error:
            raise InvalidOption(
                f"--exec {text!r}: {error}; expected a command such as 'cp {{path}} /backup'"
            ) from None
        if not self._parts:
            raise InvalidOption(f"--exec {text!r}: expected a command such as 'cp {{path}} /backup'")
        for part in self._parts:
            for match in _BRACES.finditer(part):
                if match[1] is not None and match[1] not in PLACEHOLDERS:
                    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                    raise InvalidOption(
                        f"--exec: there is no placeholder {match[0]}; there are {known}. "
                        f"For the text itself write {{{match[0]}}}"
                    )
        program = self._parts[0]
        if not _BRACES.search(program) and shutil.which(program) is None:
            raise InvalidOption(f"--exec: there is no program {program!r} that could be run")
        self._send = send_event
        self._output = output

    def arguments(self, event: Event) -> list[bytes]:
        """The arguments for an event."""
        values = {
            "path": _path(event),
            "url": str(event.subject).encode(),
            "event": event.event.encode(),
            "id": event.id.encode(),
            "size": b"" if event.size is None else b"%d" % event.size,
            "key": event.key,
            "container": (event.container or "").encode(),
            "name": (event.name or "").encode(),
        }
        return [_filled(part, values) for part in self._parts]

    def environment(self, event: Event, attempt: int) -> dict[bytes, bytes]:
        """The environment for an event: ours, and what the event is."""
        values = {
            "POLLER_EVENT_ID": event.id.encode(),
            "POLLER_EVENT": event.event.encode(),
            "POLLER_SEQ": b"%d" % event.seq,
            "POLLER_URL": str(event.subject).encode(),
            "POLLER_PATH": _path(event),
            "POLLER_KEY": event.key,
            "POLLER_CONTAINER": None if event.container is None else event.container.encode(),
            "POLLER_NAME": None if event.name is None else event.name.encode(),
            "POLLER_SIZE": None if event.size is None else b"%d" % event.size,
            "POLLER_MTIME": None if event.mtime is None else str(event.mtime).encode(),
            "POLLER_ETAG": None if event.etag is None else event.etag.encode(),
            "POLLER_DETECTED_AT": None
            if event.detected_at is None
            else event.detected_at.isoformat().encode(),
            "POLLER_ATTEMPT": b"%d" % attempt,
        }
        found = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
        for name, value in values.items():
            # One that is not known must not be taken over from whoever started us.
            if value is None:
                found.pop(name.encode(), None)
            else:
                found[name.encode()] = value
        return found

    async def start(self, event: Event, attempt: int) -> Started:
        """Run it for an event.

        :raises OSError, ValueError: if it can't be started.
        """
        process = await asyncio.create_subprocess_exec(
            *self.arguments(event),
            env=self.environment(event, attempt),
            stdin=PIPE if self._send else DEVNULL,
            stdout=self._output,
            start_new_session=True,
        )
        return Started(process, event.to_json().encode() + b"\n" if self._send else b"")


class Started:
    """A command that runs."""

    def __init__(self, process: Process, text: bytes) -> None:
        self._process = process
        self._text = text

    async def wait(self) -> int:
        """How it ended: its exit code, or minus the signal that ended it."""
        pipe = self._process.stdin
        if pipe is not None:
            try:
                pipe.write(self._text)
                await pipe.drain()
            except (BrokenPipeError, ConnectionResetError):
                pass  # it did not want to read it
            pipe.close()
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to all that it has started."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # it has just ended; or it is another user's by now, whom we may not disturb


def _path(event: Event) -> bytes:
    subject = event.subject
    if isinstance(subject, Url) and subject.scheme == "file":
        return bytes(subject)
    return str(subject).encode()


def _filled(part: str, values: dict[str, bytes]) -> bytes:
    found, end = [], 0
    for match in _BRACES.finditer(part):
        found.append(os.fsencode(part[end : match.start()]))
        found.append(values[match[1]] if match[1] is not None else match[0][:1].encode())
        end = match.end()
    found.append(os.fsencode(part[end:]))
    return b"".join(found)
