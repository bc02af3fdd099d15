"""Servers that answer wrongly, late, by half or not at all, in the first page and in a later one.

The faults are made by a filter in the real Swift's own pipeline.
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
from email.utils import formatdate
from typing import Any

import pytest

from poller_core import AccessDenied, AuthenticationFailed, TargetError, TargetNotFound
from tests.services.containers import Box
from tests.services.swift_aio import SwiftAIO
from tests.swift.tools import FastClock, poller, rows, told

_FIRST = r"GET .*\?(?!.*marker=).*format=json"
_LATER = r"GET .*marker=0*9"  # the second page of ten


@pytest.fixture(scope="module")
def full(small_aio):
    """25 rows: three pages of ten and the empty one."""
    box = Box(small_aio).create()
    box.fill(rows(25))
    yield box
    box.close()


_contents = itertools.count()


def write(box: Box, *names: str) -> None:
    for name in names:
        box.put(name, b"content %d" % next(_contents))


#: What the server does, and what is said of it. None: it passes, since a new try goes well.
_PASSING: dict[str, tuple[dict[str, Any], str]] = {
    "500": ({"status": 500}, "answered 500"),
    "503": ({"status": 503}, "answered 503 \\(unavailable\\)"),
    "429": ({"status": 429, "headers": {"Retry-After": "3"}}, "answered 429 \\(too many requests\\)"),
    "408": ({"status": 408}, "answered 408"),
    "498": ({"status": 498}, "answered 498"),
    "html": (
        {"status": 200, "body": "<html>It works!</html>"},
        "can't be understood: expected a listing in JSON",
    ),
    "object": ({"status": 200, "body": '{"error": "no"}'}, "can't be understood"),
    "half": ({"part": 0.5}, "cut short"),
    "a byte": ({"part": 0.001}, "cut short"),
    "unsorted": (
        {"status": 200, "body": '[{"name": "9c", "bytes": 1}, {"name": "9b", "bytes": 1}]'},
        "not in order",
    ),
}


@pytest.mark.parametrize("name", _PASSING)
@pytest.mark.parametrize("where", [_FIRST, _LATER], ids=["first", "later"])
def test_passing(full, name, where):
    fault, _ = _PASSING[name]
    with poller(full, existing="report") as one:
        with full.aio.fault("proxy", where, times=1, **fault):
            assert len(one.get_new_events()) == 25
        assert one.status().gaps == 0


@pytest.mark.parametrize("name", _PASSING)
def test_for_ever_in_the_first_page(full, name):
    fault, said = _PASSING[name]
    with poller(full, retries=2) as one:
        with full.aio.fault("proxy", _FIRST, **fault), full.aio.recorded("proxy") as seen:
            with pytest.raises(TargetError, match=f"{said}.*3 tries"):
                one.get_new_events()
            assert len([request for request in seen() if re.search(_FIRST, request)]) == 3
        assert one.status().entries == 25
        assert re.search(said, one.status().error)
        assert one.get_new_events() == []
        assert one.status().error is None


@pytest.mark.parametrize("name", _PASSING)
def test_for_ever_in_a_later_page(full, name):
    fault, said = _PASSING[name]
    with poller(full, retries=2) as one:
        write(full, "000003", "000015")
        with full.aio.fault("proxy", _LATER, **fault):
            assert told(one.get_new_events()) == [("000003", "modified")]
            status = one.status()
            assert (status.gaps, status.entries, status.error) == (1, 25, None)
            assert re.search(f"{said}.*3 tries", status.errors[0])
            assert one.get_new_events() == []
        assert told(one.get_new_events()) == [("000015", "modified")]
        assert one.status().gaps == 0


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, AuthenticationFailed, "does not accept the token"),
        (403, AccessDenied, "may not be read"),
        (404, TargetNotFound, "there is no container"),
        (418, TargetError, "answered 418"),
    ],
)
def test_what_does_not_pass(full, status, error, said):
    with poller(full, retries=5) as one:
        write(full, "000003", "000015")
        with full.aio.fault("proxy", _LATER, status=status):
            assert told(one.get_new_events()) == [("000003", "modified")]
            assert re.search(said, one.status().errors[0])
        with full.aio.fault("proxy", _FIRST, status=status), full.aio.recorded("proxy") as seen:
            with pytest.raises(error, match=said):
                one.get_new_events()
            assert len(seen()) <= 3  # after 401 there is a new token to be tried
        assert told(one.get_new_events()) == [("000015", "modified")]


def test_a_server_that_stops_in_its_answer(full):
    with poller(full, timeout=(5, 0.5), retries=1) as one:
        with (
            full.aio.fault("proxy", _FIRST, part=0.5, stall=60),
            pytest.raises(TargetError, match=r"stopped|cut"),
        ):
            one.get_new_events()
        with (
            full.aio.fault("proxy", _FIRST, status=0, delay=60),
            pytest.raises(TargetError, match=r"not answer in time|stopped"),
        ):
            one.get_new_events()
        assert one.get_new_events() == []


def test_a_server_that_answers_a_byte_at_a_time(full):
    class Hasty(FastClock):
        hours = 0.0

        def monotonic(self) -> float:
            self.hours += 3
            return super().monotonic() + self.hours

    with poller(full, retries=1) as one:
        one._shared.engine.source._account._clock = Hasty()
        with (
            full.aio.fault("proxy", _FIRST, part=1, trickle=0.01),
            pytest.raises(TargetError, match="did not finish"),
        ):
            one.get_new_events()


def test_a_server_that_passes_over_the_marker(full):
    body = '[{"name": "000001", "bytes": 1, "hash": "x", "last_modified": "2026-01-01T00:00:00.000000"}]'
    with poller(full) as one:
        with full.aio.fault("proxy", _LATER, status=200, body=body):
            assert one.get_new_events() == []
            assert "behind the name" in one.status().errors[0]
        assert one.get_new_events() == []


# -- pauses ------------------------------------------------------------------


def test_pauses_grow(full):
    clock = FastClock()
    with poller(full, clock=clock, retries=4) as one:
        with full.aio.fault("proxy", _FIRST, status=503), pytest.raises(TargetError, match="5 tries"):
            one.get_new_events()
        first, second, third, fourth = clock.pauses
        assert 0.25 <= first <= 0.5 <= second <= 1 <= third <= 2 <= fourth <= 4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after(full, form):
    clock = FastClock()
    with poller(full, clock=clock, retries=3) as one:
        value = "7" if form == "seconds" else formatdate(clock.wall() + 30, usegmt=True)
        with full.aio.fault("proxy", _FIRST, status=429, times=1, headers={"Retry-After": value}):
            assert one.get_new_events() == []
        (pause,) = clock.pauses
        assert (7 <= pause <= 8) if form == "seconds" else (20 <= pause <= 34)


@pytest.mark.parametrize("value", ["3600", "soon", "-1"])
def test_retry_after_of_another_kind(full, value):
    clock = FastClock()
    with (
        poller(full, clock=clock, retries=3) as one,
        full.aio.fault("proxy", _FIRST, status=503, times=1, headers={"Retry-After": value}),
    ):
        if value == "3600":
            with pytest.raises(TargetError, match="left alone for 3600 s"):
                one.get_new_events()
            assert clock.pauses == []
        else:
            assert one.get_new_events() == []
            assert max(clock.pauses) <= 0.5


# -- nobody there ------------------------------------------------------------


def test_a_server_that_is_gone():
    with SwiftAIO(keystone=False, listing_limit=10) as aio:
        box = Box(aio).create()
        box.fill(rows(25))
        one = poller(box, retries=1)
    with pytest.raises(TargetError, match="can't be reached: it refuses"):
        one.get_new_events()
    assert one.status().entries == 25
    with pytest.raises(TargetError, match="Keystone can't be reached"):
        poller(box, retries=0)
    one.close()
    box.close()


def test_a_server_that_hangs_up():
    def hang_up() -> None:
        while True:
            try:
                taken, _ = server.accept()
            except OSError:
                return
            taken.recv(1000)
            taken.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up)
        thread.start()
        box = Box.__new__(Box)
        with pytest.raises(TargetError, match="can't be reached"):
            poller(box, f"swift://u+t:p@127.0.0.1:{server.getsockname()[1]}/v3?c", retries=1)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


class Forwarder:
    """Passes connections on to a server, until a request has something in it: then nobody is there."""

    def __init__(self, port: int, until: bytes) -> None:
        self._port = port
        self._until = until
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pass, args=pair))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if self._until in data:
                    break
                target.sendall(data)
            else:
                return
        except OSError:
            return
        self.end()

    def end(self) -> None:
        for one in [self._listener, *self._open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already
        self._listener.close()

    def close(self) -> None:
        self.end()
        for thread in self._threads:
            thread.join()
        for one in self._open:
            one.close()


@pytest.mark.parametrize("until", [b"limit=", b"marker="], ids=["first", "later"])
def test_a_server_that_goes_away(full, until):
    forwarder = Forwarder(full.aio.port["proxy"], until)
    url = full.url().replace(f":{full.aio.port['proxy']}/", f":{forwarder.port}/")
    with poller(full, url, existing="report", retries=1) as one:
        if until == b"limit=":
            with pytest.raises(TargetError, match="can't be reached: it refuses"):
                one.get_new_events()
        else:
            assert len(one.get_new_events()) == 10
            assert re.search("can't be reached: it refuses.*2 tries", one.status().errors[0])
    forwarder.close()


# -- proofs ------------------------------------------------------------------


def test_no_proof_no_deletion(small_box):
    names = [f"{number:02}" for number in range(15)]
    for name in names:
        small_box.put(name, b"1")
    with poller(small_box, retries=1) as one:
        for name in names[2:8]:
            small_box.delete(name)
        with (
            small_box.aio.fault("proxy", "HEAD .*/0", status=503),
            small_box.aio.recorded("proxy") as seen,
        ):
            assert one.get_new_events() == []
            # After the first one that could not be had, the others are not asked for.
            assert len([request for request in seen() if request.startswith("HEAD")]) == 2
        for status in (401, 403):
            with small_box.aio.fault("proxy", "HEAD .*/0", status=status):
                assert one.get_new_events() == []
        assert told(one.get_new_events()) == [(name, "deleted") for name in names[2:8]]


def test_no_second_listing_no_deletion(small_box):
    names = [f"{number:02}" for number in range(50)]
    for name in names:
        small_box.put(name, b"1")
    with poller(small_box, retries=0) as one:
        for name in names[:45]:
            small_box.delete(name)
        with small_box.aio.fault("proxy", "GET .*end_marker=", status=503):
            assert one.get_new_events() == []
        with small_box.aio.fault("proxy", "HEAD .*/0", status=503):
            assert one.get_new_events() == []
        assert told(one.get_new_events()) == [(name, "deleted") for name in names[:45]]


# -- Keystone ----------------------------------------------------------------


def test_a_token_that_expires_while_it_is_listed():
    """TempAuth's tokens live for a second here, and each page takes longer than that."""
    with SwiftAIO(keystone=False, listing_limit=10, token_life=1) as aio:
        box = Box(aio).create()
        box.fill(rows(25))
        with (
            poller(box, existing="report") as one,
            aio.fault("proxy", "GET .*marker=", status=0, delay=1.2),
            aio.recorded("proxy") as seen,
        ):
            assert len(one.get_new_events()) == 25
            assert one.status().gaps == 0
            markers = [found[1] for request in seen() if (found := re.search("marker=(.*?)(&|$)", request))]
            assert sorted(set(markers)) == ["000009", "000019", "000024"]
        box.close()


def test_a_token_that_is_revoked(ks_box):
    with poller(ks_box) as one:
        ks_box.put("a", b"1")
        token = one._shared.engine.source._account._shared.get().get_token()
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        answer = ks_box._http.delete(f"{ks_box.aio.env['OS_AUTH_URL']}/auth/tokens", headers=headers)
        assert answer.status_code == 204
        # Swift's middleware remembers a token for a while; it is told not to by a 401.
        with ks_box.aio.fault("proxyks", "GET .*format=json", status=401, times=1):
            assert told(one.get_new_events()) == [("a", "created")]
        assert one._shared.engine.source._account._shared.get().get_token() != token


def test_keystone_that_is_out_of_order(ks_box):
    process = ks_box.aio.procs["keystone"]
    process.send_signal(19)  # SIGSTOP
    try:
        with pytest.raises(TargetError, match="Keystone can't be reached: it does not answer in time"):
            poller(ks_box, timeout=0.5, retries=1)
    finally:
        process.send_signal(18)
    with poller(ks_box) as one:
        assert one.get_new_events() == []
