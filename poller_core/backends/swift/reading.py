"""Reading an object, as a file.

Guarantees: an object whose transfer ends early raises, and is not taken for a
shorter one; nothing is read ahead that is not asked for, but for one buffer.
"""

from __future__ import annotations

import io
from typing import Any

from ...errors import TargetError

__all__ = ["open_object"]

_BUFFER = 1 << 18


class _Body(io.RawIOBase):
    """The body of an answer."""

    def __init__(self, response: Any, what: str) -> None:
        self._response = response
        self._what = what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import urllib3

        view = memoryview(buffer).cast("B")
        try:
            # As it is stored: an object that was uploaded compressed comes out compressed.
            data = self._response.raw.read(len(view), decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError):
            raise TargetError(f"the transfer of {self._what} ended before the object did") from None
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()


def open_object(response: Any, what: str) -> io.BufferedReader:
    """The object as a binary file; reading it raises ``TargetError`` if the transfer ends early."""
    return io.BufferedReader(_Body(response, what), _BUFFER)
