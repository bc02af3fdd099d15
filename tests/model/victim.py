"""A process that lives through everything the package does to its state, and can be killed anywhere in it.

``python -m tests.model.victim`` reads lives from its standard input, one JSON object a line, and forks a
child for each, which spares every one of some hundred lives the start of an interpreter. The child's
environment names the crash point at which it ends; the next child takes the same life up where
the last one left it, and goes on to its end.

Whatever is delivered is written to ``log`` *before* it is acknowledged, as a consumer's work would be.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from poller_core import (
    Event,
    EventTaken,
    FilePoller,
    INotifyPoller,
    UnknownClaim,
    UnknownConsumer,
    UnknownEvent,
    consuming,
    crashpoints,
    engine,
    listed,
    open_journal,
    pages,
    snapshot,
)
from poller_core.state import open_store
from poller_core.state.repair import repair_state, repair_store
from poller_core.state.single import finish, revive
from tests.model.tree import SteppedClock

KINDS = {"scan": FilePoller, "watch": INotifyPoller}
CONSUMERS = ["get", "batch", "claim", "take", "rewind"]


def small_steps() -> None:
    """Make every look take several steps."""
    vars(snapshot).update(PAGE_ENTRIES=4, PAGE_MAX=7, PAGE_MIN=3)
    vars(engine).update(_STEP_PAGES=2, _STEP_RECORDS=4)
    vars(listed).update(_BACKLOG=3)
    vars(consuming).update(_BACKLOG=3)


class Life:
    """One life. Every step can be begun again if it was not finished."""

    def __init__(self, place: Path, state: str, kind: str) -> None:
        self.place = place
        self.root = place / "root"
        self.state = state
        self.clock = SteppedClock()
        self.kind = KINDS[kind]
        self.pollers: dict[str, Any] = {}
        self.log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def run(self) -> None:
        progress = self.place / "progress"
        steps = [self.begin, *([self.change, self.get, self.batch] * 2), self.claim, self.change, self.take]
        steps += [
            self.handle,
            self.finish,
            self.letters,
            self.rewind,
            self.again,
            self.others,
            self.change,
            self.drain,
            self.prune,
        ]
        steps += [self.change, self.drain, self.leave]
        done = int(progress.read_text()) if progress.exists() else 0
        for number, step in enumerate(steps):
            if number >= done:
                if step not in (self.leave,):
                    self.open()
                step()
                # In one piece: a life must not lose its way because the test was killed while writing.
                (self.place / "progress.new").write_text(str(number + 1))
                (self.place / "progress.new").rename(progress)
        self.close()

    # -- telling -------------------------------------------------------------------------------

    def tell(self, consumer: str, what: str, events: Any = (), **more: Any) -> None:
        line = {"consumer": consumer, "what": what, "events": [event.to_dict() for event in events], **more}
        os.write(self.log, json.dumps(line).encode() + b"\n")

    def open(self) -> None:
        for name in CONSUMERS:
            if name not in self.pollers:
                self.pollers[name] = self.kind(
                    self.root,
                    recurse=True,
                    state=self.state,
                    consumer=name,
                    existing="report",
                    retention=0,
                    clock=self.clock,
                )

    def close(self) -> None:
        for poller in self.pollers.values():
            poller.close()
        self.pollers.clear()

    def engine(self) -> tuple[Any, int]:
        shared = self.pollers["take"]._engine
        return shared.store, shared.target_id

    # -- the steps -----------------------------------------------------------------------------

    def begin(self) -> None:
        """The first look, at what was there before, in many steps."""
        self.get()

    def change(self) -> None:
        """Files come, change, and go; which of them is the same in every run."""
        turn = len(os.listdir(self.place / "turns")) if (self.place / "turns").exists() else 0
        dice = random.Random(turn)
        for _ in range(6):
            path = self.root / f"d{dice.randrange(3)}" / f"{dice.randrange(12):02}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{dice.random()}")
        names = sorted(path for path in self.root.rglob("*") if path.is_file())
        for path in dice.sample(names, 3):
            path.unlink()
        for path in dice.sample(names, 4):
            if path.exists():
                path.write_text(f"changed {dice.random()}")
        (self.place / "turns" / str(turn)).mkdir(parents=True, exist_ok=True)

    def get(self) -> None:
        poller = self.pollers["get"]
        self.tell("get", "given", poller.get_new_events())
        poller.acknowledge()

    def batch(self) -> None:
        while batch := self.pollers["batch"].next_batch(4):
            with batch:
                self.tell("batch", "given", batch)

    def claim(self) -> None:
        poller = self.pollers["claim"]
        for token in ("t1", "t2"):
            self.tell("claim", "claimed", poller.claim(token, 4), token=token)
        self.tell("claim", "releasing", token="t1")
        try:
            poller.release("t1")
        except UnknownClaim:
            pass  # the last life did it
        self.tell("claim", "claimed", poller.claim("t3", 3), token="t3")

    def take(self) -> None:
        """Like a host that makes a run for each event: it knows the ids before, and asks again."""
        poller = self.pollers["take"]
        planned = self.planned()
        if not planned:
            planned = [event.id for event in poller.next_batch(3)]
            self.tell("take", "plans", ids=planned)
        for event in reversed(planned):
            self.tell("take", "taken", [poller.take(event, "k")])
            try:
                poller.take(event, "other")
            except EventTaken:
                continue
            raise AssertionError(f"{event} was taken twice")

    def planned(self) -> list[str]:
        lines = (self.place / "log").read_text().splitlines()
        found: list[list[str]] = [line["ids"] for line in map(json.loads, lines) if line["what"] == "plans"]
        return found[0] if found else []

    def handle(self) -> None:
        """Runs that know an event's id and the state; the target's poller has the lease meanwhile."""
        store, target = self.engine()
        with self.pollers["take"].lease() as lease, open_journal(self.state) as journal:
            try:
                store.handlers.forget(target, "load")
            except UnknownConsumer:
                pass  # nothing is left of an earlier life
            for event in self.planned():
                assert journal.take(event, "first", "load") == journal.event(event)
                assert journal.take(event, "first", "load").id == event
                try:
                    journal.take(event, "second", "load")
                except EventTaken:
                    continue
                raise AssertionError(f"{event} was taken twice")
            assert journal.release("first", handler="load") == len(self.planned())
            journal.take(self.planned()[0], "second", "load")
            journal.take(self.planned()[0], "first", "audit")
            assert store.handlers.forget(target, "audit") == 1
            assert lease.held()

    def finish(self) -> None:
        """Events that are finished from the last to the first, some of them twice."""
        poller = self.pollers["take"]
        waiting = poller.next_batch(3).events
        self.tell("take", "given", waiting[1:])
        poller.finish(waiting[2:])
        poller.finish(waiting[1:])

    def letters(self) -> None:
        """What a program that works on single events does: finished ones, dead ones, revived ones."""
        store, target = self.engine()
        waiting: list[Event] = self.pollers["take"].next_batch(4).events
        if waiting:
            self.tell("take", "given", waiting[1:])
            known = store.consumers.get(target, "take").seq
            finish(store.database, target, "take", [event.seq for event in waiting[1:]], known, known)
            first = waiting[0]
            for _ in range(2):
                self.tell("take", "given", [first])
                store.consumers.bury(target, "take", first.seq, 1, "it failed", first.to_json())
                revive(store.database, target, "take", first.seq)
            self.tell("take", "given", [first])
            store.consumers.bury(target, "take", first.seq, 3, "it failed again", first.to_json())
        for letter in store.consumers.dead(target, "take"):
            self.tell("take", "given", [Event.from_json(letter.event)])
            try:
                store.consumers.dig(target, "take", letter.seq)
            except UnknownEvent:
                pass

    def rewind(self) -> None:
        poller = self.pollers["rewind"]
        for _ in range(2):
            poller.rewind(1)
            self.tell("rewind", "given", poller.get_new_events())
        poller.rewind("now")

    def again(self) -> None:
        poller = self.pollers["rewind"]
        self.tell("rewind", "begins")
        poller.rewind("beginning")
        self.tell("rewind", "given", poller.get_new_events())
        poller.acknowledge()

    def others(self) -> None:
        """What is seldom done."""
        store, target = self.engine()
        extra = self.kind(self.root, recurse=True, state=self.state, consumer="extra", start=1, retention=0)
        self.tell("extra", "given", extra.get_new_events())
        extra.close()
        with self.kind(self.root, recurse=True, state=self.state, settle=86400, existing="report") as patient:
            assert patient.get_new_events() == []
            assert patient.status().held
        try:
            store.consumers.forget(target, "extra")
        except UnknownConsumer:
            pass
        store.accept_root(target)
        mended = repair_store(store, pages.unpack, pages.keys)
        assert not mended, mended

    def drain(self) -> None:
        self.get()
        self.batch()
        for name in ("claim", "take", "rewind"):
            with self.pollers[name].next_batch(None) as batch:
                self.tell(name, "given", batch)

    def prune(self) -> None:
        """Time passes, and what all have read is deleted."""
        self.clock.step(61, 61)
        self.get()
        store, target = self.engine()
        assert store.reload(target).floor_seq > 0

    def leave(self) -> None:
        """The target is forgotten; the log is complete before."""
        self.close()
        with open_store(self.state) as store:
            (self.place / "kept").write_text(json.dumps([target.entries for target in store.targets()]))
            for target in store.targets():
                store.forget(target.id)


def salvage(state: str) -> None:
    repair_state(state.removeprefix("sqlite:///"), pages.unpack, pages.keys)


def count() -> Counter[str]:
    """Count how often each crash point is passed, from now on."""
    passed: Counter[str] = Counter()
    for module in list(sys.modules.values()):
        if module.__name__.startswith("poller_core.") and hasattr(module, "crash_point"):
            module.crash_point = lambda name: passed.update([name])  # type: ignore[attr-defined]
    return passed


def live(life: dict[str, Any]) -> None:
    """What the child does."""
    if life["crash"] == "count":
        passed = count()
    else:
        os.environ["POLLER_CRASH_AT"] = life["crash"]
        importlib.reload(crashpoints)
    if life["task"] == "salvage":
        salvage(life["state"])
    else:
        small_steps()
        Life(Path(life["place"]), life["state"], life["kind"]).run()
    if life["crash"] == "count":
        Path(life["place"], "count").write_text(json.dumps(passed))


def main() -> None:
    """Live what comes in, and tell how each life ended."""
    for line in sys.stdin:
        life = json.loads(line)
        pid = os.fork()
        if not pid:
            try:
                live(life)
            except BaseException:
                Path(life["place"], "error").write_text(traceback.format_exc())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
