"""Blocks: what is secret, under a name that a flow may say aloud.

Guarantees: passwords, keys and the state's URL are secrets to Prefect, which keeps them
encrypted and shows stars; what is made of a block goes to the poller and nowhere else.

Not guaranteed: that who may read blocks through the API can't have them in clear
(``include_secrets``): that is Prefect's to guard.
"""

from __future__ import annotations

from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from poller_core import Options, check_credentials, check_state
from poller_core.hosts import CREDENTIALS, SWIFT_OPTIONS

__all__ = ["RETENTION", "RETENTION_UNREAD", "PollerState", "SwiftCredentials"]

#: The engine's, so that whoever looks prunes alike; seconds.
RETENTION = Options.retention
RETENTION_UNREAD = Options.retention_unread


class PollerState(Block):
    """Where pollers remember: snapshot, journal, consumers and claims.

    ``PollerState(url="postgresql+psycopg://user:password@host/database").save("production")``, and then
    ``poll_flow(url, state="production")``. The block named ``default`` is used where none is named.
    """

    _block_type_name: ClassVar[str] = "Poller State"
    _block_type_slug: ClassVar[str] = "poller-state"
    _description: ClassVar[str] = "Where pollers remember what they have seen and what was done with it."

    url: SecretStr = Field(
        title="URL",
        description="postgresql+psycopg://user:password@host/database, for several machines, or "
        "sqlite:////var/lib/poller/state.db, for one",
    )
    retention: float = Field(
        default=RETENTION, ge=0, description="Seconds for which events are kept that everybody has had"
    )
    retention_unread: float = Field(
        default=RETENTION_UNREAD,
        ge=0,
        description="Seconds for which events are kept that a consumer has not had",
    )

    def check(self) -> str:
        """Open the state as a poller would, changing nothing; what there is to say of it.

        :raises PollerError: if it can't be used.
        """
        return check_state(self.url.get_secret_value())


class SwiftCredentials(Block):
    """With what to authenticate for containers: Keystone, application credentials, tokens, TempAuth.

    ``SwiftCredentials(auth_url="https://keystone.example.org:5000/v3", username="alice", password="…",
    project_name="demo").save("store")``, and then ``poll_flow(url, credentials="store")``.
    """

    _block_type_name: ClassVar[str] = "Poller Swift Credentials"
    _block_type_slug: ClassVar[str] = "poller-swift-credentials"
    _description: ClassVar[str] = "With what pollers authenticate for containers of OpenStack Swift."

    auth_url: str | None = Field(
        default=None,
        title="Keystone",
        description="https://keystone.example.org:5000/v3, or of TempAuth https://swift.example.org/auth/v1.0",
    )
    username: str | None = Field(default=None, description="Of Keystone, or account:user of TempAuth")
    password: SecretStr | None = Field(default=None, description="Of Keystone, or the key of TempAuth")
    project_name: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    project_domain_name: str | None = None
    project_domain_id: str | None = None
    application_credential_id: str | None = Field(default=None, description="The best way for a program")
    application_credential_name: str | None = None
    application_credential_secret: SecretStr | None = None
    token: SecretStr | None = None
    auth_type: str | None = Field(default=None, description="A plugin of keystoneauth1, such as v2password")
    identity_api_version: str | None = None
    cloud: str | None = Field(
        default=None, description="An entry of clouds.yaml where the flow runs, instead of all of the above"
    )
    region: str | None = None
    interface: str | None = None
    cacert: str | None = None
    insecure: bool | None = None
    timeout: float | None = None
    retries: int | None = None

    def options(self) -> dict[str, Any]:
        """What :func:`poller_core.make_poller` takes for it, in clear."""
        given = {name: _clear(getattr(self, name)) for name in type(self).model_fields}
        # A form that is left empty gives empty texts.
        given = {name: value for name, value in given.items() if value not in (None, "")}
        options = {name: given[name] for name in SWIFT_OPTIONS if name in given}
        names = ("auth_url", "username", "password", *CREDENTIALS)
        credentials = {name: str(given[name]) for name in names if name in given}
        if credentials:
            options["credentials"] = credentials
        return options

    def check(self) -> str:
        """Authenticate as a poller would; whom that makes one.

        :raises PollerError: if that is not accepted, or nobody answers.
        """
        return check_credentials(**self.options())


def _clear(value: object) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
