"""The packages, made once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packages.clean import make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Both, of the same moment."""
    return make(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def wheel(made: tuple[Path, Path]) -> Path:
    """The wheel."""
    return made[0]


@pytest.fixture(scope="session")
def sdist(made: tuple[Path, Path]) -> Path:
    """The source distribution."""
    return made[1]
