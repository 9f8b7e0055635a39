"""``colobench warmup``: compile all kernels."""

from __future__ import annotations

import argparse

from colobench.cli.kernels import compile_all_kernels


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options: none."""


def run(options: argparse.Namespace) -> int:
    """Compile what is not in the cache."""
    print(f"{compile_all_kernels()} kernels are ready")
    return 0
