"""Runs as files: JSON with whole settings, CSV, and a Python cell that repeats one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from colobench.errors import LocalError
from colobench.fields.part import settings_of
from colobench.lab.cockpit.run import EVERY_MS, CockpitRun
from colobench.lab.session.record import COLUMNS
from colobench.processes.hostinfo import name_machine
from colobench.settings.file import KEY
from colobench.settings.settings import Settings

#: What JSON has of a takeover.
_OF_TAKEOVER = ("role", "checkpoint", "takeover_ms", "equal")


def runs_as_json(runs: Sequence[CockpitRun]) -> str:
    """Write runs as JSON: the ``machine``, and under ``runs`` an object for each.

    Each has its ``name`` and whole ``settings``, so that ``colobench run --settings FILE#2`` and
    ``colobench demo --settings FILE#2`` repeat the second; ``seconds`` of the measured time;
    ``records``, one for each checkpoint in it; ``latencies_ms``; ``memory``; ``predicted`` figures;
    and the ``takeover``.
    """
    return json.dumps({"machine": name_machine(), "runs": [_as_json(each) for each in runs]})


def _as_json(run: CockpitRun) -> dict[str, Any]:
    takeover = run.takeover
    return {
        "name": run.name,
        KEY: run.settings.as_json(),
        "seconds": run.elapsed,
        "stage": run.stage.value,
        "error": run.error or None,
        "work_per_s_unprotected": run.underway.work_per_s,
        "records": [{name: getattr(record, name) for name in COLUMNS} for record in run.records()],
        "latencies_ms": run.underway.latencies(),
        "memory": [
            {"seconds": each.seconds, "role": each.role, "resident_bytes": each.resident_bytes}
            for each in list(run.usage)
        ],
        "predicted": run.predicted,
        "takeover": None
        if takeover is None
        else {name: getattr(takeover, name) for name in _OF_TAKEOVER},
    }


def runs_as_csv(runs: Sequence[CockpitRun]) -> str:
    """Write all checkpoints as CSV: a line for each, which begins with the name of its run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *COLUMNS])
    for run in runs:
        for record in run.records():
            writer.writerow([run.name, *(getattr(record, name) for name in COLUMNS)])
    return text.getvalue()


def changed_settings(settings: Settings) -> dict[str, Any]:
    """Give the settings that differ from the usual ones, as keywords of `Session`.

    Those that follow from others are left out, as they would again.
    """
    # As JSON has them: names of quirks, for example, are texts then, which Python reads again.
    usual, found = (json.loads(json.dumps(each.as_json())) for each in (Settings(), settings))
    changes = {name: value for name, value in found.items() if value != usual[name]}
    derived = {each.name for each in settings_of(Settings) if each.derived}
    for name in sorted(changes, key=lambda name: name not in derived):
        rest = {key: value for key, value in changes.items() if key != name}
        if _make_the_same(rest, found):
            changes = rest
    return changes


def _make_the_same(changes: dict[str, Any], settings: dict[str, Any]) -> bool:
    try:
        return Settings().override_by(changes).as_json() == settings
    except LocalError:
        return False


def repeat_cell(run: CockpitRun) -> str:
    """Write a Python cell that repeats a run: the same settings, and as many checkpoints."""
    changes = changed_settings(run.settings)
    keywords = ", ".join(f"{name}={each!r}" for name, each in changes.items())
    checkpoints = max(1, len(run.records()))
    lines = ["import colobench as cb", "", f"# {' '.join(run.name.split())}"]
    if run.serves:
        lines[1:1] = ["from colobench.lab.compare.load import asking_clients"]
        seconds = max(1.0, run.elapsed)
        lines += [
            f"with cb.Session({keywords}) as session:",
            f"    with asking_clients(session.address(), {seconds:.1f}, {EVERY_MS}) as answers:",
            f"        records = session.run({checkpoints})",
            "latencies = sorted(each.latency_ms for each in answers)",
            'print(f"median latency {latencies[len(latencies) // 2]:.2f} ms")',
        ]
    else:
        lines += [
            f"with cb.Session({keywords}) as session:",
            f"    records = session.run({checkpoints})",
        ]
    lines.append("print(records, f\"median pause {records.percentile('pause_ms', 50):.2f} ms\")")
    return "\n".join(lines) + "\n"
