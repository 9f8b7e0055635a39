"""colobench: a Jupyter-first research workbench for COLO, QEMU's coarse-grain lock-stepping.

>>> import colobench as cb
>>> with cb.Session() as session:
...     session.run(10)

Importing it is quick: numba and bokeh are imported when something needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colobench.errors import ColobenchError as ColobenchError
    from colobench.errors import LocalError as LocalError
    from colobench.errors import RemoteError as RemoteError
    from colobench.lab.flush import cached_pages as cached_pages
    from colobench.lab.flush import hold_before_flush as hold_before_flush
    from colobench.lab.record import CheckpointRecord as CheckpointRecord
    from colobench.lab.record import Records as Records
    from colobench.lab.session import Session as Session
    from colobench.lab.steps import walk as walk
    from colobench.lab.sweep import fit_layouts as fit_layouts
    from colobench.lab.sweep import fit_line as fit_line
    from colobench.lab.sweep import sweep as sweep
    from colobench.lab.torn import tear as tear
    from colobench.lab.tracker_table import tabulate_trackers as tabulate_trackers
    from colobench.lab.trackers import compare_trackers as compare_trackers

__version__ = "0.1.0"

_HOMES = {
    "CheckpointRecord": "colobench.lab.record",
    "ColobenchError": "colobench.errors",
    "LocalError": "colobench.errors",
    "Records": "colobench.lab.record",
    "RemoteError": "colobench.errors",
    "Session": "colobench.lab.session",
    "cached_pages": "colobench.lab.flush",
    "compare_trackers": "colobench.lab.trackers",
    "fit_layouts": "colobench.lab.sweep",
    "fit_line": "colobench.lab.sweep",
    "hold_before_flush": "colobench.lab.flush",
    "sweep": "colobench.lab.sweep",
    "tabulate_trackers": "colobench.lab.tracker_table",
    "tear": "colobench.lab.torn",
    "walk": "colobench.lab.steps",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
