"""What runs in the Python that has Swift and Keystone, started by path: the servers, and helpers of theirs.

Imports nothing of the project but what lies beside it and does likewise, and Swift and Keystone only where
they are used: the tests' own Python has neither. The first argument says what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path

ADMIN_PASSWORD = "admin-pw"
SERVICE_PASSWORD = "service-pw"
USER, PASSWORD, PROJECT = "demo", "demo-pw", "demo"
REGION = "RegionOne"
OTHER_USER, OTHER_PASSWORD = "nobody", "nobody-pw"  # reader only: 403
BACKENDS = ("account", "container", "object")


def fault_factory(global_conf, file, **conf):
    """A WSGI filter that misbehaves, or writes down requests, while there is a file that says so.

    See ``SwiftAIO.fault`` and ``SwiftAIO.recorded``.
    """
    import re

    import eventlet  # time.sleep would stop the whole process

    seen = file.removesuffix(".json") + ".seen"

    def refusing(app):
        def call(environ, start_response):
            query = environ.get("QUERY_STRING")
            request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' if query else ''}{query or ''}"
            if os.path.exists(seen):
                with open(seen, "a") as log:
                    log.write(json.dumps(request) + "\n")
            try:
                fault = json.loads(Path(file).read_text())
            except FileNotFoundError:
                return app(environ, start_response)
            if not re.search(fault["match"], request):
                return app(environ, start_response)
            if fault["times"] is not None:
                fault["times"] -= 1
                if fault["times"] <= 0:
                    os.unlink(file)
                else:
                    Path(file).write_text(json.dumps(fault))
            eventlet.sleep(fault["delay"])
            if fault["part"] is not None:
                environ["eventlet.minimum_write_chunk_size"] = (
                    0  # so that what is sent before is sent at once
                )
                return partly(app, environ, start_response, fault)
            if not fault["status"]:
                return app(environ, start_response)
            body = fault["body"].encode()
            headers = {
                "Content-Length": str(len(body)),
                "Content-Type": "application/json",
                **fault["headers"],
            }
            start_response(f"{fault['status']} Fault", list(headers.items()))
            return [body]

        return call

    def partly(app, environ, start_response, fault):
        """The true answer, but only some of its body; then silence, or the end of the connection."""
        started: list = []

        def start(status, headers, exc_info=None):
            started[:] = [status, headers]

        answer = app(environ, start)
        body = b"".join(answer)
        getattr(answer, "close", lambda: None)()
        status, headers = started
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        part = body[: int(len(body) * fault["part"])]
        if fault["trickle"]:
            for at in range(len(body)):
                yield body[at : at + 1]
                eventlet.sleep(fault["trickle"])
            return
        yield part
        eventlet.sleep(fault["stall"])

    return refusing


def _die_with_parent():
    """Standard input is a pipe from the parent: its end is our end.  (Unlike
    PR_SET_PDEATHSIG this does not fire when the parent's *thread* ends.)"""

    def wait(read=os.read, leave=os._exit):  # before eventlet patches
        read(0, 1)
        leave(0)

    threading.Thread(target=wait, daemon=True).start()


def child_rings(run, ports):
    """swift-ring-builder create 0 1 0 / add / rebalance without its CLI (nine
    CLI calls cost about 7 s)."""
    from swift.common.ring import RingBuilder

    for item in ports.split(","):
        name, port = item.split(":")
        builder = RingBuilder(0, 1, 0)  # part power, replicas, min_part_hours
        builder.add_dev(
            {
                "id": 0,
                "region": 1,
                "zone": 1,
                "weight": 1.0,
                "device": "d1",
                "ip": "127.0.0.1",
                "port": int(port),
                "meta": "",
                "replication_ip": "127.0.0.1",
                "replication_port": int(port),
            }
        )
        builder.rebalance()
        builder.get_ring().save(f"{run}/{name}.ring.gz")


def child_cert(run):
    """A self-signed certificate for 127.0.0.1 and localhost."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "swift_aio test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            False,
        )
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
        .sign(key, hashes.SHA256())
    )
    (run / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (run / "key.pem").chmod(0o600)
    (run / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))


def child_swift(run, roles, ports=None):
    """roles: 'name:fd,name:fd'. All of them in one eventlet process."""
    if ports:
        child_rings(run, ports)
    import eventlet
    import eventlet.hubs
    import eventlet.wsgi
    from swift.common import constraints, utils, wsgi

    os.environ["TZ"] = "UTC+0"
    time.tzset()
    eventlet.hubs.use_hub(wsgi.get_hub())
    utils.monkey_patch()
    utils.set_swift_dir(str(run))
    constraints.reload_constraints()  # they were read from /etc/swift
    utils.disable_fallocate()
    utils.FALLOCATE_RESERVE, utils.FALLOCATE_IS_PERCENT = 0, False
    import warnings

    warnings.filterwarnings("ignore", message="capitalize_response_headers")
    servers = []
    for role in roles.split(","):
        name, fd = role.split(":")
        # log_to_console for this logger and every later one
        utils.get_logger({}, name, log_to_console=True, log_route="wsgi")
        app = wsgi.loadapp(str(run / f"{name}.conf"), global_conf={"log_name": name})
        sock = socket.socket(fileno=int(fd))  # green after patching
        if name.startswith("proxy") and (run / "cert.pem").exists():
            sock = eventlet.wrap_ssl(
                sock, certfile=str(run / "cert.pem"), keyfile=str(run / "key.pem"), server_side=True
            )
        servers.append(
            eventlet.spawn(
                eventlet.wsgi.server,
                sock,
                app,
                wsgi.NullLogger(),
                custom_pool=wsgi.RestrictedGreenPool(size=1024),
                protocol=wsgi.SwiftHttpProtocol,
                socket_timeout=60.0,
                capitalize_response_headers=False,
            )
        )
    for server in servers:
        server.wait()


def child_fill(run, account, container):
    """JSON lines on standard input: [name, bytes, etag, unix time or null]."""
    from swift.common import utils
    from swift.container.backend import ContainerBroker

    utils.set_swift_dir(str(run))
    name = utils.hash_path(account, container)
    broker = ContainerBroker(
        f"{run}/srv/d1/{utils.storage_directory('containers', 0, name)}/{name}.db",
        account=account,
        container=container,
    )
    now, rows = time.time(), []
    for line in sys.stdin:
        name, size, etag, when = json.loads(line)
        rows.append(
            {
                "name": name,
                "size": size,
                "etag": etag,
                "deleted": 0,
                "created_at": utils.Timestamp(when or now).internal,
                "content_type": "application/octet-stream",
                "storage_policy_index": 0,
                "ctype_timestamp": None,
                "meta_timestamp": None,
            }
        )
        if len(rows) == 10000:
            broker.merge_items(rows)
            rows = []
    broker.merge_items(rows)


DAEMONS = {
    "container-updater": ("container", "ContainerUpdater", "container"),
    "object-updater": ("obj", "ObjectUpdater", "object"),
    "object-expirer": ("obj", "ObjectExpirer", "object-expirer"),
}


def child_once(run, name):
    """One pass of a Swift daemon.  (The swift-* scripts of the daemons read
    /etc/swift/swift.conf whatever swift_dir says, hence not through them.)"""
    from importlib import import_module

    from swift.common import utils
    from swift.common.daemon import run_daemon

    utils.set_swift_dir(str(run))
    package, cls, conf = DAEMONS[name]
    module = import_module(f"swift.{package}.{name.split('-')[1]}")
    run_daemon(getattr(module, cls), str(run / f"{conf}.conf"), name, once=True, verbose=True)


def child_keystone(run, fd, ks_url, swift_url):
    """Create (or reuse) the database, then serve the WSGI app."""
    import warnings

    warnings.filterwarnings("ignore")
    sys.argv = ["keystone"]  # oslo.config would parse ours
    import keystone.server

    keystone.server.configure(config_files=[str(run / "keystone.conf")])
    if not (run / "keystone.db").exists():
        _keystone_create(run)
    _keystone_endpoints(run, ks_url, swift_url)
    from keystone.server.flask import application, core
    from keystone_v2 import LegacyV2  # type: ignore[import-not-found]  # beside this script

    app = core.setup_app_middleware(application.application_factory("public"))
    app.wsgi_app = _one_at_a_time(LegacyV2(app.wsgi_app, ks_url[:-3], REGION))

    import logging

    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

    host, port = ks_url.split("/")[2].split(":")
    server = make_server(
        host,
        int(port),
        app,
        threaded=True,
        request_handler=Handler,
        fd=fd,
        ssl_context=(str(run / "cert.pem"), str(run / "key.pem")) if (run / "cert.pem").exists() else None,
    )
    server.daemon_threads = True
    server.serve_forever()


def _one_at_a_time(app):
    lock = threading.RLock()

    def call(environ, start_response):
        with lock:
            result = app(environ, start_response)
            try:
                return list(result)
            finally:
                getattr(result, "close", lambda: None)()

    return call


def _keystone_create(run):
    """keystone-manage db_sync + fernet_setup + credential_setup + bootstrap,
    then project/user/role, all through Keystone's own managers."""
    import uuid

    from cryptography.fernet import Fernet
    from keystone.cmd.bootstrap import Bootstrapper
    from keystone.common import provider_api
    from keystone.common.sql import upgrades

    for repo in ("fernet", "receipts", "credential"):
        path = run / repo
        path.mkdir(mode=0o700, exist_ok=True)
        for index in "01":  # 0 staged, 1 primary
            key = path / index
            key.write_bytes(Fernet.generate_key())
            key.chmod(0o600)
    upgrades.offline_sync_database_to_version()
    # Every password login writes (last_active_at): without WAL (which stays
    # in the file) and _one_at_a_time, concurrent requests now and then end
    # in "database is locked": a 500 here, a 401 from Swift.
    with contextlib.closing(sqlite3.connect(run / "keystone.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
    boot = Bootstrapper()  # loads the backends
    boot.admin_password, boot.admin_username = ADMIN_PASSWORD, "admin"
    boot.project_name, boot.admin_role_name = "admin", "admin"
    boot.service_name, boot.region_id = "keystone", REGION
    boot.immutable_roles = True
    boot.bootstrap()
    api = provider_api.ProviderAPIs

    def project(name):
        pid = uuid.uuid4().hex
        api.resource_api.create_project(
            pid, {"id": pid, "name": name, "domain_id": "default", "enabled": True}
        )
        return pid

    def user(name, password, pid=None, role=None):
        ref = api.identity_api.create_user(
            {"name": name, "password": password, "domain_id": "default", "enabled": True}
        )
        if role:
            api.assignment_api.add_role_to_user_and_project(user_id=ref["id"], project_id=pid, role_id=role)
        return ref["id"]

    service = project("service")
    demo = project(PROJECT)
    user("swift", SERVICE_PASSWORD, service, boot.admin_role_id)
    demo_id = user(USER, PASSWORD, demo, boot.member_role_id)
    user(OTHER_USER, OTHER_PASSWORD, demo, boot.reader_role_id)
    for service_type, name in (("identity", "keystone"), ("object-store", "swift")):
        sid = uuid.uuid4().hex
        api.catalog_api.create_service(sid, {"id": sid, "type": service_type, "name": name, "enabled": True})
        for interface in ("public", "internal", "admin"):
            eid = uuid.uuid4().hex
            api.catalog_api.create_endpoint(
                eid,
                {
                    "id": eid,
                    "interface": interface,
                    "region_id": REGION,
                    "service_id": sid,
                    "enabled": True,
                    "url": f"http://{service_type}.invalid",
                },
            )
    (run / "ids.json").write_text(
        json.dumps({"project_id": demo, "user_id": demo_id, "member_role_id": boot.member_role_id})
    )


def _keystone_endpoints(run, ks_url, swift_url):
    from keystone.common import provider_api
    from keystone.server import backends

    api = provider_api.ProviderAPIs
    try:
        backends.load_backends()
    except Exception as exc:  # already loaded by Bootstrapper
        if "locked" not in str(exc).lower() and "Registry" not in type(exc).__name__:
            raise
    types = {s["id"]: s["type"] for s in api.catalog_api.list_services()}
    for endpoint in api.catalog_api.list_endpoints():
        url = ks_url if types[endpoint["service_id"]] == "identity" else f"{swift_url}/v1/AUTH_%(project_id)s"
        api.catalog_api.update_endpoint(endpoint["id"], {"url": url})


def main(argv):
    name, run = argv[0], Path(argv[1])
    if name == "rings":
        child_rings(run, argv[2])
    elif name == "cert":
        child_cert(run)
    elif name == "once":
        child_once(run, argv[2])
    elif name == "fill":
        child_fill(run, argv[2], argv[3])
    elif name == "keystone":
        _die_with_parent()
        child_keystone(run, int(argv[2]), argv[3], argv[4])
    else:
        _die_with_parent()
        child_swift(run, *argv[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
