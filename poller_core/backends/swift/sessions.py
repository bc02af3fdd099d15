"""Sessions of keystoneauth1, one for each cloud and user, shared by all pollers of the process.

Guarantees:

* Pollers with the same credentials and network settings use the same session, so that
  there is one token and one pool of connections; it is closed with the last of them.
* Certificates, ``insecure`` and timeouts hold for Keystone and for Swift.
* A child after a ``fork`` makes sessions of its own.

Not guaranteed: that a session that the caller gave is set up in the same way; it
is used as it is, except for what is asked for here besides.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import InvalidOption, PollerRefused
from ...options import seconds
from .credentials import Access, check_address, plugin

__all__ = ["Network", "SharedSession", "network"]

#: Seconds to connect, and for which an answer may stand still.
_TIMEOUT = (10.0, 60.0)
_RETRIES = 3

_TRUE = {"1", "true", "yes", "on"}

_lock = threading.RLock()
_salt = secrets.token_bytes(16)
_sessions: dict[tuple[Any, ...], _Opened] = {}


class Network(NamedTuple):
    """How servers are spoken to."""

    verify: bool | str | None  #: a file of certificates; True: the usual ones; None: as the session has it
    timeout: tuple[float, float]  #: seconds to connect; seconds without a byte
    retries: int  #: how often a request is repeated that may go well the next time


def network(
    cacert: str | os.PathLike[str] | None = None,
    insecure: bool | None = None,
    timeout: object = None,
    retries: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Network:
    """Check the network settings.

    :param cacert: a file or directory of certificates to trust; else ``OS_CACERT``.
    :param insecure: trust any certificate; else ``OS_INSECURE``.
    :param timeout: seconds, or a pair: seconds to connect, seconds for which an answer may stand still.
    :param retries: how often to repeat a request that failed for a reason that passes.
    :raises InvalidOption: for a value that can't be.
    """
    if insecure is None:
        insecure = environ.get("OS_INSECURE", "").lower() in _TRUE
    elif not isinstance(insecure, bool):
        raise InvalidOption(f"insecure={insecure!r}: expected True or False")
    path = os.fspath(cacert) if cacert is not None else environ.get("OS_CACERT") or None
    if path is not None and not insecure and not os.path.exists(path):
        raise InvalidOption(f"cacert={path!r}: there is no such file; expected one with certificates (PEM)")
    if timeout is None:
        pair = _TIMEOUT
    elif isinstance(timeout, tuple | list) and len(timeout) == 2:
        pair = (seconds("timeout", timeout[0]), seconds("timeout", timeout[1]))
    else:
        pair = (seconds("timeout", timeout), seconds("timeout", timeout))
    if min(pair) <= 0:
        raise InvalidOption(f"timeout={timeout!r}: expected more than 0 seconds")
    if retries is None:
        retries = _RETRIES
    if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= 100:
        raise InvalidOption(f"retries={retries!r}: expected a whole number from 0 to 100")
    return Network(False if insecure else path, pair, retries)


class _Opened:
    """A session, and how many use it."""

    def __init__(self, session: Any, region: str | None, interface: str | None) -> None:
        self.session = session
        self.region = region  # what clouds.yaml says of it
        self.interface = interface
        self.users = 0


class SharedSession:
    """One poller's part in a session.

    :param access: the credentials.
    :param net: how to speak to the servers.
    """

    def __init__(self, access: Access, net: Network) -> None:
        self.access = access
        self._net = net
        self._made_in = os.getpid()
        self._pid = -1
        self._closed = False
        self._opened: _Opened | None = None
        self._key: tuple[Any, ...] = ()

    def get(self) -> Any:
        """The session.

        :raises PollerRefused: if a package is missing.
        :raises InvalidOption: if the credentials don't fit together.
        """
        return self._get().session

    @property
    def region(self) -> str | None:
        """The region that is asked for, if one is."""
        return self.access.region or self._get().region

    @property
    def interface(self) -> str:
        """``public``, ``internal`` or ``admin``."""
        return self.access.interface or self._get().interface or "public"

    def _get(self) -> _Opened:
        opened = self._opened
        if opened is not None and self._pid == os.getpid():
            return opened
        with _lock:
            if self._closed:
                raise InvalidOption("the session is closed")
            self._pid = os.getpid()
            access = self.access
            ready = access.session if access.session is not None else access.auth
            # An object of the caller's is told by itself; it is kept alive by the entry.
            whose = (id(ready),) if ready is not None else (access.digest(_salt), access.region)
            self._key = (self._pid, self._net, access.interface, *whose)
            opened = _sessions.get(self._key)
            if opened is None:
                opened = _sessions[self._key] = _open(access, self._net, self._pid != self._made_in)
            opened.users += 1
            self._opened = opened
            return opened

    def close(self) -> None:
        """Let go of it; the last one closes it, if it was made here."""
        with _lock:
            if self._closed:
                return
            self._closed = True
            opened, self._opened = self._opened, None
            if opened is None or self._pid != os.getpid():
                return  # a parent's, which is in use there
            opened.users -= 1
            if not opened.users:
                _sessions.pop(self._key, None)
                if self.access.session is None:
                    _close(opened.session)


def _after_fork() -> None:
    global _lock
    # It may be held by a thread that does not exist in the child; and the connections are the parent's.
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _close(session: Any) -> None:
    adapters = getattr(getattr(session, "session", None), "adapters", {})
    for adapter in list(adapters.values()):
        with contextlib.suppress(OSError):
            adapter.close()


def _open(access: Access, net: Network, inherited: bool) -> _Opened:
    if access.session is not None:
        if inherited:
            _close(access.session)  # its connections are the parent's; new ones are made when they are needed
        return _Opened(access.session, None, None)
    if access.cloud is not None:
        return _from_cloud(access, net)
    try:
        from keystoneauth1.session import Session
    except ImportError:
        raise PollerRefused("keystoneauth1 is not installed: pip install 'poller-core[swift]'") from None
    auth = access.auth if access.auth is not None else plugin(access)
    session = Session(auth=auth, verify=True if net.verify is None else net.verify, app_name="poller-core")
    _limit(session, net)
    return _Opened(session, None, None)


def _limit(session: Any, net: Network) -> None:
    # The constructor takes a single figure; what is sent with each request may be the pair.
    session.timeout = net.timeout


def _from_cloud(access: Access, net: Network) -> _Opened:
    try:
        from openstack import exceptions
        from openstack.config import OpenStackConfig
    except ImportError:
        raise PollerRefused(
            f"the cloud {access.cloud!r} stands in clouds.yaml, which openstacksdk reads: "
            f"pip install 'poller-core[swift,clouds]'"
        ) from None
    try:
        with warnings.catch_warnings():
            # It warns of its own plans for statistics that nobody asked for, at each use.
            warnings.simplefilter("ignore")
            cloud = OpenStackConfig().get_one(cloud=access.cloud)
            session = cloud.get_session()
    except exceptions.SDKException as error:
        raise InvalidOption(f"cloud={access.cloud!r}: {error}") from None
    where = getattr(session.auth, "auth_url", None) or ""
    check_address(where, f"cloud={access.cloud!r}: auth_url", "'https://keystone.example.org:5000/v3'")
    if net.verify is not None:
        session.verify = net.verify
    _limit(session, net)
    interface = str(cloud.get_interface("object-store") or "public").removesuffix("URL")
    return _Opened(session, cloud.get_region_name("object-store"), interface)
