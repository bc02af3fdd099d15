"""One engine per target and process, shared by all pollers that want it.

Guarantees: pollers of one class with the same state and target get the same
engine; it is closed with the last of them. A forked child never uses its
parent's. Pollers without a state share nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from .engine import Engine
from .pump import Pump

__all__ = ["Shared", "share"]

_lock = threading.RLock()
_shared: dict[tuple[Any, ...], Shared] = {}


class Shared:
    """An engine, its pump, and how many pollers use them."""

    def __init__(self, key: tuple[Any, ...] | None, engine: Engine, pump: Pump) -> None:
        self._key = key
        self.engine = engine
        self.pump = pump
        self.users = 1

    def release(self) -> None:
        """One user fewer; the last one closes the engine and the state."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            if self._key is not None:
                _shared.pop(self._key, None)
            self.pump.stop()
            self.engine.close()
            self.engine.store.close()


def share(key: tuple[Any, ...], make: Callable[[], tuple[Engine, Pump]]) -> Shared:
    """The engine for this class, state and target; made if there is none.

    :param key: class, state as given (None: not shared) and digest of the target.
    :param make: makes engine and pump.
    """
    if key[1] is None:
        return Shared(None, *make())
    whole = (os.getpid(), key[0], os.fspath(key[1]) if isinstance(key[1], os.PathLike) else key[1], key[2])
    with _lock:
        known = _shared.get(whole)
        if known is not None:
            known.users += 1
            return known
        made = _shared[whole] = Shared(whole, *make())
        return made
