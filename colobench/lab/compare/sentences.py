"""A comparison in words: which strategy for this work, at what cost, and what is doubtful."""

from __future__ import annotations

from collections.abc import Sequence

from colobench.lab.compare.findings import DRIFT_LIMIT, Findings, Group, MetricRow
from colobench.lab.compare.judged import BOUNDS, Judge
from colobench.lab.compare.metrics import (
    BYTES,
    DEGRADATION,
    LATENCY,
    PAUSE,
    PRIMARY_MEMORY,
    SECONDARY_MEMORY,
    Metric,
    digits,
)
from colobench.lab.compare.statistics import (
    CONFIDENCE,
    FEW_ROUNDS,
    Estimate,
    chance_of_a_false_winner,
)


def waited_for(group: Group) -> Metric:
    """Give the metric of waiting: output latency if clients ask the guest, else the pause."""
    return LATENCY if group.serves else PAUSE


def verdicts(comparison: Findings) -> list[str]:
    """Answer, for each guest and link: which strategy, at what cost."""
    return [_verdict(group) for group in comparison.groups()]


def headline(comparison: Findings) -> str:
    """Answer in one line."""
    return "; ".join(_short(group) for group in comparison.groups())


def _short(group: Group) -> str:
    row = group.row(waited_for(group))
    if not row.best:
        return f"{group.name}: nothing was measured yet"
    if len(group.strategies) == 1:
        return f"{group.name}: {row.best[0]} alone was measured"
    if len(row.estimates) == 1:
        return f"{group.name}: only {row.best[0]} has a {_plain(row.metric)}"
    waiting = f"{row.metric.superlative} {_plain(row.metric)}{_of_some(row, group.strategies)}"
    if len(row.best) == 1:
        return f"{group.name}: {row.best[0]} has the {waiting}"
    if row.undecided:
        have = "has" if len(row.leaders) == 1 else "have"
        return f"{group.name}: after one round, {_list(row.leaders)} {have} the {waiting}"
    return f"{group.name}: {_list(row.best)} tie in the {waiting}"


def _of_some(row: MetricRow, strategies: Sequence[str]) -> str:
    """Say among how many strategies one is best, as long as others have no value."""
    found, all_ = len(row.estimates), len(strategies)
    return "" if found == all_ else f" of the {found} of {all_} strategies that have one"


def _verdict(group: Group) -> str:
    row = group.row(waited_for(group))
    if not row.best:
        return f"{group.name}: nothing was measured yet."
    sentences = [f"{_short(group)}: {_values(group, row.metric, row.best)}."]
    cost = group.row(DEGRADATION)
    if cost.estimates:
        sentences.append(_cost(group, row.best))
    if min(len(row.estimates), len(cost.estimates)) > 1 and not cost.undecided:
        sentences.append(_cheapest(group, row.best, cost.best))
    return " ".join(sentences)


def _values(group: Group, metric: Metric, names: Sequence[str]) -> str:
    """Write the medians of strategies, with their intervals."""
    shown = []
    for name in names:
        found = group.estimate(name, metric)
        if found is None:
            continue
        words = metric.show(found.median)
        if found.low is not None and found.high is not None:
            low, high = digits(found.low * metric.factor), digits(found.high * metric.factor)
            words += f" ({low} to {high})"
        shown.append(words if len(names) == 1 else f"{name} {words}")
    return ", ".join(shown)


def _cost(group: Group, names: Sequence[str]) -> str:
    """Say what the best cost."""
    of_each = []
    for name in names:
        traffic = group.estimate(name, BYTES)
        sent = "no" if traffic is None else f"{BYTES.show(traffic.median)} of"
        of_each.append(
            f"{'It' if len(names) == 1 else name} costs {_work(group, name)}, {sent} traffic, and "
            f"{_memory(group, name)}."
        )
    return " ".join(of_each)


def _memory(group: Group, name: str) -> str:
    """Describe a strategy's extra memory, where it can be told from noise."""
    sides = []
    for side, metric in (("primary", PRIMARY_MEMORY), ("secondary", SECONDARY_MEMORY)):
        found = group.estimate(name, metric)
        if found is not None and _least(found) > 0:
            sides.append(f"{metric.show(found.median)} on the {side}")
    return f"memory of {' and '.join(sides)}" if sides else "no memory that can be told from noise"


def _least(found: Estimate) -> float:
    return min(found.median, found.median if found.low is None else found.low)


def _work(group: Group, name: str) -> str:
    """Describe a strategy's degradation, which noise can make less than nothing."""
    found = group.estimate(name, DEGRADATION)
    if found is None:
        return "an unknown share of the guest's work"
    if _least(found) <= 0:
        return "none of the guest's work that can be told from noise"
    return f"{DEGRADATION.show(found.median)} of the guest's work"


def _cheapest(group: Group, best: Sequence[str], cheapest: Sequence[str]) -> str:
    """Compare those that wait least with those that cost the guest least."""
    if set(best) & set(cheapest):
        if len(cheapest) == 1:
            return f"No other costs as little work as {cheapest[0]}."
        others = [name for name in cheapest if name not in best]
        also = f"; {_list(others)} cannot be told from it" if others and len(best) == 1 else ""
        return f"None costs less work{also}."
    least = _values(group, DEGRADATION, cheapest)
    verb = "costs" if len(cheapest) == 1 else "tie in costing"
    return f"{_list(cheapest)} {verb} less work: {least}."


def notes(comparison: Findings) -> list[str]:
    """Say how much was measured, and what is doubtful."""
    found = []
    if comparison.missing:
        total = len(comparison.cells) * comparison.settings.rounds
        found.append(f"{total - comparison.missing} of {total} measurements were made.")
    rounds = min(group.rounds() for group in comparison.groups())
    if rounds == 1:
        found.append("One round has no intervals, so it names no winner.")
    elif rounds >= 2:
        found.append(
            f"Figures are medians of rounds, at least {rounds}, with {100 * CONFIDENCE:.0f} % "
            "bootstrap intervals; where intervals overlap there is a tie."
        )
    if 2 <= rounds < FEW_ROUNDS:
        chance = 100 * chance_of_a_false_winner(rounds)
        found.append(
            f"With {rounds} rounds, two strategies that are equal are told apart by chance in "
            f"{chance:.0f} % of comparisons; more rounds make it less."
        )
    drifted = [str(cell) for cell in comparison.cells if comparison.drifted(cell)]
    if drifted:
        found.append(
            f"* The rate of memcpy beside it differed by more than {100 * DRIFT_LIMIT:.0f} % from "
            f"the median, so its figures are doubtful: {'; '.join(drifted)}."
        )
    not_held = [str(cell) for cell in comparison.cells if not comparison.held(cell)]
    if not_held:
        found.append(
            "† The link did not hold its rate within 3 %, so its figures are those of a slower "
            f"link: {'; '.join(not_held)}."
        )
    return found


def model_notes(judge: Judge) -> list[str]:
    """Say what the marks of predictions mean, and which are not judged."""
    found = []
    if judge.predicted:
        meaning = "predicted value, and its error against the median"
        found = [f"Models: {meaning}. ! The error exceeds its bound: {_bounds()}. ? Not judged."]
    for reason, cells in judge.doubts().items():
        found.append(f"Models are not judged, because {reason}: {'; '.join(map(str, cells))}.")
    if without := judge.without_model():
        found.append(f"There is no model of {'; '.join(map(str, without))}.")
    return found


def _bounds() -> str:
    pause, traffic = BOUNDS["pause_p50_ms"], BOUNDS["bytes_per_s"]
    others, latency = BOUNDS["degradation"], BOUNDS["latency_p50_ms"]
    return (
        f"traffic {100 * traffic.share:.0f} %, pause {100 * pause.share:.0f} % or "
        f"{pause.least:g} ms, degradation {100 * others.share:.0f} % or "
        f"{100 * others.least:g} % of all work, output latency {100 * latency.share:.0f} %"
    )


def _plain(metric: Metric) -> str:
    """Name a metric in a sentence: the median of the pause."""
    return "median output latency" if metric is LATENCY else "median pause"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
