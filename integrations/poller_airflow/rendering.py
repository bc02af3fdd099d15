"""What tasks that name a URL and a state share: they look at what their templates became.

Guarantees: a secret that a template brought fails the task before Airflow stores what the
template became. Apart from what triggers need, which run no task and render nothing.

Not guaranteed: anything for mapped tasks, which Airflow renders in its own way; theirs are
refused when the target is opened.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from .secrets import refuse_secrets
from .watching import as_airflow_has_it

__all__ = ["RendersNoSecret"]


class RendersNoSecret(BaseOperator):
    """A task that has a URL and a state, of which each may be a template."""

    url: Any
    state: Any

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render templates, and refuse what they have become before Airflow stores that."""
        super().render_template_fields(context, jinja_env)
        with as_airflow_has_it():
            refuse_secrets(self.url, self.state)
