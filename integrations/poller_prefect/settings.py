"""Where the state is, what a poll's consumer is called, and how blocks are loaded.

Guarantees: the state is chosen in one order, which depends on no server being up:
what was given, ``POLLER_STATE``, the block ``default``, a file in Prefect's home. A block
that can't be read is an error, and never taken for one that is not there.

Not guaranteed: that several machines see the same state; a file is on one machine.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from poller_core import InvalidOption
from poller_core.hosts import Advice, prepare_state, refuse_secrets

from .blocks import RETENTION, RETENTION_UNREAD, PollerState, SwiftCredentials

__all__ = ["ADVICE", "STATE", "State", "credentials_options", "in_thread", "is_place", "refuse", "state_of"]

#: The variable that names the state; the ``poller`` command reads it, too.
VARIABLE = "POLLER_STATE"
#: What errors call the places where it can be given once for all.
STATE = f"{VARIABLE} or a block PollerState"
#: The block that is used where none is named.
DEFAULT = "default"

ADVICE = Advice(
    host="Prefect",
    url=lambda shown: (
        "Make a block with it: SwiftCredentials(auth_url=…, username=…, password=…).save('my-store') "
        f"(from poller_prefect import SwiftCredentials), and give url={shown!r}, credentials='my-store'"
    ),
    state=(
        "Make a block with it: PollerState(url=…).save('my-state') (from poller_prefect import PollerState), "
        "and give state='my-state'"
    ),
    option=lambda name: (
        "Make a block with it: SwiftCredentials(…).save('my-store') (from poller_prefect import "
        "SwiftCredentials), and give credentials='my-store'"
    ),
)

T = TypeVar("T")


@dataclass(frozen=True)
class State:
    """A place for the state."""

    url: str  #: may hold a password
    name: str  #: what may be told of it: the block's name, or a URL without a password
    retention: float = RETENTION  #: how long delivered events are kept, seconds
    retention_unread: float = (
        RETENTION_UNREAD  #: how long events are kept that a consumer has not had, seconds
    )

    def __repr__(self) -> str:
        return f"State({self.name!r})"


def refuse(url: object, state: object = None, options: dict[str, Any] | None = None) -> None:
    """Refuse a secret that Prefect would store, saying which block to make instead."""
    refuse_secrets(url, state, options, advice=ADVICE)


def state_of(given: str | None = None) -> State:
    """The state that is meant; blocks.

    :param given: a URL or path, or the name of a block; None: the usual one.
    :raises InvalidOption: if there is no such block, or a password in the URL.
    :raises StateError: if the directory of a file can't be made.
    """
    if given is not None and is_place(given):
        refuse("", given)
        return _file(State(given, given))
    if given is not None:
        block = _block(PollerState, given, "state")
        return _file(_state_of(block, given))
    place = os.environ.get(VARIABLE)
    if place:
        # The environment is no table of Prefect's: a password may stand there.
        return _file(State(place, f"${VARIABLE}"))
    usual = _loaded(PollerState, DEFAULT)
    if usual is not None:
        return _file(_state_of(usual, DEFAULT))
    url = f"sqlite:///{get_current_settings().home}/poller/state.db"
    return _file(State(url, url))


def credentials_options(name: str | None) -> dict[str, Any]:
    """What a block of credentials means for ``make_poller``; blocks.

    :raises InvalidOption: if there is no such block.
    """
    if name is None:
        return {}
    block: SwiftCredentials = _block(SwiftCredentials, name, "credentials")
    return block.options()


def in_thread(work: Callable[[], T]) -> T:
    """Do something that blocks, and may ask the API, wherever the caller is: also inside of an event loop.

    Prefect's own calls give a coroutine there instead of doing what they say.
    """
    done: list[T] = []
    failed: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.append(context.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again, in the caller
            failed.append(error)

    thread = threading.Thread(target=run, name="poller-prefect")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def is_place(text: str) -> bool:
    """Whether a state is given as a URL or path; else it is the name of a block."""
    return "://" in text or "/" in text or text.endswith(".db")


def _state_of(block: PollerState, name: str) -> State:
    return State(block.url.get_secret_value(), name, block.retention, block.retention_unread)


def _file(state: State) -> State:
    prepare_state(state.url, STATE)
    return state


def _loaded(kind: Any, name: str) -> Any:
    """A block; None if there is none of that name."""
    try:
        # In an async flow's thread it would give a coroutine.
        return kind.load(name, _sync=True)
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound) and "Unable to find" not in str(error):
            raise
    return None


def _block(kind: Any, name: str, option: str) -> Any:
    """The block that an option names.

    :raises InvalidOption: if there is none of that name.
    """
    block = _loaded(kind, name)
    if block is not None:
        return block
    made = f"{kind.__name__}(…).save({name!r})"
    raise InvalidOption(
        f"{option}={name!r}: there is no block of that name and the type {kind.get_block_type_slug()!r}. "
        f"Make one with {made} (from poller_prefect import {kind.__name__}), or in the UI after "
        f"'prefect block register -m poller_prefect'"
    )
