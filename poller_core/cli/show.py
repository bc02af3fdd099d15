"""What is printed: events, tables, JSON.

Guarantees: every name prints, UTF-8 or not, and none can move the cursor or
break a line; JSON is plain ASCII. No colour and no cut lines where the output
is not a terminal, or ``NO_COLOR`` is set. Whatever was not written raises.

Does not guarantee: that a name can be read back from anything but JSON.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ..engine import Progress
from ..errors import PollerError
from ..events import Event
from ..url import Url

__all__ = ["Output", "OutputFailed", "moment", "printable", "progress", "stamp", "subject_text"]

_STYLES = {"created": "green", "modified": "yellow", "deleted": "red"}
#: Wide enough for any table that is not for a terminal.
_UNCUT = 100_000


class OutputFailed(PollerError):
    """Standard output can't be written to."""


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would act upon."""
    if text.isprintable():
        return text
    found = []
    for char in text:
        if char.isprintable():
            found.append(char)
        elif "\udc80" <= char <= "\udcff":
            found.append(f"\\x{ord(char) - 0xDC00:02x}")  # a byte that is not UTF-8
        else:
            found.append(char.encode("unicode_escape").decode("ascii"))
    return "".join(found)


def subject_text(subject: object) -> str:
    """What an event is about, for people."""
    if isinstance(subject, Url) and subject.scheme == "file":
        return printable(subject.path)
    return printable(str(subject))


def moment(at: datetime | float | None) -> str:
    """A time for people, in local time, or ``never``."""
    if at is None:
        return "never"
    if not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    return at.astimezone().isoformat(sep=" ", timespec="seconds")


def stamp(at: float) -> str:
    """A time for machines: ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat()


class Output:
    """Standard output.

    :param json: as JSON.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self._stream = sys.stdout
        self._terminal = self._stream.isatty()

    def events(self, events: Iterable[Event]) -> None:
        """Print events, a line each, and see to it that they are out."""
        if self.json:
            self._write(*(self._json_line(event.to_dict()) for event in events))
        elif self._terminal:
            from rich.text import Text

            self._write(
                self._rendered(
                    *(
                        Text(f"{event.event:<8}", style=_STYLES.get(event.event, "")).append(
                            f" {subject_text(event.subject)}", style="default"
                        )
                        for event in events
                    )
                )
            )
        else:
            self._write(*(f"{event.event:<8} {subject_text(event.subject)}\n" for event in events))

    def record(self, value: dict[str, Any]) -> None:
        """One JSON object on a line."""
        self._write(self._json_line(value))

    def document(self, value: Any) -> None:
        """One JSON document."""
        self._write(json.dumps(value, indent=2, default=str) + "\n")

    def line(self, text: str = "", style: str = "") -> None:
        """A line for people."""
        from rich.text import Text

        self._write(self._rendered(Text(printable(text), style=style)))

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()
    ) -> None:
        """A table for people; columns whose numbers are in ``right`` are aligned to the right."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for number, name in enumerate(columns):
            table.add_column(name, justify="right" if number in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
        self._write(self._rendered(table, whole=False))

    def _rendered(self, *objects: Any, whole: bool = True) -> str:
        # Into a text, not to the stream: rich has ideas of its own about streams that break.
        from rich.console import Console

        text = io.StringIO()
        console = Console(
            file=text,
            force_terminal=self._terminal,
            markup=False,
            highlight=False,
            emoji=False,
            width=None if self._terminal else _UNCUT,
        )
        for one in objects:
            console.print(one, soft_wrap=whole)
        lines = text.getvalue().splitlines(keepends=True)
        return text.getvalue() if self._terminal else "".join(f"{line.rstrip()}\n" for line in lines)

    def _write(self, *texts: str) -> None:
        try:
            self._stream.writelines(texts)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(f"standard output can't be written to: {error.strerror}") from error

    @staticmethod
    def _json_line(value: dict[str, Any]) -> str:
        return json.dumps(value, separators=(", ", ": "), default=str) + "\n"


@contextmanager
def progress(wanted: bool, what: str) -> Iterator[Progress | None]:
    """Shows on a terminal how many names a long look has listed so far.

    :param wanted: False: shows nothing.
    """
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False, highlight=False)
    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:,.0f} names", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task(printable(what), total=None)
    began, lock, shown = time.monotonic(), threading.Lock(), False

    def tell(count: int) -> None:
        nonlocal shown
        # A look that is done at once needs no display.
        if time.monotonic() - began > 0.5:
            with lock:
                if not shown:
                    shown = True
                    bar.start()
            bar.update(task, completed=count)

    try:
        yield tell
    finally:
        if shown:
            bar.stop()
