"""colobench: a Jupyter-first research workbench for COLO, QEMU's coarse-grain lock-stepping.

>>> import colobench as cb
>>> with cb.Session() as session:
...     session.run(10)

Importing it is quick: numba and bokeh are imported when something needs them.
"""

from __future__ import annotations

# As `typing.TYPE_CHECKING`, without the time that its import takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from colobench.errors import ColobenchError as ColobenchError
    from colobench.errors import LocalError as LocalError
    from colobench.errors import RemoteError as RemoteError
    from colobench.guest.configuration import Nondeterminism as Nondeterminism
    from colobench.lab.ask import ask as ask
    from colobench.lab.ask import redis_cli as redis_cli
    from colobench.lab.catch import catch as catch
    from colobench.lab.catch import museum as museum
    from colobench.lab.causes import CauseTable as CauseTable
    from colobench.lab.causes import provoke as provoke
    from colobench.lab.clients import Clients as Clients
    from colobench.lab.failover_story import FailoverStory as FailoverStory
    from colobench.lab.failover_story import serving_pair as serving_pair
    from colobench.lab.flush import cached_pages as cached_pages
    from colobench.lab.flush import hold_before_flush as hold_before_flush
    from colobench.lab.latency import Latencies as Latencies
    from colobench.lab.latency import measure_latency as measure_latency
    from colobench.lab.outside import Heartbeat as Heartbeat
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
    from colobench.lab.verdict import check as check
    from colobench.net.compare_settings import CompareSettings as CompareSettings

__version__ = "0.1.0"

_HOMES = {
    "CauseTable": "colobench.lab.causes",
    "CheckpointRecord": "colobench.lab.record",
    "Clients": "colobench.lab.clients",
    "ColobenchError": "colobench.errors",
    "CompareSettings": "colobench.net.compare_settings",
    "FailoverStory": "colobench.lab.failover_story",
    "Heartbeat": "colobench.lab.outside",
    "Latencies": "colobench.lab.latency",
    "LocalError": "colobench.errors",
    "Nondeterminism": "colobench.guest.configuration",
    "Records": "colobench.lab.record",
    "RemoteError": "colobench.errors",
    "Session": "colobench.lab.session",
    "ask": "colobench.lab.ask",
    "cached_pages": "colobench.lab.flush",
    "catch": "colobench.lab.catch",
    "check": "colobench.lab.verdict",
    "compare_trackers": "colobench.lab.trackers",
    "fit_layouts": "colobench.lab.sweep",
    "fit_line": "colobench.lab.sweep",
    "hold_before_flush": "colobench.lab.flush",
    "measure_latency": "colobench.lab.latency",
    "museum": "colobench.lab.catch",
    "provoke": "colobench.lab.causes",
    "redis_cli": "colobench.lab.ask",
    "serving_pair": "colobench.lab.failover_story",
    "sweep": "colobench.lab.sweep",
    "tabulate_trackers": "colobench.lab.tracker_table",
    "tear": "colobench.lab.torn",
    "walk": "colobench.lab.steps",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
