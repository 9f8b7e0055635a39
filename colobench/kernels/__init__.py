"""Hot loops, compiled by numba: arrays and integers in, integers out, nothing allocated, no GIL."""

from __future__ import annotations

import importlib

_MODULES = (
    "colobench.kernels.bitmap",
    "colobench.kernels.digest",
    "colobench.kernels.multifd",
    "colobench.kernels.pages",
    "colobench.kernels.tracking",
    "colobench.kernels.page_records",
    "colobench.kernels.socket_io",
    "colobench.kernels.xbzrle",
    "colobench.kernels.xbzrle_records",
    "colobench.guest.kv",
    "colobench.guest.tcp",
    "colobench.guest.programs",
)


def import_all() -> None:
    """Import every module with kernels in it, so that `colobench.kernels.jit.REGISTRY` is whole.

    The guest's programs are kernels too; they live above this room and are only named here.
    """
    for module in _MODULES:
        importlib.import_module(module)
