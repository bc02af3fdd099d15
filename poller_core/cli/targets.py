"""Finding a target in the state, and telling of it without looking at it.

Guarantees: nothing is made that is not there; if it is not clear which target
is meant, the choices are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from ..errors import InvalidOption, StateUnreadable
from ..listed import options_for
from ..state import Store, Target, open_store
from ..state.files import is_there
from ..state.urls import parse_state_url
from ..stored import event_of, options_of
from ..url import Url
from .app import Common, Watched

__all__ = ["Which", "choose", "event_of", "listed", "open_state", "options_of"]


@dataclass(frozen=True)
class Which(Watched):
    """Which target of the state is meant: by the options that it was watched with, or by its digest."""

    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="DIGEST", help="The target whose digest begins so ('poller status')."
        ),
    ] = None


def open_state(common: Common, *, verify: bool = True) -> Store:
    """The state, which must be there.

    :param verify: as for :func:`~poller_core.state.open_store`.
    :raises StateError: if it isn't, or can't be used.
    """
    place = parse_state_url(common.place())
    if place.private:
        raise InvalidOption("--state: that is a state which ends with the process, so there is nothing in it")
    if (
        place.path is not None
        and not is_there(place.path)
        and not is_there(place.path.with_name(place.path.name + "-wal"))
    ):
        raise StateUnreadable(
            f"there is no state {place.path}: nothing has been watched with it yet. If another one is meant, "
            f"give it with --state or in POLLER_STATE"
        )
    return open_store(common.place(), create=False, verify=verify)


def listed(store: Store, url: str | None, which: Which) -> list[Target]:
    """The targets that fit: all without a URL; with one, those of that URL.

    :raises InvalidOption: if none does.
    """
    targets = store.targets()
    if which.target:
        targets = [target for target in targets if target.digest.startswith(which.target.lower())]
        if not targets:
            raise InvalidOption(f"--target {which.target!r}: no target of {store.url} has a digest like that")
    if url is None:
        return targets
    wanted = Url(url)
    text = str(wanted.without_credentials())
    same = [target for target in targets if target.url == text]
    if not same:
        there = ", ".join(sorted({target.url for target in targets})[:10]) or "no target at all"
        raise InvalidOption(f"{text} is not in the state {store.url}; there is: {there}")
    if not which.target:
        options = options_for(wanted, which.options()).target.text()
        exact = [target for target in same if target.options == options]
        if exact and (len(same) == 1 or which != Which()):
            return exact
        if which != Which() and not exact:
            raise InvalidOption(f"{text} was not watched with these options, but with: {_choices(same)}")
    return same


def choose(store: Store, url: str | None, which: Which) -> Target:
    """The one target that is meant.

    :raises InvalidOption: if there is none, or more than one.
    """
    found = listed(store, url, which)
    if len(found) > 1 and url is not None and not which.target:
        # The command that watches it would mean the one with just these options.
        options = options_for(Url(url), which.options()).target.text()
        found = [target for target in found if target.options == options] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidOption(f"the state {store.url} has no target")
    if url is None:
        raise InvalidOption(
            f"the state {store.url} has several targets; name the one that is meant: {_urls(found)}"
        )
    raise InvalidOption(
        f"{found[0].url} is watched with several sets of options; repeat those that are meant, or give "
        f"--target: {_choices(found)}"
    )


def _choices(targets: Sequence[Target]) -> str:
    return "; ".join(f"--target {target.digest[:8]} ({_shown(target)})" for target in targets)


def _urls(targets: Sequence[Target]) -> str:
    return ", ".join(sorted({target.url for target in targets})[:20])


def _shown(target: Target) -> str:
    options = options_of(target)
    return ", ".join(f"{name}={value!r}" for name, value in options.items()) or "default options"
