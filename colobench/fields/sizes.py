"""Sizes in bytes in the form that users write: ``64M``."""

from __future__ import annotations

import re

from colobench.errors import LocalError
from colobench.fields.checks import show

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Read a size such as ``64M``, in bytes.

    Parameters
    ----------
    text
        Whole number, followed by nothing or by K, M or G. ``64M``, ``64MB``, ``64 MiB`` and
        ``64m`` are the same: as QEMU has it, a unit is 1024 of the one before.

    Raises
    ------
    LocalError
        If it is anything else.
    """
    found = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:([KMG])(?:I?B)?|B)?\s*", text, re.I | re.ASCII)
    if found is None:
        raise LocalError(f"size: expected a number such as 64M, found {show(text)}")
    return int(found[1]) * _UNITS[(found[2] or "").upper()]


def write_size(size: int) -> str:
    """Write a number of bytes in the shortest form that `parse_size` reads."""
    for unit in "GMK":
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)
