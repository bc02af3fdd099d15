"""``MessageQueueTrigger(scheme="poller", …)``: the event trigger under Airflow's common name for queues."""

from __future__ import annotations

from airflow.providers.common.messaging.providers.base_provider import BaseMessageQueueProvider
from airflow.triggers.base import BaseEventTrigger

from .triggers import PollerEventTrigger

__all__ = ["PollerMessageQueueProvider"]


class PollerMessageQueueProvider(BaseMessageQueueProvider):
    """Makes a :class:`~poller_airflow.PollerEventTrigger` of a ``MessageQueueTrigger``."""

    scheme = "poller"

    def trigger_class(self) -> type[BaseEventTrigger]:
        """The trigger."""
        return PollerEventTrigger
