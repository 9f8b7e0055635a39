"""What the build adds: notebooks and documents go into the wheel, and README's links with them.

A wheel has no clone beside it. So README on a package index may not link to files of the clone:
with a URL of the repository in `[project.urls]` it links there, and else it says where a file is in
the package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from colobench.lab.material import MATERIAL, files_of  # noqa: E402

_IMAGE = re.compile(r"!\[([^]]*)\]\((?!https?:)([^)]+)\)")
#: Package indexes give headings no names, so that a link to one leads nowhere.
_LINK_TO_HEADING = re.compile(r"(?<!!)\[([^]]*)\]\(#[^)]*\)")
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!https?:)([^)]+)\)")


def readme(text: str, repository: str | None) -> str:
    """Give README as a package index shows it, without a link that leads nowhere.

    Parameters
    ----------
    text
        README.
    repository
        The repository's URL; None if there is none.
    """
    text = _LINK_TO_HEADING.sub(r"\1", text)
    if repository is not None:
        base = repository.rstrip("/")
        text = _IMAGE.sub(rf"![\1]({base}/raw/HEAD/\2)", text)
        return _LINK.sub(rf"[\1]({base}/blob/HEAD/\2)", text)
    text = _IMAGE.sub(rf"*\1: `{MATERIAL}/\2`*", text)
    return _LINK.sub(rf"\1 (`{MATERIAL}/\2`)", text)


class CustomMetadataHook(MetadataHookInterface):
    """Gives the README of the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put README there."""
        urls = metadata.get("urls", {})
        text = (ROOT / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": readme(text, urls.get("Repository")),
        }


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts notebooks and documents into the wheel; an editable installation has the clone's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files."""
        if version != "editable":
            for path in files_of(ROOT):
                place = f"{MATERIAL}/{path.relative_to(ROOT)}"
                build_data["force_include"][str(path)] = place
