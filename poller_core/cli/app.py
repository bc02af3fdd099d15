"""What all commands share: their options, how errors become exit codes, how signals end them.

Guarantees: standard output carries data and nothing else; messages go to
standard error, one line each, without a traceback (unless ``-vv``) and without
a password. What :data:`EXIT_CODES` says is what the commands end with.

Does not guarantee: that a second Ctrl-C waits for anything.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import typer

from .. import __version__
from ..errors import (
    InvalidOption,
    InvalidUrl,
    NoPoller,
    OffsetTooOld,
    PollerError,
    PollerRefused,
    StateError,
    TargetError,
    UnknownClaim,
    UnknownConsumer,
    UnknownEvent,
    UnknownScheme,
)
from .show import Output, printable

__all__ = [
    "EXIT_CODES",
    "Common",
    "Reading",
    "Watched",
    "app",
    "command",
    "complain",
    "main",
    "notice",
    "one_message",
]

EXIT_CODES = """Exit codes: 0 all went well; 1 a problem was found (check, doctor, status --check), or \
something failed; 2 wrong usage or bad input; 3 the target can't be looked at; 4 the state can't be used, or \
no longer has what was asked for; 5 some events became dead letters; 130 interrupted by Ctrl-C (143 by \
SIGTERM, 129 by SIGHUP); 141 whoever read the output went away."""

_CODES: tuple[tuple[tuple[type[PollerError], ...], int], ...] = (
    (
        (InvalidUrl, UnknownScheme, InvalidOption, UnknownConsumer, UnknownClaim, UnknownEvent),
        2,
    ),
    ((TargetError, NoPoller, PollerRefused), 3),
    ((StateError, OffsetTooOld), 4),
)

app = typer.Typer(
    name="poller",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poller {__version__}")
        raise typer.Exit


@app.callback()
def _poller(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Tells what was created, modified or deleted under a URL: nothing lost, nothing twice.

    What was seen and what was delivered is remembered in a state, so that a restart goes on where the last
    run stopped. A first look takes what is there already as known, unless --existing report is given.

    \b
      poller watch /data/inbox -r --include '*.csv' --exec 'load {path}'
      poller status
    """


# -- options that several commands have --------------------------------------


@dataclass(frozen=True)
class Common:
    """What every command has."""

    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            envvar="POLLER_STATE",
            show_default=False,
            metavar="URL",
            help="Where the state is kept: a path, sqlite:////path, or postgresql+psycopg://user@host/db. "
            "Without it: the user's state directory.",
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="For machines: events one JSON object a line, anything else one document."
        ),
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on standard error.")] = False
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="More messages; -vv: tracebacks, too."
        ),
    ] = 0

    def place(self) -> str:
        """The state, as given or where it is by default."""
        if self.state:
            return self.state
        import platformdirs

        return os.path.join(platformdirs.user_state_dir("poller"), "state.db")

    def output(self) -> Output:
        """Where the data goes."""
        return Output(json=self.json)


_Texts = list[str] | None


@dataclass(frozen=True)
class Watched:
    """What is listed; with the URL, these options say which target is meant."""

    recurse: Annotated[bool, typer.Option("--recurse", "-r", help="What is in subdirectories, too.")] = False
    exclude: Annotated[
        _Texts,
        typer.Option(
            "--exclude", metavar="PATTERN", help="Leave out what matches, as in .gitignore. May be repeated."
        ),
    ] = None
    no_default_exclude: Annotated[
        bool,
        typer.Option(
            "--no-default-exclude",
            help="Do not leave out what editors and transfers leave about (*.swp, *~, *.part …).",
        ),
    ] = False
    settle: Annotated[
        float,
        typer.Option("--settle", metavar="SECONDS", help="Report what has been quiet for so long."),
    ] = 0.0
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Look through symbolic links.")
    ] = False
    directories: Annotated[bool, typer.Option("--directories", help="Report directories, too.")] = False
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Report a change of mode, owner or links as modified.")
    ] = False
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="PARTS",
            show_default=False,
            help="What a change is told by, where a file system makes up inodes anew: some of "
            "size,mtime,ctime,inode; all by default.",
        ),
    ] = None

    def options(self) -> dict[str, Any]:
        """As a poller takes them."""
        # Where it is not said, it is as usual: containers have no subdirectories, and are listed whole.
        given: dict[str, Any] = {"recurse": True} if self.recurse else {}
        if self.fingerprint is not None:
            given["fingerprint"] = self.fingerprint.replace(",", " ").split()
        return {
            **given,
            "exclude": self.exclude or (),
            "default_exclude": not self.no_default_exclude,
            "settle": self.settle,
            "follow_symlinks": self.follow_symlinks,
            "directories": self.directories,
            "metadata": self.metadata,
        }


@dataclass(frozen=True)
class Reading:
    """What a consumer is given."""

    consumer: Annotated[
        str,
        typer.Option(
            "--consumer", "-c", metavar="NAME", help="Under which name is remembered what was delivered."
        ),
    ] = "default"
    include: Annotated[
        _Texts,
        typer.Option(
            "--include", metavar="PATTERN", help="Only what matches, as in .gitignore. May be repeated."
        ),
    ] = None
    events: Annotated[
        _Texts,
        typer.Option("--events", metavar="KINDS", help="Only these, such as created,modified."),
    ] = None
    existing: Annotated[
        str,
        typer.Option(
            "--existing",
            metavar="ignore|report",
            help="Whether a new consumer is given what is there already, as created.",
        ),
    ] = "ignore"
    scan: Annotated[
        bool, typer.Option("--scan", help="List everything at each look, even where inotify works.")
    ] = False

    def options(self) -> dict[str, Any]:
        """As a poller takes them."""
        found: dict[str, Any] = {
            "consumer": self.consumer,
            "include": self.include or (),
            "existing": self.existing,
        }
        if self.events:
            found["events"] = [name for text in self.events for name in text.replace(",", " ").split()]
        return found


# -- commands -----------------------------------------------------------------

Function = TypeVar("Function", bound=Callable[..., int | None])


def command(name: str) -> Callable[[Function], Function]:
    """Make a function a command of that name; its result is the exit code.

    Parameters whose type is a dataclass of options are taken apart into those
    options. One of them must be called ``common``.
    """

    def register(function: Function) -> Function:
        app.command(name, epilog="Exit codes: see 'poller --help'.")(_spread(function))
        return function

    return register


def _spread(function: Callable[..., int | None]) -> Callable[..., None]:
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind))
            continue
        groups[name] = kind
        options = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=options[field.name],
            )
            for field in fields(kind)
        ]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        made = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        code = _guarded(made["common"], lambda: function(**values, **made))
        if code:
            raise typer.Exit(code)

    # functools.wraps points to the original, whose signature must not be found.
    del run.__wrapped__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


class _Ended(BaseException):
    """A signal asks the process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def _guarded(common: Common, function: Callable[[], int | None]) -> int:
    """Run a command; its exit code, whatever happens."""
    with _messages(common), _signals():
        try:
            code = function() or 0
            sys.stdout.flush()
            return code
        except PollerError as error:
            if common.verbose >= 2:
                traceback.print_exc()
            _say(f"poller: {error}")
            try:
                sys.stdout.flush()
            except OSError:
                _silence_output()
            return next((code for kinds, code in _CODES if isinstance(error, kinds)), 1)
        except _Ended as ended:
            return 128 + ended.number
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except BrokenPipeError:
            _silence_output()
            return 128 + signal.SIGPIPE


def _say(text: str) -> None:
    # One line each: an error that lists reasons line by line is joined.
    text = printable(" ".join(line.strip() for line in text.splitlines()))
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is there to be told


def complain(text: str) -> None:
    """Tell people of something that is wrong."""
    _say(f"poller: {text}")


def notice(common: Common, text: str) -> None:
    """Tell people something that they should know, unless they want to hear of errors only."""
    if not common.quiet:
        _say(f"poller: {text}")


def _silence_output() -> None:
    # What is still buffered would fail once more when the interpreter ends.
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def one_message() -> Iterator[None]:
    """What is raised in here and ends the program is not logged as well: once is enough."""
    logger = logging.getLogger("poller_core")

    def elsewhere(record: logging.LogRecord) -> bool:
        return not (
            isinstance(record.args, tuple) and any(isinstance(one, TargetError) for one in record.args)
        )

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(f"poller: {self.format(record)}")


@contextmanager
def _messages(common: Common) -> Iterator[None]:
    level = logging.ERROR if common.quiet else logging.WARNING
    if common.verbose:
        level = logging.INFO if common.verbose == 1 else logging.DEBUG
    logger, handler = logging.getLogger("poller_core"), _Handler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does: whatever is open is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> NoReturn:
        raise _Ended(number)

    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What was ignored when the program was started, by nohup say, stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for left, handler in before.items():
            signal.signal(left, handler)


def main() -> None:
    """The entry point of the ``poller`` command."""
    for stream in (sys.stdout, sys.stderr):
        # Any name must print, whatever the locale can express.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="poller")
