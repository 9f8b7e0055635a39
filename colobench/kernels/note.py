"""A note beside the kernels' cache says what is in it, so that a session knows without numba.

What it says may be wrong, if somebody took files away: then a node compiles before it begins.
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
    """Tell whether the kernels of these modules were compiled for what is here now."""
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
    """Give the note's path, which says of what modules it is, and what their kernels depend on."""
    directory = os.environ.get(VARIABLE) or SOURCES[0] / "__pycache__"
    of = hashlib.sha256(" ".join(modules).encode()).hexdigest()[:16]
    return Path(directory, f"{_PREFIX}{of}-{_circumstances(modules)}")


def _circumstances(modules: Sequence[str]) -> str:
    """Hash what kernels depend on: sources, versions, processor, numba's settings."""
    words = [sources.digest(tuple(filter(None, map(sources.file_of, modules))))]
    words += [sys.version, platform.machine(), _processor()]
    words += sorted(f"{name}={value}" for name, value in os.environ.items() if "NUMBA" in name)
    for package in ("numba", "llvmlite"):
        with contextlib.suppress(PackageNotFoundError):
            words.append(version(package))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _processor() -> str:
    """Give the lines of /proc/cpuinfo that name the processor and what it can do."""
    names = ("model name", "flags", "Features", "CPU part")
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        return "".join(sorted({line for line in lines if line.startswith(names)}))
    return ""
