"""What a package index shows of this package: README.md, with links that lead somewhere.

Links from one file of the repository to another are dead there, and no public address of the repository is
known that they could be made to lead to. So each becomes its text and the name of the file, which is in the
source distribution. Hatchling calls this when it makes the metadata.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:)([^)\s]+)\)")
_NOTE = "(Files that are named here, such as `docs/promises.md`, are in the source distribution.)"


def described(readme: str) -> str:
    """The text with every relative link spelt out, and every picture left out."""

    def spelt(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        path = target.partition("#")[0]
        return text if picture or not path else f"{text} (`{path}`)"

    return f"{_LINK.sub(spelt, readme)}\n{_NOTE}\n"


class Description(MetadataHookInterface):
    """Fills in ``readme``, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Give the description."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": described(text)}
