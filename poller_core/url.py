"""URLs of targets and subjects.

A :class:`Url` is an immutable, hashable value. Guarantees:

* **Lossless.** A file's URL holds every byte of its name, UTF-8 or not, and
  ``Url(str(url)) == url``.
* **No secrets in the open.** The password of a URL that was given with one can
  be read as :attr:`Url.password`; it is in no ``str``, ``repr``, comparison,
  hash or pickle.
* **Refusals that help.** Text that can't be understood raises
  :class:`~poller_core.errors.InvalidUrl`, which says what would be right and
  does not repeat the user info of what was given.

Not guaranteed: that two URLs that name one thing are equal. ``..`` and symbolic
links are left as they are, since only the file system knows what they mean.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes, urlsplit

from .errors import InvalidUrl

__all__ = ["Url", "redact"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST_PORT = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:]*)(?::[0-9]+)?")
_USER_INFO = re.compile(r"(\A[A-Za-z][A-Za-z0-9+.\-]*:(?://)?|//).*@", re.DOTALL)
# Behind the colon of a host stands a port; what else stands there may be a password that lacks its "@host".
_NO_PORT = re.compile(r"((?<!/)//[^/?#\[\]:]*:)(?![0-9]{1,5}(?:[/?#]|\Z)).*", re.DOTALL)
_QUERY_VALUE = re.compile(r"([?&;][^=&;#]*=)[^&;#]*")
# What str.strip() takes away besides is kept: it can be part of a name.
_BLANKS = " \t\r\n"


def redact(text: str) -> str:
    """The text of a URL with everything replaced that may be user info, or a token in the query.

    Generous on purpose: an unescaped ``/`` or ``@`` in a password, or a forgotten ``@host`` behind it,
    must not let any of it through.
    """
    return _QUERY_VALUE.sub(r"\1***", _NO_PORT.sub(r"\1***", _USER_INFO.sub(r"\1***@", text)))


class Url:
    """Where something is: ``file:///data/inbox``, ``swift://host/v3?container``, or a plain path.

    :param value: a URL, a plain path (absolute, or relative to the current
        directory), or a :class:`Url`. A plain path is taken as it is: ``%``,
        ``#`` and ``?`` in it are part of the name.
    :raises InvalidUrl: if it is empty, not a text or path, or malformed.

    For a file, :attr:`path` is the path to open, and ``open(url)`` works, as
    for every ``os.PathLike``. Compares equal to its own text. ::

        url = Url("/data/inbox/50% off.csv")
        assert url == "file:///data/inbox/50%25%20off.csv"
        assert url.path == "/data/inbox/50% off.csv"
    """

    __slots__ = (
        "_password",
        "_raw",
        "_text",
        "_user",
        "fragment",
        "hostname",
        "port",
        "query",
        "scheme",
        "username",
    )

    scheme: str  #: in lower case
    hostname: str | None  #: in lower case; None for files
    port: int | None
    query: str  #: as it stands in the URL, still percent-encoded
    fragment: str  #: as it stands in the URL
    username: str | None  #: decoded; None in subjects
    _password: str | None
    _user: str | None  # still encoded: only so can a "+" that joins two names be told from one in a name
    _raw: bytes | str  # a file's path in bytes; any other URL's path as text
    _text: str | None  # made when first asked for: a batch of subjects is cheap

    def __new__(cls, value: str | bytes | os.PathLike[Any] | Url) -> Url:
        if isinstance(value, Url):
            return value
        if isinstance(value, os.PathLike):
            return cls.from_path(os.fspath(value))
        if isinstance(value, bytes):
            return cls.from_path(value)
        if not isinstance(value, str):
            raise InvalidUrl(
                f"a URL or path is a text, such as 'file:///data/inbox' or '/data/inbox', "
                f"not {type(value).__name__}"
            )
        text = value.strip(_BLANKS) if "://" in value else value
        match = _SCHEME.match(text)
        if not match:
            return cls.from_path(value)
        scheme = match.group(1).lower()
        return cls._file(text) if scheme == "file" else cls._other(scheme, text)

    @classmethod
    def from_path(cls, path: str | bytes) -> Url:
        """The URL of a path on this machine, taken as it is; relative ones start from the current directory.

        :param path: text, or bytes where the name is not UTF-8.
        :raises InvalidUrl: if the path is empty, holds a NUL character or can't be encoded, or if it is
            relative and there is no current directory any more.
        """
        try:
            raw = os.fsencode(path)
        except UnicodeEncodeError:
            raise InvalidUrl(f"the path {path!r} can't be written in the file system's encoding") from None
        if not raw:
            raise InvalidUrl("the path is empty; expected one such as '/data/inbox' or 'file:///data/inbox'")
        if b"\0" in raw:
            raise InvalidUrl(f"the path {path!r} holds a NUL character, which no file name can have")
        if not raw.startswith(b"/"):
            try:
                raw = os.path.join(os.getcwdb(), raw)
            except OSError as error:
                raise InvalidUrl(
                    f"the path {path!r} is relative, but the current directory can't be found "
                    f"({error.strerror}); give an absolute path"
                ) from None
        if b"//" in raw or b"/." in raw or raw[-1:] == b"/":
            raw = b"/" + b"/".join(part for part in raw.split(b"/") if part not in (b"", b"."))
        return cls._make("file", raw)

    @classmethod
    def _make(cls, scheme: str, raw: bytes | str, **parts: Any) -> Url:
        self = object.__new__(cls)
        put = object.__setattr__
        put(self, "scheme", scheme)
        put(self, "_raw", raw)
        put(self, "hostname", parts.get("hostname"))
        put(self, "port", parts.get("port"))
        put(self, "query", parts.get("query", ""))
        put(self, "fragment", parts.get("fragment", ""))
        put(self, "_user", parts.get("user"))
        put(self, "username", None if self._user is None else unquote(self._user, errors="surrogateescape"))
        put(self, "_password", parts.get("password"))
        put(self, "_text", None)
        return self

    @classmethod
    def _file(cls, text: str) -> Url:
        rest = text[len("file:") :]
        host = ""
        if rest.startswith("//"):
            host, slash, tail = rest[2:].partition("/")
            rest = slash + tail
        shown = repr(redact(text))
        if host.lower() not in ("", "localhost"):
            raise InvalidUrl(
                f"{shown} names a host, but a file URL has none: write three slashes, as in 'file:///data/inbox'"
            )
        if not rest.startswith("/"):
            raise InvalidUrl(
                f"{shown} has no absolute path; write 'file:///data/inbox', or a plain path like 'data/inbox'"
            )
        for mark, code in (("?", "%3F"), ("#", "%23")):
            if mark in rest:
                raise InvalidUrl(
                    f"{shown} has a {mark!r}: in a file URL write {code}, or give the plain path instead"
                )
        if _BAD_PERCENT.search(rest):
            raise InvalidUrl(
                f"{shown} has a '%' without two hexadecimal digits behind it: write %25, "
                f"or give the plain path instead"
            )
        try:
            return cls.from_path(unquote_to_bytes(rest.encode("utf-8", "surrogateescape")))
        except UnicodeEncodeError:
            raise InvalidUrl(
                f"{shown} holds half a character; percent-encode the bytes of the name"
            ) from None

    @classmethod
    def _other(cls, scheme: str, text: str) -> Url:
        example = f"'{scheme}://host/path'"
        if len(scheme) == 1 and text[2:3] in ("/", "\\") and text[2:4] != "//":
            raise InvalidUrl(
                f"{text!r} is a path of Windows; expected one of this machine, such as '/data/inbox'. In WSL "
                f"drive {scheme.upper()}: is /mnt/{scheme}; a share is watched where it is mounted"
            )
        if not text[len(scheme) + 1 :].startswith("//"):
            raise InvalidUrl(
                f"{redact(text)!r} is read as a URL of scheme {scheme!r}, which then needs '//', "
                f"as in {example}; for a file of that name write './' before it"
            )
        # Python's parser would drop some of these without a word.
        if _CONTROL.search(text) or any("\ud800" <= char <= "\udfff" for char in text):
            raise InvalidUrl(
                f"the {scheme} URL holds a control character or half a character; percent-encode it"
            )
        try:
            parts = urlsplit(text.replace(" ", "%20"))
            hostname, port = parts.hostname, parts.port
            _, user, location = parts.netloc.rpartition("@")
            if port == 0 or not _HOST_PORT.fullmatch(location):
                raise ValueError
            if port is not None and not user and "@" in text:
                # Mostly a password with a slash or the like in it, which would be shown as part of the path.
                raise ValueError
        except ValueError:
            raise InvalidUrl(
                f"{redact(text)!r} is malformed: expected {example}, a port from 1 to 65535, "
                f"and percent-encoding for '/', '?', '#', ':' and '@' inside of a name or password"
            ) from None
        return cls._make(
            scheme,
            parts.path,
            hostname=hostname,
            port=port,
            query=parts.query,
            fragment=parts.fragment,
            user=parts.username,
            password=None if parts.password is None else unquote(parts.password, errors="surrogateescape"),
        )

    @property
    def path(self) -> str:
        """For a file, the path to open (undecodable bytes as surrogate escapes); else as in the URL."""
        raw = self._raw
        return os.fsdecode(raw) if isinstance(raw, bytes) else raw

    @property
    def password(self) -> str | None:
        """The password that the URL was given with, decoded, or None."""
        return self._password

    @property
    def user_names(self) -> list[str]:
        """The names that ``+`` joins in the user info (``alice+demo``), decoded; ``%2B`` joins nothing."""
        parts = [] if self._user is None else self._user.split("+")
        return [unquote(part, errors="surrogateescape") for part in parts]

    @property
    def query_items(self) -> list[tuple[str, str | None]]:
        """The parts of the query, decoded; a part without ``=`` has the value None."""
        items: list[tuple[str, str | None]] = []
        for part in self.query.split("&") if self.query else []:
            name, mark, value = part.partition("=")
            items.append((unquote(name), unquote(value) if mark else None))
        return items

    def without_credentials(self) -> Url:
        """The same URL without user name and password."""
        if self.username is None and self._password is None:
            return self
        return self._make(
            self.scheme,
            self._raw,
            hostname=self.hostname,
            port=self.port,
            query=self.query,
            fragment=self.fragment,
        )

    def __fspath__(self) -> str:
        if self.scheme != "file":
            raise TypeError(f"{self} is not a file, so it has no path to open")
        return self.path

    def __bytes__(self) -> bytes:
        return self._raw if isinstance(self._raw, bytes) else str(self).encode()

    def __str__(self) -> str:
        if self._text is None:
            object.__setattr__(self, "_text", self._compose())
        assert self._text is not None
        return self._text

    def _compose(self) -> str:
        if isinstance(self._raw, bytes):
            return "file://" + quote_from_bytes(self._raw)
        user = ""
        if self._user is not None:
            names = [name.encode("utf-8", "surrogateescape") for name in self.user_names]
            user = "+".join(quote_from_bytes(name, safe="") for name in names) + "@"
        host = self.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = "" if self.port is None else f":{self.port}"
        query = f"?{self.query}" if self.query else ""
        fragment = f"#{self.fragment}" if self.fragment else ""
        return f"{self.scheme}://{user}{host}{port}{self._raw}{query}{fragment}"

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Url):
            if isinstance(self._raw, bytes) and isinstance(other._raw, bytes):
                return self._raw == other._raw
            return str(self) == str(other)
        if isinstance(other, str):
            return str(self) == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: Url) -> bool:
        if not isinstance(other, Url):
            return NotImplemented
        return str(self) < str(other)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Url can't be changed; make a new one to change {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Url can't be changed; make a new one to change {name!r}")

    def __copy__(self) -> Url:
        return self

    def __deepcopy__(self, memo: object) -> Url:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the password: what is pickled travels to disks and queues.
        return (Url, (str(self),))
