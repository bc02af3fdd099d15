"""What Airflow asks of an asset's URI that is a container's: ``swift://keystone.example.org/v3?container=inbox``.

Guarantees: two containers have two URIs. Airflow drops what stands behind the ``?`` of a
URI without a ``=``, so the container is named in the way that it keeps.

Not guaranteed: that the container is there. A URI only names an asset; what is watched
says :func:`~poller_airflow.poller_asset`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qs

from airflow.sdk import Asset

from poller_core import InvalidUrl

__all__ = ["create_asset", "sanitize_uri"]


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """See that the URI names a container.

    :raises InvalidUrl: if it does not.
    """
    if not uri.netloc or not parse_qs(uri.query).get("container"):
        shown = f"{uri.scheme}://{uri.hostname or 'keystone.example.org'}{uri.path}"
        raise InvalidUrl(
            f"an asset's URI has to name a host and a container in a way that Airflow keeps: "
            f"{shown}?container=inbox. (The URL that a poller watches is written {shown}?inbox)"
        )
    return uri


def create_asset(*, uri: str, name: str | None = None, extra: dict[str, Any] | None = None) -> Asset:
    """An asset for a container, without a watcher; see :func:`~poller_airflow.poller_asset` for one with."""
    return Asset(name or uri, uri, extra=extra or {})
