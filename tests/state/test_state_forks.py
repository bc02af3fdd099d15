"""A state and forks: on both sides of one, in the middle of a transaction, while threads write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.state.helpers import finish, start

FORK = """
import os, sys
parent = open_store(A[0])
target = target_of(parent)
add(parent, target, some(1))
read, write = os.pipe()
back, go = os.pipe()
child = os.fork()
if child == 0:
    try:
        add(parent, target, some(1))
        other = open_store(A[0])
        add(other, target, some(1))
        os.write(write, b"x")
        os.read(back, 1)
        add(parent, target, some(1))
        add(other, target, some(1))
        print("child", parent.last_seq(target.id), flush=True)
    finally:
        os._exit(0)
os.read(read, 1)
if A[1] == "closes":
    parent.close()
else:
    add(parent, target, some(1))
os.write(go, b"x")
os.waitpid(child, 0)
with open_store(A[0]) as again:
    print("parent", again.last_seq(target.id))
"""


@pytest.mark.parametrize("parent", ["closes", "goes on"])
def test_a_state_is_used_on_both_sides_of_a_fork(state_url: str, parent: str) -> None:
    expected = 5 if parent == "closes" else 6
    assert finish(start(FORK, state_url, parent)) == f"child {expected}\nparent {expected}\n"


FORK_BUSY = """
import os, sys
store = open_store(A[0])
target = target_of(store)
with store.database.transaction():
    add(store, target, some(1))
    child = os.fork()
    if child == 0:
        results = []
        for attempt in (lambda: store.generation(target.id), lambda: open_store(A[0])):
            try:
                attempt()
                results.append("fine")
            except StateUnreadable as error:
                results.append("forked" if "forked" in str(error) else repr(error))
        print(*results, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    add(store, target, some(1))
with open_store(A[0]) as again:
    print(again.last_seq(target.id))
"""


def test_a_fork_in_the_middle_of_a_transaction(state_url: str) -> None:
    output = finish(start(FORK_BUSY, state_url))
    if state_url.startswith("sqlite"):
        assert output == "forked forked\n2\n"
    else:
        # There the child just makes a connection of its own.
        assert output == "fine fine\n2\n"


FORK_WHILE_OTHERS_WRITE = """
import os, threading
store = open_store(A[0])
target = target_of(store)
done = threading.Event()
def write():
    while not done.wait(0.002):
        add(store, target, some(1))
writers = [threading.Thread(target=write) for _ in range(2)]
for writer in writers: writer.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        try:
            with store.database.transaction():
                store.database.run("UPDATE poller_targets SET entries = entries + 1")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
done.set()
for writer in writers: writer.join()
found = store.reload(target.id)
assert found.last_seq == len(store.read(target.id, "", 0)[0]) > 0
print(found.entries)
"""


def test_forks_while_threads_write(tmp_path: Path) -> None:
    process = start(FORK_WHILE_OTHERS_WRITE, str(tmp_path / "state.db"))
    assert finish(process) == "20\n"


def test_a_private_state_stays_with_its_process() -> None:
    code = """
import os
store = open_store(None)
target = target_of(store)
child = os.fork()
if child == 0:
    try:
        store.generation(target.id)
    except PollerError as error:
        print("child", type(error).__name__, "state=" in str(error), flush=True)
    store.close()
    os._exit(0)
os.waitpid(child, 0)
print(add(store, target, some(2)))
"""
    assert finish(start(code)) == "child PollerError True\n2\n"
