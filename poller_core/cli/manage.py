"""What is done with a state: status, consumers, claims, release, check, repair, forget.

Guarantees: a state or target that is not there is an error and is never made.
What deletes asks first, unless ``--yes`` is given.

Does not guarantee: anything about programs that use the state at the same time,
beyond that each change is whole. A rewind or release reaches a running ``poller
watch`` with its next look.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from .. import pages
from ..errors import InvalidOption, PollerError, UnknownClaim, UnknownConsumer
from ..state import ClaimRow, Store, Target
from ..state.checks import check_store
from ..state.repair import repair_state
from ..status import Status
from ..stored import status_of
from .alarm import Alarm
from .app import Common, command, complain, notice
from .show import Output, moment, stamp
from .targets import Which, choose, listed, open_state, options_of

Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[URL]",
        show_default=False,
        help="What is watched. Not needed if the state has only one target.",
    ),
]
Consumer = Annotated[str, typer.Option("--consumer", "-c", metavar="NAME", help="Whose.")]
AnyConsumer = Annotated[
    str | None, typer.Option("--consumer", "-c", metavar="NAME", help="Only this one's.", show_default=False)
]
AnyHandler = Annotated[
    str | None,
    typer.Option(
        "--handler", metavar="NAME", help="Only what was taken for this handler.", show_default=False
    ),
]


@command("status")
def status(common: Common, which: Which, alarm: Alarm, url: Where = None) -> int:
    """Show what is watched and how it is: last look, entries, errors, what consumers have not read.

    \b
      poller status
      poller status /data/inbox --json
      poller status --check --max-age 600 --max-lag 1000     (ends with 1 if something is wrong)
    """
    output = common.output()
    with open_state(common) as store:
        found = [status_of(store, target.id) for target in listed(store, url, which)]
        place = store.url
    problems = alarm.problems(found)
    if output.json:
        output.document({"state": place, "targets": [one.to_dict() for one in found]})
    else:
        _print_statuses(output, place, found, one=url is not None or bool(which.target))
    for text in problems:
        complain(text)
    return 1 if problems else 0


def _print_statuses(output: Output, place: str, found: list[Status], *, one: bool) -> None:
    if not one and len(found) != 1:
        output.line(f"State {place}: {len(found) or 'no'} targets")
        if not found:
            return
        output.table(
            ("TARGET", "URL", "LAST LOOK", "ENTRIES", "EVENTS", "MOST BEHIND", "TROUBLE"),
            [
                (
                    status.target[:8],
                    _place(status),
                    moment(status.last_look),
                    status.entries,
                    status.last_seq,
                    max((consumer.lag for consumer in status.consumers), default=0),
                    status.error or (f"{status.gaps} gaps" if status.gaps else ""),
                )
                for status in found
            ],
            right=(3, 4, 5),
        )
        return
    for status in found:
        _print_status(output, place, status)


def _place(one: Status) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in one.options.items())
    return f"{one.url} ({options})" if options else one.url


def _print_status(output: Output, place: str, one: Status) -> None:
    output.line(one.url, "bold")
    took = "" if one.look_seconds is None else f", took {one.look_seconds:.3g} s"
    rows: list[tuple[str, object]] = [
        ("state", place),
        ("target", one.target),
        ("options", ", ".join(f"{name}={value!r}" for name, value in one.options.items()) or "default"),
        ("last look", f"{moment(one.last_look)}{took}"),
        ("first look", "done" if one.complete else "not finished yet"),
        ("entries", one.entries),
        ("events", f"{one.oldest_seq} to {one.last_seq}" if one.last_seq >= one.oldest_seq else "none kept"),
        ("held back", one.held),
        (
            "noticing",
            f"as it happens, {one.watches} watches, {one.overflows} overflows"
            if one.watching
            else "at each look",
        ),
    ]
    if one.error:
        rows.append(("error", one.error))
    rows += [("gap", reason) for reason in one.errors]
    if one.gaps > len(one.errors):
        rows.append(("gaps", f"{one.gaps - len(one.errors)} more"))
    rows += [
        (
            "consumer",
            f"{consumer.name}: read up to {consumer.seq}, {consumer.lag} behind, "
            f"at {moment(consumer.updated_at)}",
        )
        for consumer in one.consumers
    ]
    output.table(("", ""), rows)
    output.line()


@command("consumers")
def consumers(common: Common, which: Which, url: Where = None) -> int:
    """Show who reads the events, and how far each is.

    \b
      poller consumers /data/inbox
    """
    output = common.output()
    with open_state(common) as store:
        target = choose(store, url, which)
        claims = store.consumers.claims(target.id)
        found = [
            {
                "consumer": row.name,
                "seq": row.seq,
                "lag": store.consumers.lag(target.id, row.name),
                "claims": sum(claim.kind != "handler" and claim.consumer == row.name for claim in claims),
                "dead": len(store.consumers.dead(target.id, row.name)),
                "created_at": stamp(row.created_at),
                "updated_at": stamp(row.updated_at),
            }
            for row in store.consumers.all(target.id)
        ]
    if output.json:
        output.document(found)
    else:
        output.table(
            ("CONSUMER", "READ UP TO", "BEHIND", "CLAIMS", "DEAD LETTERS", "SINCE", "LAST READ"),
            [
                tuple(
                    moment(datetime.fromisoformat(str(v))) if k.endswith("_at") else v for k, v in one.items()
                )
                for one in found
            ],
            right=(1, 2, 3, 4),
        )
    return 0


# -- claims ----------------------------------------------------------------------------


def _claims(
    store: Store, targets: list[Target], consumer: str | None, handler: str | None
) -> list[tuple[Target, ClaimRow]]:
    if consumer is not None and handler is not None:
        raise InvalidOption("--consumer and --handler: give one of them")
    if handler is not None:
        return [(target, row) for target in targets for row in store.handlers.claims(target.id, handler)]
    return [(target, row) for target in targets for row in store.consumers.claims(target.id, consumer)]


@command("claims")
def claims(
    common: Common,
    which: Which,
    url: Where = None,
    consumer: AnyConsumer = None,
    handler: AnyHandler = None,
) -> int:
    """Show which tokens have which events, of consumers and for handlers.

    \b
      poller claims
    """
    output = common.output()
    with open_state(common) as store:
        found = _claims(store, listed(store, url, which), consumer, handler)
    if output.json:
        output.document(
            [
                {
                    "url": target.url,
                    "target": target.digest,
                    "consumer": row.consumer,
                    "token": row.token,
                    "kind": row.kind,
                    "ranges": row.ranges,
                    "count": row.count,
                    "claimed_at": stamp(row.claimed_at),
                }
                for target, row in found
            ]
        )
        return 0
    output.table(
        ("TOKEN", "CONSUMER", "KIND", "EVENTS", "SEQ", "SINCE", "URL"),
        [
            (
                row.token,
                row.consumer,
                row.kind,
                row.count,
                _ranges(row.ranges),
                moment(row.claimed_at),
                target.url,
            )
            for target, row in found
        ],
        right=(3,),
    )
    return 0


def _ranges(ranges: list[tuple[int, int]]) -> str:
    texts = [str(start) if start == stop else f"{start}–{stop}" for start, stop in ranges[:5]]
    return ", ".join(texts) + (" …" if len(ranges) > 5 else "")


@command("release")
def release(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="As 'poller claims' shows it.", show_default=False)
    ],
    common: Common,
    which: Which,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Of this target.", show_default=False)
    ] = None,
    consumer: AnyConsumer = None,
    handler: AnyHandler = None,
) -> int:
    """Give the events of a token back: they are the consumer's next ones; a handler's can be taken again.

    \b
      poller release run-2026-11-23
    """
    output = common.output()
    with open_state(common) as store:
        every = _claims(store, listed(store, url, which), consumer, handler)
        found = {
            (target.id, row.kind == "handler", row.consumer): target
            for target, row in every
            if row.token == token
        }
        if not found:
            raise UnknownClaim(f"no token {token!r} has any events here; see 'poller claims'")
        if len(found) > 1:
            texts = ", ".join(f"{target.url} {_whose(*key[1:])}" for key, target in found.items())
            raise InvalidOption(
                f"several have events of token {token!r}: {texts}; say which, by --url and --consumer "
                "or --handler"
            )
        ((target_id, handles, name),) = found
        owners = store.handlers if handles else store.consumers
        count = owners.release(target_id, name, token)
    if output.json:
        output.document({"released": count, "handler" if handles else "consumer": name, "token": token})
    else:
        output.line(f"{count} events were given back to {_whose(handles, name)}")
    return 0


def _whose(handles: bool, name: str) -> str:
    return f"handler {name!r}" if handles else f"consumer {name!r}"


# -- the state as a whole --------------------------------------------------------------------


@command("check")
def check(common: Common) -> int:
    """Read all of the state and say what is damaged. Ends with 1 if something is.

    \b
      poller check --state /var/lib/poller/state.db
    """
    output = common.output()
    with open_state(common, verify=False) as store:
        found = check_store(store, pages.unpack, pages.keys)
        targets = len(store.targets())
    if output.json:
        output.document([_fields(one, "severity", "where", "what", "mend") for one in found])
    elif found:
        output.table(
            ("", "WHERE", "WHAT", "TO MEND IT"),
            [(one.severity, one.where, one.what, one.mend) for one in found],
        )
    else:
        output.line(f"All is well: every page, event and reference of {targets} target(s) was read.")
    return 1 if any(one.severity == "error" for one in found) else 0


@command("repair")
def repair(
    common: Common,
    which: Which,
    url: Where = None,
    accept_root: Annotated[
        bool,
        typer.Option(
            "--accept-root",
            help="Not a repair of the state: let the target's root be on another file system than before. "
            "Its files are then compared with what was known.",
        ),
    ] = False,
) -> int:
    """Mend what 'check' finds, and say what that cost. Stop what uses the state before.

    \b
      poller repair --state /var/lib/poller/state.db
      poller repair /data/inbox --accept-root
    """
    output = common.output()
    if accept_root:
        with open_state(common) as store:
            target = choose(store, url, which)
            store.accept_root(target.id)
        if output.json:
            output.document({"accepted": target.url, "target": target.digest})
        else:
            output.line(f"the next look at {target.url} takes whatever is there for the right file system")
        return 0
    if url is not None or which != Which():
        raise InvalidOption("repair mends the state as a whole; a URL is for --accept-root only")
    # Not opened before: a file that is broken inside may not even open.
    done = repair_state(common.place(), pages.unpack, pages.keys)
    if output.json:
        output.document([_fields(one, "what", "cost") for one in done])
    elif done:
        output.table(("MENDED", "WHAT IT COST"), [(one.what, one.cost) for one in done])
    else:
        output.line("There was nothing to mend.")
    return 0


def _fields(one: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(one, name) for name in names}


@command("forget")
def forget(
    common: Common,
    which: Which,
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="What is not watched any more.", show_default=False)
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            "--consumer", "-c", metavar="NAME", help="Forget only this consumer.", show_default=False
        ),
    ] = None,
    handler: Annotated[
        str | None,
        typer.Option(
            "--handler",
            metavar="NAME",
            help="Forget only which runs have which events for this handler.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete what the state knows of a target: its snapshot, its events, its consumers.

    \b
      poller forget /data/old --yes
    """
    output = common.output()
    if url is None and not which.target:
        raise InvalidOption("say what is to be forgotten: its URL, or --target")
    if consumer is not None and handler is not None:
        raise InvalidOption("--consumer and --handler: give one of them")
    with open_state(common) as store:
        target = choose(store, url, which)
        one = consumer if consumer is not None else handler
        what = target.url if one is None else f"{_whose(handler is not None, one)} of {target.url}"
        if consumer is not None and store.consumers.get(target.id, consumer) is None:
            raise UnknownConsumer(f"{target.url} has no consumer {consumer!r}; see 'poller consumers'")
        if handler is not None and not store.handlers.claims(target.id, handler):
            raise UnknownConsumer(
                f"no handler {handler!r} has any events of {target.url}; see 'poller claims'"
            )
        if not yes:
            options = ", ".join(f"{name}={value!r}" for name, value in options_of(target).items())
            _ask(f"forget {what}{f' ({options})' if options else ''}, with {target.entries} entries?")
        if handler is not None:
            store.handlers.forget(target.id, handler)
        elif consumer is not None:
            store.consumers.forget(target.id, consumer)
        else:
            store.forget(target.id)
    if output.json:
        document = {"forgotten": target.url, "target": target.digest, "consumer": consumer}
        output.document(document if handler is None else {**document, "handler": handler})
    else:
        notice(common, f"forgot {what}")
    return 0


class _Refused(PollerError):
    """Whoever was asked said no."""


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise InvalidOption(f"{question} Nobody is there to be asked; give --yes if it is meant")
    print(f"poller: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise _Refused("nothing was forgotten")
