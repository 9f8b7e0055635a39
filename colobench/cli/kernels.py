"""Compiling all kernels, with its progress."""

from __future__ import annotations

from colobench.lab.compilation import compile_with_bar
from colobench.node.kernels import all_kernel_modules


def compile_all_kernels() -> int:
    """Compile all kernels that are not in the cache, with a bar; return their number."""
    from colobench.kernels.warmup import kernels_in

    modules = all_kernel_modules()
    compile_with_bar(modules)
    return len(kernels_in(modules))
