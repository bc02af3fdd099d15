"""A real OpenStack Swift (one replica) and a real Keystone v3, on loopback.

No Docker, no memcached, no root, nothing outside one directory. They run in a virtual
environment of their own (``.ci/venv swift`` makes it), on free ports::

    python -m tests.services.swift_aio                   # until Ctrl-C
    python -m tests.services.swift_aio -- cmd args...    # run a command with ST_* and OS_* set
    python -m tests.services.swift_aio --no-keystone     # TempAuth alone, in some 1.5 s

Listening sockets are made here and inherited, so that there is no race for a
free port, and a connection that is made before a server is ready just waits.
The servers end with this process (their standard input is a pipe), or by their ids.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.services import swift_child
from tests.services.by_hand import Told, arguments, by_hand
from tests.services.swift_child import ADMIN_PASSWORD, BACKENDS, PASSWORD, PROJECT, REGION, USER
from tests.services.swift_conf import FAULT, proxy_keystone_conf, proxy_tempauth_conf

_SCRIPT = Path(swift_child.__file__)


def interpreter():
    """The Python of the servers: POLLER_TEST_SWIFT_PYTHON, or the one that ``.ci/venv swift`` makes."""
    given = os.environ.get("POLLER_TEST_SWIFT_PYTHON")
    python = given or re.sub(r"-(both|(airflow|prefect)(-oldest)?)$", "", sys.prefix) + "-swift/bin/python"
    if not os.access(python, os.X_OK):
        raise RuntimeError(
            f"there is no {python}: 'make test' (or '.ci/venv swift') makes the environment with Swift and "
            f"Keystone; POLLER_TEST_SWIFT_PYTHON names another one's interpreter"
        )
    return python


def _with_xattrs():
    """A directory in which files can have extended attributes, which Swift keeps its metadata in."""
    tried = []
    for place in (tempfile.gettempdir(), "/var/tmp", os.getcwd()):
        with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=place) as file:
            os.setxattr(file.name, "user.poller", b"1")
            return place
        tried.append(place)
    raise RuntimeError(f"Swift needs a file system with user xattrs (ext4, xfs); none of {tried} is on one")


def _user():
    try:  # only daemons run by hand need this
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "swift"


class SwiftAIO:
    def __init__(
        self,
        keystone=True,
        split=False,
        tls=False,
        root=None,
        token_life=86400,
        listing_limit=10000,
        python=None,
    ):
        """split: one process per Swift server (so that one can be paused or
        ended by PID) instead of one process for all of them.
        tls: https (self-signed, AIO_CACERT) for Keystone and the proxies.
        root: where to make the directory; must have user xattrs (ext4, xfs,
        tmpfs from Linux 6.6).  token_life: of TempAuth, seconds.
        listing_limit: the most rows in one listing (Swift's own is 10000).
        python: an interpreter that has swift and keystone."""
        self.listing_limit = listing_limit
        self.keystone, self.split, self.tls = keystone, split, tls
        self.token_life, self.python, self.root = token_life, python or interpreter(), root or _with_xattrs()
        self.procs, self.env, self.port = {}, {}, {}

    def start(self):
        self.run = Path(tempfile.mkdtemp(prefix="swift_aio_", dir=self.root))
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    __enter__ = start

    def __exit__(self, *exc):
        self.stop()

    def _listen(self, name):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # inherited by accepted connections; without it a listing of some
        # 100 rows waits 40 ms and more for a delayed ACK
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen(512)
        self.port[name] = sock.getsockname()[1]
        return sock

    @contextlib.contextmanager
    def fault(
        self,
        server,
        match="",
        status=503,
        delay=0,
        times=None,
        headers=(),
        body="",
        part=None,
        stall=0,
        trickle=0,
    ):
        """While this lasts, some requests are answered wrongly, or late.

        :param server: ``proxy``, ``proxyks``, ``account``, ``container`` or ``object``.
        :param match: a regular expression; looked for in ``METHOD /path?query``.
        :param status: what is answered, with ``headers`` and ``body``; 0: the true answer.
        :param delay: seconds before the answer.
        :param times: how often; None: always.
        :param part: send this part (0 to 1) of the true answer's body, wait ``stall`` seconds, and hang up.
        :param trickle: with ``part``: send all of it, but a byte each so many seconds.
        """
        file = self.run / f"fault-{server}.json"
        tmp = file.with_suffix(".tmp")
        tmp.write_text(
            json.dumps(
                {
                    "match": match,
                    "status": status,
                    "delay": delay,
                    "times": times,
                    "headers": dict(headers),
                    "body": body,
                    "part": part,
                    "stall": stall,
                    "trickle": trickle,
                }
            )
        )
        tmp.rename(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def recorded(self, server):
        """While this lasts, requests to a server are written down; gives a function that tells them."""
        file = self.run / f"fault-{server}.seen"
        file.write_text("")
        try:
            yield lambda: [json.loads(line) for line in file.read_text().splitlines()]
        finally:
            file.unlink(missing_ok=True)

    def late_listings(self):
        """While this lasts, objects are stored and removed but container
        listings do not show it; later once("object-updater") brings the
        listings up to date.  (What an overloaded cluster does.)"""
        return self.fault("container", r"^(PUT|DELETE) /d1/\d+/[^/]+/[^/]+/.")

    def once(self, daemon):
        """One pass of a background daemon: "container-updater" (counts in
        account listings), "object-updater" (updates of listings that failed
        at PUT), "object-expirer" (X-Delete-At)."""
        self._child("once", daemon)

    def fill(self, account, container, rows):
        """Put rows (name, bytes, etag, unix time or None) into the listing of
        an existing container without any object: some 30000 rows a second,
        where real PUTs make some 70."""
        self._child("fill", account, container, text="".join(json.dumps(row) + "\n" for row in rows))

    def _child(self, name, *args, text=""):
        done = subprocess.run(
            [self.python, str(_SCRIPT), name, str(self.run), *args],
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout}")

    def _spawn(self, name, socks, *args):
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("OS_", "ST_")) and not k.lower().endswith("_proxy")
        }
        env["PYTHONWARNINGS"] = "ignore"
        log = open(self.run / f"{name}.log", "ab")  # noqa: SIM115
        self.procs[name] = subprocess.Popen(
            [self.python, str(_SCRIPT), name, str(self.run), *args],
            pass_fds=[s.fileno() for s in socks],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )
        log.close()
        for sock in socks:  # so that a dead child means "refused"
            sock.close()

    def _start(self):
        run, began = self.run, time.time()
        names = [*BACKENDS, "proxy"]
        if self.keystone:
            names += ["proxyks", "keystone"]
        socks = {name: self._listen(name) for name in names}
        http = "https" if self.tls else "http"
        url = {n: f"{http}://127.0.0.1:{p}" for n, p in self.port.items()}
        if self.tls:
            self._child("cert")
            self.env.update(AIO_CACERT=f"{run}/cert.pem", OS_CACERT=f"{run}/cert.pem")
        ks_url = url.get("keystone", "") + "/v3"
        if self.keystone:
            self._keystone_files()
            self._spawn(
                "keystone", [socks["keystone"]], str(socks["keystone"].fileno()), ks_url, url["proxyks"]
            )
        self._swift_files(ks_url)
        groups = (
            [[n] for n in names if n != "keystone"] if self.split else [[n for n in names if n != "keystone"]]
        )
        for group in groups:
            self._spawn(
                group[0] if self.split else "swift",
                [socks[n] for n in group],
                ",".join(f"{n}:{socks[n].fileno()}" for n in group),
                *([] if self.split else [self._ring_ports()]),
            )
        self._wait("swift", url["proxy"] + "/healthcheck")
        self.swift_ready = time.time() - began
        self.env.update(
            {
                "ST_AUTH": url["proxy"] + "/auth/v1.0",
                "ST_AUTH_VERSION": "1.0",
                "ST_USER": "test:tester",
                "ST_KEY": "testing",
                "AWS_ENDPOINT_URL": url["proxy"],
                "AWS_ACCESS_KEY_ID": "test:tester",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": REGION,
            }
        )
        if self.keystone:
            self._wait("keystone", ks_url)
            self._wait("swift", url["proxyks"] + "/healthcheck")
            ids = json.loads((run / "ids.json").read_text())
            self.env.update(
                {
                    "OS_AUTH_URL": ks_url,
                    "OS_IDENTITY_API_VERSION": "3",
                    "OS_AUTH_TYPE": "password",
                    "OS_USERNAME": USER,
                    "OS_PASSWORD": PASSWORD,
                    "OS_PROJECT_NAME": PROJECT,
                    "OS_USER_DOMAIN_NAME": "Default",
                    "OS_PROJECT_DOMAIN_NAME": "Default",
                    "OS_REGION_NAME": REGION,
                    "AIO_PROJECT_ID": ids["project_id"],
                    "AIO_USER_ID": ids["user_id"],
                    "AIO_ADMIN_PASSWORD": ADMIN_PASSWORD,
                    "AIO_SWIFT_KS": url["proxyks"],
                }
            )
        self.env["AIO_RUN"] = str(run)
        self.ready = time.time() - began

    def _wait(self, who, url, limit=60):
        """The socket is already listening: one request simply waits."""
        try:
            handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
            if self.tls:
                handlers.append(
                    urllib.request.HTTPSHandler(
                        context=ssl.create_default_context(cafile=self.env["AIO_CACERT"])
                    )
                )
            with urllib.request.build_opener(*handlers).open(url, timeout=limit):
                return
        except urllib.error.HTTPError:
            return
        except OSError as exc:
            tail = {p.name: p.read_text(errors="replace")[-2000:] for p in self.run.glob("*.log")}
            raise RuntimeError(
                f"{who} did not start at {url}: {exc}; " + "; ".join(f"{k}:\n{v}" for k, v in tail.items())
            ) from exc

    def _swift_files(self, ks_url):
        run = self.run
        (run / "srv" / "d1").mkdir(parents=True)
        (run / "cache").mkdir()
        (run / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = t\n"
            "swift_hash_path_prefix = t\n[swift-constraints]\n"
            f"container_listing_limit = {self.listing_limit}\n"
        )
        head = (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nuser = {_user()}\n"
            f"swift_dir = {run}\nworkers = 0\nlog_level = INFO\n"
        )
        back = head + (
            f"devices = {run}/srv\nmount_check = false\n"
            f"disable_fallocate = true\nfallocate_reserve = 0\n"
            f"recon_cache_path = {run}/cache\n"
        )

        def fault(name):
            return FAULT.format(run=run, name=name, module=_SCRIPT.stem)

        for name in BACKENDS:
            (run / f"{name}.conf").write_text(
                back + f"bind_port = {self.port[name]}\n[pipeline:main]\n"
                f"pipeline = fault {name}-server\n[app:{name}-server]\n"
                f"use = egg:swift#{name}\n"
                f"[{name}-replicator]\n[{name}-updater]\n[{name}-auditor]\n" + fault(name)
            )
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        (run / "proxy.conf").write_text(
            head
            + f"bind_port = {self.port['proxy']}"
            + proxy_tempauth_conf(key, self.token_life)
            + fault("proxy")
        )
        if self.keystone:
            (run / "proxyks.conf").write_text(
                head
                + f"bind_port = {self.port['proxyks']}"
                + proxy_keystone_conf(ks_url, self.env.get("AIO_CACERT"))
                + fault("proxyks")
            )
        # for `swift-object-expirer CONF once`, `swift-object-updater ...`
        (run / "object-expirer.conf").write_text(
            back + "[object-expirer]\ninterval = 1\n[pipeline:main]\n"
            "pipeline = catch_errors proxy-server\n[app:proxy-server]\n"
            "use = egg:swift#proxy\n[filter:catch_errors]\n"
            "use = egg:swift#catch_errors\n"
        )
        if self.split:  # otherwise the one Swift process does it
            self._child("rings", self._ring_ports())

    def _ring_ports(self):
        return ",".join(f"{n}:{self.port[n]}" for n in BACKENDS)

    def _keystone_files(self):
        run = self.run
        (run / "keystone.conf").write_text(f"""[DEFAULT]
use_stderr = true
log_dir =
[database]
connection = sqlite:///{run}/keystone.db
sqlite_synchronous = false
[cache]
enabled = true
backend = oslo_cache.dict
[identity]
password_hash_rounds = 4
[token]
provider = fernet
[fernet_tokens]
key_repository = {run}/fernet
[fernet_receipts]
key_repository = {run}/receipts
[credential]
key_repository = {run}/credential
[oslo_messaging_notifications]
driver = noop
[oslo_policy]
policy_file = {run}/policy.yaml
""")
        (run / "policy.yaml").write_text("{}\n")

    def stop(self):
        for proc in self.procs.values():
            if proc.poll() is None:
                proc.terminate()
        for proc in self.procs.values():
            try:
                proc.wait(5)
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
            if proc.stdin:
                proc.stdin.close()
        shutil.rmtree(self.run, ignore_errors=True)


def main(argv: Sequence[str]) -> int:
    """By hand."""
    parser = argparse.ArgumentParser(
        "python -m tests.services.swift_aio", description="A Swift and a Keystone."
    )
    parser.add_argument("--no-keystone", action="store_true", help="TempAuth alone")
    parser.add_argument(
        "--tls", action="store_true", help="https, with a certificate of its own (AIO_CACERT)"
    )
    parser.add_argument("--split", action="store_true", help="a process for each of Swift's servers")
    parser.add_argument("--root", help="where to make its directory; files there must have user xattrs")
    options, command = arguments(parser, argv)
    service = SwiftAIO(
        keystone=not options.no_keystone, root=options.root, split=options.split, tls=options.tls
    )

    def told(aio: SwiftAIO) -> Told:
        where = aio.env["ST_AUTH"].partition("://")[2]
        pids = {name: process.pid for name, process in aio.procs.items()}

        def check() -> None:
            for name, process in aio.procs.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended")

        hints = [
            "swift post inbox && swift upload inbox README.md",
            f"poller watch 'swift://{where}?inbox' --existing report --interval 2",
            f"process ids: {pids}",
        ]
        return Told(aio.env, hints, check)

    return by_hand(service, told, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
