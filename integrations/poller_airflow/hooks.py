"""``PollerHook``: pollers with the credentials and state of an Airflow connection.

Guarantees: *Test* in the connection's form sends what a poller would send, opens the
state that a poller would open, changes nothing, and shows no secret.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from poller_core import InvalidOption, PollerError, check_credentials, check_state
from poller_core.hosts import refuse_own_state

from .connections import poller_options
from .settings import STATE, settings
from .watching import Watching

__all__ = ["PollerHook"]


class PollerHook(BaseHook):
    """Pollers for tasks of one's own, and claims for who has to mend something. ::

        hook = PollerHook("my_store")
        with hook.get_poller("swift://?inbox", consumer="mine") as poller:
            for event in poller.claim("run-7"):
                print(event.event, event.name)

    :param poller_conn_id: a connection of the type ``poller``; None: only files, with the state that
        Airflow's configuration names.
    """

    conn_name_attr = "poller_conn_id"
    default_conn_name = "poller_default"
    conn_type = "poller"
    hook_name = "Poller"

    def __init__(self, poller_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.poller_conn_id = poller_conn_id

    def get_poller(
        self, url: str, *, consumer: str = "default", state: str | None = None, **options: Any
    ) -> Any:
        """A poller as the sensor would make it; close it, or use it as a context manager.

        :raises PollerError: for whatever stands in the way.
        """
        return Watching(url, consumer, self.poller_conn_id, state, options).open()

    def get_conn(self) -> dict[str, Any]:
        """What the connection says, as keyword arguments for ``poller_core.make_poller``. Holds secrets."""
        options = {"state": settings().state}
        if self.poller_conn_id is not None:
            options |= poller_options(self.get_connection(self.poller_conn_id))
        return options

    def claims(self, url: str, *, consumer: str, **options: Any) -> list[tuple[str, int]]:
        """Which runs have how many of a consumer's events: ``(token, count)``, oldest first.

        A token is ``<dag id>/<run id>/<task id>``.
        """
        with self.get_poller(url, consumer=consumer, **options) as poller:
            return [(claim.token, claim.count) for claim in poller.claims()]

    def release(self, url: str, token: str, *, consumer: str, **options: Any) -> int:
        """Give the events of a run back to the consumer, whose next ones they are; how many.

        For the claim of a run that was deleted.

        :raises UnknownClaim: if there is no such claim.
        """
        with self.get_poller(url, consumer=consumer, **options) as poller:
            count: int = poller.release(token)
            return count

    def test_connection(self) -> tuple[bool, str]:
        """Whether the state can be opened and the credentials are accepted, in words."""
        try:
            options = self.get_conn()
            state = options.pop("state")
            refuse_own_state(state, STATE)
            said = [check_state(state)]
            if "credentials" in options and "auth_url" not in options["credentials"]:
                raise InvalidOption(
                    "host: there are credentials, and no address to try them at; expected that of Keystone, "
                    "such as https://keystone.example.org:5000/v3"
                )
            if "credentials" in options or "cloud" in options:
                said.append(check_credentials(**options))
            else:
                said.append("no credentials: for files only")
        except PollerError as error:
            return False, str(error)
        return True, "; ".join(said)
