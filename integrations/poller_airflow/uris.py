"""What Airflow asks when an asset's URI is that of a container: ``Asset("swift://keystone.example.org/v3?inbox")``."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlunsplit

from airflow.sdk import Asset

from poller_core import InvalidUrl, Url

__all__ = ["create_asset", "sanitize_uri"]


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Refuse credentials, and see that the URI names a container.

    :raises InvalidUrl: if there is a user or password in it, or no container.
    """
    if "@" in uri.netloc:
        raise InvalidUrl(
            "an asset's URI is for all to read, and holds no user or password; give a connection's conn_id "
            "to poller_asset instead"
        )
    from poller_core import SwiftPoller

    SwiftPoller.locate(Url(urlunsplit(uri)))
    return uri


def create_asset(*, uri: str, name: str | None = None, extra: dict[str, Any] | None = None) -> Asset:
    """An asset for a container, without a watcher; see :func:`~poller_airflow.poller_asset` for one with."""
    return Asset(name or uri, uri, extra=extra or {})
