"""The histories of the model: everything that can happen to a tree and to those who watch it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from poller_core import EventTaken, UnknownClaim
from poller_core.events import EVENT_NAMES
from tests.model.sides import HOOK, Consumer, Killed, Side
from tests.model.tree import NAMES, SteppedClock, SteppedFileSystem, Tree

_numbers = itertools.count()

keys = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
#: A key that may be free, or the number of something that is there.
spots = st.one_of(keys, st.integers(0, 20), st.integers(0, 20))
yes_or_no = st.booleans()
which = st.integers(0, 7)
tokens = st.sampled_from(["t1", "t2", "t3"])
limits = st.sampled_from([1, 2, 5, None])


class History(RuleBasedStateMachine):
    """One history. ``base`` and ``url`` are set by the test that runs it."""

    base: ClassVar[Path]
    url: ClassVar[str | None]

    def __init__(self) -> None:
        super().__init__()
        self.clock = SteppedClock()
        place = self.base / f"history{next(_numbers)}"
        place.mkdir()
        self.tree = Tree(place, SteppedFileSystem(self.clock))
        self.sides: list[Side] = []

    @initialize(
        before=st.lists(keys, max_size=8),
        kinds=st.sampled_from(
            [(("scan",),), (("watch",),), (("scan", "watch"),), (("watch", "scan"),), (("scan",), ("watch",))]
        ),
        settle=st.sampled_from([0, 0, 30]),
        existing=st.sampled_from(["ignore", "report"]),
    )
    def begin(self, before: list[bytes], kinds: Any, settle: float, existing: str) -> None:
        for key in before:
            self._do(self._write_deep, key, 2)
        for number, names in enumerate(kinds):
            state = self.url or f"sqlite:///{os.fsdecode(self.tree.base)}/state{number}.db"
            # The pattern matches nothing; it makes another target of the same directory.
            options = {"state": state, "settle": settle, "existing": existing, "exclude": f"/never{number}"}
            self.sides.append(Side(names, options, self.tree, self.clock))
            self.sides[-1].open()

    def _do(self, operation: Callable[..., None], *arguments: Any) -> None:
        try:
            operation(*arguments)
        except OSError:
            return  # something else is there, or nothing is

    def _write_deep(self, key: bytes, size: int) -> None:
        head = key.rpartition(b"/")[0]
        if head:
            self.tree.mkdir(head)
        self.tree.write(key, size)

    def _at(self, spot: bytes | int, out: bool = False, directories: bool = False) -> bytes:
        return self.tree.some(spot, out, directories) if isinstance(spot, int) else spot

    # -- the tree ------------------------------------------------------------------------------

    @rule(spot=spots, size=st.sampled_from([0, 1, 4, 4]))
    def write(self, spot: bytes | int, size: int) -> None:
        self._do(self._write_deep, self._at(spot), size)

    @rule(head=keys, count=st.integers(2, 12))
    def write_many(self, head: bytes, count: int) -> None:
        for number in range(count):
            self._do(self._write_deep, head + b"/%d" % number, 1)

    @rule(key=keys, size=st.integers(0, 3))
    def write_outside(self, key: bytes, size: int) -> None:
        self._do(self.tree.mkdir, key.rpartition(b"/")[0], True)
        self._do(self.tree.write, key, size, True)

    @rule(spot=spots)
    def append(self, spot: bytes | int) -> None:
        self._do(self.tree.append, self._at(spot))

    @rule(spot=spots)
    def sneak(self, spot: bytes | int) -> None:
        self._do(self.tree.sneak, self._at(spot))

    @rule(spot=spots, seconds=st.sampled_from([0, 1, 10**9, 4 * 10**9]))
    def touch(self, spot: bytes | int, seconds: int) -> None:
        self._do(self.tree.touch, self._at(spot), seconds * 10**9)

    @rule(spot=spots, mode=st.sampled_from([0o600, 0o644]))
    def chmod(self, spot: bytes | int, mode: int) -> None:
        self._do(self.tree.chmod, self._at(spot), mode)

    @rule(spot=spots)
    def open_file(self, spot: bytes | int) -> None:
        self._do(self.tree.open, self._at(spot))

    @rule(key=keys, to=keys, look=yes_or_no)
    def open_and_move(self, key: bytes, to: bytes, look: bool) -> None:
        """A file gets another name while it is being written."""
        for place in (key, to):
            self._do(self.tree.mkdir, place.rpartition(b"/")[0])
        # Not looked at are the writers of what is left out, and of what was there before they came.
        known = look and not key.endswith(b".part") and not os.path.lexists(self.tree.path(key))
        self._do(self.tree.open, key)
        if look:
            self.audit(True)
        self._do(self.tree.move, key, to, False, False, known)

    @rule(index=which)
    def close_file(self, index: int) -> None:
        self.tree.close(index)

    @rule(key=keys)
    def mkdir(self, key: bytes) -> None:
        self._do(self.tree.mkdir, key)

    @rule(source=spots, to=spots)
    def move(self, source: bytes | int, to: bytes | int) -> None:
        self._do(self.tree.move, self._at(source), self._at(to), False, False)

    @rule(source=spots, to=spots, inward=yes_or_no)
    def move_across(self, source: bytes | int, to: bytes | int, inward: bool) -> None:
        self._do(self.tree.move, self._at(source, inward), self._at(to, not inward), inward, not inward)

    @rule(source=spots, key=keys, from_out=yes_or_no)
    def link(self, source: bytes | int, key: bytes, from_out: bool) -> None:
        self._do(self.tree.link, self._at(source, from_out), key, from_out)

    @rule(text=keys, key=keys)
    def symlink(self, text: bytes, key: bytes) -> None:
        self._do(self.tree.symlink, text, key)

    @rule(spot=spots)
    def remove(self, spot: bytes | int) -> None:
        self._do(self.tree.remove, self._at(spot))

    @rule(spot=spots, to_file=yes_or_no)
    def turn(self, spot: bytes | int, to_file: bool) -> None:
        self._do(self.tree.to_file if to_file else self.tree.to_directory, self._at(spot))

    @rule(index=which, remove=yes_or_no)
    def forbid(self, index: int, remove: bool) -> None:
        """Make a directory unreadable, and change something in it."""
        key = self._at(index, directories=True)
        self._do(self.tree.forbid, key)
        self._do(self._write_deep, key + b"/a", 3)
        if remove:
            self._do(self.tree.remove, key + b"/b")

    @rule(spot=st.integers(0, 20))
    def missed(self, spot: int) -> None:
        """A listing does not show a name that is there: nothing is deleted."""
        self.audit(True)
        self.tree.fs.missed = os.fsdecode(self._at(spot).rpartition(b"/")[2])
        self.audit(True)
        self.tree.fs.missed = ""

    @rule()
    def allow(self) -> None:
        self.tree.allow()

    @rule(seconds=st.sampled_from([1, 29, 31, 61, 7000]), jump=st.sampled_from([0, 0, 0, 3600, -3600]))
    def time_passes(self, seconds: float, jump: float) -> None:
        self.clock.step(seconds, seconds + jump)

    # -- consumers -----------------------------------------------------------------------------

    def _consumer(self, index: int) -> tuple[Side, Consumer]:
        side = self.sides[index % len(self.sides)]
        return side, side.consumers[index // len(self.sides) % len(side.consumers)]

    @rule(acknowledge=yes_or_no)
    def audit(self, acknowledge: bool) -> None:
        for side in self.sides:
            side.audit(acknowledge=acknowledge)
        self.tree.closed.clear()

    @rule(index=which)
    def get_new_events(self, index: int) -> None:
        side, consumer = self._consumer(index)
        events = consumer.poller.get_new_events()
        consumer.acknowledged()
        side.audit()
        consumer.handed = consumer.reader.given(events, None, side.exact)

    @rule(index=which, limit=limits, outcome=st.sampled_from(["done", "failed", "forgotten"]))
    def next_batch(self, index: int, limit: int | None, outcome: str) -> None:
        side, consumer = self._consumer(index)
        consumer.acknowledge()
        batch = consumer.poller.next_batch(limit)
        side.audit()
        seqs = consumer.reader.given(batch, limit, side.exact)
        if outcome == "done":
            with batch:
                pass
            consumer.reader.done(seqs)
        elif outcome == "failed":
            with pytest.raises(ZeroDivisionError), batch:
                raise ZeroDivisionError
        assert batch.acknowledged == (outcome == "done")

    @rule(index=which, token=tokens, limit=limits)
    def claim(self, index: int, token: str, limit: int | None) -> None:
        side, consumer = self._consumer(index)
        consumer.acknowledge()
        reader = consumer.reader
        known = reader.claims.get(token)
        claim = consumer.poller.claim(token, limit)
        side.audit()
        if known is not None:
            assert [event.seq for event in claim] == known
            side.ledger.recognize(claim)
        else:
            reader.claimed(token, reader.given(claim, limit, side.exact))

    @rule(index=which, token=tokens, place=st.integers(0, 30))
    def take(self, index: int, token: str, place: int) -> None:
        _, consumer = self._consumer(index)
        consumer.acknowledge()
        reader = consumer.reader
        if not reader.visible:
            return
        seq = sorted(reader.visible)[place % len(reader.visible)]
        owner = reader.owner(seq)
        event = reader.visible[seq]
        if owner == token or (owner is None and seq in reader.pending):
            assert consumer.poller.take(event.id, token).id == event.id
            if owner is None:
                reader.take(seq, token)
        elif token in reader.claims and seq in reader.claims[token] and seq not in reader.takes:
            assert consumer.poller.take(event.id, token).id == event.id
        else:
            with pytest.raises(EventTaken) as caught:
                consumer.poller.take(event.id, token)
            assert caught.value.token == owner

    @rule(index=which, token=tokens)
    def release(self, index: int, token: str) -> None:
        _, consumer = self._consumer(index)
        consumer.acknowledge()
        reader = consumer.reader
        if token in reader.claims or token in reader.takes.values():
            assert consumer.poller.release(token) == reader.release(token)
        else:
            with pytest.raises(UnknownClaim):
                consumer.poller.release(token)
        owners = {row.token for row in consumer.poller.claims()}
        assert owners == reader.claims.keys() | set(reader.takes.values())

    @rule(index=which, back=st.integers(0, 8))
    def rewind(self, index: int, back: int) -> None:
        _, consumer = self._consumer(index)
        reader = consumer.reader
        first = min(reader.pending, default=max(reader.visible, default=0) + 1)
        to = max(1, first - back)
        consumer.poller.rewind(to)
        consumer.handed = []
        reader.rewind(to)

    @rule(index=which, limit=limits, back=st.integers(1, 4))
    def claim_twice(self, index: int, limit: int | None, back: int) -> None:
        """Two tokens get the same events, since the consumer was rewound; the first one gives them back."""
        for token in ("t1", "t2"):
            self.rewind(index, back)
            self.claim(index, token, limit)
        self.release(index, "t1")

    @rule(index=which, to=st.sampled_from(["now", "beginning"]))
    def rewind_far(self, index: int, to: str) -> None:
        side, consumer = self._consumer(index)
        for _ in side.auditors:  # what each of the engines can find is found, so that rewinding finds nothing
            side.audit()
        consumer.poller.rewind(to)
        consumer.handed = []
        if to == "now":
            consumer.reader.rewind_now()
        else:
            self._begins(side, consumer)
        side.audit()

    def _begins(self, side: Side, consumer: Consumer) -> None:
        """What a consumer that begins at the beginning is given: what is reported, as created."""
        batch = consumer.poller.next_batch(None)
        side.ledger.recognize(batch)
        assert all(event.event == "created" for event in batch)
        if "created" in consumer.kinds:
            assert [event.key for event in batch] == sorted(side.ledger.reported)
        consumer.reader.rewind_beginning(batch.events)

    @rule(index=which, start=st.sampled_from(["now", "beginning", 1]))
    def another_consumer(self, index: int, start: str | int) -> None:
        side, _ = self._consumer(index)
        if len(side.consumers) > 2:
            return
        for _ in side.auditors:  # what each of the engines can find is found, so that opening finds nothing
            side.audit()
        consumer = Consumer("three", side.kinds[index % len(side.kinds)], EVENT_NAMES, side.ledger)
        consumer.poller = side.make(consumer.kind, consumer.name, start=start)
        side.consumers.append(consumer)
        if start == "beginning":
            self._begins(side, consumer)
        elif start == 1:
            consumer.reader.pending = set(consumer.reader.visible)

    # -- starting, stopping, dying -------------------------------------------------------------

    @rule(gently=yes_or_no)
    def restart(self, gently: bool) -> None:
        for side in self.sides:
            if gently:
                side.close()
            else:
                side.drop()
            side.open()

    def _die(self) -> None:
        for side in self.sides:
            side.drop()
        for side in self.sides:
            side.open()

    @rule(
        index=which,
        point=st.sampled_from(["look.commit", "store.commit", "store.look"]),
        after=yes_or_no,
        times=st.integers(1, 3),
    )
    def die_looking(self, index: int, point: str, after: bool, times: int) -> None:
        side, consumer = self._consumer(index)
        consumer.acknowledge()
        name = f"{point}.{'after' if after else 'before'}"
        try:
            with HOOK.at(name, times):
                events = consumer.poller.get_new_events()
        except Killed:
            self._die()
            side.audit()
        else:
            side.audit()
            consumer.handed = consumer.reader.given(events, None, side.exact)

    @rule(index=which, limit=limits, after=yes_or_no)
    def die_acknowledging(self, index: int, limit: int | None, after: bool) -> None:
        side, consumer = self._consumer(index)
        consumer.acknowledge()
        batch = consumer.poller.next_batch(limit)
        side.audit()
        seqs = consumer.reader.given(batch, limit, side.exact)
        with HOOK.at(f"store.ack.{'after' if after else 'before'}", 1), pytest.raises(Killed):
            batch.ack()
        self._die()
        if after:
            consumer.reader.done(seqs)

    @rule(index=which, limit=limits, token=tokens, after=yes_or_no)
    def die_claiming(self, index: int, limit: int | None, token: str, after: bool) -> None:
        side, consumer = self._consumer(index)
        consumer.acknowledge()
        side.audit()
        due = consumer.reader.next(limit)
        known = consumer.reader.claims.get(token)
        try:
            with HOOK.at(f"store.claim.{'after' if after else 'before'}", 1):
                claim = consumer.poller.claim(token, limit)
        except Killed:
            self._die()
            # Whether or not the claim was stored: the token has it now, and the same events.
            claim = consumer.poller.claim(token, limit)
        side.audit()
        seqs = [event.seq for event in claim]
        if known is not None:
            assert seqs == known
        else:
            assert seqs[: len(due)] == due
            consumer.reader.claimed(token, consumer.reader.given(claim, limit, side.exact))

    @rule(index=which, key=keys)
    def overtaken(self, index: int, key: bytes) -> None:
        """While one engine is about to write what it found, another one finds and writes the same."""
        self._do(self._write_deep, key, 1)
        side = self.sides[index % len(self.sides)]
        if len(side.kinds) > 1:
            first, second = side.auditors if index % 2 else reversed(side.auditors)
            with HOOK.at("look.commit.before", 1, second._engine.look):
                first._engine.look()
        side.audit()

    # -- the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.sides and sys.exc_info()[0] is None:
                self._conclude()
        finally:
            for side in self.sides:
                side.drop()
            self.tree.end()

    def _conclude(self) -> None:
        """Given time and permissions, everything is known, everywhere, and given to all."""
        while self.tree.writers:
            self.tree.close(0)
        self.tree.allow()
        for turn in range(3):
            self.clock.step(7200, 7200, idle=turn > 0)
            for side in self.sides:
                for _ in side.auditors:
                    side.audit()
        files = sum(len(names) for _, _, names in os.walk(self.tree.root))
        links = sum(
            os.path.islink(os.path.join(place, name))
            for place, names, _ in os.walk(self.tree.root)
            for name in names
        )
        for side in self.sides:
            side.audit(overdue=True)
            assert side.auditors[0].status().entries == files + links
            for consumer in side.consumers:
                consumer.acknowledge()
                with consumer.poller.next_batch(None) as batch:
                    consumer.reader.done(consumer.reader.given(batch, None, True))
                assert consumer.poller.get_new_events() == []
            side.close()
            side.open()
            side.audit(overdue=True)
