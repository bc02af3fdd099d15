"""How the pages are built: ``make docs``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "dags_examples"
# Airflow makes its home when it is imported.
os.environ.setdefault("AIRFLOW_HOME", str(HERE.parent / "build" / "airflow"))

import typer  # noqa: E402

from poller_core import __version__  # noqa: E402
from poller_core.cli import app as cli  # noqa: E402

project = "poller-core"
author = project_copyright = "the authors of poller-core"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
# Options and what a poll found are both called "events"; a docstring that says so means neither.
suppress_warnings = ["ref.python"]
html_theme = "furo"
html_title = f"poller-core {release}"
html_copy_source = False
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config, model_post_init",
}
python_use_unqualified_type_names = True


def command_line() -> str:
    """The reference of the command, from the program itself."""
    from typer.cli import get_docs_for_click

    command = typer.main.get_command(cli)
    context = typer.Context(command, info_name="poller")
    text = get_docs_for_click(obj=command, ctx=context, name="poller", title="The poller command")
    # A paragraph behind a backspace is one that is not to be wrapped: examples, all of them.
    text = re.sub(
        r"^\x08\n((?: .*\n)+)", lambda found: f"```sh\n{dedent(found[1])}```\n", text, flags=re.MULTILINE
    )
    # Options in sentences; there they would be taken for dashes.
    text = re.sub(r"'(poller[^'\n]*)'", r"`\1`", text)
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)
    parts[::2] = [re.sub(r"(?<!\w)--?[a-z][\w-]*", r"`\g<0>`", part) for part in parts[::2]]
    text = "".join(parts)
    # In its list of the commands their descriptions end in the middle.
    for name, one in getattr(command, "commands", {}).items():
        first = " ".join((one.help or "").split("\n\n")[0].split())
        text = text.replace(f"* `{name}`: ", f"* `{name}`: {first}\n\n\0", 1)
    return re.sub(r"\n\n\0.*", "", text)


def examples() -> str:
    """A page with all examples, as they are."""
    parts = ["# Examples\n\nEach of them runs as it stands, and is run by the tests.\n"]
    for host in ("airflow", "prefect"):
        parts.append(f"## {host.capitalize()}\n")
        for path in sorted((EXAMPLES / host).iterdir()):
            if path.suffix in (".py", ".yaml"):
                language = "python" if path.suffix == ".py" else "yaml"
                parts.append(f"(example-{host}-{path.stem})=\n\n### {path.name}\n")
                parts.append(f"```{language}\n{path.read_text()}```\n")
    return "\n".join(parts)


def write(app: Any) -> None:
    """Write the pages that are made, before pages are read."""
    for name, text in (("command.md", command_line()), ("examples.md", examples())):
        path = HERE / "reference" / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def to_examples(app: Any, page: str, source: list[str]) -> None:
    """Links to the examples' files lead to their page."""
    text = re.sub(
        r"\]\((?:\.\./)+dags_examples/(airflow|prefect)/(\w+)\.(?:py|yaml)\)", r"](#example-\1-\2)", source[0]
    )
    here = "" if page.startswith("reference/") else "../" * page.count("/") + "reference/"
    source[0] = re.sub(
        r"\]\((?:\.\./)+dags_examples/README\.md(#\w+)?\)",
        lambda found: f"]({here}examples.md{found[1] or ''})",
        text,
    )


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("builder-inited", write)
    app.connect("source-read", to_examples)
