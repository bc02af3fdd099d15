"""A real Prefect server on loopback, and whatever serves or works for it, each a process of its own.

Used by the tests, the benchmarks and the demo. Everything lies below one directory, and nothing of the
user's Prefect is read or touched: no profile, no variable. Every process that is started is ended, by
its id. The server may be killed at any point and started again, on the same port and database; requests
fail meanwhile, and :meth:`PrefectHost.until` waits through that.

Lists are whole (all pages). Rows that come while pages are read may or may not be among them; none that
was there before is missing, unless something is deleted at the same time. (A server that starts removes
events that occurred a week ago or more: those of tests should be of today.)

By hand, until Ctrl-C or around a command, with ``PREFECT_*`` set as for its clients::

    .venv-prefect/bin/python -m tests.services.prefect_host
    .venv-prefect/bin/python -m tests.services.prefect_host -- prefect deployment ls
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import httpx

from tests.services.by_hand import EXAMPLES, Told, arguments, by_hand, chosen, needs, tell
from tests.services.processes import Ended, HostError, Processes, free_port

__all__ = ["Ended", "HostError", "PrefectHost", "free_port"]

_SERVER = "server"
# What runs beside the API unless told otherwise, of the loops that can be turned off: intervals are used
# here, pools' health, pauses and cancellations are not.
_SERVICES = {
    "SCHEDULER": True,
    "LATE_RUNS": True,
    "FOREMAN": False,
    "PAUSE_EXPIRATIONS": False,
    "CANCELLATION_CLEANUP": False,
}
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class PrefectHost(Processes):
    """A Prefect server.

    :param home: a directory for everything; in one that was used before, what it holds is gone on with.
    :param port: of the server; by default a free one, which it keeps when it is started again.
    :param database: where it keeps its data, as ``postgresql+asyncpg://…``; the default is SQLite, in
        ``home``.
    :param environ: more variables, for the server and everything else.
    :param ui: serve the user interface too.
    :param services: which loops of the server run, as ``{"FOREMAN": True}``, where not as usual here: the
        scheduler and late runs do, foreman, pause expirations and the clean-up of cancellations don't.
    :param flush: after how many seconds at the latest events are stored.
    :param say: called with a line whenever something was done.
    """

    passing: ClassVar[tuple[type[Exception], ...]] = (*Processes.passing, httpx.TransportError)

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        database: str | None = None,
        environ: Mapping[str, str] | None = None,
        ui: bool = False,
        services: Mapping[str, bool] | None = None,
        flush: float = 0.5,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = f"{self.url}/api"
        if database and database.startswith("postgresql://"):
            database = database.replace("://", "+asyncpg://", 1)
        chosen = {
            "HOME": str(home),
            "API_URL": self.api,
            # Otherwise what does not find its server quietly starts one of its own. (Both are the same
            # setting: the second is how the default profile calls it.)
            "SERVER_EPHEMERAL_ENABLED": "false",
            "SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "SERVER_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{home}/prefect.db",
            "SERVER_UI_ENABLED": str(ui).lower(),
            "SERVER_ANALYTICS_ENABLED": "false",
            "SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": str(flush),
            **{
                f"SERVER_SERVICES_{name.upper()}_ENABLED": str(on).lower()
                for name, on in {**_SERVICES, **(services or {})}.items()
            },
            "CLI_PROMPT": "false",
            "CLI_COLORS": "false",
            # A run that is due is noticed within a second, instead of ten.
            "RUNNER_POLL_FREQUENCY": "1",
            "WORKER_QUERY_SECONDS": "1",
        }
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
            **{f"PREFECT_{name}": value for name, value in chosen.items()},
            **(environ or {}),
        }
        super().__init__(home / "logs", env, say)
        self._http = self._client()

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.api, trust_env=False, timeout=60)

    # -- starting and stopping -------------------------------------------------

    def up(self, timeout: float = 180) -> PrefectHost:
        """Start the server; returns when it answers."""
        if self._http.is_closed:
            self._http = self._client()
        try:
            self.start_server(timeout)
        except BaseException:
            self.down()
            raise
        return self

    def start_server(self, timeout: float = 180) -> int:
        """Start the server, for the first time or again; its process id, when it answers.

        :raises Ended: with the end of its log, if it ends.
        :raises HostError: if somebody listens on its port.
        """
        self._say("starting the server")
        with socket.socket() as sock:
            # As servers do: connections of the one before may still be there.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise HostError(f"port {self.port} is taken ({error})") from error
        argv = [*_prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        pid = self.launch(_SERVER, argv, cwd=self.home)
        self.until("the server to be well", self.healthy, timeout)
        return pid

    def healthy(self) -> bool:
        """Whether the server answers.

        :raises Ended: with the end of its log, if it has ended.
        """
        self.check(_SERVER)
        return self._http.get("/health", timeout=10).status_code == 200

    @property
    def server_alive(self) -> bool:
        """Whether there is a process of the server; it may not answer yet."""
        return self.alive(_SERVER)

    def kill_server(self) -> None:
        """End the server at once, as a crash would."""
        self.kill(_SERVER)

    def down(self) -> None:
        """Stop everything: the server last, since the others have things to tell it."""
        server = self._running.pop(_SERVER, None)
        self._end(self._running.values())
        if server is not None:
            self._running[_SERVER] = server
        super().down()
        self._http.close()

    def __enter__(self) -> PrefectHost:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- other processes -------------------------------------------------------

    def command(
        self, *args: str, timeout: float = 120, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``prefect …`` to its end."""
        done = subprocess.run(
            [*_prefect(), *args],
            cwd=cwd or self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr)[-3000:]
            raise HostError(f"prefect {' '.join(args)} gave {done.returncode}:\n{said}")
        return done

    def start(
        self, name: str, argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        """Start any process with the server's variables; its id.

        :param cwd: where; ``home`` by default.
        :param env: more variables, for it alone.
        """
        self._say(f"starting {name}")
        return self.launch(name, argv, cwd or self.home, env)

    def python(
        self,
        code: str | Path,
        *args: str,
        name: str = "script",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Start a Python script with the interpreter that runs this; its process id.

        :param code: a file, or its text: that is written to one in ``home/scripts``, since Prefect wants to
            load flows from files.
        """
        if isinstance(code, str):
            path = self.home / "scripts" / f"{name.replace('-', '_')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
            code = path
        return self.start(name, [sys.executable, str(code), *args], cwd, env)

    def worker(
        self, pool: str, name: str = "worker", *args: str, env: Mapping[str, str] | None = None
    ) -> int:
        """Start a worker that runs flows as processes; its process id, when the server knows it.

        The pool is made if there is none. If the worker is killed, what it runs goes on.
        """
        if not self.ask("POST", "work_pools/filter", json={"work_pools": {"name": {"any_": [pool]}}}):
            self.ask("POST", "work_pools/", json={"name": pool, "type": "process"})
        argv = [*_prefect(), "worker", "start", "--pool", pool, "--name", name, "--type", "process"]
        pid = self.start(name, [*argv, *args], env=env)

        def known() -> bool:
            self.check(name)
            workers = self.ask("POST", f"work_pools/{pool}/workers/filter", json={})
            return any(one["name"] == name and one["status"] == "ONLINE" for one in workers)

        self.until(f"the worker {name} to be there", known)
        return pid

    # -- what the server says --------------------------------------------------

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """One request to the REST API, ``/api`` being understood; JSON.

        Where the server says that it is busy (with SQLite: somebody else was writing), and so has done
        nothing, it is asked again for some seconds, as Prefect's own clients do.

        :raises HostError: for any status but 2xx.
        :raises httpx.TransportError: if there is no answer.
        """
        for pause in (0.1, 0.3, 0.6, 1, 2, 4, 0):
            answer = self._http.request(method, path, **options)
            if answer.status_code != 503:
                break
            time.sleep(pause)
        if not answer.is_success:
            raise HostError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def pages(self, path: str, page: int = 200, **body: Any) -> list[dict[str, Any]]:
        """All rows that a filter finds, whatever their number."""
        found: dict[str, dict[str, Any]] = {}
        offset = 0
        while True:
            rows = self.ask("POST", path, json={**body, "limit": page, "offset": offset})
            found |= {row["id"]: row for row in rows}
            offset += len(rows)
            if len(rows) < page:
                return list(found.values())

    def flow_runs(
        self,
        flow_name: str | None = None,
        deployment: str | None = None,
        states: Iterable[str] | None = None,
    ) -> list[dict[str, Any]]:
        """All flow runs, or those of a flow, of a deployment or in states of these names; oldest first."""
        body: dict[str, Any] = {"sort": "ID_DESC"}
        if flow_name is not None:
            body["flows"] = {"name": {"any_": [flow_name]}}
        if deployment is not None:
            body["deployments"] = {"id": {"any_": [self._deployment_id(deployment)]}}
        if states is not None:
            body["flow_runs"] = {"state": {"name": {"any_": list(states)}}}
        return sorted(self.pages("flow_runs/filter", **body), key=_created)

    def task_runs(self, flow_run_id: str | uuid.UUID | None = None) -> list[dict[str, Any]]:
        """All task runs, or those of a flow run; oldest first."""
        body: dict[str, Any] = {"sort": "ID_DESC"}
        if flow_run_id is not None:
            body["task_runs"] = {"flow_run_id": {"any_": [str(flow_run_id)]}}
        return sorted(self.pages("task_runs/filter", **body), key=_created)

    def run(self, flow_run_id: str | uuid.UUID) -> dict[str, Any]:
        """One flow run."""
        return dict(self.ask("GET", f"flow_runs/{flow_run_id}"))

    def state_of(self, flow_run_id: str | uuid.UUID) -> str:
        """The name of the state that a flow run is in: ``Scheduled``, ``Late``, ``Completed`` …"""
        return str((self.run(flow_run_id)["state"] or {}).get("name", ""))

    def finished(self, flow_run_id: str | uuid.UUID, timeout: float = 120) -> str:
        """Wait for a flow run to end; the name of its state then: ``Completed``, ``Failed`` …"""

        def ended() -> str | None:
            state = self.run(flow_run_id)["state"]
            return state["name"] if state and state["type"] in _FINAL else None

        return str(self.until(f"flow run {flow_run_id} to end", ended, timeout))

    def logs_of(self, flow_run_id: str | uuid.UUID) -> str:
        """What a flow run and its tasks logged, by line."""
        body: dict[str, Any] = {
            "logs": {"flow_run_id": {"any_": [str(flow_run_id)]}},
            "sort": "TIMESTAMP_ASC",
        }
        return "\n".join(row["message"] for row in self.pages("logs/filter", **body))

    def events(
        self,
        name: str | None = None,
        prefix: str | None = None,
        resource: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        related: str | None = None,
    ) -> list[dict[str, Any]]:
        """All events that are stored, or those that fit; in the order in which they occurred.

        :param name: the event's whole name.
        :param prefix: what the name begins with.
        :param resource: ``prefect.resource.id``; with ``*`` at its end, what that begins with.
        :param since: when they occurred; by default ever.
        :param until: likewise; by default up to now. An event that claims to be of the future is left out.
        :param related: the id of a related resource.
        """
        # The default begins a day or so ago.
        occurred = {"since": (since or datetime(1970, 1, 2, tzinfo=UTC)).isoformat()}
        if until is not None:
            occurred["until"] = until.isoformat()
        query: dict[str, Any] = {"occurred": occurred, "order": "ASC"}
        if name is not None or prefix is not None:
            query["event"] = {"name": [name] if name else None, "prefix": [prefix] if prefix else None}
        if resource is not None:
            query["resource"] = {"id": [resource]} if resource[-1:] != "*" else {"id_prefix": [resource[:-1]]}
        if related is not None:
            query["related"] = {"id": [related]}
        page = self.ask("POST", "events/filter", json={"filter": query, "limit": 50})
        found = list(page["events"])
        while page["next_page"]:
            page = self.ask("GET", page["next_page"])
            found += page["events"]
        return list({event["id"]: event for event in found}.values())

    def automations(self) -> list[dict[str, Any]]:
        """All automations."""
        return self.pages("automations/filter", sort="CREATED_DESC")

    def deployments(self) -> list[dict[str, Any]]:
        """All deployments."""
        return self.pages("deployments/filter", sort="NAME_ASC")

    def deployment(self, name: str) -> dict[str, Any]:
        """One deployment, as ``flow/deployment``, or as ``deployment`` where that is clear.

        :raises HostError: if there is none, or more than one.
        """
        if "/" in name:
            return dict(self.ask("GET", f"deployments/name/{name}"))
        found = self.pages("deployments/filter", deployments={"name": {"any_": [name]}})
        if len(found) != 1:
            raise HostError(f"there are {len(found)} deployments called {name}")
        return found[0]

    def _deployment_id(self, name: str) -> str:
        try:
            return str(uuid.UUID(name))
        except ValueError:
            return str(self.deployment(name)["id"])

    def run_deployment(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Have a deployment run; the flow run's id. One key makes one run, however often it is asked for.

        :param name: as for :meth:`deployment`, or the deployment's id.
        """
        body: dict[str, Any] = {"parameters": dict(parameters or {})}
        if idempotency_key is not None:
            body["idempotency_key"] = idempotency_key
        path = f"deployments/{self._deployment_id(name)}/create_flow_run"
        return str(self.ask("POST", path, json=body)["id"])

    def artifacts(self, key: str | None = None) -> list[dict[str, Any]]:
        """All artifacts, every version of each, or those of a key; oldest first."""
        body: dict[str, Any] = {"sort": "ID_DESC"}
        if key is not None:
            body["artifacts"] = {"key": {"any_": [key]}}
        return sorted(self.pages("artifacts/filter", **body), key=_created)

    def blocks(self, type_slug: str | None = None) -> list[dict[str, Any]]:
        """All blocks that were saved, or those of a type; secrets are masked."""
        body: dict[str, Any] = {"include_secrets": False, "sort": "BLOCK_TYPE_AND_NAME_ASC"}
        if type_slug is not None:
            body["block_types"] = {"slug": {"any_": [type_slug]}}
        return self.pages("block_documents/filter", **body)


def _created(row: Mapping[str, Any]) -> str:
    return str(row.get("created"))


def _prefect() -> list[str]:
    """Prefect of the interpreter that runs this."""
    return [sys.executable, "-m", "prefect"]


def main(argv: Sequence[str]) -> int:
    """By hand."""
    parser = argparse.ArgumentParser("python -m tests.services.prefect_host", description="A Prefect server.")
    parser.add_argument("--no-ui", action="store_true", help="without the user interface")
    parser.add_argument("--port", type=int, help="of the server; by default one that is free")
    options, command = arguments(parser, argv)
    needs("prefect", ".venv-prefect")
    with tempfile.TemporaryDirectory(prefix="poller-prefect-") as folder:
        home = Path(folder)
        inbox = home / "inbox"
        inbox.mkdir()
        environ = {"POLLER_INBOX": str(inbox)}
        host = PrefectHost(home, port=options.port, ui=not options.no_ui, environ=environ, say=tell)

        def told(host: PrefectHost) -> Told:
            served = os.path.relpath(EXAMPLES / "prefect" / "run_per_file.py")
            hints = [
                f"the UI: {host.url}; logs: {host.logs}",
                f"python {served}",
                "date >$POLLER_INBOX/one.csv; prefect flow-run ls",
            ]
            return Told(chosen(host.env, "PREFECT_", "POLLER_INBOX", "NO_PROXY"), hints, host.check)

        return by_hand(host, told, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
