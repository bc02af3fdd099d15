"""Wheel and source distribution: what is in them, and what they say of themselves."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from poller_core import __version__
from tests.packages.clean import ROOT, make

PACKAGES = {
    "poller_core": ROOT,
    "poller_airflow": ROOT / "integrations",
    "poller_prefect": ROOT / "integrations",
}
NAME = f"poller_core-{__version__}"
INFO = f"{NAME}.dist-info"


def modules() -> Iterator[str]:
    """All that is to be installed, relative to where."""
    for package, folder in PACKAGES.items():
        yield f"{package}/py.typed"
        for path in (folder / package).rglob("*.py"):
            yield str(path.relative_to(folder))


def git(*args: str) -> set[str]:
    """The names that git tells, of files that are there."""
    done = subprocess.run(
        ["git", "ls-files", "-z", *args], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Metadata:
    """What the wheel says of itself; an error where it breaks a rule."""
    with zipfile.ZipFile(wheel) as archive:
        return Metadata.from_email(archive.read(f"{INFO}/METADATA"), validate=True)


def test_the_wheel_has_the_packages_and_nothing_else(wheel: Path) -> None:
    about = {
        f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert set(names) == {*modules(), *about}
        assert "Tag: py3-none-any" in archive.read(f"{INFO}/WHEEL").decode()
        assert archive.read(f"{INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        for name in modules():
            folder = PACKAGES[name.partition("/")[0]]
            assert archive.read(name) == (folder / name).read_bytes()


def test_the_source_distribution_has_what_the_repository_has(sdist: Path) -> None:
    """A file that is new and not committed yet may be in it or not."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: nobody knows what belongs to it")
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
        modes = {member.name: member.mode for member in archive.getmembers()}
    tracked, new = git(), git("--others", "--exclude-standard")
    assert tracked - names == set()
    assert names - tracked - new == {"PKG-INFO"}
    assert modes[f"{NAME}/.ci/run"] & 0o100


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        # Not as an argument, which Python knows from 3.11.4 on only.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    again, source = make(tmp_path / "out", tmp_path / NAME)
    assert (again.name, source.name) == (wheel.name, sdist.name)
    assert again.read_bytes() == wheel.read_bytes()


def test_what_it_says_of_itself(metadata: Metadata) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata.name, str(metadata.version)) == ("poller-core", __version__)
    assert metadata.summary == project["description"]
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.license_files == ["LICENSE"]
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.provides_extra == ["airflow", "clouds", "postgres", "prefect", "swift"]
    assert {one.name for one in metadata.requires_dist or [] if "extra" not in str(one.marker)} == {
        re.split(r"[^\w-]", line)[0].replace("_", "-") for line in project["dependencies"]
    }
    # There is no public address yet; one that leads nowhere is worse than none.
    assert not metadata.project_urls


def test_the_description_is_the_readme_without_links_into_the_repository(metadata: Metadata) -> None:
    text = metadata.description
    assert text is not None
    assert metadata.description_content_type == "text/markdown"
    readme = (ROOT / "README.md").read_text()
    outside = re.findall(r"\]\((https?:[^)]*)\)", readme)
    assert (
        re.findall(r"\]\(([^)]*)\)", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
        == outside
    )
    assert "promises (`docs/promises.md`)" in text
    # Headings, examples and tables are as they are.
    for pattern in (r"^#+ .*$", r"^```.*?^```$", r"^\|[-|]*$"):
        flags = re.DOTALL | re.MULTILINE if "```" in pattern else re.MULTILINE
        assert re.findall(pattern, text, flags) == re.findall(pattern, readme, flags)


def test_entry_points_lead_somewhere(wheel: Path) -> None:
    """Those of Airflow and Prefect are loaded by them: here they are looked up in the wheel."""
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        parser.read_string(archive.read(f"{INFO}/entry_points.txt").decode())
        found = {(group, name): value for group in parser.sections() for name, value in parser[group].items()}
        assert set(found) == {
            ("console_scripts", "poller"),
            ("apache_airflow_provider", "provider_info"),
            ("airflow.policy", "poller"),
            ("prefect.collections", "poller"),
        }
        for value in found.values():
            module, _, function = value.partition(":")
            path = module.replace(".", "/")
            there = {f"{path}.py", f"{path}/__init__.py"} & set(archive.namelist())
            assert there
            if function and path.startswith("poller_core"):
                assert callable(getattr(importlib.import_module(module), function))
            elif function:
                assert f"def {function}(" in archive.read(there.pop()).decode()
