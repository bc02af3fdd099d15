"""The mistakes of a first hour: the message alone has to be enough to get out of each.

:mod:`tests.test_bad_input` has what can't be understood. Here is what can be understood, and is most likely
not what was meant, and what is told of it besides. :mod:`tests.test_troubleshooting` has the page about them.
"""

from __future__ import annotations

import copy
import errno
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from poller_core import (
    Event,
    FilePoller,
    InvalidOption,
    InvalidUrl,
    StateUnreadable,
    TargetError,
    TargetNotFound,
    UnknownEvent,
    UnknownScheme,
    Url,
    make_poller,
)
from tests.faultfs import FaultFileSystem
from tests.races.tools import put

ROOT = Path(__file__).parent.parent


def test_other_options_are_another_target_which_is_told_once(
    inbox: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state.db"
    FilePoller(inbox, state=state).close()
    assert not caplog.messages
    for _ in range(2):
        FilePoller(inbox, recurse=True, state=state).close()
    (told,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert told.getMessage() == (
        f"file://{inbox} was watched with other options before; that is another target, with a journal of "
        f"its own ('poller status' lists both)"
    )


def test_a_directory_that_can_not_be_read_is_told_once_and_when_it_can(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fs = FaultFileSystem()
    for name in ("closed", "open"):
        put(inbox / name / "old")
    rule = fs.fail("open_dir", b"closed", errno.EACCES)
    with FilePoller(inbox, recurse=True, fs=fs) as poller:
        put(inbox / "closed" / "new")
        put(inbox / "open" / "new")
        for _ in range(3):
            poller.get_new_events()
        (told,) = caplog.messages
        assert told == (
            f"file://{inbox}: 1 part(s) can't be listed; what is in them is not reported, nor taken for "
            f"deleted: Permission denied: {inbox}/closed/"
        )
        assert caplog.records[0].levelno == logging.WARNING
        fs.rules.remove(rule)
        assert [event.key for event in poller.get_new_events()] == [b"closed/new", b"closed/old"]
        assert caplog.messages[1:] == [f"file://{inbox}: all of it can be listed again"]


# -- paths and URLs ------------------------------------------------------------

#: What is given, with the name of a directory that there is; and what is said of it.
PATHS = [
    ("{box}/inbax", "did you mean {box}/inbox?"),
    ("{box}/inbox ", "there is {box}/inbox, without blanks around it"),
    ("{box}/ inbox", "there is {box}/inbox, without blanks around it"),
    ("{box}/inbox\n", "there is {box}/inbox, without blanks around it"),
    ("{box}/'inbox'", "there is {box}/inbox, without quotation marks around it"),
    (
        "~/no-such-inbox",
        "'~' is for the shell to fill in: write the directory out, or use os.path.expanduser()",
    ),
    ("file://{box}/~/inbox", "'~' is for the shell to fill in"),
    ("$HOME/inbox", "a variable is for the shell to fill in: write its value, or use os.path.expandvars()"),
    ("${DATA}/inbox", "a variable is for the shell to fill in"),
    ("{box}/inbox/*.csv", "a pattern is no part of the path: watch {box}/inbox with include=['*.csv']"),
    ("{box}/inbox/**/*.csv", "watch {box}/inbox with include=['*.csv'], recurse=True"),
    ("\\\\server\\share", "directories are separated by '/' here; a share is watched where it is mounted"),
    ("{box}/quite-other", "expected an existing directory, such as /data/inbox, or a file"),
]


@pytest.mark.parametrize(("given", "says"), PATHS, ids=[repr(given) for given, _ in PATHS])
@pytest.mark.parametrize("make", [FilePoller, make_poller], ids=["scan", "make_poller"])
def test_a_path_that_is_not_there(make, tmp_path, inbox, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetNotFound) as caught:
        make(given.replace("{box}", str(tmp_path)))
    assert "is not there" in str(caught.value)
    assert says.replace("{box}", str(tmp_path)) in str(caught.value)


def test_a_directory_that_is_gone_is_no_mistake(inbox):
    """It was there: what lies beside it is not what was meant."""
    put(inbox / "box" / "file")
    with FilePoller(inbox / "box") as poller:
        (inbox / "box").rename(inbox / "bok")
        with pytest.raises(TargetNotFound) as caught:
            poller.get_new_events()
    assert "did you mean" not in str(caught.value)


def test_what_is_meant_is_not_looked_for_among_very_many(inbox):
    for number in range(3000):
        (inbox / f"{number:05}").touch()
    with pytest.raises(TargetNotFound, match="is not there"):
        FilePoller(inbox / "one")


@pytest.mark.parametrize("path", ["C:\\data\\inbox", "c:/data/inbox"])
def test_a_path_of_windows(path):
    with pytest.raises(
        InvalidUrl, match="is a path of Windows; expected one of this machine, such as '/data/inbox'"
    ):
        make_poller(path)
    with pytest.raises(InvalidOption, match="is a path of Windows; expected a path, sqlite:////"):
        make_poller("/", state=path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("swif://keystone.example.org/v3?inbox", "did you mean 'swift'? "),
        ("fiel:///data/inbox", "did you mean 'file'? "),
        ("sftp://host/inbox", "mount it, and give the path of the directory; "),
        ("https://keystone.example.org:5000/v3", "swifts://keystone.example.org:5000/v3?container"),
        ("s3://bucket/inbox", "for 's3' URLs; there are pollers for: file, swift,"),
    ],
)
def test_a_scheme_that_there_is_not(url, says):
    with pytest.raises(UnknownScheme) as caught:
        make_poller(url)
    assert says in str(caught.value)
    assert "Others are added with @register_poller(" in str(caught.value)


# -- options -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recurese": True}, "unknown option 'recurese'; did you mean 'recurse'? options are: consumer,"),
        (
            {"interval": 5},
            "that is an argument of batches() and wakeups(), and of 'poller watch'; options are",
        ),
        ({"limit": 5}, "that is an argument of next_batch(), batches() and claim(); options are"),
        ({"patterns": ["*.csv"]}, "did you mean 'include'? options are"),
        ({"ignore": ["*.csv"]}, "did you mean 'exclude'? options are"),
        ({"include": "*.csv,*.txt"}, "expected a list, include=['*.csv', '*.txt']"),
        ({"include": ["*.csv *.txt"]}, "expected a list, include=['*.csv', '*.txt']"),
        ({"exclude": ["*.{bak,old}"]}, "expected a list, exclude=['*.csv', '*.txt']"),
        ({"include": ["{inbox}/*.csv"]}, "without that path; expected include=['*.csv']"),
        ({"exclude": ["{inbox}/old/"]}, "without that path; expected exclude=['old/']"),
        ({"include": ["sub/*.csv"]}, "not looked at without recurse=True (--recurse)"),
    ],
)
def test_an_option_that_can_not_be_meant(inbox, options, says):
    given = {
        name: [one.replace("{inbox}", str(inbox)) for one in value] if isinstance(value, list) else value
        for name, value in options.items()
    }
    with pytest.raises(InvalidOption) as caught:
        make_poller(inbox, **given)
    assert says in str(caught.value)
    assert next(iter(options)) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"include": ["a,b.csv"]}, "a,b.csv"),
        ({"include": ["a *.csv"]}, "a b.csv"),
        ({"include": ["*, final.csv"]}, "report, final.csv"),
        ({"include": ["**/*.csv"]}, "b.csv"),
        ({"include": ["/*.csv"]}, "b.csv"),
        ({"include": ["sub/*.csv", "*.txt"]}, "b.txt"),
        ({"include": ["sub/*.csv"], "recurse": True}, "sub/b.csv"),
        ({"include": ["*.csv"]}, "b.csv"),
        ({"include": "*.csv", "events": "created"}, "b.csv"),
    ],
)
def test_an_option_that_is_meant(inbox, options, key):
    (inbox / "sub").mkdir()
    with FilePoller(inbox, **options) as poller:
        put(inbox / key)
        put(inbox / "other.pdf")
        assert [(event.key, event.event) for event in poller.get_new_events()] == [(key.encode(), "created")]


# -- the state ---------------------------------------------------------------


@pytest.mark.parametrize(
    "state", ["~/state.db", "sqlite:///~/state.db", "~somebody/state.db", "$HOME/state.db", "${HOME}/x.db"]
)
def test_a_state_that_a_shell_would_have_to_find(inbox, tmp_path, monkeypatch, state):
    """Else it would be made, below a directory that is called so, wherever the program happens to be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match="are for the shell to fill in; write the directory out"):
        make_poller(inbox, state=state)
    assert [path.name for path in tmp_path.iterdir()] == ["inbox"]
    make_poller(inbox, state="./~/state.db").close()
    assert (tmp_path / "~" / "state.db").exists()


def test_a_state_that_is_a_directory(inbox, tmp_path):
    (tmp_path / "states").mkdir()
    with pytest.raises(StateUnreadable) as caught:
        make_poller(inbox, state=tmp_path / "states")
    assert str(caught.value) == (
        f"the state file {tmp_path}/states is a directory; "
        f"expected a file, such as {tmp_path}/states/state.db"
    )


def test_a_scheme_in_capitals_is_the_same(inbox, tmp_path):
    make_poller(inbox, state=f"SQLite:///{tmp_path}/state.db").close()
    assert (tmp_path / "state.db").exists()
    with pytest.raises(InvalidOption, match="'file:' is not understood; expected a path, sqlite:////"):
        make_poller(inbox, state=f"file:{tmp_path}/other.db")


# -- what is there already -------------------------------------------------------


def test_what_counts_as_known_is_told(inbox, caplog):
    for number in range(3):
        put(inbox / f"{number}")
    with caplog.at_level(logging.INFO), FilePoller(inbox) as poller:
        assert poller.get_new_events() == []
        put(inbox / "new")
        assert [event.key for event in poller.get_new_events()] == [b"new"]
    assert [text for text in caplog.messages if "first look" in text] == [
        f"file://{inbox}: first look done: what is there counts as known, and is not reported "
        f"(existing='report' would); 3 entries"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO), FilePoller(inbox, existing="report") as poller:
        assert len(poller.get_new_events()) == 4
    assert not caplog.messages


# -- limits --------------------------------------------------------------------


def no_instance(nonblocking: bool) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_no_inotify_instance_left_is_a_warning_with_what_to_do(inbox, monkeypatch, caplog):
    """The limit is the whole user's, so it is made up."""
    monkeypatch.setattr("inotify_simple.INotify", no_instance)
    with make_poller(inbox) as poller:
        assert isinstance(poller, FilePoller)
        put(inbox / "a")
        assert [event.key for event in poller.get_new_events()] == [b"a"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"INotifyPoller can't be used for file://{inbox}: inotify can't be started (Too many open files): "
        f"too many are in use, and everything is listed at each look instead; "
        f"raise fs.inotify.max_user_instances (now "
    )


@pytest.mark.parametrize(
    "proxy", ["http://alice:wonderland@127.0.0.1:1", "not a url", "gopher://127.0.0.1:1"]
)
@pytest.mark.parametrize("scheme", ["swift", "swifts"])
def test_a_proxy_that_leads_nowhere(monkeypatch, proxy, scheme):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy", "OS_CLOUD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"USERNAME": "bob", "PASSWORD": "hunter2", "PROJECT_NAME": "demo"}.items():
        monkeypatch.setenv(f"OS_{name}", value)
    with pytest.raises(TargetError) as caught:
        make_poller(f"{scheme}://keystone.example.org:5000/v3?inbox", retries=0)
    text = str(caught.value)
    assert text.startswith("Keystone can't be reached: the proxy that HTTP_PROXY or HTTPS_PROXY names can't")
    assert "if none is needed, unset the variable, or name the host in NO_PROXY" in text
    assert "wonderland" not in text
    assert "hunter2" not in text


# -- use -----------------------------------------------------------------------


@pytest.mark.parametrize("what", [None, 7, b"1-0123456789abcdef"])
def test_an_event_that_is_no_id(inbox, what):
    with (
        FilePoller(inbox) as poller,
        pytest.raises(UnknownEvent, match="is not an event id; one looks like '12-"),
    ):
        poller.take(what, "run-1")


def test_a_poller_is_not_handed_over(inbox):
    with FilePoller(inbox) as poller:
        for hand_over in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="hand over its URL, options and state") as caught:
                hand_over(poller)
            assert f"file://{inbox}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("path", "'Event' object has no attribute 'path'; did you mean event.subject.path?"),
        ("type", "'Event' object has no attribute 'type'; did you mean event.event?"),
        ("colour", "'Event' object has no attribute 'colour'"),
    ],
)
def test_what_an_event_has_not(name, says):
    event = Event(subject=Url("/data/a.csv"), event="created")
    with pytest.raises(AttributeError) as caught:
        getattr(event, name)
    assert str(caught.value) == says
    assert not hasattr(event, name)
    assert copy.deepcopy(event) == event
    assert pickle.loads(pickle.dumps(event)) == event


def test_a_name_that_is_too_long_is_not_repeated_at_length(inbox):
    put(inbox / "a")
    with (
        FilePoller(inbox, existing="report") as poller,
        pytest.raises(InvalidOption, match="expected 1 to 250 printable characters") as caught,
    ):
        poller.claim("x" * 400)
    assert len(str(caught.value)) < 250


def test_an_old_python_says_so(tmp_path):
    """Told to be one: none may be installed here."""
    program = (
        "import sys; sys.version_info = (3, 10, 2, 'final', 0); sys.executable = '/usr/bin/python3';"
        "import poller_core"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: poller-core needs Python 3.11 or newer; this is Python 3.10, /usr/bin/python3"
    )


def test_no_room_for_a_new_state(inbox, tmp_path):
    """The one that is to be made is named, not the file that is made before it is put in place."""
    # No file may grow beyond this: as on a full disk.
    program = (
        "import resource, signal, sys; from poller_core import make_poller; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "make_poller(sys.argv[1], state=sys.argv[2])"
    )
    python = [sys.executable, "-c", program, str(inbox), str(tmp_path / "state.db")]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert f"the state {tmp_path}/state.db " in said
    assert ".new" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["inbox"]


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (None, "PYTHON={} is not there; expected Python 3.11 or newer"),
        ("3.10.2", "PYTHON={} is Python 3.10.2; expected Python 3.11 or newer"),
    ],
)
def test_make_with_an_old_python(tmp_path, version, says):
    """A stand-in: none may be installed here."""
    python = tmp_path / "python"
    if version:
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version} && exit\nexit 1\n')
        python.chmod(0o755)
    environ = {**os.environ, "PYTHON": str(python), "VENV": str(tmp_path / "venv")}
    venv = [str(ROOT / ".ci" / "venv"), "run"]
    done = subprocess.run(venv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {says.format(python)}\n"
    assert not (tmp_path / "venv").exists()
