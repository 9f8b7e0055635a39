"""Notebooks and documents: their place, and copies of them for users of the installed package."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from colobench.errors import LocalError

#: First page of JupyterLab, below the directory that it serves.
INDEX = "notebooks/00_index.ipynb"
#: The cockpit, which is also a page of its own.
COCKPIT = "notebooks/90_dashboard.ipynb"
#: Default directory of a copy.
DIRECTORY = "colobench-notebooks"
#: Place of the files in the wheel.
MATERIAL = "colobench/material"
#: Patterns of the files; the targets of all links in notebooks and documents are among them.
_FILES = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"),
    *("notebooks/*.ipynb", "docs/*.md", "docs/*.png", "docs/*.svg"),
    *("docs/*.ipynb", "datasets/*/*"),
)
_PACKAGE = Path(__file__).resolve().parents[1]
#: Directory of the settings that JupyterLab begins with; a user may change them as usual.
JUPYTER = _PACKAGE / "lab/jupyter"


@dataclass(frozen=True, slots=True)
class Copied:
    """Result of a copy.

    Attributes
    ----------
    directory
        Directory of the copy.
    new
        Number of files written.
    kept
        Files that were there and differ from the package's, relative to `directory`.
    """

    directory: Path
    new: int
    kept: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"notebooks and documents are in {self.directory} ({self.new} files written)"]
        if self.kept:
            lines.append(
                f"kept as they are, for they are not this version's: {', '.join(self.kept)}; "
                "another directory gets this version's"
            )
        return "\n".join(lines)


def served_in_place() -> Path | None:
    """Find notebooks that need no copy: those here, or the clone's; None if there are none."""
    for directory in (Path.cwd(), _PACKAGE.parent):
        if (directory / INDEX).is_file():
            return directory
    return None


def find_material() -> Path:
    """Find the package's notebooks, documents and datasets, in the wheel or in the clone.

    Raises
    ------
    LocalError
        If the package has none.
    """
    for directory in (_PACKAGE.parent / MATERIAL, _PACKAGE.parent):
        if (directory / INDEX).is_file():
            return directory
    raise LocalError(
        f"notebooks: expected {INDEX} in {_PACKAGE.parent / MATERIAL}, found none; install "
        "colobench anew, or start in a directory that has them"
    )


def copy_material(directory: Path) -> Copied:
    """Copy the package's notebooks and documents; what is there already is never written to.

    Parameters
    ----------
    directory
        Target; it is made if it is missing.

    Raises
    ------
    LocalError
        If the package has none, or the directory cannot be written.
    """
    material = find_material()
    new, kept = 0, []
    try:
        for source in files_of(material):
            target = directory / source.relative_to(material)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                new += 1
            elif target.read_bytes() != source.read_bytes():
                kept.append(str(target.relative_to(directory)))
    except OSError as error:
        raise LocalError(
            f"notebooks: expected a directory that can be written, found {directory}: "
            f"{error.strerror}; name another one by --directory"
        ) from error
    return Copied(directory.resolve(), new, tuple(kept))


def files_of(root: Path) -> list[Path]:
    """Give the files that a wheel has beside the code, of a clone or of the package."""
    return sorted(path for pattern in _FILES for path in root.glob(pattern) if path.is_file())
