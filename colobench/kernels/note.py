"""Note next to the kernels' cache with its contents, which a session reads without numba.

The note may be wrong if files were removed: then a node compiles before it starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from colobench.kernels import sources
from colobench.kernels.cache_directory import SOURCES, VARIABLE

_PREFIX = "colobench-compiled-"


def is_noted(modules: Sequence[str]) -> bool:
    """Say whether the kernels of these modules were compiled in the present circumstances."""
    return _path(modules).exists()


def note(modules: Sequence[str]) -> None:
    """Note that the kernels of these modules are in the cache; an older note is removed."""
    path = _path(modules)
    with contextlib.suppress(OSError):
        path.touch()
        for other in path.parent.glob(f"{path.name.rpartition('-')[0]}-*"):
            if other != path:
                other.unlink()


def _path(modules: Sequence[str]) -> Path:
    """Return the note's path, which has the modules and the circumstances in its name."""
    directory = os.environ.get(VARIABLE) or SOURCES[0] / "__pycache__"
    of = hashlib.sha256(" ".join(modules).encode()).hexdigest()[:16]
    return Path(directory, f"{_PREFIX}{of}-{_circumstances(modules)}")


def _circumstances(modules: Sequence[str]) -> str:
    """Hash all that kernels depend on: sources, versions, processor, numba's settings."""
    words = [sources.digest(tuple(filter(None, map(sources.file_of, modules))))]
    words += [sys.version, platform.machine(), _processor()]
    words += sorted(f"{name}={value}" for name, value in os.environ.items() if "NUMBA" in name)
    for package in ("numba", "llvmlite"):
        with contextlib.suppress(PackageNotFoundError):
            words.append(version(package))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return the lines of /proc/cpuinfo that name the processor and its features."""
    names = ("model name", "flags", "Features", "CPU part")
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        return "".join(sorted({line for line in lines if line.startswith(names)}))
    return ""
