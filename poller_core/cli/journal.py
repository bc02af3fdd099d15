"""``poller events`` and ``poller rewind``: the journal, and a consumer's place in it.

Guarantees: reading the journal moves no consumer. Does not guarantee: that
events which are older than the retention are still there.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import typer

from ..errors import InvalidOption, UnknownConsumer
from ..listed import ListingPoller
from ..local import FilePoller
from ..poller import make_poller
from ..state import Store, Target
from ..url import Url
from .app import Common, command, notice, one_message
from .manage import AnyConsumer, Consumer, Where
from .show import progress
from .targets import Which, choose, event_of, open_state, options_of

_BATCH = 1000
#: How often the state is asked by --follow, in seconds.
_PAUSE = 0.5
_FOR_EVER = 1000 * 366 * 86400.0


@command("events")
def events(
    common: Common,
    which: Which,
    url: Where = None,
    after: Annotated[
        int | None,
        typer.Option("--after", metavar="SEQ", min=0, help="Those behind this one.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Those found since then, such as 2026-11-23T06:00.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most so many.", show_default=False)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as others find them. This looks at nothing itself.")
    ] = False,
    consumer: AnyConsumer = None,
) -> int:
    """Print the events of the journal, for as long as it keeps them. No consumer is moved.

    \b
      poller events /data/inbox --since 2026-11-23
      poller events --after 1000 --limit 10 --json
    """
    if after is not None and since is not None:
        raise InvalidOption("--after and --since: give one of them")
    output = common.output()
    with open_state(common) as store:
        target = choose(store, url, which)
        if consumer is not None and store.consumers.get(target.id, consumer) is None:
            raise UnknownConsumer(f"{target.url} has no consumer {consumer!r}; see 'poller consumers'")
        place = _begin(store, target, after, since)
        left = limit
        while True:
            size = _BATCH if left is None else min(left, _BATCH)
            found, place = store.read(target.id, consumer or "", place, size)
            if found:
                # Reloaded: only a look tells whether the target is a directory or a file.
                target = store.reload(target.id)
                output.events(event_of(target, one) for one in found)
                left = None if left is None else left - len(found)
            if left == 0 or (not follow and len(found) < size):
                return 0
            if len(found) < size:
                time.sleep(_PAUSE)


def _begin(store: Store, target: Target, after: int | None, since: str | None) -> int:
    if since is not None:
        return max(store.seq_at(target.id, _time("--since", since)) - 1, target.floor_seq)
    return target.floor_seq if after is None else after


def _time(option: str, text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InvalidOption(
            f"{option} {text!r}: expected a time such as 2026-11-23T06:00 (here) or 2026-11-23T06:00+00:00"
        ) from None


@command("rewind")
def rewind(
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="SEQ|TIME|beginning|now", help="Which event is next.", show_default=False
        ),
    ],
    common: Common,
    which: Which,
    url: Where = None,
    consumer: Consumer = "default",
) -> int:
    """Have events delivered again, or skip some.

    --to takes an event's number, a time (what was found since then), beginning (all that is there now, as
    created) or now (nothing but what is still to come).

    \b
      poller rewind /data/inbox --to 2026-11-23T06:00
      poller rewind /data/inbox --consumer nightly --to beginning
    """
    output = common.output()
    with open_state(common) as store:
        target = choose(store, url, which)
        if store.consumers.get(target.id, consumer) is None:
            raise UnknownConsumer(f"{target.url} has no consumer {consumer!r}; see 'poller consumers'")
        if to.isdecimal():
            store.consumers.rewind(target.id, consumer, int(to))
        elif to not in ("beginning", "now"):
            seq = store.seq_at(target.id, _time("--to", to))
            if seq == target.floor_seq + 1 and target.floor_seq:
                notice(
                    common, f"events up to {target.floor_seq} were pruned; {seq} is the oldest that is kept"
                )
            store.consumers.rewind(target.id, consumer, seq)
    if to in ("beginning", "now"):
        _look_and_rewind(common, target, consumer, to)
    with open_state(common) as store:
        row = store.consumers.known(target.id, consumer)
        lag = store.consumers.lag(target.id, consumer)
    if output.json:
        output.document({"url": target.url, "consumer": consumer, "next_seq": row.seq + 1, "waiting": lag})
    else:
        output.line(f"consumer {consumer!r} goes on with event {row.seq + 1}; {lag} are waiting")
    return 0


def _look_and_rewind(common: Common, target: Target, consumer: str, to: str) -> None:
    """What is there now takes a look to know."""
    url = Url(target.url)
    make = FilePoller if url.scheme == "file" else make_poller
    with one_message(), progress(not common.quiet, f"looking at {target.url}") as tell:
        # Whose it is knows how long it keeps.
        kept: dict[str, Any] = {"retention": _FOR_EVER, "retention_unread": _FOR_EVER}
        poller = make(
            url, state=common.place(), consumer=consumer, progress=tell, **kept, **options_of(target)
        )
        with poller:
            assert isinstance(poller, ListingPoller)
            poller.rewind(to)
