"""``poller watch``, ``poller poll`` and ``poller preview``.

Guarantees: events are acknowledged after they were printed and flushed, or when
their command has succeeded; never before.
"""

from __future__ import annotations

import asyncio
import math
import os
from typing import Annotated, Any

import typer

from ..engine import Progress
from ..errors import InvalidOption, InvalidUrl, PollerRefused, TargetError
from ..listed import ListingPoller, options_for
from ..local import FilePoller
from ..options import Options
from ..poller import make_poller
from ..preview import LeftOut, Preview, preview
from ..state import open_store
from ..state.copying import find_targets
from ..url import Url
from .app import Common, Reading, Watched, command, notice, one_message
from .command import Command
from .feed import Feed, Stop, first, patiently
from .runner import Outcome, Runner, Worker, describe
from .show import Output, progress, subject_text
from .working import Working

__all__ = ["open_poller"]

_BATCH = 1000
#: How long the end waits for a reader that does not read, in seconds.
_STALLED = 2.0

Target = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="What to look at: a path, or a URL such as file:///data/inbox.",
        show_default=False,
    ),
]
Interval = Annotated[
    float,
    typer.Option(
        "--interval", "-i", metavar="SECONDS", help="Look at least so often; hints are followed at once."
    ),
]


@command("watch")
def watch(
    url: Target,
    common: Common,
    watched: Watched,
    reading: Reading,
    working: Working,
    interval: Interval = 30.0,
) -> int:
    """Print events as they come, or run a command for each, until Ctrl-C.

    \b
      poller watch /data/inbox
      poller watch /data/inbox -r --include '*.csv' --exec 'load {path}' --jobs 4

    Without --exec an event is acknowledged when it was printed. With it, when the command succeeded; commands
    that ran when this program was killed run again at the next start. Ctrl-C waits for the commands that run
    (see --grace), a second one ends them; their events come again.
    """
    if not interval > 0 or not math.isfinite(interval):
        raise InvalidOption(f"--interval {interval}: expected a number of seconds above 0, such as 30")
    run = working.command(common)
    with open_poller(url, common, watched, reading) as poller:
        return asyncio.run(_work(poller, common, working, run, interval))


@command("poll")
def poll(url: Target, common: Common, watched: Watched, reading: Reading, working: Working) -> int:
    """Look once, print what is new (or run a command for each event), and end.

    \b
      poller poll /data/inbox -r --json
      poller poll /data/inbox --exec 'load {path}'     (in a crontab, say)
    """
    run = working.command(common)
    with open_poller(url, common, watched, reading) as poller:
        with one_message(), progress(not common.quiet, f"looking at {poller.url}") as tell:
            engine = poller._shared.engine
            if not engine.looked:  # making the poller may have taken the first look of all
                engine.look(progress=tell)
        if run is not None:
            return asyncio.run(_work(poller, common, working, run, None))
        output = common.output()
        while True:
            # One look serves them all.
            batch = poller.next_batch(_BATCH, max_age=math.inf)
            output.events(batch)
            batch.ack()
            if len(batch) < _BATCH:
                return 0


@command("preview")
def show_preview(
    url: Target,
    common: Common,
    watched: Watched,
    reading: Reading,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Show so many of each kind. JSON has them all.")
    ] = 20,
) -> int:
    """Show what 'poll' would report now, and what it would leave out and why. Changes nothing.

    \b
      poller preview /data/inbox -r --existing report --include '*.csv' --exclude tmp/
    """
    location = _url(url, watched)
    with one_message(), progress(not common.quiet, f"looking at {location.without_credentials()}") as tell:
        found = preview(
            location,
            make=FilePoller if reading.scan else make_poller,
            state=common.place(),
            progress=tell,
            **watched.options(),
            **reading.options(),
        )
    output = common.output()
    if output.json:
        output.document(found.to_dict())
    else:
        _print_preview(output, found, limit)
    return 0


# -- opening -----------------------------------------------------------------------


def _url(url: str, watched: Watched) -> Url:
    if not url:
        raise InvalidUrl("the URL is empty; expected a path such as /data/inbox, or file:///data/inbox")
    return Url(url)


def open_poller(url: str, common: Common, watched: Watched, reading: Reading) -> ListingPoller:
    """The poller that the options ask for.

    :raises PollerError: if it can't be made.
    """
    location = _url(url, watched)
    options: dict[str, Any] = {**watched.options(), **reading.options(), "state": common.place()}
    parsed = options_for(location, options)
    first = _is_new(location, common, parsed)
    try:
        with (
            one_message(),
            progress(not common.quiet, f"first look at {location.without_credentials()}") as tell,
        ):
            poller = (FilePoller if reading.scan else make_poller)(location, progress=tell, **options)
            if not isinstance(poller, ListingPoller):
                poller.close()
                raise PollerRefused(
                    f"{type(poller).__name__} keeps no state, so it can't be used from the command line"
                )
            _finish_first_look(poller, tell)
    except TargetError:
        if first:
            _forget_unseen(common, location, parsed)
        raise
    if first and parsed.existing == "ignore":
        notice(
            common,
            f"this was the first look at {location.without_credentials()} with these options: what is there "
            f"already counts as known (with --existing report it would have been given)",
        )
    return poller


def _finish_first_look(poller: ListingPoller, tell: Progress | None) -> None:
    engine = poller._shared.engine
    try:
        if not engine.store.reload(engine.target_id).complete:
            engine.look(progress=tell)
    except BaseException:
        poller.close()
        raise


def _is_new(url: Url, common: Common, options: Options) -> bool:
    """Whether this is to be the first look at the target."""
    with open_store(common.place()) as store:
        return not find_targets(store, str(url.without_credentials()), options.target.text())


def _forget_unseen(common: Common, url: Url, options: Options) -> None:
    """A target that was mistyped, say, must not stay in the state as one that can't be found."""
    with open_store(common.place()) as store:
        for target in find_targets(store, str(url.without_credentials()), options.target.text()):
            if target.looked_at is None and not store.consumers.all(target.id):
                store.forget(target.id)


# -- working -------------------------------------------------------------------------


async def _work(
    poller: ListingPoller,
    common: Common,
    working: Working,
    run: Command | None,
    interval: float | None,
) -> int:
    """Print, or run commands; the exit code."""
    output = common.output()
    dead = 0
    with Stop() as stop:
        if run is None:
            assert interval is not None
            await _print(poller, output, interval, stop)
        else:
            runner = Runner(
                poller,
                Worker(run, stop, working.retries, working.backoff),
                stop,
                jobs=working.jobs,
                grace=working.grace,
                interval=interval,
                tell=lambda outcome: tell_outcome(common, output, outcome),
            )
            try:
                await runner.run()
            finally:
                dead = runner.dead
        if dead:
            return 5
        return 0 if stop.number is None else 128 + stop.number


def tell_outcome(common: Common, output: Output, outcome: Outcome) -> None:
    """Tell how it went with an event: as data with ``--json``, else by a message."""
    if output.json:
        output.record(
            outcome.event.to_dict()
            | {"done": outcome.done, "attempts": outcome.attempts, "error": outcome.error or None}
        )
    if not outcome.done or common.verbose:
        notice(common, describe(outcome))


async def _print(poller: ListingPoller, output: Output, interval: float, stop: Stop) -> None:
    feed = Feed(poller, interval)
    try:
        while not stop.asked.is_set():
            pending = await patiently(stop, poller._pending, _BATCH)
            if pending is None:
                return
            events = poller._events(pending.events)
            if events:
                await _written(output, events, stop)
                await patiently(stop, poller._ack, pending)
                continue
            await patiently(stop, poller._pass_over, pending)
            waiting = asyncio.create_task(feed.news())
            await first(stop.asked, tasks=[waiting])
            if waiting.done():
                waiting.result()  # raises
            waiting.cancel()
    finally:
        feed.close()


async def _written(output: Output, events: list[Any], stop: Stop) -> None:
    """Print from a thread: a reader that does not read must not keep Ctrl-C from working."""
    writing = asyncio.create_task(asyncio.to_thread(output.events, events))
    await first(stop.asked, tasks=[writing])
    if not writing.done():
        await asyncio.wait({writing}, timeout=_STALLED)
        if not writing.done():
            # The thread can't be ended otherwise. Nothing is lost: these events were not acknowledged.
            os._exit(128 + (stop.number or 2))
    await writing


# -- preview ---------------------------------------------------------------------------


def _print_preview(output: Output, found: Preview, limit: int) -> None:
    if not found.known:
        output.line(f"{found.url} is not in the state with these options: this would be its first look.")
    if found.baseline is not None:
        output.line(
            f"Known from then on, and not reported: {found.baseline} (--existing report would give them)."
        )
    for title, events in (("Waiting in the journal", found.waiting), ("Would be reported", found.found)):
        if events or title != "Waiting in the journal":
            output.line(f"{title}: {len(events)}", "bold")
            output.events(events[:limit])
            _more(output, len(events), limit)
    for title, parts in (
        ("Held until later", found.held),
        ("Excluded", found.dropped),
        ("Not wanted by this consumer", found.unwanted),
    ):
        if parts:
            output.line(f"{title}: {len(parts)}", "bold")
            output.table(("NAME", "WHY"), [(_name(part), part.why) for part in parts[:limit]])
            _more(output, len(parts), limit)
    if found.gaps:
        output.line(f"Could not be listed: {len(found.gaps)}", "bold")
        for reason in found.gaps[:limit]:
            output.line(f"  {reason}")
        _more(output, len(found.gaps), limit)


def _more(output: Output, count: int, limit: int) -> None:
    if count > limit:
        output.line(f"  … and {count - limit} more")


def _name(part: LeftOut) -> str:
    name = subject_text(Url(part.subject.removesuffix("/"))) + ("/" if part.subject.endswith("/") else "")
    return f"{part.event} {name}" if part.event else name
