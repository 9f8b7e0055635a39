"""Source files of a compiled kernel: its module, and all modules that this imports."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
#: The compiler of all kernels, which is imported late.
_COMPILER = Path(__file__).with_name("compiling.py")
#: Imports within the package at the top level of a module; others are for types, or late.
_IMPORT = re.compile(
    rf"^(?:from\s+({_PACKAGE.name}[\w.]*)\s+import\s+(\([^)]*\)|.*)|import\s+({_PACKAGE.name}[\w.]*))",
    re.MULTILINE,
)


@functools.cache
def digest(files: tuple[Path, ...]) -> str:
    """Hash source files, and the files of the package that they import."""
    found: set[Path] = set()
    waiting = [*files, _COMPILER]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting.extend(_imported(file))
    hashed = hashlib.sha256()
    for file in sorted(found):
        hashed.update(_read(file))
    return hashed.hexdigest()


def file_of(module: str) -> Path | None:
    """Return the source file of a module of the package; None if there is none."""
    path = _PACKAGE.parent.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


@functools.cache
def _read(file: Path) -> bytes:
    return file.read_bytes()


@functools.cache
def _imported(file: Path) -> tuple[Path, ...]:
    """Return the files of the package that a file imports at its top level."""
    return tuple(filter(None, map(file_of, _modules(_read(file).decode()))))


def _modules(source: str) -> Iterator[str]:
    """Return the names of imported modules, and names that may be modules or names in one."""
    for module, names, plain in _IMPORT.findall(source):
        yield module or plain
        for name in re.split(r"[(),]", names.partition("#")[0] if "(" not in names else names):
            if words := name.split():
                yield f"{module}.{words[0]}"
