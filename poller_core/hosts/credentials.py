"""The names under which a host keeps what a Swift poller authenticates with.

Guarantees: each is an option of :class:`poller_core.SwiftPoller`, or a part of its
``credentials``, under the name that it has there.

Not guaranteed: that these are all; what a host has fields of its own for (user, password,
the address of Keystone) is named by its adapter.
"""

from __future__ import annotations

__all__ = ["CREDENTIALS", "SWIFT_OPTIONS"]

#: Parts of ``credentials``, named as the ``OS_*`` variables are.
CREDENTIALS = (
    "auth_type",
    "project_name",
    "project_id",
    "user_id",
    "user_domain_name",
    "user_domain_id",
    "project_domain_name",
    "project_domain_id",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "token",
    "identity_api_version",
)
#: Options of the Swift poller that belong to a cloud rather than to a container.
SWIFT_OPTIONS = ("cloud", "region", "interface", "cacert", "insecure", "timeout", "retries")
