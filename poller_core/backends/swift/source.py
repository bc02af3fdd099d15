"""The source for containers of OpenStack Swift.

Guarantees:

* **One page in memory.** A listing is read page by page, each as long as the
  cluster allows, each one behind the last name of the one before.
* **A page that can't be had is a gap** from there on. If it is the first one, the
  look fails with an error that says why. A container that is missing deletes nothing.
* **Gone needs proof**, since listings come late: an answer of 404 to a HEAD of
  the object itself; for many at once a second listing, with samples by HEAD.
* **A row that is older than what is known** comes from a replica that lags, unless
  the object itself says otherwise, and is not believed.
* An unchanged container of N objects costs N / page + 1 requests, rounded up, and a few more
  at the first look.

Not guaranteed: that a change of metadata is told from writing the same content again:
a listing shows a new time for both. Each counts as a change of metadata.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from ...clock import Clock
from ...errors import TargetError, TargetMoved, TargetNotFound
from ...listing import Change, Chunk, Facts, Gap, Row, Source, Span
from ...url import Url
from . import rows
from .account import Account, Answer, quoted
from .location import Location

__all__ = ["SwiftSource"]

log = logging.getLogger("poller_core.swift")

#: Names in one page, unless the cluster says otherwise: Swift's own default limit.
_PAGE = 10_000
#: Entries that are handed on at once.
_CHUNK = 2_000
#: So many missing objects are asked for one by one; of more, some are.
_FEW = 32
_SAMPLES = 4


class SwiftSource(Source):
    """A container, or what of it begins with a prefix, as a source of entries.

    :param account: where it is.
    :param location: which one it is.
    :param directories: list pseudo-directories as entries.
    :param clock: the clocks to go by.
    """

    #: Each costs a request, and a page of ten thousand names little more than one of one.
    most_spans = 8

    def __init__(self, account: Account, location: Location, directories: bool, clock: Clock) -> None:
        self._account = account
        self._location = location
        self._directories = directories
        self._clock = clock
        self._path = quoted(location.container)
        self._shown = location.url.without_credentials()
        self._base = {"format": "json"}
        if location.prefix:
            self._base["prefix"] = location.prefix
        if not location.recurse:
            self._base["delimiter"] = "/"
        self._subject = location.subjects()
        self._page = 0
        self._confirmed = False  # something was taken for gone since the last verify()
        self._mute = False  # a request failed in this look, after all its tries: no more proofs are asked for

    # -- a look --------------------------------------------------------------

    def begin(self, known: str | None) -> str:
        self._confirmed = self._mute = False
        place = self._account.place()
        identity = {"kind": "swift", "account": place.account, "container": self._location.container}
        was = json.loads(known) if known else {}
        if was.get("account", place.account) != place.account:
            raise TargetMoved(
                f"container {self._location.container!r} is in account {place.account} now; what the state "
                f"knows was in {was['account']}. Are these the credentials of another project?"
            )
        if not self._page:
            self._must_be_there()
            self._page = self._page_limit()
        return json.dumps(identity)

    def _must_be_there(self) -> None:
        answer = self._account.head(self._path)
        self._mind_clock(answer)
        if answer.status == 404:
            place = self._account.place()
            raise TargetNotFound(
                f"there is no container {self._location.container!r} in account {place.account} at "
                f"{place.host}{self._similar()}; expected an existing one"
            )

    def _similar(self) -> str:
        import difflib

        class Named(msgspec.Struct):
            name: str = ""

        try:
            names = self._account.get(
                "",
                {"format": "json", "limit": "1000"},
                lambda answer: [
                    one.name for one in msgspec.json.decode(answer.body or b"[]", type=list[Named])
                ],
            )
        except TargetError:
            return ""
        near = difflib.get_close_matches(self._location.container, names, 1)
        if near:
            return f" (there is {near[0]!r})"
        return "" if names else " (it has no containers at all)"

    def _page_limit(self) -> int:
        """How many names the cluster gives at once."""
        try:
            found = msgspec.json.decode(self._account.info().body)
            return max(1, min(_PAGE, int(found["swift"]["container_listing_limit"])))
        except (TargetError, msgspec.DecodeError, KeyError, TypeError, ValueError):
            return _PAGE  # a cluster may keep that to itself

    def _mind_clock(self, answer: Answer) -> None:
        """Learn from an answer by how much the server's clock is behind ours."""
        try:
            there = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return
        # The header has whole seconds, cut off.
        self.skew = max(0.0, self._clock.wall() - there)

    def scan(self, span: Span) -> Iterator[Chunk | Gap]:
        floor, marker, seen = span.start, rows.before(span.start), False
        page: rows.Listed | None = None
        while True:
            page = None  # let go of the last one before there is another
            try:
                page = self._listing(marker, span.stop)
            except TargetError as error:
                if not seen:
                    raise
                yield Gap(Span(floor, span.stop), f"the rest of the listing is missing: {error}")
                return
            seen = True
            if not page.last:
                return
            first = bisect_left(page.keys, span.start) if page.keys[:1] < [span.start] else 0
            end = len(page.keys) if span.stop is None else bisect_left(page.keys, span.stop)
            for at in range(first, end, _CHUNK):
                upto = min(at + _CHUNK, end)
                yield Chunk(b"", page.keys[at:upto], page.rows[at:upto])
            marker = page.last
            floor = max(floor, marker.encode() + b"\0")
            if span.stop is not None and floor >= span.stop:
                return

    def _listing(self, marker: str, stop: bytes | None) -> rows.Listed:
        params = {**self._base, "limit": str(self._page or _PAGE)}
        if marker:
            params["marker"] = marker
        end = None if stop is None else rows.after(stop)
        if end is not None:
            params["end_marker"] = end

        def page(answer: Answer) -> rows.Listed:
            self._mind_clock(answer)
            return rows.read(answer.body, marker, self._directories)

        try:
            return self._account.get(self._path, params, page)
        except TargetNotFound:
            self._must_be_there()  # says more
            raise

    # -- proofs --------------------------------------------------------------

    def absent(self, keys: list[bytes]) -> set[bytes]:
        if len(keys) <= _FEW:
            gone = {key for key in keys if self._is_gone(key)}
        else:
            gone = set(keys) - self._listed_again(keys)
            ordered = sorted(gone)
            samples = ordered[:: max(1, len(ordered) // _SAMPLES)]
            proven = {key for key in samples if self._is_gone(key)}
            if len(proven) < len(samples):
                # The listings are behind the objects. Only what was proven by itself is gone.
                gone = proven
        self._confirmed = self._confirmed or bool(gone)
        return gone

    def _listed_again(self, keys: list[bytes]) -> set[bytes]:
        """Which of the keys a second listing has; all of them, if there is none."""
        found: set[bytes] = set()
        try:
            for item in self.scan(Span(keys[0], keys[-1] + b"\0")):
                if isinstance(item, Gap):
                    return set(keys)
                found.update(item.names)
        except TargetError:
            return set(keys)
        return found

    def _is_gone(self, key: bytes) -> bool:
        if self._mute:
            return False
        try:
            if key.endswith(b"/") and not self._location.recurse:
                name = key.decode()
                below = {"format": "json", "prefix": name, "limit": "1"}
                return self._account.get(self._path, below, lambda answer: answer.body in (b"", b"[]"))
            return self._object(key).status == 404
        except TargetError as error:
            self._mute = True
            log.warning("%s: it can't be told whether objects are gone: %s", self._shown, error)
            return False

    def _object(self, key: bytes) -> Answer:
        # Of a symlink itself, not of what it points at.
        return self._account.head(quoted(self._location.container, key.decode()), {"symlink": "get"})

    def outdated(self, changed: list[tuple[bytes, Row, Row]]) -> set[bytes]:
        older = [item for item in changed if item[2][rows.MODIFIED] < item[1][rows.MODIFIED]]
        believed = older[:: max(1, len(older) // _FEW)] if len(older) > _FEW else older
        stale = {key for key, old, _ in believed if self._is_newer(key, old)}
        if len(older) > len(believed) and len(stale) == len(believed):
            return {key for key, _, _ in older}
        return stale

    def _is_newer(self, key: bytes, known: Row) -> bool:
        """Whether the object itself is at least as new as what is known of it, whatever the listing says."""
        if self._mute:
            return True  # not known better: nothing is told of it in this look
        try:
            answer = self._object(key)
        except TargetError:
            self._mute = True
            return True
        try:
            stamp = float(answer.headers["X-Timestamp"])
        except (KeyError, ValueError):
            return False
        # Five digits there, six here.
        return answer.status != 404 and stamp >= (rows.modified_ns(known) or 0) / 1e9 - 1e-4

    def verify(self) -> None:
        """An object of a container that is deleted answers 404, too; that would be the end of them all."""
        if self._confirmed:
            self._must_be_there()
            self._confirmed = False

    def end(self) -> None:
        self._account.close()

    # -- what rows mean ------------------------------------------------------

    def differs(self, old: Row, new: Row) -> Change:
        return Change.metadata if old[: rows.MODIFIED] == new[: rows.MODIFIED] else Change.content

    def facts(self, row: Row) -> Facts:
        return Facts(size=row[rows.SIZE], mtime_ns=rows.modified_ns(row), etag=row[rows.ETAG] or None)

    def changed_ns(self, row: Row) -> int | None:
        changed = rows.modified_ns(row)
        # A fraction that happens to be zero is as exact as any other, and must not be taken for a coarse one.
        return changed if changed is None or changed % 1_000_000_000 else changed + 1

    def newest_ns(self, listed: list[Row]) -> int | None:
        newest: Row = max(listed, key=_modified)
        return self.changed_ns(newest)

    def subject(self, key: bytes) -> Url:
        return self._subject(key)


def _modified(row: Row) -> Any:
    return row[rows.MODIFIED]
