"""Pollers of other people: registered by scheme, refused with reasons, made of a listing in forty lines."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from poller_core import (
    Change,
    Chunk,
    Entry,
    Facts,
    FilePoller,
    INotifyPoller,
    InvalidOption,
    ListingPoller,
    NoPoller,
    Poller,
    PollerRefused,
    Source,
    TargetNotFound,
    UnknownScheme,
    Url,
    make_poller,
    poller,
    register_poller,
    registered,
)
from poller_core.listing import chunks_of
from tests.races.tools import put


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What is registered here is gone after each test."""
    monkeypatch.setattr(poller, "_registry", {name: list(made) for name, made in poller._registry.items()})
    for kind in (FilePoller, INotifyPoller):
        monkeypatch.setattr(kind, "schemes", kind.schemes)


# -- the registry ------------------------------------------------------------


class Counter(Poller):
    """The least that a poller can be: its subjects are numbers."""

    def __init__(self, url, recurse: bool = False, *, step: int = 1) -> None:
        super().__init__(url, recurse=recurse)
        self.step = step
        self.number = 0

    def get_new_events(self) -> list:
        self.number += self.step
        return [(self.number, "created")]


def test_a_poller_of_ones_own():
    assert register_poller("counter", "count")(Counter) is Counter
    assert Counter.schemes == ("counter", "count")
    for url in ("counter://here/x", "COUNT://here/x"):
        with make_poller(url, step=2) as made:
            assert isinstance(made, Counter)
            assert made.url == Url(url)
            assert made.recurse is False
            assert made.get_new_events() == [(2, "created")]
            assert made.get_new_events() == [(4, "created")]
    assert registered()["counter"] == (Counter,)


def test_registering_twice_does_no_harm():
    register_poller("counter")(Counter)
    register_poller("counter")(Counter)
    assert registered()["counter"] == (Counter,)


def test_a_function_may_be_registered():
    register_poller("counter")(lambda url, **options: Counter(url, step=5))
    assert make_poller("counter://x").get_new_events() == [(5, "created")]


@pytest.mark.parametrize("schemes", [(), ("",), (7,), (Counter,)])
def test_register_without_a_scheme(schemes):
    with pytest.raises(TypeError, match="name the schemes"):
        register_poller(*schemes)


def test_files_have_two_in_order():
    assert registered()["file"] == (INotifyPoller, FilePoller)


def test_tried_in_order_and_refusals_are_logged(caplog):
    tried = []

    @register_poller("thing")
    def first(url, **options):
        tried.append("first")
        raise PollerRefused("not on a Monday")

    @register_poller("thing")
    def second(url, **options):
        tried.append("second")
        raise ImportError("No module named 'thing'")

    register_poller("thing")(Counter)
    with caplog.at_level(logging.INFO, "poller_core"):
        made = make_poller("thing://bob:hunter2@host/x")
    assert isinstance(made, Counter)
    assert tried == ["first", "second"]
    assert [record.getMessage() for record in caplog.records] == [
        "first can't be used for thing://host/x: not on a Monday",
        "second can't be used for thing://host/x: ImportError: No module named 'thing'",
    ]


def test_all_refuse():
    @register_poller("thing")
    def first(url, **options):
        raise PollerRefused("not on a Monday")

    @register_poller("thing")
    def second(url, **options):
        raise RuntimeError(f"can't log in as {url.username} with {url.password}")

    with pytest.raises(NoPoller) as caught:
        make_poller("thing://bob:hunter2@host/x")
    text = str(caught.value)
    assert text.startswith("no poller can serve thing://host/x:")
    assert "first: not on a Monday" in text
    assert "second: RuntimeError: can't log in as bob with ***" in text
    error = caught.value
    while error is not None:
        assert "hunter2" not in str(error) + repr(error)
        error = error.__cause__  # type: ignore[assignment]


def test_an_error_that_no_other_could_mend_is_raised_at_once(tmp_path):
    tried = []

    @register_poller("thing")
    def first(url, **options):
        tried.append("first")
        raise TargetNotFound("there is no such thing")

    @register_poller("thing")
    def second(url, **options):
        tried.append("second")

    with pytest.raises(TargetNotFound):
        make_poller("thing://x")
    assert tried == ["first"]
    with pytest.raises(TargetNotFound):
        make_poller(tmp_path / "missing")
    with pytest.raises(InvalidOption, match="unknown option"):
        make_poller(tmp_path, no_such=1)


def test_unknown_scheme_says_what_there_is():
    register_poller("counter")(Counter)
    with pytest.raises(UnknownScheme, match=r"no poller for 'gopher' URLs.*counter, file.*@register_poller"):
        make_poller("gopher://host/x")


# -- a listing of ones own ---------------------------------------------------


class TableSource(Source):
    """The rows of a table in an SQLite database: the key is its name, the fingerprint its version."""

    def __init__(self, url: Url) -> None:
        self._path, self._table = url.path, url.query or "files"
        self._db: Any = None

    def begin(self, known):
        try:
            self._db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, check_same_thread=False)
            self._db.execute(f"SELECT 1 FROM {self._table}")
        except sqlite3.Error as error:
            self.close()
            raise TargetNotFound(f"no table {self._table} in {self._path}: {error}") from None
        return "{}"

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def scan(self, span):
        rows = self._db.execute(
            f"SELECT name, version, size FROM {self._table} WHERE name >= ? AND (? IS NULL OR name < ?) "
            "ORDER BY name",
            (span.start, span.stop, span.stop),
        )
        yield from chunks_of(Entry(name, (version, size)) for name, version, size in rows)

    def absent(self, keys):
        found = f"SELECT 1 FROM {self._table} WHERE name = ?"
        return {key for key in keys if self._db.execute(found, (key,)).fetchone() is None}

    def differs(self, old, new):
        return Change.content if old[0] != new[0] else Change.metadata

    def facts(self, row):
        return Facts(size=row[1], etag=f"v{row[0]}")

    def subject(self, key):
        return Url(f"table://db/{self._table}?{key.decode()}")


class TablePoller(ListingPoller):
    def make_source(self, exclude):
        return TableSource(self.url)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE files (name BLOB PRIMARY KEY, version INTEGER, size INTEGER)")
        db.executemany(
            "INSERT INTO files VALUES (?, 1, 10)", [(b"old%03d" % number,) for number in range(700)]
        )
        yield db, f"table://db{path}?files"


def changes(events) -> list[tuple[bytes, str]]:
    return [(event.key, event.event) for event in events]


def test_a_table_as_source(table, state_url):
    db, url = table
    register_poller("table")(TablePoller)
    options = {"state": state_url, "exclude": ["*.bak"]}
    with make_poller(url, **options) as poller, make_poller(url, **options, consumer="two") as two:
        assert isinstance(poller, TablePoller)
        assert poller.get_new_events() == []
        db.execute("INSERT INTO files VALUES (?, 1, 7)", (b"new",))
        db.execute("INSERT INTO files VALUES (?, 1, 7)", (b"new.bak",))
        db.execute("UPDATE files SET version = 2 WHERE name = ?", (b"old350",))
        db.execute("UPDATE files SET size = 11 WHERE name = ?", (b"old400",))  # metadata, by its own rule
        db.execute("DELETE FROM files WHERE name = ?", (b"old699",))
        events = poller.get_new_events()
        assert changes(events) == [(b"new", "created"), (b"old350", "modified"), (b"old699", "deleted")]
        assert events[0].size == 7
        assert events[1].etag == "v2"
        assert str(events[0].subject) == "table://db/files?new"
        assert poller.get_new_events() == []
        assert poller.status().entries == 701
        assert two.get_new_events() == events
    with make_poller(url, **options) as poller:
        assert poller.get_new_events() == []
        db.execute("INSERT INTO files VALUES (?, 1, 7)", (b"while away",))
        claim = poller.claim("run-1")
        assert changes(claim) == [(b"while away", "created")]
        assert poller.claim("run-1") == claim
        poller.rewind("beginning")
        assert len(poller.get_new_events()) == 701
        db.execute("ALTER TABLE files RENAME TO gone")
        with pytest.raises(TargetNotFound, match="no table files"):
            poller.get_new_events()
        assert poller.status().entries == 702
        assert "no table" in str(poller.status().error)
        db.execute("ALTER TABLE gone RENAME TO files")
        assert poller.get_new_events() == []


async def test_a_table_in_batches(table):
    db, url = table
    with TablePoller(url, existing="report") as poller:
        batches = poller.batches(interval=0.05, limit=500)
        seen = []
        async for batch in batches:
            seen += changes(batch)
            await batch.ack()
            if len(seen) == 700:
                db.execute("INSERT INTO files VALUES (?, 1, 7)", (b"new",))
            elif len(seen) > 700:
                break
        await batches.aclose()
    assert seen[-1] == (b"new", "created")
    assert len(set(seen)) == 701


def test_a_source_that_gives_names_out_of_order(tmp_path):
    """A mistake of the third party's, told as such, before anything wrong is stored."""

    class Unsorted(TableSource):
        def begin(self, known):
            return "{}"

        def scan(self, span):
            yield Chunk(b"", [b"b", b"a"], [(1, 1), (1, 1)])

        def absent(self, keys):
            return set()

    class UnsortedPoller(ListingPoller):
        def make_source(self, exclude):
            return Unsorted(self.url)

    with pytest.raises(Exception, match="not sorted"):
        UnsortedPoller("table://db/x?files")


def test_make_source_may_refuse(tmp_path):
    class Refuses(ListingPoller):
        def make_source(self, exclude):
            raise PollerRefused("install thing first")

    register_poller("refuse")(Refuses)
    with pytest.raises(NoPoller, match="Refuses: install thing first"):
        make_poller("refuse://x", state=tmp_path / "state.db")


def test_own_poller_for_files_goes_first_if_it_replaces_them(tmp_path):
    class Mine(FilePoller):
        pass

    poller._registry["file"].insert(0, Mine)
    put(tmp_path / "inbox" / "one")
    with make_poller(tmp_path / "inbox", existing="report") as made:
        assert type(made) is Mine
        assert len(made.get_new_events()) == 1
