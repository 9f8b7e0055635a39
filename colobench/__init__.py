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
    from colobench.guest.settings import NondeterminismSettings as NondeterminismSettings
    from colobench.lab.checker.verdict import check_linearizability as check_linearizability
    from colobench.lab.clients.closed_loop import Clients as Clients
    from colobench.lab.cockpit.form import SettingsForm as SettingsForm
    from colobench.lab.compare.comparison import Comparison as Comparison
    from colobench.lab.compare.run import begin_comparison as begin_comparison
    from colobench.lab.compare.run import compare as compare
    from colobench.lab.compare.score import score as score
    from colobench.lab.compare.withdrawn import withdrawn_benchmark as withdrawn_benchmark
    from colobench.lab.course.glossary import glossary as glossary
    from colobench.lab.course.glossary import term as term
    from colobench.lab.course.lesson import exercise as exercise
    from colobench.lab.course.lesson import predict as predict
    from colobench.lab.course.score_sheet import scores as scores
    from colobench.lab.decode.decode import decode as decode
    from colobench.lab.miscompares.run import count_miscompares as count_miscompares
    from colobench.lab.reproductions.run import read_reproductions as read_reproductions
    from colobench.lab.reproductions.run import reproduce as reproduce
    from colobench.lab.session.disk_layers import query_disk as query_disk
    from colobench.lab.session.record import CheckpointRecord as CheckpointRecord
    from colobench.lab.session.record import Records as Records
    from colobench.lab.session.session import Session as Session
    from colobench.lab.strategy_table import strategy_table as strategy_table
    from colobench.lab.studies.broken_rules import broken_rules as broken_rules
    from colobench.lab.studies.broken_rules import explore_protocol as explore_protocol
    from colobench.lab.studies.checkpoint_causes import CauseTable as CauseTable
    from colobench.lab.studies.checkpoint_causes import provoke_miscompares as provoke_miscompares
    from colobench.lab.studies.console import ask as ask
    from colobench.lab.studies.console import redis_cli as redis_cli
    from colobench.lab.studies.flush_prediction import cached_pages as cached_pages
    from colobench.lab.studies.flush_prediction import hold_before_flush as hold_before_flush
    from colobench.lab.studies.latency import Latencies as Latencies
    from colobench.lab.studies.latency import measure_latency as measure_latency
    from colobench.lab.studies.protocol_tables import protocol_table as protocol_table
    from colobench.lab.studies.protocol_tables import protocol_tables as protocol_tables
    from colobench.lab.studies.real_vm import real_vm as real_vm
    from colobench.lab.studies.stage_table import probe_stages as probe_stages
    from colobench.lab.studies.stage_table import provoke_errors as provoke_errors
    from colobench.lab.studies.stage_table import section_types as section_types
    from colobench.lab.studies.state_walk import walk_states as walk_states
    from colobench.lab.studies.sweep import fit_layouts as fit_layouts
    from colobench.lab.studies.sweep import fit_line as fit_line
    from colobench.lab.studies.sweep import sweep as sweep
    from colobench.lab.studies.torn_checkpoint import cut_checkpoint as cut_checkpoint
    from colobench.lab.studies.tracker_table import tabulate_trackers as tabulate_trackers
    from colobench.lab.studies.trackers import compare_trackers as compare_trackers
    from colobench.lab.studies.transport_table import tabulate_transports as tabulate_transports
    from colobench.lab.studies.walkthrough import walkthrough as walkthrough
    from colobench.lab.torture.bug_hunt import hunt_bug as hunt_bug
    from colobench.lab.torture.bug_hunt import museum as museum
    from colobench.lab.torture.sectors_round import judge_sectors as judge_sectors
    from colobench.lab.torture.story import FailoverStory as FailoverStory
    from colobench.lab.torture.story import serving_pair as serving_pair
    from colobench.settings.checkpoint import Strategy as Strategy
    from colobench.settings.compare import CompareSettings as CompareSettings
    from colobench.settings.heartbeat import HeartbeatSettings as HeartbeatSettings
    from colobench.settings.settings import Settings as Settings

__version__ = "0.1.0"

_HOMES = {
    "section_types": "colobench.lab.studies.stage_table",
    "tabulate_transports": "colobench.lab.studies.transport_table",
    "provoke_errors": "colobench.lab.studies.stage_table",
    "probe_stages": "colobench.lab.studies.stage_table",
    "walk_states": "colobench.lab.studies.state_walk",
    "protocol_tables": "colobench.lab.studies.protocol_tables",
    "protocol_table": "colobench.lab.studies.protocol_tables",
    "explore_protocol": "colobench.lab.studies.broken_rules",
    "broken_rules": "colobench.lab.studies.broken_rules",
    "CauseTable": "colobench.lab.studies.checkpoint_causes",
    "CheckpointRecord": "colobench.lab.session.record",
    "Clients": "colobench.lab.clients.closed_loop",
    "ColobenchError": "colobench.errors",
    "Comparison": "colobench.lab.compare.comparison",
    "CompareSettings": "colobench.settings.compare",
    "FailoverStory": "colobench.lab.torture.story",
    "HeartbeatSettings": "colobench.settings.heartbeat",
    "Latencies": "colobench.lab.studies.latency",
    "LocalError": "colobench.errors",
    "NondeterminismSettings": "colobench.guest.settings",
    "Records": "colobench.lab.session.record",
    "RemoteError": "colobench.errors",
    "Session": "colobench.lab.session.session",
    "Settings": "colobench.settings.settings",
    "SettingsForm": "colobench.lab.cockpit.form",
    "Strategy": "colobench.settings.checkpoint",
    "ask": "colobench.lab.studies.console",
    "cached_pages": "colobench.lab.studies.flush_prediction",
    "hunt_bug": "colobench.lab.torture.bug_hunt",
    "begin_comparison": "colobench.lab.compare.run",
    "check_linearizability": "colobench.lab.checker.verdict",
    "compare": "colobench.lab.compare.run",
    "compare_trackers": "colobench.lab.studies.trackers",
    "exercise": "colobench.lab.course.lesson",
    "fit_layouts": "colobench.lab.studies.sweep",
    "fit_line": "colobench.lab.studies.sweep",
    "glossary": "colobench.lab.course.glossary",
    "hold_before_flush": "colobench.lab.studies.flush_prediction",
    "judge_sectors": "colobench.lab.torture.sectors_round",
    "measure_latency": "colobench.lab.studies.latency",
    "museum": "colobench.lab.torture.bug_hunt",
    "predict": "colobench.lab.course.lesson",
    "provoke_miscompares": "colobench.lab.studies.checkpoint_causes",
    "query_disk": "colobench.lab.session.disk_layers",
    "read_reproductions": "colobench.lab.reproductions.run",
    "real_vm": "colobench.lab.studies.real_vm",
    "redis_cli": "colobench.lab.studies.console",
    "reproduce": "colobench.lab.reproductions.run",
    "score": "colobench.lab.compare.score",
    "scores": "colobench.lab.course.score_sheet",
    "serving_pair": "colobench.lab.torture.story",
    "strategy_table": "colobench.lab.strategy_table",
    "sweep": "colobench.lab.studies.sweep",
    "tabulate_trackers": "colobench.lab.studies.tracker_table",
    "term": "colobench.lab.course.glossary",
    "count_miscompares": "colobench.lab.miscompares.run",
    "decode": "colobench.lab.decode.decode",
    "cut_checkpoint": "colobench.lab.studies.torn_checkpoint",
    "walkthrough": "colobench.lab.studies.walkthrough",
    "withdrawn_benchmark": "colobench.lab.compare.withdrawn",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
