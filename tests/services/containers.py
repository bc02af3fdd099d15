"""A container of the real Swift, worked on by plain HTTP: what tests do to it, and what is really there."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import quote

import requests

from tests.services.swift_aio import SwiftAIO
from tests.services.swift_child import PASSWORD, PROJECT, REGION, USER

_numbers = itertools.count(1)


class Box:
    """A container.

    :param keystone: be authenticated by Keystone, on the proxy that asks it; else by TempAuth.
    """

    def __init__(self, aio: SwiftAIO, name: str | None = None, keystone: bool = False) -> None:
        self.aio = aio
        self.name = name or f"box{next(_numbers)}"
        self.keystone = keystone
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = aio.env.get("AIO_CACERT", True)
        self._token = ""
        self.storage_url = ""

    # -- requests ------------------------------------------------------------

    @property
    def token(self) -> str:
        """What the user may ask with for a while."""
        if not self._token:
            self._authenticate()
        return self._token

    def application_credential(self, name: str) -> tuple[str, str]:
        """Have Keystone make an application credential of the user's; its id and its secret."""
        env = self.aio.env
        answer = self._http.post(
            f"{env['OS_AUTH_URL']}/users/{env['AIO_USER_ID']}/application_credentials",
            headers={"X-Auth-Token": self.token},
            json={"application_credential": {"name": name}},
        )
        answer.raise_for_status()
        made = answer.json()["application_credential"]
        return made["id"], made["secret"]

    def _authenticate(self) -> None:
        env = self.aio.env
        if not self.keystone:
            headers = {"X-Auth-User": env["ST_USER"], "X-Auth-Key": env["ST_KEY"]}
            answer = self._http.get(env["ST_AUTH"], headers=headers)
            self._token, self.storage_url = answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]
            return
        default = {"id": "default"}
        user = {"name": USER, "domain": default, "password": PASSWORD}
        scope = {"project": {"name": PROJECT, "domain": default}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        answer = self._http.post(f"{env['OS_AUTH_URL']}/auth/tokens", json=body)
        self._token = answer.headers["X-Subject-Token"]
        self.storage_url = f"{env['AIO_SWIFT_KS']}/v1/AUTH_{env['AIO_PROJECT_ID']}"

    def ask(self, method: str, name: str | None = None, ok: tuple[int, ...] = (), **options: Any) -> Any:
        """One request, for the container or an object; any status but 2xx and ``ok`` is an error."""
        for _ in range(2):
            if not self._token:
                self._authenticate()
            url = f"{self.storage_url}/{quote(self.name, safe='')}"
            if name is not None:
                # A name that is "." or ".." would be resolved on the way.
                url += ("%2F" if name in (".", "..") else "/") + quote(name, safe="")
            headers = {"X-Auth-Token": self._token, **options.pop("headers", {})}
            answer = self._http.request(method, url, headers=headers, **options)
            if answer.status_code != 401:
                break
            self._token = ""
        assert answer.ok or answer.status_code in ok, f"{method} {url}: {answer.status_code} {answer.text}"
        return answer

    # -- the container -------------------------------------------------------

    def create(self, **headers: str) -> Box:
        self.ask("PUT", headers=headers)
        return self

    def remove(self) -> None:
        """Delete the container, with all that is in it."""
        for row in self.listing():
            self.delete(row["name"])
        self.ask("DELETE", ok=(404,))

    def listing(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            marker = rows[-1]["name"] if rows else ""
            answer = self.ask("GET", params={"format": "json", "marker": marker}, ok=(404,))
            page = answer.json() if answer.status_code == 200 and answer.text else []
            if not page:
                return rows
            rows += page

    def close(self) -> None:
        self._http.close()

    # -- objects -------------------------------------------------------------

    def put(self, name: str, data: bytes = b"", **headers: str) -> Any:
        return self.ask(
            "PUT", name, data=data, headers={key.replace("_", "-"): v for key, v in headers.items()}
        )

    def post(self, name: str, **headers: str) -> None:
        self.ask("POST", name, headers={key.replace("_", "-"): value for key, value in headers.items()})

    def delete(self, name: str) -> None:
        self.ask("DELETE", name, ok=(404,))

    def get(self, name: str) -> Any:
        return self.ask("GET", name)

    def head(self, name: str) -> Any:
        return self.ask("HEAD", name, ok=(404,))

    def fill(self, rows: list[tuple[str, int, str, float | None]]) -> None:
        """Put rows (name, bytes, ETag, time) into the listing, without objects."""
        if not self.storage_url:
            self._authenticate()
        self.aio.fill(self.storage_url.rpartition("/")[2], self.name, rows)

    # -- for pollers ---------------------------------------------------------

    @property
    def server(self) -> str:
        """What faults are made in."""
        return "proxyks" if self.keystone else "proxy"

    @property
    def auth_host(self) -> str:
        where = self.aio.env["OS_AUTH_URL" if self.keystone else "ST_AUTH"]
        return where.partition("://")[2]

    def url(self, user: bool = True, **query: str) -> str:
        """The URL for a poller."""
        if self.keystone:
            who = f"{USER}+{PROJECT}:{PASSWORD}@" if user else ""
        else:
            name, key = quote(self.aio.env["ST_USER"], safe=""), self.aio.env["ST_KEY"]
            who = f"{name}:{key}@" if user else ""
        scheme = "swifts" if self.aio.tls else "swift"
        parts = [quote(self.name, safe="")] + [
            f"{key}={quote(value, safe='')}" for key, value in query.items()
        ]
        return f"{scheme}://{who}{self.auth_host}?{'&'.join(parts)}"

    def subject(self, name: str) -> str:
        """The URL of an object, as a poller tells it."""
        return f"{self.url(user=False)}&name={quote(name, safe='/')}"

    @property
    def region(self) -> str:
        return REGION
