"""Kernels are compiled before anything is timed, with a bar if that takes long."""

from __future__ import annotations

from collections.abc import Sequence

from colobench.lab.progress import bar
from colobench.node.kernels import compile_kernels


def compile_with_bar(modules: Sequence[str]) -> None:
    """Have the kernels of modules in the cache, see `colobench.node.kernels.kernel_modules`."""
    with bar("compiling", "kernels") as progress:
        compile_kernels(modules, lambda step: progress(step.done, step.total))
