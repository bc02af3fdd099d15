"""What to say where a host can't be imported.

Guarantees: an error that has another cause is given back as it is.
"""

from __future__ import annotations

import importlib.metadata
import sys

__all__ = ["not_installed"]


def not_installed(error: ImportError, module: str, package: str, oldest: str) -> ImportError:
    """The error for an adapter whose host is not there, or is too old.

    :param error: what importing the host has raised.
    :param module: the host's module, such as ``airflow``.
    :param package: its package, such as ``apache-airflow-core``.
    :param oldest: the oldest release that serves.
    """
    if (error.name or "").partition(".")[0] != module:
        return error
    try:
        there = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        what = "it is not installed"
    else:
        if _numbers(there) >= _numbers(oldest):
            return error
        what = f"{there} is installed"
    return ModuleNotFoundError(
        f"poller_{module} needs {module.capitalize()} {oldest} or newer, and {what} for {sys.executable}: "
        f"pip install 'poller-core[{module}]'",
        name=error.name,
    )


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdecimal() else 0 for part in version.split(".")[:3]]
