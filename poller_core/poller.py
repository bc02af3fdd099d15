"""``Poller``, the contract of all pollers, and the registry that ``make_poller`` asks.

Guarantees: :func:`make_poller` tries the classes that are registered for the
URL's scheme in their order; each that refuses is logged with its reason, and if
all refuse, the error shows all reasons. An error that no other class could
mend (target missing, state unreadable, option unknown) is raised as it is.

Not guaranteed: that two classes on one scheme see the same things; that is
theirs to say.
"""

from __future__ import annotations

import difflib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from os import PathLike
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from .errors import NoPoller, PollerError, PollerRefused, UnknownScheme
from .url import Url

__all__ = ["Poller", "make_poller", "register_poller", "registered", "unknown_scheme"]

log = logging.getLogger("poller_core")


class Poller(ABC):
    """Tracks what happens to the things at a URL.

    A class of your own implements :meth:`get_new_events`, and takes the URL and
    any options that it understands. To get snapshot, journal and consumers for
    nothing, derive from :class:`poller_core.ListingPoller` instead.

    :param url: what to watch.
    """

    #: The schemes that the class is registered for.
    schemes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str | bytes | PathLike[Any] | Url, **kw: Any) -> None:
        self.url = Url(url)
        self.recurse = bool(kw.get("recurse", False))

    @abstractmethod
    def get_new_events(self) -> list[Any]:
        """What happened since the last call.

        :returns: a list of pairs ``(subject, event)``, in order; ``event`` is
            ``"created"``, ``"modified"`` or ``"deleted"``.
        """

    def close(self) -> None:
        """Let go of files, watches and connections. Again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.url.without_credentials())!r})"


P = TypeVar("P", bound=Callable[..., Any])
_registry: dict[str, list[Callable[..., Any]]] = {}
_MOUNTED = "mount it, and give the path of the directory;"
_KEYSTONE = (
    "of a container of Swift, Keystone's address is given: swifts://keystone.example.org:5000/v3?container "
    "(swift:// if that is plain http);"
)
#: What may be done instead, by scheme.
_INSTEAD = {
    **dict.fromkeys(("nfs", "smb", "cifs", "sftp", "ssh"), _MOUNTED),
    **dict.fromkeys(("http", "https"), _KEYSTONE),
}


def register_poller(*schemes: str) -> Callable[[P], P]:
    """Register a class (or any callable that makes pollers) for URL schemes.

    Several may be registered for one scheme; they are tried in the order in
    which they were. One that can't serve a URL raises
    :class:`~poller_core.errors.PollerRefused`, and the next one is tried. ::

        @register_poller("table")
        class TablePoller(Poller):
            def get_new_events(self): ...

    :param schemes: what stands before the ``:`` of URLs; one or several, in whatever case.
    :returns: a decorator, which gives back what it is given.
    :raises TypeError: if no scheme is named.
    """
    for scheme in schemes or (None,):
        if not isinstance(scheme, str) or not scheme:
            raise TypeError("name the schemes: @register_poller('table')")

    def register(poller: P) -> P:
        for scheme in schemes:
            classes = _registry.setdefault(scheme.lower(), [])
            if poller not in classes:
                classes.append(poller)
        if isinstance(poller, type) and issubclass(poller, Poller):
            poller.schemes = tuple(dict.fromkeys((*poller.schemes, *schemes)))
        return poller

    return register


def registered() -> dict[str, tuple[Callable[..., Any], ...]]:
    """The classes registered for each scheme, in the order in which they are tried."""
    return {scheme: tuple(classes) for scheme, classes in sorted(_registry.items())}


def unknown_scheme(scheme: str) -> UnknownScheme:
    """The error for a URL that no poller is registered for."""
    near = difflib.get_close_matches(scheme, _registry, 1)
    hint = _INSTEAD.get(scheme) or (f"did you mean {near[0]!r}?" if near else "")
    return UnknownScheme(
        f"there is no poller for {scheme!r} URLs; {hint + ' ' if hint else ''}there are pollers for: "
        f"{', '.join(sorted(_registry))}. Others are added with @register_poller({scheme!r})"
    )


def make_poller(url: str | bytes | PathLike[Any] | Url, **extra: Any) -> Any:
    """Make the poller that is registered for a URL.

    :param url: a URL, a plain path, or a :class:`~poller_core.url.Url`.
    :param extra: the options of the poller; see :class:`poller_core.Options`.
    :raises InvalidUrl: if the URL is malformed.
    :raises UnknownScheme: if nothing is registered for its scheme.
    :raises NoPoller: if every class that is registered for it refused.
    :raises PollerError: whatever else stands in the way; see :mod:`poller_core.errors`.
    """
    url = Url(url)
    classes = _registry.get(url.scheme, [])
    if not classes:
        raise unknown_scheme(url.scheme)
    reasons: list[str] = []
    cause: Exception | None = None
    for poller in classes:
        name = getattr(poller, "__name__", repr(poller))
        try:
            return poller(url, **extra)
        except PollerError as error:
            if not isinstance(error, PollerRefused):
                raise
            reason, cause, level = str(error), error, logging.WARNING if error.mendable else logging.INFO
        except Exception as error:  # noqa: BLE001 - whatever ails one class, the next may serve
            reason, cause, level = f"{type(error).__name__}: {error}", error, logging.INFO
        if url.password:
            reason, cause = reason.replace(url.password, "***"), None
        reasons.append(f"{name}: {reason}")
        log.log(level, "%s can't be used for %s: %s", name, url.without_credentials(), reason)
    raise NoPoller(f"no poller can serve {url.without_credentials()}:\n  " + "\n  ".join(reasons)) from cause
