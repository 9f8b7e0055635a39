"""Calls parts of kernels from Python, which by themselves have no entry for it."""

from __future__ import annotations

from typing import Any

import numba


def from_python(part: Any) -> Any:
    """Make a function out of a part that `colobench.kernels.jit.inlined` has compiled."""
    return numba.njit(lambda *arguments: part(*arguments))
