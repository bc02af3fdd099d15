"""Several processes on one state, and processes that are killed."""

from __future__ import annotations

import json
import os
import random
import time

import pytest

from poller_core.state import Store, Target, event_id
from poller_core.state.checks import check_store
from tests.state.helpers import add, finish, keys_of, seqs, some, start, target_of, unpack


@pytest.fixture
def target(store: Store) -> Target:
    """A target with 200 events, and a consumer "c" that has read none."""
    made = target_of(store)
    add(store, made, some(200))
    store.consumers.create(made.id, "c", 1)
    return made


def together(code: str, *many: tuple[object, ...]) -> list[str]:
    """Run the code in as many processes, all of which begin once the last one is up."""
    ready = "print('ready', flush=True)\ninput()\n"
    running = [start(ready + code, *arguments) for arguments in many]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [finish(process) for process in running]


def test_claims_of_different_tokens_are_disjoint(store: Store, target: Target, state_url: str) -> None:
    code = """
with open_store(A[0]) as s:
    print([seqs(s.consumers.claim(A[1], "c", f"{A[2]}-{n}", 7)) for n in range(8)])
"""
    output = together(code, *((state_url, target.id, number) for number in range(4)))
    batches = [batch for text in output for batch in json.loads(text) if batch]
    assert sorted(seq for batch in batches for seq in batch) == list(range(1, 201))
    assert len(batches) == 29
    assert store.consumers.pending(target.id, "c").events == []


def test_the_same_token_gets_the_same_batch(store: Store, target: Target, state_url: str) -> None:
    code = """
with open_store(A[0]) as s:
    print([seqs(s.consumers.claim(A[1], "c", f"run-{n}", 7)) for n in range(8)])
"""
    output = together(code, *((state_url, target.id) for _ in range(4)))
    assert len(set(output)) == 1
    assert [seq for batch in json.loads(output[0]) for seq in batch] == list(range(1, 57))


def test_every_event_is_taken_once(store: Store, target: Target, state_url: str) -> None:
    ids = [event_id(target.epoch, event.seq, event.record) for event in store.read(target.id, "", 0, 40)[0]]
    code = """
mine = []
with open_store(A[0]) as s:
    for id in A[2]:
        try:
            mine.append(s.consumers.take(A[1], "c", id, A[3]).seq)
        except EventTaken as error:
            assert error.token != A[3]
print(mine)
"""
    shuffled = [random.Random(number).sample(ids, len(ids)) for number in range(3)]
    output = together(code, *((state_url, target.id, shuffled[n], f"t-{n}") for n in range(3)))
    taken = [json.loads(text) for text in output]
    assert sorted(seq for batch in taken for seq in batch) == list(range(1, 41))
    assert seqs(store.consumers.pending(target.id, "c", 1).events) == [41]


def test_one_of_two_writers_wins(store: Store, target: Target, state_url: str) -> None:
    code = """
won = 0
with open_store(A[0]) as s:
    while won < 20:
        generation = s.generation(A[1])
        try:
            s.commit(A[1], generation, SnapshotChange(1, records=some(3, A[2])))
            won += 1
        except WriteConflict:
            pass
"""
    together(code, (state_url, target.id, "a"), (state_url, target.id, "b"))
    found = store.reload(target.id)
    assert (found.generation, found.last_seq) == (41, 200 + 2 * 20 * 3)
    # Each commit's events lie together: none was mixed with the other writer's.
    events = store.read(target.id, "", 200)[0]
    for number in range(0, 120, 3):
        assert len({event.record.key[:1] for event in events[number : number + 3]}) == 1
    assert check_store(store, unpack, keys_of) == []


def test_a_target_and_a_consumer_are_made_once(store: Store, state_url: str) -> None:
    code = """
with open_store(A[0]) as s:
    t = target_of(s, "new")
    c = s.consumers.create(t.id, "late", "beginning", iter([some(5, A[1])]))
    print(t.id, t.epoch, c)
"""
    output = together(code, *((state_url, name) for name in "abcd"))
    assert len(set(output)) == 1
    target = target_of(store, "new")
    assert len(store.consumers.pending(target.id, "late").events) == 5


POINTS = {
    "store.commit": "s.commit(A[1], s.generation(A[1]), SnapshotChange(1, put=[page(b'', [b'a'])], "
    "records=some(3), entries=1))",
    "store.look": "s.look_done(A[1], 5.0, 1.0, 'x')",
    "store.prune": "s.prune(A[1], 1e9, 0, 0)",
    "store.create": "s.consumers.create(A[1], 'd', 'beginning', iter([some(2000)]))",
    "store.ack": "s.consumers.ack(A[1], 'c', 60)",
    "store.claim": "s.consumers.claim(A[1], 'c', 'new', 10)",
    "store.take": "s.consumers.take(A[1], 'c', A[2], 'one')",
    "store.release": "s.consumers.release(A[1], 'c', 'old')",
    "store.handle": "s.handlers.take(A[2], 'c', 'one')",
    "store.handler_release": "s.handlers.release(A[1], 'h', 'run')",
    "store.forget_handler": "s.handlers.forget(A[1], 'h')",
    "store.finish_events": "finish_events(s.database, A[1], 'c', [A[2]])",
    "store.rewind": "s.consumers.rewind(A[1], 'c', 5)",
    "store.bury": "s.consumers.bury(A[1], 'c', 100, 1, 'bad', '{}')",
    "store.dig": "s.consumers.dig(A[1], 'c', 90)",
    "store.forget_consumer": "s.consumers.forget(A[1], 'c')",
    "store.forget": "s.forget(A[1])",
    "store.target": "target_of(s, 'two')",
}
TABLES = ("targets", "pages", "journal", "consumers", "claims", "takes", "returned", "dead")


def content(store: Store) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(store.database.rows(f"SELECT * FROM poller_{table}"), key=repr) for table in TABLES}


@pytest.mark.parametrize("name", POINTS)
def test_killed_before_or_after_a_commit(store: Store, target: Target, state_url: str, name: str) -> None:
    store.consumers.claim(target.id, "c", "old", 50)
    store.consumers.bury(target.id, "c", 90, 1, "bad", "{}")
    event = store.event(target.id, "c", 120)
    store.handlers.take(event_id(target.epoch, 120, event.record), "h", "run")
    code = "from poller_core.state.single import finish_events\n"
    code += f"with open_store(A[0]) as s:\n    {POINTS[name]}\n"
    arguments = (state_url, target.id, event_id(target.epoch, 120, event.record))

    before = content(store)
    environment = {**os.environ, "POLLER_CRASH_AT": f"{name}.before"}
    finish(start(code, *arguments, env=environment), 137)
    assert content(store) == before

    environment["POLLER_CRASH_AT"] = f"{name}.after"
    finish(start(code, *arguments, env=environment), 137)
    assert content(store) != before
    assert [each for each in check_store(store, unpack, keys_of) if each.severity == "error"] == []


WORKER = """
import sys
s = open_store(A[0])
number = 0
while True:
    number += 1
    p = s.consumers.pending(A[1], "c", 3)
    if A[2] == "write":
        done = s.commit(A[1], s.generation(A[1]), SnapshotChange(1, records=some(2)))
        print("wrote", done.last_seq, flush=True)
    elif p.events:
        print("read", *seqs(p.events), flush=True)
        s.consumers.ack(A[1], "c", p.upto, p.returned)
        print("acked", p.upto, flush=True)
"""


def test_killed_at_random_moments(store: Store, target: Target, state_url: str) -> None:
    """What was written is there, what was acknowledged is not given again, nothing is left out."""
    written, acked = 200, 0
    for seed in range(6):
        workers = [start(WORKER, state_url, target.id, role) for role in ("write", "read")]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.0, 0.3))
        for worker in workers:
            worker.kill()
        for worker in workers:
            output, errors = worker.communicate(timeout=60)
            assert not errors
            for line in output.splitlines(keepends=True):
                what, *numbers = line.split() if line.endswith("\n") else ("",)
                if what == "wrote":
                    written = max(written, int(numbers[0]))
                elif what == "acked":
                    acked = int(numbers[0])
                elif what == "read":
                    # What comes was not acknowledged before.
                    assert int(numbers[0]) > acked
        found = store.consumers.get(target.id, "c")
        assert found is not None
        assert found.seq >= acked
        assert store.last_seq(target.id) >= written
        assert check_store(store, unpack, keys_of) == []
        acked = found.seq
    events = store.read(target.id, "", 0)[0]
    assert seqs(events) == list(range(1, store.last_seq(target.id) + 1))
    assert len(events) == 200 + 2 * (store.generation(target.id) - 1)
