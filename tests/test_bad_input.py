"""Everything a user can get wrong, and what is said then.

Each message has to name what was given, what was expected, and an example or a
way out; and never a password. Each error is of its own class, and a
:class:`PollerError`.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import socket
import sqlite3
import time
import traceback
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from poller_core import (
    AccessDenied,
    FilePoller,
    INotifyPoller,
    InvalidOption,
    InvalidUrl,
    Options,
    PollerError,
    StateDamaged,
    StateLocked,
    StateNewer,
    StateUnreadable,
    TargetError,
    TargetNotFound,
    UnknownScheme,
    Url,
    errors,
    make_poller,
)
from poller_core.state import open_store
from tests.races.tools import open_place, put, unprivileged

SECRET = "hunter2"


# -- URLs --------------------------------------------------------------------

BAD_URLS = [
    ("", "is empty", "/data/inbox"),
    (b"", "is empty", "file:///data/inbox"),
    ("file://", "no absolute path", "file:///data/inbox"),
    ("file:data/inbox", "no absolute path", "file:///data/inbox"),
    ("file://server/share", "names a host", "file:///data/inbox"),
    ("file:///data/a?b", "has a '?'", "%3F"),
    ("file:///data/a#b", "has a '#'", "%23"),
    ("file:///data/100%", "two hexadecimal digits", "%25"),
    ("file:///data/%00", "NUL", "file name"),
    ("/data/\0", "NUL", "file name"),
    (b"/data/\0", "NUL", "file name"),
    ("swift:container", "needs '//'", "swift://host/path"),
    ("swift://host:notaport/", "a port from 1 to 65535", "swift://host/path"),
    ("swift://host:99999/", "a port from 1 to 65535", "swift://host/path"),
    ("swift://[::1/", "malformed", "swift://host/path"),
    (7, "a text", "file:///data/inbox"),
    (None, "a text", "file:///data/inbox"),
    (["/data"], "a text", "/data/inbox"),
]


@pytest.mark.parametrize(("url", "problem", "example"), BAD_URLS, ids=[repr(bad[0]) for bad in BAD_URLS])
def test_malformed_url(url, problem, example):
    for make in (make_poller, FilePoller, INotifyPoller, Url):
        with pytest.raises(InvalidUrl) as caught:
            make(url)
        assert problem in str(caught.value)
        assert example in str(caught.value)
        assert isinstance(caught.value, ValueError)


def test_unknown_scheme():
    for url in ("gopher://host/x", "c://windows"):
        with pytest.raises(UnknownScheme) as caught:
            make_poller(url)
        assert f"no poller for {url.partition(':')[0]!r} URLs" in str(caught.value)
        assert "there are pollers for: file" in str(caught.value)


def test_text_that_looks_like_a_url_but_is_a_name():
    with pytest.raises(InvalidUrl, match=r"for a file of that name write './'"):
        make_poller("notes: today")


@pytest.mark.parametrize(
    "url",
    [
        f"gopher://bob:{SECRET}@host/x",
        f"gopher:bob:{SECRET}@host",
        f"swift://bob:{SECRET}@host:notaport/x",
        f"swift://bob:{SECRET}@[host/x",
        f"swift://bob:{SECRET}/with/slash@host/x",
        f"swift://bob:{SECRET}#hash@host:x/",
        f"file://bob:{SECRET}@host/share",
        f"https://bob:{SECRET}@host/x",
    ],
)
def test_password_in_a_url_is_never_told(url, caplog):
    with caplog.at_level(logging.DEBUG):
        for make in (make_poller, FilePoller):
            with pytest.raises(PollerError) as caught:
                make(url)
            told = io.StringIO()
            traceback.print_exception(caught.value, file=told)
            # The line of this test that gave it is no part of what we say.
            assert SECRET not in str(caught.value) + repr(caught.value) + told.getvalue()
    assert SECRET not in caplog.text


def test_password_is_in_nothing_that_is_kept():
    url = Url(f"swift://bob:{SECRET}@host/x?c")
    assert url.password == SECRET
    for text in (str(url), repr(url), repr(pickle.dumps(url)), str(url.without_credentials()), f"{url}"):
        assert SECRET not in text
    assert "bob" not in str(url.without_credentials())


# -- the target --------------------------------------------------------------


@pytest.fixture(params=[FilePoller, INotifyPoller, make_poller], ids=["scan", "inotify", "make_poller"])
def make(request):
    return request.param


def test_missing_target(make, inbox):
    with pytest.raises(TargetNotFound) as caught:
        make(inbox / "no" / "such")
    text = str(caught.value)
    assert f"{inbox}/no/such is not there" in text
    assert f"of the directories above it, {inbox} is" in text
    assert "expected an existing directory, such as /data/inbox" in text


def test_target_below_a_file(make, inbox):
    put(inbox / "file")
    with pytest.raises(TargetNotFound, match=r"inbox/file is not a directory"):
        make(inbox / "file" / "below")


def test_target_that_is_no_file_and_no_directory(make, inbox):
    os.mkfifo(inbox / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(inbox / "sock"))
        for name in ("pipe", "sock"):
            with pytest.raises(
                TargetError, match="is a pipe, socket or device; expected a directory or a file"
            ):
                make(inbox / name)
    with pytest.raises(TargetError, match="expected a directory or a file"):
        make("/dev/null")


def test_target_whose_name_is_too_long(make, inbox):
    with pytest.raises(TargetError) as caught:
        make(inbox / ("x" * 300))
    assert len(str(caught.value)) < 1000


def test_name_with_line_breaks_stays_on_one_line(make, inbox):
    with pytest.raises(TargetNotFound) as caught:
        make(os.fsencode(inbox) + b"/bad\n\x1b[31m\xff")
    assert str(caught.value).isprintable()


def test_target_without_permission(make):
    with open_place() as place:

        def scenario() -> object:
            said = []
            for name, mode in (("closed", 0o000), ("no-list", 0o300), ("no-search", 0o600)):
                put(place / name / "file")
                (place / name).chmod(mode)
                try:
                    make(place / name).close()
                except PollerError as error:
                    said.append((type(error), str(error)))
                finally:
                    (place / name).chmod(0o700)
            put(place / "above" / "in" / "file")
            (place / "above").chmod(0)
            try:
                make(place / "above" / "in")
            except PollerError as error:
                said.append((type(error), str(error)))
            finally:
                (place / "above").chmod(0o700)
            return said

        said = unprivileged(scenario)
    assert [kind for kind, _ in said] == [AccessDenied] * 4
    for _, text in said:
        assert "Permission denied" in text
        assert "needs read and search permission" in text


# -- options -----------------------------------------------------------------

BAD_OPTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"recurs": True}, "unknown option 'recurs'", "did you mean 'recurse'"),
    ({"setle": 5}, "unknown option 'setle'", "did you mean 'settle'"),
    ({"includes": ["*.csv"]}, "unknown option 'includes'", "did you mean 'include'"),
    ({"xyzzy": 1}, "unknown option 'xyzzy'", "options are: "),
    ({"recurse": "yes"}, "recurse='yes'", "True or False"),
    ({"recurse": 1}, "recurse=1", "True or False"),
    ({"recurse": None}, "recurse=None", "True or False"),
    ({"default_exclude": "no"}, "default_exclude='no'", "True or False"),
    ({"follow_symlinks": 0}, "follow_symlinks=0", "True or False"),
    ({"directories": []}, "directories=[]", "True or False"),
    ({"metadata": "on"}, "metadata='on'", "True or False"),
    ({"settle": -1}, "settle=-1", "0 or more"),
    ({"settle": "5s"}, "settle='5s'", "a number of seconds"),
    ({"settle": float("nan")}, "settle=nan", "a number of seconds"),
    ({"settle": float("inf")}, "settle=inf", "a number of seconds"),
    ({"settle": True}, "settle=True", "a number of seconds"),
    ({"settle": False}, "settle=False", "a number of seconds"),
    ({"settle": ""}, "settle=''", "a number of seconds"),
    ({"settle": timedelta(-1)}, "settle=", "0 or more, or a timedelta"),
    ({"retention": "week"}, "retention='week'", "a number of seconds"),
    ({"retention_unread": -5}, "retention_unread=-5", "a number of seconds"),
    ({"full_every": None}, "full_every=None", "a number of seconds"),
    ({"consumer": ""}, "consumer=''", "1 to 250 printable characters"),
    ({"consumer": "x" * 251}, "consumer=", "1 to 250 printable characters"),
    ({"consumer": "a\nb"}, "consumer='a\\nb'", "printable characters"),
    ({"consumer": 7}, "consumer=7", "printable characters"),
    ({"events": ("create",)}, "events=('create',)", "created, modified, deleted"),
    ({"events": "create"}, "events='create'", "created, modified, deleted"),
    ({"events": ()}, "events=()", "created, modified, deleted"),
    ({"events": None}, "events=None", "created"),
    ({"events": [["created"]]}, "events=[['created']]", "created, modified, deleted"),
    ({"include": 7}, "include=7", "include=['*.csv']"),
    ({"include": [7]}, "include=7", "such as '*.csv'"),
    ({"include": [""]}, "include=''", "such as '*.csv'"),
    ({"include": 0}, "include=0", "include=['*.csv']"),
    ({"exclude": [None]}, "exclude=None", "such as '*.csv'"),
    ({"exclude": ["!"]}, "exclude=", ".gitignore"),
    ({"exclude": b"*.csv"}, "exclude=", ".gitignore"),
    ({"existing": "yes"}, "existing='yes'", "'ignore' or 'report'"),
    ({"existing": True}, "existing=True", "'ignore' or 'report'"),
    ({"existing": ["report"]}, "existing=['report']", "'ignore' or 'report'"),
    ({"start": "end"}, "start='end'", "'now', 'beginning' or the seq"),
    ({"start": 0}, "start=0", "from 1"),
    ({"start": True}, "start=True", "from 1"),
    ({"start": ["now"]}, "start=['now']", "'now', 'beginning' or the seq"),
    ({"fingerprint": ("mode",)}, "fingerprint=('mode',)", "size, mtime, ctime, inode"),
    ({"fingerprint": ()}, "fingerprint=()", "size, mtime, ctime, inode"),
    ({"fingerprint": 3}, "fingerprint=3", "fingerprint"),
]


@pytest.mark.parametrize(
    ("options", "given", "expected"), BAD_OPTIONS, ids=[repr(bad[0]) for bad in BAD_OPTIONS]
)
def test_bad_option(make, inbox, tmp_path, options, given, expected):
    with pytest.raises(InvalidOption) as caught:
        make(inbox, **{"state": tmp_path / "state.db", **options})
    assert given in str(caught.value)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 600
    assert isinstance(caught.value, ValueError)
    assert not (tmp_path / "state.db").exists()


def test_every_option_has_a_bad_value_here():
    tried = {name for options, _, _ in BAD_OPTIONS for name in options}
    names = set(Options.__dataclass_fields__) | set(Options().target.__dataclass_fields__)
    assert names - tried == {"target", "state"}


BAD_STATES = [
    ("", "is not a file name"),
    ("mysql://bob:hunter2@host/db", "'mysql:' is not understood"),
    ("postgres://bob:hunter2@host/db", "'postgres:' is not understood"),
    ("sqlite:state.db", "'sqlite:' is not understood"),
    ("sqlite://host/state.db", "has no host"),
    ("sqlite:////tmp/state.db?mode=ro", "no '?' parameters"),
    ("postgresql://bob:hun/ter2@host:port/db", "can't be taken apart"),
    ("postgresql://bob:hunter2@host:99999/db", "can't be taken apart"),
    ("postgresql://bob:hunter2@host/db#x", "no '#' part"),
    ("a\0b", "is not a file name"),
    (7, "7"),
    (object, "object"),
    (True, "True"),
]


@pytest.mark.parametrize(("state", "problem"), BAD_STATES, ids=[repr(bad[0]) for bad in BAD_STATES])
def test_bad_place_for_the_state(make, inbox, state, problem):
    with pytest.raises(InvalidOption) as caught:
        make(inbox, state=state)
    text = str(caught.value)
    assert problem in text
    assert "postgresql+psycopg://" in text
    for secret in (SECRET, "ter2", "hun/"):
        assert secret not in text + repr(caught.value)


# -- the state ---------------------------------------------------------------


@pytest.fixture
def state(tmp_path, inbox):
    """A state with a target, a consumer and events."""
    path = tmp_path / "home" / "state.db"
    with FilePoller(inbox, state=path) as poller:
        put(inbox / "one")
        poller.get_new_events()
    return path


def _refuses(error: type[Exception], text: str, state: Path, inbox: Path, make=FilePoller) -> str:
    before = {path: path.read_bytes() for path in state.parent.iterdir() if path.is_file()}
    put(inbox / "two")
    with pytest.raises(error, match=text) as caught, make(inbox, state=state) as poller:
        poller.get_new_events()
    assert type(caught.value) is error
    assert str(state) in str(caught.value)
    assert {path: path.read_bytes() for path in state.parent.iterdir() if path.is_file()} == before
    return str(caught.value)


def test_state_that_is_empty(make, inbox, state):
    state.write_bytes(b"")
    assert "Restore it from a backup, or, if a new beginning is meant, delete it" in _refuses(
        StateDamaged, "0 bytes", state, inbox, make
    )


@pytest.mark.parametrize(
    "content", [b"not a database at all", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 4080]
)
def test_state_that_is_no_database(make, inbox, state, content):
    for name in ("-wal", "-shm"):
        state.with_name(state.name + name).unlink(missing_ok=True)
    state.write_bytes(content)
    assert "estore it from a backup" in _refuses(StateDamaged, "damaged|cut off", state, inbox, make)


def test_state_that_was_cut_off(make, inbox, state):
    whole = state.read_bytes()
    for part in (len(whole) // 2, 4096, 100):
        state.write_bytes(whole[:part])
        _refuses(StateDamaged, "damaged|cut off", state, inbox, make)
    state.write_bytes(whole)
    with make(inbox, state=state) as poller:
        assert [event.key for event in poller.get_new_events()] == [b"two"]


def test_state_of_another_program(make, inbox, state):
    state.unlink()
    with closing(sqlite3.connect(state)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
        db.commit()
    assert "no table poller_meta" in _refuses(StateDamaged, "not a state of this program", state, inbox, make)


def test_state_of_a_newer_version(make, inbox, state):
    with closing(sqlite3.connect(state)) as db:
        db.execute("UPDATE poller_meta SET value = '999'")
        db.commit()
    assert "upgrade poller-core" in _refuses(StateNewer, "is of version 999", state, inbox, make)


def test_page_and_journal_that_are_damaged(make, inbox, state):
    with closing(sqlite3.connect(state)) as db:
        db.execute("UPDATE poller_pages SET blob = X'00112233'")
        db.commit()
    text = _damaged(make, inbox, state, "a page")
    assert "poller check" in text
    with closing(sqlite3.connect(state)) as db:
        db.execute("UPDATE poller_journal SET blob = X'00112233'")
        db.commit()
    with make(inbox, state=state) as poller:
        poller.rewind(1)
        with pytest.raises(StateDamaged, match="poller repair"):
            poller.next_batch(limit=1)


def _damaged(make, inbox, state, what) -> str:
    put(inbox / "two")
    with make(inbox, state=state) as poller:
        for _ in range(2):
            with pytest.raises(StateDamaged) as caught:
                poller.get_new_events()
        assert poller.status().last_seq == 1
    return str(caught.value)


def test_directory_in_the_place_of_the_state(make, inbox, tmp_path):
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateUnreadable) as caught:
        make(inbox, state=tmp_path / "state.db")
    assert "state.db" in str(caught.value)
    assert "directory" in str(caught.value)


def test_state_below_a_file(make, inbox, tmp_path):
    put(tmp_path / "file")
    with pytest.raises(StateUnreadable, match="Give another place"):
        make(inbox, state=tmp_path / "file" / "state.db")


def test_state_that_is_gone_but_for_its_log(make, inbox, state):
    with closing(sqlite3.connect(state)) as db:
        db.execute("PRAGMA wal_checkpoint")
        log = state.with_name(state.name + "-wal")
        log.write_bytes(b"x" * 100)
        state.rename(state.with_name("elsewhere"))
        with pytest.raises(StateUnreadable, match=r"its log state\.db-wal is still there"):
            make(inbox, state=state)


def test_state_that_was_removed_while_in_use(make, inbox, state):
    with make(inbox, state=state) as poller:
        put(inbox / "two")
        state.unlink()
        with pytest.raises(StateUnreadable, match="Nothing was written"):
            poller.get_new_events()
    assert not state.exists()


def test_state_that_is_locked(make, inbox, state, monkeypatch):
    from poller_core import listed

    monkeypatch.setattr(listed, "open_store", lambda url: open_store(url, timeout=0.3))
    with make(inbox, state=state) as poller, closing(sqlite3.connect(state, isolation_level=None)) as other:
        put(inbox / "two")
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(StateLocked, match=r"locked by another process for longer than 0\.3 s"):
            poller.get_new_events()
        assert time.monotonic() - start >= 0.3
        other.execute("ROLLBACK")
        assert [event.key for event in poller.get_new_events()] == [b"two"]


def test_postgresql_that_is_not_there(make, inbox, caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"postgresql+psycopg://bob:{SECRET}@127.0.0.1:{port}/db?connect_timeout=2"
        with caplog.at_level(logging.DEBUG), pytest.raises(StateUnreadable) as caught:
            make(inbox, state=url)
    told = "".join(traceback.format_exception(caught.value))
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert SECRET not in told + caplog.text


def test_log_of_a_whole_life_holds_no_password(inbox, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        for url in (f"gopher://bob:{SECRET}@host/x", f"file://bob:{SECRET}@host/x"):
            with pytest.raises(PollerError):
                make_poller(url, state=tmp_path / "state.db")
        with FilePoller(inbox, state=tmp_path / "state.db") as poller:
            inbox.rmdir()
            with pytest.raises(TargetNotFound):
                poller.get_new_events()
    assert "is not there" in caplog.text
    assert SECRET not in caplog.text


# -- all together ------------------------------------------------------------


def test_every_error_is_a_poller_error():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PollerError)


def test_nothing_is_left_behind_by_what_was_refused(inbox, tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))
    for options, _, _ in BAD_OPTIONS:
        with pytest.raises(InvalidOption):
            INotifyPoller(inbox, **options)
    for state, _ in BAD_STATES:
        with pytest.raises(InvalidOption):
            INotifyPoller(inbox, state=state)
    with pytest.raises(TargetNotFound):
        INotifyPoller(inbox / "missing", state=tmp_path / "state.db")
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("value", ["5", None, -1, float("nan"), True, timedelta(seconds=-1)])
def test_lengths_of_time_that_are_none(inbox: Path, value: Any) -> None:
    with FilePoller(inbox) as poller:
        calls = [
            ("max_age", lambda: poller.get_new_events(max_age=value)),
            ("max_age", lambda: poller.next_batch(max_age=value)),
            ("max_age", lambda: poller.claim("run-1", max_age=value)),
            ("batch_for", lambda: poller.claim("run-1", batch_for=value)),
            ("wait", lambda: poller.lease(wait=value).__enter__()),
        ]
        if value is not None:
            calls.append(("timeout", lambda: poller.wait(value)))
        for name, call in calls:
            with pytest.raises(InvalidOption, match=f"^{name}=.*expected a number of seconds, 0 or more"):
                call()
        assert poller.get_new_events(max_age=timedelta(seconds=1)) == []
