"""``poller dead``: the events whose command failed for good.

Guarantees: a dead letter is gone only when its event was given back to the
consumer, or its command has succeeded.

Does not guarantee: that an event can be given back for ever. The journal forgets
it after the retention; the dead letter itself can still be run with ``--exec``.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ..errors import InvalidOption, UnknownConsumer, UnknownEvent
from ..events import Event
from ..state import DeadLetter, Store
from ..state.single import revive
from .app import Common, command
from .feed import Stop, first
from .manage import Consumer, Where
from .runner import Outcome, Worker
from .show import Output, moment, stamp, subject_text
from .targets import Which, choose, open_state
from .watch import tell_outcome
from .working import Working


@command("dead")
def dead(
    common: Common,
    which: Which,
    working: Working,
    url: Where = None,
    consumer: Consumer = "default",
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="SEQ|all", help="Try again: this one, or all.", show_default=False),
    ] = None,
) -> int:
    """Show the events whose command failed for good, or try them again.

    \b
      poller dead /data/inbox
      poller dead --retry 17                         (given back: 'poller watch' or 'poll' runs it again)
      poller dead --retry all --exec 'load {path}'   (run now)
    """
    output = common.output()
    with open_state(common) as store:
        target = choose(store, url, which)
        if store.consumers.get(target.id, consumer) is None:
            raise UnknownConsumer(f"{target.url} has no consumer {consumer!r}; see 'poller consumers'")
        letters = store.consumers.dead(target.id, consumer)
        run = working.command(common)
        if retry is None:
            if run is not None:
                raise InvalidOption("--exec needs --retry: say which dead letters are meant, or all")
            _print_letters(output, letters)
            return 0
        chosen = _chosen(letters, retry, consumer)
        if run is None:
            for letter in chosen:
                revive(store.database, target.id, consumer, letter.seq)
            if output.json:
                output.document({"given_back": [letter.seq for letter in chosen]})
            else:
                output.line(f"{len(chosen)} events were given back to consumer {consumer!r}")
            return 0
        return asyncio.run(_run_again(store, target.id, consumer, chosen, common, working))


def _chosen(letters: list[DeadLetter], retry: str, consumer: str) -> list[DeadLetter]:
    if retry == "all":
        return letters
    if not retry.isdecimal():
        raise InvalidOption(f"--retry {retry!r}: expected the number of a dead letter, or all")
    chosen = [letter for letter in letters if letter.seq == int(retry)]
    if not chosen:
        raise UnknownEvent(f"consumer {consumer!r} has no dead letter {retry}; see 'poller dead'")
    return chosen


def _print_letters(output: Output, letters: list[DeadLetter]) -> None:
    events = [Event.from_json(letter.event) for letter in letters]
    if output.json:
        output.document(
            [
                {
                    "seq": letter.seq,
                    "attempts": letter.attempts,
                    "error": letter.error,
                    "died_at": stamp(letter.died_at),
                    "event": event.to_dict(),
                }
                for letter, event in zip(letters, events, strict=True)
            ]
        )
        return
    output.table(
        ("SEQ", "EVENT", "NAME", "ATTEMPTS", "ERROR", "SINCE"),
        [
            (
                letter.seq,
                event.event,
                subject_text(event.subject),
                letter.attempts,
                letter.error,
                moment(letter.died_at),
            )
            for letter, event in zip(letters, events, strict=True)
        ],
        right=(0, 3),
    )


async def _run_again(
    store: Store, target_id: int, consumer: str, letters: list[DeadLetter], common: Common, working: Working
) -> int:
    run = working.command(common)
    assert run is not None
    output, failed, left = common.output(), 0, list(letters)
    running: dict[asyncio.Task[Outcome], DeadLetter] = {}
    with Stop() as stop:
        worker = Worker(run, stop, working.retries, working.backoff)

        def collect() -> int:
            count = 0
            for task in [task for task in running if task.done()]:
                letter, outcome = running.pop(task), task.result()
                if outcome.done:
                    store.consumers.dig(target_id, consumer, letter.seq)
                elif outcome.final:
                    count += 1
                    attempts = letter.attempts + outcome.attempts
                    store.consumers.bury(
                        target_id, consumer, letter.seq, attempts, outcome.error, letter.event
                    )
                if outcome.final:
                    tell_outcome(common, output, outcome)
            return count

        try:
            while (left or running) and not stop.asked.is_set():
                busy = {Event.from_json(letter.event).key for letter in running.values()}
                waiting = []
                for letter in left:
                    event = Event.from_json(letter.event)
                    if len(running) < working.jobs and event.key not in busy:
                        running[asyncio.create_task(worker.work(event))] = letter
                    else:
                        waiting.append(letter)
                    busy.add(event.key)
                left = waiting
                await first(stop.asked, tasks=running)
                failed += collect()
        finally:
            stop.asked.set()  # whatever the reason is, nothing is run again any more
            await worker.wind_down(set(running), working.grace)
        failed += collect()
        if failed:
            return 5
        return 0 if stop.number is None else 128 + stop.number
