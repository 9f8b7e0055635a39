"""All reproductions by name, in the order in which they are shown."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from colobench.errors import LocalError
from colobench.lab.reproductions.reproduction import Reproduction

_MODULES = ("pauses", "intervals", "adaptive", "overhead", "comparing", "contents", "kernels")


def reproductions() -> dict[str, Reproduction]:
    """Give every reproduction by its name."""
    found: dict[str, Reproduction] = {}
    for name in _MODULES:
        module = importlib.import_module(f"colobench.lab.reproductions.claims.{name}")
        found |= {each.name: each for each in module.CLAIMS}
    return found


def chosen(names: Sequence[str]) -> list[Reproduction]:
    """Give the reproductions of some names, without names all.

    Raises
    ------
    LocalError
        If a name is unknown.
    """
    known = reproductions()
    for name in names:
        if name not in known:
            raise LocalError(f"reproduce: expected one of {', '.join(known)}, found {name!r}")
    return [known[name] for name in names or known]
