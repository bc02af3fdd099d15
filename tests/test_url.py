"""URLs: nothing of a name is lost, nothing of a password is shown, and refusals say what would be right."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller_core.errors import InvalidUrl, PollerError
from poller_core.url import Url, redact

#: Names as a Unix file system allows them: any bytes but NUL and the slash.
NAMES = st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"_"))
PATHS = st.lists(NAMES.filter(lambda name: name != b"."), max_size=4).map(
    lambda names: b"/" + b"/".join(names)
)

SECRET = "s3cr3t"


# -- files -------------------------------------------------------------------


@given(PATHS)
@example(b"/")
@example(b"/%41 ?#[]@:;=&+\xff\xfe\n\xc3\xa4")
@example(b"/..")
@example(b"/trailing blank ")
def test_every_path_of_bytes_comes_back(path: bytes) -> None:
    url = Url.from_path(path)
    assert bytes(url) == os.fsencode(url.path) == os.fsencode(os.fspath(url)) == path
    assert url.scheme == "file"
    assert (url.hostname, url.port, url.query, url.fragment, url.username) == (None, None, "", "", None)
    assert str(url).isascii()
    for other in (
        Url(str(url)),
        Url(path),
        Url(url.path),
        pickle.loads(pickle.dumps(url)),
        copy.deepcopy(url),
    ):
        assert other == url
        assert hash(other) == hash(url)
        assert bytes(other) == path


@given(PATHS)
def test_the_text_is_the_one_of_pathlib(path: bytes) -> None:
    assert str(Url(path)) == Path(os.fsdecode(path)).as_uri()


@given(PATHS, PATHS)
def test_urls_are_equal_if_their_paths_are(one: bytes, other: bytes) -> None:
    assert (Url(one) == Url(other)) is (one == other)
    assert (str(Url(one)) == str(Url(other))) is (one == other)
    assert Url(one) == str(Url(one))
    assert sorted([Url(one), Url(other)]) == sorted([str(Url(one)), str(Url(other))])


@pytest.mark.parametrize(
    ("given_", "path"),
    [
        ("/data/inbox", "/data/inbox"),
        ("/data//in/./box/", "/data/in/box"),
        ("//data", "/data"),
        ("/", "/"),
        ("/data/../x", "/data/../x"),
        ("/data/.hidden", "/data/.hidden"),
        ("/50%25 off?#", "/50%25 off?#"),
        (" /blank/x\n", None),
        ("/data/x ", "/data/x "),
        (b"/data/\xff", "/data/\udcff"),
        (Path("/data/inbox"), "/data/inbox"),
        ("file:///data/inbox", "/data/inbox"),
        ("  file:///data/inbox\n", "/data/inbox"),
        ("FILE:///data/inbox", "/data/inbox"),
        ("file:/data/inbox", "/data/inbox"),
        ("file://localhost/data", "/data"),
        ("file://LOCALHOST/data", "/data"),
        ("file:///a%20b%3F%23%25", "/a b?#%"),
        ("file:///ä", "/ä"),
        ("file:///%C3%A4", "/ä"),
        ("file:///%FF", "/\udcff"),
        ("file:///\udcff", "/\udcff"),
        ("file:///a b", "/a b"),
        ("file:////a//b/", "/a/b"),
    ],
)
def test_paths_are_read(given_: str | bytes | Path, path: str | None) -> None:
    expected = os.path.join(os.getcwd(), " /blank/x\n") if path is None else path
    assert Url(given_).path == expected


def test_relative_paths_start_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Url("in/box").path == f"{tmp_path}/in/box"
    assert Url(".").path == str(tmp_path)
    assert Url("./a:b").path == f"{tmp_path}/a:b"
    assert Url(b"x").path == f"{tmp_path}/x"


def test_without_a_current_directory_only_absolute_paths_work(tmp_path: Path) -> None:
    script = (
        "import os, sys; from poller_core.url import Url; from poller_core.errors import InvalidUrl\n"
        "gone = os.path.join(sys.argv[1], 'gone'); os.mkdir(gone); os.chdir(gone); os.rmdir(gone)\n"
        "assert Url('/x').path == '/x'\n"
        "try: Url('x')\n"
        "except InvalidUrl as error: assert 'give an absolute path' in str(error)\n"
        "else: raise SystemExit('taken')\n"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, cwd=root, timeout=60)


def test_a_file_can_be_opened_by_its_url(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 %41.txt"
    Path(os.fsdecode(path)).write_text("inside")
    with open(Url(path)) as stream:
        assert stream.read() == "inside"


def test_what_is_no_file_has_no_path_to_open() -> None:
    with pytest.raises(TypeError, match="swift://host/v3 is not a file"):
        os.fspath(Url("swift://host/v3"))


# -- other schemes -----------------------------------------------------------


def test_the_parts_of_a_url() -> None:
    url = Url("Swift://alice+demo:s%40cret@Keystone.Example.org:5000/v3/a%2Fb?con tainer&x=%20#frag")
    assert url.scheme == "swift"
    assert url.username == "alice+demo"
    assert url.password == "s@cret"
    assert url.hostname == "keystone.example.org"
    assert url.port == 5000
    assert url.path == "/v3/a%2Fb"
    assert url.query == "con%20tainer&x=%20"
    assert url.fragment == "frag"
    assert str(url) == "swift://alice+demo@keystone.example.org:5000/v3/a%2Fb?con%20tainer&x=%20#frag"
    assert bytes(url) == str(url).encode()
    plain = url.without_credentials()
    assert str(plain) == "swift://keystone.example.org:5000/v3/a%2Fb?con%20tainer&x=%20#frag"
    assert (plain.username, plain.password) == (None, None)
    assert plain.without_credentials() is plain
    assert Url(url) is url


@pytest.mark.parametrize(
    "text",
    [
        "swift://host/v3?container",
        "swift:///v3?container",
        "x://",
        "x://host",
        "x://[::1]:80/p",
        "x://[fe80::1%25eth0]/p",
        "x://@host/p",
        "x://al%FFice@host",
        "x://a%3Ab%40c%2Fd@host",
        "x:////two/slashes",
        "x://host/p?a?b#c#d?e",
        "x://höst/pfäd",
        "x://host/a@b",
        "x://me@host:80/a@b",
        "x://host:65535",
        "a+b-c.d://host",
    ],
)
def test_texts_of_urls_come_back(text: str) -> None:
    assert str(Url(text)) == text


PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(PRINTABLE, PRINTABLE, PRINTABLE, PRINTABLE)
@example("host", "/a ", "", "")
@example("host", "/", "", "x\u3000")
@example("[::1", "", "", "")
@example("[v1.a]", "", "", "")
@example("a@b@c:1", "", "", "")
def test_whatever_is_taken_comes_back_from_its_text(host: str, path: str, query: str, fragment: str) -> None:
    try:
        url = Url(f"x://{host}/{path}?{query}#{fragment}")
    except InvalidUrl:
        return
    again = Url(str(url))
    assert again == url
    assert str(again) == str(url)
    assert (again.hostname, again.port, again.path) == (url.hostname, url.port, url.path)
    assert (again.query, again.fragment, again.username) == (url.query, url.fragment, url.username)


@given(st.binary(min_size=1, max_size=12), st.binary(max_size=12))
def test_user_names_and_passwords_may_be_any_bytes(user: bytes, password: bytes) -> None:
    quoted = ["".join(f"%{byte:02X}" for byte in raw) for raw in (user, password)]
    url = Url("x://{}:{}@host".format(*quoted))
    assert url.username is not None
    assert url.username.encode("utf-8", "surrogateescape") == user
    assert url.password is not None
    assert url.password.encode("utf-8", "surrogateescape") == password
    assert Url(str(url)).username == url.username


# -- secrets -----------------------------------------------------------------


@pytest.mark.parametrize("password", [SECRET, "s3cr3t%2F%40", "s3cr3t:s3cr3t", ""])
def test_a_password_is_shown_nowhere(password: str) -> None:
    url = Url(f"swift://alice:{password}@host/v3?c")
    shown = [str(url), repr(url), f"{url}", format(url), bytes(url).decode()]
    shown += [str(url.without_credentials()), repr({url: [url]}), url.path, url.query]
    shown += [repr(pickle.dumps(url, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    assert not any(SECRET in text or "***" in text for text in shown)
    assert pickle.loads(pickle.dumps(url)).password is None
    assert pickle.loads(pickle.dumps(url)) == url
    assert copy.copy(url).password == copy.deepcopy(url).password == url.password
    assert url == Url("swift://alice:other@host/v3?c") == "swift://alice@host/v3?c"
    assert hash(url) == hash(Url("swift://alice@host/v3?c"))
    with pytest.raises(TypeError) as caught:
        os.fspath(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"swift://alice:{SECRET}@host:port/v3",
        f"swift://alice:{SECRET}@host:99999/v3",
        f"swift://alice:{SECRET}@host:0/v3",
        f"swift://alice:{SECRET}/x@host/v3",
        f"swift://alice:/{SECRET}@host:x/v3",
        f"swift://alice:#{SECRET}@host/v3",
        f"swift://alice:?{SECRET}@host/v3",
        f"swift://alice:p@{SECRET}@host:x/v3",
        f"swift://alice:{SECRET}@[::1/v3",
        f"swift://alice:[{SECRET}@host/v3",
        f"swift://alice:{SECRET}@host:1:2/v3",
        f"swift://alice:{SECRET}",
        f"swift://alice:{SECRET}/v3",
        f"swift://alice:/{SECRET}",
        f"swift://alice:12{SECRET}",
        f"swift://alice:12/{SECRET}@host/v3",
        f"swift://alice:12?{SECRET}@host/v3",
        f"swift://alice:\n{SECRET}@host:x",
        f"swift://alice:{SECRET}\n@host",
        f"swift://alice:{SECRET}\x7f@host",
        f"swift://alice:{SECRET}\udcff@host",
        f"swift:alice:{SECRET}@host/v3",
        f"swift:/alice:{SECRET}@host/v3",
        f"file://alice:{SECRET}@host/data",
        f"file:alice:{SECRET}@host/data",
    ],
)
def test_a_refusal_does_not_repeat_the_password(text: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        Url(text)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.args}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert SECRET not in redact(text)


@given(st.text(max_size=8), st.text(max_size=8))
def test_redaction_lets_nothing_through(before: str, behind: str) -> None:
    for text in (f"x://u:{before}{SECRET}{behind}@host/p", f"x:{before}{SECRET}{behind}@host"):
        assert SECRET not in redact(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("swift://host:5000/v3?c#f", "swift://host:5000/v3?c#f"),
        ("swift://alice@host/v3", "swift://***@host/v3"),
        ("swift://a:b@host:5000/v3", "swift://***@host:5000/v3"),
        ("swift://[::1]:5000/v3", "swift://[::1]:5000/v3"),
        ("swift://host:word/v3", "swift://host:***"),
        ("file:///data/a:b", "file:///data/a:b"),
        ("file:///a:b", "file:///a:b"),
    ],
)
def test_what_redaction_leaves(text: str, shown: str) -> None:
    assert redact(text) == shown


# -- bad input ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "not NoneType"),
        (7, "not int"),
        ("", "the path is empty"),
        (b"", "the path is empty"),
        ("a\0b", "NUL"),
        (b"/a\0", "NUL"),
        ("file:///a%00b", "NUL"),
        ("/\ud800", "can't be written in the file system's encoding"),
        ("file:///\ud800", "percent-encode the bytes"),
        ("file://host/data", "write three slashes"),
        ("file://data", "write three slashes"),
        ("file:", "has no absolute path"),
        ("file://", "has no absolute path"),
        ("file:data", "has no absolute path"),
        ("file:///a?b", "write %3F"),
        ("file:///a#b", "write %23"),
        ("file:///100%", "write %25"),
        ("file:///%zz", "write %25"),
        ("a:b", "write './' before it"),
        ("C:\\data", "is a path of Windows"),
        ("s3:/bucket", "needs '//'"),
        ("x://host:port", "a port from 1 to 65535"),
        ("x://host:", "a port from 1 to 65535"),
        ("x://host:80/a@b", "percent-encoding"),
        ("x://host:0", "a port from 1 to 65535"),
        ("x://host:65536", "a port from 1 to 65535"),
        ("x://a:b:c", "is malformed"),
        ("x://[::1", "is malformed"),
        ("x://[::1]x", "is malformed"),
        ("x://[]", "is malformed"),
        ("x://a]b", "is malformed"),
        ("x://ho\u2100st", "is malformed"),
        ("x://host/a\nb", "control character"),
        ("x://host/a\x00b", "control character"),
        ("x://host/\udcff", "half a character"),
    ],
)
def test_refusals_say_what_would_be_right(value: object, says: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        Url(value)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert isinstance(caught.value, PollerError)
    assert isinstance(caught.value, ValueError)


# -- a value -----------------------------------------------------------------


def test_a_url_can_not_be_changed() -> None:
    url = Url("/data")
    for name in ("scheme", "path", "_raw", "new"):
        with pytest.raises(AttributeError, match="can't be changed"):
            setattr(url, name, "x")
        with pytest.raises(AttributeError, match="can't be changed"):
            delattr(url, name)
    assert not hasattr(url, "__dict__")


def test_comparison_with_other_things() -> None:
    url = Url("/data")
    assert url != 7
    assert url != "/data"
    assert url != b"/data"
    assert url in {"file:///data"}
    with pytest.raises(TypeError):
        sorted([url, "file:///data"])  # type: ignore[type-var]
