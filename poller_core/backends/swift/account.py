"""One account's object store: requests, repeated where that helps, and errors that say what is wrong.

Guarantees:

* A request ends: servers are given so long to connect and so long to stand still, an
  answer as a whole has a limit, and repetitions are counted. ``Retry-After`` is kept to.
* An answer is whole, or there is none: a body that is cut short is an error.
* A token that has expired is renewed, and the request sent again with the new one.
* Every failure is a :class:`~poller_core.errors.TargetError` that names the situation,
  and no secret.

Not guaranteed: that what was asked for is new; the stores behind it agree in the end.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

from ...clock import Clock
from ...errors import AccessDenied, AuthenticationFailed, TargetError, TargetNotFound
from ...url import redact
from .sessions import Network, SharedSession

__all__ = ["Account", "Answer", "Place", "quoted"]

T = TypeVar("T")

log = logging.getLogger("poller_core.swift")

#: Answers that may be others the next time: of a server that is busy, restarting or out of step.
_PASSING = frozenset({408, 425, 429, 498, 500, 502, 503, 504, 507, 509})

#: Seconds before the first repetition; twice as many before each further one, up to the second figure.
_PAUSE, _LONGEST_PAUSE = 0.5, 20.0

#: A server that asks for more patience than this, in seconds, is not waited for: the next look comes.
_PATIENCE = 60.0

#: An answer as a whole may take so many times as long as it may stand still.
_WHOLE = 5

_PIECE = 1 << 18

_VERSION = re.compile(r"v\d+(\.\d+)?")


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray


class Place(NamedTuple):
    """Where an account is."""

    storage_url: str  #: without a slash at its end
    account: str  #: its name, such as ``AUTH_0123…``
    region: str  #: as the catalogue calls it, or empty

    @property
    def host(self) -> str:
        """Host and port of Swift, for people."""
        return urlsplit(self.storage_url).netloc.rpartition("@")[2]


class _Passing(TargetError):
    """May go well the next time."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after  # seconds that the server asked for


class Account:
    """An account, through a session.

    :param shared: the session.
    :param net: how to speak to servers.
    :param clock: the clocks to go by.
    """

    def __init__(self, shared: SharedSession, net: Network, clock: Clock) -> None:
        self._shared = shared
        self._net = net
        self._way = shared.access.way
        self._clock = clock
        self._place: Place | None = None

    def close(self) -> None:
        """Let go of the session."""
        self._shared.close()

    # -- where it is ---------------------------------------------------------

    def place(self) -> Place:
        """Authenticate, if that was not done yet, and say where the account is.

        :raises AuthenticationFailed: if the credentials are not accepted.
        :raises TargetError: if Keystone can't be reached, or has no object store to offer.
        """
        if self._place is None:
            self._place = self._persist("authenticating", self._find)
        return self._place

    def _find(self) -> Place:
        # First, since it says what to install if that is missing.
        session, region, interface = self._shared.get(), self._shared.region, self._shared.interface
        from keystoneauth1 import exceptions

        wanted = {"service_type": "object-store", "interface": interface, "region_name": region}
        with self._translated():
            try:
                url = session.get_endpoint(**wanted)
            except exceptions.EmptyCatalog:
                raise AuthenticationFailed(
                    f"the token is valid for no project ({self._way}): expected a project too, as "
                    f"<user>+<tenant> in the URL or OS_PROJECT_NAME"
                ) from None
            except exceptions.EndpointNotFound:
                url = None
            if not url:
                raise TargetError(self._no_endpoint(session, region, interface))
            url = url.rstrip("/")
            account = url.rpartition("/")[2]
            if _VERSION.fullmatch(account):
                # Ceph's gateway can leave the account out, and know it by the token alone.
                account = session.get_project_id() or self._shared.access.options.get("username", "")
            found = self._region_of(session, wanted)
            return Place(url, account, (region or "") if found is None else found)

    def _region_of(self, session: Any, wanted: dict[str, Any]) -> str | None:
        with contextlib.suppress(Exception):  # plugins without a catalogue have none of this
            catalog = session.auth.get_access(session).service_catalog
            found = str(catalog.endpoint_data_for(**wanted).region_name or "")
            return (
                "" if found == "default" else found
            )  # that is what stands in TempAuth's place of a catalogue
        return None

    def _no_endpoint(self, session: Any, region: str | None, interface: str) -> str:
        there: set[str] = set()
        with contextlib.suppress(Exception):  # a plugin without a catalogue
            catalog = session.auth.get_access(session).service_catalog
            for found in catalog.get_endpoints_data(service_type="object-store").values():
                there.update(f"{one.interface} in {one.region_name}" for one in found)
        where = f" in region {region!r}" if region else ""
        listed = f"there is: {', '.join(sorted(there))}" if there else "it has none at all for this project"
        return f"Keystone's catalogue has no {interface} endpoint of an object store{where}; {listed}"

    # -- requests ------------------------------------------------------------

    def get(self, path: str, params: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        """GET something of the account, whole.

        :param path: below the account, percent-encoded; ``""`` is the account.
        :param read: takes what is wanted from the answer; where it raises ``ValueError``, the answer was no
            good, and is asked for again.
        :raises TargetError: for every answer but 2xx, and if there is none.
        """

        def ask() -> T:
            answer = self._once("GET", path, params)
            try:
                return read(answer)
            except ValueError as error:
                raise _Passing(f"the answer of {self._host} can't be understood: {error}") from None

        return self._persist(f"GET {path}", ask)

    def head(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """HEAD something of the account; the answer may be 404, too."""
        return self._persist(f"HEAD {path}", lambda: self._once("HEAD", path, params, missing=True))

    def info(self) -> Answer:
        """What the cluster says of itself; any answer will do."""

        def ask() -> Answer:
            parts = urlsplit(self.place().storage_url)
            return self._send("GET", f"{parts.scheme}://{parts.netloc}/info", None, authenticated=False)

        return self._persist("GET /info", ask)

    def stream(self, path: str, headers: Mapping[str, str]) -> Any:
        """The answer to a GET whose body is yet to be read: a ``requests.Response``, to be closed."""

        def ask() -> Any:
            answer = self._start("GET", self._url(path), None, True, headers)
            if answer.status_code // 100 != 2:
                with contextlib.closing(answer):
                    self._refuse(Answer(answer.status_code, answer.headers, b""), path)
            return answer

        return self._persist(f"GET {path}", ask)

    def _url(self, path: str) -> str:
        return f"{self.place().storage_url}/{path}" if path else self.place().storage_url

    def _once(
        self, method: str, path: str, params: Mapping[str, str] | None, missing: bool = False
    ) -> Answer:
        answer = self._send(method, self._url(path), params)
        if answer.status // 100 != 2 and not (missing and answer.status == 404):
            self._refuse(answer, path)
        return answer

    def _send(
        self, method: str, url: str, params: Mapping[str, str] | None, authenticated: bool = True
    ) -> Answer:
        began = self._clock.monotonic()
        response = self._start(method, url, params, authenticated)
        with contextlib.closing(response), self._translated():
            body = bytearray()
            limit = began + _WHOLE * self._net.timeout[1]
            # Not iter_content(), which waits until a piece is full: a byte now and then would go on for ever.
            while piece := response.raw.read1(_PIECE, decode_content=True):
                body += piece
                if self._clock.monotonic() > limit:
                    raise _Passing(f"{self._host} did not finish its answer in {limit - began:.0f} s")
        took = self._clock.monotonic() - began
        log.debug("%s %s: %d, %d bytes, %.3f s", method, response.url, response.status_code, len(body), took)
        return Answer(response.status_code, response.headers, body)

    def _start(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        authenticated: bool,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        settings: dict[str, Any] = {} if self._net.verify is None else {"verify": self._net.verify}
        with self._translated():
            # Not logged by keystoneauth, which would write down the whole listing.
            return self._shared.get().request(
                url,
                method,
                params=params,
                headers={"Accept": "application/json", **(headers or {})},
                authenticated=authenticated,
                raise_exc=False,
                stream=True,
                log=False,
                timeout=self._net.timeout,
                **settings,
            )

    @property
    def _host(self) -> str:
        return self._place.host if self._place is not None else "Keystone"

    # -- trying again --------------------------------------------------------

    def _persist(self, what: str, ask: Callable[[], T]) -> T:
        """Ask until there is an answer, or no hope."""
        for attempt in range(self._net.retries + 1):
            try:
                return ask()
            except _Passing as error:
                pause = min(_LONGEST_PAUSE, _PAUSE * 2**attempt) * (0.5 + random.random() / 2)
                if error.after is not None:
                    # Exactly then, all that were sent away would come back at once.
                    pause = error.after * (1 + random.random() / 10)
                if attempt == self._net.retries or pause > _PATIENCE:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    later = f"; it asks to be left alone for {error.after:.0f} s" if error.after else ""
                    self._place = None  # Swift may have moved: the catalogue is asked again next time
                    raise TargetError(f"{error}{tries}{later}") from None
                log.info("%s: %s; trying again in %.1f s", what, error, pause)
                self._clock.sleep(pause)
        raise AssertionError("unreachable")

    def _refuse(self, answer: Answer, path: str) -> None:
        """Raise what an answer means that is not the one that was hoped for."""
        container, _, name = unquote(path).partition("/")
        what = f"object {name!r} of container {container!r}" if name else f"container {container!r}"
        where = f"account {self.place().account} at {self._host}"
        status = answer.status
        if status in _PASSING:
            after = _seconds(answer.headers.get("Retry-After"), self._clock)
            raise _Passing(f"{self._host} answered {status} {_REASONS.get(status, '')}".rstrip(), after)
        if status == 401:
            raise AuthenticationFailed(
                f"{self._host} does not accept the token that was issued to it ({self._way})"
            )
        if status == 403:
            raise AccessDenied(
                f"{what} in {where} may not be read ({self._way}): the user needs a role that may list it, "
                f"or a read ACL on the container"
            )
        if status == 404:
            raise TargetNotFound(f"there is no {what} in {where}")
        raise TargetError(f"{self._host} answered {status} to a request for {what}")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the errors of three libraries into ours, which name the situation."""
        import requests
        import urllib3
        from keystoneauth1 import exceptions

        try:
            yield
        except exceptions.SSLError as error:
            if "verify failed" not in str(error):
                raise TargetError(
                    f"{self._host} does not answer in TLS ({self._way}); if it is plain http, the scheme is "
                    f"swift or swt, not swifts or swts"
                ) from None
            raise TargetError(
                f"the certificate of {self._host} is not trusted. If an authority of your own signed it: "
                f"cacert='/path/to/ca.pem' or OS_CACERT; if you know what you do: insecure=True"
            ) from None
        except (exceptions.Unauthorized, exceptions.BadRequest, exceptions.InvalidResponse) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            status = status or getattr(error, "http_status", None) or "something else"
            if isinstance(error, exceptions.InvalidResponse) and status in _PASSING:
                raise _Passing(f"the authentication server answered {status}") from None
            raise AuthenticationFailed(
                f"not authenticated ({self._way}): the server answered {status}. Wrong user, password, "
                f"project or domain, or a token or application credential that has expired"
            ) from None
        except exceptions.ConnectionError as error:
            raise _Passing(self._unreachable(error)) from None
        except exceptions.DiscoveryFailure:
            self._reach_keystone()
            raise TargetError(
                f"there is no Keystone ({self._way}): its address has to be that of the identity service, "
                f"such as https://keystone.example.org:5000/v3"
            ) from None
        except exceptions.HttpError as error:
            if error.http_status in _PASSING:
                raise _Passing(
                    f"Keystone answered {error.http_status}",
                    float(getattr(error, "retry_after", 0) or 0) or None,
                ) from None
            if error.http_status == 403:
                raise AccessDenied(f"Keystone refuses access ({self._way})") from None
            if error.http_status == 404 and "applicationcredential" in self._shared.access.auth_type:
                raise AuthenticationFailed(
                    f"not authenticated ({self._way}): Keystone knows no such application credential; it was "
                    f"deleted, or has expired"
                ) from None
            if error.http_status == 404 and self._shared.access.auth_type in ("token", "v2token", "v3token"):
                raise AuthenticationFailed(
                    f"not authenticated ({self._way}): Keystone knows no such token; it was revoked, or has "
                    f"expired"
                ) from None
            if error.http_status == 404:
                raise TargetError(f"there is no Keystone at that address ({self._way})") from None
            raise TargetError(f"Keystone answered {error.http_status} ({self._way})") from None
        except exceptions.ClientException as error:
            raise TargetError(f"{redact(str(error))} ({self._way})") from None
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            raise _Passing(f"{self._host} stopped in the middle of its answer") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError):
            raise _Passing(f"the answer of {self._host} was cut short") from None

    def _reach_keystone(self) -> None:
        """Discovery does not tell a server that is not there from one that is no Keystone."""
        url = self._shared.access.auth_url
        if url is not None:
            self._start("GET", url, None, authenticated=False).close()

    def _unreachable(self, error: Exception) -> str:
        text = str(error)
        for sign, meaning in _SIGNS:
            if sign in text:
                return f"{self._host} can't be reached: {meaning} ({self._way})"
        return f"{self._host} can't be reached ({self._way})"


_PROXY = (
    "the proxy that HTTP_PROXY or HTTPS_PROXY names can't be reached, or does not lead there; if none is "
    "needed, unset the variable, or name the host in NO_PROXY"
)
_SIGNS = (
    # First: what befell the proxy, or the way from there, is told besides.
    ("ProxyError", _PROXY),
    ("InvalidProxyURL", _PROXY),
    ("Proxy URL", _PROXY),
    ("Failed to parse", _PROXY),  # the address itself has been checked before
    ("Connection refused", "it refuses the connection; is the port right, and the server running?"),
    ("Name or service not known", "there is no host of that name"),
    ("Temporary failure in name resolution", "its name can't be looked up"),
    ("nodename nor servname", "there is no host of that name"),
    ("No route to host", "there is no route to it"),
    ("Network is unreachable", "there is no network to it"),
    ("timed out", "it does not answer in time"),
)

_REASONS = {429: "(too many requests)", 503: "(unavailable)", 504: "(its own servers are late)"}


def _seconds(value: str | None, clock: Clock) -> float | None:
    """What a Retry-After says: a number of seconds, or a date."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock.wall())
    return None


def quoted(container: str, name: str | None = None) -> str:
    """A container, or an object in it, as it stands in the path of a URL."""
    if name is None:
        return quote(container, safe="")
    # HTTP clients resolve "." and "..", and would ask for something else. Where a slash is encoded there are
    # no such parts; but not everything between us and Swift takes that well, so it is the exception.
    dots = not {".", ".."}.isdisjoint(name.split("/"))
    return quote(f"{container}/{name}", safe="" if dots else "/")
