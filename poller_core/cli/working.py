"""The options of ``--exec``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import typer

from ..errors import InvalidOption
from .app import Common
from .command import PLACEHOLDERS, Command

__all__ = ["Working"]

_NAMES = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


@dataclass(frozen=True)
class Working:
    """What is run for each event, and how."""

    exec: Annotated[
        str | None,
        typer.Option(
            "--exec",
            "-x",
            metavar="COMMAND",
            show_default=False,
            help=f"Run this for each event, without a shell; {_NAMES} are filled in, and POLLER_PATH, "
            "POLLER_EVENT, POLLER_EVENT_ID … are in its environment.",
        ),
    ] = None
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=1000, help="Run so many commands at a time.")
    ] = 1
    retries: Annotated[
        int,
        typer.Option("--retries", min=0, help="Run a command that fails so often again; then: dead letter."),
    ] = 3
    backoff: Annotated[
        float,
        typer.Option("--backoff", metavar="SECONDS", help="Wait before the first retry; doubled each time."),
    ] = 1.0
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", help="At the end, wait so long for commands that run."),
    ] = 10.0
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Give the command the event as JSON on its standard input.")
    ] = False

    def command(self, common: Common) -> Command | None:
        """The command, or None if there is none.

        :raises InvalidOption: if it can't be one.
        """
        for name, value in (("--backoff", self.backoff), ("--grace", self.grace)):
            if not math.isfinite(value) or value < 0:
                raise InvalidOption(f"{name} {value}: expected a number of seconds, 0 or more")
        if self.exec is None:
            if self != Working():
                raise InvalidOption(
                    "--jobs, --retries, --backoff, --grace and --stdin are for --exec, which is not there"
                )
            return None
        # Standard output is data: with --json ours, and the command's goes where messages go.
        return Command(self.exec, self.stdin, 2 if common.json else None)
