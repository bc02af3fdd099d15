"""A real Airflow on loopback: API server, scheduler, DAG processor and triggerers, each a process of its own.

Used by the tests, the benchmarks and the demo. Everything lies below one directory, nothing of the
user's Airflow is read or touched, and every process that is started is ended, by its id. By hand, until
Ctrl-C or around a command, with ``AIRFLOW_*`` set as for its services::

    .venv-airflow/bin/python -m tests.services.airflow_host
    .venv-airflow/bin/python -m tests.services.airflow_host --dags my_dags -- airflow dags list
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import requests

from tests.services.by_hand import EXAMPLES, Told, arguments, by_hand, chosen, needs, tell
from tests.services.processes import HostError, Processes, free_port

__all__ = ["AirflowHost", "HostError", "free_port"]

_COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


class AirflowHost(Processes):
    """Airflow's four services.

    :param home: an empty directory for everything.
    :param dags: the folder of DAGs.
    :param database: where Airflow keeps its metadata; the default is SQLite, in ``home``.
    :param settings: more of Airflow's settings, as ``{"CORE__PARALLELISM": "4"}``.
    :param environ: more variables for all services.
    :param say: called with a line whenever something was done.
    """

    passing: ClassVar[tuple[type[Exception], ...]] = (*Processes.passing, requests.RequestException)

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        database: str | None = None,
        settings: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        port: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._token = ""
        self._http = requests.Session()
        self._http.trust_env = False
        secret = secrets.token_hex(32)
        chosen = {
            "CORE__DAGS_FOLDER": str(dags),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "8",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__TEST_CONNECTION": "Enabled",
            "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "DATABASE__SQL_ALCHEMY_CONN": database or f"sqlite:///{home}/airflow.db",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            # All four must agree on these.
            "API_AUTH__JWT_SECRET": secret,
            "API__SECRET_KEY": secret,
            # A task that defers or ends is noticed within a second, instead of five.
            "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # A DAG that is unpaused has its assets watched when it is next read.
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            **(settings or {}),
        }
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **{f"AIRFLOW__{name}": value for name, value in chosen.items()},
            **(environ or {}),
        }
        super().__init__(home / "service-logs", env, say)

    # -- starting and stopping -------------------------------------------------

    def command(
        self, *args: str, timeout: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``airflow …`` to its end."""
        done = subprocess.run(
            [*_airflow(), *args], env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise HostError(f"airflow {' '.join(args)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done

    def spawn(self, *args: str) -> subprocess.Popen[str]:
        """Begin ``airflow …``, whose end and output are the caller's to wait for."""
        return subprocess.Popen(
            [*_airflow(), *args],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self, name: str, component: str | None = None) -> int:
        """Start a service; its process id.

        :param name: what to call it.
        :param component: what it is, if not what it is called: for a second one.
        """
        return self.launch(name, [*_airflow(), *_COMPONENTS[component or name]])

    def up(self, timeout: float = 240) -> AirflowHost:
        """Make the database and start all four; returns when all say that they are well."""
        try:
            self._say("making the metadata database")
            self.command("db", "migrate")
            for name in _COMPONENTS:
                self._say(f"starting the {name}")
                self.start(name)
            self.until("all four services to be well", self.healthy, timeout)
        except BaseException:
            self.down()
            raise
        return self

    def healthy(self) -> bool:
        """Whether all four services are there."""
        self.check()
        health = self._http.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        services = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health[name]["status"] == "healthy" for name in services)

    def down(self) -> None:
        """Stop everything."""
        super().down()
        self._http.close()

    def __enter__(self) -> AirflowHost:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- what it says ------------------------------------------------------------

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """One request to the REST API, ``/api/v2`` being understood; JSON.

        :raises HostError: for any status but 2xx.
        """
        for _ in range(2):
            if not self._token:
                self._token = self._http.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            answer = self._http.request(
                method,
                f"{self.url}/api/v2/{path}",
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=60,
                **options,
            )
            if answer.status_code != 401:
                break
            self._token = ""
        if not answer.ok:
            raise HostError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        """A GET."""
        return self.ask("GET", path, params=params)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Make a run; its id."""
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self.ask("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Pause a DAG, or let it go on."""
        self.ask("PATCH", f"dags/{dag_id}", json={"is_paused": paused})

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(f"dags/{dag_id}/dagRuns", limit=100, offset=len(found))
            found += page["dag_runs"]
            if not page["dag_runs"] or len(found) >= page["total_entries"]:
                return found

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        return dict(self.get(f"dags/{dag_id}/dagRuns/{run_id}"))

    def task(self, dag_id: str, run_id: str, task_id: str, index: int = -1) -> dict[str, Any]:
        """One task of a run."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}" + (f"/{index}" if index >= 0 else "")
        return dict(self.get(path))

    def xcom(self, dag_id: str, run_id: str, task_id: str, index: int = -1) -> Any:
        """What a task returned."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.get(path, deserialize="true", map_index=index)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, index: int = -1) -> str:
        """A task's log, of all its tries, as text."""
        tries = self.task(dag_id, run_id, task_id, index)["try_number"]
        texts = []
        for number in range(1, tries + 1):
            path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{number}"
            with contextlib.suppress(HostError):
                content = self.get(path, full_content="true", map_index=index)["content"]
                texts += [_line(one) for one in content]
        return "\n".join(texts)

    def finished(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait for a run to end; its state."""
        states = ("success", "failed")

        def ended() -> str | None:
            state = self.run(dag_id, run_id)["state"]
            return state if state in states else None

        return str(self.until(f"run {run_id} of {dag_id} to end", ended, timeout))

    def state_of(self, dag_id: str, run_id: str, task_id: str, *states: str, timeout: float = 90) -> str:
        """Wait for a task to be in one of these states; which one."""
        return str(
            self.until(
                f"task {task_id} of {run_id} to be {' or '.join(states)}",
                lambda: next(
                    (state for state in [self.task(dag_id, run_id, task_id)["state"]] if state in states),
                    None,
                ),
                timeout,
            )
        )


def _line(one: Any) -> str:
    """A line of a task's log, with the error that may hang on it."""
    if not isinstance(one, dict):
        return str(one)
    errors = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in one.get("error_detail") or []]
    return "\n".join([one.get("event") or "", *errors])


def _airflow() -> list[str]:
    """Airflow of the interpreter that runs this."""
    beside = Path(sys.executable).with_name("airflow")
    return [str(beside)] if beside.exists() else [shutil.which("airflow") or "airflow"]


def main(argv: Sequence[str]) -> int:
    """By hand."""
    parser = argparse.ArgumentParser("python -m tests.services.airflow_host", description="An Airflow.")
    parser.add_argument("--dags", type=Path, default=EXAMPLES / "airflow", help="the folder of DAGs")
    parser.add_argument("--port", type=int, help="of the API server; by default one that is free")
    options, command = arguments(parser, argv)
    needs("airflow", ".venv-airflow")
    with tempfile.TemporaryDirectory(prefix="poller-airflow-") as folder:
        home = Path(folder)
        inbox = home / "inbox"
        inbox.mkdir()
        environ = {"POLLER_INBOX": str(inbox)}
        host = AirflowHost(home, options.dags.resolve(), port=options.port, environ=environ, say=tell)

        def told(host: AirflowHost) -> Told:
            hints = [
                f"the UI, without a login: {host.url}; logs: {host.logs}",
                "airflow dags unpause files_by_asset",
                "date >$POLLER_INBOX/one.csv; airflow dags list-runs files_by_asset",
            ]
            return Told(chosen(host.env, "AIRFLOW_", "POLLER_INBOX", "NO_PROXY"), hints, host.check)

        return by_hand(host, told, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
