"""Results of a torture run as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from colobench.lab.torture.kill_results import PERCENTS, Summary
from colobench.lab.torture.settings import TortureSettings
from colobench.lab.torture.store_round import Judgement
from colobench.settings.file import KEY
from colobench.settings.settings import Settings


def render(summary: Summary, settings: TortureSettings) -> str:
    """Give the summary as lines for a terminal."""
    lines = [f"{summary.kills} kills, {summary.operations:,} operations checked"]
    for name, counts in summary.per_value.items():
        shares = ", ".join(f"{value} {count}" for value, count in sorted(counts.items()))
        lines.append(f"  by {name}: {shares}")
    limit = settings.limit_ms()
    times_of = {"running guest": summary.takeover_ms}
    if settings.serves:
        times_of = {
            "first answer": summary.takeover_ms,
            "answer to the last client": summary.every_ms,
        }
    for what, times in times_of.items():
        if times:
            shown = ", ".join(f"p{percent} {times[percent]:.0f}" for percent in times)
            lines.append(
                f"from the kill to the {what}: {shown} ms; p50 is "
                f"{times[50] / limit:.2f} × the heartbeat limit of {limit} ms"
            )
    lines += _of_disks(summary)
    bug = settings.pair.experiment.bug
    if bug is not None and summary.violations:
        lines.append(f"the bug {bug.value} was caught after {summary.kills} kills")
    found = len(summary.violations)
    lines.append(
        f"violations: {found or 'none'}; undecided {summary.undecided}, "
        f"without an answer {summary.without_answer}"
    )
    lines += [f"undecided, kill {kill.number}: {sentence}" for kill, sentence in summary.tried]
    return "\n".join(lines)


def _of_disks(summary: Summary) -> list[str]:
    """Give lines about the guest's disks, if it has any."""
    lines, counts = [], summary.under_way
    if counts:
        lines.append(
            f"requests to disks under way at the kill: {counts[0]} to {counts[-1]}, median "
            f"{counts[len(counts) // 2]}; none at {counts.count(0)} kills"
        )
    if summary.lost_ms:
        shown = ", ".join(f"p{percent} {summary.lost_ms[percent]:.0f}" for percent in PERCENTS)
        lines.append(f"answered writes are lost from the last milliseconds: {shown}")
    return lines


def as_json(summary: Summary, settings: TortureSettings) -> dict[str, Any]:
    """Give the summary as a JSON object."""
    return {
        "kills": summary.kills,
        "operations": summary.operations,
        "clean": summary.clean,
        "takeover_ms": dict(summary.takeover_ms),
        "every_ms": dict(summary.every_ms),
        "without_answer": summary.without_answer,
        "undecided": summary.undecided,
        "tried": [[kill.number, sentence] for kill, sentence in summary.tried],
        "violations": [[kill.number, sentence] for kill, sentence in summary.violations],
        "requests_under_way": list(summary.under_way),
        "lost_ms": dict(summary.lost_ms),
        "per_value": {name: dict(counts) for name, counts in summary.per_value.items()},
        **_settings(settings.pair, settings),
    }


def clean_as_json(
    checkpoints: int, judgements: Mapping[str, Judgement], settings: TortureSettings
) -> dict[str, Any]:
    """Give the judgements of a run without kills, by the way of output, as a JSON object."""
    return {
        "checkpoints": checkpoints,
        "clean": all(each.clean for each in judgements.values()),
        "outputs": {
            output: asdict(each) | _settings(settings.without_kills(output), settings)
            for output, each in judgements.items()
        },
    }


def _settings(pair: Settings, settings: TortureSettings) -> dict[str, Any]:
    return {KEY: pair.as_json(), "torture": settings.own_json()}
