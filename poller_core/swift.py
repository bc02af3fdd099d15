"""``SwiftPoller``: containers of OpenStack Swift.

Guarantees: those of :mod:`poller_core.backends.swift.source` for listing, and
those of every :class:`~poller_core.ListingPoller` for the rest. What was
authenticated with is in no subject, event, state, log line or error.

Not guaranteed: that an object can still be fetched when its event is read; it
may have been deleted or have expired since.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

from .backends.swift.location import SCHEMES, Location, locate
from .clock import Clock
from .engine import Progress
from .errors import InvalidOption, InvalidUrl, PollerClosed, PollerRefused
from .events import Event, Subject
from .filters import Exclude
from .listed import ListingPoller
from .listing import Source
from .options import FINGERPRINT, Options
from .poller import register_poller
from .url import Url

__all__ = ["SwiftPoller"]

#: Options of this poller alone.
_OWN = (
    "session",
    "auth",
    "credentials",
    "cloud",
    "region",
    "interface",
    "cacert",
    "insecure",
    "timeout",
    "retries",
)


@register_poller(*SCHEMES)
class SwiftPoller(ListingPoller):
    """Tracks the objects of a container, by listing it at each look.

    :param url: ``swift://<user>+<tenant>:<password>@<keystone>[:port][/path]?<container>``, without the user
        info if the credentials come from elsewhere; with ``swifts`` Keystone is reached over https.
        ``&prefix=…``, ``&delimiter=/`` (no recursion), ``&region=…`` and ``&domain=…`` may follow.
    :param recurse: False: only names without a ``/`` behind the prefix, as ``&delimiter=/``.
    :param session: a ``keystoneauth1`` session with an auth plugin.
    :param auth: an auth plugin of ``keystoneauth1``.
    :param credentials: a mapping with the names of the ``OS_*`` variables, in small letters and without
        ``OS_``: ``username``, ``password``, ``project_name``, ``application_credential_id`` …
    :param cloud: an entry of ``clouds.yaml``.
    :param region: where Swift is, if the catalogue has several.
    :param interface: ``public``, ``internal`` or ``admin``: which of Swift's addresses to use.
    :param cacert: a file of certificates to trust, for Keystone and Swift.
    :param insecure: trust any certificate.
    :param timeout: seconds, or a pair of them: to connect (10), and for which an answer may stand still (60).
    :param retries: how often a request is repeated that may go well the next time (3).
    :param progress: called now and then during a first look with the number of objects listed so far.
    :param clock: the clocks to go by.
    :param options: see :class:`poller_core.Options`; ``follow_symlinks`` and ``fingerprint`` are for files.
    :raises InvalidUrl: if the URL is malformed.
    :raises InvalidOption: if there are no credentials, or an option can't be.
    :raises PollerRefused: if ``keystoneauth1`` or ``python-swiftclient`` is missing.
    :raises TargetError: if the container can't be looked at: ``AuthenticationFailed``, ``AccessDenied``,
        ``TargetNotFound`` and others.

    Without any of ``session``, ``auth``, ``credentials``, ``cloud`` and user info in the URL, the
    environment is asked: ``OS_CLOUD``, ``OS_*``, then ``ST_*``.
    """

    def __init__(
        self,
        url: str | Url,
        recurse: bool | None = None,
        *,
        session: Any = None,
        auth: Any = None,
        credentials: Mapping[str, object] | None = None,
        cloud: str | None = None,
        region: str | None = None,
        interface: str | None = None,
        cacert: str | os.PathLike[str] | None = None,
        insecure: bool | None = None,
        timeout: object = None,
        retries: int | None = None,
        progress: Progress | None = None,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        from .backends.swift import credentials as ways
        from .backends.swift import sessions
        from .backends.swift.account import Account

        parsed = Url(url)
        self._location = self.locate(parsed)
        if recurse is None:
            recurse = self._location.recurse
        self.parse_options(parsed, {"recurse": recurse, **options})  # before anything is sent
        access = ways.choose(
            self._location,
            session=session,
            auth=auth,
            credentials=credentials,
            cloud=cloud,
            region=region,
            interface=interface,
        )
        self._net = sessions.network(cacert, insecure, timeout, retries)
        self._session = sessions.SharedSession(access, self._net)
        clock = clock or Clock()
        self._account = Account(self._session, self._net, clock)
        try:
            super().__init__(parsed, recurse, progress=progress, clock=clock, **options)
        except BaseException:
            self._session.close()
            raise

    @staticmethod
    def locate(url: Url) -> Location:
        """What a URL says.

        :raises InvalidUrl: if that can't be.
        """
        if url.scheme not in SCHEMES:
            raise InvalidUrl(
                f"SwiftPoller watches containers, such as 'swift://keystone.example.org:5000/v3?inbox', "
                f"not {url.scheme!r} URLs"
            )
        return locate(url)

    @classmethod
    def parse_options(cls, url: Url, given: Mapping[str, Any]) -> Options:
        location = cls.locate(url)
        common = {name: value for name, value in given.items() if name not in _OWN}
        recurse = common.setdefault("recurse", location.recurse)
        if recurse is True and not location.recurse:
            raise InvalidOption("recurse=True, but the URL says '&delimiter=/', no recursion; leave one out")
        options = Options.parse(given=common, more=_OWN)
        if options.target.follow_symlinks:
            raise InvalidOption("follow_symlinks: is for files; a symlink of Swift has a row of its own")
        if options.target.fingerprint != FINGERPRINT:
            raise InvalidOption(
                "fingerprint: is for files; an object is known by ETag, size and time of modification"
            )
        return options

    def place(self) -> str:
        """Account and region, as Keystone's catalogue has them; authenticates."""
        place = self._account.place()
        return f"{place.account} {place.region}".rstrip()

    def make_source(self, exclude: Exclude) -> Source:
        """The container. It has a share of its own in the session, since it may outlive this poller."""
        from dataclasses import replace

        from .backends.swift.account import Account
        from .backends.swift.sessions import SharedSession
        from .backends.swift.source import SwiftSource

        target = self.options.target
        location = replace(self._location, recurse=target.recurse)
        account = Account(SharedSession(self._session.access, self._net), self._net, self.clock)
        return SwiftSource(account, location, target.directories, self.clock)

    # -- fetching ------------------------------------------------------------

    def open(self, event: Event | Subject) -> io.BufferedReader:
        """Open an object for reading, with the poller's own session.

        :param event: an event of this poller, or its subject.
        :returns: a binary file. It reads what is there now, which may be newer than the event.
        :raises TargetNotFound: if the object is gone, or has expired.
        :raises InvalidUrl: if it is not an object of this poller's container.
        """
        from .backends.swift.account import quoted
        from .backends.swift.reading import open_object

        if self._closed:
            raise PollerClosed(f"{self!r} is closed; make a new one")
        found = event if isinstance(event, Event) else Event(subject=event, event="created")
        container, name = found.container, found.name
        if container != self._location.container or name is None:
            raise InvalidUrl(
                f"{found.subject!s} is no object of {self.url.without_credentials()}; expected the subject "
                f"of an event of this poller"
            )
        response = self._account.stream(quoted(container, name), {"Accept": "*/*"})
        return open_object(response, f"object {name!r}")

    def connection(self) -> Any:
        """A ``swiftclient.Connection`` with the poller's session, for whatever else is to be done.

        It is the caller's to close, and for one thread at a time.
        """
        try:
            import swiftclient
        except ImportError:
            raise PollerRefused(
                "python-swiftclient is not installed: pip install 'poller-core[swift]'"
            ) from None
        # As it comes, it writes the beginning of every token to its log.
        swiftclient.client.logger_settings["redact_sensitive_headers"] = True
        swiftclient.client.logger_settings["reveal_sensitive_prefix"] = 0
        verify = self._net.verify
        options = {"region_name": self._session.region, "endpoint_type": self._session.interface}
        return swiftclient.Connection(
            session=self._session.get(),
            os_options={name: value for name, value in options.items() if value},
            cacert=verify if isinstance(verify, str) else None,
            insecure=verify is False,
            timeout=self._net.timeout,
            retries=self._net.retries,
        )

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._session.close()
