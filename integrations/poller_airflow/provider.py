"""What Airflow is told of this provider: ``airflow providers get poller-core``.

Airflow reads it while it reads its own configuration, so nothing of Airflow's can be
imported here, and at each start, so nothing that takes long should be.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

__all__ = ["get_provider_info"]

#: A run may be cleared, and wants its files again, long after it ended; seconds.
RETENTION = 30 * 86400.0
RETENTION_UNREAD = 90 * 86400.0

_NAME = "Poller"
_TEXT = {"type": ["string", "null"]}
_SECRET = {"type": ["string", "null"], "format": "password"}


def _field(label: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": schema or _TEXT}


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, after Airflow's schema for it."""
    return {
        "package-name": "poller-core",
        "name": _NAME,
        "description": "Runs that start from new files and objects: none missed, none twice.",
        "versions": [version("poller-core")],
        "sensors": [{"integration-name": _NAME, "python-modules": ["poller_airflow.sensors"]}],
        "operators": [{"integration-name": _NAME, "python-modules": ["poller_airflow.operators"]}],
        "hooks": [{"integration-name": _NAME, "python-modules": ["poller_airflow.hooks"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": ["poller_airflow.triggers"]}],
        "extra-links": ["poller_airflow.links.DispatchedRunsLink"],
        "queues": ["poller_airflow.queues.PollerMessageQueueProvider"],
        "asset-uris": [
            {
                "schemes": ["swift", "swifts", "swt", "swts"],
                "handler": "poller_airflow.uris.sanitize_uri",
                "factory": "poller_airflow.uris.create_asset",
            }
        ],
        "connection-types": [_connection_type()],
        "config": _config(),
    }


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": "poller",
        "hook-class-name": "poller_airflow.hooks.PollerHook",
        "hook-name": _NAME,
        "ui-field-behaviour": {
            "hidden-fields": [],
            "relabeling": {
                "host": "Keystone",
                "schema": "Path",
                "login": "User",
                "password": "Password, or secret of the application credential",
            },
            "placeholders": {
                "host": "https://keystone.example.org:5000/v3",
                "login": "alice",
                "schema": "v3",
            },
        },
        "conn-fields": {
            "project_name": _field("Project", "the project (tenant) that the container is in"),
            "user_domain_name": _field("User's domain", "by default the one with the id 'default'"),
            "project_domain_name": _field("Project's domain", "by default the one with the id 'default'"),
            "application_credential_id": _field(
                "Application credential", "its id; its secret is the password"
            ),
            "auth_type": _field("Way to authenticate", "a keystoneauth1 plugin; found out by default"),
            "cloud": _field("Cloud", "an entry of clouds.yaml on the workers, instead of all of the above"),
            "region": _field("Region", "where Swift is, if the catalogue has several"),
            "interface": _field("Interface", "public (default), internal or admin"),
            "cacert": _field("CA file", "a file of certificates to trust, for Keystone and Swift"),
            "insecure": _field(
                "Insecure", "trust any certificate", {"type": ["boolean", "null"], "default": False}
            ),
            "state": _field(
                "State",
                "where the state is; by default what [poller] state of the configuration says",
                _SECRET,
            ),
        },
    }


def _config() -> dict[str, Any]:
    return {
        "poller": {
            "description": "Pollers, which start runs from new files and objects.",
            "options": {
                "state": {
                    "description": (
                        "Where snapshot, journal and consumers are kept: sqlite:////path/to/state.db serves "
                        "one machine, postgresql+psycopg://user:password@host/database serves several. The "
                        "triggerer and all workers must see the same one."
                    ),
                    "version_added": "0.1.0",
                    "type": "string",
                    "sensitive": True,
                    "example": "postgresql+psycopg://poller@db.example.org/poller",
                    "default": "sqlite:///{AIRFLOW_HOME}/poller/state.db",
                },
                "retention": {
                    "description": (
                        "How long events are kept that every consumer has taken, in seconds. A run that is "
                        "cleared later than that can't be given its files again."
                    ),
                    "version_added": "0.1.0",
                    "type": "float",
                    "example": None,
                    "default": f"{RETENTION:.0f}",
                },
                "retention_unread": {
                    "description": "How long events are kept that a consumer has not taken, in seconds.",
                    "version_added": "0.1.0",
                    "type": "float",
                    "example": None,
                    "default": f"{RETENTION_UNREAD:.0f}",
                },
            },
        }
    }
