"""Finding damage and mending it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from poller_core.errors import OffsetTooOld, StateDamaged, StateLocked, StateNewer, StateUnreadable
from poller_core.state import SnapshotChange, Store, Target, open_store, schema
from poller_core.state.checks import Finding, check_store
from poller_core.state.repair import Repaired, repair_state, repair_store
from tests.state.helpers import add, beginning, finish, keys_of, page, seqs, some, start, target_of, unpack


def fill(store: Store) -> Target:
    """A target with three pages, events 1 to 30 in three rows, two consumers, a claim, a take."""
    target = target_of(store)
    pages = [page(b"", [b"a", b"b"]), page(b"h", [b"h", b"i", b"j"]), page(b"p", [b"q"])]
    store.commit(target.id, 0, SnapshotChange(1, put=pages, records=some(10), entries=6))
    add(store, target, some(10))
    add(store, target, some(10))
    store.consumers.create(target.id, "c", 1)
    store.consumers.create(target.id, "late", "beginning", beginning(some(5)))
    store.consumers.claim(target.id, "c", "run", 4)
    return target


@pytest.fixture
def target(store: Store) -> Target:
    return fill(store)


def found(store: Store) -> list[Finding]:
    return check_store(store, unpack, keys_of)


def mended(store: Store) -> list[Repaired]:
    return repair_store(store, unpack, keys_of)


def harm(store: Store, sql: str, *parameters: Any) -> None:
    with store.database.transaction():
        assert store.database.run(sql, parameters) > 0


def test_nothing_is_wrong(store: Store, target: Target) -> None:
    before = store.reload(target.id)
    assert found(store) == []
    assert mended(store) == []
    assert store.reload(target.id) == before


BROKEN_PAGES = {
    "digest": ("UPDATE poller_pages SET digest = ? WHERE first_key = ?", b"x" * 32),
    "blob": ("UPDATE poller_pages SET blob = ? WHERE first_key = ?", b"nonsense"),
    "content": ("UPDATE poller_pages SET blob = ? WHERE first_key = ?", b"Ph\nj\nk"),
}


@pytest.mark.parametrize("what", BROKEN_PAGES)
def test_a_broken_page(store: Store, target: Target, what: str) -> None:
    sql, value = BROKEN_PAGES[what]
    harm(store, sql, value, b"h")
    generation = store.generation(target.id)
    assert any("page 'h'" in finding.where for finding in found(store))
    costs = [repaired.cost for repaired in mended(store) if "page 'h'" in repaired.what]
    assert "at most 3" in costs[0]
    assert found(store) == []
    assert [head.first_key for head in store.heads(target.id)] == [b"", b"p"]
    now = store.reload(target.id)
    assert now.entries == 3
    # A look that is under way has read the page, and must begin again.
    assert now.generation > generation


@pytest.mark.parametrize("keys", [[b"b", b"a"], [b"a", b"a"], [b"a", b"h"], [b"a", b"z"]])
def test_keys_that_are_not_in_order_or_not_the_pages(store: Store, target: Target, keys: list[bytes]) -> None:
    wrong = page(b"", keys)
    harm(
        store,
        "UPDATE poller_pages SET digest = ?, blob = ? WHERE first_key = ?",
        wrong.digest,
        wrong.blob,
        b"",
    )
    assert [finding.severity for finding in found(store)] == ["error"] * 3
    mended(store)
    # The next page begins where the first one did: no key lies ahead of all pages.
    assert [head.first_key for head in store.heads(target.id)] == [b"", b"p"]
    assert found(store) == []


def test_all_pages_broken(store: Store, target: Target) -> None:
    harm(store, "UPDATE poller_pages SET blob = ?", b"nonsense")
    mended(store)
    assert list(store.heads(target.id)) == []
    assert store.reload(target.id).entries == 0
    assert found(store) == []


def test_first_and_counted_wrongly(store: Store, target: Target) -> None:
    harm(store, "UPDATE poller_pages SET blob = ? WHERE first_key = ?", b"nonsense", b"")
    harm(store, "UPDATE poller_pages SET entries = 99 WHERE first_key = ?", b"h")
    mended(store)
    assert [(head.first_key, head.entries) for head in store.heads(target.id)] == [(b"", 3), (b"p", 1)]
    assert found(store) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE poller_pages SET entries = entries + 1",
        "UPDATE poller_targets SET entries = entries + 1",
        "UPDATE poller_targets SET next_seq = next_seq - 3",
    ],
)
def test_wrong_numbers(store: Store, target: Target, sql: str) -> None:
    before = store.reload(target.id)
    harm(store, sql)
    assert found(store) != []
    assert all("nothing" in repaired.cost for repaired in mended(store))
    assert found(store) == []
    assert store.reload(target.id) == before


BROKEN_ROWS = {
    "digest": "UPDATE poller_journal SET digest = ? WHERE first_seq = 11",
    "blob": "UPDATE poller_journal SET blob = ? WHERE first_seq = 11",
    "gone": "DELETE FROM poller_journal WHERE first_seq = 11 AND digest <> ?",
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_a_broken_journal_row_is_told_and_not_passed_over(store: Store, target: Target, what: str) -> None:
    store.consumers.create(target.id, "behind", 21)
    harm(store, BROKEN_ROWS[what], b"x" * 16)
    assert any(finding.severity == "error" for finding in found(store))
    assert any("given up" in repaired.cost for repaired in mended(store))
    assert {finding.severity for finding in found(store)} <= {"warning"}

    # Who has read it does not care. Who has not gets what is before it, and then is told.
    assert seqs(store.consumers.pending(target.id, "behind").events) == list(range(21, 31))
    pending = store.consumers.pending(target.id, "c")
    assert seqs(pending.events) == [5, 6, 7, 8, 9, 10]
    store.consumers.ack(target.id, "c", pending.upto)
    for _ in range(2):
        with pytest.raises(OffsetTooOld, match="11 to 20 were lost"):
            store.consumers.pending(target.id, "c")
    store.consumers.rewind(target.id, "c", 21)
    assert seqs(store.consumers.pending(target.id, "c").events) == list(range(21, 31))
    assert mended(store) == []


def test_returned_events_that_were_lost(store: Store, target: Target) -> None:
    store.consumers.ack(target.id, "c", 35)
    store.consumers.release(target.id, "c", "run")
    harm(store, "UPDATE poller_journal SET blob = ? WHERE first_seq = 1", b"x")
    mended(store)
    with pytest.raises(OffsetTooOld, match="1 to 10 were lost"):
        store.consumers.pending(target.id, "c")
    store.consumers.rewind(target.id, "c", 29)
    assert seqs(store.consumers.pending(target.id, "c").events) == [29, 30]


def test_the_newest_events_are_gone(store: Store, target: Target) -> None:
    harm(store, "DELETE FROM poller_journal WHERE first_seq > 20")
    mended(store)
    # Their numbers are not given out again.
    assert add(store, target, some(1)) == 36
    with pytest.raises(OffsetTooOld, match="21 to 35"):
        store.consumers.pending(target.id, "late")


def test_rows_that_overlap(store: Store, target: Target) -> None:
    harm(store, "UPDATE poller_journal SET first_seq = 8 WHERE first_seq = 11")
    assert found(store) != []
    mended(store)
    assert seqs(store.consumers.pending(target.id, "c").events) == [5, 6, 7, 8, 9, 10]
    assert {finding.severity for finding in found(store)} == {"warning"}


def test_a_consumer_ahead_of_the_journal(store: Store, target: Target) -> None:
    harm(store, "UPDATE poller_consumers SET seq = 99 WHERE name = 'c'")
    assert "'c'" in found(store)[0].where
    mended(store)
    add(store, target, some(1))
    assert seqs(store.consumers.pending(target.id, "c").events) == [36]


def test_a_consumer_that_is_too_old_is_a_warning(store: Store, target: Target) -> None:
    store.prune(target.id, 1e12, 0, 0)
    assert {(finding.severity, finding.where) for finding in found(store)} == {
        ("warning", "file:///data/one: consumer 'c'"),
        ("warning", "file:///data/one: consumer 'late'"),
    }
    assert mended(store) == []


@pytest.mark.parametrize("ranges", ["", "[]", "[[2,1]]", "[[1,4],[3,5]]", '[["a",1]]', "[[1,99]]", "[[0,4]]"])
def test_a_claim_that_does_not_say_what_it_has(store: Store, target: Target, ranges: str) -> None:
    harm(store, "UPDATE poller_claims SET ranges = ?", ranges)
    assert "'run'" in found(store)[0].where
    (repaired,) = mended(store)
    assert "token" in repaired.cost
    assert store.consumers.claims(target.id) == []
    assert found(store) == []


def test_events_that_never_were(store: Store, target: Target) -> None:
    with store.database.transaction():
        for table, more, values in [("takes", ", token, taken_at", ", 't', 1"), ("returned", "", "")]:
            store.database.run(
                f"INSERT INTO poller_{table} (target_id, consumer, seq{more}) VALUES (?, 'c', 99{values})",
                (target.id,),
            )
    assert len(found(store)) == 2
    assert len(mended(store)) == 2
    assert found(store) == []


def test_rows_of_no_target(store: Store, target: Target) -> None:
    other = target_of(store, "two")
    add(store, other, some(3))
    harm(store, "DELETE FROM poller_targets WHERE id = ?", target.id)
    assert {finding.where for finding in found(store)} == {
        "table pages",
        "table journal",
        "table consumers",
        "table claims",
    }
    mended(store)
    assert found(store) == []
    assert store.last_seq(other.id) == 3


def test_rows_of_no_consumer(store: Store, target: Target) -> None:
    store.consumers.bury(target.id, "c", 9, 1, "bad", "{}")
    harm(store, "DELETE FROM poller_consumers")
    assert {finding.where for finding in found(store)} == {
        "table claims",
        "table takes",
        "table dead",
        "table journal",
    }
    assert all("given up" in repaired.cost for repaired in mended(store))
    assert found(store) == []
    # A later consumer has nothing of what was written for the former one.
    store.consumers.create(target.id, "late", 30)
    assert seqs(store.consumers.pending(target.id, "late").events) == [30]


def test_a_repair_that_is_killed_changes_nothing(store: Store, target: Target, state_url: str) -> None:
    harm(store, "UPDATE poller_pages SET blob = ?", b"nonsense")
    harm(store, "UPDATE poller_targets SET entries = 99")
    before = found(store)
    code = "from poller_core.state.repair import repair_state\nrepair_state(A[0], unpack, keys_of)"
    environment = {**os.environ, "POLLER_CRASH_AT": "state.repair.before"}
    finish(start(code, state_url, env=environment), 137)
    assert found(store) == before


# -- files that are broken inside ------------------------------------------------------------


PAGE_SIZE = 4096


def broken(path: Path, *pages: int) -> Path:
    """Write nonsense over pages of the file, counted from 1."""
    with path.open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * PAGE_SIZE)
            file.write(b"\xa5" * PAGE_SIZE)
    return path


def large_state(path: Path) -> None:
    with open_store(path) as store:
        target = target_of(store)
        names = [b"%05d" % number for number in range(600)]
        pages = [page(b"" if not number else name, [name]) for number, name in enumerate(names)]
        store.commit(target.id, 0, SnapshotChange(1, put=pages, entries=600))
        for number in range(100):
            add(store, target, some(30, f"x{number}-"))
        store.consumers.create(target.id, "c", 1)
        store.consumers.claim(target.id, "c", "run", 40)


def tables_of(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(path)
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
    connection.close()
    return roots


def leaf_of(path: Path, table: str, which: int) -> int:
    """One of the pages that hold a table's rows."""
    root = tables_of(path)[table]
    content = path.read_bytes()

    def at(number: int) -> bytes:
        return content[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]

    page = at(root)
    assert page[0] == 5, "the table is larger than a page"
    cells = int.from_bytes(page[3:5], "big")
    pointers = [int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell], "big") for cell in range(cells)]
    return int.from_bytes(page[pointers[which] : pointers[which] + 4], "big")


def test_a_file_that_is_broken_inside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    large_state(path)
    damage = [leaf_of(path, "poller_pages", 3), leaf_of(path, "poller_journal", 2)]
    bad = broken(path, *damage).read_bytes()
    with open_store(path) as store:
        assert any(finding.severity == "error" for finding in found(store))

    done = repair_state(path, unpack, keys_of)
    assert "damaged-1" in done[0].cost
    assert any("table pages" in repaired.what for repaired in done)
    assert any("table journal" in repaired.what for repaired in done)
    assert len((tmp_path / "state.db.damaged-1").read_bytes()) == len(bad)
    assert sorted(os.listdir(tmp_path)) == ["state.db", "state.db.damaged-1"]
    assert path.stat().st_mode & 0o777 == 0o600

    with open_store(path) as store:
        assert {finding.severity for finding in found(store)} == {"warning"}
        (target,) = store.targets()
        assert 500 < target.entries < 600
        assert target.last_seq == 3000
        assert len(store.consumers.claim(target.id, "c", "run")) == 40
        pending = store.consumers.pending(target.id, "c")
        assert seqs(pending.events) == list(range(41, pending.upto + 1))
        store.consumers.ack(target.id, "c", pending.upto)
        with pytest.raises(OffsetTooOld, match="were lost"):
            store.consumers.pending(target.id, "c")
    assert repair_state(path, unpack, keys_of) == []


def test_a_broken_index_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    large_state(path)
    connection = sqlite3.connect(path)
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'poller_pages'"
    ).fetchone()
    connection.close()
    broken(path, root)
    repair_state(path, unpack, keys_of)
    with open_store(path) as store:
        assert found(store) == []
        assert store.targets()[0].entries == 600


def test_a_second_repair_keeps_both_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    large_state(path)
    for _ in range(2):
        broken(path, leaf_of(path, "poller_pages", 2))
        repair_state(path, unpack, keys_of)
    assert sorted(os.listdir(tmp_path)) == ["state.db", "state.db.damaged-1", "state.db.damaged-2"]


def test_no_target_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    large_state(path)
    bad = broken(path, tables_of(path)["poller_targets"]).read_bytes()
    with pytest.raises(StateDamaged, match="nothing was changed"):
        repair_state(path, unpack, keys_of)
    assert path.read_bytes()[PAGE_SIZE:] == bad[PAGE_SIZE:]
    assert os.listdir(tmp_path) == ["state.db"]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(8000)])
def test_nothing_can_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(StateDamaged):
        repair_state(path, unpack, keys_of)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["state.db"]


def test_there_is_no_file_to_repair(tmp_path: Path) -> None:
    with pytest.raises(StateUnreadable, match="no state file"):
        repair_state(tmp_path / "state.db", unpack, keys_of)
    assert os.listdir(tmp_path) == []


def test_a_broken_file_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    large_state(path)
    broken(path, leaf_of(path, "poller_pages", 3))
    process = start("s = open_store(A[0])\nprint('ready', flush=True)\ninput()\ns.close()", str(path))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(StateLocked, match="in use"):
        repair_state(path, unpack, keys_of, timeout=0.1)
    process.communicate("\n", timeout=60)
    repair_state(path, unpack, keys_of)


def test_a_broken_file_of_a_later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as patched:
        patched.setitem(schema.MIGRATIONS, schema.current_version() + 1, ())
        large_state(path)
    broken(path, leaf_of(path, "poller_pages", 3))
    with pytest.raises(StateNewer):
        repair_state(path, unpack, keys_of)
    assert os.listdir(tmp_path) == ["state.db"]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_salvage_that_is_killed(tmp_path: Path, point: str) -> None:
    path = tmp_path / "state.db"
    large_state(path)
    broken(path, leaf_of(path, "poller_pages", 3))
    code = "from poller_core.state.repair import repair_state\nrepair_state(A[0], unpack, keys_of)"
    environment = {**os.environ, "POLLER_CRASH_AT": f"state.salvage.{point}"}
    finish(start(code, str(path), env=environment), 137)
    # At any moment there is a state, and it is never an empty one.
    repair_state(path, unpack, keys_of)
    with open_store(path) as store:
        assert found(store) == []
        assert 500 < store.targets()[0].entries < 600
