"""The Identity API v2.0, which is NOT Keystone's any more: it left in release 13 (Queens, 2018).

``POST /v2.0/tokens`` is translated to the real v3 API, so that a client of v2.0 gets a real token, which
Swift then validates. Runs where :mod:`tests.services.swift_child` does, and imports nothing of the project.
"""

from __future__ import annotations

import json

__all__ = ["LegacyV2"]


class LegacyV2:
    """What a client of v2.0 needs, on top of a Keystone that has only v3.

    :param app: Keystone.
    :param root: its address.
    :param region: of what is in the catalogue.
    """

    def __init__(self, app, root, region):
        from werkzeug.test import Client

        self.app, self.root, self.region = app, root, region
        self.v3 = Client(app, use_cookies=False)

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"].rstrip("/")
        if path == "/v2.0":
            status, doc = (
                200,
                {
                    "version": {
                        "id": "v2.0",
                        "status": "deprecated",
                        "links": [{"rel": "self", "href": self.root + "/v2.0/"}],
                    }
                },
            )
        elif path == "/v2.0/tokens" and environ["REQUEST_METHOD"] == "POST":
            length = int(environ.get("CONTENT_LENGTH") or 0)
            status, doc = self.tokens(json.loads(environ["wsgi.input"].read(length))["auth"])
        else:
            return self.app(environ, start_response)
        body = json.dumps(doc).encode()
        start_response(
            f"{status} x", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        )
        return [body]

    def tokens(self, auth):
        domain = {"id": "default"}
        if "passwordCredentials" in auth:
            cred = auth["passwordCredentials"]
            user = (
                {"id": cred["userId"]} if cred.get("userId") else {"name": cred["username"], "domain": domain}
            )
            identity = {"methods": ["password"], "password": {"user": {**user, "password": cred["password"]}}}
        else:
            identity = {"methods": ["token"], "token": {"id": auth["token"]["id"]}}
        ask: dict[str, dict] = {"auth": {"identity": identity}}
        if auth.get("tenantId"):
            ask["auth"]["scope"] = {"project": {"id": auth["tenantId"]}}
        elif auth.get("tenantName"):
            ask["auth"]["scope"] = {"project": {"name": auth["tenantName"], "domain": domain}}
        else:
            ask["auth"]["scope"] = "unscoped"
        reply = self.v3.post("/v3/auth/tokens", json=ask)
        if reply.status_code >= 300:
            return reply.status_code, reply.json
        token = reply.json["token"]
        project = token.get("project")
        return 200, {
            "access": {
                "token": {
                    "id": reply.headers["X-Subject-Token"],
                    "expires": token["expires_at"],
                    "issued_at": token["issued_at"],
                    **(
                        {"tenant": {"id": project["id"], "enabled": True, "name": project["name"]}}
                        if project
                        else {}
                    ),
                },
                "serviceCatalog": [
                    {
                        "type": service["type"],
                        "name": service["name"],
                        "endpoints_links": [],
                        "endpoints": [
                            {
                                "region": self.region,
                                **{e["interface"] + "URL": e["url"] for e in service["endpoints"]},
                            }
                        ],
                    }
                    for service in token.get("catalog", ())
                ],
                "user": {
                    "id": token["user"]["id"],
                    "name": token["user"]["name"],
                    "username": token["user"]["name"],
                    "roles_links": [],
                    "roles": [{"name": r["name"]} for r in token.get("roles", ())],
                },
                "metadata": {"is_admin": 0, "roles": []},
            }
        }
