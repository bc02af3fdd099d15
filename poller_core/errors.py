"""The errors of poller_core.

Guarantees: every error that the package raises on purpose derives from
:class:`PollerError`; its text says what was given, what was expected and what
to do next; and no text ever holds a password, token or key.

Does not guarantee: that programming mistakes (a callback of yours that raises,
say) are turned into a :class:`PollerError`; those pass through as they are.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "AuthenticationFailed",
    "EventTaken",
    "InvalidOption",
    "InvalidUrl",
    "LeaseHeld",
    "NoPoller",
    "OffsetTooOld",
    "PollerClosed",
    "PollerError",
    "PollerRefused",
    "StateDamaged",
    "StateError",
    "StateFull",
    "StateLocked",
    "StateNewer",
    "StateReadOnly",
    "StateUnreadable",
    "TargetError",
    "TargetMoved",
    "TargetNotFound",
    "UnknownClaim",
    "UnknownConsumer",
    "UnknownEvent",
    "UnknownScheme",
    "WriteConflict",
]


class PollerError(Exception):
    """The base of all errors of this package."""


# -- what the caller gave ----------------------------------------------------


class InvalidUrl(PollerError, ValueError):
    """The URL or path can't be understood."""


class UnknownScheme(PollerError, ValueError):
    """No poller is registered for the scheme of the URL."""


class InvalidOption(PollerError, ValueError):
    """An option has an unknown name, or a value that it can't have."""


class PollerRefused(PollerError):
    """A poller class says that it can't serve this URL here; another one may.

    :func:`poller_core.make_poller` logs it and tries the next registered class.

    :param message: the text.
    :param mendable: whether somebody who hears of it can and should do something about it: it is logged as a
        warning then, though another class may serve.
    """

    def __init__(self, message: str = "", mendable: bool = False) -> None:
        super().__init__(message)
        self.mendable = mendable


class NoPoller(PollerError):
    """Every poller class that is registered for the scheme refused the URL."""


class PollerClosed(PollerError):
    """The poller was used after :meth:`close`."""


# -- what is watched ---------------------------------------------------------


class TargetError(PollerError):
    """The target as a whole can't be looked at now; nothing is concluded from it."""


class TargetNotFound(TargetError):
    """The directory, file or container that the URL names is not there."""


class TargetMoved(TargetError):
    """The target is there, but on another file system than it was before.

    Mostly a mount that went away: what is seen is the empty mount point.
    """


class AccessDenied(TargetError):
    """The target is there, but this user may not list it."""


class AuthenticationFailed(TargetError):
    """The server did not accept the credentials."""


# -- the state ---------------------------------------------------------------


class StateError(PollerError):
    """The state database can't be used now; nothing was half-written."""


class StateUnreadable(StateError):
    """The state can't be opened or understood. It is never taken for empty."""


class StateDamaged(StateUnreadable):
    """A digest or a reference in the state is wrong; ``poller check`` says where."""


class StateNewer(StateUnreadable):
    """The state was written by a newer version of this program."""


class StateLocked(StateError):
    """Another process kept the database locked for longer than the timeout."""


class StateFull(StateError):
    """There is no room to write; nothing is lost once there is room again."""


class StateReadOnly(StateError):
    """The database, or the disk it is on, can't be written to."""


class WriteConflict(StateError):
    """Another process changed the snapshot since this look began.

    The look that lost is dropped whole. The engine looks again by itself;
    callers see this only if they lose many times in a row.
    """


# -- delivery ----------------------------------------------------------------


class OffsetTooOld(PollerError):
    """The consumer is older than what the journal still keeps."""


class UnknownConsumer(PollerError):
    """There is no consumer of that name."""


class UnknownClaim(PollerError):
    """No claim and no taken event is bound to that token."""


class UnknownEvent(PollerError):
    """The journal has no event of that id (any more)."""


class LeaseHeld(PollerError):
    """Another poller has the lease of this target and consumer; this one is not needed."""


class EventTaken(PollerError):
    """Another token has the event.

    :param message: the text.
    :param token: who took it, or None if it was acknowledged without a token.
    """

    def __init__(self, message: str, token: str | None = None) -> None:
        super().__init__(message)
        self.token = token
